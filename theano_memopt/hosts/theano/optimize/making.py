"""How functions are made: hooks around Theano's FunctionMaker and Function.copy. install/patches.py puts them there.

    FunctionMaker.__init__   optimizes: the optimization is told the linker, the graph of a copy gets the settings of its original
    FunctionMaker.create     starts the linker: a graph out of a pickle is given the pass before
    Function.copy            makes a FunctionGraph without any features

The optimization gets a graph and nothing else from Theano. What it must know of the function that is being made is noted for the
thread that makes it: other threads make functions meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from types import FrameType
from typing import Any, Callable, Iterator, List, Optional, Tuple

from theano.compile import mode as modes
from theano.gof import DestroyHandler

from theano_memopt.hosts.theano.optimize import pickles
from theano_memopt.hosts.theano.optimize.feature import MemReuse, feature_of
from theano_memopt.hosts.theano.optimize.optimizer import linked, making_in
from theano_memopt.hosts.theano.read.source_lines import asked_by_theano, frames, line_of_program

listeners: List[Callable[[Any], None]] = []
"""Each is called with every function that is made in this process, in any thread: for the report on a whole program."""


class _Telling(threading.local):
    """Is a function that this thread makes told of? One that is made to be measured is no function of the program."""

    on = True


_telling = _Telling()


@contextlib.contextmanager
def untold() -> Iterator[None]:
    """No listener is told of the functions that this thread makes meanwhile."""
    before, _telling.on = _telling.on, False
    try:
        yield
    finally:
        _telling.on = before


def copied_untold(function: Any) -> Any:
    """The same function over a copy of its graph, with the same shared variables."""
    with untold():
        return function.copy(name=function.name, profile=False)


class _Copied(threading.local):
    """Features of the functions that this thread copies, the innermost last."""

    features: Tuple[MemReuse, ...] = ()


_copied = _Copied()


def maker_init(original: Any, maker: Any, *args: Any, **kwargs: Any) -> Any:
    fgraph = kwargs.get("fgraph")
    if _copied.features and fgraph is not None and feature_of(fgraph) is None:
        if not any(isinstance(feature, DestroyHandler) for feature in fgraph._features):
            fgraph.attach_feature(DestroyHandler())  # it alone makes a node that overwrites an input wait for the input's readers
        fgraph.attach_feature(_copied.features[-1].for_a_copy())
    mode = kwargs["mode"] if "mode" in kwargs else args[2] if len(args) > 2 else None
    with making_in(modes.get_mode(mode), functools.partial(_who_asks, kwargs.get("name"), sys._getframe(1))):
        return original(maker, *args, **kwargs)


def _who_asks(name: Optional[str], innermost: FrameType) -> Optional[str]:
    """The user's name for the function that is being made, and the line that asks for it; None if Theano makes it for itself."""
    stack = list(frames(innermost))
    if asked_by_theano(stack):
        return None
    line = line_of_program(stack)
    if not name or os.path.isabs(name):  # Theano names a function after the path of the line
        return line or "a function"
    return f"{name} ({line})" if line else name


def maker_create(original: Any, maker: Any, *args: Any, **kwargs: Any) -> Any:
    pickles.given_again(maker)
    with linked():
        function = original(maker, *args, **kwargs)
    for listener in listeners if _telling.on else ():
        listener(function)
    return function


def function_copy(original: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    feature = feature_of(function.maker.fgraph)
    if feature is None:
        return original(function, *args, **kwargs)
    with _copying(feature):
        return original(function, *args, **kwargs)


@contextlib.contextmanager
def _copying(feature: MemReuse) -> Iterator[None]:
    before = _copied.features
    _copied.features = (*before, feature)
    try:
        yield
    finally:
        _copied.features = before

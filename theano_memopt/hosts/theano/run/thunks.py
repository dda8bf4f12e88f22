"""The one wrapper of thunks, and the one way to look at a single machine from outside.

    thunk      what Theano's machine calls to run a node; it answers what it still asks for, and nothing when it has run
    around     a function that is called in place of a thunk, with the node and the thunk, and answers what the thunk answered

`watching` is for measuring. It holds for the machines that the calling thread makes for one graph while it is open. Other threads
and other graphs compile as ever.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import Any, Callable, ContextManager, Iterator, List, Sequence, Tuple

Around = Callable[[Any, Any], Any]


class _Watched(threading.local):
    """Of this thread: graph and `around`, the innermost last."""

    graphs: Tuple[Tuple[Any, Around], ...] = ()


_watched = _Watched()


def watching(fgraph: Any, around: Around) -> ContextManager[None]:
    """Machines that this thread makes for this graph meanwhile call `around` in place of each thunk."""
    return _watching((*_watched.graphs, (fgraph, around)))


def watched_now() -> Callable[[], ContextManager[None]]:
    """What is open in this thread, to be opened again where a machine of the same function is made later."""
    return functools.partial(_watching, _watched.graphs)


@contextlib.contextmanager
def _watching(graphs: Tuple[Tuple[Any, Around], ...]) -> Iterator[None]:
    before, _watched.graphs = _watched.graphs, graphs
    try:
        yield
    finally:
        _watched.graphs = before


def watched(fgraph: Any, nodes: Sequence[Any], thunks: Sequence[Any]) -> Sequence[Any]:
    """The thunks of a machine that is being made: as they are, or wrapped where `watching` is open."""
    for graph, around in _watched.graphs:
        if graph is fgraph:
            thunks = wrapped_all(nodes, thunks, around)
    return thunks


def streamline(original: Any, fgraph: Any, thunks: Any, order: Any, *args: Any, **kwargs: Any) -> Any:
    """Theano's maker of machines for the linkers that are not virtual machines."""
    return original(fgraph, watched(fgraph, order, thunks), order, *args, **kwargs)


def wrapped_all(nodes: Sequence[Any], thunks: Sequence[Any], around: Around) -> List[Any]:
    return [wrapped(thunk, functools.partial(around, node, thunk)) for node, thunk in zip(nodes, thunks)]


def followed(thunk: Any, then: Callable[[], None]) -> Any:
    """A thunk, and a call after it has run. A lazy op that asks for more has not run yet."""

    def run() -> Any:
        asked_for = thunk()
        if not asked_for:
            then()
        return asked_for

    return wrapped(thunk, run)


def wrapped(thunk: Any, run: Any) -> Any:
    """`run` in place of the thunk, with what a machine reads of a thunk. A thunk of C code is then called through Python."""
    for name in ("lazy", "inputs", "outputs"):
        if hasattr(thunk, name):
            setattr(run, name, getattr(thunk, name))
    return run

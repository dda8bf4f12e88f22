"""Watches what a program compiles and calls: one row per compiled function, for the report at the end of a run.

    FunctionMaker.create   ->  a row
    Function.__call__      ->  calls, time; at the first call the shapes, and with them the report

The program is left alone: arguments, results and errors pass through, and nothing of it is kept alive. What goes wrong
while a report is made is told in its row.
"""

from __future__ import annotations

import functools
import os
import sys
import time
import weakref
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import theano
from theano.compile import function_module

import theano_memopt
from theano_memopt.hosts.theano.explain import THEANO, explain, name_of
from theano_memopt.report.model import Report

OURS = os.path.dirname(os.path.abspath(theano_memopt.__file__))


@dataclass
class Row:
    name: str
    function: Any
    """A weak reference."""
    inside: str = ""
    """Where it runs, if the program does not call it itself."""
    calls: int = 0
    seconds: float = 0.0
    report: Optional[Report] = None
    why: str = ""
    """Why there is no report."""
    looked: bool = False

    def look(self, arguments: Tuple[Any, ...]) -> None:
        """Make the report while the function is there."""
        function = self.function()
        if self.looked or function is None:
            return
        self.looked = True
        try:
            self.report = explain(function, *arguments)
        except Exception as trouble:  # told in the row: a report must not end the program that it is about
            self.why = f"{trouble}" if isinstance(trouble, ValueError) else f"{type(trouble).__name__}: {trouble}"


class Observer:
    """All rows of one run."""

    def __init__(self) -> None:
        self.rows: List[Row] = []

    def install(self) -> None:
        create, call = function_module.FunctionMaker.create, function_module.Function.__call__
        observer = self

        @functools.wraps(create)
        def created(maker: Any, *args: Any, **kwargs: Any) -> Any:
            function = create(maker, *args, **kwargs)
            observer.note(function)
            return function

        @functools.wraps(call)
        def called(function: Any, *args: Any, **kwargs: Any) -> Any:
            row = function.__dict__.get("mem_reuse_row")
            if row is None:
                return call(function, *args, **kwargs)
            start = time.perf_counter()
            try:
                return call(function, *args, **kwargs)
            finally:
                row.seconds += time.perf_counter() - start
                row.calls += 1
                if not row.looked:
                    row.look(given(function, args, kwargs))

        function_module.FunctionMaker.create = created
        function_module.Function.__call__ = called

    def note(self, function: Any) -> None:
        where, inside = _where()
        name = name_of(function) if getattr(function, "name", None) else where
        row = Row(name, weakref.ref(function), inside)
        function.mem_reuse_row = row
        self.rows.append(row)

    def finish(self) -> List[Row]:
        for row in self.rows:
            row.look(())
            if not row.looked:
                row.why = "never called, and no longer there"
        return self.rows


def choose(order: Optional[str], storage: Optional[str]) -> None:
    """The flags of a run; None leaves what the environment says."""
    for name, value in (("order", order), ("storage", storage)):
        if value is not None:
            setattr(theano.config.mem_reuse, name, value)


def given(function: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Any, ...]:
    """The arguments of a call by position, in a form that tells shapes; () where they cannot be matched."""
    values = list(args)
    for entry, container in list(zip(function.maker.inputs, function.input_storage))[len(args) :]:
        if container.implicit or entry.name not in kwargs:
            break
        values.append(kwargs[entry.name])
    return tuple(np.asarray(value) if isinstance(value, (tuple, list)) else value for value in values)


def _where() -> Tuple[str, str]:
    """The place in the program that compiles, and whether Theano itself does so for a Scan."""
    frame = sys._getframe(2)
    inside = ""
    while frame is not None:
        file = os.path.abspath(frame.f_code.co_filename)
        if os.path.basename(file) == "scan_op.py":
            inside = "inside a Scan"
        if not file.startswith((THEANO + os.sep, OURS + os.sep)):
            return f"{os.path.basename(file)}:{frame.f_lineno}", inside
        frame = frame.f_back
    return "function", inside

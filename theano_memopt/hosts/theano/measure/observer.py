"""Notes the functions that a program compiles and calls: one row per compiled function, for the report at the end of a run.

    FunctionMaker.create   ->  a row
    Function.__call__      ->  calls, time; at the first call the shapes, and with them the report

The program runs as without it: arguments, results and errors pass through, and a row keeps no function alive. An error in the making
of a report is written into its row.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

import theano_memopt
from theano_memopt.hosts.theano.explain import explain, name_of
from theano_memopt.hosts.theano.install import patches
from theano_memopt.hosts.theano.optimize import making
from theano_memopt.hosts.theano.read.source_lines import THEANO
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
    left: bool = False
    """Is this the copy of a row in a child process, which nobody reads?"""

    def look(self, arguments: Tuple[Any, ...]) -> None:
        """Make the report while the function is there."""
        function = self.function()
        if self.looked or function is None:
            return
        self.looked = True
        try:
            self.report = explain(function, *arguments)
        except Exception as trouble:  # noted in the row: a report must not end the program that it describes
            self.why = f"{trouble}" if isinstance(trouble, ValueError) else f"{type(trouble).__name__}: {trouble}"


class Observer:
    """All rows of one run."""

    def __init__(self) -> None:
        self.rows: List[Row] = []

    def start(self) -> None:
        """From now on every function that is made gets a row, and its calls are counted there."""
        making.listeners.append(self.note)
        patches.wrap(patches.OBSERVED)
        os.register_at_fork(after_in_child=self.leave)

    def leave(self) -> None:
        """In a child by fork: whoever reads the rows is the parent, so nothing is noted any more."""
        making.listeners.remove(self.note)
        for row in self.rows:
            row.left = True

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


def function_call(original: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    row = function.__dict__.get("mem_reuse_row")
    if row is None or row.left:
        return original(function, *args, **kwargs)
    start = time.perf_counter()
    try:
        return original(function, *args, **kwargs)
    finally:
        row.seconds += time.perf_counter() - start
        row.calls += 1
        if not row.looked:
            row.look(given(function, args, kwargs))


def given(function: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Any, ...]:
    """The arguments of a call by position, as arrays, whose shapes a report needs. They end where one cannot be matched."""
    values = list(args)
    for entry, container in list(zip(function.maker.inputs, function.input_storage))[len(args) :]:
        if container.implicit or entry.name not in kwargs:
            break
        values.append(kwargs[entry.name])
    return tuple(np.asarray(value) if isinstance(value, (tuple, list)) else value for value in values)


def _where() -> Tuple[str, str]:
    """File and line in the program that compile a function, and whether Theano compiles it for a Scan."""
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

"""Notes the functions that a program compiles and calls: one row per compiled function, for the report at the end of a run.

    FunctionMaker.create   ->  a row
    Function.__call__      ->  calls, their time, and the planning in them; at the first call the shapes, and with them the report, of the
                               function and of those in its Scans

The program runs as without it: arguments, results and errors pass through, and a row keeps no function alive. An error in the making
of a report is written into its row. A function that Theano compiles for itself has none: to build a Scan it makes one that nobody calls, and to
draw random numbers one that multiplies matrices.
"""

from __future__ import annotations

import copy
import os
import time
import tracemalloc
import weakref
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from theano_memopt import progress
from theano_memopt.hosts.theano.explain import NoPlan, name_of, with_scans
from theano_memopt.hosts.theano.install import patches
from theano_memopt.hosts.theano.measure.one_call import measure
from theano_memopt.hosts.theano.optimize import making
from theano_memopt.hosts.theano.read.source_lines import THEANO, asked_by_theano, frames, line_of_program
from theano_memopt.report.model import Report

FOR_OPS = (os.path.join(THEANO, "scan_module", "scan_op.py"), os.path.join(THEANO, "compile", "builders.py"))
"""Ops that run a function of their own: Scan, OpFromGraph."""


@dataclass
class Row:
    name: str
    function: Any
    """A weak reference."""
    inside: bool = False
    """Does an op run it, and not the program itself?"""
    measured: bool = False
    """Is the first call to be measured?"""
    calls: int = 0
    seconds: float = 0.0
    """Of the calls, without what follows."""
    planning: float = 0.0
    """Seconds inside calls in which they were planned for, and linked anew."""
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
            for found, report in with_scans(function, *arguments):
                row = row_of(found)
                if row is not None and (row is self or not row.looked):
                    row.report, row.looked = replace(report, name=row.name, sizes_of=report.sizes_of.replace("given", "the first call")), True
            if self.measured and self.report is not None and self.calls:
                self.report = _measured(self.report, function, arguments)
        except NoPlan as none:
            self.why = none.reason
        except Exception as trouble:  # noted in the row: a report must not end the program that it describes
            self.why = f"{trouble}" if isinstance(trouble, ValueError) else f"{type(trouble).__name__}: {trouble}"


class Observer:
    """All rows of one run."""

    def __init__(self, measured: bool = False) -> None:
        self.rows: List[Row] = []
        self.measured = measured
        self._named: Counter[str] = Counter()

    def start(self) -> None:
        """From now on every function that is made gets a row, and its calls are counted there."""
        making.listeners.append(self.note)
        patches.wrap(patches.OBSERVED)
        progress.tell()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.leave)

    def leave(self) -> None:
        """In a child by fork: whoever reads the rows is the parent, so nothing is noted any more."""
        if self.note in making.listeners:  # a child may fork, too
            making.listeners.remove(self.note)
        for row in self.rows:
            row.left = True

    def note(self, function: Any) -> None:
        stack = list(frames())
        inside = any(file in FOR_OPS for file, _ in stack)
        if asked_by_theano(stack) and not inside:
            return
        row = Row(self._unique(_name(function, stack)), weakref.ref(function), inside, self.measured)
        function.mem_reuse_row = row
        self.rows.append(row)

    def _unique(self, name: str) -> str:
        self._named[name] += 1
        return name if self._named[name] == 1 else f"{name} ({self._named[name]})"

    def finish(self) -> List[Row]:
        for row in sorted(self.rows, key=lambda row: row.inside):  # a function tells of those in its Scans, at the sizes that come from it
            row.look(())
            if not row.looked:
                row.why = "never called, and no longer there when the program ended"
        return self.rows


def row_of(function: Any) -> Optional[Row]:
    return function.__dict__.get("mem_reuse_row")


def function_call(original: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    row = row_of(function)
    if row is None or row.left:
        return original(function, *args, **kwargs)
    start, planned = time.perf_counter(), progress.planned_for()
    try:
        return original(function, *args, **kwargs)
    finally:
        planned = progress.planned_for() - planned
        row.planning += planned
        row.seconds += time.perf_counter() - start - planned
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


def _measured(report: Report, function: Any, arguments: Tuple[Any, ...]) -> Report:
    """The report with one more call measured, of a twin on copies; where it cannot be, with a note that says why."""
    if tracemalloc.is_tracing():
        return replace(report, notes=(*report.notes, "Not measured: the program uses tracemalloc itself."))
    try:
        with making.untold():  # of what the measured call makes, too
            return replace(report, measured=measure(function, *copy.deepcopy(arguments)))
    except Exception as trouble:
        return replace(report, notes=(*report.notes, f"Not measured: {type(trouble).__name__}: {trouble}"))


def _name(function: Any, stack: List[Tuple[str, int]]) -> str:
    """The user's name, or the line of the program that compiles it: Theano puts its own line there where it compiles for a caller."""
    name = str(getattr(function, "name", None) or "")
    if name and not os.path.isabs(name):
        return name
    if name and not name.startswith(THEANO + os.sep):
        return name_of(function)
    return line_of_program(stack) or "function"

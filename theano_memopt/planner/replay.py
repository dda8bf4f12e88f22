"""THE accounting of sequences in which tasks may run more than once: is it legal, how high does it go, what does it cost?

    a run reads of each value the newest copy that is intact; what it writes are new copies
    a copy lies in memory of its own, or, if it is a view or made in place, in that of the copy that it was made from
    an in-place result destroys all other copies that lie in that memory
    memory is there from the run that makes it to the last run that reads from it or writes into it;
    the memory of the newest intact copy of a kept value to the end; that of given values counts 0

    height   =  bytes that are there while a step runs         peak  =  the greatest height

A sequence is legal if every task runs at least once, one that may not run again exactly once, and none before those it
comes `after`; if whatever a run reads is there, intact; and if every kept value is there at the end.

Slow and obvious, and written apart from everything that plans: a plan is believed because this file says so.

>>> from theano_memopt.planner.program import worked_program
>>> program = worked_program()
>>> replay(program, (0, 1, 2, 3, 4))
Replayed(heights=(8, 9, 17, 17, 10), peak=17, seconds=5.0, again=(), extra_seconds=0.0)
>>> replay(program, (0, 1, 2, 3, 0, 4))                      # `expand` runs again
Replayed(heights=(8, 9, 9, 9, 9, 10), peak=10, seconds=6.0, again=((0, 1),), extra_seconds=1.0)
>>> replay(program, (0, 2, 1, 3, 4))
Traceback (most recent call last):
    ...
theano_memopt.planner.certificate.Rejected: not-there: step 1, 'blow_up', reads 's', which nothing has made
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.program import Program


@dataclass(frozen=True)
class Replayed:
    heights: Tuple[int, ...]
    peak: int
    seconds: float
    again: Tuple[Tuple[int, int], ...]
    """The tasks that run again, and how often beyond the first time."""
    extra_seconds: float
    """What running them again costs."""


@dataclass
class _Memory:
    size: int
    made: int
    last: int
    holds: List[int]
    """Values of which this memory holds an intact copy."""


def replay(program: Program, sequence: Sequence[int]) -> Replayed:
    """Run the sequence on paper. Raises `Rejected` where it is not legal."""
    runs = _count_runs(program, sequence)
    pieces = _walk(program, sequence)
    heights = tuple(sum(piece.size for piece in pieces if piece.made <= step <= piece.last) for step in range(len(sequence)))
    seconds = math.fsum(program.tasks[task].seconds for task in sequence)
    again = tuple((t, runs[t] - 1) for t in range(len(program.tasks)) if runs[t] > 1)
    extra = math.fsum(program.tasks[t].seconds * count for t, count in again)
    return Replayed(heights, max(heights, default=0), seconds, again, extra)


def _count_runs(program: Program, sequence: Sequence[int]) -> Dict[int, int]:
    for step, t in enumerate(sequence):
        if not 0 <= t < len(program.tasks):
            raise Rejected("unknown-task", f"step {step} names task {t}, which does not exist")
    runs = Counter(sequence)
    for t, task in enumerate(program.tasks):
        if runs[t] == 0:
            raise Rejected("left-out", f"task {task.label!r} never runs")
        if runs[t] > 1 and not task.again:
            raise Rejected("not-again", f"task {task.label!r} runs {runs[t]} times and may not run again")
    return runs


def _walk(program: Program, sequence: Sequence[int]) -> List[_Memory]:
    """All memory that the sequence uses, and from which step to which."""
    values = program.values
    pieces: List[_Memory] = []
    copies: List[List[_Memory]] = [[] for _ in values]  # for each value the memories that hold an intact copy, newest last
    for v, value in enumerate(values):
        if value.producer is None:
            copies[v].append(_Memory(0, 0, 0, [v]))
    for step, task in enumerate(sequence):
        _check_it_may_run(program, sequence, step, copies)
        here = program.tasks[task]
        for v in here.reads:
            copies[v][-1].last = step
        places = {v: copies[values[v].lies_in][-1] for v in here.writes if values[v].lies_in is not None}  # type: ignore[index]
        for v in here.writes:
            if values[v].overwrites is not None:
                for lost in places[v].holds:
                    copies[lost].remove(places[v])
                places[v].holds.clear()
        for v in here.writes:
            if v not in places:
                places[v] = _Memory(values[v].size, step, step, [])
                pieces.append(places[v])
            if v in places[v].holds:  # a view made anew of the same memory
                copies[v].remove(places[v])
            else:
                places[v].holds.append(v)
            copies[v].append(places[v])
    for v, value in enumerate(values):
        if value.keep:
            if not copies[v]:
                raise Rejected("not-kept", f"kept value {value.label!r} is not there at the end")
            copies[v][-1].last = len(sequence) - 1
    return pieces


def _check_it_may_run(program: Program, sequence: Sequence[int], step: int, copies: Sequence[Sequence[_Memory]]) -> None:
    here = program.tasks[sequence[step]]
    done = set(sequence[:step])
    for first in here.after:
        if first not in done:
            raise Rejected("too-early", f"step {step}, {here.label!r}, comes before the first run of {program.tasks[first].label!r}")
    for v in here.reads:
        if not copies[v]:
            made = program.values[v].producer is None or program.values[v].producer in done
            why = "which was overwritten" if made else "which nothing has made"
            raise Rejected("overwritten" if made else "not-there", f"step {step}, {here.label!r}, reads {program.values[v].label!r}, {why}")

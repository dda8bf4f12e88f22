"""`profile`: one measured call, planned beside measured.

The call runs in a twin of the function over copies of the shared variables, so it trains nothing. Some calls are made to fill
caches. The last one is measured, from an empty start.

    tracemalloc before a thunk | its highest | after it | before the next thunk     ->  Step
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from array import array
from dataclasses import replace
from typing import Any, Dict, List, Tuple

import numpy as np
from theano.tensor import TensorType

from theano_memopt.hosts.theano.explain import BadUse, arguments_by_position, compiled, decided, explain
from theano_memopt.hosts.theano.measure import peaks
from theano_memopt.hosts.theano.measure.memory import kept_bytes, shared_values
from theano_memopt.hosts.theano.measure.twins import twin
from theano_memopt.hosts.theano.optimize.feature import feature_of
from theano_memopt.hosts.theano.read.costs import signature_of
from theano_memopt.report.model import Profile, Step
from theano_memopt.report.printable import PrintableComparison

FIELDS = 6
WARM = 3
"""Calls before the one that is measured: caches fill in the first, and an arena is laid out in the second and third."""


def profile(function: Any, *arguments: Any, **named: Any) -> PrintableComparison:
    """Measure one call with these arguments, arrays by position or by the names of the inputs, and put it beside the plan. The function's
    own state is left alone.

    >>> import theano_memopt, theano, theano.tensor as tt, numpy as np
    >>> x = tt.dmatrix("x")
    >>> function = theano.function([x], tt.exp(tt.dot(x, x)).sum(), mode=theano_memopt.mode("FAST_RUN"))
    >>> comparison = theano_memopt.profile(function, np.ones((200, 200)))
    >>> comparison.planned_peak, 320_000 <= comparison.profile.peak < 330_000
    (320008, True)
    """
    function = compiled(function)
    arguments = arguments_by_position(function, arguments, named)
    if any(isinstance(argument, tuple) for argument in arguments):
        raise BadUse("profile measures a real call: it needs arrays, not shapes")
    function = decided(function, arguments)
    report = explain(function, *arguments)
    measured = measure(function, *arguments)
    return PrintableComparison(replace(report, measured=measured), measured)


def measure(function: Any, *arguments: Any) -> Profile:
    feature = feature_of(function.maker.fgraph)
    assert feature is not None  # explain raises where the pass is off
    nodes = feature.annotation(function.maker.fgraph).reading.nodes
    recorder = _Recorder({node: t for t, node in enumerate(nodes)})
    measured = twin(function, recorder.around, copies_of_shared=True)
    for _ in range(WARM):
        measured(*arguments)
    getattr(measured.fn, "release", lambda: None)()
    for variable, cell in measured.fn.storage_map.items():
        if variable.owner is not None:
            cell[0] = None
    gc.collect()
    old = shared_values(measured)
    tracemalloc.start()
    try:
        recorder.begin()
        start = time.perf_counter()
        result = measured(*arguments)
        seconds = time.perf_counter() - start
        last = tracemalloc.get_traced_memory()[0]
        del result
        gc.collect()
        kept = kept_bytes(measured, old)
    finally:
        tracemalloc.stop()
    steps = recorder.steps(last)
    return Profile(steps, max((step.highest for step in steps), default=0), kept, seconds, recorder.costs())


class _Recorder:
    """Notes six numbers per thunk in an array that exists before the call: the noting allocates nothing that is measured."""

    def __init__(self, index: Dict[Any, int]) -> None:
        self.index = index
        self.rows = array("q", [0] * (FIELDS * len(index)))
        self.count = 0
        self.start = 0
        self.least: Dict[Any, float] = {}
        self.signatures: Dict[Any, str] = {}

    def begin(self) -> None:
        self.count = 0
        self.start = tracemalloc.get_traced_memory()[0]

    def around(self, node: Any, thunk: Any) -> Any:
        if not tracemalloc.is_tracing():
            return self._timed(node, thunk)
        places = [_place(cell[0]) for cell in thunk.outputs]
        before, lift, _held = peaks.count_anew()
        began = time.perf_counter_ns()
        asked_for = thunk()
        spent = time.perf_counter_ns() - began
        after, highest = tracemalloc.get_traced_memory()
        if not asked_for and self.count < len(self.index):
            at = FIELDS * self.count
            self.rows[at] = self.index[node]
            self.rows[at + 1], self.rows[at + 2], self.rows[at + 3] = before, after - lift, highest - lift
            self.rows[at + 4], self.rows[at + 5] = _made(places, thunk), spent
            self.count += 1
        return asked_for

    def _timed(self, node: Any, thunk: Any) -> Any:
        began = time.perf_counter()
        asked_for = thunk()
        spent = time.perf_counter() - began
        if not asked_for:
            self.least[node] = min(spent, self.least.get(node, spent))
            cells = zip([*node.inputs, *node.outputs], [*thunk.inputs, *thunk.outputs])
            shapes = {v: np.shape(cell[0]) for v, cell in cells if isinstance(v.type, TensorType)}
            self.signatures[node] = signature_of(node, lambda v: shapes[v])
        return asked_for

    def costs(self) -> Tuple[Tuple[str, float], ...]:
        found: Dict[str, List[float]] = {}
        for node, signature in self.signatures.items():
            found.setdefault(signature, []).append(self.least[node])
        return tuple((signature, statistics.median(times)) for signature, times in sorted(found.items()))

    def steps(self, last: int) -> Tuple[Step, ...]:
        """`last`: what was traced after the call, the result still held."""
        rows = [tuple(self.rows[FIELDS * i : FIELDS * (i + 1)]) for i in range(self.count)]
        rests = [row[1] for row in rows[1:]] + [last]
        found: List[Step] = []
        for (task, before, after, highest, made, spent), rest in zip(rows, rests):
            live = (before - self.start, after - self.start, rest - self.start, highest - self.start)
            found.append(Step(task, *live, made, spent / 1e9))
        return tuple(found)


def _place(value: Any) -> Any:
    return np.byte_bounds(value) if isinstance(value, np.ndarray) else None


def _made(before: List[Any], thunk: Any) -> int:
    """Bytes of the results that lie at a new place: neither in one of the inputs nor where the cell's array lay before."""
    taken = [place for place in (_place(cell[0]) for cell in thunk.inputs) if place is not None]
    made = 0
    for was, cell in zip(before, thunk.outputs):
        place = _place(cell[0])
        if place is None or was == place or any(place[0] < high and low < place[1] for low, high in taken):
            continue
        made += cell[0].nbytes
    return made

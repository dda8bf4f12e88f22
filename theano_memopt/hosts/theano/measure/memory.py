"""Runs a compiled function and measures it: bytes by tracemalloc, tasks by recording.

NumPy reports every array to tracemalloc, so the traced peak of one call is what the call really held at once, above what
was held before. Python's own objects count too: some kilobytes per call.

Words
    peak        most bytes held at once during a call, above those held before it
    reserved    bytes still held after a call, the result and new values of shared variables apart: with allow_gc=False the
                intermediates
    workspace   bytes that an op allocates while it runs and lets go before it is done
"""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from theano_memopt.hosts.theano.measure import peaks
from theano_memopt.hosts.theano.measure.twins import twin


@dataclass(frozen=True)
class Held:
    peak: int
    reserved: int


def held_by_call(function: Any, *arguments: Any) -> Held:
    """Bytes of one call of a function that was called before. `peak` is from an empty start: stored intermediates count."""
    function(*arguments)
    for variable, cell in function.fn.storage_map.items():
        if variable.owner is not None:  # Function.free would empty the shared variables as well
            cell[0] = None
    release = getattr(function.fn, "release", None)
    if release is not None:
        release()
    gc.collect()
    old = shared_values(function)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = function(*arguments)
        peak = tracemalloc.get_traced_memory()[1] - before
        del result
        gc.collect()
        reserved = kept_bytes(function, old)
    finally:
        tracemalloc.stop()
    return Held(peak, reserved)


def shared_values(function: Any) -> Dict[int, Any]:
    """The values in the function's inputs now, shared variables included, by id. The answer holds them, so no id is used again."""
    return {id(c.storage[0]): c.storage[0] for c in function.input_storage}


def kept_bytes(function: Any, old: Dict[int, Any]) -> int:
    """Bytes of arrays that were made since tracing began and live still, new values of shared variables apart."""
    new = {id(v): v for c in function.input_storage for v in [c.storage[0]] if isinstance(v, np.ndarray) and v.base is None}
    return _array_bytes() - sum(v.nbytes for key, v in new.items() if key not in old)


def _array_bytes() -> int:
    """Bytes of arrays that were made since tracing began and live still."""
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    statistics = tracemalloc.take_snapshot().filter_traces([domain]).statistics("filename")
    return sum(entry.size for entry in statistics)


def recorded_order(function: Any, *arguments: Any, **keywords: Any) -> List[Any]:
    """The nodes in the order in which one call really runs them, whatever the machine.

    The C machine calls Python for a thunk that has no C function of its own.
    """
    ran: List[Any] = []

    def around(node: Any, thunk: Any) -> Any:
        asked_for = thunk()
        if not asked_for:  # a lazy op that asks for more has not run yet
            ran.append(node)
        return asked_for

    twin(function, around)(*arguments, **keywords)
    return ran


def workspaces(function: Any, *arguments: Any) -> Dict[Any, int]:
    """For each node the most bytes that were held while it ran, above what was held before and after."""
    found: Dict[Any, int] = {}

    def around(node: Any, thunk: Any) -> Any:
        if not tracemalloc.is_tracing():
            return thunk()
        before, lift, _held = peaks.count_anew()
        asked_for = thunk()
        after, peak = tracemalloc.get_traced_memory()
        found[node] = max(0, peak - lift - max(before, after - lift))
        return asked_for

    measured = twin(function, around)
    measured(*arguments)
    tracemalloc.start()
    try:
        measured(*arguments)
    finally:
        tracemalloc.stop()
    return found


def same_bits(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Equal dtype, shape and every bit, NaN included."""
    return len(one) == len(other) and all(_bits(a) == _bits(b) for a, b in zip(one, other))


def _bits(value: Any) -> Tuple[str, Tuple[int, ...], bytes]:
    array = np.asarray(value)
    return (str(array.dtype), array.shape, array.tobytes())

"""Runs a compiled function and measures it: bytes by tracemalloc, tasks by recording.

NumPy reports every array to tracemalloc, so the traced peak of one call is what the call really held at once, on top of
what was there before. Python's own objects are counted too: some kilobytes per call.

Words
    peak        most bytes held at once during a call, above those held before it
    reserved    bytes still held after a call, the result apart: with allow_gc=False the intermediates
    workspace   what an op allocates for itself while it runs
"""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np


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
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = function(*arguments)
        peak = tracemalloc.get_traced_memory()[1] - before
        del result
        gc.collect()
        reserved = _array_bytes()
    finally:
        tracemalloc.stop()
    return Held(peak, reserved)


def _array_bytes() -> int:
    """Bytes of arrays that were made since tracing began and live still."""
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    statistics = tracemalloc.take_snapshot().filter_traces([domain]).statistics("filename")
    return sum(entry.size for entry in statistics)


def recorded_order(function: Any, *arguments: Any, **keywords: Any) -> List[Any]:
    """The nodes in the order in which one call really runs them, whatever the machine.

    Every thunk is replaced by one that notes its node. The C machine calls Python for thunks that have no C function of
    their own, so a new machine is made over the noting thunks; the function itself is left as it was.
    """
    ran: List[Any] = []
    with noting_thunks(ran):
        twin = function.maker.create([c.storage[0] if not c.implicit else c for c in function.input_storage])
    twin(*arguments, **keywords)
    return ran


class noting_thunks:  # noqa: N801 - used like a function
    """While this is open, every thunk that an op makes notes its node in `ran` when it is run."""

    def __init__(self, ran: List[Any]) -> None:
        self.ran = ran
        self.patched: List[Tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        from theano.gof import link, vm

        self._wrap(vm.VM_Linker, "make_vm", 2)
        self._wrap_streamline(link)

    def __exit__(self, *error: Any) -> None:
        for place, name, original in reversed(self.patched):
            setattr(place, name, original)

    def _wrap(self, place: Any, name: str, thunks_at: int) -> None:
        original = getattr(place, name)
        self.patched.append((place, name, original))
        ran = self.ran

        def make_vm(linker: Any, nodes: Any, thunks: Any, *rest: Any) -> Any:
            return original(linker, nodes, [_noting(ran, node, thunk) for node, thunk in zip(nodes, thunks)], *rest)

        setattr(place, name, make_vm)

    def _wrap_streamline(self, link: Any) -> None:
        original = link.streamline
        self.patched.append((link, "streamline", original))
        from theano.gof import cc

        self.patched.append((cc.link, "streamline", original))
        ran = self.ran

        def streamline(fgraph: Any, thunks: Any, order: Any, *rest: Any, **keywords: Any) -> Any:
            return original(fgraph, [_noting(ran, node, thunk) for node, thunk in zip(order, thunks)], order, *rest, **keywords)

        link.streamline = streamline


def _noting(ran: List[Any], node: Any, thunk: Any) -> Any:
    def noted() -> Any:
        asked_for = thunk()
        if not asked_for:  # a lazy op that asks for more has not run yet
            ran.append(node)
        return asked_for

    noted.lazy = getattr(thunk, "lazy", False)  # type: ignore[attr-defined]
    noted.inputs = getattr(thunk, "inputs", None)  # type: ignore[attr-defined]
    noted.outputs = getattr(thunk, "outputs", None)  # type: ignore[attr-defined]
    return noted


def workspaces(function: Any, *arguments: Any) -> Dict[Any, int]:
    """For each node the most bytes that were held while it ran, above what was held before and what it left behind."""
    found: Dict[Any, int] = {}
    with _measuring_thunks(found):
        twin = function.maker.create([c.storage[0] if not c.implicit else c for c in function.input_storage])
    twin(*arguments)
    tracemalloc.start()
    try:
        found.clear()
        twin(*arguments)
    finally:
        tracemalloc.stop()
    return found


class _measuring_thunks(noting_thunks):  # noqa: N801
    def __init__(self, found: Dict[Any, int]) -> None:
        super().__init__([])
        self.found = found

    def _wrap(self, place: Any, name: str, thunks_at: int) -> None:
        original = getattr(place, name)
        self.patched.append((place, name, original))
        found = self.found

        def make_vm(linker: Any, nodes: Any, thunks: Any, *rest: Any) -> Any:
            return original(linker, nodes, [_measuring(found, node, thunk) for node, thunk in zip(nodes, thunks)], *rest)

        setattr(place, name, make_vm)


def _measuring(found: Dict[Any, int], node: Any, thunk: Any) -> Any:
    def measured() -> Any:
        if not tracemalloc.is_tracing():
            return thunk()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        asked_for = thunk()
        after, peak = tracemalloc.get_traced_memory()
        found[node] = max(0, peak - max(before, after))
        return asked_for

    measured.lazy = getattr(thunk, "lazy", False)  # type: ignore[attr-defined]
    measured.inputs = thunk.inputs  # type: ignore[attr-defined]
    measured.outputs = thunk.outputs  # type: ignore[attr-defined]
    return measured


def same_bits(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Equal dtype, shape and every bit, NaN included."""
    return len(one) == len(other) and all(_bits(a) == _bits(b) for a, b in zip(one, other))


def _bits(value: Any) -> Tuple[str, Tuple[int, ...], bytes]:
    array = np.asarray(value)
    return (str(array.dtype), array.shape, array.tobytes())

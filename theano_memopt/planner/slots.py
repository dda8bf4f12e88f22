"""Cells: buffers of one kind share storage when their lives do not touch.

    step      0    1    2    3    4
    L         ########                      cell 0
    R              ########                 cell 1: L still lives when R is born
    S                        ######         cell 0 again: L died before S was born

Words
    cell      storage for one kind, as large as its largest tenant
    tenant    a buffer that lives in a cell; tenants of one cell never live at the same step
    held      a cell between two tenants: nobody lives in it, yet its bytes are taken
    eager     cells are made at their first tenant and given back after their last, instead of kept for the whole run

Lemma. Taking buffers by birth and giving each *any* free cell of its kind, a new cell is made only when every cell
of the kind has a living tenant. So the number of cells of a kind equals the most of its buffers that are alive at
once, and no plan can have fewer.

>>> from theano_memopt.planner.model import worked_example
>>> share_cells(worked_example(), (0, 2, 1, 3, 4))
Slots(cell_of=(0, 0, 1, 2, 3), cells=(('6B', 6), ('1B', 1), ('1B', 1), ('1B', 1)), reserved_bytes=9, eager=False)
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Any, Collection, Dict, List, Optional, Sequence, Tuple

from theano_memopt.planner.liveness import lives
from theano_memopt.planner.load import Span, loads
from theano_memopt.planner.model import Graph


class StorageRejected(ValueError):
    """A storage plan that does not hold. `reason` is a fixed word, the message names the buffers."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


@dataclass(frozen=True)
class Slots:
    cell_of: Tuple[Optional[int], ...]
    """For each buffer its cell; None for inputs, which belong to the caller, and for workspaces, which belong to their tasks."""
    cells: Tuple[Tuple[str, int], ...]
    """For each cell its kind and its bytes."""
    reserved_bytes: int
    """Bytes of all cells; with `eager` the most bytes of cells and workspaces that are live or held at one step."""
    eager: bool = False


def share_cells(graph: Graph, order: Sequence[int], may_share: Optional[Collection[int]] = None, peak_limit: Optional[int] = None) -> Slots:
    """A cell for every buffer that a task writes; those not in `may_share` get a cell of their own.

    With `peak_limit` the cells are eager, and none is held open where that would push live + held bytes over the limit;
    a limit below the peak of the order itself is refused.
    """
    spans = lives(graph, order)
    sharing = set(range(len(graph.buffers))) if may_share is None else set(may_share)
    if peak_limit is None:
        return _fewest_cells(graph, spans, sharing)
    return _cells_under_limit(graph, spans, len(order), sharing, peak_limit)


def check_slots(
    graph: Graph, order: Sequence[int], slots: Slots, may_share: Optional[Collection[int]] = None, peak_limit: Optional[int] = None
) -> None:
    """Raise StorageRejected unless `slots` is sound for this order. Trusts nothing but the lives of the buffers."""
    spans = lives(graph, order)
    if len(slots.cell_of) != len(graph.buffers):
        raise StorageRejected("wrong-length", f"{len(slots.cell_of)} entries for {len(graph.buffers)} buffers")
    tenants: Dict[int, List[int]] = {c: [] for c in range(len(slots.cells))}
    for b, cell in enumerate(slots.cell_of):
        buffer = graph.buffers[b]
        if buffer.producer is None:
            if cell is not None:
                raise StorageRejected("input-in-cell", f"{buffer.label!r} belongs to the caller, yet it is given cell {cell}")
            continue
        if buffer.is_workspace:
            if cell is not None:
                raise StorageRejected("workspace-in-cell", f"{buffer.label!r} belongs to its task, yet it is given cell {cell}")
            continue
        if cell is None:
            raise StorageRejected("no-cell", f"{buffer.label!r} is written and has no cell")
        if isinstance(cell, bool) or not isinstance(cell, int) or cell not in tenants:
            raise StorageRejected("unknown-cell", f"{buffer.label!r} is given cell {cell!r}, which does not exist")
        if slots.cells[cell][0] != buffer.kind:
            raise StorageRejected("wrong-kind", f"{buffer.label!r} of kind {buffer.kind!r} is given a cell of kind {slots.cells[cell][0]!r}")
        if slots.cells[cell][1] < buffer.size:
            raise StorageRejected("too-small", f"{buffer.label!r} has {buffer.size} bytes, its cell {slots.cells[cell][1]}")
        tenants[cell].append(b)
    for cell, inside in tenants.items():
        if not inside:
            raise StorageRejected("empty-cell", f"nobody lives in cell {cell}")
        if slots.cells[cell][1] != max(graph.buffers[b].size for b in inside):
            raise StorageRejected("wrong-size", f"cell {cell} is not as large as its largest tenant")
        inside.sort(key=lambda b: spans[b])
        for first, second in zip(inside, inside[1:]):
            names = f"{graph.buffers[first].label!r} and {graph.buffers[second].label!r}"
            if spans[second][0] < spans[first][1]:
                raise StorageRejected("overlap", f"{names} share cell {cell} and both live at step {spans[second][0]}")
            if may_share is not None and not (first in may_share and second in may_share):
                raise StorageRejected("may-not-share", f"{names} share cell {cell}, and one of them may not")
    _check_load(graph, order, slots, spans, [(spans[inside[0]][0], spans[inside[-1]][1]) for inside in tenants.values()], peak_limit)


def _check_load(graph: Graph, order: Sequence[int], slots: Slots, spans: Sequence[Span], held: Sequence[Span], peak_limit: Optional[int]) -> None:
    """`held[c]`: from the birth of the first tenant of cell c to the death of its last."""
    if peak_limit is not None and not slots.eager:
        raise StorageRejected("not-eager", "a peak limit asks for cells that are given back after their last tenant")
    reserved = sum(size for _, size in slots.cells)
    if slots.eager:
        change = [0] * (len(order) + 1)
        for (born, dead), (_, size) in zip(held, slots.cells):
            change[born] += size
            change[dead] -= size
        for buffer, (born, dead) in zip(graph.buffers, spans):
            if buffer.is_workspace:
                change[born] += buffer.size
                change[dead] -= buffer.size
        reserved = load = 0
        for step, task in enumerate(order):
            load += change[step]
            reserved = max(reserved, load)
            if peak_limit is not None and load > peak_limit:
                raise StorageRejected("over-limit", f"{graph.tasks[task].label!r} runs with {load} bytes live or held, the limit is {peak_limit}")
    if slots.reserved_bytes != reserved:
        raise StorageRejected("wrong-total", f"{slots.reserved_bytes} bytes are claimed, the cells take {reserved}")


class _Cells:
    """Cells under construction."""

    def __init__(self, buffers: int) -> None:
        self.cell_of: List[Optional[int]] = [None] * buffers
        self.kinds: List[str] = []
        self.sizes: List[int] = []

    def open(self, kind: str) -> int:
        self.kinds.append(kind)
        self.sizes.append(0)
        return len(self.kinds) - 1

    def move_in(self, buffer: int, size: int, cell: int) -> None:
        self.cell_of[buffer] = cell
        self.sizes[cell] = max(self.sizes[cell], size)

    def finish(self, reserved: int, eager: bool) -> Slots:
        return Slots(tuple(self.cell_of), tuple(zip(self.kinds, self.sizes)), reserved, eager)


def _by_birth(graph: Graph, spans: Sequence[Span]) -> List[int]:
    """Produced buffers by birth; at one step the largest first, so that it takes the largest free cell."""
    produced = [b for b, buffer in enumerate(graph.buffers) if buffer.producer is not None and not buffer.is_workspace]
    return sorted(produced, key=lambda b: (spans[b][0], -graph.buffers[b].size, b))


def _fewest_cells(graph: Graph, spans: Sequence[Span], sharing: Collection[int]) -> Slots:
    made = _Cells(len(graph.buffers))
    order = _by_birth(graph, spans)
    deaths = sorted((b for b in order if b in sharing), key=lambda b: (spans[b][1], b))
    free: Dict[str, List[Tuple[int, int]]] = {}  # per kind (size, cell), sorted
    buried = 0
    for b in order:
        buffer = graph.buffers[b]
        while buried < len(deaths) and spans[deaths[buried]][1] <= spans[b][0]:
            cell = made.cell_of[deaths[buried]]
            assert cell is not None  # it died before b was born, so it was born before b
            insort(free.setdefault(made.kinds[cell], []), (made.sizes[cell], cell))
            buried += 1
        waiting = free.get(buffer.kind)
        if b in sharing and waiting:
            # The smallest that is large enough, else the largest: growing it costs least.
            made.move_in(b, buffer.size, waiting.pop(min(bisect_left(waiting, (buffer.size, -1)), len(waiting) - 1))[1])
        else:
            made.move_in(b, buffer.size, made.open(buffer.kind))
    return made.finish(sum(made.sizes), eager=False)


def _cells_under_limit(graph: Graph, spans: Sequence[Span], steps: int, sharing: Collection[int], limit: int) -> Slots:
    """Equal sizes of one kind share, so that live + held is all that a cell ever takes.

    A newcomer is offered the cell that fell empty last. If holding that one open would go over the limit, then so
    would holding any other, now or for a later newcomer: they were empty for longer, and the load only grows.
    """
    load = _load(graph, spans, steps)
    if steps and load.max() > limit:
        raise ValueError(f"the order itself needs {load.max()} bytes, more than the limit of {limit}")
    made = _Cells(len(graph.buffers))
    order = _by_birth(graph, spans)
    deaths = sorted((b for b in order if b in sharing), key=lambda b: (spans[b][1], b))
    empty: Dict[Tuple[str, int], List[Tuple[int, int]]] = {}  # per kind and size (empty since, cell), the latest on top
    buried = 0
    for b in order:
        buffer, (born, _) = graph.buffers[b], spans[b]
        while buried < len(deaths) and spans[deaths[buried]][1] <= born:
            gone = deaths[buried]
            cell = made.cell_of[gone]
            assert cell is not None  # it died before b was born, so it was born before b
            empty.setdefault((graph.buffers[gone].kind, graph.buffers[gone].size), []).append((spans[gone][1], cell))
            buried += 1
        waiting = empty.get((buffer.kind, buffer.size)) if b in sharing else None
        if waiting:
            since, cell = waiting.pop()
            if since == born or load[since:born].max() + buffer.size <= limit:
                load[since:born] += buffer.size
                made.move_in(b, buffer.size, cell)
                continue
            waiting.clear()
        made.move_in(b, buffer.size, made.open(buffer.kind))
    return made.finish(int(load.max()) if steps else 0, eager=True)


def _load(graph: Graph, spans: Sequence[Span], steps: int) -> Any:
    """Live bytes per step, as whole numbers of any size where 64 bits could overflow."""
    import numpy  # here, for `order` does without it and begins at once

    sizes = [buffer.size for buffer in graph.buffers]
    return numpy.array(loads(sizes, spans, steps), dtype=numpy.int64 if 2 * sum(sizes) < 2**62 else object)

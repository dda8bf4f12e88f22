"""Which variables share a cell, and which cell: planned on the order in force, and checked before anything is bound.

With gc an empty cell that is held open for the next tenant must not raise the peak; without gc every cell stays, so only
their number counts. A variable shares only if its op fills the array in the cell (another op would leave an array of its own there), if its end is
certain, and if it is in C order in every call.
"""

from __future__ import annotations

from typing import Any, List, Optional, Set, Tuple

from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.preallocated import writes_into_preallocated
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.model import Graph
from theano_memopt.planner.slots import Slots, check_slots, share_cells


def share(annotation: Annotation, sharing: Set[int], allow_gc: bool) -> Slots:
    """Cells for the planned order, held against the lives of their tenants before anything is bound."""
    reading, order = annotation.reading, annotation.schedule.order
    if not allow_gc:
        graph, slots = reading.cautious, share_cells(reading.cautious, order, sharing)
    else:
        graph, slots = reading.graph, share_cells(reading.graph, order, sharing, annotation.schedule.timeline.peak)
        if reading.scenarios:
            slots = _without_gaps(graph, order, slots)
    check_slots(graph, order, slots, sharing)
    return slots


def may_share(annotation: Annotation, linker: Any) -> Set[int]:
    reading = annotation.reading
    returned = set(linker.no_recycling) | set(linker.fgraph.outputs)
    sharing = set()
    for b, root in enumerate(reading.roots):
        if reading.cautious.buffers[b].pinned or b in reading.loose or any(v in returned for v in reading.names[b]):
            continue
        if not writes_into_preallocated(root.owner) or (linker.allow_gc and b in reading.doubtful):
            continue  # another op allocates its result for itself: a cell held open for it would cost memory
        if b not in reading.steady:
            continue  # the other tenant's array may lie in another layout than the one that stock Theano would make
        sharing.add(b)
    return sharing


def _without_gaps(graph: Graph, order: Tuple[int, ...], slots: Slots) -> Slots:
    """Where sizes are assumed, an empty cell is not held open: at the true sizes that could raise the peak."""
    spans = lives(graph, order)
    cell_of: List[Optional[int]] = [None] * len(graph.buffers)
    cells: List[Tuple[str, int]] = []
    for inside in tenants(graph, order, slots):
        for before, b in zip([None, *inside], inside):
            if before is None or spans[before][1] != spans[b][0]:
                cells.append((graph.buffers[b].kind, 0))
            cell_of[b] = len(cells) - 1
            cells[-1] = (cells[-1][0], max(cells[-1][1], graph.buffers[b].size))
    return Slots(tuple(cell_of), tuple(cells), timeline(graph, order).peak, eager=True)


def tenants(graph: Graph, order: Tuple[int, ...], slots: Slots) -> List[List[int]]:
    """For each cell the buffers in it, by birth."""
    spans = lives(graph, order)
    inside: List[List[int]] = [[] for _ in slots.cells]
    for b, cell in enumerate(slots.cell_of):
        if cell is not None:
            inside[cell].append(b)
    return [sorted(buffers, key=lambda b: spans[b][0]) for buffers in inside]

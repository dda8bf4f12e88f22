"""Which variables share a cell, and which cell: planned on the order in force, and checked before anything is bound.

With gc an empty cell that is held open for the next tenant must not raise the peak; without gc every cell stays, so only
their number counts. A variable shares only if its op fills the array in the cell (another op would leave an array of its own there), if its end is
certain, and if it is in C order in every call. With lazy ops, in the CVM and without gc, lives are counted in the steps of read/branches.py,
which hold whichever branches are taken; elsewhere what a lazy op has to do with has no certain end.

Where sizes are assumed, the function may run in another order once they are known (sized_call.py). Its thunks keep their cells, so the
tenants of a cell must live there in the same sequence in every order, the host's own included.

Words
    chain     the tenants of one cell, by birth
    tied      a graph with an edge from all that a tenant is needed for to the task that makes the next one
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace
from typing import Any, Callable, Dict, FrozenSet, List, Optional, Sequence, Set, Tuple

import theano

from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.preallocated import writes_into_preallocated
from theano_memopt.hosts.theano.read.branches import unrolled
from theano_memopt.hosts.theano.read.graph import Reading
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.load import Span
from theano_memopt.planner.model import Graph
from theano_memopt.planner.slots import Slots, check_slots, share_cells

Chains = Tuple[Tuple[int, ...], ...]


def share(annotation: Annotation, sharing: Set[int], allow_gc: bool) -> Slots:
    """Cells for the planned order, held against the lives of their tenants before anything is bound."""
    reading, order = annotation.reading, annotation.schedule.order
    if not allow_gc:
        graph, sequence = as_it_runs(annotation, reading.cautious)
        slots = share_cells(graph, sequence, sharing)
        check_slots(graph, sequence, slots, sharing)
        check_slots(reading.cautious, order, slots, sharing)
        return slots
    slots = share_cells(reading.graph, order, sharing, annotation.schedule.timeline.peak)
    if reading.scenarios:
        return along(reading.graph, order, _for_both(reading.graph, order, annotation.stock, chains(reading.graph, order, slots)), sharing)
    check_slots(reading.graph, order, slots, sharing)
    return slots


def along(graph: Graph, order: Sequence[int], known: Chains, sharing: Set[int]) -> Slots:
    """With gc, the cells of these chains in another order: checked as they are bound, then as they are used.

    A chain is cut in two where the empty cell, held open, would raise the peak at some sizes: its array is given back there, and the
    next tenant's op makes another one.
    """
    bound = _slots(graph, known)
    check_slots(graph, order, bound, sharing)
    held_for_nothing = _held_for_nothing(lives(graph, order))
    pieces = _cut(known, lambda before, b: graph.buffers[before].size != graph.buffers[b].size or not held_for_nothing(before, b))
    used = replace(_slots(graph, pieces), reserved_bytes=timeline(graph, order).peak, eager=True)
    check_slots(graph, order, used, sharing)
    return used


def _slots(graph: Graph, known: Chains) -> Slots:
    """Each chain in one cell, and every other buffer in a cell of its own."""
    inside = {b for chain in known for b in chain}
    alone = [(b,) for b, buffer in enumerate(graph.buffers) if buffer.producer is not None and not buffer.is_workspace and b not in inside]
    cell_of: List[Optional[int]] = [None] * len(graph.buffers)
    cells: List[Tuple[str, int]] = []
    for cell, chain in enumerate(sorted([*known, *alone])):
        for b in chain:
            cell_of[b] = cell
        cells.append((graph.buffers[chain[0]].kind, max(graph.buffers[b].size for b in chain)))
    return Slots(tuple(cell_of), tuple(cells), sum(size for _, size in cells))


# --- chains ----------------------------------------------------------------------------------------------------------


def chains(graph: Graph, order: Sequence[int], slots: Optional[Slots]) -> Chains:
    """The tenants of each cell that has several."""
    return () if slots is None else tuple(tuple(inside) for inside in tenants(graph, order, slots) if len(inside) > 1)


def tied(graph: Graph, known: Chains) -> Graph:
    """The graph in which no legal order lets two tenants of a chain live at once, or changes their sequence."""
    waits: Dict[int, Set[int]] = {}
    for chain in known:
        for before, b in zip(chain, chain[1:]):
            waits.setdefault(_producer(graph, b), set()).update(_needed_by(graph, before))
    if not waits:
        return graph
    tasks = [replace(task, after=tuple(sorted({*task.after, *waits.get(t, ())}))) for t, task in enumerate(graph.tasks)]
    return replace(graph, tasks=tuple(tasks))


def following(reading: Reading, graph: Graph, order: Sequence[int], slots: Slots) -> Dict[Any, Any]:
    """Variable -> the one that comes after it in its cell."""
    pairs = [pair for chain in chains(graph, order, slots) for pair in zip(chain, chain[1:])]
    return {reading.roots[before]: reading.roots[b] for before, b in pairs}


def _for_both(graph: Graph, order: Sequence[int], stock: Sequence[int], known: Chains) -> Chains:
    """The chains cut where the host's own order would break them, and where the empty cell would raise the peak at some sizes: a tie
    there forbids orders and saves nothing."""
    held_for_nothing = _held_for_nothing(lives(graph, order))
    position = {task: step for step, task in enumerate(stock)}

    def broken(before: int, b: int) -> bool:
        in_sequence = max(position[t] for t in _needed_by(graph, before)) < position[_producer(graph, b)]
        return not in_sequence or not held_for_nothing(before, b)

    return _cut(known, broken)


def _held_for_nothing(spans: Sequence[Span]) -> Callable[[int, int], bool]:
    """Asks of two tenants: can the cell stay open between them without raising the peak, whatever the sizes?

    Yes, if everything that dies between them is dead before anything is born there. At a step in between, if nothing was born yet, what
    lives also lived when the first of the two did. Else nothing dies any more, and what lives also lives when the second one does. Either
    way there is a step with as much, and one of the two on top.
    """
    births = sorted(born for born, dead in spans if born < dead)
    deaths = sorted(dead for born, dead in spans if born < dead)

    def asked(before: int, b: int) -> bool:
        empty, filled = spans[before][1], spans[b][0]
        first_birth = births[bisect_left(births, empty)]  # there is one: that of b
        last_death = deaths[bisect_right(deaths, filled) - 1]  # there is one: that of `before`
        return last_death == empty or first_birth >= last_death

    return asked


def _cut(known: Chains, between: Callable[[int, int], bool]) -> Chains:
    """The chains cut in two between two tenants of which this holds."""
    pieces: List[List[int]] = []
    for chain in known:
        pieces.append([chain[0]])
        for before, b in zip(chain, chain[1:]):
            if between(before, b):
                pieces.append([])
            pieces[-1].append(b)
    return tuple(tuple(piece) for piece in pieces if len(piece) > 1)


def _producer(graph: Graph, b: int) -> int:
    producer = graph.buffers[b].producer
    assert producer is not None  # what nobody makes belongs to the caller, and has no cell
    return producer


def _needed_by(graph: Graph, b: int) -> Tuple[int, ...]:
    """The tasks that must have run before another array may lie where this one lies."""
    return (_producer(graph, b), *graph.buffers[b].readers)


def may_share(annotation: Annotation, linker: Any) -> Set[int]:
    reading, loose = annotation.reading, loose_for(annotation, linker)
    returned = set(linker.no_recycling) | set(linker.fgraph.outputs)
    sharing = set()
    for b, root in enumerate(reading.roots):
        if reading.cautious.buffers[b].pinned or b in loose or any(v in returned for v in reading.names[b]):
            continue
        if not writes_into_preallocated(root.owner) or (linker.allow_gc and b in reading.doubtful):
            continue  # another op allocates its result for itself: a cell held open for it would cost memory
        if b not in reading.steady:
            continue  # the other tenant's array may lie in another layout than the one that stock Theano would make
        sharing.add(b)
    return sharing


def loose_for(annotation: Annotation, linker: Any) -> FrozenSet[int]:
    """Buffers whose end is not certain in the machine that this linker makes. Where the CVM takes nothing away from a cell, and the steps
    are known that it runs whichever branches are taken, lazy ops make no difference."""
    reading = annotation.reading
    return reading.untrusted if follows_steps(annotation, linker) else reading.loose


def as_it_runs(annotation: Annotation, cautious: Graph) -> Tuple[Graph, Sequence[int]]:
    """The graph and the order in which lives are counted, for storage that Theano never empties: that of `annotation`, or with lazy ops its
    steps. `cautious` is the cautious graph at any sizes."""
    steps = annotation.steps
    return (cautious, annotation.schedule.order) if steps is None else (unrolled(cautious, annotation.reading, steps), range(len(steps)))


def follows_steps(annotation: Annotation, linker: Any) -> bool:
    """Is storage planned for the steps of the CVM? With gc, a cell that is held open for what may not come would be held for nothing."""
    return not linker.allow_gc and in_steps(annotation, linker)


def in_steps(annotation: Annotation, linker: Any) -> bool:
    """Do the nodes run in the steps of the CVM? Theano has another machine in its place where it profiles the memory of functions that have
    no profile of their own."""
    another = theano.config.profile_memory and (theano.config.profile or theano.config.print_global_stats) and not linker.profile
    return annotation.steps is not None and not another


def tenants(graph: Graph, order: Tuple[int, ...], slots: Slots) -> List[List[int]]:
    """For each cell the buffers in it, by birth."""
    spans = lives(graph, order)
    inside: List[List[int]] = [[] for _ in slots.cells]
    for b, cell in enumerate(slots.cell_of):
        if cell is not None:
            inside[cell].append(b)
    return [sorted(buffers, key=lambda b: spans[b][0]) for buffers in inside]

"""Deliberately naive second opinions: slow, short, and written another way than what they judge."""

from __future__ import annotations

from itertools import permutations
from typing import Dict, FrozenSet, Iterator, List, Sequence, Tuple

from theano_memopt.planner.model import Graph


def peak_by_reference_counts(graph: Graph, order: Sequence[int]) -> int:
    """Run the order as an interpreter would: allocate a bytearray per buffer, drop it when its count of readers is 0."""
    held: Dict[int, bytearray] = {}
    readers_left = {b: len(buffer.readers) for b, buffer in enumerate(graph.buffers)}
    peak = 0
    for task in order:
        here = graph.tasks[task]
        assert all(b in held or graph.buffers[b].producer is None for b in here.reads), "read before it was written, or after it was freed"
        for b in here.writes:
            held[b] = bytearray(graph.buffers[b].size)
        peak = max(peak, sum(len(data) for data in held.values()))
        for b in here.reads:
            readers_left[b] -= 1
        for b in (*here.reads, *here.writes):
            if readers_left[b] == 0 and not graph.buffers[b].pinned:
                held.pop(b, None)
    return peak


def all_orders(graph: Graph) -> Iterator[Tuple[int, ...]]:
    """Every legal order, by trying every permutation."""
    for order in permutations(range(len(graph.tasks))):
        place = {task: i for i, task in enumerate(order)}
        if all(place[p] < place[t] for t in place for p in graph.predecessors[t]):
            yield order


def least_peak_by_all_orders(graph: Graph) -> int:
    """For 8 tasks or fewer. Built up prefix by prefix, so that illegal permutations are not walked."""
    best = [1 << 200]

    def extend(order: List[int]) -> None:
        if len(order) == len(graph.tasks):
            best[0] = min(best[0], peak_by_reference_counts(graph, order))
            return
        for task in range(len(graph.tasks)):
            if task not in order and all(p in order for p in graph.predecessors[task]):
                extend([*order, task])

    extend([])
    return best[0]


def least_peak_by_memo(graph: Graph) -> int:
    """For 14 tasks or fewer: the least peak to finish from each set of done tasks, remembered."""
    known: Dict[FrozenSet[int], int] = {}

    def live(done: FrozenSet[int]) -> int:
        return sum(
            b.size for b in graph.buffers if b.producer is not None and b.producer in done and (b.pinned or not all(r in done for r in b.readers))
        )

    def finish(done: FrozenSet[int]) -> int:
        if len(done) == len(graph.tasks):
            return 0
        if done not in known:
            known[done] = min(
                max(live(done) + sum(graph.buffers[b].size for b in graph.tasks[t].writes), finish(done | {t}))
                for t in range(len(graph.tasks))
                if t not in done and all(p in done for p in graph.predecessors[t])
            )
        return known[done]

    return finish(frozenset())

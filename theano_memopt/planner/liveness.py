"""THE accounting: which bytes are live when. Every planned peak of an order comes from this file (of a sequence with repeats: replay.py).

While a task runs, what it reads and what it writes are both live. A buffer is freed after its last reader, at once
if nobody reads it, never while it is pinned. Inputs count 0.

        live(S)  =  bytes of the buffers whose producer is in S and which are pinned or have a reader outside S
        height   =  live(S) + what the task allocates,  while a task runs from the set S of tasks done
        peak     =  the greatest height of an order

Lemma (used by every floor and by the search). `live` depends on the *set* of tasks done, not on their order, and it
is submodular over down-sets: live(X|Y) + live(X&Y) <= live(X) + live(Y).
Proof: a buffer counts [producer in S] - [producer and all readers in S]. The first term is modular, the second is an
"and" of memberships, hence supermodular; their difference is submodular, and so are sums with sizes >= 0.

>>> from theano_memopt.planner.model import worked_example
>>> graph = worked_example()
>>> timeline(graph, (0, 1, 2, 3, 4)).heights      # breadth first
(6, 12, 13, 8, 3)
>>> timeline(graph, (0, 2, 1, 3, 4)).peak         # depth first
8
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import AbstractSet, List, Sequence, Tuple

from theano_memopt.planner.load import loads
from theano_memopt.planner.model import Graph


@dataclass(frozen=True)
class Timeline:
    """Live bytes along an order: `heights[i]` while step i runs, `resting[i]` after it."""

    heights: Tuple[int, ...]
    resting: Tuple[int, ...]
    peak: int
    peak_step: int
    """The first step that reaches the peak; 0 for a graph with no tasks."""


def live_bytes(graph: Graph, done: AbstractSet[int]) -> int:
    """Bytes that are live when exactly the tasks in `done` have run. Slow and obvious: a sum over all buffers."""
    return sum(
        buffer.size
        for buffer in graph.buffers
        if buffer.producer is not None and buffer.producer in done and (buffer.pinned or any(reader not in done for reader in buffer.readers))
    )


class Walk:
    """A walk through the down-sets, one task at a time: the incremental form of `live_bytes`.

    >>> from theano_memopt.planner.model import worked_example
    >>> walk = Walk(worked_example())
    >>> walk.run(0), walk.live, walk.run(2), walk.live
    (6, 6, 7, 1)
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.live = 0
        self._unread = [len(buffer.readers) for buffer in graph.buffers]

    def frees(self, task: int) -> int:
        """Bytes that would be freed if `task` ran next."""
        buffers = self.graph.buffers
        here = self.graph.tasks[task]
        last_reads = sum(buffers[b].size for b in here.reads if self._unread[b] == 1 and not buffers[b].pinned and buffers[b].producer is not None)
        return last_reads + sum(buffers[b].size for b in here.writes if not buffers[b].readers and not buffers[b].pinned)

    def height(self, task: int) -> int:
        """Live bytes while `task` would run next."""
        return self.live + self.graph.allocates[task]

    def run(self, task: int) -> int:
        """Run `task`; answer the height while it ran."""
        height = self.height(task)
        self.live = height - self.frees(task)
        for b in self.graph.tasks[task].reads:
            self._unread[b] -= 1
        return height


def timeline(graph: Graph, order: Sequence[int]) -> Timeline:
    """The bytes along a legal order, from the lives of its buffers; the same numbers as a Walk."""
    spans = lives(graph, order)
    sizes = [buffer.size for buffer in graph.buffers]
    heights = loads(sizes, spans, len(order))
    # After a step, what dies with it is gone already. Inputs have the empty span (0, 0).
    resting = loads(
        sizes, ((born, dead if buffer.pinned or born == dead else dead - 1) for buffer, (born, dead) in zip(graph.buffers, spans)), len(order)
    )
    peak = max(heights, default=0)
    return Timeline(tuple(heights), tuple(resting), peak, heights.index(peak) if heights else 0)


def lives(graph: Graph, order: Sequence[int]) -> Tuple[Tuple[int, int], ...]:
    """For each buffer the half-open span of steps [born, dead) in which it is live; inputs get the empty span (0, 0)."""
    position = [0] * len(graph.tasks)
    for step, task in enumerate(order):
        position[task] = step
    step_of = position.__getitem__
    spans: List[Tuple[int, int]] = []
    for buffer in graph.buffers:
        if buffer.producer is None:
            spans.append((0, 0))
        elif buffer.pinned:
            spans.append((position[buffer.producer], len(order)))
        else:
            spans.append((position[buffer.producer], 1 + (max(map(step_of, buffer.readers)) if buffer.readers else position[buffer.producer])))
    return tuple(spans)


def peaks(graph: Graph, order: Sequence[int], sizes: Sequence[Sequence[int]]) -> Tuple[int, ...]:
    """The peak of a legal order under each row of `sizes`, one size per buffer: lives depend on the order alone.

    >>> from theano_memopt.planner.model import worked_example
    >>> graph = worked_example()
    >>> peaks(graph, graph.natural_order, [[b.size for b in graph.buffers], [2 * b.size for b in graph.buffers]])
    (13, 26)
    """
    spans = lives(graph, order)
    return tuple(max(loads(row, spans, len(order)), default=0) for row in sizes)

"""Better orders by pieces: take the steps around the peak out of an order and search for a better order of those alone.

What is done before the piece, and what is done after it, stay as they are; so the piece is a small graph of its own.

    before the piece:  live buffers that the piece reads, and nobody later      -> written by a task `so far`
                       other live buffers                                       -> a constant, on top of everything
    in the piece:      its tasks; what they write for later is pinned

Since sets of done tasks alone decide what is live (liveness.py), an order of the piece with a lower peak lowers the heights
of these steps in the whole order and changes no other.

>>> from theano_memopt.planner.model import worked_example
>>> walked = WalkedOrder(worked_example(), (0, 1, 2, 3, 4))
>>> piece = walked.cut_out(1, 4)                       # right, left_sum, right_sum; the left array is there
>>> piece.constant, [task.label for task in piece.graph.tasks]
(0, ['so far', 'right', 'left_sum', 'right_sum'])
>>> walked.put_back(piece, (0, 2, 1, 3))
>>> walked.order, walked.peak
([0, 2, 1, 3, 4], 8)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Set, Tuple

from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Buffer, Graph, Task


@dataclass(frozen=True)
class Piece:
    graph: Graph
    """Its task 0 is `so far`; task i + 1 stands for the i-th of `tasks`."""
    tasks: Tuple[int, ...]
    start: int
    constant: int
    """Bytes that are live from before the piece to after it."""


class WalkedOrder:
    """An order with its heights, which pieces can be cut out of and put back into at a cost that depends on the piece alone."""

    def __init__(self, graph: Graph, order: Sequence[int]) -> None:
        self.graph = graph
        self.order = list(order)
        walked = timeline(graph, order)
        self.heights = list(walked.heights)
        self.resting = list(walked.resting)
        self._position = {task: step for step, task in enumerate(order)}

    @property
    def peak(self) -> int:
        return max(self.heights, default=0)

    def highest_step(self) -> int:
        return self.heights.index(self.peak)

    def peak_outside(self, start: int, stop: int) -> int:
        return max(max(self.heights[:start], default=0), max(self.heights[stop:], default=0))

    def cut_out(self, start: int, stop: int) -> Piece:
        """The steps start, start + 1, ..., stop - 1 as a graph."""
        graph, position = self.graph, self._position
        tasks = tuple(self.order[start:stop])
        number = {task: i + 1 for i, task in enumerate(tasks)}
        buffers: List[Buffer] = []
        new_index: Dict[int, int] = {}
        dying = 0  # bytes that are live before the piece and not after it
        for b in sorted({b for task in tasks for b in (*graph.tasks[task].reads, *graph.tasks[task].writes)}):
            buffer = graph.buffers[b]
            if buffer.producer is None:
                continue
            born_before = position[buffer.producer] < start
            stays = buffer.pinned or any(position[reader] >= stop for reader in buffer.readers)
            if born_before and stays:
                continue  # counted in the constant
            dying += buffer.size if born_before else 0
            new_index[b] = len(buffers)
            readers = tuple(sorted(number[r] for r in buffer.readers if r in number))
            buffers.append(Buffer(buffer.size, buffer.kind, number.get(buffer.producer, 0), readers, stays, buffer.label))
        rows = [Task((), tuple(i for i, b in enumerate(buffers) if b.producer == 0), (), "so far")]
        for task in tasks:
            here = graph.tasks[task]
            needs: Set[int] = {number[p] for p in graph.predecessors[task] if p in number}
            reads = tuple(new_index[b] for b in here.reads if b in new_index)
            rows.append(Task(reads, tuple(new_index[b] for b in here.writes if b in new_index), (0, *sorted(needs)), here.label))
        before = self.resting[start - 1] if start else 0
        return Piece(Graph(tuple(rows), tuple(buffers), graph.sizes_from), tasks, start, before - dying)

    def put_back(self, piece: Piece, order_of_piece: Sequence[int]) -> None:
        """Run the piece in another order."""
        walked = timeline(piece.graph, order_of_piece)
        step = piece.start
        for task, height, resting in zip(order_of_piece, walked.heights, walked.resting):
            if task == 0:
                continue  # `so far` is nobody's step; it is always first
            self.order[step] = piece.tasks[task - 1]
            self.heights[step] = height + piece.constant
            self.resting[step] = resting + piece.constant
            self._position[self.order[step]] = step
            step += 1

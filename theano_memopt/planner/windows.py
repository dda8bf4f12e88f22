"""Better orders by pieces: take the steps around the peak out of an order and search for a better order of those alone.

What is done before the piece, and what is done after it, stay as they are; so the piece is a small graph of its own.

    before the piece:  live buffers that the piece reads, and nobody later      -> written by a task `so far`
                       other live buffers                                       -> a constant, on top of everything
    in the piece:      its tasks; what they write for later is pinned

Since sets of done tasks alone decide what is live (liveness.py), an order of the piece with a lower peak lowers the heights
of these steps in the whole order and changes no other.

>>> from theano_memopt.planner.model import worked_example
>>> piece = cut_out(worked_example(), (0, 1, 2, 3, 4), 1, 4)      # right, left_sum, right_sum; the left array is there
>>> piece.constant, [task.label for task in piece.graph.tasks]
(0, ['so far', 'right', 'left_sum', 'right_sum'])
>>> piece.put_back((0, 1, 2, 3, 4), (0, 2, 1, 3))
(0, 2, 1, 3, 4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Tuple

from theano_memopt.planner.model import Buffer, Graph, Task


@dataclass(frozen=True)
class Piece:
    graph: Graph
    """Its task 0 is `so far`; task i + 1 stands for the i-th of `tasks`."""
    tasks: Tuple[int, ...]
    start: int
    constant: int
    """Bytes that are live from before the piece to after it."""

    def put_back(self, order: Sequence[int], order_of_piece: Sequence[int]) -> Tuple[int, ...]:
        inside = [self.tasks[t - 1] for t in order_of_piece if t > 0]
        return (*order[: self.start], *inside, *order[self.start + len(inside) :])


def cut_out(graph: Graph, order: Sequence[int], start: int, stop: int) -> Piece:
    """The steps start, start + 1, ..., stop - 1 of the order as a graph."""
    tasks = tuple(order[start:stop])
    number = {task: i + 1 for i, task in enumerate(tasks)}
    before = set(order[:start])
    after = set(order[stop:])
    buffers: List[Buffer] = []
    new_index = {}
    constant = 0
    touched = sorted({b for task in tasks for b in (*graph.tasks[task].reads, *graph.tasks[task].writes)})
    for b in touched:
        buffer = graph.buffers[b]
        if buffer.producer is None:
            continue
        stays = buffer.pinned or any(reader in after for reader in buffer.readers)
        if buffer.producer in before and stays:
            continue  # counted in the constant
        readers = tuple(sorted(number[r] for r in buffer.readers if r in number))
        new_index[b] = len(buffers)
        buffers.append(Buffer(buffer.size, buffer.kind, number.get(buffer.producer, 0), readers, stays, buffer.label))
    for b, buffer in enumerate(graph.buffers):
        if b not in new_index and buffer.producer in before and (buffer.pinned or any(r in after or r in number for r in buffer.readers)):
            constant += buffer.size
    rows = [Task((), tuple(i for i, b in enumerate(buffers) if b.producer == 0), (), "so far")]
    for task in tasks:
        here = graph.tasks[task]
        needs = {number[p] for p in graph.predecessors[task] if p in number}
        reads = tuple(new_index[b] for b in here.reads if b in new_index)
        rows.append(Task(reads, tuple(new_index[b] for b in here.writes if b in new_index), (0, *sorted(needs)), here.label))
    return Piece(Graph(tuple(rows), tuple(buffers), graph.sizes_from), tasks, start, constant)

"""Cheap legal orders. None of them is best everywhere, so all of them compete.

    depth first      the youngest ready task: finish what was begun
    least growth     the ready task after which the fewest bytes more are live
    lowest height    the ready task that runs lowest; among equals the one that leaves least
    large first      depth first from the outputs, the needs that hold more coming first

>>> from theano_memopt.planner.model import worked_example
>>> from theano_memopt.planner.liveness import timeline
>>> {name: timeline(worked_example(), rule(worked_example())).peak for name, rule in RULES.items()}
{'depth first': 8, 'least growth': 8, 'lowest height': 8, 'large first': 8}
"""

from __future__ import annotations

import heapq
from typing import Callable, Dict, List, Sequence, Tuple

from theano_memopt.planner.model import Graph

Order = Tuple[int, ...]


def depth_first(graph: Graph) -> Order:
    return _greedy(graph, lambda task, born, allocates, frees: (-born, 0))


def least_growth(graph: Graph) -> Order:
    return _greedy(graph, lambda task, born, allocates, frees: (allocates - frees, -born))


def lowest_height(graph: Graph) -> Order:
    """Tasks that give back at least what they take go first; then whoever takes least."""
    return _greedy(graph, lambda task, born, allocates, frees: (0 if frees >= allocates else allocates, allocates - frees))


def large_first(graph: Graph) -> Order:
    """Walk up from the tasks that nobody needs; what weighs more (all that its ancestors hold at most) is made first."""
    weight = [0] * len(graph.tasks)
    for task in graph.natural_order:
        weight[task] = graph.allocates[task] + max((weight[p] for p in graph.predecessors[task]), default=0)
    order: List[int] = []
    state = bytearray(len(graph.tasks))
    roots = sorted((t for t in range(len(graph.tasks)) if not graph.successors[t]), key=lambda t: (weight[t], -t))
    stack = roots
    while stack:
        task = stack[-1]
        if state[task] == 0:
            state[task] = 1
            stack.extend(sorted((p for p in graph.predecessors[task] if state[p] == 0), key=lambda p: (weight[p], -p)))
        else:
            stack.pop()
            if state[task] == 1:
                state[task] = 2
                order.append(task)
    return tuple(order)


RULES: Dict[str, Callable[[Graph], Order]] = {
    "depth first": depth_first,
    "least growth": least_growth,
    "lowest height": lowest_height,
    "large first": large_first,
}


def _greedy(graph: Graph, key: Callable[[int, int, int, int], Tuple[int, int]]) -> Order:
    """Always the ready task with the least key(task, when it became ready, bytes it allocates, bytes it frees now).

    What a task frees changes only when it becomes the last reader of a buffer, so keys are kept in a heap and renewed then.
    """
    buffers = graph.buffers
    unread = [len(buffer.readers) for buffer in buffers]
    missing = [len(needs) for needs in graph.predecessors]
    frees = [sum(buffers[b].size for b in task.writes if not buffers[b].readers and not buffers[b].pinned) for task in graph.tasks]
    born = [0] * len(graph.tasks)
    done = bytearray(len(graph.tasks))
    heap: List[Tuple[Tuple[int, int], int, int]] = []

    def offer(task: int) -> None:
        heapq.heappush(heap, (key(task, born[task], graph.allocates[task], frees[task]), task, frees[task]))

    def may_free(b: int) -> bool:
        return unread[b] == 1 and not buffers[b].pinned and buffers[b].producer is not None

    for b, buffer in enumerate(buffers):
        if may_free(b):
            frees[buffer.readers[0]] += buffer.size
    for task, count in enumerate(missing):
        if count == 0:
            offer(task)
    order: List[int] = []
    while heap:
        _, task, known = heapq.heappop(heap)
        if done[task] or known != frees[task]:
            continue  # renewed since
        done[task] = 1
        order.append(task)
        for b in graph.tasks[task].reads:
            unread[b] -= 1
            if may_free(b):
                last = _the_other(buffers[b].readers, done)
                frees[last] += buffers[b].size
                if missing[last] == 0:
                    offer(last)
        for later in graph.successors[task]:
            missing[later] -= 1
            if missing[later] == 0:
                born[later] = len(order)
                offer(later)
    return tuple(order)


def _the_other(readers: Sequence[int], done: Sequence[int]) -> int:
    return next(reader for reader in readers if not done[reader])

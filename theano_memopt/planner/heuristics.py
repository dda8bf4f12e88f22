"""Cheap legal orders. None of them is best everywhere, so all of them compete.

    breadth first            first ready, first run
    youngest first           the task that became ready last: finish what was begun
    least growth first       the ready task after which the fewest bytes more are live
    lowest height first      a task that gives back what it takes, if there is one; else the one that takes least
    depth first              from each last task down: what it needs, then the task itself
    largest subtree first    the same, the need that holds most beyond its result coming first (the best post-order of a tree)
    heaviest path first      the same, the need at the end of the heaviest path coming first

>>> from theano_memopt.planner.model import worked_example
>>> from theano_memopt.planner.liveness import timeline
>>> {name: timeline(worked_example(), rule(worked_example())).peak for name, rule in RULES.items() if "height" in name or "breadth" in name}
{'breadth first': 13, 'lowest height first': 8}
"""

from __future__ import annotations

import heapq
from typing import Callable, Dict, Iterable, Iterator, List, Sequence, Tuple

from theano_memopt.planner.model import Graph
from theano_memopt.planner.search import scramble

Order = Tuple[int, ...]


def breadth_first(graph: Graph) -> Order:
    return _greedy(graph, lambda task, born, allocates, frees: (born, 0))


def youngest_first(graph: Graph) -> Order:
    return _greedy(graph, _youth)


def least_growth_first(graph: Graph) -> Order:
    return _greedy(graph, _growth)


def lowest_height_first(graph: Graph) -> Order:
    return _greedy(graph, _height)


def depth_first(graph: Graph) -> Order:
    return _post_order(graph, [0] * len(graph.tasks))


def largest_subtree_first(graph: Graph) -> Order:
    keeps = [sum(graph.buffers[b].size for b in task.writes if graph.buffers[b].readers or graph.buffers[b].pinned) for task in graph.tasks]
    needs = [0] * len(graph.tasks)
    for task in graph.natural_order:
        waiting = 0
        for part in sorted(graph.predecessors[task], key=lambda part: (keeps[part] - needs[part], part)):
            needs[task] = max(needs[task], waiting + needs[part])
            waiting += keeps[part]
        needs[task] = max(needs[task], waiting + graph.allocates[task])
    return _post_order(graph, [kept - needed for kept, needed in zip(keeps, needs)])


def heaviest_path_first(graph: Graph) -> Order:
    weight = [0] * len(graph.tasks)
    for task in graph.natural_order:
        weight[task] = -graph.allocates[task] + min((weight[p] for p in graph.predecessors[task]), default=0)
    return _post_order(graph, weight)


RULES: Dict[str, Callable[[Graph], Order]] = {
    "breadth first": breadth_first,
    "youngest first": youngest_first,
    "least growth first": least_growth_first,
    "lowest height first": lowest_height_first,
    "depth first": depth_first,
    "largest subtree first": largest_subtree_first,
    "heaviest path first": heaviest_path_first,
}


def with_ties_by_chance(graph: Graph, seed: int) -> Order:
    """One of the greedy rules, each seed the next one; equal tasks in an order of chance."""
    ties = [scramble((seed << 32) + task) for task in range(len(graph.tasks))]
    key = (_growth, _height, _youth)[seed % 3]
    return _greedy(graph, key, ties)


def in_parts(graph: Graph, parts: Sequence[int]) -> Order:
    """Part by part, lowest height first within each; `parts` has a number for each task, which no task that it needs exceeds."""
    return _greedy(graph, lambda task, born, allocates, frees: (parts[task], *_height(task, born, allocates, frees)))


def _growth(task: int, born: int, allocates: int, frees: int) -> Tuple[int, int]:
    return (allocates - frees, 0)


def _height(task: int, born: int, allocates: int, frees: int) -> Tuple[int, int]:
    return (0 if frees >= allocates else allocates, allocates - frees)


def _youth(task: int, born: int, allocates: int, frees: int) -> Tuple[int, int]:
    return (-born, 0)


def _post_order(graph: Graph, rank: Sequence[int]) -> Order:
    """From each last task down, lower ranks first. Without recursion, so that a graph may be deeper than Python's stack."""

    def by_rank(tasks: Iterable[int]) -> Iterator[int]:
        return iter(sorted(tasks, key=lambda task: (rank[task], task)))

    order: List[int] = []
    seen = bytearray(len(graph.tasks))
    for last in by_rank(t for t in range(len(graph.tasks)) if not graph.successors[t]):
        seen[last] = 1
        stack = [(last, by_rank(graph.predecessors[last]))]
        while stack:
            task, rest = stack[-1]
            part = next((part for part in rest if not seen[part]), None)
            if part is None:
                order.append(task)
                stack.pop()
            else:
                seen[part] = 1
                stack.append((part, by_rank(graph.predecessors[part])))
    return tuple(order)


def _greedy(graph: Graph, key: Callable[[int, int, int, int], Tuple[int, ...]], ties: Sequence[int] = ()) -> Order:
    """Always the ready task with the least key(task, when it became ready, bytes it allocates, bytes it frees now).

    Of equal ones it is the one with the least in `ties`, or by number. What a task frees changes only when it becomes the last
    reader of a buffer, so keys are kept in a heap and renewed then.
    """
    buffers = graph.buffers
    unread = [len(buffer.readers) for buffer in buffers]
    missing = [len(needs) for needs in graph.predecessors]
    frees = [sum(buffers[b].size for b in task.writes if not buffers[b].readers and not buffers[b].pinned) for task in graph.tasks]
    born = [0] * len(graph.tasks)
    done = bytearray(len(graph.tasks))
    ties = ties or range(len(graph.tasks))
    heap: List[Tuple[Tuple[int, ...], int, int, int]] = []

    def offer(task: int) -> None:
        heapq.heappush(heap, (key(task, born[task], graph.allocates[task], frees[task]), ties[task], task, frees[task]))

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
        _, _, task, known = heapq.heappop(heap)
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

"""Orders that any scheduler could make in a few lines: what the planner has to beat on every graph.

They share nothing with the planner but the accounting, so that a mistake in its heuristics cannot flatter it.

>>> from theano_memopt.planner.model import worked_example
>>> best_of_all(worked_example())
('depth first', 8)
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Callable, Dict, List, Sequence, Tuple

from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph


def depth_first(graph: Graph) -> List[int]:
    """From each last task down: what it needs, in the order in which it names it, then the task itself."""
    return _post_order(graph, lambda task: graph.predecessors[task])


def breadth_first(graph: Graph) -> List[int]:
    """First ready, first run."""
    missing = [len(needs) for needs in graph.predecessors]
    ready = deque(task for task, count in enumerate(missing) if count == 0)
    order = []
    while ready:
        task = ready.popleft()
        order.append(task)
        for later in graph.successors[task]:
            missing[later] -= 1
            if missing[later] == 0:
                ready.append(later)
    return order


def least_growth_first(graph: Graph) -> List[int]:
    """Of the ready tasks always the one after which the least is live."""
    buffers = graph.buffers
    missing = [len(needs) for needs in graph.predecessors]
    unread = [len(buffer.readers) for buffer in buffers]

    def growth(task: int) -> int:
        freed = sum(buffers[b].size for b in graph.tasks[task].reads if unread[b] == 1 and not buffers[b].pinned and buffers[b].producer is not None)
        return sum(buffers[b].size for b in graph.tasks[task].writes if buffers[b].readers or buffers[b].pinned) - freed

    heap = [(growth(task), task) for task, count in enumerate(missing) if count == 0]
    heapq.heapify(heap)
    order: List[int] = []
    done = [False] * len(missing)
    while heap:
        grows, task = heapq.heappop(heap)
        if done[task] or grows != growth(task):
            continue  # an entry from before some buffer came down to its last reader; a newer one is in the heap
        done[task] = True
        order.append(task)
        for b in graph.tasks[task].reads:
            unread[b] -= 1
            if unread[b] == 1:
                for reader in buffers[b].readers:
                    if not done[reader] and missing[reader] == 0:
                        heapq.heappush(heap, (growth(reader), reader))
        for later in graph.successors[task]:
            missing[later] -= 1
            if missing[later] == 0:
                heapq.heappush(heap, (growth(later), later))
    return order


def largest_subtree_first(graph: Graph) -> List[int]:
    """Post-order in which the part that needs most beyond its result goes first: the best post-order of a tree."""
    need = [0] * len(graph.tasks)
    left = [sum(graph.buffers[b].size for b in task.writes if graph.buffers[b].readers or graph.buffers[b].pinned) for task in graph.tasks]
    sorted_needs: List[Sequence[int]] = [()] * len(graph.tasks)
    for task in graph.natural_order:
        parts = sorted(graph.predecessors[task], key=lambda part: (left[part] - need[part], part))
        sorted_needs[task] = parts
        waiting = highest = 0
        for part in parts:
            highest = max(highest, waiting + need[part])
            waiting += left[part]
        need[task] = max(highest, waiting + graph.allocates[task])
    return _post_order(graph, lambda task: sorted_needs[task], key=lambda task: (left[task] - need[task], task))


RULES: Dict[str, Callable[[Graph], List[int]]] = {
    "depth first": depth_first,
    "breadth first": breadth_first,
    "least growth first": least_growth_first,
    "largest subtree first": largest_subtree_first,
}


def peaks(graph: Graph) -> Dict[str, int]:
    """The peak of every rule's order."""
    return {name: timeline(graph, rule(graph)).peak for name, rule in RULES.items()}


def best_of_all(graph: Graph) -> Tuple[str, int]:
    """The rule with the lowest peak (the first of equals), and that peak."""
    reached = peaks(graph)
    name = min(reached, key=lambda rule: reached[rule])
    return name, reached[name]


def _post_order(graph: Graph, needs: Callable[[int], Sequence[int]], key: Callable[[int], Tuple[int, int]] = lambda task: (0, task)) -> List[int]:
    """Depth first without recursion, so that a graph may be deeper than Python's stack."""
    order: List[int] = []
    seen = [False] * len(graph.tasks)
    for last in sorted((task for task in range(len(graph.tasks)) if not graph.successors[task]), key=key):
        stack = [(last, iter(needs(last)))]
        seen[last] = True
        while stack:
            task, rest = stack[-1]
            following = next((part for part in rest if not seen[part]), None)
            if following is None:
                order.append(task)
                stack.pop()
            else:
                seen[following] = True
                stack.append((following, iter(needs(following))))
    return order

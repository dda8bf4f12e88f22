"""Lower bounds: what every order needs.

    footprint        a task's reads and writes are live while it runs
    flow             the least live memory over all sets of done tasks from which the task can run, plus what it allocates
    last of a set    of any set of tasks one runs last, when the others are done: the least flow floor over that choice

Each holds at least as much as the one before it, and costs more. `flow` is a minimum cut (flow.py).

>>> from theano_memopt.planner.model import worked_example
>>> from theano_memopt.planner.kernel import kernel_for
>>> kernel = kernel_for(worked_example())
>>> flow_floors(kernel, [0, 1, 2, 3, 4], limit=100)
{0: 6, 1: 6, 2: 7, 3: 7, 4: 3}
>>> last_of_a_set(kernel, (2, 3))
8
"""

from __future__ import annotations

from typing import Callable, Dict, List, Sequence, Tuple

from theano_memopt.planner.certificate import Chains, Footprint, footprint
from theano_memopt.planner.flow import Cut, Network
from theano_memopt.planner.kernel import Kernel
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph


def best_footprint(graph: Graph) -> Tuple[int, Footprint]:
    sizes = [footprint(graph, task) for task in range(len(graph.tasks))]
    best = max(sizes, default=0)
    return best, Footprint(sizes.index(best) if sizes else 0)


def lowest_heights(graph: Graph, orders: Sequence[Sequence[int]]) -> List[int]:
    """For each task the lowest height at which one of the orders runs it: no floor of the task can be above that."""
    lowest = [1 << 200] * len(graph.tasks)
    for order in orders:
        for task, height in zip(order, timeline(graph, order).heights):
            lowest[task] = min(lowest[task], height)
    return lowest


def flow_floors(kernel: Kernel, tasks: Sequence[int], limit: int, stop: Callable[[], bool] = lambda: False) -> Dict[int, int]:
    """Flow floors of the first `limit` of these tasks."""
    found: Dict[int, int] = {}
    for task in tasks[:limit]:
        if stop():
            break
        found[task] = kernel.flow_floor(task)
    return found


def last_of_a_set(kernel: Kernel, tasks: Sequence[int]) -> int:
    """The least, over the task that runs last, of its flow floor with the others done."""
    return min(kernel.flow_floor(task, [other for other in tasks if other != task]) for task in tasks)


def best_last_of_a_set(kernel: Kernel, candidates: Sequence[int], largest: int, stop: Callable[[], bool] = lambda: False) -> Tuple[int, Tuple[int, ...]]:
    """Grow a set while that helps: begin with the first candidate, always add the one that raises the floor most."""
    chosen: Tuple[int, ...] = tuple(candidates[:1])
    best = last_of_a_set(kernel, chosen) if chosen else 0
    record = (best, chosen)
    while chosen and len(chosen) < largest and not stop():
        grown = [(last_of_a_set(kernel, (*chosen, task)), -i) for i, task in enumerate(candidates) if task not in chosen]
        if not grown:
            break
        floor, position = max(grown)
        chosen = (*chosen, candidates[-position])
        if floor > record[0]:
            record = (floor, chosen)
        elif floor < best:
            break
        best = floor
    return record


def witness(graph: Graph, tasks: Sequence[int]) -> Chains:
    """The chains that show the last-of-a-set floor of these tasks (for one task: its flow floor) to the checker."""
    network = Network(graph)
    limit = sum(buffer.size for buffer in graph.buffers)
    families = []
    for task in tasks:
        cut = Cut(network, task)
        possible = all([cut.force(other, limit) for other in tasks if other != task])
        families.append(tuple(cut.chains()) if possible else ())
    return Chains(tuple(tasks), tuple(families))

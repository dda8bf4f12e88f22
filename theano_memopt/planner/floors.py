"""Lower bounds: what every order needs.

    footprint        a task's reads and writes are live while it runs
    flow             the least live memory over all sets of done tasks from which the task can run, plus what it allocates
    last of a set    of any set of tasks one runs last, when the others are done: the least flow floor over that choice
    first of a set   of any set of tasks one runs first, when the others are not done: likewise

Each holds at least as much as the one before it, and costs more. `flow` is a minimum cut (flow.py).

>>> from theano_memopt.planner.model import worked_example
>>> from theano_memopt.planner.kernel import kernel_for
>>> kernel = kernel_for(worked_example())
>>> [kernel.flow_floor(task) for task in range(5)]
[6, 6, 7, 7, 3]
>>> floor_of_a_set(kernel, (2, 3), "last")
[8, 8]
"""

from __future__ import annotations

from typing import Callable, List, Sequence, Tuple

from theano_memopt.planner.certificate import Chain, Chains, Footprint, Proof, footprint
from theano_memopt.planner.flow import Network, chains
from theano_memopt.planner.kernel import IMPOSSIBLE, Kernel, kernel_for
from theano_memopt.planner.model import Graph


def best_footprint(graph: Graph) -> Tuple[int, Proof]:
    """The largest footprint; where there is no task to name, a proof of 0 that names none."""
    sizes = [footprint(graph, task) for task in range(len(graph.tasks))]
    if not sizes:
        return 0, Chains((), ())
    return max(sizes), Footprint(sizes.index(max(sizes)))


def floor_of_a_set(kernel: Kernel, tasks: Sequence[int], which: str) -> List[int]:
    """For each task its flow floor when it is the last (the first) of the set: the others are done (are not). The least counts."""
    found = []
    for task in tasks:
        others = [other for other in tasks if other != task]
        found.append(kernel.flow_floor(task, done=others) if which == "last" else kernel.flow_floor(task, undone=others))
    return found


def best_of_sets(kernel: Kernel, candidates: Sequence[int], which: str, stop: Callable[[], bool] = lambda: False) -> Tuple[int, Tuple[int, ...]]:
    """Begin with all candidates and drop the weakest, again and again; answers the best floor on the way, and its set."""
    tasks = list(candidates)
    best: Tuple[int, Tuple[int, ...]] = (0, ())
    while tasks and not stop():
        floors = floor_of_a_set(kernel, tasks, which)
        weakest = min(floors)
        if best[0] < weakest < IMPOSSIBLE:
            best = (weakest, tuple(tasks))
        del tasks[floors.index(weakest)]
    return best


def witness(graph: Graph, tasks: Sequence[int], which: str = "last") -> Tuple[int, Chains]:
    """The chains that show the floor of these tasks to the checker, and what they show on this graph."""
    network, kernel = Network(graph), kernel_for(graph)
    families: List[Tuple[Chain, ...]] = []
    shown = []
    for task, floor in zip(tasks, floor_of_a_set(kernel, tasks, which)):
        if floor >= IMPOSSIBLE:
            families.append(())
            continue
        others = [other for other in tasks if other != task]
        done, undone = (others, []) if which == "last" else ([], others)
        families.append(tuple(chains(network, kernel.flows(task, done, undone), [task, *undone])))
        shown.append(floor)
    return min(shown, default=0), Chains(tuple(tasks), tuple(families), which)

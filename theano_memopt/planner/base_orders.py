"""Orders that run every task once, for the simulation to go along.

None is best everywhere, so several compete: the least peak; the same as if cheap results took no room, since they will be made again
anyway; and each of them hoisted. An order for the least peak is lazy after its peak: what it leaves lying there has to be given up
and made again under a budget, while a hoisted order has it used up.

>>> from theano_memopt.planner.program import worked_program
>>> base_orders(worked_program(), [(0, 1, 2, 3, 4)])
[(0, 1, 2, 3, 4)]
"""

from __future__ import annotations

from typing import List, Sequence, Tuple

from theano_memopt.options import PlanOptions
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.instances import instances
from theano_memopt.planner.liveness import Walk
from theano_memopt.planner.program import Program

Order = Tuple[int, ...]

CHEAP = (1e-3, 1e-2)
"""Tasks that cost at most so much of the whole make cheap results."""
EFFORT = PlanOptions(effort=1_000)
"""For an order on the way to a plan; real training graphs need less."""


def base_orders(program: Program, orders: Sequence[Order]) -> List[Order]:
    """The given orders first, then those made from them, each once."""
    found = list(orders)
    natural = program.natural_order
    graph = instances(program, natural).graph
    for share in CHEAP:
        cheap = {run for run, task in enumerate(natural) if program.tasks[task].seconds <= share * program.seconds}
        sizes = [0 if buffer.producer in cheap else buffer.size for buffer in graph.buffers]
        found.append(tuple(natural[run] for run in minimise_peak(graph.resized(sizes), EFFORT).order))
    found += [hoisted(program, order) for order in found]
    return list(dict.fromkeys(found))


def hoisted(program: Program, order: Sequence[int]) -> Order:
    """The same order, but whatever is ready and frees at least what it takes runs at once."""
    graph = instances(program, order).graph
    walk = Walk(graph)
    missing = [len(needs) for needs in graph.predecessors]
    ready = {run for run, count in enumerate(missing) if count == 0}
    found = []
    while ready:
        run = next((run for run in sorted(ready) if walk.frees(run) >= graph.allocates[run]), min(ready))
        ready.remove(run)
        walk.run(run)
        found.append(order[run])
        for later in graph.successors[run]:
            missing[later] -= 1
            if missing[later] == 0:
                ready.add(later)
    return tuple(found)

"""A quick look: how much lower is the peak if cheap results run again?

`plan_recompute` orders the runs anew, again and again, and proves floors. That is where its time goes, more than a report may take. Here
simulations alone go along an order that is known, and what they find is the peak of a legal sequence: whoever plans with more effort
hardly ever ends higher.

Effort is counted in task runs, so that the same program gets the same answer on every machine.

>>> from theano_memopt.planner.program import worked_program
>>> glance(worked_program(), (0, 1, 2, 3, 4), extra_time=0.2)
Glance(peak=10, simulations=1, full=True)
>>> glance(worked_program(), (0, 1, 2, 3, 4), extra_time=0.2, task_runs=100) is None     # too few simulations to say anything
True
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Tuple

from theano_memopt.planner.evict import TICKS
from theano_memopt.planner.eviction_search import EvictionSearch
from theano_memopt.planner.openings import blocking, open_chains
from theano_memopt.planner.program import Program
from theano_memopt.planner.repeat_floors import largest_footprint

TASK_RUNS = 48_000
"""Simulations times tasks: some tenths of a second with the compiled simulation."""
SIMULATIONS = 24, 120
"""With fewer nothing is said; with more little more is found."""
STEPS = 6
"""Budgets that are tried."""
OPENED_AT_MOST = 2


class Glance(NamedTuple):
    peak: int
    """The lowest that was found."""
    simulations: int
    full: bool
    """Were there as many simulations as are of use? Else the program is so large that the look was cut short."""


def glance(program: Program, order: Sequence[int], extra_time: float, task_runs: int = TASK_RUNS) -> Optional[Glance]:
    """The lowest peak that is found within the extra time (a share of the time of one run), going along this order; None where the program
    is too large for so little effort."""
    least, most = SIMULATIONS
    simulations = min(most, task_runs // max(1, len(program.tasks)))
    if simulations < least:
        return None
    ticks = int(extra_time * TICKS) + len(program.tasks)  # ticks are rounded up, each by less than one
    known, spent = 0, 0
    openings = _openings(program, order)
    for opened in openings:
        search = EvictionSearch(open_chains(program, opened), [tuple(order)], anew=False)
        known = min(known, search.front[0].peak) if known else search.front[0].peak
        known = _lower(search, largest_footprint(program), known, ticks, simulations // len(openings))
        spent += search.spent
    return Glance(known, spent, simulations == most)


def _openings(program: Program, order: Sequence[int]) -> List[Tuple[int, ...]]:
    """Nothing opened, then what blocks the most bytes."""
    ranked = blocking(program, order)
    return [tuple(sorted(ranked[:many])) for many in range(min(len(ranked), OPENED_AT_MOST) + 1)]


def _lower(search: EvictionSearch, floor: int, known: int, ticks: int, simulations: int) -> int:
    """Goals half way between the floor and what is known, as long as there are simulations."""
    at_once = max(1, simulations // STEPS)
    while search.spent < simulations and known - floor > known // 500:
        goal = (floor + known) // 2
        search.under(goal, min(at_once, simulations - search.spent), ticks)
        found = search.least_peak(ticks).peak
        known = min(known, found)
        floor = floor if found <= goal else goal + 1
    return known

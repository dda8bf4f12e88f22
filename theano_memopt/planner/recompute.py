"""A lower peak than any order has: which results are better made again than kept?

    base orders -> simulate under the budget -> leave out needless repeats -> order the runs anew -> and once more

1. Base orders run every task once (base_orders.py).
2. Simulations go along them and give up what is cheap to make again and not needed for long (evict.py), hundreds of times and each
   time a little differently (eviction_search.py).
3. Every repeat that the budget can do without is left out, dearest first.
4. The runs, repeats included, are an ordinary graph (instances.py), and exact.py orders it anew. That makes room, so that a cheaper
   sequence may fit after all; and the new order is a base order for the next round.

Where a budget is missed, goals between the floor and what is known are tried as well, and the lowest of everything that was tried is the answer.

What is promised: the sequence is legal, and its peak and seconds are those of `replay`, which shares nothing with the search; no
order of these runs is lower than `schedule.floor`; no sequence at all is lower than `floor` (repeat_floors.py). Least time is found,
hardly ever proven.

A chain of in-place results in a given value (a gradient that is summed up in the parameter itself) forbids to make anything again
that depends on the value. Where that pays, the first of the chain gets a place of its own (openings.py): `opened` names it,
`program` is the program with that change, and the host carries it out.

Effort is counted in simulations, so the same program gets the same plan on every machine.

A host makes a `Program` of its graph, and reads from the answer: `opened`; then, for each run of `sequence`, which run made the copy
of each value that it reads (`instances.sources`); then it orders its own graph as it does without repeats.

>>> from theano_memopt.planner.program import worked_program
>>> plan = plan_recompute(worked_program(), budget_bytes=10)
>>> [plan.program.tasks[task].label for task in plan.sequence]
['expand', 'sum', 'blow_up', 'shrink', 'expand', 'join']
>>> plan.ordered_peak, plan.peak, plan.extra_seconds, plan.floor.bytes, plan.status
(17, 10, 1.0, 10, 'fits')
>>> plan.instances.graph.tasks[4].label, plan.schedule.proven
('expand #2', True)
>>> check_recomputed(plan)
>>> plan_recompute(worked_program(), extra_time=0.1).peak        # one more second of five would be a fifth
17
>>> trade_off(worked_program())
((10, 1.0), (17, 0.0))
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import List, Optional, Sequence, Tuple

from theano_memopt.options import RecomputeOptions
from theano_memopt.planner.base_orders import Order, base_orders
from theano_memopt.planner.certificate import Open, Proven, Rejected, Schedule, check_certificate
from theano_memopt.planner.evict import TICKS, flatten
from theano_memopt.planner.evict_kernel import eviction_for
from theano_memopt.planner.eviction_search import EvictionSearch, Score
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.instances import Instances, instances
from theano_memopt.planner.liveness import Timeline, timeline
from theano_memopt.planner.openings import blocking, may_be_opened, open_chains
from theano_memopt.planner.program import Program
from theano_memopt.planner.repeat_floors import RepeatFloor, check_repeat_floor, repeat_floor
from theano_memopt.planner.replay import Replayed, replay

Opened = Tuple[Tuple[int, ...], EvictionSearch]
"""Chains that are opened, and the search with them open."""

RUNS_AT_MOST = 300_000
"""Simulations times tasks at the default effort: 1,000 simulations of 300 tasks, 300 of 1,000."""
SIMULATIONS = (100, 1_500)
"""At least and at most, at the default effort."""
STEPS = 7
"""Budgets that are tried for the least peak."""
GOALS = 16
"""The same, where any plan that reaches one ends the search for it."""
ANY_TICKS = 1 << 60
ORDERED_LAST = 3
"""Plans that are ordered anew where a budget is missed; the lowest of them is the answer."""
OPENED_AT_MOST = 3
OPENING_GAINS = 32
"""Chains are opened for a peak that is lower by this part at least."""
ANSWERS = 4
"""Times that the runs of the answer are ordered anew; mostly the second time changes nothing."""
CURVE = (0.9, 0.75, 0.6, 0.5, 0.4, 0.3)
"""Budgets of the curve, as shares of the least peak of any order."""


@dataclass(frozen=True)
class Recomputed:
    """A sequence with repeats and all that is known about it. `check_recomputed` believes none of it."""

    given: Program
    program: Program
    """What runs: the given program, but for `opened`."""
    sequence: Tuple[int, ...]
    replayed: Replayed
    instances: Instances
    schedule: Schedule
    """Of `instances.graph`. Its order is 0, 1, 2, ..., since the runs are numbered as they go."""
    ordered: Order
    """The best order found that runs every task once."""
    ordered_peak: int
    budget: Optional[int]
    floor: RepeatFloor
    opened: Tuple[int, ...]
    """Values that the given program makes in place of a given value, and that have a place of their own now."""
    simulations: int

    @property
    def peak(self) -> int:
        return self.replayed.peak

    @property
    def again(self) -> Tuple[Tuple[int, int], ...]:
        """Tasks that run again, and how often beyond the first time."""
        return self.replayed.again

    @property
    def extra_seconds(self) -> float:
        return self.replayed.extra_seconds

    @property
    def extra_percent(self) -> float:
        return 100.0 * self.extra_seconds / self.given.seconds if self.given.seconds else 0.0

    @property
    def status(self) -> str:
        return status_of(self.peak, self.budget, self.floor.bytes)


def status_of(peak: int, budget: Optional[int], floor: int) -> str:
    """`fits`; `over`: nothing was found that fits; `impossible`: nothing can fit."""
    if budget is None or peak <= budget:
        return "fits"
    return "impossible" if budget < floor else "over"


def plan_recompute(
    program: Program,
    budget_bytes: Optional[int] = None,
    budget_share: Optional[float] = None,
    extra_time: Optional[float] = None,
    options: Optional[RecomputeOptions] = None,
    competing_orders: Sequence[Sequence[int]] = (),
) -> Recomputed:
    """The least extra time found within a budget (in bytes, or as a share of the least peak of any order), or the least peak found
    within an extra time (a share of the time of one run). Where the budget is out of reach, the lowest peak found.

    `competing_orders` run every task once. They are base orders, and the peak is never above theirs.
    """
    if sum(goal is not None for goal in (budget_bytes, budget_share, extra_time)) != 1:
        raise ValueError("give one of budget_bytes, budget_share and extra_time")
    if budget_bytes is not None and budget_bytes <= 0:
        raise ValueError(f"a budget is more than 0 bytes, not {budget_bytes}")
    if budget_share is not None and not 0 < budget_share <= 1:
        raise ValueError(f"a budget is a share above 0 and up to 1, not {budget_share}")
    if extra_time is not None and not 0 <= extra_time < math.inf:
        raise ValueError(f"extra time is a share of 0 or more, not {extra_time}")
    planner = _Planner(program, options or RecomputeOptions(), competing_orders)
    if extra_time is not None:
        return planner.least_peak(extra_time)
    if budget_share is not None:
        budget_bytes = max(1, int(planner.ordered_peak * budget_share))
    assert budget_bytes is not None
    return planner.least_time(budget_bytes)


def trade_off(
    program: Program, options: Optional[RecomputeOptions] = None, competing_orders: Sequence[Sequence[int]] = ()
) -> Tuple[Tuple[int, float], ...]:
    """A curve: peaks, ascending, each with the extra seconds that it was found to cost. Nothing is opened for it."""
    planner = _Planner(program, options or RecomputeOptions(), competing_orders)
    search = planner.search(())
    for share in CURVE:
        if int(planner.ordered_peak * share) >= planner.floor.bytes:
            search.under(int(planner.ordered_peak * share), planner.effort // len(CURVE))
    replays = [replay(program, trial.sequence) for trial in search.front]
    return tuple((one.peak, one.extra_seconds) for one in replays)


def check_recomputed(plan: Recomputed) -> None:
    """Replay the sequence, compare every figure, and check both floors. Answers nothing, or raises `Rejected`."""
    if not all(may_be_opened(plan.given, v) for v in plan.opened) or plan.program != open_chains(plan.given, plan.opened):
        raise Rejected("another-program", "what runs is not the given program with these chains opened")
    replayed = replay(plan.program, plan.sequence)
    if replayed != plan.replayed:
        raise Rejected(
            "wrong-peak", f"replaying gives {replayed.peak} bytes and {replayed.seconds} seconds, claimed are {plan.peak} and {plan.replayed.seconds}"
        )
    ordered = replay(plan.given, plan.ordered)
    if ordered.again or ordered.peak != plan.ordered_peak:
        raise Rejected("wrong-order", f"without repeats the peak is {ordered.peak} bytes, claimed are {plan.ordered_peak}")
    if plan.instances != instances(plan.program, plan.sequence):
        raise Rejected("another-graph", "the graph of runs is not that of the sequence")
    if plan.schedule.order != tuple(range(len(plan.sequence))) or plan.schedule.peak != replayed.peak:
        raise Rejected("another-order", "the schedule is not that of the sequence")
    check_certificate(plan.instances.graph, plan.schedule)
    check_repeat_floor(plan.given, plan.floor)
    if plan.floor.bytes > plan.peak:
        raise Rejected("impossible-floor", f"the floor {plan.floor.bytes} is above the peak {plan.peak} of a legal sequence")


class _Planner:
    def __init__(self, program: Program, options: RecomputeOptions, competing: Sequence[Sequence[int]]) -> None:
        for order in competing:
            if not program.is_legal(order):
                raise ValueError("a competing order is not a legal order of this program")
        self.program, self.options = program, options
        self.deadline = None if options.seconds is None else time.monotonic() + options.seconds
        self.simulations = 0
        self.floor = repeat_floor(program)
        natural = program.natural_order
        run_of = {task: run for run, task in enumerate(natural)}
        as_runs = [(f"given {i}", [run_of[task] for task in order]) for i, order in enumerate(competing)]
        schedule = minimise_peak(instances(program, natural).graph, options.order, as_runs)
        self.ordered_peak = schedule.peak
        self.ordered: Order = tuple(natural[run] for run in schedule.order)
        self.competing = [tuple(order) for order in competing]

    @property
    def effort(self) -> int:
        least, most = SIMULATIONS
        if self.options.simulations is not None:
            return self.options.simulations
        return max(least, min(most, RUNS_AT_MOST // max(1, len(self.program.tasks))))

    @cached_property
    def orders(self) -> List[Order]:
        return base_orders(self.program, [self.ordered, *self.competing, self.program.natural_order])

    def search(self, opened: Sequence[int]) -> EvictionSearch:
        return EvictionSearch(open_chains(self.program, opened), self.orders, self.deadline)

    # ------------------------------------------------------------------------------------------------------------- goals

    def least_time(self, budget: int) -> Recomputed:
        if budget >= self.ordered_peak:
            return self._answer((), self.ordered, budget, self.ordered_peak)
        searches = self._searches()
        if budget >= self.floor.bytes:
            opened, search = self._under(budget, searches)
            best = search.least_ticks(budget)
            if best is not None:
                return self._counted(searches, self._answer(opened, best.sequence, budget, budget))
        return self._lowest(budget, searches if budget >= self.floor.bytes else [])

    def _searches(self) -> List[Opened]:
        return [(opened, self.search(opened)) for opened in self._openings()]

    def _under(self, aim: int, searches: List[Opened]) -> Opened:
        """Look for the least time within `aim`, with this or that opened; answer what did best."""
        few = len(searches) > 1
        for opened, search in searches:
            search.under(aim, self.effort // (2 * len(searches)) if few else self.effort)
            self._say(search, aim, opened)
        opened, search = min(searches, key=lambda row: _how_good(row[1], aim))
        if few:
            search.under(aim, self.effort // 2)
        return opened, search

    def _lowest(self, budget: int, tried: List[Opened]) -> Recomputed:
        """What comes nearest to a budget that was missed, of all that was tried. What is looked for here is the same for every budget, so
        that a smaller one does not end higher than a larger one."""
        goals = self._searches()
        for _, search in goals:
            self._halve(search, max(1, self.effort // (GOALS * len(goals))), self.effort // (2 * len(goals)), ANY_TICKS)
        at_floor = self._searches()
        _, search = self._under(self.floor.bytes, at_floor)
        self._halve(search, max(1, self.effort // STEPS), self.effort)
        self._descend(min([*goals, *at_floor], key=lambda row: row[1].front[0])[1])
        searches = [*tried, *goals, *at_floor]
        nearest = sorted((_how_good(search, budget), i) for i, (_, search) in enumerate(searches))
        answers = []
        for _, i in nearest[:ORDERED_LAST]:
            opened, search = searches[i]
            trial = search.least_ticks(budget) or search.front[0]
            answers.append(self._answer(opened, trial.sequence, budget, max(budget, trial.peak)))
        return self._counted(searches, min(answers, key=lambda plan: (max(plan.peak, budget), plan.extra_seconds)))

    def _halve(self, search: EvictionSearch, at_once: int, simulations: int, enough: int = -1) -> None:
        """Lower peaks by goals between the floor and what is known, each half way: a goal near enough to be reached is worth more than one
        that nothing reaches."""
        low, until = self.floor.bytes, search.spent + simulations
        while search.spent < until and search.front[0].peak - low > low // 500 and not self._out_of_time():
            middle = (low + search.front[0].peak) // 2
            search.under(middle, min(at_once, until - search.spent), enough)
            low = low if search.front[0].peak <= middle else middle + 1

    def _descend(self, search: EvictionSearch) -> None:
        """One byte less, as long as that is found."""
        until = search.spent + self.effort // 2
        while search.spent < until and search.front[0].peak > self.floor.bytes and not self._out_of_time():
            less = search.front[0].peak - 1
            search.under(less, min(max(1, self.effort // 4), until - search.spent), ANY_TICKS)
            if search.front[0].peak > less:
                break

    def _counted(self, searches: List[Opened], plan: Recomputed) -> Recomputed:
        return replace(plan, simulations=sum(search.spent for _, search in searches))

    def least_peak(self, extra_time: float) -> Recomputed:
        ticks = int(extra_time * TICKS) + len(self.program.tasks)  # ticks are rounded up, each by less than one
        best: Tuple[int, Tuple[int, ...], Tuple[int, ...]] = (self.ordered_peak, (), self.ordered)
        openings = self._openings() if extra_time else []
        for opened in openings:
            search = self.search(opened)
            low = self.floor.bytes
            middle = best[0] - best[0] // OPENING_GAINS if opened else (low + best[0]) // 2
            while search.spent < self.effort // len(openings) and best[0] - low > best[0] // 500 and not self._out_of_time():
                search.under(middle, max(1, self.effort // (STEPS * len(openings))), ticks)
                found = search.least_peak(ticks)
                self._say(search, found.peak, opened)
                if found.peak < best[0]:
                    best = (found.peak, opened, found.sequence)
                elif opened and low == self.floor.bytes:
                    break
                low = low if found.peak <= middle else middle + 1
                middle = (low + best[0]) // 2
            self.simulations += search.spent
        return self._answer(best[1], best[2], None, best[0])

    def _openings(self) -> List[Tuple[int, ...]]:
        """Nothing opened; then the chain that blocks the most bytes, the two that do, and so on."""
        ranked = blocking(self.program, self.ordered) if self.options.may_open else []
        return [tuple(sorted(ranked[:many])) for many in range(min(len(ranked), OPENED_AT_MOST) + 1)]

    # ------------------------------------------------------------------------------------------------------------ answer

    def _answer(self, opened: Tuple[int, ...], sequence: Sequence[int], budget: Optional[int], room: int) -> Recomputed:
        """Order the runs with the caller's effort, and leave out what is needless then, until nothing changes, or it has changed often enough."""
        program = open_chains(self.program, opened)
        kernel = eviction_for(flatten(program))
        for _ in range(ANSWERS):
            made = instances(program, sequence)
            schedule = minimise_peak(made.graph, self.options.order)
            ordered = [sequence[run] for run in schedule.order]
            if kernel.peak_of(ordered) < 0:
                ordered = list(sequence)
            shorter = kernel.drop_needless(ordered, room)
            if len(shorter) == len(sequence) and kernel.peak_of(shorter) >= kernel.peak_of(sequence):
                break
            sequence = shorter
        else:
            made = instances(program, sequence)
            schedule = minimise_peak(made.graph, self.options.order)
        as_it_goes = timeline(made.graph, range(len(sequence)))
        return Recomputed(
            given=self.program,
            program=program,
            sequence=tuple(sequence),
            replayed=replay(program, sequence),
            instances=made,
            schedule=_of_the_sequence(schedule, as_it_goes),
            ordered=self.ordered,
            ordered_peak=self.ordered_peak,
            budget=budget,
            floor=self.floor,
            opened=opened,
            simulations=self.simulations,
        )

    def _out_of_time(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _say(self, search: EvictionSearch, peak: int, opened: Sequence[int]) -> None:
        found = search.least_ticks(peak) or search.front[0]
        if self.options.progress is not None:
            chains = f", {len(opened)} chains opened" if opened else ""
            self.options.progress(f"{search.spent:,} simulations: {found.peak:,} bytes at {100 * found.ticks / TICKS:.2f} % more time{chains}")


def _how_good(search: EvictionSearch, budget: int) -> Score:
    best = search.least_ticks(budget)
    return (0, best.ticks) if best is not None else (search.front[0].peak - budget, search.front[0].ticks)


def _of_the_sequence(schedule: Schedule, as_it_goes: Timeline) -> Schedule:
    """The schedule of the runs as they are numbered. Where it found a lower order that is no legal sequence, its floor still holds."""
    order = tuple(range(len(schedule.order)))
    verdict = schedule.certificate
    if isinstance(verdict, Proven) and verdict.floor < as_it_goes.peak:
        verdict = Open(verdict.floor, verdict.proof, "a lower order of the runs would read other copies than these")
    return replace(schedule, order=order, timeline=as_it_goes, certificate=verdict, baseline_peak=max(schedule.baseline_peak, as_it_goes.peak))

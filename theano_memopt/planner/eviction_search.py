"""Many simulations of one program: which of them leaves the least extra time under a budget?

    grid      a few rules on every base order, then more of them on the order that did best
    climb     the best settings, each changed a little: what scores how much for some values, at times the rule or the order
    order     what fits best, and what would cost less and does not fit quite, is ordered anew; the new order is a base order too

Words
    setting   all that a simulation depends on but the budget
    trial     what came out: peak, extra ticks, sequence
    front     the trials that no other one beats in both peak and ticks, whatever the budget was

Chance is a function of the count of simulations, so the same program gives the same trials.

>>> from theano_memopt.planner.program import worked_program
>>> search = EvictionSearch(worked_program(), [(0, 1, 2, 3, 4)])
>>> search.under(10, simulations=1)
>>> [(trial.peak, round(trial.ticks / TICKS, 6)) for trial in search.front]
[(10, 0.2), (17, 0.0)]
"""

from __future__ import annotations

import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from theano_memopt.planner.base_orders import EFFORT, Order
from theano_memopt.planner.evict import TICKS, Rule, flatten
from theano_memopt.planner.evict_kernel import eviction_for
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.instances import instances
from theano_memopt.planner.program import Program

ROUNDS = 2
CLIMBERS = 3
"""Settings that are climbed from in turn: the best one is not always the one that gets highest."""
ANEW, ANEW_EVERY = 4, 100
"""Trials that are ordered anew in a round: at most, and one for so many simulations, since it takes as long as some tens of them."""
LOOSER = (1.04, 1.12, 1.3)
"""Budgets, as multiples, whose trials may fit once they are ordered anew."""
MANY = 256
"""Memory smaller than the largest by this factor is not worth climbing for."""

FIRST_RULES = (Rule(0, 0, 2), Rule(0, 1, 2), Rule(2, 1, 2), Rule(1, 1, 2, True), Rule(0, 1, 2, True, 1), Rule(2, 2, 2, False, 1))
"""Tried on every base order."""
RULES = tuple(
    Rule(size, distance, cost, hold, ahead)
    for ahead in (0, 1)
    for cost in (2, 1, 4)
    for size in (0, 1, 2)
    for distance in (0, 1, 2)
    for hold in (False, True)
)
"""Tried on the best one."""


class Setting(NamedTuple):
    order: Order
    rule: Rule
    powers: Dict[int, int]
    """For some values the power of two that scores of their memory are multiplied with."""


class Trial(NamedTuple):
    peak: int
    ticks: int
    """Beyond running every task once."""
    sequence: Tuple[int, ...]


Score = Tuple[int, int]
"""Bytes above the budget, then ticks."""


class Goal(NamedTuple):
    budget: int
    until: int
    """The count of simulations at which it ends."""
    enough: int
    """Ticks that are not improved on; -1 for no such."""

    def score(self, trial: Trial) -> Score:
        return (max(0, trial.peak - self.budget), trial.ticks)


class EvictionSearch:
    def __init__(self, program: Program, orders: Sequence[Order], deadline: Optional[float] = None, anew: bool = True) -> None:
        """`anew`: are runs ordered anew now and then? It takes as long as some tens of simulations."""
        self.program = program
        self._anew = anew
        self.spent = 0
        self.front: List[Trial] = []  # ascending peaks, descending ticks
        self._flat = flatten(program)
        self._kernel = eviction_for(self._flat)
        self._once = sum(self._flat.ticks)
        self._orders = list(orders)
        self._deadline = deadline
        self._ordered_anew: Set[Tuple[int, ...]] = set()
        self._best: List[Tuple[Score, Setting, Trial]] = []  # one for each climber
        self._movable = [v for v, size in enumerate(self._flat.size) if size > max(self._flat.size) // MANY]
        for order in self._orders:
            self._offer(order, self._kernel.peak_of(order))

    def least_ticks(self, budget: int) -> Optional[Trial]:
        """The trial with the least extra time within the budget."""
        fitting = [trial for trial in self.front if trial.peak <= budget]
        return fitting[-1] if fitting else None

    def least_peak(self, ticks: int) -> Trial:
        """The trial with the least peak within the extra time; base orders take none."""
        return next(trial for trial in self.front if trial.ticks <= ticks)

    def under(self, budget: int, simulations: int, enough: int = -1) -> None:
        """Look for trials under the budget; one of at most `enough` ticks ends it."""
        until, tried = self.spent + simulations, 0
        earlier, self._best = [setting for _, setting, _ in self._best], []
        for round_ in range(1, ROUNDS + 1):
            goal = Goal(budget, until - simulations * (ROUNDS - round_) // ROUNDS, enough)
            new, tried = self._orders[tried:], len(self._orders)
            self._grid(earlier + [Setting(order, rule, {}) for rule in FIRST_RULES for order in new], goal)
            if self._best:
                half = goal._replace(until=(self.spent + goal.until) // 2)
                self._grid([Setting(self._best[0][1].order, rule, {}) for rule in RULES], half)
            self._climb(goal)
            if self._anew:
                self._order_anew(goal, max(1, min(ANEW, simulations // ROUNDS // ANEW_EVERY)))
            if self._reached(goal._replace(until=until)):
                break

    def _reached(self, goal: Goal) -> bool:
        if self.spent >= goal.until or (self._deadline is not None and time.monotonic() > self._deadline):
            return True
        found = self.least_ticks(goal.budget) if goal.enough >= 0 else None
        return found is not None and found.ticks <= goal.enough

    def _grid(self, settings: Sequence[Setting], goal: Goal) -> None:
        for setting in settings:
            if self._reached(goal):
                break
            trial = self._simulate(setting, goal.budget)
            if trial is not None and all(score != goal.score(trial) for score, _, _ in self._best):
                self._best.append((goal.score(trial), setting, trial))
                self._best.sort(key=lambda row: row[0])
                del self._best[CLIMBERS:]

    def _climb(self, goal: Goal) -> None:
        """Change a setting a little; the change stays if the sequence is no worse."""
        while self._best and self._movable and not self._reached(goal):
            for i, (score, setting, trial) in enumerate(self._best):
                changed = self._change(setting, trial)
                found = self._simulate(changed, goal.budget, 2 * trial.ticks)
                if found is not None and goal.score(found) <= score:
                    self._best[i] = (goal.score(found), changed, found)

    def _change(self, setting: Setting, trial: Trial) -> Setting:
        chance = self._chance()
        kind = next(chance) % 16
        if kind == 0:
            return setting._replace(rule=RULES[next(chance) % len(RULES)])
        if kind == 1:
            return setting._replace(order=self._orders[next(chance) % len(self._orders)])
        again = self._made_again(trial.sequence)
        powers = dict(setting.powers)
        for _ in range(1 + next(chance) % 3):
            pool = again if again and next(chance) % 2 else self._movable
            v = pool[next(chance) % len(pool)]
            powers[v] = powers.get(v, 0) + (-3, -1, 1, 3)[next(chance) % 4]
        return setting._replace(powers=powers)

    def _made_again(self, sequence: Sequence[int]) -> List[int]:
        seen: Set[int] = set()
        again: Set[int] = set()
        for task in sequence:
            (again if task in seen else seen).add(task)
        return [v for task in sorted(again) for v in self._flat.writes[task] if self._flat.size[v]]

    def _chance(self) -> Iterator[int]:
        """Numbers that look like chance and are the same every time."""
        number = self.spent
        while True:
            number = (number * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            yield number >> 33

    def _simulate(self, setting: Setting, budget: int, hopeless: int = 2 * TICKS) -> Optional[Trial]:
        """One simulation; nothing, if it costs more than `hopeless` even before the needless repeats are left out."""
        self.spent += 1
        known = self.least_ticks(budget)
        if known is not None:
            hopeless = min(hopeless, 2 * known.ticks)
        worth = [1.0] * len(self._flat.size)
        for v, exponent in setting.powers.items():
            worth[v] = 2.0 ** max(-60, min(60, exponent))
        sequence, peak = self._kernel.trial(setting.order, budget, setting.rule, worth, self._once + hopeless + TICKS // MANY)
        return self._offer(sequence, peak) if sequence else None

    def _offer(self, sequence: Sequence[int], peak: int) -> Trial:
        """Keep it if nothing that is known is at least as good in both respects."""
        trial = Trial(peak, self._ticks(sequence) - self._once, tuple(sequence))
        if not any(other.peak <= trial.peak and other.ticks <= trial.ticks for other in self.front):
            self.front = sorted([trial, *(other for other in self.front if other.peak < trial.peak or other.ticks < trial.ticks)])
        return trial

    def _ticks(self, sequence: Sequence[int]) -> int:
        return sum(map(self._flat.ticks.__getitem__, sequence))

    def _order_anew(self, goal: Goal, many: int) -> None:
        """Order the runs of what fits best, and of what would cost less and does not fit quite."""
        for factor in LOOSER if self._best else ():
            self._simulate(self._best[0][1], int(goal.budget * factor))
        fitting = self.least_ticks(goal.budget)
        looser = [trial for trial in self.front if goal.budget < trial.peak <= 2 * goal.budget]
        waiting = [trial for trial in ([fitting] if fitting else []) + looser if trial.sequence not in self._ordered_anew]
        for trial in waiting[:many]:
            self._ordered_anew.add(trial.sequence)
            runs = minimise_peak(instances(self.program, trial.sequence).graph, EFFORT).order
            sequence = [trial.sequence[run] for run in runs]
            peak = self._kernel.peak_of(sequence)
            if peak < 0:  # another copy than before is the newest now, and it is not the right one
                continue
            shorter = self._kernel.drop_needless(sequence, max(peak, goal.budget))
            self._offer(shorter, self._kernel.peak_of(shorter))
            once = tuple(dict.fromkeys(sequence))
            if once not in self._orders and self.program.is_legal(once):
                self._orders.append(once)

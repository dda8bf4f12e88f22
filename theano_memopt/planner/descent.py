"""Orders that come down side by side: several beginnings, each pressed lower by moves (moves.py), the best of them kept.

    beginnings    orders of the cheap rules, what the searches find, and rules whose ties are broken by chance
    round         every descent gets an equal share of the moves; it aims a little below its best, and nearer when it fails

Words
    descent       one order on its way down, with the best that it has been
    step          how far below its best a descent aims: halved when the goal is missed, doubled when it is reached

No rule begins best everywhere, and every descent gets stuck somewhere: so several go on until the last moment, and in each round
one more begins. The worst is given up when there are too many.

>>> from theano_memopt.planner.model import worked_example
>>> descent = Descent(worked_example(), (0, 1, 2, 3, 4), seed=1)
>>> tried = descent.go(moves=100, floor=8)
>>> descent.peak, worked_example().is_legal(descent.order)
(8, True)
"""

from __future__ import annotations

from typing import List, Sequence, Set, Tuple

from theano_memopt.planner.heuristics import with_ties_by_chance
from theano_memopt.planner.kernel import moved_order
from theano_memopt.planner.model import Graph

FIRST_STEP = 64
"""The first goal is this part of the peak below it."""
MISSES = 12
"""Goals missed in a row before the step begins again as large as at first: what a small goal cannot leave, a larger one may."""
DESCENTS = 10
"""How many go on at most."""


class Descent:
    def __init__(self, graph: Graph, order: Sequence[int], seed: int) -> None:
        self._moved = moved_order(graph, order, seed)
        self.order = tuple(order)
        self.peak = self._moved.peak
        self._step = self._first_step()
        self._misses = 0

    def go(self, moves: int, floor: int) -> int:
        """Aim once, within so many moves; answers how many were tried. There is nothing to find below `floor`."""
        tried = self._moved.run(max(floor, self.peak - self._step), moves)
        reached = self._moved.peak
        if reached < self.peak:
            self.peak, self.order = reached, tuple(self._moved.order)
            self._step, self._misses = min(2 * self._step, self._first_step()), 0
        else:
            self._misses += 1
            self._step = self._first_step() if self._misses % MISSES == 0 else max(1, self._step // 2)
        return tried

    def _first_step(self) -> int:
        return max(1, self.peak // FIRST_STEP)


class Descents:
    """All descents on one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.going: List[Descent] = []
        self._begun = 0
        self._known: Set[Tuple[int, ...]] = set()

    @property
    def least(self) -> int:
        return min((descent.peak for descent in self.going), default=1 << 200)

    def begin(self, order: Sequence[int]) -> None:
        """One more from this order, unless one began there already."""
        if tuple(order) in self._known or not order:
            return
        self._known.add(tuple(order))
        self._begun += 1
        self.going.append(Descent(self.graph, order, self._begun))
        if len(self.going) > DESCENTS:
            del self.going[max(range(len(self.going)), key=lambda i: self.going[i].peak)]

    def begin_by_chance(self) -> None:
        self.begin(with_ties_by_chance(self.graph, self._begun))

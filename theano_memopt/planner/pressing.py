"""An arena pressed lower: its buffers may overlap for a while, and what overlaps long grows dear, until nothing overlaps.

    offset
     12 +----+                 The arena is to end at 9. L is pushed down to 3, where it clashes with R. At 0 R would clash
      9 +..L.|........         with S, which costs as much; so the price of the pair L and R rises, until R goes there and
      6 +----+----+            S, which has a free place above R, goes up.
      3 |    +-R--+----+
      0 +----+----+--S-+---> section

Words
    clash      two buffers that live together and overlap in their offsets
    price      of a pair of buffers that live together: what a clash costs for each row of the overlap
    cost       of a place for a buffer: its clashes there, each row at its price
    row        one unit of offset
    capacity   the height that is tried: some way from the last one that was reached to the goal
    turn       a buffer that clashes is looked at, and moved or not; effort is counted in turns

The price of a pair begins as one over the smaller size, so that to lie within another costs the same for all. In a turn a
buffer moves to its cheapest place; where no place costs less than its own, its clashes grow dearer. So of two that
want one place the one leaves that can be elsewhere, and no order of placing has to be guessed. This is guided local
search (Voudouris, Tsang), as used for strips of rectangles (Faroe, Pisinger, Zachariasen); here the lives are fixed, so
that a move has one dimension, and the best one is found exactly:

Lemma (why few rows are candidates). The overlap of two intervals of which one moves rises, stays and falls, linearly.
The cost, a sum of these, is least at an end or where its slope grows: where the buffer rests on another or hangs under one.

It finds and never proves: a goal that cannot be met costs all turns. It is the better the more rows are free, the dives
(placing.py) the better the fewer. `press_compiled` does the same in C (`_pressing.c`), turn for turn.

>>> lives = Lives(births=(0, 1, 2), deaths=(2, 3, 3), sizes=(6, 3, 3))
>>> press_python(lives, offsets=[6, 3, 0], goal=9, limit=100)
Pressed(turns=12, offsets=[3, 0, 6])
"""

from __future__ import annotations

import time
from array import array
from typing import Callable, List, NamedTuple, Optional, Sequence

from theano_memopt.planner.placing import GOLDEN, MASK, scatter

try:
    from theano_memopt.planner import _pressing as compiled  # type: ignore[attr-defined,unused-ignore]
except ImportError:
    compiled = None

MOST_ROWS = 2**16
"""Of the arena to begin with: a turn goes over all rows."""

MOST_BUFFERS = 2**11
"""There is a price for every pair that lives together."""

SCALE = 2**17
"""The price of a whole smaller buffer to begin with."""

DEARER = 8
"""A price rises by its beginning over this: slowly enough that the cheapest of several ways out is taken."""

DEAREST = 2**16
"""A price rises to so many times its beginning: with MOST_ROWS and MOST_BUFFERS that keeps all sums below 2**62."""

STAGE = 4
"""The capacity lies a row and one part in so many of the way to the goal below the last height."""


class Lives(NamedTuple):
    """Buffer b lives in the sections births[b] .. deaths[b] - 1 and has a size above 0."""

    births: Sequence[int]
    deaths: Sequence[int]
    sizes: Sequence[int]


class Pressed(NamedTuple):
    turns: int
    offsets: List[int]
    """Without a clash, and the lowest that was found; those given where none was lower."""


Press = Callable[..., Pressed]


def can_press(count: int, height: int) -> bool:
    return count <= MOST_BUFFERS and height <= MOST_ROWS


def press_python(lives: Lives, offsets: Sequence[int], goal: int, limit: int, seconds: Optional[float] = None) -> Pressed:
    """`offsets` without a clash, then the same pressed towards `goal`, which is no lower than the greatest size, in `limit` turns."""
    return _Press(lives, offsets).run(goal, limit, seconds)


def _compiled_press() -> Optional[Press]:
    if compiled is None:
        return None

    def press_compiled(lives: Lives, offsets: Sequence[int], goal: int, limit: int, seconds: Optional[float] = None) -> Pressed:
        best = array("q", offsets)
        turns = compiled.press(*(array("q", column) for column in lives), best, goal, limit, -1.0 if seconds is None else seconds)
        return Pressed(turns, best.tolist())

    return press_compiled


press_compiled = _compiled_press()
press: Press = press_compiled or press_python


class _Press:
    def __init__(self, lives: Lives, offsets: Sequence[int]) -> None:
        self.sizes, self.offsets, self.best = lives.sizes, list(offsets), list(offsets)
        spans = list(zip(lives.births, lives.deaths))
        self.near: List[List[int]] = [[] for _ in spans]
        self.pairs: List[List[int]] = [[] for _ in spans]  # beside each of `near` the index of the price
        self.prices: List[int] = []
        for b, (born, dead) in enumerate(spans):
            for a in range(b):
                if spans[a][0] < dead and born < spans[a][1]:
                    for one, other in ((a, b), (b, a)):
                        self.near[one].append(other)
                        self.pairs[one].append(len(self.prices))
                    self.prices.append(self._beginning(a, b))
        self.clashes = [0] * len(spans)
        self.clashing: List[int] = []  # those with clashes, in any order
        self.seat = [-1] * len(spans)  # where in `clashing`
        self.draws = 0

    def run(self, goal: int, limit: int, seconds: Optional[float]) -> Pressed:
        until = None if seconds is None else time.monotonic() + seconds
        turns = capacity = 0
        while turns < limit:
            if not self.clashing:
                self.best = list(self.offsets)
                height = max((offset + size for offset, size in zip(self.offsets, self.sizes)), default=0)
                if height <= goal:
                    break
                capacity = max(goal, height - 1 - (height - goal) // STAGE)
                self._push_down(capacity)
                continue
            if until is not None and turns % 256 == 0 and time.monotonic() > until:
                break
            turns += 1
            self._turn(self.clashing[self._draw(len(self.clashing))], capacity)
        return Pressed(turns, self.best)

    def _beginning(self, a: int, b: int) -> int:
        return SCALE // min(self.sizes[a], self.sizes[b])

    def _draw(self, count: int) -> int:
        """A number below `count`: the same sequence in every run."""
        self.draws += 1
        return ((scatter((self.draws * GOLDEN) & MASK) >> 32) * count) >> 32

    def _overlap(self, a: int, b: int) -> int:
        """Rows that both cover; 0 or less where they lie apart."""
        return min(self.offsets[a] + self.sizes[a], self.offsets[b] + self.sizes[b]) - max(self.offsets[a], self.offsets[b])

    def _push_down(self, capacity: int) -> None:
        for b, size in enumerate(self.sizes):
            if self.offsets[b] + size > capacity:
                self._move(b, capacity - size)

    def _turn(self, b: int, capacity: int) -> None:
        present = sum(self.prices[pair] * max(0, self._overlap(a, b)) for a, pair in zip(self.near[b], self.pairs[b]))
        place = self._cheapest(b, capacity - self.sizes[b], present)
        if place >= 0:
            self._move(b, place)
            return
        for a, pair in zip(self.near[b], self.pairs[b]):
            beginning = self._beginning(a, b)
            if self._overlap(a, b) > 0 and self.prices[pair] < DEAREST * beginning:
                self.prices[pair] += max(1, beginning // DEARER)

    def _cheapest(self, b: int, last: int, bound: int) -> int:
        """The cheapest row for buffer b up to `last`, by chance one of several; -1 if none costs less than `bound`."""
        bends = [0] * (last + 1)  # what the slope of the cost grows by at each row
        cost = slope = 0
        for a, pair in zip(self.near[b], self.pairs[b]):
            price, low, high = self.prices[pair], self.offsets[a], self.offsets[a] + self.sizes[a]
            both = min(self.sizes[a], self.sizes[b])
            first = low - self.sizes[b]
            for row, bend in ((first, price), (first + both, -price), (high - both, -price), (high, price)):
                if row <= 0:
                    cost -= bend * row
                    slope += bend
                elif row <= last:
                    bends[row] += bend
        place, least, equal = -1, bound - 1, 0
        for row, bend in enumerate(bends):
            if cost <= least and (bend > 0 or row in (0, last)):
                equal = equal + 1 if cost == least else 1
                least = cost
                if self._draw(equal) == 0:
                    place = row
            slope += bend
            cost += slope
        return place

    def _move(self, b: int, place: int) -> None:
        self._count_clashes(b, -1)
        self.offsets[b] = place
        self._count_clashes(b, 1)

    def _count_clashes(self, b: int, change: int) -> None:
        for a in self.near[b]:
            if self._overlap(a, b) > 0:
                for one in (a, b):
                    self.clashes[one] += change
                    self._seat(one)

    def _seat(self, b: int) -> None:
        """Put b among those that clash, or take it out."""
        if self.clashes[b] and self.seat[b] < 0:
            self.seat[b] = len(self.clashing)
            self.clashing.append(b)
        elif not self.clashes[b] and self.seat[b] >= 0:
            other = self.clashing.pop()
            if other != b:
                self.clashing[self.seat[b]], self.seat[other] = other, self.seat[b]
            self.seat[b] = -1

"""The best simple order, improved by moving one task at a time, for as long as the planner gets: the peer that the planner has to beat.

    order  a b c d e  ->  c moves to another place between what it needs and what needs it  ->  a b d e c

Words
    goal       a little below the lowest peak so far
    excess     bytes above the goal, summed over all steps; 0 means an order with a peak at the goal or below
    kick       a few random moves after which the descent begins again, from the best order so far

A move is kept when it does not raise the excess. Like simple_rules.py it shares nothing with the planner but the accounting,
so that a mistake there cannot flatter it. It is stopped by the clock: it may use every second that the planner may use.

>>> from theano_memopt.planner.model import worked_example
>>> order = improved(worked_example(), (0, 1, 2, 3, 4), seconds=60, moves=100)
>>> timeline(worked_example(), order).peak
8
"""

from __future__ import annotations

import random
import time
from typing import List, Optional, Sequence, Tuple

import numpy

from benchmarks import simple_rules
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph

PATIENCE = 4_000
"""Moves tried without less excess before a kick."""
KICK = 12
"""Moves in a kick."""


def best_improved(graph: Graph, seconds: float) -> int:
    """The peak of the best simple order after so many seconds of improvement."""
    name, _ = simple_rules.best_of_all(graph)
    return timeline(graph, improved(graph, simple_rules.RULES[name](graph), seconds)).peak


def improved(graph: Graph, order: Sequence[int], seconds: float, seed: int = 0, moves: Optional[int] = None) -> List[int]:
    """An order with a peak no higher than the given one's. `moves` ends it earlier, for those who must not depend on a clock."""
    until = time.monotonic() + seconds
    rng = random.Random(seed)
    walked = _Walked(graph, order)
    best, least = list(walked.order), walked.peak()
    walked.aim(least)
    tried = all_tried = 0
    while len(order) > 1 and time.monotonic() < until and all_tried != moves:
        all_tried += 1
        before = walked.excess
        move = walked.propose(rng)
        if move is not None:
            walked.try_move(*move)
        tried = 0 if walked.excess < before else tried + 1
        if walked.excess == 0:
            best, least = list(walked.order), walked.peak()
            walked.aim(least)
        elif tried >= PATIENCE:
            walked = _Walked(graph, best)
            walked.aim(least)
            for _ in range(KICK):
                move = walked.propose(rng)
                if move is not None:
                    walked.try_move(*move, always=True)
            tried = 0
    return best


class _Walked:
    """An order with its live bytes: `heights` while each step runs, `resting` after it."""

    def __init__(self, graph: Graph, order: Sequence[int]) -> None:
        self.graph = graph
        self.order = list(order)
        self.place = [0] * len(order)
        for step, task in enumerate(order):
            self.place[task] = step
        walked = timeline(graph, order)
        self.heights = numpy.array(walked.heights, dtype=numpy.int64)
        self.resting = numpy.array((*walked.resting, 0), dtype=numpy.int64)  # the last entry stands for "before the first step"
        self.lasting = [
            sum(graph.buffers[b].size for b in task.writes if graph.buffers[b].readers or graph.buffers[b].pinned) for task in graph.tasks
        ]
        self.freed = [[b for b in t.reads if graph.buffers[b].producer is not None and not graph.buffers[b].pinned] for t in graph.tasks]
        self.goal = self.excess = 0

    def peak(self) -> int:
        return int(self.heights.max())

    def aim(self, peak: int) -> None:
        self.goal = peak - max(1, peak // 200)
        self.excess = self._above(self.heights)
        self.hot: Sequence[int] = numpy.flatnonzero(self.heights > self.goal)

    def propose(self, rng: random.Random) -> Optional[Tuple[int, int]]:
        """A task near a step above the goal, and another place for it: as far as it can go, or anywhere on the way."""
        step = int(self.hot[rng.randrange(len(self.hot))]) + round(rng.choice((-1, 1)) * rng.expovariate(1 / rng.choice((2, 20, 200))))
        if not 0 <= step < len(self.order):
            return None
        task = self.order[step]
        first = max((self.place[p] + 1 for p in self.graph.predecessors[task]), default=0)
        last = min((self.place[s] - 1 for s in self.graph.successors[task]), default=len(self.order) - 1)
        goes = rng.choice((first, last, rng.randint(first, last)))
        return (step, goes) if goes != step else None

    def try_move(self, start: int, stop: int, always: bool = False) -> None:
        """Move the task at `start` to `stop` if that does not raise the excess, or in any case."""
        task = self.order[start]
        low, high = min(start, stop), max(start, stop)
        heights, resting = (self._later if start < stop else self._earlier)(task, start, stop)
        excess = self.excess - self._above(self.heights[low : high + 1]) + self._above(heights)
        if excess > self.excess and not always:
            return
        self.heights[low : high + 1], self.resting[low : high + 1], self.excess = heights, resting, excess
        self.order.insert(stop, self.order.pop(start))
        for step in range(low, high + 1):
            self.place[self.order[step]] = step
        if always or excess < self.excess or not len(self.hot) or self.heights[self.hot[0]] <= self.goal:
            self.hot = numpy.flatnonzero(self.heights > self.goal)

    def _later(self, task: int, start: int, stop: int) -> Tuple[numpy.ndarray, numpy.ndarray]:
        heights, resting = numpy.empty(stop - start + 1, numpy.int64), numpy.empty(stop - start + 1, numpy.int64)
        heights[:-1] = self.heights[start + 1 : stop + 1] - self.lasting[task]  # what it writes is not there yet
        resting[:-1] = self.resting[start + 1 : stop + 1] - self.lasting[task]
        for b in self.freed[task]:
            size, last = self.graph.buffers[b].size, self._last_other_read(b, task)
            if last <= stop:  # what it reads last lives longer
                heights[max(0, last - start) : -1] += size
                resting[max(0, last - start - 1) : -1] += size
        heights[-1] = resting[-2] + self.graph.allocates[task]
        resting[-1] = self.resting[stop]
        return heights, resting

    def _earlier(self, task: int, start: int, stop: int) -> Tuple[numpy.ndarray, numpy.ndarray]:
        heights, resting = numpy.empty(start - stop + 1, numpy.int64), numpy.empty(start - stop + 1, numpy.int64)
        heights[1:] = self.heights[stop:start] + self.lasting[task]
        resting[1:] = self.resting[stop:start] + self.lasting[task]
        heights[0] = self.resting[stop - 1] + self.graph.allocates[task]
        resting[0] = self.resting[stop - 1] + self.lasting[task]
        for b in self.freed[task]:
            size, last = self.graph.buffers[b].size, self._last_other_read(b, task)
            if last < start:
                heights[1 + max(0, last + 1 - stop) :] -= size
                resting[1 + max(0, last - stop) :] -= size
                resting[0] -= size if last < stop else 0
        return heights, resting

    def _last_other_read(self, b: int, task: int) -> int:
        return max((self.place[r] for r in self.graph.buffers[b].readers if r != task), default=-1)

    def _above(self, heights: numpy.ndarray) -> int:
        return int(numpy.maximum(heights - self.goal, 0).sum())

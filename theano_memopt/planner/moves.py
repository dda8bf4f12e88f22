"""Better orders by moves: take a task, and with it whatever must go along, to another place of an order, many thousand times.

    delay    a task goes later, and behind it what needs it         before   t . n . . |       after   . . . t n |
    hasten   a task goes earlier, and before it what it needs       before   | . n . t         after   | n t . .
    gather   what only this task needs comes right before it        before   | n . . t         after   | . . n t
    follow   what only waits for this task comes right after it     before   t . . n |         after   t n . . |

Each is a stable partition of a stretch of steps, so the new order is legal by construction: what is moved across what stays
neither needs it nor is needed by it. A stretch that reaches far moves a large connected group at once.

Words
    goal      the peak that is aimed at, below that of the order
    hot       a step that is higher than the goal
    excess    bytes above the goal, summed over all steps; at 0 the order has reached the goal
    slack     by how much a move may raise the excess and still be kept: a random small part of it, the less the nearer the goal

Sets of done tasks alone decide what is live (liveness.py), so a move changes the heights of its own stretch and no other. The
cost of a move is what is read in that stretch. Effort is counted in moves tried.

Most moves are aimed: at a random hot step, a buffer that is live there is to be born later, or to be read for the last time
earlier. The others start anywhere near the hot step, so that nothing is left out.

_moves.cpp is this file again, compiled: the same moves in the same order, and the same answer.

>>> from theano_memopt.planner.model import worked_example
>>> moved = MovedOrder(worked_example(), (0, 1, 2, 3, 4), seed=1)
>>> moved.peak, moved.run(goal=8, moves=100) < 100, moved.peak, moved.order
(13, True, 8, [0, 2, 1, 3, 4])
"""

from __future__ import annotations

from itertools import accumulate
from typing import Callable, List, Sequence, Tuple

from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph
from theano_memopt.planner.search import scramble, what_is_freed

LEAST_SLACK, SLACKS = 8, 4
"""The slack is the excess divided by 2 to the power of 8, 9, 10 or 11."""
TRIES = 24
"""Buffers that are looked at to find one that is live at the hot step."""

NOT_READ = -1


class MovedOrder:
    """An order that moves change; `seed` decides which."""

    def __init__(self, graph: Graph, order: Sequence[int], seed: int) -> None:
        self.graph = graph
        self.order = list(order)
        self._chances = 0
        self._seed = seed
        self._allocates = graph.allocates
        self._sizes = [buffer.size for buffer in graph.buffers]
        self._reads, self._transient = what_is_freed(graph)
        self._before, self._behind = graph.predecessors, graph.successors
        walked = timeline(graph, order)
        self._heights, self._resting = list(walked.heights), list(walked.resting)
        self._place = [0] * len(order)
        for step, task in enumerate(order):
            self._place[task] = step
        self._last_read = [max((self._place[r] for r in buffer.readers), default=NOT_READ) for buffer in graph.buffers]
        self._goal = self._excess = 0

    @property
    def peak(self) -> int:
        return max(self._heights, default=0)

    def run(self, goal: int, moves: int) -> int:
        """Try so many moves, or fewer if the goal is reached first; answers how many were tried."""
        self._goal = goal
        self._excess = self._above(self._heights)
        tried = 0
        while self._excess > 0 and tried < moves:
            tried += 1
            start, steps = self._propose()
            if steps:
                self._try(start, steps)
        return tried

    # ------------------------------------------------------------------------------------------------ which move to try

    def _propose(self) -> Tuple[int, List[int]]:
        """Where a stretch begins, and its tasks in their new order; none where nothing would move."""
        hot = self._hot_step()
        which = self._chance(4)
        if which < 2:
            buffer = self._live_buffer(hot)
            if buffer != NOT_READ:
                return self._aimed(hot, buffer, which)
        return self._anywhere(hot, self._chance(4))

    def _aimed(self, hot: int, buffer: int, which: int) -> Tuple[int, List[int]]:
        last = self._last_read[buffer]
        if which == 0 or self.graph.buffers[buffer].pinned or last == NOT_READ:
            return self._delay(self._place[self.graph.buffers[buffer].producer or 0], self._beyond(hot))
        return self._hasten(last, self._before_step(hot))

    def _anywhere(self, hot: int, which: int) -> Tuple[int, List[int]]:
        """A task before the hot step goes behind it, or one behind it goes before it; or a task pulls others across the hot step."""
        far = self._distance(len(self.order))
        if which < 2:
            start = hot + 1 - far
            if start < 0:
                return 0, []
            return (self._delay if which == 0 else self._follow)(start, self._beyond(hot))
        stop = hot - 1 + far
        if stop >= len(self.order):
            return 0, []
        return (self._hasten if which == 2 else self._gather)(stop, self._before_step(hot))

    def _hot_step(self) -> int:
        step = self._chance(len(self.order))
        while self._heights[step] <= self._goal:
            step = step + 1 if step + 1 < len(self.order) else 0
        return step

    def _live_buffer(self, step: int) -> int:
        for _ in range(TRIES):
            b = self._chance(len(self._sizes))
            buffer = self.graph.buffers[b]
            if buffer.producer is not None and buffer.size and self._place[buffer.producer] <= step and (buffer.pinned or self._last_read[b] >= step):
                return b
        return NOT_READ

    def _beyond(self, hot: int) -> int:
        return hot - 1 + self._distance(len(self.order) - hot)

    def _before_step(self, hot: int) -> int:
        return hot + 1 - self._distance(hot + 1)

    def _distance(self, most: int) -> int:
        """From 1 to `most`: near ones as often as far ones, on a scale of powers of two."""
        power = self._chance(most.bit_length())
        return min(most, (1 << power) + self._chance(1 << power))

    def _chance(self, count: int) -> int:
        self._chances += 1
        return scramble((self._seed << 40) + self._chances) % count

    # ------------------------------------------------------------------------------------------------- the four moves

    def _delay(self, start: int, stop: int) -> Tuple[int, List[int]]:
        going, staying = self._split(range(start, stop + 1), self._before)
        return start, staying + going if staying else []

    def _hasten(self, stop: int, start: int) -> Tuple[int, List[int]]:
        going, staying = self._split(range(stop, start - 1, -1), self._behind)
        return start, (staying + going)[::-1] if staying else []

    def _follow(self, start: int, stop: int) -> Tuple[int, List[int]]:
        going, staying = self._split_alone(range(start, stop + 1), self._before, lambda other: other >= start)
        return start, going + staying if staying and len(going) > 1 else []

    def _gather(self, stop: int, start: int) -> Tuple[int, List[int]]:
        going, staying = self._split_alone(range(stop, start - 1, -1), self._behind, lambda other: other <= stop)
        return start, (going + staying)[::-1] if staying and len(going) > 1 else []

    def _split(self, steps: Sequence[int], linked: Sequence[Sequence[int]]) -> Tuple[List[int], List[int]]:
        """The first of the steps with all that hangs on it, and the rest."""
        going = [self.order[steps[0]]]
        staying: List[int] = []
        group = set(going)
        for step in steps[1:]:
            task = self.order[step]
            if any(other in group for other in linked[task]):
                group.add(task)
                going.append(task)
            else:
                staying.append(task)
        return going, staying

    def _split_alone(self, steps: Sequence[int], linked: Sequence[Sequence[int]], within: Callable[[int], bool]) -> Tuple[List[int], List[int]]:
        """The first of the steps with all that hangs on it and, within the stretch, on nothing else; and the rest."""
        going = [self.order[steps[0]]]
        staying: List[int] = []
        group = set(going)
        for step in steps[1:]:
            task = self.order[step]
            inside = [other for other in linked[task] if within(self._place[other])]
            if inside and all(other in group for other in inside):
                group.add(task)
                going.append(task)
            else:
                staying.append(task)
        return going, staying

    # -------------------------------------------------------------------------------------------------- keep it or not

    def _try(self, start: int, steps: Sequence[int]) -> None:
        stop = start + len(steps)
        freed = self._freed(steps, stop)
        before = self._resting[start - 1] if start else 0
        taken = [self._allocates[task] for task in steps]
        resting = list(accumulate((a - f for a, f in zip(taken, freed)), initial=before))
        heights = [live + a for live, a in zip(resting, taken)]
        more = self._above(heights) - self._above(self._heights[start:stop])
        if more > self._excess >> (LEAST_SLACK + self._chance(SLACKS)):
            return
        self._excess += more
        self._heights[start:stop], self._resting[start:stop], self.order[start:stop] = heights, resting[1:], steps
        for step in range(start, stop):
            self._place[self.order[step]] = step
        for b in {b for task in steps for b in self._reads[task] if self._last_read[b] < stop}:
            self._last_read[b] = max(self._place[reader] for reader in self.graph.buffers[b].readers)

    def _freed(self, steps: Sequence[int], stop: int) -> List[int]:
        """What each of the steps frees in this order: a buffer goes with its last reader, if nobody reads it from `stop` on."""
        freed = []
        seen = set()
        for task in reversed(steps):
            last = [b for b in self._reads[task] if self._last_read[b] < stop and b not in seen]
            seen.update(last)
            freed.append(self._transient[task] + sum(self._sizes[b] for b in last))
        return freed[::-1]

    def _above(self, heights: Sequence[int]) -> int:
        return sum(height - self._goal for height in heights if height > self._goal)

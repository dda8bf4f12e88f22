"""Go along an order under a budget; when there is no room, give up what is cheap to make again and not needed for long.

The order runs every task once, so the next use of everything is known. A task that reads what was given up has it made again
first, with whatever that needs. The answer is a sequence with repeats; `replay` says what it is worth.

    victim    of all memory that no waiting task holds, the one with the least  cost^c / (size^a * distance^b)
    cost      of running again what made the values that are still needed, and what of their needs is gone too
    distance  from now to the next use, in steps of the order
    hold      a value that is given up passes its next use on to what its task reads: that must be there, or be made again, then

When can a value be made again at step p?  If its task may run again and, of what that reads,
    a given value is not overwritten before p;
    another one is there and not overwritten before p: then it is held until p, and may itself be given up only if it can be made
    again at p;
    and whatever is not there can be made again at p.
So a value that is given up can always be made again when it is needed: by induction over the steps, since every hold lasts.

A memory whose values nobody needs any more is not thrown away but comes first when room is needed: until then it is a free
copy for whatever runs again.

_evict.cpp is this file again, compiled: the same victims in the same order, the same sequence. Costs are whole ticks, powers are
made of products and square roots: so both round alike, on every machine.

>>> from theano_memopt.planner.program import worked_program
>>> flat = flatten(worked_program())
>>> evict(flat, (0, 1, 2, 3, 4), 10, Rule(1, 1, 1), [1.0] * 6, 2 * TICKS)
[0, 1, 2, 3, 0, 4]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import List, NamedTuple, Optional, Sequence, Set, Tuple

from theano_memopt.planner.program import Program

TICKS = 1 << 40
"""What running every task once costs."""


class Rule(NamedTuple):
    """The exponents of a score, in halves: 2 is linear, 1 a square root, 0 takes no notice."""

    size: int
    distance: int
    cost: int
    hold: bool = True
    """Hold what a value is made from even where it could be made again itself."""
    ahead: int = 0
    """Have also what so many later steps read, before the step's own results take room."""


@dataclass(frozen=True)
class Flat:
    """A program as lists, for both twins."""

    reads: List[List[int]]
    writes: List[List[int]]
    ticks: List[int]
    again: List[bool]
    lies_in: List[int]  # -1 for a value with memory of its own
    in_place: List[bool]
    size: List[int]  # bytes that the memory of its own takes, else 0
    producer: List[int]  # -1 for a given value
    overwriter: List[int]  # -1 if its content is never destroyed
    keep: List[bool]


def flatten(program: Program) -> Flat:
    """The lists; times become ticks, at least one each, so that of two ways that cost nothing the shorter one is better."""
    tasks, values = program.tasks, program.values
    scale = TICKS / program.seconds if program.seconds > 0 else 0.0
    return Flat(
        [list(task.reads) for task in tasks],
        [list(task.writes) for task in tasks],
        [max(1, math.ceil(task.seconds * scale)) for task in tasks],
        [task.again for task in tasks],
        [-1 if value.lies_in is None else value.lies_in for value in values],
        [value.overwrites is not None for value in values],
        [value.size if value.lies_in is None and value.producer is not None else 0 for value in values],
        [-1 if value.producer is None else value.producer for value in values],
        [-1 if task is None else task for task in program.overwriter],
        [value.keep for value in values],
    )


def evict(flat: Flat, order: Sequence[int], budget: int, rule: Rule, worth: Sequence[float], limit: int) -> List[int]:
    """The sequence that the simulation makes. Where nothing can be given up it goes over the budget.

    `worth` multiplies the scores of the memory that was made for each value. The answer is empty if the runs cost more than `limit`
    ticks: under a budget that is far too small they would grow without end.
    """
    return _Simulation(flat, order, budget, rule, worth, limit).run()


def trial(flat: Flat, order: Sequence[int], budget: int, rule: Rule, worth: Sequence[float], limit: int) -> Tuple[List[int], int]:
    """The sequence of a simulation without its needless repeats, and its peak. Where that is above the budget, nothing makes it higher."""
    sequence = evict(flat, order, budget, rule, worth, limit)
    if not sequence:
        return [], 0
    extra = sum(flat.ticks[task] for task in sequence) - sum(flat.ticks[task] for task in order)
    shorter = drop_needless(flat, sequence, max(budget, peak_of(flat, sequence)), extra // TOO_CHEAP)
    return shorter, peak_of(flat, shorter)


def power(x: float, halves: int) -> float:
    """x to the power of `halves` / 2."""
    result = math.sqrt(x) if halves & 1 else 1.0
    for _ in range(halves >> 1):
        result *= x
    return result


class _Memory:
    def __init__(self, value: int, size: int) -> None:
        self.value = value  # that it was made for
        self.size = size
        self.holds: List[int] = []  # values of which it has an intact copy
        self.waiting = 0  # how many waiting tasks read from it
        self.there = True


class _Frame(NamedTuple):
    """A task that waits for what it reads; -1 for the end, which reads what is kept."""

    task: int
    reads: Sequence[int]
    has: List[_Memory]


class _Simulation:
    def __init__(self, flat: Flat, order: Sequence[int], budget: int, rule: Rule, worth: Sequence[float], limit: int) -> None:
        self.worth, self.limit, self.spent = worth, limit, 0
        self.flat, self.order, self.budget, self.rule = flat, order, budget, rule
        self.end = len(order)
        self.position = [0] * len(order)
        for step, task in enumerate(order):
            self.position[task] = step
        self.overwritten_at = [self.end + 1 if last < 0 else self.position[last] for last in flat.overwriter]
        self.uses: List[List[int]] = [[self.end] if keep else [] for keep in flat.keep]  # steps that need a value, the next one last
        for step in range(self.end - 1, -1, -1):
            for v in flat.reads[order[step]]:
                self.uses[v].append(step)
        self.again_by = self._again_by()
        self.holds: List[List[int]] = [[] for _ in flat.keep]  # steps until which a value is held
        self.where: List[Optional[_Memory]] = [None] * len(flat.keep)
        self.memories: List[_Memory] = []  # those with bytes, oldest first
        self.live = self.now = 0
        self.sequence: List[int] = []
        for v, producer in enumerate(flat.producer):
            if producer < 0:
                self._put(v, self._new_memory(v, 0))

    def run(self) -> List[int]:
        for step, task in enumerate(self.order):
            self.now = step
            self._bring(_Frame(task, self._wanted(), []))
        self.now = self.end
        self._bring(_Frame(-1, [v for v, keep in enumerate(self.flat.keep) if keep], []))
        return self.sequence if self._goes_on() else []

    def _goes_on(self) -> bool:
        return self.spent <= self.limit

    def _wanted(self) -> List[int]:
        """What this step reads, and what of the next steps' reads has been made already."""
        flat, reads = self.flat, list(self.flat.reads[self.order[self.now]])
        for step in range(self.now + 1, min(self.end, self.now + 1 + self.rule.ahead)):
            for v in flat.reads[self.order[step]]:
                if flat.producer[v] >= 0 and self.position[flat.producer[v]] < self.now < self.overwritten_at[v]:
                    reads.append(v)
        return reads

    def _again_by(self) -> List[int]:
        """For each value the last step at which it can be made again with nothing held."""
        flat = self.flat
        by = [self.overwritten_at[v] if producer < 0 else -1 for v, producer in enumerate(flat.producer)]
        for task in self.order:
            least = min([by[v] for v in flat.reads[task]], default=self.end + 1) if flat.again[task] else -1
            for v in flat.writes[task]:
                by[v] = least
        return by

    # --------------------------------------------------------------------------------------------------------------- run

    def _bring(self, frame: _Frame) -> None:
        """Have everything made that the task reads, then run it."""
        waiting = [frame]
        while waiting and self._goes_on():
            frame = waiting[-1]
            missing = self._take(frame)
            if missing >= 0:
                task = self.flat.producer[missing]
                waiting.append(_Frame(task, self.flat.reads[task], []))
                continue
            if frame.task >= 0:
                self._run(frame.task)
            for memory in frame.has:
                memory.waiting -= 1
            waiting.pop()

    def _take(self, frame: _Frame) -> int:
        """Hold on to what is there; answer the first value that is not."""
        missing = -1
        for v in frame.reads:
            memory = self.where[v]
            if memory is None:
                missing = v if missing < 0 else missing
            elif memory not in frame.has:
                frame.has.append(memory)
                memory.waiting += 1
        return missing

    def _run(self, task: int) -> None:
        flat = self.flat
        allocates = sum(flat.size[v] for v in flat.writes[task])
        if allocates and self.live + allocates > self.budget:
            self._make_room(allocates)
        homes = [self.where[flat.lies_in[v]] if flat.lies_in[v] >= 0 else None for v in flat.writes[task]]
        for v, home in zip(flat.writes[task], homes):
            if flat.in_place[v] and home is not None:
                for lost in home.holds:
                    self.where[lost] = None
                home.holds.clear()
        for v, home in zip(flat.writes[task], homes):
            self._put(v, home or self._new_memory(v, flat.size[v]))
        self.sequence.append(task)
        self.spent += flat.ticks[task]

    def _put(self, v: int, memory: _Memory) -> None:
        old = self.where[v]
        if old is memory:
            return
        if old is not None:
            old.holds.remove(v)
            if not old.holds:
                self._free(old)
        memory.holds.append(v)
        self.where[v] = memory

    def _new_memory(self, value: int, size: int) -> _Memory:
        memory = _Memory(value, size)
        if size:
            self.memories.append(memory)
            self.live += size
        return memory

    def _free(self, memory: _Memory) -> None:
        memory.there = False
        self.live -= memory.size
        for v in memory.holds:
            self.where[v] = None

    # -------------------------------------------------------------------------------------------------------------- room

    def _make_room(self, allocates: int) -> None:
        """Give up what nobody needs, oldest first, then what scores least; take back what there is room for after all."""
        self.memories = [memory for memory in self.memories if memory.there]
        room = self.budget - allocates
        for memory in self.memories:
            if self.live <= room:
                return
            if not memory.waiting and self._use_of(memory) == NEVER:
                self._free(memory)
        given_up: List[_Memory] = []
        small = (self.live - room) // MANY
        for too_small in (False, True):  # hundreds of numbers that make no room are looked at only if nothing else does
            if self.live <= room:
                break
            scored = [
                (self._score(memory), age)
                for age, memory in enumerate(self.memories)
                if memory.there and not memory.waiting and (memory.size < small) == too_small
            ]
            for _, age in sorted(scored):
                if self.live <= room:
                    break
                if self._give_up(self.memories[age]):
                    given_up.append(self.memories[age])
        for memory in reversed(given_up):
            if self.live + memory.size <= room:
                memory.there = True
                self.live += memory.size
                for v in memory.holds:
                    self.where[v] = memory

    def _use_of(self, memory: _Memory) -> int:
        return min([self._next_use(v) for v in memory.holds], default=NEVER)

    def _score(self, memory: _Memory) -> float:
        size, distance, cost = self.rule[:3]
        ticks = power(float(self._cost(memory)), cost) * self.worth[memory.value]
        return ticks / (power(float(memory.size), size) * power(float(self._use_of(memory) - self.now + 1), distance))

    def _cost(self, memory: _Memory) -> int:
        """Ticks to make again what is still needed of it, with all that is gone."""
        flat, total = self.flat, 0
        seen: Set[int] = set()
        waiting = [v for v in memory.holds if self._next_use(v) != NEVER]
        while waiting:
            task = flat.producer[waiting.pop()]
            if task < 0 or task in seen:
                continue
            seen.add(task)
            total += flat.ticks[task]
            waiting.extend(v for v in flat.reads[task] if self.where[v] is None or self.where[v] is memory)
        return total

    def _next_use(self, v: int) -> int:
        uses, holds = self.uses[v], self.holds[v]
        while uses and uses[-1] < self.now:
            uses.pop()
        return min(uses[-1] if uses else NEVER, min([step for step in holds if step >= self.now], default=NEVER))

    def _give_up(self, memory: _Memory) -> bool:
        """Free it, if all of its values that are needed can be made again in time; what they are made from is held."""
        holds: List[Tuple[int, int]] = []
        for v in memory.holds:
            if self._next_use(v) != NEVER:
                until = max([self.uses[v][-1] if self.uses[v] else -1, *self.holds[v]])
                if not self._can_be_made(v, until, memory, holds):
                    return False
        for v, until in holds:
            if until not in self.holds[v]:
                self.holds[v].append(until)
        self._free(memory)
        return True

    def _can_be_made(self, value: int, until: int, without: _Memory, holds: List[Tuple[int, int]]) -> bool:
        """Can `value` be made again at step `until`, this memory being gone? What has to be held for it goes into `holds`."""
        flat = self.flat
        seen = {value}
        waiting = [value]
        while waiting:
            task = flat.producer[waiting.pop()]
            if task < 0 or not flat.again[task]:
                return False
            for v in flat.reads[task]:
                place = self.where[v]
                if place is not None and place is not without and self.overwritten_at[v] >= until:
                    if flat.producer[v] >= 0 and (self.rule.hold or self.again_by[v] < until):
                        holds.append((v, until))
                elif self.again_by[v] < until and v not in seen:
                    seen.add(v)
                    waiting.append(v)
        return True


NEVER = 1 << 30
TOO_CHEAP = 64
"""A repeat that is cheaper than all repeats of a trial together by this factor is not worth asking whether it is needless."""
MANY = 256
"""A memory that is smaller than the room that is missing by this factor is the last to be looked at."""


def peak_of(flat: Flat, sequence: Sequence[int]) -> int:
    """The peak of a sequence, or -1 if it reads what is not there. For the planner's own trials; what counts is `replay`."""
    newest: List[List[int]] = [[m] if producer < 0 else [] for m, producer in enumerate(flat.producer)]
    holds: List[List[int]] = [[v] for v in range(len(flat.producer))]  # of memories 0 to m - 1, which are those of given values
    size = [0] * len(holds)
    made = [0] * len(holds)
    last = [0] * len(holds)
    for step, task in enumerate(sequence):
        for v in flat.reads[task]:
            if not newest[v]:
                return -1
            last[newest[v][-1]] = step
        homes = [newest[flat.lies_in[v]][-1] if flat.lies_in[v] >= 0 else -1 for v in flat.writes[task]]
        for v, home in zip(flat.writes[task], homes):
            if flat.in_place[v]:
                for lost in holds[home]:
                    newest[lost].remove(home)
                holds[home] = []
        for v, home in zip(flat.writes[task], homes):
            if home < 0:
                home = len(holds)
                holds.append([])
                size.append(flat.size[v])
                made.append(step)
                last.append(step)
            if v in holds[home]:
                newest[v].remove(home)
            else:
                holds[home].append(v)
            newest[v].append(home)
    change = [0] * (len(sequence) + 1)
    for v, keep in enumerate(flat.keep):
        if keep:
            if not newest[v]:
                return -1
            last[newest[v][-1]] = len(sequence) - 1
    for begin, end, bytes_ in zip(made, last, size):
        change[begin] += bytes_
        change[end + 1] -= bytes_
    return max(accumulate(change))


def drop_needless(flat: Flat, sequence: Sequence[int], budget: int, least: int = 0) -> List[int]:
    """Leave out every repeat of at least `least` ticks that the budget can do without, dearest first, until none is left."""
    kept = list(sequence)
    dropped = True
    while dropped:
        dropped = False
        seen: Set[int] = set()
        repeats = []
        for step, task in enumerate(kept):
            if task in seen and flat.ticks[task] >= least:
                repeats.append((-flat.ticks[task], step))
            seen.add(task)
        gone: Set[int] = set()
        for _, step in sorted(repeats):
            trial = [task for at, task in enumerate(kept) if at != step and at not in gone]
            if 0 <= peak_of(flat, trial) <= budget:
                gone.add(step)
                dropped = True
        kept = [task for at, task in enumerate(kept) if at not in gone]
    return kept

"""No sequence goes below this, however often it runs things again.

    footprint    what one task reads and writes is there while it runs
    way back     what a task reads is there at one moment; going back in time from there, one copy after the other is unmade

The way back. Let S be contents that are there, intact, at one moment. Of their copies one was made last, by a run of its producer p.
While that run went on, the other copies were there already, and what p reads, and the memory that p made. So

    height of that run  >=  bytes of (S without what p wrote) and what p reads  +  what p allocates

and (S without what p wrote) and what p reads were there together, just before. That is a set of the same sort, and so back to the
beginning, where nothing is there but what is given. Which copy was the last one we do not know, so we follow all of them: the
least, over all ways back to the empty set, of the greatest height on the way is a floor for every sequence in which S ever is there.
Every task runs, so what it reads is there at one moment; and so is, at the end, all that is kept.

The proof counts only what it is sure of, so it may forget: contents of one memory are counted one by one (a memory holds one content
at a time), views as what they show, given ones as nothing, and whatever is smaller than `least` leaves the set once its bytes were
counted. A search for the way back that is broken off has still shown the least height of the ways that it has not followed.

`check_repeat_floor` follows all ways below the floor again, in another manner, and must not arrive.

What tasks that may not run again have made is held beside all that for whoever needs it later: held_floors.py, whose chains the floor
then names.

>>> from theano_memopt.planner.program import worked_program
>>> floor = repeat_floor(worked_program())
>>> floor.bytes, floor.owner                       # `join` reads x: made last, it is there with z, the seed of x being given
(10, 4)
>>> check_repeat_floor(worked_program(), floor)
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Dict, FrozenSet, Iterable, Iterator, List, Optional, Set, Tuple

from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.held_floors import Chain, check_held, held_floors
from theano_memopt.planner.program import Program

EFFORT = 4_000
"""Sets that are opened in all; a few microseconds each. Floors of training steps settle within hundreds."""
STARTS = 32
"""Tasks to begin at, the largest footprints first."""
COARSE = 256
"""What is smaller than the largest footprint by this factor is forgotten on the way: numbers would make ways without end."""

Contents = FrozenSet[int]


@dataclass(frozen=True)
class RepeatFloor:
    bytes: int
    owner: Optional[int]
    """The task that shows it; None for the end, or for a program without tasks."""
    least: int = 0
    """Contents smaller than this were forgotten on the way."""
    chains: Tuple[Chain, ...] = ()
    """What is held beside the task for others (held_floors.py); then no way back has to be followed."""


def repeat_floor(program: Program, effort: int = EFFORT) -> RepeatFloor:
    """The best floor that the effort shows."""
    back = _WaysBack(program)
    starts = back.starts()
    if not starts:
        return RepeatFloor(0, None)
    best = RepeatFloor(starts[0][0], starts[0][1], 0)
    back.least = best.bytes // COARSE + 1
    left = effort
    for i, (height, owner, contents) in enumerate(starts[:STARTS]):
        share = left // (min(STARTS, len(starts)) - i)
        shown, spent = back.least_height(height, contents, best.bytes, share)
        left -= spent
        if shown > best.bytes:
            best = RepeatFloor(shown, owner, back.least)
    for higher, task, chains in held_floors(program, best.bytes):
        best = RepeatFloor(higher, task, 0, chains)
    return best


def largest_footprint(program: Program) -> int:
    """The floor that takes no effort."""
    return max((height for height, _, _ in _WaysBack(program).starts()), default=0)


class _WaysBack:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.least = 0
        values = program.values
        self.size = [0 if values[m].producer is None else values[m].size for m in program.memory]
        self.allocates = [sum(values[v].size for v in task.writes if values[v].lies_in is None) for task in program.tasks]
        self.reads = [frozenset(program.content[v] for v in task.reads if self.size[v]) for task in program.tasks]

    def starts(self) -> List[Tuple[int, Optional[int], Contents]]:
        """Heights, who shows them, and what is there: greatest heights first."""
        kept = frozenset(self.program.content[v] for v, value in enumerate(self.program.values) if value.keep and self.size[v])
        found: List[Tuple[int, Optional[int], Contents]] = [(self.bytes_of(kept), None, kept)] if kept else []
        found += [(self.bytes_of(reads) + self.allocates[t], t, reads) for t, reads in enumerate(self.reads)]
        return sorted(found, key=lambda row: (-row[0], -1 if row[1] is None else row[1]))

    def bytes_of(self, contents: Iterable[int]) -> int:
        return sum(self.size[v] for v in contents)

    def steps(self, contents: Contents) -> Iterator[Tuple[int, Contents]]:
        """For each producer that may have run last: the height of that run, and what was there before."""
        for task in sorted({p for p in (self.program.values[v].producer for v in contents) if p is not None}):
            before = frozenset(v for v in contents if self.program.values[v].producer != task) | self.reads[task]
            height = self.bytes_of(before) + self.allocates[task]
            yield height, frozenset(v for v in before if self.size[v] >= self.least)

    def least_height(self, height: int, contents: Contents, known: int, effort: int) -> Tuple[int, int]:
        """The greatest height that no way back avoids, as far as the effort goes, and the effort spent.

        Always the set with the lowest way so far is opened; as long as that is at most `known`, which is a floor anyway, the smallest.
        """
        contents = frozenset(v for v in contents if self.size[v] >= self.least)
        waiting = [(max(height, known), self.bytes_of(contents), 0, contents)]
        seen: Set[Contents] = set()
        number = spent = 0
        while waiting and spent < effort:
            lowest, _, _, here = heapq.heappop(waiting)
            if not here:
                return lowest, spent
            if here in seen:
                continue
            seen.add(here)
            spent += 1
            for step, before in self.steps(here):
                if before not in seen:
                    number += 1
                    heapq.heappush(waiting, (max(lowest, step), self.bytes_of(before), number, before))
        return (waiting[0][0] if waiting else known), spent


def check_repeat_floor(program: Program, floor: RepeatFloor, effort: int = 20 * EFFORT) -> None:
    """Follow every way back below the floor, from its owner; `Rejected` if one arrives, or if it takes more than the effort."""
    values = program.values
    if floor.bytes <= 0:
        return
    if floor.owner is None:
        there, made = [v for v, value in enumerate(values) if value.keep], 0
    elif 0 <= floor.owner < len(program.tasks):
        there, made = list(program.tasks[floor.owner].reads), _memory_made(program, floor.owner)
    else:
        raise Rejected("unknown-task", f"the floor is shown by task {floor.owner}, which does not exist")
    begin = _sizes(program, there)
    beside = check_held(program, floor.owner, floor.chains) if floor.owner is not None else 0
    if sum(begin.values()) + made + beside >= floor.bytes:
        return
    waiting = [begin]
    seen: Set[FrozenSet[int]] = set()
    while waiting:
        here = {v: size for v, size in waiting.pop().items() if size >= floor.least and size > 0}
        if not here:
            raise Rejected("weak-floor", f"there is a way to make all that is needed in less than {floor.bytes} bytes")
        if frozenset(here) in seen:
            continue
        seen.add(frozenset(here))
        if len(seen) > effort:
            raise Rejected("unfinished", f"the floor of {floor.bytes} bytes could not be shown within {effort} steps")
        for last in {values[v].producer for v in here}:
            assert last is not None  # given contents have no bytes and are not in the set
            before = {v: size for v, size in here.items() if values[v].producer != last}
            before.update(_sizes(program, program.tasks[last].reads))
            if sum(before.values()) + _memory_made(program, last) < floor.bytes:
                waiting.append(before)


def _sizes(program: Program, picked: Iterable[int]) -> Dict[int, int]:
    """The contents of some values, with their bytes; those in the memory of given values count 0."""
    found = {}
    for v in picked:
        memory = program.values[program.memory[v]]
        found[program.content[v]] = 0 if memory.producer is None else memory.size
    return found


def _memory_made(program: Program, task: int) -> int:
    return sum(program.values[v].size for v in program.tasks[task].writes if program.values[v].lies_in is None)

"""One dive for an arena of a given capacity: buffers are stacked upward, always at the lowest spot, and the last choice is taken back on failure.

    offset                          sections a, b, c between the births of buffers. The lowest spot is over a, at 2.
      4 |       +-------+           Either a buffer that lives in a begins there, or the spot is waste and the floor
      3 |       |       |           of a rises to where the next buffer over a can begin. Trying both leaves nothing out.
      2 +-------+   Y   |
        |   X   |       |
      0 +---a---+-b---c-+--> step

Words
    section    the time between two neighbouring births: whoever lives at its start lives in all of it
    floor      of a section: no buffer still to be placed can begin lower there (`floors`)
    rest       of a section: the bytes of its buffers still to be placed (`rests`)
    lowest     of a buffer: the highest floor in its span; it can begin no lower
    stretch    neighbouring sections held together by buffers still to be placed; two stretches are solved apart
    node       one choice point; effort is counted in nodes

Lemma (why the lowest spot is enough). Let every buffer of a solution sink until it rests on another one or on 0.
Take the spot of least floor m over section s. What is next over s begins at m, and then every floor in its span is m
(none is lower, none may be higher), so nothing is lost below it; or it begins higher, and the bytes between are waste.
So branching on *what is next over s* covers all sunken solutions, each once.

A dive fails where floor + rest exceeds the capacity. So in a section that is as full as the capacity nothing may be
wasted at all, which is what makes hard instances solvable: the fuller they are, the fewer choices remain.

`dive_compiled` is the same search in C (`_packing.c`), node for node; it is None where that could not be built.

>>> crowd = Crowd(births=(0, 1, 2), deaths=(2, 3, 3), sizes=(6, 3, 3), sections=3)
>>> dive_python(crowd, Aim(capacity=9, ranks=(0, 1, 2), limit=10), new_memory(4))
Dive(status=1, nodes=3, offsets=[0, 6, 0])
>>> dive_python(crowd, Aim(capacity=8, ranks=(0, 1, 2), limit=10), new_memory(4))
Dive(status=0, nodes=0, offsets=None)
"""

from __future__ import annotations

import time
from array import array
from operator import mul
from typing import Callable, List, MutableSequence, NamedTuple, Optional, Sequence, Tuple

from theano_memopt.options import ALL_PRUNINGS, Prunings
from theano_memopt.planner.load import loads

try:
    from theano_memopt.planner import _packing as compiled  # type: ignore[attr-defined,unused-ignore]
except ImportError:
    compiled = None

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15

PLACED = 2**62
"""The `lowest` of buffers that are placed: one comparison then passes them over."""

FOUND, EXHAUSTED, CUT = 1, 0, -1
"""How a dive ends: with offsets; with nothing left to try; at its limit of nodes or of seconds."""


class Crowd(NamedTuple):
    """The buffers to be placed: the same for every dive. Buffer b lives in the sections births[b] .. deaths[b] - 1 and has a size above 0."""

    births: Sequence[int]
    deaths: Sequence[int]
    sizes: Sequence[int]
    sections: int
    prunings: Prunings = ALL_PRUNINGS


class Aim(NamedTuple):
    """What one dive tries: to place all of them below `capacity`, those of lower rank first, within `limit` nodes."""

    capacity: int
    ranks: Sequence[int]
    limit: int
    seconds: Optional[float] = None


class Dive(NamedTuple):
    status: int
    nodes: int
    offsets: Optional[List[int]]


Memory = MutableSequence[int]
"""What dives remember of one another: keys of stretches that cannot be completed. For one crowd only."""


def new_memory(bits: int = 18) -> Memory:
    return array("Q", bytes(8 << bits))


def dive_python(crowd: Crowd, aim: Aim, memory: Memory) -> Dive:
    return _Search(crowd, aim, memory).run()


def _compiled_dive() -> Optional[Callable[[Crowd, Aim, Memory], Dive]]:
    if compiled is None:
        return None

    def dive_compiled(crowd: Crowd, aim: Aim, memory: Memory) -> Dive:
        columns = [array("q", column) for column in (crowd.births, crowd.deaths, crowd.sizes, aim.ranks)]
        seconds = -1.0 if aim.seconds is None else aim.seconds
        return Dive(*compiled.dive(*columns, crowd.sections, aim.capacity, aim.limit, seconds, memory, _bits(crowd.prunings)))

    return dive_compiled


def _bits(prunings: Prunings) -> int:
    """The switches as `_packing.c` reads them."""
    switches = (prunings.pack_apart, prunings.pack_lift, prunings.pack_waste, prunings.pack_twins, prunings.pack_memory)
    return sum(on << place for place, on in enumerate(switches))


dive_compiled = _compiled_dive()
dive: Callable[[Crowd, Aim, Memory], Dive] = dive_compiled or dive_python


def scatter(value: int) -> int:
    """64 well mixed bits from a number (the finalizer of splitmix64)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


class _Frame:
    """A choice point over the stretch [first, last): what is next over `section` at offset `spot`?"""

    __slots__ = ("first", "last", "section", "spot", "choices", "next", "changes", "placed", "scan", "key")

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.scan = first, last, first
        self.section = self.spot = self.next = self.changes = self.placed = self.key = 0
        self.choices: List[int] = []


class _Search:
    def __init__(self, crowd: Crowd, aim: Aim, memory: Memory) -> None:
        self.births, self.deaths, self.sizes, self.ranks = list(crowd.births), list(crowd.deaths), list(crowd.sizes), list(aim.ranks)
        self.sections, self.capacity, self.limit, self.memory = crowd.sections, aim.capacity, aim.limit, memory
        self.prunings = crowd.prunings
        self.until = None if aim.seconds is None else time.monotonic() + aim.seconds
        count, sections = len(self.sizes), self.sections
        spans = list(zip(self.births, self.deaths))
        self.living: List[List[int]] = [[] for _ in range(sections)]
        self.floors = [0] * sections
        self.rests = loads(self.sizes, spans, sections)
        self.crossing = [*loads([1] * count, [(born + 1, dead) for born, dead in spans], sections), 0]
        """Of each section the buffers still to be placed that live on both sides of its start."""
        self.names = [scatter(((b + 1) * GOLDEN) & MASK) for b in range(count)]
        self.waiting = [0] * sections  # the names of the buffers still to be placed that are born there, added up
        self.weights = [scatter(((s + 1 + count) * GOLDEN) & MASK) | 1 for s in range(sections)]
        self.lowest = [0] * count
        self.offsets = [-1] * count
        self.placed: List[int] = []
        self.changes: List[Tuple[List[int], int, int]] = []  # what to put back: (list, index, value)
        self.queue: List[int] = []
        self.queued = [False] * sections
        for b, (born, dead) in enumerate(spans):
            self.waiting[born] += self.names[b]
            for s in range(born, dead):
                self.living[s].append(b)
        self.nodes = 0

    def run(self) -> Dive:
        if max(self.rests, default=0) > self.capacity:  # asked once here, afterwards wherever a floor rises
            return Dive(EXHAUSTED, 0, None)
        frames = [_Frame(0, self.sections)]
        frames[0].next = 1  # the root has nothing to try; it only scans the whole time for stretches
        while True:
            top = frames[-1]
            stretch = self._next_stretch(top.scan, top.last)
            if stretch is None:  # all of top is placed
                frames.pop()
                if not frames:
                    return Dive(FOUND, self.nodes, self.offsets)
                frames[-1].scan = top.last
                continue
            self.nodes += 1
            if self.nodes > self.limit or (self.until is not None and self.nodes % 256 == 0 and time.monotonic() > self.until):
                return Dive(CUT, self.nodes, None)
            frame = _Frame(*stretch)
            if self._open(frame):
                frames.append(frame)
            while not self._advance(frames[-1]):
                failed = frames.pop()
                if not frames:
                    return Dive(EXHAUSTED, self.nodes, None)
                self.memory[(failed.key >> 20) % len(self.memory)] = failed.key

    def _next_stretch(self, first: int, last: int) -> Optional[Tuple[int, int]]:
        while first < last and self.rests[first] == 0:
            first += 1
        if first == last:
            return None
        end = first + 1
        if not self.prunings.pack_apart:
            return first, last
        while end < last and self.crossing[end]:
            end += 1
        return first, end

    def _open(self, frame: _Frame) -> bool:
        """Choose the section and collect its choices; False if this stretch is known to fail."""
        first, last = frame.first, frame.last
        total = sum(map(mul, self.floors[first:last], self.weights[first:last])) + sum(self.waiting[first:last])
        frame.key = scatter((total + self.capacity * GOLDEN) & MASK) | 1
        if self.prunings.pack_memory and self.memory[(frame.key >> 20) % len(self.memory)] == frame.key:
            return False
        spot = frame.spot = min(self.floors[s] for s in range(first, last) if self.rests[s])
        fewest = -1
        for s in range(first, last):
            if self.floors[s] != spot or not self.rests[s]:
                continue
            count = sum(1 for b in self.living[s] if self.lowest[b] == spot)
            # The fewest choices fail first; among equals the section with the least room for waste.
            if fewest < 0 or count < fewest or (count == fewest and self.rests[s] > self.rests[frame.section]):
                fewest, frame.section = count, s
        for b in sorted((b for b in self.living[frame.section] if self.lowest[b] == spot), key=self.ranks.__getitem__):
            if not any(self._twins(b, chosen) for chosen in frame.choices):  # swapping twins changes nothing
                frame.choices.append(b)
        frame.changes, frame.placed = len(self.changes), len(self.placed)
        return True

    def _twins(self, a: int, b: int) -> bool:
        return self.prunings.pack_twins and (self.births[a], self.deaths[a], self.sizes[a]) == (self.births[b], self.deaths[b], self.sizes[b])

    def _advance(self, frame: _Frame) -> bool:
        """Undo what was tried last and try what comes next: each choice in turn, then waste."""
        frame.scan = frame.first
        while frame.next < len(frame.choices):
            self._undo(frame)
            frame.next += 1
            if self._place(frame.choices[frame.next - 1], frame.spot):
                return True
        self._undo(frame)
        if frame.next > len(frame.choices):
            return False
        frame.next += 1
        raised = self._floor_over_waste(frame)
        if raised >= 0 and self._raise(frame.section, raised) and self._settle():
            return True
        self._undo(frame)
        return False

    def _floor_over_waste(self, frame: _Frame) -> int:
        """The least offset at which a buffer can begin over the section if none does at the spot; -1 if that is too high.

        One that could lie at the spot but lies higher rests on another buffer. The lowest of those over the section
        rests on one that does not live in it, hence no lower than the least top of such neighbours.
        """
        section, spot = frame.section, frame.spot
        if spot + 1 + self.rests[section] > self.capacity:
            return -1
        if not self.prunings.pack_waste:
            return spot + 1
        above = [self.lowest[b] for b in self.living[section] if spot < self.lowest[b] < PLACED]
        if frame.choices:
            first = min(self.births[b] for b in frame.choices)
            last = max(self.deaths[b] for b in frame.choices)
            tops = [
                min(
                    (
                        self.lowest[b] + self.sizes[b]
                        for b in self.living[s]
                        if self.lowest[b] < PLACED and not self.births[b] <= section < self.deaths[b]
                    ),
                    default=self.capacity + 1,
                )
                for s in range(first, last)
            ]
            above += [min(tops[self.births[b] - first : self.deaths[b] - first]) for b in frame.choices]
        raised = min(above, default=self.capacity + 1)
        return raised if raised + self.rests[section] <= self.capacity else -1

    def _place(self, buffer: int, spot: int) -> bool:
        self.offsets[buffer] = spot
        self.placed.append(buffer)
        self.waiting[self.births[buffer]] -= self.names[buffer]
        size = self.sizes[buffer]
        span = range(self.births[buffer], self.deaths[buffer])
        for s in span:
            self.rests[s] -= size
            self.crossing[s] -= s > span.start
        self.changes.append((self.lowest, buffer, self.lowest[buffer]))
        self.lowest[buffer] = PLACED
        for s in span:
            if self.rests[s] and not self._raise(s, spot + size):
                return False
            self._enqueue(s)  # its lowest buffer may have been this one
        return self._settle()

    def _raise(self, section: int, floor: int) -> bool:
        self.changes.append((self.floors, section, self.floors[section]))
        self.floors[section] = floor
        if floor + self.rests[section] > self.capacity:
            return False
        for b in self.living[section]:
            if self.lowest[b] < floor:
                self.changes.append((self.lowest, b, self.lowest[b]))
                self.lowest[b] = floor
                for s in range(self.births[b], self.deaths[b]):
                    self._enqueue(s)
        return True

    def _enqueue(self, section: int) -> None:
        if not self.queued[section]:
            self.queued[section] = True
            self.queue.append(section)

    def _settle(self) -> bool:
        """Raise floors to the lowest buffer over them until nothing moves; False where one rises too high."""
        at = 0
        while at < len(self.queue):
            section = self.queue[at]
            at += 1
            self.queued[section] = False
            if self.rests[section] and self.prunings.pack_lift:
                least = min(self.lowest[b] for b in self.living[section])
                if least > self.floors[section] and not self._raise(section, least):
                    return False
        self.queue.clear()
        return True

    def _undo(self, frame: _Frame) -> None:
        for section in self.queue:  # left over from a failure
            self.queued[section] = False
        self.queue.clear()
        while len(self.changes) > frame.changes:
            where, index, value = self.changes.pop()
            where[index] = value
        while len(self.placed) > frame.placed:
            buffer = self.placed.pop()
            self.offsets[buffer] = -1
            self.waiting[self.births[buffer]] += self.names[buffer]
            for s in range(self.births[buffer], self.deaths[buffer]):
                self.rests[s] += self.sizes[buffer]
                self.crossing[s] += s > self.births[buffer]

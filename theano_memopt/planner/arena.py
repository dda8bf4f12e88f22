"""Offsets: buffers of any size laid into one arena, so that no two that live together lie over each other.

    offset
      9 |         +--S--+
      6 |----L----+     |          L lives [0, 2), R [1, 4), S [2, 4)
        |         |     |          S takes the place that L left
      3 |    +----+--R--+...
      0 +----+----+-----+---> step

Words
    span      the half-open interval [born, dead) of steps in which a buffer lives
    load      the bytes live at one step; the greatest load is the floor of every arena
    height    the end of the highest buffer: the bytes that the arena takes
    gap       free offsets between two neighbours of a buffer

>>> pack(Packing((6, 3, 3), ((0, 2), (1, 4), (2, 4))))
Arena(offsets=(0, 6, 0), height=9, floor=9)
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any, Collection, Iterator, List, Optional, Sequence, Tuple

import numpy

from theano_memopt.options import PACKING, PackOptions
from theano_memopt.planner import placing, pressing
from theano_memopt.planner.liveness import lives
from theano_memopt.planner.load import Span, greatest_load, loads
from theano_memopt.planner.model import Graph
from theano_memopt.planner.slots import StorageRejected

DIVE_NODES = 1_000
"""Choice points of the shortest dive (twice the buffers where that is more). Luck decides most dives early, so many short ones find more."""

CROWDED = 10_000
"""Buffers times the sections they live in. Where there are k times as many, a choice point takes k times as long and weighs k. So does
a turn of the press, for which rows count."""

DIVING = 350_000
"""Choice points of a crowd of CROWDED, fewer of a larger one, after which the press takes over from the dives: where they meet the floor at
all they mostly have by then, and the press comes nearer where they do not."""


@dataclass(frozen=True)
class Packing:
    """The problem: buffers of given sizes with given lives. Checked at birth."""

    sizes: Sequence[int]
    spans: Sequence[Span]
    alignment: int = 1

    def __post_init__(self) -> None:
        if self.alignment < 1:
            raise ValueError(f"an alignment is 1 or more, not {self.alignment}")
        if len(self.sizes) != len(self.spans):
            raise ValueError(f"{len(self.sizes)} sizes for {len(self.spans)} spans")
        for size, (born, dead) in zip(self.sizes, self.spans):
            if size < 0 or dead < born:
                raise ValueError(f"a buffer of {size} bytes that lives [{born}, {dead})")

    @property
    def blocks(self) -> List[int]:
        """Sizes rounded up to the alignment, so that aligned offsets follow by themselves."""
        return [-(-size // self.alignment) * self.alignment for size in self.sizes]


@dataclass(frozen=True)
class Arena:
    offsets: Tuple[Optional[int], ...]
    """For each buffer where it begins; None for those that do not lie in the arena."""
    height: int
    """Bytes reserved: the end of the highest buffer."""
    floor: int
    """The greatest live load of aligned sizes; no arena is lower."""


def pack(packing: Packing, options: PackOptions = PACKING) -> Arena:
    """An arena as low as can be found: one-pass rules first, then a search (dives, and the press), until it meets the floor."""
    until = None if options.seconds is None else time.monotonic() + options.seconds
    blocks, spans = packing.blocks, packing.spans
    floor = greatest_load(blocks, spans)
    goal = max(floor, options.enough)
    best = [0] * len(blocks)
    best_height = -1
    spent = 0
    for offsets in _greedy(blocks, spans):
        spent += len(blocks)
        height = _height(blocks, spans, offsets)
        if best_height < 0 or height < best_height:
            best, best_height = offsets, height
        if best_height <= goal or spent >= options.effort or (until is not None and time.monotonic() > until):
            break
    if best_height > goal and spent < options.effort:
        search = _Search(packing, options, goal, best, best_height)
        search.run(options.effort - spent, until)
        best, best_height = search.best, search.height
    return Arena(tuple(best), best_height, floor)


def pack_graph(
    graph: Graph, order: Sequence[int], alignment: int = 64, may_lie: Optional[Collection[int]] = None, options: PackOptions = PACKING
) -> Arena:
    """An arena for the buffers that tasks write (of those, the ones in `may_lie`)."""
    spans = lives(graph, order)
    inside = _inside(graph, may_lie)
    packed = pack(Packing(tuple(graph.buffers[b].size for b in inside), tuple(spans[b] for b in inside), alignment), options)
    offsets: List[Optional[int]] = [None] * len(graph.buffers)
    for b, offset in zip(inside, packed.offsets):
        offsets[b] = offset
    return Arena(tuple(offsets), packed.height, packed.floor)


def check_arena(graph: Graph, order: Sequence[int], arena: Arena, alignment: int = 64, may_lie: Optional[Collection[int]] = None) -> None:
    """Raise StorageRejected unless `arena` is sound for this order."""
    if len(arena.offsets) != len(graph.buffers):
        raise StorageRejected("wrong-length", f"{len(arena.offsets)} offsets for {len(graph.buffers)} buffers")
    inside = _inside(graph, may_lie)
    for b in set(range(len(graph.buffers))) - set(inside):
        if arena.offsets[b] is not None:
            raise StorageRejected("not-ours", f"{graph.buffers[b].label!r} may not lie in the arena")
    spans = lives(graph, order)
    check_packing(
        [graph.buffers[b].size for b in inside],
        [spans[b] for b in inside],
        Arena(tuple(arena.offsets[b] for b in inside), arena.height, arena.floor),
        alignment,
        [graph.buffers[b].label for b in inside],
    )


def check_packing(sizes: Sequence[int], spans: Sequence[Span], arena: Arena, alignment: int = 1, labels: Optional[Sequence[str]] = None) -> None:
    """Raise StorageRejected unless all lie apart, aligned, and height and floor are what they claim.

    Two spans that meet are both alive when the later one is born, so it is enough to look at the births.
    """
    names = [repr(label) for label in labels] if labels is not None else [f"buffer {b}" for b in range(len(sizes))]
    if not len(sizes) == len(spans) == len(arena.offsets):
        raise StorageRejected("wrong-length", f"{len(sizes)} sizes, {len(spans)} spans, {len(arena.offsets)} offsets")
    placed = []
    for b, offset in enumerate(arena.offsets):
        if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0:
            raise StorageRejected("bad-offset", f"{names[b]} lies at {offset!r}")
        if offset % alignment:
            raise StorageRejected("misaligned", f"{names[b]} lies at {offset}, not a multiple of {alignment}")
        placed.append((spans[b], offset, -(-sizes[b] // alignment) * alignment, b))
    height = floor = 0
    alive: List[Tuple[int, int, int]] = []  # (offset, size, buffer)
    for moment, born in groupby(sorted(row for row in placed if row[2] > 0), key=lambda row: row[0][0]):
        alive = [row for row in alive if spans[row[2]][1] > moment]
        alive += [(offset, size, b) for (_, dead), offset, size, b in born if dead > moment]
        alive.sort()
        for (low, size, first), (high, _, second) in zip(alive, alive[1:]):
            if low + size > high:
                raise StorageRejected("overlap", f"{names[first]} at [{low}, {low + size}) and {names[second]} at {high} both live at step {moment}")
        floor = max(floor, sum(size for _, size, _ in alive))
        height = max([height] + [offset + size for offset, size, _ in alive])
    if arena.height != height:
        raise StorageRejected("wrong-height", f"{arena.height} bytes are claimed, the highest buffer ends at {height}")
    if arena.floor != floor:
        raise StorageRejected("wrong-floor", f"a floor of {arena.floor} is claimed, the greatest load is {floor}")


def _inside(graph: Graph, may_lie: Optional[Collection[int]]) -> List[int]:
    allowed = None if may_lie is None else set(may_lie)
    return [b for b, buffer in enumerate(graph.buffers) if buffer.producer is not None and (allowed is None or b in allowed)]


def _height(blocks: Sequence[int], spans: Sequence[Span], offsets: Sequence[int]) -> int:
    return max((o + s for o, s, (born, dead) in zip(offsets, blocks, spans) if s and dead > born), default=0)


def _greedy(blocks: Sequence[int], spans: Sequence[Span]) -> Iterator[List[int]]:
    """One-pass placements; each rule wins on some graphs."""
    items = range(len(blocks))
    length = [dead - born for born, dead in spans]
    for key in (
        lambda b: (-blocks[b], -length[b], b),
        lambda b: (spans[b][0], -length[b], b),
        lambda b: (-length[b], -blocks[b], b),
        lambda b: (-blocks[b] * length[b], b),
        lambda b: (spans[b][0], -blocks[b], b),
        lambda b: (-spans[b][1], -length[b], b),
    ):
        order = sorted(items, key=key)
        for tightest in (False, True):
            yield _fit(blocks, spans, order, tightest)


def _fit(blocks: Sequence[int], spans: Sequence[Span], order: Sequence[int], tightest: bool) -> List[int]:
    """Place one after the other, each into the lowest gap that is large enough, or the tightest one."""
    kind: Any = numpy.int64 if sum(blocks) < 2**62 and max((dead for _, dead in spans), default=0) < 2**62 else object
    born, dead, low, high = (numpy.zeros(len(blocks), dtype=kind) for _ in range(4))
    offsets = [0] * len(blocks)
    count = 0
    for b in order:
        size, (first, last) = blocks[b], spans[b]
        if size == 0 or first == last:
            continue
        near = numpy.flatnonzero((born[:count] < last) & (dead[:count] > first))
        near = near[numpy.argsort(low[near], kind="stable")]
        tops = numpy.zeros(len(near) + 1, dtype=kind)
        tops[1:] = numpy.maximum.accumulate(high[near])
        room = low[near] - tops[:-1]
        fits = numpy.flatnonzero(room >= size)
        if len(fits) == 0:
            spot = len(near)
        else:
            spot = fits[numpy.argmin(room[fits])] if tightest else fits[0]
        offsets[b] = int(tops[spot])
        born[count], dead[count], low[count], high[count] = first, last, offsets[b], offsets[b] + size
        count += 1
    return offsets


class _Search:
    """Dives first, then the press, which begins with the lowest of them."""

    def __init__(self, packing: Packing, options: PackOptions, goal: int, best: List[int], height: int) -> None:
        self.best, self.height, self.options = best, height, options
        blocks, spans = packing.blocks, packing.spans
        self.inside = [b for b, (born, dead) in enumerate(spans) if blocks[b] and dead > born]
        moments = sorted({spans[b][0] for b in self.inside})
        self.births = [bisect_left(moments, spans[b][0]) for b in self.inside]
        self.deaths = [bisect_left(moments, spans[b][1]) for b in self.inside]
        self.sections = len(moments)
        self.unit = reduce(math.gcd, (blocks[b] for b in self.inside))
        self.sizes = [blocks[b] // self.unit for b in self.inside]
        self.goal = goal // self.unit  # heights are whole units, and so is the floor
        self.living = sum(self.deaths) - sum(self.births)
        self.weight = max(1, self.living // CROWDED)
        self.keys = self._keys()

    def run(self, effort: int, until: Optional[float]) -> None:
        if sum(self.sizes) >= 2**61:  # the dives count in 64 bits
            return
        diving = DIVING * CROWDED // self.living * self.weight
        press = effort > diving and pressing.can_press(len(self.sizes), self.height // self.unit)
        left = effort - self._dive(diving if press else effort, until)
        if press and self.height > self.goal * self.unit:
            self._press(left, until)

    def _press(self, effort: int, until: Optional[float]) -> None:
        weight = max(1, self.height // self.unit // CROWDED)
        lives = pressing.Lives(self.births, self.deaths, self.sizes)
        offsets = [self.best[b] // self.unit for b in self.inside]
        pressed = pressing.press(lives, offsets, self.goal, effort // weight, None if until is None else max(0.0, until - time.monotonic()))
        if pressed.offsets != offsets:
            self._keep(pressed.offsets)

    def _dive(self, effort: int, until: Optional[float]) -> int:
        """Every other dive aims straight at the goal, the others step down between the goal and the best so far. The effort that they took."""
        given = effort
        weight = self.weight
        crowd = placing.Crowd(self.births, self.deaths, self.sizes, self.sections, self.options.prunings)
        memory = placing.new_memory()
        shortest = max(DIVE_NODES, 2 * len(self.sizes))
        straight, stepping = _Stream(), _Stream()
        turn = 0
        while effort > weight * len(self.sizes) and (until is None or time.monotonic() < until):
            least = self.height // self.unit - 1
            if least < self.goal:
                break
            stream = (straight, stepping)[turn % 2]
            aim = placing.Aim(
                capacity=self.goal if stream is straight else self.goal + stream.step(least - self.goal),
                ranks=self._ranks(stream.dives, turn),
                limit=min(shortest * _luby(stream.dives // len(self.keys) + 1), effort // weight),
                seconds=None if until is None else max(0.0, until - time.monotonic()),
            )
            dive = placing.dive(crowd, aim, memory)
            effort -= dive.nodes * weight
            turn += 1
            stream.dives += 1
            if dive.offsets is not None:
                self._keep(dive.offsets)
                stepping = _Stream()
            elif dive.status == placing.EXHAUSTED:
                self.goal = max(self.goal, aim.capacity + 1)
        return given - effort

    def _keep(self, offsets: Sequence[int]) -> None:
        self.height = self.unit * max(offset + size for offset, size in zip(offsets, self.sizes))
        for b, offset in zip(self.inside, offsets):
            self.best[b] = offset * self.unit
        if self.options.progress is not None:
            self.options.progress(f"arena of {self.height} bytes")

    def _keys(self) -> Tuple[List[int], ...]:
        """What makes a buffer worth placing early: a long life, a large area, a large size, a crowded time."""
        load = loads(self.sizes, zip(self.births, self.deaths), self.sections)
        length = [dead - born for born, dead in zip(self.births, self.deaths)]
        largest = max(self.sizes) + 1
        return (
            [w * largest + size for w, size in zip(length, self.sizes)],
            [w * size for w, size in zip(length, self.sizes)],
            [size * (self.sections + 1) + w for w, size in zip(length, self.sizes)],
            [max(load[born:dead]) * (self.sections + 1) + w for born, dead, w in zip(self.births, self.deaths, length)],
        )

    def _ranks(self, dives: int, turn: int) -> List[int]:
        """The place of each buffer in the order of one key, which is shaken from the second round on."""
        keys = self.keys[dives % len(self.keys)]
        if dives >= len(self.keys):
            keys = [key * (SHAKE + placing.scatter((turn << 32) + b) % (2 * SHAKE)) for b, key in enumerate(keys)]
        ranks = [0] * len(keys)
        for rank, b in enumerate(sorted(range(len(keys)), key=lambda b: (-keys[b], b))):
            ranks[b] = rank
        return ranks


class _Stream:
    """A sequence of dives with one aim; `step` takes the middle of the gap, then nearer and nearer to its upper end."""

    def __init__(self) -> None:
        self.dives = 0

    def step(self, gap: int) -> int:
        return gap - (gap >> (1 + self.dives // 4))


SHAKE = 1024
"""A shaken key is multiplied by 1 to 3 (times this number, in whole numbers: the same on every machine)."""


def _luby(i: int) -> int:
    """1 1 2 1 1 2 4 1 1 2 1 1 2 4 8 ...: restarts that are never far from the best fixed length, whatever that is.

    >>> [_luby(i) for i in range(1, 16)]
    [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]
    """
    while (i + 1) & i:
        i -= (1 << (i.bit_length() - 1)) - 1
    return (i + 1) >> 1

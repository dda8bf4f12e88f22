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

>>> pack([6, 3, 3], [(0, 2), (1, 4), (2, 4)])
Arena(offsets=(0, 6, 0), height=9, floor=9)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Collection, Iterator, List, Optional, Sequence, Tuple

import numpy

from theano_memopt.planner.liveness import lives
from theano_memopt.planner.model import Graph
from theano_memopt.planner.slots import StorageRejected

Span = Tuple[int, int]


@dataclass(frozen=True)
class Arena:
    offsets: Tuple[Optional[int], ...]
    """For each buffer where it begins; None for those that do not lie in the arena."""
    height: int
    """Bytes reserved: the end of the highest buffer."""
    floor: int
    """The greatest live load of aligned sizes; no arena is lower."""


def pack(
    sizes: Sequence[int],
    spans: Sequence[Span],
    alignment: int = 1,
    effort: int = 2_000_000,
    seconds: Optional[float] = None,
    progress: Optional[Callable[[str], None]] = None,
) -> Arena:
    """An arena as low as can be found within `effort`; stops at once where the floor is met."""
    blocks = _blocks(sizes, spans, alignment)
    floor = _floor(blocks, spans)
    best: Optional[List[int]] = None
    best_height = 0
    for offsets in _greedy(blocks, spans):
        height = _height(blocks, spans, offsets)
        if best is None or height < best_height:
            best, best_height = offsets, height
        if best_height == floor:
            break
    assert best is not None
    return Arena(tuple(best), best_height, floor)


def pack_graph(
    graph: Graph,
    order: Sequence[int],
    alignment: int = 64,
    may_lie: Optional[Collection[int]] = None,
    effort: int = 2_000_000,
    seconds: Optional[float] = None,
    progress: Optional[Callable[[str], None]] = None,
) -> Arena:
    """An arena for the buffers that tasks write (of those, the ones in `may_lie`)."""
    spans = lives(graph, order)
    inside = _inside(graph, may_lie)
    packed = pack([graph.buffers[b].size for b in inside], [spans[b] for b in inside], alignment, effort, seconds, progress)
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
        placed.append((offset, -(-sizes[b] // alignment) * alignment, b))
    height = floor = 0
    for moment in sorted({born for born, _ in spans}):
        alive = sorted(row for row in placed if spans[row[2]][0] <= moment < spans[row[2]][1] and row[1] > 0)
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


def _blocks(sizes: Sequence[int], spans: Sequence[Span], alignment: int) -> List[int]:
    """Sizes rounded up to the alignment, so that aligned offsets follow by themselves."""
    if alignment < 1:
        raise ValueError(f"an alignment is 1 or more, not {alignment}")
    if len(sizes) != len(spans):
        raise ValueError(f"{len(sizes)} sizes for {len(spans)} spans")
    for size, (born, dead) in zip(sizes, spans):
        if size < 0 or dead < born:
            raise ValueError(f"a buffer of {size} bytes that lives [{born}, {dead})")
    return [-(-size // alignment) * alignment for size in sizes]


def _floor(blocks: Sequence[int], spans: Sequence[Span]) -> int:
    """The greatest load."""
    changes = sorted([(dead, -size) for size, (_, dead) in zip(blocks, spans)] + [(born, size) for size, (born, _) in zip(blocks, spans)])
    load = greatest = 0
    for _, change in changes:
        load += change
        greatest = max(greatest, load)
    return greatest


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

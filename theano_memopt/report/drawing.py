"""Where storage lies over the steps of an order, as boxes to draw: no box overlaps another, and the highest one ends at what is held.

    kept      rooms stay for the whole call: each has a height of its own, and they fill what is reserved; workspaces of ops are above them
    arena     a box lies at its offset in the block; what lies outside comes and goes above it
    given     rooms come and go: they are stacked, the oldest lowest but small ones on top, and sink when one below them goes, so that the
    back      top is what is held then

Words
    room      storage of one cell, or of one buffer that has none
    box       a buffer, or a cell that is held open for its next tenant, between two steps and two heights

Picture, of storage that is given back. `b` sinks when `a` goes:

                  bbbb
            aaaabbbb
    step    0  1  2  3

>>> from theano_memopt.planner.model import worked_example
>>> graph = worked_example()
>>> drawing = drawn(graph, (0, 2, 1, 3, 4), None, kept=False)
>>> drawing.top, [box.low for box in drawing.boxes if graph.buffers[box.buffer].label == "l"]
(8, [6, 0])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, List, Sequence, Tuple

import numpy as np

from theano_memopt.planner.arena import Arena
from theano_memopt.planner.liveness import lives
from theano_memopt.planner.model import Graph
from theano_memopt.planner.plan import Storage, tenants_outside
from theano_memopt.planner.slots import Slots

HELD_OPEN = -1
"""In the place of a buffer: nobody lives in the cell, and its bytes are taken."""
THIN, LOW = 2000, 300
"""What is lower than the first part of the whole is not to be seen, and is not drawn; it counts in the heights all the same. Rooms that are
lower than the second part lie above the others, which would be cut into pieces where one of these goes."""

Span = Tuple[int, int]


@dataclass(frozen=True)
class Box:
    buffer: int
    begin: int
    end: int
    """It lies there from the first of these steps until before the second."""
    low: int
    high: int


@dataclass(frozen=True)
class Drawing:
    top: int
    """The most that is held at one step, or the height of all that is kept."""
    boxes: Tuple[Box, ...]


@dataclass(frozen=True)
class _Room:
    size: int
    tenants: Tuple[int, ...]
    """Buffers, one after the other."""
    begin: int
    end: int


def drawn(graph: Graph, order: Sequence[int], storage: Storage, kept: bool) -> Drawing:
    """`kept`: nothing is given back between steps."""
    spans = lives(graph, order)
    offsets = enumerate(storage.offsets if isinstance(storage, Arena) else ())
    inside = {b: offset for b, offset in offsets if offset is not None}
    block = storage.height if isinstance(storage, Arena) else 0
    boxes = [Box(b, *spans[b], offset, offset + graph.buffers[b].size) for b, offset in inside.items()]
    apart = _rooms(graph, storage, spans)
    in_rows = kept or (isinstance(storage, Slots) and not storage.eager)
    if in_rows:
        staying = [room for room in apart if not graph.buffers[room.tenants[0]].is_workspace]
        rows, block = _in_rows(graph, staying, spans, block)
        boxes, apart = [*boxes, *rows], [room for room in apart if room not in staying]
    more, top = _stacked(graph, apart, spans, block, len(order))
    least = top / THIN
    return Drawing(top, tuple(box for box in [*boxes, *more] if box.begin < box.end and box.high - box.low > least))


def _rooms(graph: Graph, storage: Storage, spans: Sequence[Span]) -> List[_Room]:
    found = []
    for tenants in tenants_outside(graph, storage):
        those = sorted((b for b in tenants if graph.buffers[b].size), key=lambda b: spans[b])
        if not those:
            continue
        size = max(graph.buffers[b].size for b in those)
        found.append(_Room(size, tuple(those), spans[those[0]][0], max(spans[b][1] for b in those)))
    return found


def _in_rows(graph: Graph, rooms: Sequence[_Room], spans: Sequence[Span], bottom: int) -> Tuple[List[Box], int]:
    """Each room has a row of its own; the largest is the lowest."""
    boxes = []
    for room in sorted(rooms, key=lambda room: (-room.size, room.tenants)):
        boxes += [Box(b, *spans[b], bottom, bottom + graph.buffers[b].size) for b in room.tenants]
        bottom += room.size
    return boxes, bottom


def _stacked(graph: Graph, rooms: Sequence[_Room], spans: Sequence[Span], bottom: int, steps: int) -> Tuple[List[Box], int]:
    """Rooms on top of each other, the oldest lowest; of two of one age the one that stays longer. Small ones come last."""
    held = np.zeros(steps + 1, dtype=np.int64)
    for room in rooms:
        held[room.begin : room.end] += room.size
    low = held.max(initial=0) / LOW
    level = np.full(steps + 1, bottom, dtype=np.int64)
    boxes: List[Box] = []
    for room in sorted(rooms, key=lambda room: (room.size < low, room.begin, -room.end, room.tenants)):
        for begin, end, below in _runs(level, room.begin, room.end):
            boxes += _of_room(graph, room, spans, begin, end, below)
        level[room.begin : room.end] += room.size
    return boxes, int(level.max(initial=bottom))


def _runs(level: Any, begin: int, end: int) -> Iterator[Tuple[int, int, int]]:
    """Stretches of steps over which the height below is the same."""
    turns = [begin, *(begin + 1 + int(i) for i in np.flatnonzero(np.diff(level[begin:end]))), end]
    return ((first, last, int(level[first])) for first, last in zip(turns, turns[1:]) if first < last)


def _of_room(graph: Graph, room: _Room, spans: Sequence[Span], begin: int, end: int, low: int) -> Iterator[Box]:
    """The tenants of a room between two steps, and where it is held open."""
    at = begin
    for b in room.tenants:
        born, dead = max(begin, spans[b][0]), min(end, spans[b][1])
        if born < dead:
            if at < born:
                yield Box(HELD_OPEN, at, born, low, low + room.size)
            yield Box(b, born, dead, low, low + graph.buffers[b].size)
            at = dead
    if at < end:
        yield Box(HELD_OPEN, at, end, low, low + room.size)

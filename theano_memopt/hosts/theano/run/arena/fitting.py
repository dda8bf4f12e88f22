"""Where everything lies for the shapes of one call: an order, an offset for every candidate, and how it lies there.

    signature --formulas--> shapes --> sizes --best_order--> order --> lives --pack | stretch--> offsets   =  Fitting

Why it is sound. A place is written by the variable's own task and read until the last reader of any of its names (the
cautious graph takes every declared view at its word). The order is total, so two variables whose lives do not touch never need
their places at once, whatever the machine; with lazy ops lives are counted in the steps of the CVM, which hold whichever branches are
taken (read/branches.py). `check_packing`, which shares nothing with the packer, holds every set of offsets against that
before it is used. A wrong size costs memory: the thunk finds that the place does not fit, and allocates.
"""

from __future__ import annotations

import functools
import math
from array import array
from typing import Any, Callable, Collection, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.feature import MemReuse
from theano_memopt.hosts.theano.read.true_sizes import Signature
from theano_memopt.hosts.theano.run.arena.block import ALIGNMENT, aligned, whole
from theano_memopt.hosts.theano.run.arena.variables import Variables
from theano_memopt.hosts.theano.run.cells import as_it_runs
from theano_memopt.hosts.theano.run.machines import ORDERS, Cell, Machines, Order, empty
from theano_memopt.hosts.theano.run.same_kind import flags_as_now
from theano_memopt.options import PackOptions
from theano_memopt.planner.arena import Arena, Packing, check_packing, pack
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.load import Span, greatest_load
from theano_memopt.progress import planning

STRETCH = 1.25
"""How far above its floor an arena for a new signature may be, until the signature is familiar."""


class Fitting(NamedTuple):
    """Where everything lies for one signature. Dozens are kept, so it has nothing that the signature says again."""

    order: Order
    buffers: Tuple[int, ...]
    offsets: array[int]
    """Of `buffers`, in the same sequence."""
    height: int
    unshared: int
    """Bytes of all that has a place: what Theano without gc would keep of it."""
    searched: bool
    """Was an order searched for these sizes, and were the offsets packed with effort?"""


class Place(NamedTuple):
    cell: Cell
    kind: Any
    """A dtype with the shape as it lies in memory."""
    offset: int
    transposition: Optional[Tuple[int, ...]]
    """From there, if any."""


class ArenaPlanner(Machines):
    """Plans for signatures. Beside the machines over several orders it has what is known of the variables."""

    def __init__(self, make: Callable[..., Any], feature: MemReuse, annotation: Annotation, linker: Any, thunks: Sequence[Any], storage_map: Any):
        super().__init__(make, feature, annotation, linker, thunks, storage_map, annotation.reading.cautious)
        self._new_variables = flags_as_now()(functools.partial(Variables, annotation, linker, storage_map))
        self.variables = self._new_variables()
        self._packed: Any = None
        """Order, buffers, their aligned sizes, and the arena that was packed for them last."""
        self._lifetimes: Dict[Order, Sequence[Span]] = {}

    def forget_arrays(self) -> None:
        """What calls have shown of the variables; those whose layout may change have no place any more. Machines that let arrays go for it are
        made anew."""
        self.variables = self._new_variables(steady_alone=True)
        self.retire(*self._machines)

    # --- for one signature -------------------------------------------------------------------------------------------

    @planning("planning a block for the sizes of a call")
    def fit(self, signature: Signature, without_place: FrozenSet[int], search: bool, at_hand: int) -> Fitting:
        """Order and offsets for the true sizes. Without `search` quickly: the order in use, and offsets stretched from the last ones or
        by one rule. `at_hand` bytes are there already; but no more are laid out than Theano without gc would keep."""
        known, lying = self.variables, self._shapes(signature)
        sizes = self.seen_sizes_at(signature)
        barred = known.allocates_itself | known.undeclared_alias | without_place
        buffers = tuple(b for b in known.candidates if b in lying and b not in barred and sizes[b] > 0 and min(lying[b], default=1) >= 0)
        if search:
            self.order = self.best_order(sizes)
        arena = self._offsets(buffers, [sizes[b] for b in buffers], search, at_hand)
        if self._packed is not None and self._packed[1] == buffers:
            buffers = self._packed[1]  # one tuple for all
        unshared = sum(sizes[b] for b in buffers)
        return Fitting(self.order, buffers, array("q", arena.offsets), arena.height, unshared, search)  # type: ignore[arg-type]

    def _shapes(self, signature: Signature) -> Dict[int, Tuple[int, ...]]:
        """Of each buffer whose formula was seen to be right."""
        return {b: shape for b, _, shape in self.shaped(signature) if b not in self.variables.formula_mismatch}

    def seen_sizes_at(self, signature: Signature) -> Tuple[int, ...]:
        """True bytes of every buffer. Where no formula gives them, those of the recorded call."""
        known, roots = self.variables, self.reading.roots
        sizes = [known.seen[root].size if root in known.seen else 0 for root in roots]
        for b, shape in self._shapes(signature).items():
            sizes[b] = max(0, math.prod(shape)) * np.dtype(roots[b].type.dtype).itemsize
        return (*sizes, *self.workspaces_at(signature))

    def _offsets(self, buffers: Tuple[int, ...], sizes: Sequence[int], search: bool, at_hand: int) -> Arena:
        spans = self.lifetimes(self.order)
        alive = [spans[b] for b in buffers]
        arena = None if search else self._stretched(buffers, sizes, at_hand)
        packed = arena is None
        if arena is None:
            arena = pack(Packing(sizes, alive, ALIGNMENT), PackOptions() if search else PackOptions(effort=0))
        check_packing(sizes, alive, arena, ALIGNMENT, [self.graph.buffers[b].label for b in buffers])
        if packed:
            self._packed = (self.order, buffers, tuple(aligned(size) for size in sizes), arena)
        return arena

    def _stretched(self, buffers: Tuple[int, ...], sizes: Sequence[int], at_hand: int) -> Optional[Arena]:
        """The last packed offsets, stretched to these sizes, if that wastes little."""
        if self._packed is None or self._packed[:2] != (self.order, buffers) or not buffers:
            return None
        blocks = [aligned(size) for size in sizes]
        spans = self.lifetimes(self.order)
        found = stretched(self._packed[3].offsets, self._packed[2], blocks, greatest_load(blocks, [spans[b] for b in buffers]))
        return found if found.height <= max(min(at_hand, sum(blocks)), STRETCH * found.floor) else None

    def lifetimes(self, order: Order) -> Sequence[Span]:
        """Two buffers whose lifetimes do not touch never need their places at once. With lazy ops they are counted in steps."""
        if not self.variables.follows_steps:
            return self.spans(order)
        if order not in self._lifetimes:
            found = self.feature.reordered(self.annotation, order)
            assert found.steps is not None  # `searched` answers no other order
            if len(self._lifetimes) >= ORDERS:
                self._lifetimes.clear()
            self._lifetimes[order] = lives(*as_it_runs(found, self.graph))
        return self._lifetimes[order]

    def floor(self, fitting: Fitting, sizes: Sequence[int]) -> int:
        """The height that no arena for these buffers is below, were every task run in this order."""
        spans = self.spans(fitting.order)
        return greatest_load([aligned(sizes[b]) for b in fitting.buffers], [spans[b] for b in fitting.buffers])

    def places(self, fitting: Fitting, signature: Signature) -> Tuple[Place, ...]:
        shapes = self._shapes(signature)
        return tuple(self._place(b, shapes[b], offset) for b, offset in zip(fitting.buffers, fitting.offsets))

    def _place(self, b: int, shape: Tuple[int, ...], offset: int) -> Place:
        layout = self.variables.layout_of(b)
        dtype, cell = np.dtype(self.reading.roots[b].type.dtype), self.variables.cells[b]
        if layout is None:
            return Place(cell, whole(dtype, shape), offset, None)
        return Place(cell, whole(dtype, tuple(shape[axis] for axis in layout)), offset, tuple(int(a) for a in np.argsort(layout)))

    # --- arrays that ops allocate for themselves -----------------------------------------------------------------------

    def let_go_at(self, order: Order) -> Dict[int, List[Cell]]:
        known = self.variables
        found: Dict[int, List[Cell]] = {}
        for b in sorted(known.allocates_anew) if not self.allow_gc else ():
            if known.ends_for_certain(b):
                found.setdefault(self.last_step(order, b), []).extend(known.cells_of(b))
        return found

    def last_step(self, order: Order, b: int) -> int:
        """The position in the order after which nothing reads the buffer any more."""
        return min(self.spans(order)[b][1], len(order)) - 1

    def let_go_from_now_on(self, buffers: Collection[int]) -> None:
        """In every call after the last reader. Machines that were made before do not do it, so they are made anew."""
        self.variables.allocates_anew.update(buffers)
        self.retire(*self._machines)
        for b in buffers:
            empty(self.variables.cells_of(b))

    def without_room(self, fitting: Fitting, sizes: Sequence[int]) -> Set[int]:
        """Of the arrays that ops fill again and that are in C order in every call, the largest that block and planned peak leave no room for."""
        known = self.variables
        kept = sorted(known.disposable - known.unjudged - known.allocates_anew, key=lambda b: sizes[b])
        room = timeline(self.graph.resized(sizes), fitting.order).peak - fitting.height
        found = set()
        for b in kept:
            room -= sizes[b]
            if room < 0 and b in self.reading.steady:
                found.add(b)
        return found


def stretched(offsets: Sequence[Optional[int]], old: Sequence[int], new: Sequence[int], floor: int) -> Arena:
    """Offsets for the aligned sizes `new`, from sound ones for `old`: all multiplied by the greatest growth p / q of any size.

    Sound: let b end where c begins or before, o_b + old_b <= o_c. Then p/q o_c >= p/q o_b + new_b, for new_b <= p/q old_b;
    and rounding up to the alignment keeps that, for new_b is a multiple of it.

    >>> stretched((0, 128, 0), (128, 64, 64), (256, 64, 64), 320)
    Arena(offsets=(0, 256, 0), height=320, floor=320)
    """
    p, q = 0, 1
    for before, now in zip(old, new):
        if now * q > p * before:
            p, q = now, before
    moved = tuple(-(-(offset or 0) * p // (q * ALIGNMENT)) * ALIGNMENT for offset in offsets)
    return Arena(moved, max(offset + size for offset, size in zip(moved, new)), floor)

"""One block for all intermediates of a function: the speed of allow_gc=False in the memory of the planned peak.

    call 1     recorded   Theano allocates, with gc; each array is looked at when its task has run: shape, layout, whose memory
    call 2     tried      every cell is filled with its place in the block; who did not write there is left out from now on
    call 3...             the same places again: compare the shapes of the inputs, fill the cells, run Theano's own machine

Picture: the cells of three variables before a call, and the block.

    cell of a  [view] ----------+                          +--- offset 0
    cell of b  [view] ------+   +---> |  a, later c        |
    cell of c  [view] --+   |         |                    |
                        |   +-------> |  b                 |
                        +-----------> (where a was)

Words
    block      aligned bytes that all places of a function lie in
    place      the view of the block that a variable's cell is filled with
    lender     owns a block and lends it to one call at a time
    signature  what the sizes rest on: shapes of inputs and shared variables (and whole numbers among the inputs)
    layout     how the arrays that the caller gives lie in memory: some intermediates take after them
    fitting    offsets and shapes for one signature
    own array  what an op puts into its cell instead of writing into the place it was given
    let go     an own array is taken out of its cell when its last reader has run, or at the end of the call where that is not certain

Why it is sound. A place is written by the variable's own task and read until the last reader of any of its names (the
cautious graph: every declared view is taken at its word). The order is total, so two variables whose lives do not touch
never need their places at once, whatever the machine; that is checked for every set of offsets before it is used
(check_packing shares nothing with the packer). Left out are: outputs, updates, and what may be a view of them; inputs,
shared variables and constants; what an untrusted or lazy op touches; what was seen to alias where nothing declares it.
A wrong size costs memory: the thunk finds that the place does not fit and allocates.

Without gc Theano keeps an array, and with it its order in memory, and the last bit of a product can hang on that. What Elemwise
made keeps the order of the recorded call whatever shape comes; only once it was so short that it was in C and in Fortran order,
it is in C order from then on, and has no place any more. What another op makes can take after what the caller gives when its
shape comes: it has no place while that lies unlike in the recorded call.

Own arrays without gc. A variable that has no place keeps the array of the recorded call in its cell for the tried call, as Theano would
have it. An op that fills that array again goes on so: where it did not, the array of every later call is let go, for the op
never looks at what it finds, and no bit can change. An array that is filled again, and lies in C order in every call, is let go as well where block
and kept arrays together would take more than the planned peak.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Callable, Collection, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np
from theano import tensor
from theano.compile.ops import Rebroadcast, ViewOp
from theano.tensor.blas import GemmRelated
from theano.tensor.elemwise import DimShuffle, Elemwise
from theano.tensor.subtensor import IncSubtensor, Subtensor

import theano_memopt_ops as ops  # the module, not its names: it may be the first to import Theano, and be half made here
from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.feature import MemReuse, StoodAside, complain
from theano_memopt.hosts.theano.read.aliases import with_sources
from theano_memopt.hosts.theano.read.true_sizes import Signature
from theano_memopt.hosts.theano.run.arena.worthwhile import too_little
from theano_memopt.hosts.theano.run.machines import Cell, Machines, Order, empty
from theano_memopt.options import PackOptions
from theano_memopt.planner.arena import Arena, Packing, check_packing, pack
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.plan import Plan, along

SIGNATURES = 64
"""Fittings that are kept; the one not used for longest goes first. After as many calls in a row that find none, none is made."""
FAMILIAR = 3
"""Calls after which a new signature is worth a search; before that it gets the best known order and one-pass offsets."""
ALIGNMENT = 64
"""A cache line, and what vector instructions want."""
TRIALS = 3
"""Calls in which arrays outside the block are looked at; an op that has not run by then may keep what it has."""
GROWTH = 2
"""Inputs so many times as large make it worth asking again whether an arena is worthwhile."""
SPARE = 8
"""Calls with a block more than twice too large after which it is made smaller."""
STRETCH = 1.25
"""How far above its floor an arena for a new signature may be, until the signature is familiar."""
FIELDS = 2**31
"""NumPy describes parts of an element only below this size."""
OVERWRITES = (DimShuffle, Elemwise, GemmRelated, IncSubtensor, Rebroadcast, Subtensor, tensor.Reshape, ViewOp)
"""Ops whose view or in-place result replaces what the cell held. Other ops' cells are emptied first: one might write there."""

RECORDED = {"variable_shape", "variable_strides", "variable_offset", "dependencies", "node_executed_order", "node_cleared_order"}
"""What a machine has for Theano's profile beside counts and times, if memory is profiled."""

Layout = Tuple[Any, ...]


# --- memory ----------------------------------------------------------------------------------------------------------


class Block:
    """Aligned bytes, and views of them."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.room = room = np.empty(height + ALIGNMENT, np.uint8)
        address = room.__array_interface__["data"][0]
        self.start = -address % ALIGNMENT
        self.address = address + self.start
        # As one element of raw data: getfield makes a view in half the time of the constructor.
        self.field = np.ndarray((), _raw(height), room, self.start).getfield if 0 < height < FIELDS else None

    def place(self, kind: Any, offset: int) -> np.ndarray:
        if self.field is not None:
            return self.field(kind, offset)
        return np.ndarray(kind.shape, kind.base, self.room, self.start + offset)

    def has(self, address: int) -> bool:
        return self.address <= address < self.address + self.height


class Large(NamedTuple):
    """What a dtype of an array's whole shape would be, were there one of this size."""

    base: Any
    shape: Tuple[int, ...]


def _whole(dtype: Any, shape: Tuple[int, ...]) -> Any:
    return np.dtype((dtype, shape)) if math.prod(shape) * dtype.itemsize < FIELDS else Large(dtype, shape)


@functools.lru_cache(maxsize=256)
def _raw(size: int) -> Any:
    return np.dtype((np.void, size))


class Lender:
    """Owns a block and lends it to one call at a time: to the one that holds the lock."""

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self.block: Optional[Block] = None
        self.user: Any = None
        """The machine that has the lock, or had it last."""
        self.running = False
        self.tenants: weakref.WeakSet[ArenaVM] = weakref.WeakSet()
        _lenders.add(self)

    def of(self, height: int) -> Block:
        """A block of at least this height. Only with the lock held."""
        if self.block is None or self.block.height < height:
            self.give_back()  # first give back, then take
            self.block = Block(height)
        return self.block

    def give_back(self) -> None:
        for tenant in list(self.tenants):
            tenant.let_go()
        self.block = None


_lenders: weakref.WeakSet[Lender] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child the other threads are gone, and what they held would be held for ever."""
    for lender in list(_lenders):
        if not lender.lock._is_owned():
            lender.lock, lender.running = threading.RLock(), False
        for tenant in list(lender.tenants):
            tenant.beside = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_context = threading.local()


@contextlib.contextmanager
def shared_arena() -> Iterator[Lender]:
    """Functions compiled inside share one block, as large as the largest of them needs: right for functions that run one
    after the other, as train and validate do. One that runs while another has the block allocates as Theano would.

    >>> import theano_memopt, theano, theano.tensor as tt
    >>> x, mode = tt.dmatrix("x"), theano_memopt.mode("FAST_RUN", storage="arena")
    >>> with theano_memopt.shared_arena():
    ...     train = theano.function([x], tt.dot(x, x).sum(), mode=mode)
    ...     validate = theano.function([x], tt.exp(x).sum(), mode=mode)
    >>> train.fn.lender is validate.fn.lender
    True
    """
    before = getattr(_context, "lender", None)
    _context.lender = Lender()
    try:
        yield _context.lender
    finally:
        _context.lender = before


@contextlib.contextmanager
def making() -> Iterator[None]:
    """Around the making of a machine. Machines made meanwhile are for inner functions (of Scan), which run inside it."""
    _context.depth = getattr(_context, "depth", 0) + 1
    try:
        yield
    finally:
        _context.depth -= 1


def shared_lender() -> Optional[Lender]:
    """The one that `shared_arena` has made for the machine that is being made, if any."""
    return None if getattr(_context, "depth", 0) > 1 else getattr(_context, "lender", None)


# --- what is known of a variable, and of a signature -------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """An array as its task left it in its cell."""

    shape: Tuple[int, ...]
    layout: Optional[Tuple[int, ...]]
    """The axes from the longest stride to the shortest; None where they are in order."""
    address: int
    size: int


@dataclass(frozen=True)
class Fitting:
    """Where everything lies for one signature."""

    order: Order
    buffers: Tuple[int, ...]
    kinds: Tuple[Any, ...]
    """For each buffer a dtype with its shape as it lies in memory."""
    turns: Tuple[Optional[Tuple[int, ...]], ...]
    """For each buffer the transposition from there, if any."""
    arena: Arena
    """Offsets of `buffers`, in the same sequence."""
    sizes: Tuple[int, ...]
    """True bytes of every buffer of the graph."""
    searched: bool


class House(Machines):
    """What does not change from call to call: beside the machines the cells, and who may lie in a block."""

    def __init__(self, make: Callable[..., Any], feature: MemReuse, annotation: Annotation, linker: Any, thunks: Sequence[Any], storage_map: Any):
        super().__init__(make, feature, annotation, linker, thunks, storage_map, annotation.reading.cautious)
        self._last: Any = None
        """Order, buffers, their aligned sizes, and the arena that was packed for them last."""
        self.candidates = may_lie(annotation, linker)
        self.cells = {b: storage_map[self.reading.roots[b]] for b in self.candidates}
        names = [v for b in self.candidates for v in self.reading.names[b]]
        self.tenant_cells = [storage_map[v] for v in dict.fromkeys(names)]
        roots = {self.reading.roots[b] for b in self.candidates}
        self.emptied = [storage_map[v] for v in dict.fromkeys(names) if v not in roots and not isinstance(v.owner.op, OVERWRITES)]
        self.buffers_of: Dict[Any, Set[int]] = {}
        for b, inside in enumerate(self.reading.names):
            for v in inside:
                self.buffers_of.setdefault(v, set()).add(b)
        self.given = [storage_map[v] for v in self.fgraph.inputs if isinstance(v.type, tensor.TensorType) and not all(v.type.broadcastable)]
        self.seen: Dict[Any, Seen] = {}
        unsteady = {b: self.reading.roots[b] for b in self.candidates if b not in self.reading.steady and not self.allow_gc}
        self.elementwise = {b for b, root in unsteady.items() if isinstance(root.owner.op, Elemwise)}
        self.turning = {b for b, root in unsteady.items() if not isinstance(root.owner.op, (Elemwise, ops.Copy))}
        """Buffers that may take after the caller's arrays whenever another shape comes."""
        self.turned: Dict[int, Tuple[Any, bool]] = {}
        """Of each the shape now, and whether that came in the layout of the recorded call."""
        self.flattened: List[Tuple[Cell, np.ndarray]] = []
        """Cells of arrays that have become too short for an order, and what Elemwise is to find there."""
        self.unplaced = self._unplaced()
        """Buffers whose arrays Theano keeps without gc, and that may not lie in the block."""
        self.unplaced_roots = {self.reading.roots[b] for b in self.unplaced}
        self.recorded: Dict[Any, np.ndarray] = {}
        """Their arrays in the recorded call, by variable."""
        returned = set(self.fgraph.outputs)  # with borrow=True, as in a Scan, Theano's list of what is handed out leaves them out
        self.disposable = {b for b in self.unplaced if not returned.intersection(self.reading.names[b])}
        """Those of them that only the function itself reads."""
        self.unjudged = set(self.disposable)
        """Those of which it is not known yet whether the op fills again the array that it finds."""
        self.allocating: Set[int] = set()
        """Buffers whose array is let go in every call, for the op allocates another one in the next."""
        self.strange: Set[int] = set()
        """Buffers that an op was seen to alias without saying so."""
        self.own: Set[int] = set()
        """Buffers whose op puts an array of its own into the cell."""
        self.wrong: Set[int] = set()
        """Buffers whose formula is not what happens."""

    def _unplaced(self) -> Set[int]:
        if self.allow_gc or self.fgraph.update_mapping is None:
            return set()
        updates = [self.fgraph.outputs[i] for i in self.fgraph.update_mapping]
        gone = with_sources([*updates, *self.linker.no_recycling])
        return {b for b, root in enumerate(self.reading.roots) if b not in self.cells and root not in gone}

    # --- what a call shows -------------------------------------------------------------------------------------------

    def layout(self) -> Layout:
        """How what the caller gives lies in memory: of each array None if in C order, "F" if in Fortran order, else its strides."""
        return tuple(_order_of(cell[0]) for cell in self.given)

    def bring_back(self) -> None:
        """What Theano would have kept of the recorded call, which ran with gc."""
        for v, array in self.recorded.items():
            self.storage_map[v][0] = array
        self.recorded.clear()

    def unlike(self, signature: Signature, alike: bool) -> FrozenSet[int]:
        """The buffers that have no place with this signature, given whether the caller's arrays are laid out as in the recorded call."""
        in_fortran_order = {b for b in self.elementwise - self.own if self._layout_of(b) is not None}
        for (b, dtype), shape in zip(self.row, self.shapes_at(signature) if self.turning or in_fortran_order else ()):
            if b in self.turning and self.turned.get(b, (None, True))[0] != shape:
                self.turned[b] = (shape, alike)
            if b in in_fortran_order and (0 in shape or sum(length > 1 for length in shape) < 2):
                self.own.add(b)
                self.flattened.append((self.cells[b], np.empty((2,) * len(shape), dtype, order="F")))  # Elemwise resizes it
        return frozenset(b for b, (_, was_alike) in self.turned.items() if not was_alike)

    def always_in_c_order(self) -> bool:
        """Is every array that may lie in a block in C order, whatever comes? Then Theano can make it anew at any time."""
        return not self.turning and all(self._layout_of(b) is None for b in self.elementwise)

    def fill_with_c_order(self) -> None:
        """What Elemwise finds it resizes, and its order stays: without that it would take after the caller's arrays of that call."""
        for b in self.elementwise - self.own:
            kind = self.reading.roots[b].type
            self.cells[b][0] = np.empty((2,) * kind.ndim, kind.dtype)

    def record(self, node: Any) -> None:
        """Look at the results of a node that has just run: their shape and layout, and whose memory they are."""
        for v in node.outputs:
            array = self.storage_map[v][0]
            if not isinstance(array, np.ndarray):
                continue
            if v in self.unplaced_roots:
                self.recorded[v] = array
            self.seen[v] = Seen(array.shape, _layout(array), array.ctypes.data, array.nbytes)
            allowed = self.buffers_of.get(v, set())
            for other in node.inputs:
                theirs = self.buffers_of.get(other, set())
                if theirs and not theirs <= allowed and _overlap(array, self.storage_map[other][0]):
                    self.strange |= theirs | allowed

    def let_go_at(self, order: Order) -> Dict[int, List[Cell]]:
        found: Dict[int, List[Cell]] = {}
        for b in sorted(self.allocating) if not self.allow_gc else ():
            if self.ends_for_certain(b):
                found.setdefault(self.last_step(order, b), []).extend(self.cells_of(b))
        return found

    def left_to_the_end(self) -> List[Cell]:
        """Cells of arrays that are let go, but not before the call has ended."""
        return [cell for b in sorted(self.allocating) if not self.ends_for_certain(b) for cell in self.cells_of(b)]

    def ends_for_certain(self, b: int) -> bool:
        """Do the op that makes it and all that read it run in every call, in the planned order?"""
        buffer = self.graph.buffers[b]
        return all(self.reading.nodes[t] in self.reading.certain for t in (buffer.producer, *buffer.readers) if t is not None)

    def last_step(self, order: Order, b: int) -> int:
        return min(self.spans(order)[b][1], len(order)) - 1

    def cells_of(self, b: int) -> List[Cell]:
        return [self.storage_map[v] for v in self.reading.names[b]]

    def let_go_from_now_on(self, buffers: Collection[int]) -> None:
        """Machines that were made before do not know it."""
        self.allocating.update(buffers)
        self.retire(*self._machines)
        for b in buffers:
            empty(self.cells_of(b))

    def too_much(self, fitting: Fitting) -> Set[int]:
        """Of the arrays that ops fill again, the largest that block and planned peak leave no room for, if they are in C order in every call."""
        kept = sorted(self.disposable - self.unjudged - self.allocating, key=lambda b: fitting.sizes[b])
        room = timeline(self.graph.resized(fitting.sizes), fitting.order).peak - fitting.arena.height
        found = set()
        for b in kept:
            room -= fitting.sizes[b]
            if room < 0 and b in self.reading.steady:
                found.add(b)
        return found

    def judge_formulas(self, signature: Signature) -> None:
        """Hold them against what the recorded call with this signature has shown."""
        assert self.shapes is not None
        for (b, _), shape in zip(self.row, self.shapes.shapes(*signature)):
            root = self.reading.roots[b]
            if root in self.seen and self.seen[root].shape != shape:
                self.wrong.add(b)

    # --- where everything lies -----------------------------------------------------------------------------------------

    def fit(self, signature: Signature, unlike: FrozenSet[int], search: bool, at_hand: int) -> Fitting:
        """Order and offsets for the true sizes, for all but the buffers `unlike`. Without `search` quickly: the order in use, and
        offsets stretched from the last ones or by one rule. `at_hand` bytes are there already."""
        lying: Dict[int, Tuple[int, ...]] = {}
        sizes = [self.seen[root].size if root in self.seen else 0 for root in self.reading.roots]
        for (b, kind), shape in zip(self.row, self.shapes_at(signature)):
            if b not in self.wrong:
                sizes[b] = max(0, math.prod(shape)) * kind.itemsize
                lying[b] = shape
        barred = self.own | self.strange | unlike
        buffers = tuple(b for b in self.candidates if b in lying and b not in barred and sizes[b] > 0 and min(lying[b], default=1) >= 0)
        if search:
            self.order = self.best_order(sizes)
        arena = None if search else self._stretched(buffers, sizes, at_hand)
        if arena is None:
            spans = self.spans(self.order)
            inside, alive = [sizes[b] for b in buffers], [spans[b] for b in buffers]
            arena = pack(Packing(inside, alive, ALIGNMENT), PackOptions() if search else PackOptions(effort=0))
            check_packing(inside, alive, arena, ALIGNMENT, [self.graph.buffers[b].label for b in buffers])
            self._last = (self.order, buffers, tuple(_aligned(size) for size in inside), arena)
        kinds, turns = zip(*[self._kind(b, lying[b]) for b in buffers]) if buffers else ((), ())
        return Fitting(self.order, buffers, tuple(kinds), tuple(turns), arena, tuple(sizes), search)

    def _stretched(self, buffers: Tuple[int, ...], sizes: Sequence[int], at_hand: int) -> Optional[Arena]:
        """The last packed offsets, stretched to these sizes, if that wastes little."""
        if self._last is None or self._last[:2] != (self.order, buffers) or not buffers:
            return None
        blocks = [_aligned(sizes[b]) for b in buffers]
        spans = self.spans(self.order)
        changes = np.zeros(len(self.order) + 1, np.int64)
        np.add.at(changes, [spans[b][0] for b in buffers], blocks)
        np.subtract.at(changes, [spans[b][1] for b in buffers], blocks)
        found = stretched(self._last[3].offsets, self._last[2], blocks, int(changes.cumsum().max()))
        return found if found.height <= max(at_hand, STRETCH * found.floor) else None

    def _kind(self, b: int, shape: Tuple[int, ...]) -> Tuple[Any, Optional[Tuple[int, ...]]]:
        layout = self._layout_of(b)
        dtype = np.dtype(self.reading.roots[b].type.dtype)
        if layout is None:
            return _whole(dtype, shape), None
        return _whole(dtype, tuple(shape[axis] for axis in layout)), tuple(int(a) for a in np.argsort(layout))

    def _layout_of(self, b: int) -> Optional[Tuple[int, ...]]:
        root = self.reading.roots[b]
        return self.seen[root].layout if root in self.seen else None


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


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def may_lie(annotation: Annotation, linker: Any) -> Tuple[int, ...]:
    """Buffers that nobody but the function itself can hold, and whose end is certain.

    With gc Theano makes every array anew, in an order that can depend on this call's inputs, so only what is in C order always
    lies in the block. Without gc it keeps the first array, and its order, as the block does.
    """
    reading = annotation.reading
    returned = set(linker.no_recycling) | set(linker.fgraph.outputs)
    return tuple(
        b
        for b, root in enumerate(reading.roots)
        if isinstance(root.type, tensor.TensorType)
        and not reading.cautious.buffers[b].pinned
        and not reading.graph.buffers[b].pinned
        and b not in reading.loose
        and (b in reading.steady or not linker.allow_gc)
        and root.owner in reading.certain
        and not any(v in returned for v in reading.names[b])
    )


# --- the machine -------------------------------------------------------------------------------------------------------


class ArenaVM:
    """Theano's machine, with the cells filled before each call. In everything else it is that machine."""

    def __init__(self, make_house: Callable[[], House], vm: Any, linker: Any, storage_map: Any, sparing: bool) -> None:
        self.vm = vm
        self.make_house = make_house
        self.house: Optional[House] = None
        """None while Theano's own machine runs, for an arena would take more than it saves."""
        self.asked_at: float = -1
        """Bytes of the inputs when it was last asked whether an arena is worthwhile."""
        self.inputs = tuple(storage_map[v] for v in linker.fgraph.inputs if isinstance(v.type, tensor.TensorType))
        self.storage_map, self.compute_map = storage_map, None
        self.allow_gc = linker.allow_gc
        self.need_update_inputs = getattr(vm, "need_update_inputs", True)
        self.follow: Optional[Callable[[Order], None]] = None
        """Is told the order of every machine that is about to run."""
        self.signature: Optional[Signature] = None
        self.calls = 0
        """With this signature, in a row."""
        self._look_at_everything()
        self.lender = shared_lender() or Lender()
        self.recorded: Optional[Layout] = None
        """The layout of the recorded call."""
        self.came: Optional[Signature] = None
        """What the last call came with."""
        self.unlike: FrozenSet[int] = frozenset()
        """Buffers that have no place with it."""
        self.strangers = 0
        """Calls in a row, each with a signature that was not known."""
        self.tried: Set[int] = set()
        self.trials = 0
        self.at_the_end: List[Cell] = []
        """Cells that are emptied when the call has ended."""
        self.aside = ""
        """Why there is no arena, once that is settled."""
        self.fittings: OrderedDict[Tuple[Signature, FrozenSet[int]], Fitting] = OrderedDict()
        self.fitting: Optional[Fitting] = None
        self.beside = False
        """Is a call under way that allocates as Theano does, because another has the block?"""
        self.block: Optional[Block] = None
        self.filling: Tuple[Tuple[Cell, Any], ...] = ()
        self.places: Tuple[Tuple[Cell, Any, int, Any], ...] = ()
        self.placed: Set[int] = set()
        """Buffers whose cells hold places, if they hold anything."""
        self.lender.tenants.add(self)
        if not sparing:
            self._move_in(make_house())

    def _move_in(self, house: House) -> None:
        self.house = house
        house._machines[house.orders[0]] = self.vm
        house.time(self.vm.time_thunks)
        self.aside = ""

    def _look_at_everything(self) -> None:
        """The next call takes the slow way."""
        self.shapes_now: Tuple[Tuple[Cell, Any], ...] = (([None], ()),)
        self.values_now: Tuple[Tuple[Cell, int], ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name in ("vm", "house", "lender"):
            raise AttributeError(name)
        return getattr(self.vm, name)

    def __call__(self, output_subset: Any = None) -> Any:
        if self.house is None and (output_subset is not None or not self._is_worthwhile()):
            return self._run(output_subset)
        lender = self.lender
        if lender.lock._is_owned() or (lender.running and lender.user is not self):
            return self._beside(output_subset)
        # Another thread may be in this very function: wait. (Its inputs lie in the same cells anyway.) It is `with` and not
        # acquire and try, for between those two Python looks for Ctrl-C, and the lock would be held for ever.
        with lender.lock:
            lender.user, lender.running = self, True
            return self._with_the_block(output_subset)

    def _is_worthwhile(self) -> bool:
        """Move in if it is, for the inputs of this call. It is asked again when they have grown to twice the bytes."""
        try:
            size = sum(cell[0].nbytes for cell in self.inputs)
        except AttributeError:  # one was not given: Theano says so better
            return False
        if size <= GROWTH * self.asked_at:
            return False
        self.asked_at = size
        try:
            house = self.make_house()
            self.aside = too_little(house)
        except Exception as trouble:
            self.asked_at = math.inf
            self._stand_aside("the formulas of the shapes could not be read", trouble)
            return False
        if not self.aside:
            self._move_in(house)
        return not self.aside

    def _with_the_block(self, output_subset: Any) -> Any:
        lender = self.lender
        try:
            if not self._as_before():
                result = self._anew(output_subset)
            else:
                if self.block is None or self.block is not lender.block:
                    self._lay_out()
                else:
                    for cell, place in self.filling:
                        cell[0] = place
                for cell in self.house.emptied:
                    cell[0] = None
                result = self._run(output_subset)
            if self.allow_gc:
                lender.give_back()
            return result
        except BaseException:
            # The cells stay as they are, as with Theano's machines: the error message is made from them. The views hold
            # the block until the next call.
            if self.allow_gc:
                self.block = lender.block = None
            raise
        finally:
            lender.running = False

    def _as_before(self) -> bool:
        try:
            for cell, shape in self.shapes_now:
                if cell[0].shape != shape:
                    return False
            for cell, value in self.values_now:
                if cell[0] != value:
                    return False
        except AttributeError:
            return False
        return True

    def _run(self, output_subset: Any) -> Any:
        result = self.vm() if output_subset is None else self.vm(output_subset=output_subset)
        for cell in self.at_the_end:
            cell[0] = None
        return result

    @property
    def time_thunks(self) -> Any:
        return self.vm.time_thunks if self.house is None else self.house.time_thunks

    @time_thunks.setter
    def time_thunks(self, wanted: Any) -> None:
        if self.house is None:
            self.vm.time_thunks = wanted
        else:
            self.house.time(wanted)

    def update_profile(self, profile: Any) -> None:
        (self.vm if self.house is None else self.house).update_profile(profile)
        for name in self.__dict__.keys() & RECORDED:
            setattr(profile, name, self.__dict__[name])

    def plan(self) -> Optional[Plan]:
        """What lies where, for the sizes of the last call; None before there is an arena."""
        fitting, house = self.fitting, self.house
        if fitting is None or house is None:
            return None
        graph = house.graph.resized(fitting.sizes)
        options = replace(house.annotation.options, storage="arena", alignment=ALIGNMENT)
        schedule = along(minimise_peak(graph, options, [("order in use", fitting.order)]), graph, fitting.order)
        offsets: List[Optional[int]] = [None] * len(graph.buffers)
        for b, offset in zip(fitting.buffers, fitting.arena.offsets):
            offsets[b] = offset
        return Plan(graph, schedule, replace(fitting.arena, offsets=tuple(offsets)), options, fitting.buffers)

    def kept_outside(self) -> FrozenSet[int]:
        """Buffers without a place whose arrays stay in their cells after a call."""
        if self.house is None:
            return frozenset()
        return frozenset((self.house.unplaced | self.house.own) - self.house.allocating)

    # --- memory --------------------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """No cell refers to the block any more. While a call runs beside, none does, and its own results lie there."""
        house = self.house
        if not self.beside and house is not None:
            own = {id(house.cells[b]) for b in (house.own | self.unlike) - self.placed}
            for cell in house.tenant_cells:
                if id(cell) not in own:
                    cell[0] = None
            if self.is_left_to_theano():
                house.fill_with_c_order()
        self.filling = ()
        self.block = None

    def release(self) -> None:
        """Give the block back, for `Function.free`."""
        if not self.lender.running:
            with self.lender.lock:
                self.lender.give_back()

    def _lay_out(self) -> None:
        """Views of the block, for the fitting of now."""
        assert self.fitting is not None
        block = self.lender.of(self.fitting.arena.height)
        place = block.place
        filling = []
        for cell, kind, offset, turn in self.places:
            view = place(kind, offset)
            cell[0] = view if turn is None else view.transpose(turn)
            filling.append((cell, cell[0]))
        self.filling = tuple(filling)
        self.block = block

    def _beside(self, output_subset: Any) -> Any:
        """Another function has the block, or this one itself further up the stack: allocate as Theano does."""
        house = self.house
        block, before, self.beside = self.block, self.beside, True
        outputs = {id(self.storage_map[v]) for v in house.fgraph.outputs}
        kept = [(cell, cell[0]) for v, cell in self.storage_map.items() if v.owner is not None and id(cell) not in outputs]
        for cell, _ in kept:
            cell[0] = None
        try:
            return self._run(output_subset)
        finally:
            self.beside = before
            for cell, value in kept:
                cell[0] = value
            if self.block is not block:  # given back meanwhile
                self.let_go()

    # --- the calls that are not as the one before --------------------------------------------------------------------------

    def _anew(self, output_subset: Any) -> Any:
        if self.recorded is None and not self.aside and output_subset is None:
            return self._record()
        if self.aside or self.recorded is None or not self._fitted():
            return self._run(output_subset)
        assert self.fitting is not None
        if output_subset is None and self._is_to_be_tried(self.fitting):
            return self._try()
        return self._run(output_subset)

    def _fitted(self) -> bool:
        """Is everything in its place for the sizes of this call? If not, every cell is empty and Theano allocates."""
        try:
            signature = self.house.signature()
        except (AttributeError, TypeError):  # an input that was not given: with output_subset it may not be needed
            self.let_go()
            return False
        try:
            adopted = self._adopt(signature)
            for cell, array in self.house.flattened:
                cell[0] = array
            self.house.flattened.clear()
            return adopted
        except MemoryError:  # there may be room for the parts, and for the whole another time
            self._look_at_everything()
            self.fitting = self.signature = None
            self.let_go()
            return False
        except Exception as trouble:
            self._stand_aside("the arena could not be planned", trouble)
            return False

    def _stand_aside(self, reason: str, trouble: Optional[BaseException] = None) -> None:
        """No arena for this function from now on."""
        self.aside = reason
        self.fittings.clear()
        self.fitting = self.signature = None
        self._look_at_everything()
        self.let_go()
        if len(self.lender.tenants) == 1:
            self.lender.give_back()
        complain(StoodAside(reason, "" if trouble is None else f"{type(trouble).__name__}: {trouble}"), trouble)

    def _record(self) -> Any:
        house = self.house
        if not house.candidates and not house.unplaced:
            self.aside = "no variable may lie in an arena"
            return self._run(None)
        if any(cell[0] is None for cell in house.given):  # Theano says so better, and the next call may give it
            return self._run(None)
        try:
            signature, layout = house.read_formulas(), house.layout()  # before the call: updates may change shapes
            machine = house.watching(house.orders[0], True, house.record)
        except Exception as trouble:
            self._stand_aside("the formulas of the shapes could not be read", trouble)
            return self._run(None)
        result = self._with(machine, house.orders[0])
        self.recorded, self.came = layout, signature
        house.unlike(signature, True)
        house.bring_back()
        house.judge_formulas(signature)
        return result

    def _with(self, machine: Any, order: Order) -> Any:
        """One call of another machine. If it fails it stays in place: Theano asks it which node was to blame."""
        self.vm = machine
        result = machine()
        self.vm = self.house.machine(order)
        return result

    def _adopt(self, signature: Signature) -> bool:
        house = self.house
        again = signature == self.came
        if not again:
            self.came, self.unlike = signature, house.unlike(signature, house.layout() == self.recorded)
            if house.flattened:
                self.fittings.clear()
                self.fitting = None
        key = (signature, self.unlike)
        fitting = self.fittings.get(key)
        self.strangers = 0 if again or fitting is not None else self.strangers + 1
        if self.is_left_to_theano():
            self._leave_to_theano()
            return False
        self.calls = self.calls + 1 if signature == self.signature else 1
        if fitting is None or (not fitting.searched and self.calls >= FAMILIAR):
            at_hand = 0 if self.lender.block is None else self.lender.block.height
            fitting = house.fit(signature, self.unlike, not self.fittings or self.calls >= FAMILIAR, at_hand)
            self.fittings[key] = fitting
            if len(self.fittings) > SIGNATURES:
                self.fittings.popitem(last=False)
        self.fittings.move_to_end(key)
        if not fitting.buffers and not house.unplaced:
            if not (set(house.candidates) - house.own - house.strange - house.wrong):
                self.aside = "no op writes where it is told"
            self._look_at_everything()
            if self.filling:
                self.let_go()
            return False
        if not fitting.buffers and self.filling:
            self.let_go()
        if fitting is not self.fitting or self.signature != signature:
            for b in self.placed.difference(fitting.buffers):
                house.cells[b][0] = None
            self.placed = set(fitting.buffers)
            self.fitting, self.signature, self.block = fitting, signature, None
            self.vm = house.machine(fitting.order)
            if self.follow is not None:
                self.follow(fitting.order)
            rows = zip(fitting.buffers, fitting.kinds, fitting.arena.offsets, fitting.turns)
            self.places = tuple((house.cells[b], kind, offset, turn) for b, kind, offset, turn in rows)
        self._not_too_large(fitting)
        if self.block is None or self.block is not self.lender.block:
            self._lay_out()
        else:
            for cell, place in self.filling:
                cell[0] = place
        for cell in house.emptied:
            cell[0] = None
        if fitting.searched and not self._is_to_be_tried(fitting) and not self._too_large(fitting):
            self._settle(signature)
        else:
            self._look_at_everything()
        return True

    def is_left_to_theano(self) -> bool:
        """It does not pay to plan for what will not come again: until something does, Theano allocates."""
        return self.strangers > SIGNATURES and self.house.always_in_c_order()

    def _leave_to_theano(self) -> None:
        if self.fitting is not None:
            self.fitting = self.signature = None
            self._look_at_everything()
            self.let_go()
            if len(self.lender.tenants) == 1:
                self.lender.give_back()

    def _too_large(self, fitting: Fitting) -> bool:
        block = self.lender.block
        return len(self.lender.tenants) == 1 and not self.allow_gc and block is not None and block.height > 2 * fitting.arena.height

    def _not_too_large(self, fitting: Fitting) -> None:
        if self.calls > SPARE and self._too_large(fitting):
            self.lender.give_back()

    def _settle(self, signature: Signature) -> None:
        """From now on a few comparisons are enough."""
        shapes = self.house.shapes
        assert shapes is not None
        cells = [self.storage_map[v] for v in [*shapes.shape_sources, *shapes.value_sources]]
        pairs = list(zip(cells, signature))
        self.shapes_now = tuple(pairs[: len(shapes.shape_sources)])
        self.values_now = tuple(pairs[len(shapes.shape_sources) :])

    def _is_to_be_tried(self, fitting: Fitting) -> bool:
        return not self.tried.issuperset(fitting.buffers) or (bool(self.house.unjudged) and self.trials < TRIALS)

    def _try(self) -> Any:
        """Run with everything in its place, and see which op writes there, and which fills again the array that it finds."""
        fitting, block = self.fitting, self.block
        assert fitting is not None and block is not None
        house = self.house
        roots = house.reading.roots
        expected = {roots[b]: (b, block.address + offset) for b, offset in zip(fitting.buffers, fitting.arena.offsets)}
        found = {roots[b]: (b, house.storage_map[roots[b]][0]) for b in house.unjudged if house.storage_map[roots[b]][0] is not None}
        steps = {house.reading.nodes[t]: step for step, t in enumerate(fitting.order)}
        ending: Dict[int, List[int]] = {}
        for b in (*fitting.buffers, *house.unjudged):
            if house.ends_for_certain(b):
                ending.setdefault(house.last_step(fitting.order, b), []).append(b)
        elsewhere: Set[int] = set()
        allocated: Set[int] = set()
        astray: List[Any] = []

        def look(node: Any) -> None:
            for v in node.outputs:
                value = house.storage_map[v][0]
                if v in found:
                    b, before = found.pop(v)
                    if _filled_again(before, value):
                        house.unjudged.discard(b)
                    elif np.shape(before) == np.shape(value):
                        house.unjudged.discard(b)
                        allocated.add(b)
                if not isinstance(value, np.ndarray):
                    continue
                address = value.ctypes.data
                if v in expected and address != expected[v][1]:
                    elsewhere.add(expected[v][0])
                elif value.nbytes and block.has(address) and not house.buffers_of.get(v, set()) & set(fitting.buffers):
                    astray.append(v)
            for b in ending.get(steps[node], ()):
                if b in elsewhere or b in allocated:
                    empty(house.cells_of(b))

        result = self._with(house.watching(fitting.order, self.allow_gc, look), fitting.order)
        self.tried.update(fitting.buffers)
        self.trials += 1
        if astray:
            return self._gone_astray(result, astray, block)
        if elsewhere:
            house.own |= elsewhere
            self.placed -= elsewhere
            self.fittings.clear()
            self.fitting = self.signature = None
        if not self.allow_gc:
            house.let_go_from_now_on(elsewhere | allocated)
            house.let_go_from_now_on(house.too_much(fitting))
            self.at_the_end = house.left_to_the_end()
            self.vm = house.machine(fitting.order)
        return result

    def _gone_astray(self, result: Any, astray: Sequence[Any], block: Block) -> Any:
        """Something lies in the block that no declaration explains: no arena for this function, and copies for the caller."""
        for v in [*self.house.fgraph.outputs, *self.house.fgraph.inputs]:  # updates are in the inputs' cells by now
            cell = self.storage_map[v]
            if isinstance(cell[0], np.ndarray) and block.has(cell[0].ctypes.data):
                cell[0] = cell[0].copy()
        self._stand_aside(f"{astray[0].owner.op} hands out memory that it was given")
        if isinstance(result, list):
            return [r.copy() if isinstance(r, np.ndarray) and block.has(r.ctypes.data) else r for r in result]
        return result


def with_arena(
    vm: Any,
    make: Callable[..., Any],
    feature: MemReuse,
    annotation: Annotation,
    linker: Any,
    thunks: Any,
    storage_map: Any,
    follow: Optional[Callable[[Order], None]],
) -> Any:
    """The machine `vm`, which `make(nodes, thunks, clears)` can make again over another order, with an arena.

    `follow`, if given, is told the order of every machine that is about to run.
    """
    make_house = functools.partial(House, make, feature, annotation, linker, thunks, storage_map)
    sparing = feature.settings.storage == "auto" and not linker.allow_gc and shared_lender() is None
    machine = ArenaVM(make_house, vm, linker, storage_map, sparing)
    machine.follow = follow
    weak = weakref.ref(machine)

    def plan() -> Optional[Plan]:
        alive = weak()
        return None if alive is None else alive.plan()

    feature.true_plan = plan
    return machine


# --- looking ---------------------------------------------------------------------------------------------------------


def _filled_again(before: Any, after: Any) -> bool:
    """Is what the op left in its cell the array that it found there?"""
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        return before is after
    return before.ctypes.data == after.ctypes.data and before.nbytes == after.nbytes


def _overlap(one: np.ndarray, other: Any) -> bool:
    if not isinstance(other, np.ndarray) or not one.size or not other.size:
        return False
    (low, high), (from_, to) = np.byte_bounds(one), np.byte_bounds(other)
    return low < to and from_ < high


def _order_of(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.flags.c_contiguous:
        return None
    return "F" if value.flags.f_contiguous else value.strides


def _layout(array: np.ndarray) -> Optional[Tuple[int, ...]]:
    """None for the plain one, and for what is not compact in any."""
    if array.flags.c_contiguous:
        return None
    axes = tuple(sorted(range(array.ndim), key=lambda axis: (-array.strides[axis], axis)))
    return axes if array.transpose(axes).flags.c_contiguous else None

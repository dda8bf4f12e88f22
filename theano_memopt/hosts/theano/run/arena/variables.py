"""What the calls of a function have shown about its variables: who may have a place in the block, and what happens to the others.

    candidate             a buffer that only the function itself can hold, and whose end is certain: it may have a place
    allocates_itself      candidates whose op puts another array into the cell than the place that was there
    kept_by_theano        buffers that are no candidates, and whose arrays stock Theano without gc keeps from call to call
    allocates_anew        buffers whose array is let go in every call after its last reader, for the op makes another in the next
    undeclared_alias      buffers that an op was seen to alias without declaring it: they never have a place
    formula_mismatch      buffers whose formula gives another shape than the op made: they never have a place

Layout without gc. Theano keeps an array, and with it its layout, and the last bit of a product can hang on that. What Elemwise made
keeps the layout of the recorded call whatever shape comes. Once it was so short that it was in C and in Fortran order, it is in
C order from then on, and has no place any more. The result of another op can follow the layout of the caller's arrays in the call in
which its shape comes: it has no place while these lie otherwise than in the recorded call.

Arrays of an op's own without gc. A variable without a place keeps the array of the recorded call in its cell for the tried call, as
Theano would have it. If the op fills that array again, it stays. If the op puts another array there, it never looks at the array in
its cell, so the array of every later call is let go, and no bit can change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, List, Optional, Set, Tuple

import numpy as np
from theano import tensor
from theano.compile.ops import Rebroadcast, ViewOp
from theano.ifelse import IfElse
from theano.tensor.blas import GemmRelated
from theano.tensor.elemwise import DimShuffle, Elemwise
from theano.tensor.subtensor import IncSubtensor, Subtensor

import theano_memopt_ops as ops  # the module, not its names: it may be the first to import Theano, and be half made here
from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.preallocated import writes_into_preallocated
from theano_memopt.hosts.theano.read.aliases import with_sources
from theano_memopt.hosts.theano.read.graph import ends_for_certain
from theano_memopt.hosts.theano.run.cells import follows_steps, loose_for
from theano_memopt.hosts.theano.run.machines import Cell, Shaped

OVERWRITES = (DimShuffle, Elemwise, GemmRelated, IncSubtensor, Rebroadcast, Subtensor, tensor.Reshape, ViewOp)
"""Ops whose view or in-place result replaces the array in its cell. Other ops' cells are emptied first: the op might write there."""

Layout = Tuple[Any, ...]


@dataclass(frozen=True)
class Seen:
    """An array as its task left it in its cell."""

    shape: Tuple[int, ...]
    layout: Optional[Tuple[int, ...]]
    """The axes from the longest stride to the shortest; None where they are in order."""
    address: int
    size: int


class Variables:
    """The variables of one function, by the buffers of its reading."""

    def __init__(self, annotation: Annotation, linker: Any, storage_map: Any, steady_alone: bool = False) -> None:
        """`steady_alone`: are the candidates only those that are in C order in every call?"""
        self.reading = reading = annotation.reading
        self.storage_map = storage_map
        self.follows_steps = follows_steps(annotation, linker)
        self.candidates = tuple(b for b in candidates(annotation, linker) if b in reading.steady or not steady_alone)
        self.cells: Dict[int, Cell] = {b: storage_map[reading.roots[b]] for b in self.candidates}
        names = dict.fromkeys(v for b in self.candidates for v in reading.names[b])
        roots = {reading.roots[b] for b in self.candidates}
        self.candidate_cells = [storage_map[v] for v in names]
        self.emptied_first = [storage_map[v] for v in names if v not in roots and not isinstance(v.owner.op, OVERWRITES)]
        self.buffers_of: Dict[Any, Set[int]] = {}
        for b, inside in enumerate(reading.names):
            for v in inside:
                self.buffers_of.setdefault(v, set()).add(b)
        self.arguments = [storage_map[v] for v in linker.fgraph.inputs if isinstance(v.type, tensor.TensorType) and not all(v.type.broadcastable)]
        self.seen: Dict[Any, Seen] = {}
        self.undeclared_alias: Set[int] = set()
        self.allocates_itself: Set[int] = set()
        self.formula_mismatch: Set[int] = set()

        unsteady = {b: reading.roots[b] for b in self.candidates if b not in reading.steady and not linker.allow_gc}
        self.keeps_layout = {b for b, root in unsteady.items() if isinstance(root.owner.op, Elemwise)}
        self.layout_follows_caller = {b for b, root in unsteady.items() if not isinstance(root.owner.op, (Elemwise, ops.Copy))}
        self._shape_came: Dict[int, Tuple[Any, bool]] = {}
        """Of each of the latter its shape now, and whether the caller's arrays lay as in the recorded call when that shape came."""
        self.recorded_layout: Optional[Layout] = None
        """Of the caller's arrays in the recorded call."""
        self.to_resize: List[Tuple[Cell, np.ndarray]] = []
        """Cells of arrays that have become too short for a layout, and the array that Elemwise is to find there."""

        self.kept_by_theano = _kept_by_theano(annotation, linker, self.cells)
        self._kept_roots = {reading.roots[b] for b in self.kept_by_theano}
        self._recorded: Dict[Any, np.ndarray] = {}
        """Their arrays in the recorded call."""
        returned = set(linker.fgraph.outputs)  # with borrow=True, as in a Scan, Theano's list of results that it hands out leaves them out
        self.disposable = {b for b in self.kept_by_theano if not returned.intersection(reading.names[b])}
        """Those of them that only the function itself reads."""
        self.unjudged = set(self.disposable)
        """Those of which it is not known yet whether the op fills again the array that it finds."""
        self.allocates_anew: Set[int] = set()

    # --- the recorded call -------------------------------------------------------------------------------------------

    def layout(self) -> Layout:
        """How the caller's arrays lie in memory: of each None if in C order, "F" if in Fortran order, else its strides."""
        return tuple(_layout_of_argument(cell[0]) for cell in self.arguments)

    def record(self, node: Any) -> None:
        """Look at the results of a node that has just run: their shape and layout, and whose memory they are."""
        for v in node.outputs:
            array = self.storage_map[v][0]
            if not isinstance(array, np.ndarray):
                continue
            if v in self._kept_roots:
                self._recorded[v] = array
            self.seen[v] = Seen(array.shape, _axes_by_stride(array), array.ctypes.data, array.nbytes)
            allowed = self.buffers_of.get(v, set())
            for other in node.inputs:
                theirs = self.buffers_of.get(other, set())
                if theirs and not theirs <= allowed and _overlap(array, self.storage_map[other][0]):
                    self.undeclared_alias |= theirs | allowed

    def take_up_again(self) -> None:
        """A recorded call that failed ran with gc, too. Where Theano would have kept an array there is one as was seen, for ops keep its layout."""
        for v, array in self._recorded.items():
            self.storage_map[v][0] = array
        self._recorded.clear()
        for b in self.keeps_layout | self.layout_follows_caller:
            seen, cell = self.seen.get(self.reading.roots[b]), self.cells[b]
            if seen is not None and cell[0] is None:
                axes = seen.layout or tuple(range(len(seen.shape)))
                array = np.empty([seen.shape[axis] for axis in axes], self.reading.roots[b].type.dtype)
                cell[0] = array.transpose(np.argsort(axes))

    def end_recording(self, layout: Layout, shapes: Shaped) -> None:
        """Put back the arrays that Theano would have kept: the recorded call ran with gc. Hold the formulas against the shapes seen."""
        self.recorded_layout = layout
        for v, array in self._recorded.items():
            self.storage_map[v][0] = array
        self._recorded.clear()
        self._note_shapes(shapes, True)
        for b, _, shape in shapes:
            root = self.reading.roots[b]
            if root in self.seen and self.seen[root].shape != shape:
                self.formula_mismatch.add(b)

    def layout_of(self, b: int) -> Optional[Tuple[int, ...]]:
        root = self.reading.roots[b]
        return self.seen[root].layout if root in self.seen else None

    # --- the shapes of a call ----------------------------------------------------------------------------------------

    def asks_for_shapes(self) -> bool:
        """Can it depend on the shapes of a call which candidates have no place?"""
        return bool(self.layout_follows_caller or self._in_fortran_order())

    def without_place(self, shapes: Shaped) -> FrozenSet[int]:
        """The candidates that have no place with these shapes and the caller's arrays that are in their cells now."""
        self._note_shapes(shapes, self.layout() == self.recorded_layout)
        return frozenset(b for b, (_, was_alike) in self._shape_came.items() if not was_alike)

    def _note_shapes(self, shapes: Shaped, alike: bool) -> None:
        """`alike`: do the caller's arrays lie as in the recorded call?"""
        in_fortran_order = self._in_fortran_order()
        for b, dtype, shape in shapes:
            if b in self.layout_follows_caller and self._shape_came.get(b, (None, True))[0] != shape:
                self._shape_came[b] = (shape, alike)
            if b in in_fortran_order and (0 in shape or sum(length > 1 for length in shape) < 2):
                self.allocates_itself.add(b)
                self.to_resize.append((self.cells[b], np.empty((2,) * len(shape), dtype, order="F")))

    def _in_fortran_order(self) -> Set[int]:
        return {b for b in self.keeps_layout - self.allocates_itself if self.layout_of(b) is not None}

    def layouts_may_change(self) -> bool:
        """Is there an array in the block that Theano, without the arrays that it kept, might lay out otherwise?"""
        return bool(self.keeps_layout or self.layout_follows_caller)

    def always_in_c_order(self) -> bool:
        """Is every array that may lie in a block in C order, whatever comes? Then Theano can make it anew at any time."""
        return not self.layout_follows_caller and all(self.layout_of(b) is None for b in self.keeps_layout)

    def fill_with_c_order(self) -> None:
        """Elemwise resizes the array that it finds, and keeps its layout: without one it would follow the caller's arrays of that call."""
        for b in self.keeps_layout - self.allocates_itself:
            kind = self.reading.roots[b].type
            self.cells[b][0] = np.empty((2,) * kind.ndim, kind.dtype)

    # --- cells -------------------------------------------------------------------------------------------------------

    def cells_of(self, b: int) -> List[Cell]:
        """Of every variable that may lie in this buffer."""
        return [self.storage_map[v] for v in self.reading.names[b]]

    def ends_for_certain(self, b: int) -> bool:
        return ends_for_certain(self.reading, b, self.follows_steps)

    def emptied_at_the_end(self) -> List[Cell]:
        """Cells of arrays that are let go, but not before the call has ended."""
        return [cell for b in sorted(self.allocates_anew) if not self.ends_for_certain(b) for cell in self.cells_of(b)]

    def kept_outside(self) -> FrozenSet[int]:
        """Buffers without a place whose arrays stay in their cells after a call."""
        return frozenset((self.kept_by_theano | self.allocates_itself) - self.allocates_anew)

    def judge(self, b: int, before: Any, after: Any) -> bool:
        """Does the op allocate another array than the one `before` that it found in its cell? Only told of equal shapes."""
        if filled_again(before, after):
            self.unjudged.discard(b)
            return False
        if np.shape(before) != np.shape(after):
            return False
        self.unjudged.discard(b)
        return True


def candidates(annotation: Annotation, linker: Any) -> Tuple[int, ...]:
    """Buffers that nobody but the function itself can hold, and whose end is certain.

    With gc Theano makes every array anew, in a layout that can depend on this call's inputs, so only arrays that are in C order in every
    call lie in the block. Without gc it keeps the first array, and its layout, as the block does. What only a lazy op asks for may be missing
    from the recorded call, so what that call would have shown must be known beforehand.
    """
    reading, loose = annotation.reading, loose_for(annotation, linker)
    returned = set(linker.no_recycling) | set(linker.fgraph.outputs)
    return tuple(
        b
        for b, root in enumerate(reading.roots)
        if isinstance(root.type, tensor.TensorType)
        and not isinstance(root.owner.op, IfElse)  # it never looks into its cell
        and not reading.cautious.buffers[b].pinned
        and not reading.graph.buffers[b].pinned
        and b not in loose
        and (b in reading.steady or not (linker.allow_gc or b in reading.loose))
        and (root.owner in reading.certain or writes_into_preallocated(root.owner))
        and not any(v in returned for v in reading.names[b])
    )


def _kept_by_theano(annotation: Annotation, linker: Any, cells: Iterable[int]) -> Set[int]:
    fgraph = linker.fgraph
    if linker.allow_gc or fgraph.update_mapping is None:
        return set()
    updates = [fgraph.outputs[i] for i in fgraph.update_mapping]
    gone = with_sources([*updates, *linker.no_recycling])
    return {b for b, root in enumerate(annotation.reading.roots) if b not in cells and root not in gone}


# --- looking at arrays -----------------------------------------------------------------------------------------------


def filled_again(before: Any, after: Any) -> bool:
    """Is the array that the op left in its cell the one that it found there?"""
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        return before is after
    return before.ctypes.data == after.ctypes.data and before.nbytes == after.nbytes


def _overlap(one: np.ndarray, other: Any) -> bool:
    if not isinstance(other, np.ndarray) or not one.size or not other.size:
        return False
    (low, high), (from_, to) = np.byte_bounds(one), np.byte_bounds(other)
    return low < to and from_ < high


def _layout_of_argument(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.flags.c_contiguous:
        return None
    return "F" if value.flags.f_contiguous else value.strides


def _axes_by_stride(array: np.ndarray) -> Optional[Tuple[int, ...]]:
    """None for C order, and for what is not compact in any order of the axes."""
    if array.flags.c_contiguous:
        return None
    axes = tuple(sorted(range(array.ndim), key=lambda axis: (-array.strides[axis], axis)))
    return axes if array.transpose(axes).flags.c_contiguous else None

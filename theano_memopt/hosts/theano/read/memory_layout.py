"""Which results lie in C order, whatever the layout of the arrays that a caller gives.

An op that finds nothing in its cell makes an array; one that finds an array of the right shape writes there, and takes its layout.
A matrix product of what lies in Fortran order can differ in the last bit from one of what lies in C order. So a variable may
share memory with another only if stock Theano would have made its array in C order too.

    plain        never in Fortran order with two or more long dimensions
    sliced       plain, for it is what slices left of a C array: its strides descend
    steady       sliced, and in C order without gaps

Elemwise in C makes a Fortran array where all its inputs but single numbers are in Fortran order: one plain input is enough for a
steady result. Products, reductions and the like always make C arrays in C. Where Theano runs an op in Python (no compiler, no C
code for float16), NumPy makes the array, its strides in the order of the inputs' strides. What a caller gives may be anything.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Sequence, Set, Tuple

from theano import gof, tensor
from theano.compile.ops import SpecifyShape, ViewOp
from theano.ifelse import IfElse
from theano.tensor import blas, blas_c, elemwise, subtensor
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.nnet import corr, corr3d, nnet
from theano.tensor.opt import Assert, MakeVector
from theano.tensor.signal import pool

import theano_memopt_ops as ops  # the module, not its names: it may be the first to import Theano, and be half made here
from theano_memopt.hosts.theano.read.aliases import lies_in
from theano_memopt.hosts.theano.read.op_facts import has_c_code

MAY_COPY = (tensor.Reshape, tensor.Flatten, CpuContiguous)
"""Declared views that copy an array that is not contiguous."""

IN_C_ORDER = (
    tensor.Alloc,
    tensor.AllocEmpty,
    blas.BatchedDot,
    blas.Dot22,
    blas.Dot22Scalar,
    blas.GemmRelated,
    blas.Gemv,
    blas_c.CGer,
    corr.BaseCorrMM,
    corr3d.BaseCorr3dMM,
    elemwise.CAReduce,
    MakeVector,
    nnet.CrossentropySoftmax1HotWithBiasDx,
    nnet.CrossentropySoftmaxArgmax1HotWithBias,
    nnet.Softmax,
    nnet.SoftmaxGrad,
    nnet.SoftmaxWithBias,
    subtensor.AdvancedSubtensor1,
    tensor.Dot,
)
"""Ops whose C code writes where it is told, or else makes an array in C order, whatever the layout of their inputs."""

LIKE_INPUTS_IN_PYTHON = (
    elemwise.CAReduce,
    nnet.CrossentropySoftmax1HotWithBiasDx,
    nnet.CrossentropySoftmaxArgmax1HotWithBias,
    nnet.Softmax,
    nnet.SoftmaxGrad,
    nnet.SoftmaxWithBias,
    pool.Pool,
    pool.MaxPoolGrad,
    pool.AveragePoolGrad,
)
"""Ops that make an array laid out like an input when they run in Python."""

KEEPS_STRIDES = (
    blas.GemmRelated,
    blas_c.CGemv,
    blas_c.CGer,
    elemwise.Elemwise,
    subtensor.AdvancedIncSubtensor1,
    subtensor.IncSubtensor,
    tensor.Rebroadcast,
    Assert,
    SpecifyShape,
    ViewOp,
)
"""Ops that hand their input on as it is, written to or not. Other views may be turned or cut, and nothing is known of them."""


def steady(nodes: Sequence[Any], compiled: bool) -> Set[Any]:
    """The results of these nodes, of ops that can be trusted, in an order that could be run: those of which it is certain.

    `compiled` says whether the linker asks for C code.
    """
    plain: Set[Any] = set()
    sliced: Set[Any] = set()
    found: Set[Any] = set()

    def is_plain(v: Any) -> bool:
        return v in plain or _long(v) <= 1 or (isinstance(v, gof.Constant) and not v.data.flags.fnc)

    for node in nodes:
        for output in node.outputs:
            if not isinstance(output.type, tensor.TensorType):
                continue
            source = next(iter(lies_in(output)), None)
            if source is not None:  # a view, or made in place
                if isinstance(node.op, subtensor.Subtensor):
                    sliced.update([output] if source in sliced else [])
                elif isinstance(node.op, tensor.Reshape):
                    found.update([output] if source in found else [])
                elif isinstance(node.op, (*KEEPS_STRIDES, IfElse)):  # of an IfElse this is the one branch; of the other it makes a copy, in C order
                    for known in (plain, sliced, found):
                        known.update([output] if source in known else [])
            elif _makes_c_order(node, is_plain, found, compiled and has_c_code(node)):
                found.add(output)
            if output in found:
                sliced.add(output)
            if output in sliced:
                plain.add(output)
    return found


def _makes_c_order(node: Any, is_plain: Callable[[Any], bool], found: Set[Any], in_c: bool) -> bool:
    if isinstance(node.op, elemwise.Elemwise):
        arrays = [v for v in node.inputs if not all(v.type.broadcastable)]
        if not arrays or _long(node.outputs[0]) <= 1 or all(v in found or _long(v) <= 1 for v in arrays):
            return True
        return in_c and any(is_plain(v) for v in arrays)
    if isinstance(node.op, tensor.Join):
        return all(v in found for v in node.inputs[1:]) or _long(node.outputs[0]) <= 1
    if isinstance(node.op, (ops.Copy, subtensor.IncSubtensor, subtensor.AdvancedIncSubtensor1)):  # copies with the layout of the first
        return not in_c or node.inputs[0] in found or _long(node.outputs[0]) <= 1
    if isinstance(node.op, LIKE_INPUTS_IN_PYTHON) and not in_c:
        return all(v in found or _long(v) <= 1 for v in node.inputs)
    return isinstance(node.op, (*IN_C_ORDER, *ops.POOLS, ops.PRODUCTS[blas.Ger], IfElse))


Strides = Tuple[Tuple[int, ...], bool]
"""How a result lies in memory: its long axes from the longest stride to the shortest, and whether there are gaps between its elements."""


def likely_scattered(nodes: Sequence[Any]) -> Set[Any]:
    """Results of these nodes that are likely not contiguous, if the arrays of the caller are in C order.

    A guess, with two readers: the plan counts a Reshape of such a result as a copy, and for an arena that copy becomes an op of
    its own. A wrong yes costs a copy, a wrong no costs memory.
    """
    known: Dict[Any, Strides] = {}
    for node in nodes:
        for result in node.outputs:
            if isinstance(result.type, tensor.TensorType):
                axes, gaps = _strides(result, lambda v: known.get(v, (_long_axes(v), False)))
                long = _long_axes(result)
                axes = tuple(axis for axis in axes if axis in long)  # a view can make an axis short
                known[result] = axes if len(axes) == len(long) else long, gaps
    return {result for result, (axes, gaps) in known.items() if gaps or axes != _long_axes(result)}


def _strides(result: Any, of: Callable[[Any], Strides]) -> Strides:
    node, op = result.owner, result.owner.op
    natural = (_long_axes(result), False)
    source = next(iter(lies_in(result)), None)
    if isinstance(op, elemwise.DimShuffle):
        axes, gaps = of(node.inputs[0])
        place = {axis: i for i, axis in enumerate(op.new_order)}
        return tuple(place[axis] for axis in axes), gaps
    if isinstance(op, subtensor.Subtensor):
        axes, gaps = of(node.inputs[0])
        whole_order = axes == _long_axes(node.inputs[0])
        gaps = gaps or _leaves_gaps(node) or not whole_order
        kept = [axis for axis in range(node.inputs[0].ndim) if axis >= len(op.idx_list) or isinstance(op.idx_list[axis], slice)]
        return tuple(kept.index(axis) for axis in axes if axis in kept), gaps
    if isinstance(op, elemwise.Elemwise) and source is None:
        arrays = {of(v) for v in node.inputs if not all(v.type.broadcastable)}
        turned = (natural[0][::-1], False)
        if has_c_code(node):  # makes an array in Fortran order where all inputs are in that order, and else one in C order
            return turned if arrays == {turned} else natural
        orders = {axes for axes, _ in arrays}  # NumPy takes over an order of strides on which all inputs agree, without their gaps
        return (orders.pop(), False) if len(orders) == 1 and {len(axes) for axes in orders} == {len(natural[0])} else natural
    if source is None or isinstance(op, MAY_COPY) or getattr(source, "ndim", None) != result.ndim:
        return natural
    return of(source)


def _leaves_gaps(node: Any) -> bool:
    """Does this indexing of a contiguous array pick elements that do not lie side by side?

    They do if single indices come first, then at most one part of an axis without a step, then whole axes.
    """
    in_rows = False
    for index, short in zip(subtensor.get_idx_list(node.inputs, node.op.idx_list), node.inputs[0].type.broadcastable):
        if short:
            continue
        whole = isinstance(index, slice) and (index.start, index.stop, index.step) == (None, None, None)
        if (in_rows and not whole) or (isinstance(index, slice) and not _is_one(index.step)):
            return True
        in_rows |= isinstance(index, slice)
    return False


def _is_one(step: Any) -> bool:
    """A step that is not there, or a constant 1, which a rewrite of Scan leaves behind."""
    return step is None or (isinstance(step, gof.Constant) and int(step.data) == 1)


def _long_axes(variable: Any) -> Tuple[int, ...]:
    return tuple(axis for axis, short in enumerate(variable.type.broadcastable) if not short)


def _long(variable: Any) -> int:
    """Dimensions that can be longer than 1."""
    return sum(not short for short in getattr(variable.type, "broadcastable", ()))

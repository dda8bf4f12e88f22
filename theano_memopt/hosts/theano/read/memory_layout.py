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

from typing import Any, Callable, Sequence, Set

from theano import gof, tensor
from theano.compile.ops import SpecifyShape, ViewOp
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
                elif isinstance(node.op, KEEPS_STRIDES):
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
    return isinstance(node.op, (*IN_C_ORDER, *ops.POOLS, ops.PRODUCTS[blas.Ger]))


def likely_scattered(nodes: Sequence[Any]) -> Set[Any]:
    """Results of these nodes that are likely not contiguous. A guess: it decides only how a later Reshape is counted."""
    scattered: Set[Any] = set()
    for node in nodes:
        scattered.update(result for result in node.outputs if _is_scattered(result, scattered))
    return scattered


def _is_scattered(result: Any, scattered: Set[Any]) -> bool:
    node, op = result.owner, result.owner.op
    if isinstance(op, MAY_COPY):
        return False
    if isinstance(op, elemwise.DimShuffle):
        long = [axis for axis in op.new_order if axis != "x" and not node.inputs[0].type.broadcastable[axis]]
        return node.inputs[0] in scattered or long != sorted(long)
    if isinstance(op, subtensor.Subtensor):
        # Whole rows from the front on stay contiguous; a step, or a slice of an inner axis, does not.
        first, inner = op.idx_list[:1], op.idx_list[1:]
        stepped = any(isinstance(index, slice) and index.step is not None for index in op.idx_list)
        single = all(not isinstance(index, slice) for index in first)
        return node.inputs[0] in scattered or stepped or any(isinstance(index, slice) for index in inner) or (bool(inner) and not single)
    if isinstance(op, elemwise.Elemwise):
        # NumPy's rule, which the C code follows: the result is laid out like inputs that all agree.
        full = [v for v in node.inputs if v.type.broadcastable == node.outputs[0].type.broadcastable]
        return bool(full) and all(v in scattered for v in full)
    return any(source in scattered for source in lies_in(result))


def _long(variable: Any) -> int:
    """Dimensions that can be longer than 1."""
    return sum(not short for short in getattr(variable.type, "broadcastable", ()))

"""What a node costs while no times exist: bytes moved, multiply-adds, numbers made, each by a coefficient.

    seconds  =  CALL  +  bytes in and out * BYTE  +  multiply-adds * MULTIPLY_ADD  +  numbers * what each one takes in this kind of op

The coefficients are the same on every machine, so that the same program gets the same plan everywhere. Only their proportions
count: extra time is a share of the whole. `make bench-recompute` compares them with measured times. They are of memory that the process
has already: the kernel's time for handing out pages is left out, for a lower peak needs fewer of them, however often an array is made.

Whoever wants measured seconds instead gives a profile of the function (`mode(profile=...)`). Its tasks are known again by their
signatures: an op and the shapes of what it reads and makes. Equal signatures are equal work.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Callable, Dict, Mapping, Sequence, Tuple

import numpy as np
from theano import gof, scalar, tensor
from theano.scan_module.scan_op import Scan
from theano.tensor import blas, elemwise, subtensor
from theano.tensor.nnet import corr, corr3d, nnet, sigm
from theano.tensor.nnet.conv import ConvOp
from theano.tensor.signal import pool

import theano_memopt_ops as ops  # the module, not its names: it may be the first to import Theano, and be half made here

ShapeOf = Callable[[Any], Tuple[int, ...]]

CALL = 1.5e-6
"""One call of an op, whatever it does."""
BYTE = 3e-11
MULTIPLY_ADD = 2.5e-11
"""In a product of matrices."""
FILTER = 3.5e-11
"""A multiply-add in a convolution: its products are long and narrow."""
COLUMN, COLUMN_BACK = 7e-10, 1e-9
"""One number of an image laid out as columns for these products; one that is added back into an image (the gradient by the image)."""
SUMMED = 1.2e-9
"""One number that a reduction takes in."""
POOLED, POOLED_BACK = 1.1e-9, 6e-9
"""One number that a pooling op looks at, and one of its gradient."""
INDEXED = 1e-9
"""One number that is picked or put by an index, or that an op makes of which nothing else is known."""
PLAIN, SLOW, EXP, TANH = 3e-11, 5e-10, 3.5e-9, 1.6e-8
"""One number made by an operation: a sum or a product; a quotient, a root or a sign; a function like exp; one like tanh."""

_PLAIN = (
    *(scalar.Add, scalar.Mul, scalar.Sub, scalar.Neg, scalar.Abs, scalar.Sqr, scalar.Identity, scalar.Second, scalar.Cast, scalar.Switch),
    *(scalar.Maximum, scalar.Minimum, scalar.Clip),
    *(scalar.LogicalComparison, scalar.FixedLogicalComparison, scalar.UnaryBitOp, scalar.BinaryBitOp),
)
_SLOW = (scalar.TrueDiv, scalar.Inv, scalar.Sqrt, scalar.IntDiv, scalar.Mod, scalar.Sgn)
_EXP = (scalar.Exp, scalar.Exp2, scalar.Log, scalar.Log2, scalar.Log10, scalar.Log1p, sigm.ScalarSigmoid)


def seconds_of(node: Any, shape_of: ShapeOf, makes_a_view: bool) -> float:
    """The estimate for one node. A view costs its call alone."""
    if makes_a_view:
        return CALL
    moved = sum(_bytes(v, shape_of) for v in [*node.inputs, *node.outputs])
    for kinds, more in _KINDS:
        if isinstance(node.op, kinds):
            return CALL + moved * BYTE + more(node, shape_of)
    return CALL + moved * BYTE + INDEXED * _numbers(node.outputs[0], shape_of)


def measured_costs(nodes: Sequence[Any], shape_of: ShapeOf, costs: Mapping[str, float]) -> Dict[Any, float]:
    """Seconds of each node by a profile; of one that it does not know the estimate, on the scale of those that it knows."""
    known = {node: costs[signature] for node in nodes for signature in [signature_of(node, shape_of)] if signature in costs}
    if not known:
        raise ValueError("the profile knows no task of this function: it is of another one, or of other shapes")
    estimates = {node: seconds_of(node, shape_of, False) for node in nodes}
    scale = sum(known.values()) / sum(estimates[node] for node in known)
    return {node: known.get(node, scale * estimates[node]) for node in nodes}


def signature_of(node: Any, shape_of: ShapeOf) -> str:
    """An op that was brought to write into a preallocated array counts as the one that it stands for."""
    name = str(node.op).replace(type(node.op).__name__, stock_name(node.op))
    shapes = ["x".join(map(str, shape_of(v))) if isinstance(v.type, tensor.TensorType) else "-" for v in [*node.inputs, *node.outputs]]
    return f"{name} {' '.join(shapes)}"


def stock_name(op: Any) -> str:
    ours = type(op).__name__
    return _stock_names().get(ours, ours)


@functools.lru_cache(maxsize=1)
def _stock_names() -> Dict[str, str]:
    """Asked when it is needed, for the module of our ops may be half made while this one is imported."""
    return {ours.__name__: theirs.__name__ for theirs, ours in [*ops.POOLS.items(), *ops.PRODUCTS.items()]}


def _numbers(variable: Any, shape_of: ShapeOf) -> int:
    if not isinstance(variable.type, tensor.TensorType):
        return 0
    return _count(shape_of(variable))


def _count(shape: Sequence[int]) -> int:
    """Where sizes are guessed, a formula of shapes can give a length below 0."""
    return math.prod(max(length, 0) for length in shape)


def _bytes(variable: Any, shape_of: ShapeOf) -> int:
    return _numbers(variable, shape_of) * int(np.dtype(variable.type.dtype).itemsize) if isinstance(variable.type, tensor.TensorType) else 0


# --- kinds of op -----------------------------------------------------------------------------------------------------


def _product(left: int) -> Callable[[Any, ShapeOf], float]:
    """Of the input `left` and the one after it: numbers of the result, times the length that is summed over."""

    def more(node: Any, shape_of: ShapeOf) -> float:
        shape = shape_of(node.inputs[left])
        return MULTIPLY_ADD * _numbers(node.outputs[0], shape_of) * (shape[-1] if shape else 1)

    return more


def _batched(node: Any, shape_of: ShapeOf) -> float:
    """A product for each of the batch, and a call for each product."""
    return _product(0)(node, shape_of) + CALL * max(1, *(shape_of(v)[0] for v in node.inputs))


def _convolution(node: Any, shape_of: ShapeOf) -> float:
    """Each number of the result, or of its gradient, is a sum over one filter; each column is as long as a filter, and all filters read it."""
    image, other = node.inputs[:2]
    if isinstance(node.op, (corr.CorrMM_gradWeights, corr3d.Corr3dMM_gradWeights)):
        filters, made = shape_of(node.outputs[0]), other
    elif isinstance(node.op, (corr.CorrMM_gradInputs, corr3d.Corr3dMM_gradInputs)):
        filters, made = shape_of(image), other
    else:
        filters, made = shape_of(other), node.outputs[0]
    columns = _numbers(made, shape_of) * _count(filters[1:]) / max(1, filters[0])
    back = isinstance(node.op, (corr.CorrMM_gradInputs, corr3d.Corr3dMM_gradInputs))
    return columns * (FILTER * max(0, filters[0]) + (COLUMN_BACK if back else COLUMN))


def _of_inputs(each: float) -> Callable[[Any, ShapeOf], float]:
    return lambda node, shape_of: each * max(_numbers(v, shape_of) for v in node.inputs)


def _of_outputs(each: float) -> Callable[[Any, ShapeOf], float]:
    return lambda node, shape_of: each * max(_numbers(v, shape_of) for v in node.outputs)


def _nothing(node: Any, shape_of: ShapeOf) -> float:
    return 0.0


def _elementwise(node: Any, shape_of: ShapeOf) -> float:
    return of_one_number(node.op.scalar_op) * _numbers(node.outputs[0], shape_of)


def of_one_number(operation: Any) -> float:
    """One number made by an elementwise operation, or by all those in it."""
    if isinstance(operation, scalar.Composite):
        return sum(of_one_number(inner.op) for inner in operation.fgraph.apply_nodes)
    return next((seconds for kinds, seconds in ((_PLAIN, PLAIN), (_SLOW, SLOW), (_EXP, EXP)) if isinstance(operation, kinds)), TANH)


def _loop(node: Any, shape_of: ShapeOf) -> float:
    """A Scan: each step calls its nodes and makes states; where matrices stay the same, all rows of a state are multiplied with them. What the
    nodes compute is not looked into."""
    op = node.op
    states = [shape_of(v) for v in [*op.outer_mitmot(node), *op.outer_mitsot(node), *op.outer_sitsot(node)] if v.type.ndim]
    steps = max([1, *(shape_of(v)[0] for v in op.outer_seqs(node) if v.type.ndim), *(shape[0] for shape in states)])
    rows = max([1, *(_count(shape[1:-1]) for shape in states if len(shape) > 2)])
    matrices = sum(_numbers(v, shape_of) for v in op.outer_non_seqs(node) if v.type.ndim > 1)
    made = sum(_count(shape[1:]) for shape in states)
    return steps * (CALL * _nodes_inside(op) + rows * matrices * MULTIPLY_ADD + made * TANH)


def _nodes_inside(op: Any) -> int:
    return 1 + len(gof.graph.io_toposort(op.inputs, op.outputs))


_KINDS: Tuple[Tuple[Any, Callable[[Any, ShapeOf], float]], ...] = (
    (elemwise.Elemwise, _elementwise),
    ((blas.Dot22, blas.Dot22Scalar, tensor.Dot), _product(0)),
    (blas.BatchedDot, _batched),
    ((blas.Gemm, blas.Gemv), _product(2)),
    (blas.Ger, _of_outputs(PLAIN)),
    ((corr.BaseCorrMM, corr3d.BaseCorr3dMM, ConvOp), _convolution),
    ((elemwise.CAReduce, tensor.MaxAndArgmax, tensor.Argmax), _of_inputs(SUMMED)),
    (pool.Pool, _of_inputs(POOLED)),
    ((pool.PoolGrad, pool.DownsampleFactorMaxGradGrad, pool.MaxPoolRop), _of_inputs(POOLED_BACK)),
    ((nnet.Softmax, nnet.SoftmaxWithBias, nnet.LogSoftmax, nnet.CrossentropySoftmaxArgmax1HotWithBias), _of_inputs(EXP)),
    ((nnet.SoftmaxGrad, nnet.CrossentropySoftmax1HotWithBiasDx), _of_outputs(SLOW)),
    ((tensor.Alloc, tensor.AllocEmpty, tensor.Join, tensor.Split, subtensor.Subtensor, subtensor.IncSubtensor), _nothing),
    (Scan, _loop),
)

"""Workspaces: what an op takes for itself while it runs, and gives back before it is done.

    op                                       workspace
    ------------------------------------     ----------------------------------------------------------------------------
    CorrMM, Corr3dMM and their gradients     columns of one image (of one for each thread): channels x kernel x places; the gradient
                                             by the weights also one sum of weights for each thread, and without a BLAS one more;
                                             a copy of each argument that does not lie in C order: kernels that are flipped, and images
                                             with the channels last, as Keras has them
    Sum and other reductions                 the result in the type that they add up in, where it is not the type of the result
    Gemm, without a BLAS                     the product, before it is added

For the planner a workspace is a buffer that nobody reads: it lives while its task runs, and no longer. An op that is not in the table has
none that is known; `profile` measures them all.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import AbstractSet, Any, Callable, Optional, Sequence, Tuple

import numpy as np
import theano
from theano.tensor import blas
from theano.tensor.elemwise import CAReduce
from theano.tensor.nnet.corr import BaseCorrMM, CorrMM, CorrMM_gradWeights
from theano.tensor.nnet.corr3d import BaseCorr3dMM, Corr3dMM, Corr3dMM_gradWeights

from theano_memopt.hosts.theano.read.op_facts import has_c_code, lacks_c_for_its_types, runs_in_python

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class Workspace:
    """Of one node."""

    node: Any
    asks: Tuple[Any, ...]
    """The variables of which the shapes are needed."""
    formula: Callable[[Sequence[Shape]], int]
    """From their shapes to bytes."""

    def bytes(self, shapes: Sequence[Shape]) -> int:
        """Where sizes are guessed, a formula of shapes can give a length below 0."""
        return self.formula([shape if min(shape, default=0) >= 0 else tuple(max(0, length) for length in shape) for shape in shapes])


def workspace_of(node: Any, compiled: bool, scattered: AbstractSet[Any]) -> Optional[Workspace]:
    """What this node takes for itself, if that is known. `compiled`: does the linker ask for C code? `scattered`: the results that are likely
    not contiguous (memory_layout.py)."""
    op = node.op
    if isinstance(op, (BaseCorrMM, BaseCorr3dMM)) and compiled and not lacks_c_for_its_types(node):
        return _columns(node, [v for v in node.inputs[:2] if v in scattered])
    if isinstance(op, CAReduce) and compiled and node.outputs[0].ndim and has_c_code(node):
        return _sums(node)
    if isinstance(op, blas.Gemm) and (without_blas() or not compiled or runs_in_python(node)):
        return Workspace(node, (node.outputs[0],), lambda shapes: _bytes(shapes[0], node.outputs[0].dtype))
    return None


def without_blas() -> bool:
    """Does Theano's C code multiply by NumPy's C interface? That makes an array of its own of a product to add."""
    return not theano.config.blas.ldflags


def _columns(node: Any, copied: Sequence[Any]) -> Workspace:
    op = node.op
    if isinstance(op, (CorrMM, Corr3dMM)):
        kernels, top = node.inputs[1], node.outputs[0]
    elif isinstance(op, (CorrMM_gradWeights, Corr3dMM_gradWeights)):
        kernels, top = node.outputs[0], node.inputs[1]
    else:
        kernels, top = node.inputs[:2]
    groups, sums = getattr(op, "num_groups", 1), isinstance(op, (CorrMM_gradWeights, Corr3dMM_gradWeights))
    dimensions = 2 if isinstance(op, BaseCorrMM) else 3
    threads = _threads(op)

    def needed(shapes: Sequence[Shape]) -> int:
        kernel, images = shapes[:2]
        of_each_filter = groups * math.prod(kernel[-1 - dimensions :])
        at_once = min(threads, images[0])
        columns = at_once * of_each_filter * math.prod(images[2:])
        copies = at_once + (1 if without_blas() else 0) if sums else 0
        return (columns + copies * math.prod(kernel) + sum(map(math.prod, shapes[2:]))) * np.dtype(top.dtype).itemsize

    return Workspace(node, (kernels, top, *copied), needed)


def _threads(op: Any) -> int:
    """For how many images at once the op makes columns."""
    if not getattr(op, "openmp", False):
        return 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() else os.cpu_count() or 1


def _sums(node: Any) -> Optional[Workspace]:
    out = node.outputs[0]
    adds_in = getattr(node.op, "acc_dtype", None) or out.dtype
    if adds_in == out.dtype:
        return None
    return Workspace(node, (out,), lambda shapes: _bytes(shapes[0], adds_in))


def _bytes(shape: Shape, dtype: str) -> int:
    return math.prod(shape) * int(np.dtype(dtype).itemsize)

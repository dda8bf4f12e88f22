"""Ops that put an array of their own into their cell, brought to write where they are told.

    Pool, its gradients     compare the first length of the old result with its number of dimensions, so they always
                            allocate: the same code with the comparison put right
    IncSubtensor            not in place: copies its input, then writes into the copy. Here the copy is an op with a cell,
                            and the writing is in place; where the input is a fill (Alloc), another fill takes its place
    Reshape                 of what is not contiguous: copies. Here the copy is an op with a cell, and Reshape a view of it

Numbers and memory traffic are the same as before. The rewrite is done where an arena is asked for, after all others.
"""

from __future__ import annotations

import re
from typing import Any, Optional

import numpy as np
from theano import gof, tensor
from theano.tensor.elemwise import DimShuffle
from theano.tensor.signal import pool
from theano.tensor.subtensor import AdvancedIncSubtensor1, IncSubtensor, Subtensor


def bring(fgraph: Any) -> int:
    """Replace such ops; answers how many."""
    count = 0
    for node in fgraph.toposort():
        replacement = _replacement(node)
        if replacement is not None:
            for old, new in zip(node.outputs, replacement.outputs):
                new.name = old.name
            fgraph.replace_all_validate(list(zip(node.outputs, replacement.outputs)), reason="mem_reuse")
            count += 1
    return count


def _replacement(node: Any) -> Optional[Any]:
    op = node.op
    if type(op) in _POOLS:
        there = object.__new__(_POOLS[type(op)])
        there.__dict__.update(op.__dict__)
        return there.make_node(*node.inputs)
    if type(op) is IncSubtensor and not op.inplace:
        there = IncSubtensor(op.idx_list, True, op.set_instead_of_inc, destroyhandler_tolerate_aliased=op.destroyhandler_tolerate_aliased)
        return there.make_node(_another(node.inputs[0]), *node.inputs[1:])
    if type(op) is AdvancedIncSubtensor1 and not op.inplace:
        return op.clone_inplace().make_node(_another(node.inputs[0]), *node.inputs[1:])
    if isinstance(op, tensor.Reshape) and _is_scattered_view(node.inputs[0]):
        again = op.make_node(Copy("C")(node.inputs[0]), node.inputs[1])
        return again if again.outputs[0].type == node.outputs[0].type else None
    return None


def _another(variable: Any) -> Any:
    """The same value in memory that may be written to."""
    node = variable.owner
    if node is not None and type(node.op) is tensor.Alloc:
        return node.op.make_node(*node.inputs).outputs[0]
    return Copy("K")(variable)


def _is_scattered_view(variable: Any) -> bool:
    """Is it, as far as its node shows, a view that is not contiguous? A wrong yes costs a copy, a wrong no costs memory."""
    node = variable.owner
    if node is None:
        return False
    if isinstance(node.op, DimShuffle):
        long = [axis for axis in node.op.new_order if axis != "x" and not node.inputs[0].type.broadcastable[axis]]
        return long != sorted(long) or _is_scattered_view(node.inputs[0])
    if isinstance(node.op, Subtensor):
        first, inner = node.op.idx_list[:1], node.op.idx_list[1:]
        backwards = [i for i in node.op.idx_list if isinstance(i, slice) and i.step is not None]
        cut = any(isinstance(i, slice) and i != slice(None) for i in inner) or (bool(inner) and isinstance(first[0], slice))
        return bool(backwards) or cut or _is_scattered_view(node.inputs[0])
    return False


class Copy(gof.Op):
    """A copy in a cell of its own: in C order, or in the order of what is copied (K)."""

    __props__ = ("order",)
    check_input = False
    _f16_ok = True

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order

    def make_node(self, x: Any) -> Any:
        return gof.Apply(self, [x], [x.type()])

    def infer_shape(self, node: Any, shapes: Any) -> Any:
        return shapes

    def perform(self, node: Any, inputs: Any, outputs: Any, params: Any = None) -> None:
        cell = outputs[0]
        if cell[0] is None or cell[0].shape != inputs[0].shape or not (self.order == "K" or cell[0].flags.c_contiguous):
            cell[0] = np.array(inputs[0], copy=True, order=self.order)
        else:
            np.copyto(cell[0], inputs[0])

    def c_code(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        order = "NPY_CORDER" if self.order == "C" else "NPY_KEEPORDER"
        fits = "PyArray_IS_C_CONTIGUOUS" if self.order == "C" else "PyArray_Check"
        return """
        if ({z} == NULL || PyArray_NDIM({z}) != PyArray_NDIM({x}) || !{fits}({z}) ||
            !PyArray_CompareLists(PyArray_DIMS({z}), PyArray_DIMS({x}), PyArray_NDIM({x}))) {{
            Py_XDECREF({z});
            {z} = (PyArrayObject*) PyArray_NewLikeArray({x}, {order}, NULL, 0);
            if (!{z}) {{ {fail} }}
        }}
        if (PyArray_CopyInto({z}, {x}) < 0) {{ {fail} }}
        """.format(x=inputs[0], z=outputs[0], order=order, fits=fits, fail=sub["fail"])

    def c_code_cache_version(self) -> Any:
        return (1,)


class _RightComparison:
    def c_code(self, *arguments: Any) -> str:
        return re.sub(r"\*PyArray_DIMS\((\w+)\)\s*!=", r"PyArray_NDIM(\1)!=", super().c_code(*arguments))  # type: ignore[misc]

    def c_code_cache_version(self) -> Any:
        version = super().c_code_cache_version()  # type: ignore[misc]
        return (*version, "mem_reuse") if version else ()


class PoolThere(_RightComparison, pool.Pool):
    pass


class MaxPoolGradThere(_RightComparison, pool.MaxPoolGrad):
    pass


class AveragePoolGradThere(_RightComparison, pool.AveragePoolGrad):
    pass


_POOLS = {pool.Pool: PoolThere, pool.MaxPoolGrad: MaxPoolGradThere, pool.AveragePoolGrad: AveragePoolGradThere}

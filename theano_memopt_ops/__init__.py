"""The ops that `theano_memopt` puts into a graph, in a module of their own that imports nothing of the package.

Theano writes the ops of what it compiled into its cache on disk, pickled by the name of their module, and whoever uses
the same cache later imports that module. Were it one of the package, a program that never asked for the pass would
have it registered half-way through.
"""

from __future__ import annotations

import re
from typing import Any, List

import numpy as np
from theano import gof
from theano.tensor.signal import pool

from theano_memopt_ops.products import PRODUCTS, in_place

__all__ = ["POOLS", "PRODUCTS", "Copy", "CopyToReshape", "in_place"]


class Copy(gof.Op):
    """A copy in a cell of its own, as IncSubtensor makes one: in C laid out like what is copied, in Python in C order."""

    __props__ = ()
    check_input = False

    def make_node(self, x: Any) -> Any:
        return gof.Apply(self, [x], [x.type()])

    def infer_shape(self, node: Any, shapes: Any) -> Any:
        return shapes[:1]

    def perform(self, node: Any, inputs: Any, outputs: Any, params: Any = None) -> None:
        _copy_into(outputs[0], inputs[0], "C")

    def c_code(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        return _filled(_COPY, X=inputs[0], Z=outputs[0], FAIL=sub["fail"])

    def c_code_cache_version(self) -> Any:
        return (7,)

    def c_support_code(self) -> str:
        return _SAME_MEMORY


class CopyToReshape(Copy):
    """A copy from which Reshape to the given shape makes the array that it would have made itself.

    Where Reshape could have taken a view, the copy is laid out like the original and not in C order, with a gap wherever that
    has one: what comes after, a matrix product say, then takes the same way and answers with the same bits.
    """

    _f16_ok = True

    def make_node(self, x: Any, shape: Any) -> Any:
        return gof.Apply(self, [x, shape], [x.type()])

    def perform(self, node: Any, inputs: Any, outputs: Any, params: Any = None) -> None:
        x, shape = inputs
        keep = np.shares_memory(np.reshape(x, shape), x)
        if keep and not _alike(x, np.empty_like(x, order="K")):
            outputs[0][0] = _with_small_gaps(x)
        else:
            _copy_into(outputs[0], x, "K" if keep else "C")

    def c_code(self, node: Any, name: str, inputs: Any, outputs: Any, sub: Any) -> str:
        return _filled(_COPY_TO_RESHAPE, X=inputs[0], S=inputs[1], Z=outputs[0], FAIL=sub["fail"])


def _copy_into(cell: List[Any], x: Any, order: Any) -> None:
    """Into the array that is in the cell, if it is laid out as a new one would be: what comes after must see the same strides."""
    made = np.empty_like(x, order=order)
    if cell[0] is not None and cell[0].shape == x.shape and _alike(cell[0], made):
        made = cell[0]
    np.copyto(made, x)
    cell[0] = made


def _alike(one: Any, other: Any) -> bool:
    """Have two arrays of one shape the same strides? Of an axis of length 1 BLAS asks only whether it is one element."""
    pairs = zip(one.shape, one.strides, other.strides)
    return all(a == b if length != 1 else a > 0 and (a == one.itemsize) == (b == one.itemsize) for length, a, b in pairs)


def _with_small_gaps(x: Any) -> Any:
    """A copy whose strides are in the same order and of the same signs, or 0, with gaps of one element where x has any."""
    strides, start, extent, expected = [0] * x.ndim, 0, x.itemsize, x.itemsize
    steps = [axis for axis in range(x.ndim) if x.strides[axis] != 0]
    for axis in sorted((axis for axis in steps if x.shape[axis] != 1), key=lambda axis: abs(x.strides[axis])):
        step = extent + x.itemsize * (abs(x.strides[axis]) > expected)
        expected, extent = abs(x.strides[axis]) * x.shape[axis], step * x.shape[axis]
        strides[axis] = step if x.strides[axis] > 0 else -step
        start += step * (x.shape[axis] - 1) * (x.strides[axis] < 0)
    for axis in (axis for axis in steps if x.shape[axis] == 1):  # BLAS asks whether it is one element
        step = x.itemsize if abs(x.strides[axis]) == x.itemsize else extent + x.itemsize
        strides[axis] = step if x.strides[axis] > 0 else -step
    made = np.ndarray(x.shape, x.dtype, np.empty(extent, np.uint8), start, strides)
    made[...] = x
    return made


def _filled(code: str, **names: str) -> str:
    return re.sub(r"\b(" + "|".join(names) + r")\b", lambda found: names[found.group()], code)


_COPY = """
if (Z == NULL || PyArray_NDIM(Z) != PyArray_NDIM(X) || !PyArray_CompareLists(PyArray_DIMS(Z), PyArray_DIMS(X), PyArray_NDIM(X))
    || !mem_reuse_same_layout(Z, X)) {
    Py_XDECREF(Z);
    Z = (PyArrayObject*) PyArray_NewLikeArray(X, NPY_KEEPORDER, NULL, 0);
    if (!Z) { FAIL }
}
if (PyArray_CopyInto(Z, X) < 0) { FAIL }
"""

_COPY_TO_RESHAPE = """
{
    int keep = mem_reuse_same_memory(X, S), gaps = keep && !mem_reuse_same_layout(X, X);
    int fits = Z != NULL && PyArray_NDIM(Z) == PyArray_NDIM(X) && PyArray_CompareLists(PyArray_DIMS(Z), PyArray_DIMS(X), PyArray_NDIM(X));
    if (fits && !(gaps ? 0 : keep ? mem_reuse_same_layout(Z, X) : PyArray_IS_C_CONTIGUOUS(Z))) fits = 0;
    if (!fits) {
        Py_XDECREF(Z);
        Z = gaps ? mem_reuse_with_small_gaps(X) : (PyArrayObject*) PyArray_NewLikeArray(X, keep ? NPY_KEEPORDER : NPY_CORDER, NULL, 0);
        if (!Z) { FAIL }
    }
    if (PyArray_CopyInto(Z, X) < 0) { FAIL }
}
"""

_SAME_MEMORY = """
// Would x take this shape without a copy? The rule of NumPy: split the axes, those of length 1 apart, into groups of equal
// length on both sides; within a group of the old side each axis must continue the next one.
static int mem_reuse_same_memory(PyArrayObject* x, PyArrayObject* shape) {
    npy_intp from[NPY_MAXDIMS], step[NPY_MAXDIMS], to[NPY_MAXDIMS];
    int n = 0, m = 0, i, j, k, open = -1;
    npy_intp known = 1, size = PyArray_SIZE(x);
    if (size == 0) return 0;
    for (i = 0; i < PyArray_NDIM(x); i++)
        if (PyArray_DIM(x, i) != 1) { from[n] = PyArray_DIM(x, i); step[n++] = PyArray_STRIDE(x, i); }
    for (i = 0; i < PyArray_DIM(shape, 0); i++) {
        PyObject* item = PyArray_GETITEM(shape, (char*) PyArray_GETPTR1(shape, i));
        if (!item) { PyErr_Clear(); return 0; }
        npy_intp length = (npy_intp) PyLong_AsLongLong(item);
        Py_DECREF(item);
        if (length == -1) { open = m; to[m++] = 1; }
        else { known *= length; to[m++] = length; }
    }
    if (open >= 0) { if (known == 0 || size % known) return 0; to[open] = size / known; known = size; }
    if (known != size) return 0;
    for (i = 0, j = 0; i < n && j < m;) {
        npy_intp old_length = from[i], new_length = to[j];
        int first = i;
        i++; j++;
        while (old_length != new_length) {
            if (new_length < old_length) { if (j >= m) return 0; new_length *= to[j++]; }
            else { if (i >= n) return 0; old_length *= from[i++]; }
        }
        for (k = first; k + 1 < i; k++) if (step[k] != from[k + 1] * step[k + 1]) return 0;
    }
    return 1;
}

// Has z the strides of a new array that keeps the order of x? The rule of NumPy: C order or Fortran order if x is contiguous
// so; else without gaps, in the order of the strides of x. Of an axis of length 1 BLAS asks only whether it is one element.
static int mem_reuse_same_layout(PyArrayObject* z, PyArrayObject* x) {
    int axes[NPY_MAXDIMS], n = PyArray_NDIM(x), i, j;
    npy_intp step = PyArray_ITEMSIZE(x);
    for (i = 0; i < n; i++) axes[i] = n - 1 - i;
    if (PyArray_IS_C_CONTIGUOUS(x)) {
    } else if (PyArray_IS_F_CONTIGUOUS(x)) {
        for (i = 0; i < n; i++) axes[i] = i;
    } else {
        for (i = 1; i < n; i++) {
            int axis = axes[i];
            for (j = i; j > 0 && labs(PyArray_STRIDE(x, axes[j - 1])) > labs(PyArray_STRIDE(x, axis)); j--) axes[j] = axes[j - 1];
            axes[j] = axis;
        }
    }
    for (i = 0; i < n; i++) {
        npy_intp is = PyArray_STRIDE(z, axes[i]), item = PyArray_ITEMSIZE(z);
        if (PyArray_DIM(x, axes[i]) != 1 ? is != step : is <= 0 || (is == item) != (step == item)) return 0;
        if (PyArray_DIM(x, axes[i]) > 1) step *= PyArray_DIM(x, axes[i]);
    }
    return 1;
}

// An array like x, whose strides are in the same order and of the same signs, or 0, with gaps of one element where x has any.
static PyArrayObject* mem_reuse_with_small_gaps(PyArrayObject* x) {
    npy_intp steps[NPY_MAXDIMS], item = PyArray_ITEMSIZE(x), start = 0, extent = item, expected = item;
    int axes[NPY_MAXDIMS], n = 0, i, j;
    for (i = 0; i < PyArray_NDIM(x); i++) {
        steps[i] = 0;
        if (PyArray_STRIDE(x, i) == 0 || PyArray_DIM(x, i) == 1) continue;
        for (j = n++; j > 0 && labs(PyArray_STRIDE(x, axes[j - 1])) > labs(PyArray_STRIDE(x, i)); j--) axes[j] = axes[j - 1];
        axes[j] = i;
    }
    for (j = 0; j < n; j++) {
        npy_intp length = PyArray_DIM(x, axes[j]), old = labs(PyArray_STRIDE(x, axes[j]));
        npy_intp step = extent + (old > expected ? item : 0);
        expected = old * length;
        extent = step * length;
        steps[axes[j]] = PyArray_STRIDE(x, axes[j]) < 0 ? -step : step;
        if (PyArray_STRIDE(x, axes[j]) < 0) start += step * (length - 1);
    }
    for (i = 0; i < PyArray_NDIM(x); i++) { // BLAS asks whether it is one element
        if (PyArray_STRIDE(x, i) == 0 || PyArray_DIM(x, i) != 1) continue;
        npy_intp step = labs(PyArray_STRIDE(x, i)) == item ? item : extent + item;
        steps[i] = PyArray_STRIDE(x, i) < 0 ? -step : step;
    }
    PyObject* room = PyArray_SimpleNew(1, &extent, NPY_UINT8);
    if (!room) return NULL;
    Py_INCREF(PyArray_DESCR(x));
    PyArrayObject* made = (PyArrayObject*) PyArray_NewFromDescr(
        &PyArray_Type, PyArray_DESCR(x), PyArray_NDIM(x), PyArray_DIMS(x), steps, PyArray_BYTES((PyArrayObject*) room) + start,
        NPY_ARRAY_WRITEABLE, NULL);
    if (!made) { Py_DECREF(room); return NULL; }
    if (PyArray_SetBaseObject(made, room) < 0) { Py_DECREF(made); return NULL; }
    PyArray_UpdateFlags(made, NPY_ARRAY_UPDATE_ALL);
    return made;
}
"""


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


POOLS = {pool.Pool: PoolThere, pool.MaxPoolGrad: MaxPoolGradThere, pool.AveragePoolGrad: AveragePoolGradThere}

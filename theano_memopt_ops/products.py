"""Matrix products in Python that write their result into the array that lies in their cell.

Theano runs these ops in Python where it found no BLAS to link with, and for types that its C code does not know. Its own
versions call `numpy.dot`, which allocates a new array in each call. The versions here differ in one thing only: they hand
the array in the cell to `numpy.dot` as its `out`. NumPy takes only an array like the one that it would have allocated, and
refuses any other before it writes; then Theano's own version runs. An empty cell is no `out`: NumPy allocates. Small products
take a microsecond or two, so what is asked here is asked of NumPy alone.

    cell before    [place]          what stock does    cell after   [another array]
                                    what is done here  cell after   [place]

The bits are the same, because NumPy makes the same BLAS call whether it allocates the result or is given it.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np
from theano import gof, tensor
from theano.tensor import blas
from theano.tensor.blas_scipy import ScipyGer


def _fits(array: Any, shape: Tuple[int, ...], dtype: Any) -> bool:
    """Is this the kind of array that NumPy would allocate for such a result?"""
    usable = isinstance(array, np.ndarray) and array.shape == shape and array.dtype == dtype
    return usable and bool(array.flags.c_contiguous and array.flags.behaved)


class _Product:
    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        x, y = inputs
        cell = outputs[0]
        place = cell[0]
        try:
            product = np.dot(x, y, place)
        except (TypeError, ValueError):
            super().perform(node, inputs, outputs)  # type: ignore[misc]
        else:
            if place is None:
                cell[0] = np.asarray(product)


class DotInPlace(_Product, tensor.Dot):
    pass


class Dot22InPlace(_Product, blas.Dot22):
    pass


class Dot22ScalarInPlace(blas.Dot22Scalar):
    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        x, y, scalar = inputs
        cell = outputs[0]
        place = cell[0]
        try:
            product = np.dot(x, y, place)
        except (TypeError, ValueError):
            super().perform(node, inputs, outputs)
        else:
            np.multiply(scalar, product, product)  # stock makes a second array here
            cell[0] = product


class BatchedDotInPlace(blas.BatchedDot):
    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        x, y = inputs
        place = outputs[0][0]
        shape = (*x.shape[:-1], *y.shape[2:])
        if len(shape) < 2 or x.shape[0] != y.shape[0] or x.shape[-1] != y.shape[1] or not _fits(place, shape, x.dtype):
            super().perform(node, inputs, outputs)
            return
        for result, one, other in zip(place, x, y):
            np.dot(one, other, out=result)


class GemmInPlace(blas.Gemm):
    """b * z + a * dot(x, y), with at most one array for the product beside the result, where stock takes up to two."""

    def perform(self, node: Any, inputs: Any, outputs: Any, params: Any) -> None:
        z, a, x, y, b = inputs
        if not params.inplace:
            z = _copied(z, outputs[0][0])
        if b == 0.0:
            try:
                np.dot(x, y, z)
            except (TypeError, ValueError):
                z[:] = np.dot(x, y)
            _scale(z, a)
        elif b == 1.0 and a == -1.0:
            z -= np.dot(x, y)
        else:
            if b != 1.0:
                z *= b
            product = np.dot(x, y)
            if a != 1.0:
                np.multiply(a, product, out=product)
            z += product
        outputs[0][0] = z


def _scale(array: Any, factor: Any) -> None:
    if factor == -1.0:
        np.negative(array, out=array)
    elif factor != 1.0:
        np.multiply(factor, array, out=array)


class GemvInPlace(blas.Gemv):
    """b * y + a * dot(A, x), not in place of y: y is copied into the cell, and SciPy's gemv works there."""

    def perform(self, node: Any, inputs: Any, outputs: Any, params: Any = None) -> None:
        y, alpha, matrix, x, beta = inputs
        place = outputs[0][0]
        by_scipy = blas.have_fblas and y.size and x.size and y.dtype in blas._blas_gemv_fns and matrix.shape == (y.size, x.size)
        clears_y = by_scipy and beta == 0 and blas.check_init_y()  # some BLAS take the NaN of a y that was never filled
        if self.inplace or clears_y or not by_scipy or not _fits(place, y.shape, y.dtype):
            super().perform(node, inputs, outputs)
            return
        np.copyto(place, y)
        outputs[0][0] = blas._blas_gemv_fns[y.dtype](alpha, matrix.T, x, beta, place, overwrite_y=True, trans=True)


class GerInPlace(blas.Ger):
    """A + alpha * outer(x, y), not in place of A: A is copied into the cell."""

    def perform(self, node: Any, inputs: Any, outputs: Any, params: Any = None) -> None:
        matrix, *rest = inputs
        if self.destructive:
            super().perform(node, inputs, outputs)
        else:
            blas.ger_destructive.perform(node, [_copied(matrix, outputs[0][0]), *rest], outputs)


class ScipyGerInPlace(ScipyGer):
    """The same by SciPy's ger, which answers in Fortran order where A is not in C order: then stock's own code runs."""

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        matrix, alpha, x, y = inputs
        place = outputs[0][0]
        if self.destructive or not matrix.size or not matrix.flags.c_contiguous or not _fits(place, matrix.shape, matrix.dtype):
            super().perform(node, inputs, outputs)
            return
        np.copyto(place, matrix)
        outputs[0][0] = node.tag.local_ger(alpha, y, x, a=place.T, overwrite_a=True).T


def _copied(source: Any, place: Any) -> Any:
    """The copy that `source.copy()` would make, in `place` if that fits."""
    if not _fits(place, source.shape, source.dtype):
        return source.copy()
    np.copyto(place, source)
    return place


PRODUCTS = {
    tensor.Dot: DotInPlace,
    blas.BatchedDot: BatchedDotInPlace,
    blas.Dot22: Dot22InPlace,
    blas.Dot22Scalar: Dot22ScalarInPlace,
    blas.Gemm: GemmInPlace,
    blas.Gemv: GemvInPlace,
    blas.Ger: GerInPlace,
    ScipyGer: ScipyGerInPlace,
}
"""Theano's class -> the class that takes its place where the op runs in Python."""


def in_place(node: Any) -> List[Any]:
    """The results of the same product by an op that writes into its cell."""
    op = object.__new__(PRODUCTS[type(node.op)])
    op.__dict__.update(node.op.__dict__)
    return gof.Apply(op, node.inputs, [v.type() for v in node.outputs]).outputs

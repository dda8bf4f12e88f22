"""Products in Python: the same bits and strides as Theano's own code, in the array that was in the cell.

Each case is run by Theano's `perform` with an empty cell, and by ours with an empty cell, with a place that fits, and with
places that do not: another shape, another type, Fortran order, read only.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import pytest
from theano import tensor
from theano.tensor import blas
from theano.tensor.blas_scipy import ScipyGer

import theano_memopt  # noqa: F401
from theano_memopt_ops import PRODUCTS, in_place

FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
BY_BLAS = FLOATS[1:]
LENGTHS = (0, 1, 2, 17)
LAYOUTS = ("C", "F", "gaps", "backwards", "turned")


def array(shape: Tuple[int, ...], dtype: str, layout: str, seed: int) -> Any:
    random = np.random.RandomState(seed)
    wide = random.randn(*(2 * length for length in shape)) + (1j * random.randn(*(2 * length for length in shape)) if "complex" in dtype else 0)
    wide = (wide * 8).astype(dtype)
    picked = wide[tuple(slice(None, None, 2) for _ in shape)]
    if layout == "gaps":
        return picked
    if layout == "backwards":
        return picked[tuple(slice(None, None, -1) for _ in shape)]
    if layout == "turned":
        return np.ascontiguousarray(picked.T).T
    return np.array(picked, order=layout)


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other) and one.dtype == other.dtype and one.shape == other.shape
    assert one.tobytes() == other.tobytes()
    assert one.size < 2 or all(a == b for a, b, length in zip(one.strides, other.strides, one.shape) if length != 1)


def places(like: Any) -> Iterator[Tuple[Any, bool]]:
    """What may lie in the cell, and whether the result is to be written there."""
    yield None, False
    yield np.full(like.shape, 7, like.dtype), True
    if like.ndim:
        yield np.full(tuple(length + 1 for length in like.shape), 7, like.dtype), False
    yield np.full(like.shape, 7, "float32" if like.dtype != "float32" else "float64"), False
    readonly = np.full(like.shape, 7, like.dtype)
    readonly.flags.writeable = False
    yield readonly, False
    turned = np.full(like.shape, 7, like.dtype, order="F")
    yield turned, bool(turned.flags.c_contiguous)


def check(op: Any, arrays: List[Any], written: Callable[[Any], bool] = lambda stock: True) -> int:
    """Answers in how many cases the result was written into the place."""
    variables = [tensor.TensorType(a.dtype, [False] * a.ndim)() for a in arrays]
    stock = op.make_node(*variables)
    ours = in_place(stock)[0].owner
    assert [v.type for v in ours.outputs] == [v.type for v in stock.outputs] and ours.op.__dict__ == op.__dict__

    def run(node: Any, place: Any) -> Any:
        node.op.prepare_node(node, {}, {}, "py")
        cell = [place]
        parameters = [node.op.params_type.get_params(node.op)] if isinstance(node.op, blas.Gemm) else []
        node.op.perform(node, [a.copy("K") if a.ndim == 0 else a for a in arrays], [cell], *parameters)
        return cell[0]

    wanted, count = run(stock, None), 0
    for place, fits in places(wanted):
        found = run(ours, place)
        same(found, wanted)
        if fits and wanted.size and written(wanted):
            assert np.shares_memory(found, place), (op, [a.shape for a in arrays], place.flags)
            count += 1
        elif place is not None and place.size and not fits:
            assert not np.shares_memory(found, place)
    return count


def matrices(dtype: str) -> Iterator[Tuple[Any, Any]]:
    for m, k, n in itertools.product(LENGTHS, LENGTHS, LENGTHS):
        one, other = LAYOUTS[(m + k) % 5], LAYOUTS[(k + 2 * n + m) % 5]
        yield array((m, k), dtype, one, m), array((k, n), dtype, other, n)
    for one, other in itertools.product(LAYOUTS, LAYOUTS):
        yield array((5, 6), dtype, one, 1), array((6, 4), dtype, other, 2)
    square = array((9, 9), dtype, "C", 3)
    yield square, square.T  # NumPy takes another BLAS routine where both are the same memory
    yield square.T, square


def number(value: float, dtype: str) -> Any:
    return np.asarray(value, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_dot22(dtype: str) -> None:
    assert sum(check(blas.Dot22(), list(pair)) for pair in matrices(dtype)) > 30


@pytest.mark.parametrize("dtype", FLOATS)
def test_dot22scalar(dtype: str) -> None:
    assert sum(check(blas.Dot22Scalar(), [*pair, number(0.3, dtype)]) for pair in matrices(dtype)) > 30


@pytest.mark.parametrize("dtype", (*FLOATS, "int8", "int64", "bool"))
def test_dot_of_any_type_and_dimensions(dtype: str) -> None:
    count = 0
    for x, y in matrices(dtype):
        count += check(tensor.Dot(), [x, y])
        if x.shape[0]:
            check(tensor.Dot(), [x[0], y])
            check(tensor.Dot(), [x[0], x[0]])
        if y.shape[1]:
            check(tensor.Dot(), [x, y[:, 0]])
    assert count > 30


def test_dot_of_two_types() -> None:
    for one, other in (("float32", "float64"), ("int8", "int32"), ("int64", "float32"), ("int8", "float16")):
        for x, y in itertools.islice(matrices(one), 40, 90):
            check(tensor.Dot(), [x, y.astype(other)])


@pytest.mark.parametrize("dtype", ("float32", "float64", "complex128"))
def test_batched_dot(dtype: str) -> None:
    count = 0
    for batch, (x, y) in itertools.product((0, 1, 3), matrices(dtype)):
        xs = np.repeat(x[None], batch, 0)
        ys = np.repeat(y[None], batch, 0)
        ys = ys if batch % 2 else np.asfortranarray(ys)
        count += check(blas.BatchedDot(), [xs, ys])
        if batch and x.shape[0]:
            check(blas.BatchedDot(), [xs[:, 0], ys])
    assert count > 30


@pytest.mark.parametrize("dtype", BY_BLAS)
@pytest.mark.parametrize("a", (1.0, -1.0, 0.3))
@pytest.mark.parametrize("b", (0.0, 1.0, -0.7))
def test_gemm_not_in_place(dtype: str, a: float, b: float) -> None:
    count = 0
    for i, (x, y) in enumerate(matrices(dtype)):
        z = array((x.shape[0], y.shape[1]), dtype, LAYOUTS[i % 5], i)
        kept = z.copy("K")
        count += check(blas.Gemm(inplace=False), [z, number(a, dtype), x, y, number(b, dtype)])
        assert z.tobytes() == kept.tobytes()
    assert count > 30


@pytest.mark.parametrize("dtype", BY_BLAS)
@pytest.mark.parametrize("a", (1.0, -1.0, 0.3))
@pytest.mark.parametrize("b", (0.0, 1.0, -0.7))
def test_gemm_in_place(dtype: str, a: float, b: float) -> None:
    """The result lies in z, also where z has gaps or holds NaN."""
    for i, (x, y) in enumerate(matrices(dtype)):
        z = array((x.shape[0], y.shape[1]), dtype, LAYOUTS[i % 5], i)
        if z.size:
            z[0, 0] = np.nan
        results: Dict[str, Any] = {}
        for name, op in (("stock", blas.Gemm(inplace=True)), ("ours", PRODUCTS[blas.Gemm](inplace=True))):
            target, cell = z.copy("K"), [None]
            node = op.make_node(*(tensor.TensorType(dtype, [False] * v.ndim)() for v in (z, number(a, dtype), x, y, number(b, dtype))))
            op.perform(node, [target, number(a, dtype), x, y, number(b, dtype)], [cell], op.params_type.get_params(op))
            assert cell[0] is target
            results[name] = target
        same(results["ours"], results["stock"])


@pytest.mark.parametrize("dtype", BY_BLAS)
@pytest.mark.parametrize("beta", (0.0, 1.0, -0.7))
def test_gemv(dtype: str, beta: float) -> None:
    count = 0
    for i, (matrix, other) in enumerate(matrices(dtype)):
        if not other.shape[1]:
            continue
        y = array((matrix.shape[0],), dtype, LAYOUTS[i % 3], i)
        arrays = [y, number(1.3, dtype), matrix, other[:, 0], number(beta, dtype)]
        count += check(blas.Gemv(inplace=False), arrays, lambda stock, k=matrix.shape[1]: k > 0)
    assert count > 30


@pytest.mark.parametrize("dtype", BY_BLAS)
@pytest.mark.parametrize("op", (blas.Ger(destructive=False), ScipyGer(False)), ids=("numpy", "scipy"))
def test_ger(dtype: str, op: Any) -> None:
    count = 0
    for i, (x, y) in enumerate(matrices(dtype)):
        if not x.shape[1] or not y.shape[0]:
            continue
        matrix = array((x.shape[0], y.shape[1]), dtype, LAYOUTS[i % 5], i)
        c_order = bool(matrix.flags.c_contiguous)
        arrays = [matrix, number(1.3, dtype), x[:, 0], y[0]]
        count += check(op, arrays, lambda stock, c_order=c_order: c_order or type(op) is blas.Ger)
    assert count > 10


def test_shapes_that_do_not_fit_are_reported_as_by_theano() -> None:
    x, y = np.ones((2, 3)), np.ones((4, 5))
    node = in_place(blas.Dot22().make_node(tensor.dmatrix(), tensor.dmatrix()))[0].owner
    with pytest.raises(ValueError) as trouble:
        node.op.perform(node, [x, y], [[np.ones((2, 5))]])
    assert trouble.value.args[-2:] == ((2, 3), (4, 5))

"""A result keeps the layout that stock Theano would give it, whatever layout a caller's arrays have: its last bits hang on it."""

from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile.ops import deep_copy_op
from theano.tensor.signal.pool import pool_2d

import theano_memopt
from tests.theano.both import LINKERS, annotation, floats, same, with_pass, without_pass
from tests.theano.programs import compiler
from theano_memopt.hosts.theano.read import memory_layout as layout
from theano_memopt.hosts.theano.read import op_facts
from theano_memopt.hosts.theano.read.op_facts import is_trusted
from theano_memopt.hosts.theano.run.arena import call, variables

ROWS, COLUMNS = 37, 53


def _products(mode: Any) -> Any:
    """Matrices of one shape, some of them in Fortran order if the arguments are, each multiplied with a vector."""
    a = theano_memopt.hint(tt.matrix("a"), (ROWS, COLUMNS))
    b = theano_memopt.hint(tt.matrix("b"), (COLUMNS, ROWS)).T
    v = tt.vector("v")
    one = tt.dot(tt.exp(a), v)
    two = tt.dot(tt.tanh(b + 1e-9 * one.sum()), v)
    three = tt.dot((tt.sqr(b) + two.sum()).T, two)
    four = tt.dot(tt.set_subtensor(a[:2], 0.5), v)
    return theano.function([a, b.owner.inputs[0], v], [one, two, three, four], mode=mode)


def _arguments() -> List[Any]:
    found = []
    for k in range(12):
        a, b, v = floats(ROWS, COLUMNS, seed=k), floats(COLUMNS, ROWS, seed=k + 50), floats(COLUMNS, seed=k + 99)
        if k % 3 == 1 or k > 8:
            b = np.asfortranarray(b)
        if k % 4 == 3 or k > 8:
            a = np.asfortranarray(a)
        found.append((a, b, v))
    return found


def _differ(linker: str, storage: str) -> int:
    ours, stock = _products(with_pass(linker, storage=storage)), _products(without_pass(linker))
    count = 0
    for arguments in _arguments():
        try:
            same(ours(*arguments), stock(*arguments))
        except AssertionError:
            count += 1
    return count


@pytest.mark.parametrize("storage", ["off", "share", "arena"])
@pytest.mark.parametrize("linker", [*LINKERS, "c|py"])
@pytest.mark.blas
def test_the_last_bit_is_stocks_whatever_the_layout_of_the_arguments(linker: str, storage: str) -> None:
    assert _differ(linker, storage) == 0


@pytest.mark.parametrize(("linker", "storage"), [("cvm", "share"), ("vm_nogc", "share"), ("cvm", "arena")])
@pytest.mark.blas
def test_it_would_differ_if_every_layout_were_taken_for_steady(linker: str, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not theano.config.blas.ldflags:  # test_both_machines.py runs it with SciPy's
        pytest.skip("NumPy's products have the same bits for both layouts")
    monkeypatch.setattr("theano_memopt.hosts.theano.read.graph.steady", lambda nodes, compiled: {v for node in nodes for v in node.outputs})
    assert _differ(linker, storage) > 0


def _over_changing_shapes(mode: Any) -> List[Any]:
    """Twelve calls, with arrays in one order and the other and of two shapes; each result a product of what takes after them."""
    x = tt.matrix("x")
    h = tt.tanh(x) * 2 + tt.exp(x)
    rolled = tt.roll(deep_copy_op(x), 1, axis=0)
    function = theano.function([x], [tt.dot(h, h.T), tt.dot(h.T, h), theano.Out(rolled * 1, borrow=True)], mode=mode)
    found = []
    for k, (how, rows) in enumerate(zip("FCCFFCCFCCFF", [37, 37, 41, 41, 37, 41, 41, 37, 41, 37, 37, 37])):
        results = function(np.array(floats(rows, COLUMNS, seed=k), order=how))
        found += [r.copy() for r in results] + [np.array([r.strides for r in results])]
    return found


@pytest.mark.parametrize("linker", ["cvm_nogc", "vm_nogc"])
def test_places_take_after_what_the_caller_gives_as_theanos_arrays_do(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = _over_changing_shapes(without_pass(linker))
    same(_over_changing_shapes(with_pass(linker, storage="arena")), stock)

    monkeypatch.setattr(variables.Variables, "layout", lambda known: ())
    with pytest.raises(AssertionError):
        same(_over_changing_shapes(with_pass(linker, storage="arena")), stock)


def _in_the_callers_layout(mode: Any) -> Any:
    """The second result lies as `h` does, which nobody else holds."""
    x = tt.matrix("x")
    h = tt.tanh(x) * 2 + tt.exp(x)
    scaled = tt.exp(h) * tt.dot(h, h.T)[0, 0]
    return theano.function([x], [tt.dot(h, scaled.T).sum(), scaled], mode=mode)


def _strides_after_free(orders: str) -> List[Any]:
    """Of a function that was freed, and of one that has just been made."""
    x = floats(ROWS, COLUMNS)
    freed, new = _in_the_callers_layout(with_pass("cvm_nogc", storage="arena")), _in_the_callers_layout(without_pass("cvm_nogc"))
    for _ in range(4):
        freed(np.array(x, order=orders[0]))
    freed.free()
    return [[function(np.array(x, order=orders[1]))[1].strides for _ in range(4)] for function in (freed, new)]


@pytest.mark.parametrize("orders", ["FC", "CF"])
def test_free_lets_go_of_layouts_too(orders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, stock = _strides_after_free(orders)
    assert ours == stock

    monkeypatch.setattr(call.ArenaVM, "_forget_arrays", lambda vm, planner: None)
    ours, stock = _strides_after_free(orders)
    assert ours != stock


def _after_a_first_call_that_failed(mode: Any, orders: str) -> List[Any]:
    x, i = tt.matrix("x"), tt.lscalar("i")
    h = tt.tanh(x) * 2 + tt.exp(x)
    product = tt.dot(h, h.T)
    scaled = tt.exp(h) * product[0, 0]
    function = theano.function([x, i], [tt.dot(h, scaled.T).sum(), scaled, tt.exp(product)[i]], mode=mode)
    value = floats(ROWS, COLUMNS)
    with pytest.raises(IndexError):
        function(np.array(value, order=orders[0]), ROWS)
    return [(result[0].tobytes(), result[1].strides) for result in (function(np.array(value, order=orders[1]), 0) for _ in range(4))]


@pytest.mark.parametrize("orders", ["FC", "CF"])
@pytest.mark.parametrize("linker", ["cvm_nogc", "vm_nogc", "cvm"])
def test_a_first_call_that_fails_decides_of_layouts_as_theanos_does(linker: str, orders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = _after_a_first_call_that_failed(without_pass(linker), orders)
    assert _after_a_first_call_that_failed(with_pass(linker, storage="arena"), orders) == stock
    if linker == "cvm_nogc":
        monkeypatch.setattr(variables.Variables, "take_up_again", lambda known: None)
        assert _after_a_first_call_that_failed(with_pass(linker, storage="arena"), orders) != stock


def _reshaped_row(mode: Any) -> Any:
    x, w = tt.matrix("x"), tt.matrix("w")
    y = x[:, ::2].reshape((x.shape[0], w.shape[0]))
    return theano.function([x, w], [tt.dot(y, w)], mode=mode), lambda k: (floats(1 + k % 2, 106, seed=k), floats(53, 41, seed=k + 50))


def _reversed_rows(mode: Any) -> Any:
    x, v = tt.matrix("x"), tt.vector("v")
    y = x[:1:-1].reshape((x.shape[0] - 2, x.shape[1]))
    return theano.function([x, v], [tt.dot(tt.exp(y), v), tt.dot(y, v)], mode=mode), lambda k: (np.asfortranarray(floats(39, 37, seed=k)), floats(37))


def _through_one_row(mode: Any) -> Any:
    x, v = tt.matrix("x"), tt.vector("v")
    rows = [37, 37, 37, 1, 37, 0, 37, 37]
    return theano.function([x, v], tt.dot(tt.tanh(x) * 2, v), mode=mode), lambda k: (np.asfortranarray(floats(rows[k], 53, seed=k)), floats(53))


def _beside_another_length(mode: Any) -> Any:
    """The array whose layout changes is not the one whose shape does."""
    x, y, v = tt.matrix("x"), tt.vector("y"), tt.vector("v")
    function = theano.function([x, y, v], [tt.dot(deep_copy_op(x), v), tt.exp(y * 2).sum()], mode=mode)
    order = "FFFCCCCF"
    return function, lambda k: (np.array(floats(37, 53, seed=k), order=order[k]), floats(5 + k // 5), floats(53))


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("made", [_reshaped_row, _reversed_rows, _through_one_row, _beside_another_length])
@pytest.mark.quick
@pytest.mark.blas
def test_strides_that_blas_tells_apart(made: Any, linker: str) -> None:
    (ours, arguments), (stock, _) = made(with_pass(linker, storage="arena")), made(without_pass(linker))
    for k in range(8):
        one, other = ours(*arguments(k)), stock(*arguments(k))
        same(one if isinstance(one, list) else [one], other if isinstance(other, list) else [other])


class Turned(theano.gof.Op):
    """A view that turns its matrix, and says only that it is a view."""

    __props__ = ()
    view_map = {0: [0]}

    def make_node(self, x: Any) -> Any:
        return theano.gof.Apply(self, [x], [x.type()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        outputs[0][0] = inputs[0].T


def test_views_that_are_turned_or_cut_by_other_ops_are_not_steady() -> None:
    x, y, t = tt.matrix("x"), tt.matrix("y"), tt.tensor3("t")
    product = tt.dot(x, y)
    assert _steady([tt.exp(Turned()(product))], [x, y]) == [False]
    cut = tt.ExtractDiag(axis1=0, axis2=1, view=True)(tt.tanh(t) + tt.batched_dot(t, t))
    assert _steady([cut, tt.exp(cut)], [t]) == [False, False]


class Hypot(theano.scalar.BinaryScalarOp):
    """An elementwise op without C code: NumPy makes its arrays."""

    nfunc_spec = ("hypot", 2, 1)

    def impl(self, x: Any, y: Any) -> Any:
        return np.hypot(x, y)


hypot = tt.Elemwise(Hypot(theano.scalar.upgrade_to_float, name="hypot"))


def test_without_c_code_a_row_does_not_make_the_result_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, r = tt.matrix("x"), tt.matrix("y"), tt.vector("r")
    product = tt.dot(x, y)
    assert _steady([x + r, hypot(x, r), hypot(x, product), hypot(product, r)], [x, y, r]) == [True, False, False, True]
    function = theano.function([x, r], hypot(x, r), mode=without_pass())
    assert function(np.asfortranarray(floats(5, 4)), floats(4)).flags.fnc

    monkeypatch.setattr(op_facts, "_has_c_code", lambda scalar_op, dtypes: True)
    assert _steady([hypot(x, r)], [x, r]) == [True]


def _steady(outputs: Any, inputs: List[Any]) -> Any:
    function = theano.function(inputs, outputs, mode=without_pass().excluding("fusion", "inplace"))
    fgraph = function.maker.fgraph
    found = layout.steady([node for node in fgraph.toposort() if is_trusted(node.op)], compiled=True)
    return [v in found for v in fgraph.outputs]


@pytest.mark.quick
def test_what_is_steady() -> None:
    x, y, r, im = tt.matrix("x"), tt.matrix("y"), tt.vector("r"), tt.tensor4("im")
    product = tt.dot(x, y)
    assert _steady([product, tt.exp(product), tt.exp(x) + r, tt.exp(x) + product, tt.exp(product[:, 1:3])], [x, y, r]) == [True] * 5
    assert _steady([tt.exp(x), tt.exp(y.T), tt.exp(x) * y.T, tt.exp(x) * 2], [x, y]) == [False] * 4
    assert _steady([tt.join(0, product, tt.exp(product)), tt.join(0, x, product)], [x, y]) == [True, False]
    assert _steady([tt.tanh(pool_2d(im, (2, 2), ignore_border=True)), tt.tanh(im)], [im]) == [True, False]


@pytest.mark.quick
def test_what_is_said_to_be_steady_is() -> None:
    """On a real call, with everything that the caller gives in Fortran order."""
    x, y, r = tt.matrix("x"), tt.matrix("y"), tt.vector("r")
    product = tt.dot(x, y)
    outputs = [tt.exp(x) + r, tt.exp(x) * product, tt.exp(product[:, 1:3]), tt.exp(product.T), tt.exp(x), tt.join(1, product, tt.exp(product))]
    outputs += [tt.set_subtensor(product[:1], r), tt.exp(product.reshape((25, 1))), tt.sqr(product).dimshuffle(1, 0), tt.exp(x.T) - product]
    function = theano.function([x, y, r], [output.sum() for output in outputs], mode=with_pass("vm_nogc", storage="off").excluding("fusion"))
    function(np.asfortranarray(floats(5, 5)), np.asfortranarray(floats(5, 5, seed=1)), floats(5))
    reading = annotation(function).reading
    in_fortran_order = 0
    for b, root in enumerate(reading.roots):
        value = function.fn.storage_map[root][0]
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous or b not in reading.steady
            in_fortran_order += value.flags.fnc
    assert in_fortran_order and len(reading.steady) > 5


# --- ops that run in Python --------------------------------------------------------------------------------------------

WRITES = {
    "inc": lambda x, by: tt.inc_subtensor(x[1:3], by),
    "set": lambda x, by: tt.set_subtensor(x[1:3], by),
    "inc rows": lambda x, by: tt.inc_subtensor(x[[2, 1, 1]], by),
    "set rows": lambda x, by: tt.set_subtensor(x[[2, 1]], by),
}
IN_PYTHON = {"no compiler": ("python", "float64", "float64"), "float16": ("c", "float16", "float16"), "by float16": ("c", "float64", "float16")}


@pytest.mark.parametrize("linker", ["vm_nogc", "cvm_nogc", "vm"])
@pytest.mark.parametrize("case", IN_PYTHON)
@pytest.mark.parametrize("write", WRITES)
def test_what_python_would_copy_in_c_order_is_copied_in_c_order(write: str, case: str, linker: str) -> None:
    world, dtype, by = IN_PYTHON[case]
    x = tt.TensorType(dtype, (False, False))("x")
    y = WRITES[write](x, np.asarray(1, by))
    arguments = [lay(np.random.RandomState(k).randn(203, 301).astype(dtype)) for k, lay in enumerate([np.asfortranarray, np.array] * 3)]
    with compiler(world):
        ours, stock = (theano.function([x], [y.sum(axis=0), y], mode=mode) for mode in (with_pass(linker, storage="arena"), without_pass(linker)))
        for argument in arguments:
            had, wanted = ours(argument), stock(argument)
            same(had, wanted)
            assert [a.strides for a in had] == [a.strides for a in wanted]
            assert had[1].flags.c_contiguous


def test_the_copy_that_c_code_makes_keeps_the_order_still() -> None:
    x = tt.matrix("x")
    ours = theano.function([x], WRITES["inc"](x, 1.0), mode=with_pass("cvm_nogc", storage="arena"))
    assert any(type(node.op).__name__ == "Copy" for node in ours.maker.fgraph.apply_nodes)
    assert ours(np.asfortranarray(floats(5, 7))).flags.f_contiguous


def _turned_by_python(x: Any) -> List[Any]:
    """Results of ops that always make C arrays in C. (So does pooling, but with the newer NumPys it does not run in Python.)"""
    x = tt.exp(x)
    softmax = tt.nnet.softmax(x[:, :, 0])
    return [x.sum(axis=0), x.max(axis=2), softmax, theano.grad(softmax[0].sum(), x), x + x[0]]


@pytest.mark.parametrize("case", ["no compiler", "float16"])
def test_nothing_that_runs_in_python_is_said_to_be_steady_and_is_not(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world, dtype, _ = IN_PYTHON[case]
    x = tt.TensorType(dtype, (False,) * 3)("x")
    with compiler(world):
        function = theano.function([x], _turned_by_python(x), mode=without_pass("vm").excluding("fusion", "inplace"))
        results = function(np.asfortranarray(np.random.RandomState(0).randn(6, 4, 8).astype(dtype)))
    nodes = [node for node in function.maker.fgraph.toposort() if is_trusted(node.op)]

    def wrong(found: Any) -> List[Any]:
        return [v for v, result in zip(function.maker.fgraph.outputs, results) if v in found and not result.flags.c_contiguous]

    assert not wrong(layout.steady(nodes, compiled=world != "python"))
    monkeypatch.setattr(layout, "has_c_code", lambda node: True)
    assert len(wrong(layout.steady(nodes, compiled=True))) >= 3

"""What a node is held to cost: each kind of op counts what it does, and no guessed size makes it free or less."""

from __future__ import annotations

from typing import Any, Tuple

import pytest
import theano
import theano.tensor as tt
from theano import gof, scalar
from theano.tensor.nnet.corr import CorrMM, CorrMM_gradInputs, CorrMM_gradWeights

from benchmarks.repeats import kind_of
from theano_memopt.hosts.theano.read import costs


def of(node: Any, *shapes: Tuple[int, ...]) -> float:
    """At these shapes of its inputs and outputs."""
    known = dict(zip([*node.inputs, *node.outputs], shapes))
    return costs.seconds_of(node, lambda v: known.get(v, ()), False)


def convolution(filters: int, length: int = 32) -> float:
    return of(CorrMM("half")(tt.ftensor4(), tt.ftensor4()).owner, (16, 16, length, length), (filters, 16, 3, 3), (16, filters, length, length))


def test_a_convolution_lays_out_its_columns_once_for_all_filters() -> None:
    assert 1.3 * convolution(1) < convolution(16) < 4 * convolution(1)
    assert 2 < convolution(512) / convolution(128) < 4
    assert convolution(16) == pytest.approx(4 * convolution(16, 16), rel=0.05)


def test_what_is_added_back_into_an_image_is_dearer_than_laying_it_out() -> None:
    image, kernel = (16, 16, 32, 32), (16, 16, 3, 3)
    back = CorrMM_gradInputs("half")(tt.ftensor4(), tt.ftensor4(), shape=[32, 32]).owner
    weights = CorrMM_gradWeights("half")(tt.ftensor4(), tt.ftensor4(), shape=[3, 3]).owner
    assert of(back, kernel, image, (), (), image) > 1.1 * of(weights, image, image, (), (), kernel)
    assert of(weights, image, image, (), (), kernel) == pytest.approx(convolution(16), rel=0.05)


def test_a_convolution_is_dearer_than_what_goes_over_its_result() -> None:
    """By far: that is what decides what runs again in a residual net."""
    result = (16, 16, 32, 32)
    relu = (tt.ftensor4() * 0.5).owner
    assert convolution(16) > 15 * of(relu, result, (1, 1, 1, 1), result)


def test_many_small_products_take_a_call_each() -> None:
    node = tt.batched_dot(tt.ftensor3(), tt.ftensor3()).owner
    while not isinstance(node.op, tt.blas.BatchedDot):
        node = next(v.owner for v in node.inputs if v.owner)
    many = of(node, (32, 64, 16), (32, 16, 64), (32, 64, 64))
    assert many > of(node, (1, 64, 512), (1, 512, 64), (1, 64, 64)) + 31 * costs.CALL  # as many multiply-adds


def test_a_loop_multiplies_all_rows_in_every_step() -> None:
    x, w = tt.ftensor3(), theano.shared(theano._asarray([[1.0]], "float32"))
    states, _ = theano.scan(lambda now, h, w: tt.tanh(now + tt.dot(h, w)), sequences=[x], outputs_info=[x[0]], non_sequences=[w])
    node = next(node for node in theano.gof.graph.io_toposort([x, w], [states]) if isinstance(node.op, theano.scan_module.scan_op.Scan))

    def loop(steps: int, rows: int, width: int) -> float:
        shapes = [(width, width) if v.type.ndim == 2 else (steps, rows, width) if v.type.ndim == 3 else () for v in [*node.inputs, *node.outputs]]
        return of(node, *shapes)

    assert loop(20, 64, 128) == pytest.approx(2 * loop(10, 64, 128), rel=0.01)
    product = 64 * 512 * 512 * costs.MULTIPLY_ADD
    assert 20 * product < loop(20, 64, 512) < 60 * product
    assert loop(-1, -1, -1) >= costs.CALL  # a guess


def test_no_guess_makes_a_node_cost_less_than_its_call() -> None:
    assert of(CorrMM()(tt.ftensor4(), tt.ftensor4()).owner, (16, 3, -1, -1), (16, 3, 5, 5), (16, 16, -5, -5)) >= costs.CALL
    assert of(tt.tanh(tt.fmatrix()).owner, (-3, 5), (-3, 5)) == costs.CALL


def composite_within_another() -> Any:
    """Theano leaves such in the graph of a Scan's step; the inner one costs as much as all that is in it."""
    x, y = scalar.floats("xy")
    inner = scalar.Composite([x, y], [x + y * x])
    outer = scalar.Composite([x, y], [scalar.neg(x) * y])
    outer.fgraph = gof.FunctionGraph([x, y], [scalar.neg(inner(x, y))], clone=False)
    return outer


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        (tt.tanh, "Elemwise, like tanh"),
        (tt.exp, "Elemwise, like exp"),
        (tt.sqrt, "Elemwise, quotients and roots"),
        (lambda x: tt.add(x, x, x), "Elemwise, plain"),
        (lambda x: tt.Elemwise(composite_within_another())(x, x), "Elemwise, plain"),
        (lambda x: x.sum(axis=0), "Sum"),
    ],
)
def test_every_op_has_a_kind_in_the_table_of_costs(op: Any, kind: str) -> None:
    assert kind_of(op(tt.matrix()).owner.op) == kind

"""FunctionGraph -> Graph: names folded into buffers, edges, and the order that the C machine would run."""

from __future__ import annotations

from typing import Any

import pytest
import theano
import theano.tensor as tt
from theano.compile.mode import Mode

import theano_memopt
import theano_memopt_ops as ops
from tests.theano.both import annotation, floats, same, with_pass, without_pass
from theano_memopt.demo import models as demo_models
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.read.host_orders import cvm_order
from theano_memopt.hosts.theano.read.memory_layout import likely_scattered


@pytest.mark.parametrize("name", ["logreg", "mlp", "mlp_adam", "lenet", "branches", "scan_rnn"])
def test_the_simulated_order_is_the_one_that_the_c_machine_runs(name: str) -> None:
    model = demo_models.build(name, 8)
    stock = model.compile(without_pass("cvm"))
    fgraph = stock.maker.fgraph
    simulated = cvm_order(fgraph.toposort(), fgraph.outputs, fgraph.orderings())
    assert probe.recorded_order(stock, *model.batch) == simulated
    if name == "mlp":
        assert simulated != fgraph.toposort()  # otherwise this test shows nothing


@pytest.mark.quick
def test_views_and_in_place_results_are_names_of_one_buffer() -> None:
    x = tt.matrix("x")
    a = tt.dot(x, x)
    function = theano.function([x], tt.exp(a.T + 1).sum(), mode=with_pass())
    found = annotation(function).reading
    root = next(v for node in found.nodes if "Dot" in str(node.op) for v in node.outputs)
    b = found.roots.index(root)
    assert len(found.names[b]) >= 2
    assert sum(1 for r in found.roots if r.ndim == 2) == 1


@pytest.mark.quick
def test_a_destroyer_waits_for_the_other_readers() -> None:
    x, w = tt.vector("x"), theano.shared(floats(5), name="w")
    function = theano.function([x], [(w * x).sum(), tt.exp(w)], updates=[(w, w + x)], mode=with_pass())
    found = annotation(function)
    position = {node: i for i, node in enumerate(found.nodes)}
    (shared,) = (v for v in function.maker.fgraph.inputs if v.name == "w")
    destroyers = [n for n, i in shared.clients if n != "output" and getattr(n.op, "destroy_map", None) and i in n.op.destroy_map.get(0, [])]
    assert destroyers
    for destroyer in destroyers:
        assert all(position[n] < position[destroyer] for n, _ in shared.clients if n != "output" and n is not destroyer)


@pytest.mark.quick
def test_inputs_constants_and_shared_variables_are_no_buffers() -> None:
    x, w = tt.matrix("x"), theano.shared(floats(3, 3))
    found = annotation(theano.function([x], tt.dot(x, w) + 2, mode=with_pass())).reading
    assert all(root.owner is not None for root in found.roots)
    assert all(b.producer is not None for b in found.graph.buffers)


@pytest.mark.quick
def test_outputs_and_updates_are_pinned() -> None:
    x, w = tt.matrix("x"), theano.shared(floats(3, 3), name="w")
    function = theano.function([x], tt.dot(x, x), updates=[(w, tt.dot(w, x))], mode=with_pass())
    found = annotation(function).reading
    for v in function.maker.fgraph.outputs:
        assert any(found.graph.buffers[b].pinned for b, names in enumerate(found.names) if v in names)


def test_what_is_no_dense_array_counts_nothing_and_shares_nothing() -> None:
    import theano.sparse

    x = tt.matrix("x")
    s = theano.sparse.csr_from_dense(tt.exp(x))
    found = annotation(theano.function([x], theano.sparse.dense_from_sparse(theano.sparse.mul(s, s)), mode=with_pass())).reading
    sparse = [b for b, root in enumerate(found.roots) if isinstance(root.type, theano.sparse.SparseType)]
    assert sparse
    assert all(found.graph.buffers[b].size == 0 and b in found.loose for b in sparse)


def _links(function: Any) -> int:
    return len(annotation(function).links)


@pytest.mark.quick
def test_links_that_data_implies_are_left_out() -> None:
    x = tt.matrix("x")
    y = x
    for _ in range(10):
        y = tt.dot(y, x)
    function = theano.function([x], y, mode=with_pass())
    assert len(function.maker.fgraph.apply_nodes) == 10
    assert _links(function) == 0


# --- scattered results -----------------------------------------------------------------------------------------------

INDEXED = (
    lambda v: v[1:3],
    lambda v: v[1:3, :],
    lambda v: v[0],
    lambda v: v[0, 1:3],
    lambda v: v[0, 1:3, :],
    lambda v: v[0, :, 1],
    lambda v: v[0, 1, 2:],
    lambda v: v[:, 1],
    lambda v: v[:, 1:3],
    lambda v: v[1:3, :, 2],
    lambda v: v[::2],
    lambda v: v[::-1],
    lambda v: v[0, ::2],
)
OTHERS = (
    lambda v: v.dimshuffle(1, 0, 2),
    lambda v: v.dimshuffle(0, "x", 1, 2),
    lambda v: tt.exp(v.dimshuffle(1, 0, 2)),
    lambda v: tt.exp(v.dimshuffle(1, 0, 2)) + v.dimshuffle(1, 0, 2),
    lambda v: tt.exp(v.dimshuffle(2, 1, 0)) + v,
    lambda v: v.dimshuffle(1, 0, 2).reshape((-1, 4)),
)


@pytest.mark.parametrize("of", [*INDEXED, *OTHERS])
@pytest.mark.quick
def test_what_is_said_to_be_scattered_is(of: Any) -> None:
    x = tt.tensor3("x")
    result = of(tt.sqr(x))
    function = theano.function([x], theano.Out(result, borrow=True), mode=Mode("vm", None))
    nodes = function.maker.fgraph.toposort()
    scattered = function.maker.fgraph.outputs[0] in likely_scattered(nodes)
    value = function(floats(4, 4, 4))
    assert scattered == (not value.flags.c_contiguous)


@pytest.mark.quick
def test_an_axis_of_one_leaves_no_gaps() -> None:
    x = tt.TensorType(theano.config.floatX, (True, False))("x")
    assert likely_scattered([x[:, 1:3].owner, x[0:1, 2].owner]) == set()
    assert likely_scattered([tt.matrix()[:, 1:3].owner])  # the control


@pytest.mark.quick
def test_a_step_that_is_the_constant_1_leaves_no_gaps() -> None:
    assert likely_scattered([tt.matrix()[1::1].owner]) == set()
    assert likely_scattered([tt.matrix()[1::2].owner]) and likely_scattered([tt.matrix()[1 :: tt.lscalar()].owner])  # the controls


@pytest.mark.quick
def test_an_elementwise_result_in_another_layout_is_copied_by_an_op_with_a_cell_before_a_reshape() -> None:
    """The one rule for the plan and for the rewrite: the plan has counted that copy all along."""
    x = theano_memopt.hint(tt.matrix("x"), (30, 30))
    y = (tt.exp(x.T) * x.T).reshape((x.shape[0] * 3, -1))
    ours, stock = (theano.function([x], tt.dot(y, y.T).sum(), mode=mode) for mode in (with_pass("cvm_nogc", storage="arena"), without_pass()))
    (copy,) = [node for node in ours.maker.fgraph.toposort() if isinstance(node.op, ops.CopyToReshape)]
    assert isinstance(copy.inputs[0].owner.op, tt.elemwise.Elemwise)
    reading = annotation(ours).reading
    assert reading.graph == reading.cautious  # and nothing is left in doubt
    for seed in range(4):
        same([ours(floats(30, 30, seed=seed))], [stock(floats(30, 30, seed=seed))])

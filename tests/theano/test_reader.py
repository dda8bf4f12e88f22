"""FunctionGraph -> Graph: names folded into buffers, edges, and the order that the C machine would run."""

from __future__ import annotations

from typing import Any

import pytest
import theano
import theano.tensor as tt

from tests.theano.both import annotation, floats, with_pass, without_pass
from theano_memopt import demo_models
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.read.host_orders import cvm_order


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

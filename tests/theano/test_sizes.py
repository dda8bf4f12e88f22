"""Sizes before anything ran: against the true ones, and the same shape recognised behind different formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import theano
import theano.tensor as tt

import theano_memopt
from tests.theano.both import annotation, floats, models, with_pass
from theano_memopt import demo_models
from theano_memopt.hosts.theano.rewrite import cvm_order
from theano_memopt.hosts.theano.sizes import SCENARIOS, Sizes
from theano_memopt.planner.liveness import timeline


def _true_bytes(function: Any, *arguments: Any) -> dict:
    """What lies in every buffer's root after its task ran."""
    from theano_memopt.hosts.theano import probe

    seen: dict = {}

    def after(node: Any, thunk: Any) -> None:
        for v, cell in zip(node.outputs, thunk.outputs):
            if isinstance(cell[0], np.ndarray):
                seen[v] = cell[0].nbytes

    with probe.noting_thunks([], after=after):
        twin = probe._twin(function)
    twin(*arguments)
    return seen


@pytest.mark.parametrize("name", models())
def test_every_size_is_the_true_one_once_the_inputs_are_known(name: str) -> None:
    model = demo_models.build(name, 8)
    for variable, array in zip(model.inputs, model.batch):
        theano_memopt.hint(variable, array.shape)
    function = model.compile(with_pass())
    reading = annotation(function).reading
    true = _true_bytes(function, *model.batch)
    wrong = [
        (buffer.label, buffer.size, true[root])
        for buffer, root in zip(reading.graph.buffers, reading.roots)
        if root in true and buffer.size != true[root]
    ]
    assert wrong == []
    assert reading.scenarios == ()


def test_where_each_number_came_from() -> None:
    x, w, t = tt.matrix("x"), theano.shared(floats(7, 5), name="w"), tt.matrix("t")
    theano_memopt.hint(x, (3, None))
    t.tag.test_value = floats(3, 9)
    n = tt.iscalar("n")
    function = theano.function([x, t, n], [tt.dot(tt.exp(x), w) + 1, tt.exp(t), tt.zeros((n,)) + 2], mode=with_pass(default_dim=11))
    said = theano_memopt.plan_of(function).graph.sizes_from
    assert "x.shape[0] = 3 (hint)" in said
    assert "= 7 (present value)" in said and "= 5 (present value)" in said
    assert "t.shape[1] = 9 (test value)" in said
    assert "n = 11 (mem_reuse.default_dim)" in said


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda x, y: tt.exp(x).flatten(), lambda x, y: tt.alloc(1.0, x.shape[0] * x.shape[1])),
        (lambda x, y: tt.dot(x, y), lambda x, y: tt.alloc(1.0, x.shape[0], y.shape[1])),
        (lambda x, y: tt.join(0, x, x), lambda x, y: tt.alloc(1.0, 2 * x.shape[0], x.shape[1])),
        (lambda x, y: tt.exp(y.T), lambda x, y: tt.alloc(1.0, y.shape[1], x.shape[1])),
        (lambda x, y: tt.extra_ops.cumsum(x), lambda x, y: tt.alloc(1.0, x.size)),
        (lambda x, y: tt.exp(x[1:]), lambda x, y: tt.exp(x[:-1])),
    ],
)
def test_the_same_shape_is_recognised(first: Any, second: Any) -> None:
    x, y = tt.matrices("xy")
    one, two = first(x, y), second(x, y)
    function = theano.function([x, y], [one, two, tt.dot(x, y)], mode=with_pass())
    fgraph = function.maker.fgraph
    sizes = Sizes(fgraph, fgraph.toposort(), 100)
    assert sizes.dims(fgraph.outputs[0]) == sizes.dims(fgraph.outputs[1])


def test_different_shapes_are_told_apart_though_they_get_the_same_number() -> None:
    x, y = tt.matrices("xy")
    fgraph = theano.function([x, y], [tt.exp(x), tt.exp(y)], mode=with_pass()).maker.fgraph
    sizes = Sizes(fgraph, fgraph.toposort(), 100)
    one, two = fgraph.outputs
    assert sizes.bytes(one)[0] == sizes.bytes(two)[0]
    assert sizes.kind(one) != sizes.kind(two)
    assert len(sizes.bytes(one)) == len(SCENARIOS)


def test_without_a_shape_feature() -> None:
    x = tt.matrix("x")
    function = theano.function([x], tt.dot(x, x.T) + 1, mode=theano_memopt.mode(theano.compile.mode.Mode("vm", None), default_dim=5))
    assert not hasattr(function.maker.fgraph, "shape_feature")
    graph = theano_memopt.plan_of(function).graph
    assert {b.size for b in graph.buffers} >= {25 * np.dtype(theano.config.floatX).itemsize}


@pytest.mark.parametrize("linker", ["cvm", "vm"])
@pytest.mark.parametrize("name", [*models("mlp_adam", "lstm", "scan_rnn"), None])
def test_at_no_plausible_sizes_is_the_order_worse_than_what_the_linker_would_run(name: Any, linker: str) -> None:
    if name is None:
        x, y = tt.matrices("xy")
        parts = [tt.dot(v.T, v).sum(axis=0) for v in (tt.exp(x), tt.exp(y), tt.exp(-x), tt.exp(-y))]
        function = theano.function([x, y], sum(p.sum() for p in parts), mode=with_pass(linker))
    else:
        function = demo_models.build(name, 8).compile(with_pass(linker))
    found = annotation(function)
    fgraph = function.maker.fgraph
    index = {node: t for t, node in enumerate(found.reading.nodes)}
    demands = next(f for f in fgraph._features if isinstance(f, theano.gof.DestroyHandler)).orderings(fgraph)
    c_order = tuple(index[n] for n in cvm_order(found.reading.nodes, fgraph.outputs, demands))
    host = c_order if linker == "cvm" else found.reading.graph.natural_order
    assert len(found.reading.scenarios) == len(SCENARIOS) - 1
    for _, graph in found.reading.scenarios:
        assert timeline(graph, found.schedule.order).peak <= timeline(graph, host).peak


@pytest.mark.parametrize("shape", [(3,), (3, -1), (1, 2, 3)])
def test_hints_that_cannot_be(shape: Any) -> None:
    with pytest.raises(ValueError):
        theano_memopt.hint(tt.matrix("x"), shape)

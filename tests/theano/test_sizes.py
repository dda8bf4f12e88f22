"""Sizes before anything ran: against the true ones, and the same shape recognised behind different formulas."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.ifelse import ifelse
from theano.sandbox.rng_mrg import MRG_RandomStreams

import theano_memopt
from tests.marks import nightly_if
from tests.theano.both import LARGE, annotation, floats, models, with_pass
from theano_memopt.demo import models as demo_models
from theano_memopt.hosts.theano.measure.twins import twin
from theano_memopt.hosts.theano.optimize import annotate
from theano_memopt.hosts.theano.read.assumed_sizes import SCENARIOS, Sizes
from theano_memopt.hosts.theano.read.host_orders import cvm_order
from theano_memopt.hosts.theano.read.true_sizes import TrueShapes
from theano_memopt.planner.liveness import timeline


def _true_bytes(function: Any, *arguments: Any) -> dict:
    """What lies in every buffer's root after its task ran."""
    seen: dict = {}

    def around(node: Any, thunk: Any) -> Any:
        asked_for = thunk()
        for v, cell in zip(node.outputs, thunk.outputs):
            if isinstance(cell[0], np.ndarray):
                seen[v] = cell[0].nbytes
        return asked_for

    twin(function, around)(*arguments)
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


def _drawn(x: Any, c: Any) -> Any:
    return [tt.exp(MRG_RandomStreams(1).uniform((2 * x.shape[0], x.shape[1]), dtype=x.dtype)), tt.exp(c)]


def _chosen(x: Any, c: Any) -> Any:
    return [tt.exp(tt.exp(ifelse(c > 0, tt.exp(x), tt.tanh(x[::-1]))).sum(axis=0))]


def _copied(x: Any, c: Any) -> Any:
    return [theano.shared(floats(6, 9), name="w"), tt.exp(x), tt.exp(c)]


WITHOUT_A_FORMULA = pytest.mark.parametrize("outputs", [_drawn, _chosen, _copied])


def _of_no_formula(outputs: Any) -> Any:
    x, c = tt.matrix("x"), tt.scalar("c")
    theano_memopt.hint(x, (4, 5))
    return theano.function([x, c], outputs(x, c), mode=with_pass(default_dim=11), on_unused_input="ignore")


@WITHOUT_A_FORMULA
def test_sizes_go_through_ops_that_say_nothing_of_shapes(outputs: Any) -> None:
    function = _of_no_formula(outputs)
    reading = annotation(function).reading
    true = _true_bytes(function, floats(4, 5), 1.0)
    sizes = {root: buffer.size for buffer, root in zip(reading.graph.buffers, reading.roots) if root in true}
    assert sizes and sizes == {root: true[root] for root in sizes}
    assert "default_dim" not in reading.graph.sizes_from


@pytest.mark.parametrize("outputs", [_drawn, _copied])
def test_without_their_rules_the_sizes_would_be_assumed(outputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("theano_memopt.hosts.theano.read.formulas._unwritten", lambda op: None)
    assert "default_dim" in annotation(_of_no_formula(outputs)).reading.graph.sizes_from


@WITHOUT_A_FORMULA
@pytest.mark.parametrize("condition", [0.0, 1.0])
def test_true_shapes_go_through_them_too(outputs: Any, condition: float) -> None:
    function = _of_no_formula(outputs)
    fgraph, nodes = function.maker.fgraph, annotation(function).nodes
    given = dict(zip(fgraph.inputs, [floats(4, 5), np.asarray(condition)]))
    asked = [v for node in nodes for v in node.outputs if isinstance(v.type, tt.TensorType)]
    shapes = TrueShapes(fgraph, nodes, asked, lambda v: given[v] if v in given else v.container.storage[0])
    signature = [np.shape(shapes._value_now(v)) for v in shapes.shape_sources] + [int(shapes._value_now(v)) for v in shapes.value_sources]
    told = dict(zip(shapes.known, shapes.shapes(*signature)))
    true = _true_bytes(function, floats(4, 5), condition)
    large = [v for v in asked if v in true and v.type.ndim == 2]
    assert large
    for v in large:
        assert np.prod(told[v]) * np.dtype(v.dtype).itemsize == true[v]


def test_an_ifelse_over_different_lengths_takes_the_branch_that_it_will_or_the_longer() -> None:
    x, c = tt.matrix("x"), tt.scalar("c")
    n = tt.iscalar("n")
    theano_memopt.hint(x, (4, 5))
    n.tag.test_value = np.int32(0)
    by_number = tt.exp(ifelse(n, tt.exp(x), tt.tanh(x[:3])))
    by_data = tt.exp(ifelse(c > 0, tt.exp(x), tt.tanh(x[:3])))
    with theano.configparser.change_flags(compute_test_value="off"):
        for chosen, rows in ((by_number, 3), (by_data, 4)):
            function = theano.function([x, n, c], chosen, mode=with_pass(), on_unused_input="ignore")
            sizes = Sizes(function.maker.fgraph, annotation(function).nodes, 11)
            assert sizes.bytes(function.maker.fgraph.outputs[0])[0] == rows * 5 * np.dtype(x.dtype).itemsize


@pytest.mark.quick
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
@pytest.mark.quick
def test_the_same_shape_is_recognised(first: Any, second: Any) -> None:
    x, y = tt.matrices("xy")
    one, two = first(x, y), second(x, y)
    function = theano.function([x, y], [one, two, tt.dot(x, y)], mode=with_pass())
    fgraph = function.maker.fgraph
    sizes = Sizes(fgraph, fgraph.toposort(), 100)
    assert sizes.dims(fgraph.outputs[0]) == sizes.dims(fgraph.outputs[1])


@pytest.mark.quick
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


@pytest.mark.parametrize(
    ("name", "linker", "large"),
    [
        nightly_if(name in LARGE or (name is not None and (linker == "vm") != large), name, linker, large)
        for name in ("mlp_adam", "lstm", "scan_rnn", None)
        for linker in ("cvm", "vm")
        for large in (False, True)
    ],
)
def test_at_no_plausible_sizes_is_the_order_worse_than_what_the_linker_would_run(
    name: Any, linker: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:  # large graphs get fewer orders to choose from
        monkeypatch.setattr(annotate, "LARGE", 0)
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
    for graph in map(found.reading.graph.resized, found.reading.scenarios):
        assert timeline(graph, found.schedule.order).peak <= timeline(graph, host).peak


@pytest.mark.parametrize("shape", [(3,), (3, -1), (1, 2, 3)])
@pytest.mark.quick
def test_hints_that_cannot_be(shape: Any) -> None:
    with pytest.raises(ValueError):
        theano_memopt.hint(tt.matrix("x"), shape)


@pytest.mark.parametrize("shape", [(2.5, 3), ("a", 3), ([1], 3), (..., 3)])
@pytest.mark.quick
def test_a_length_that_is_none_is_told_what_one_is(shape: Any) -> None:
    x = tt.matrix("x")
    with pytest.raises(ValueError, match="a whole number, 0 or more, or None|belongs in the place of each"):
        theano_memopt.hint(x, shape)
    assert not hasattr(x.tag, "mem_reuse_shape")


@pytest.mark.quick
def test_nameless_inputs_and_shared_variables_are_told_apart() -> None:
    x = tt.dmatrix()
    weights = [theano.shared(np.ones((3, n))) for n in (3, 5)]
    function = theano.function([x], tt.dot(tt.exp(tt.dot(x, weights[0])), weights[1]), mode=with_pass())
    said = theano_memopt.explain(function).graph.sizes_from
    assert "TensorType" not in said and "input 1" in said, said
    assert len(re.findall(r"input [23] \(\S*test_sizes.py:\d+\)\.shape\[1\] = [35] \(present value\)", said)) == 2, said


@pytest.mark.quick
def test_the_shape_of_a_hint_is_a_tuple() -> None:
    with pytest.raises(TypeError, match="is a tuple, one length or None for each dimension of x, not int"):
        theano_memopt.hint(tt.fvector("x"), 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (np.ones((300, 300)), "takes a symbolic input, .* not ndarray"),
        ([1, 2], "not list"),
        (theano.shared(np.ones((300, 300)), name="W"), "W is a shared variable, whose shape is known"),
        (tt.constant(np.ones((300, 300))), "is a constant, whose shape is known"),
        (theano.gof.generic("thing"), "dense tensor; thing is of type"),
        (tt.exp(tt.dmatrix("x")), "is computed, and its shape follows"),
    ],
)
@pytest.mark.quick
def test_a_hint_of_what_is_no_input_is_one_line_without_the_array(thing: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words) as caught:
        theano_memopt.hint(thing, (3, 3))
    assert "\n" not in str(caught.value) and "1." not in str(caught.value) and len(str(caught.value)) < 140

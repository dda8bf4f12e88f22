"""With an arena and without gc, arrays that ops allocate for themselves live as long as their readers; small functions run as in stock."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile.mode import Mode
from theano.tensor import slinalg
from theano.tensor.nnet import conv

import theano_memopt
from tests.theano.both import annotation, floats, same, with_pass, without_pass
from theano_memopt.hosts.theano.measure import memory
from theano_memopt.hosts.theano.run.arena import call
from theano_memopt.hosts.theano.run.arena.fitting import ArenaPlanner
from theano_memopt.hosts.theano.run.arena.states import New, Small

N = 120
ARRAY = N * N * 8


class Doubled(theano.Op):
    """A user's op: Python only, a new array in each call."""

    __props__ = ()

    def make_node(self, x: Any) -> Any:
        return theano.Apply(self, [x], [x.type()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        outputs[0][0] = inputs[0] * 2

    def infer_shape(self, node: Any, shapes: Any) -> Any:
        return shapes


class Refilled(Doubled):
    """A user's op that fills the array in its cell again."""

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        if outputs[0][0] is None or outputs[0][0].shape != inputs[0].shape:
            outputs[0][0] = np.empty_like(inputs[0])
        np.multiply(inputs[0], 2, out=outputs[0][0])


def _positive(x: Any) -> Any:
    return tt.dot(x, x.T) + N * tt.eye(x.shape[0])


def _states(x: Any) -> Any:
    return theano.scan(lambda row, h: tt.tanh(h + row), sequences=[x], outputs_info=[tt.zeros((x.shape[1],))])[0]


CASES: Dict[str, Callable[[Any], Any]] = {
    "Cholesky": lambda x: slinalg.cholesky(_positive(x)),
    "Solve": lambda x: slinalg.solve_lower_triangular(slinalg.cholesky(_positive(x)), x),
    "AllocDiag": lambda x: tt.diag(tt.exp(x).sum(axis=0)) * 2,
    "Tri": lambda x: tt.tri(x.shape[0], x.shape[1]) * x,
    "Sort": lambda x: tt.sort(tt.exp(x), axis=0) + 1,
    "Scan": _states,
    "user": lambda x: Doubled()(tt.exp(x)) + 1,
    "float16": lambda x: tt.dot(x.astype("float16"), x.T.astype("float16")).astype("float64"),
}


def _function(case: str, mode: Any) -> Any:
    x = tt.dmatrix("x")
    h = tt.tanh(CASES[case](x)) + 1
    return theano.function([x], tt.dot(h, h.T).sum(axis=0), mode=mode)


def _arguments() -> List[np.ndarray]:
    return [floats(N, N, seed=k).astype("float64") for k in range(5)]


@pytest.mark.parametrize(("case", "linker"), [*((case, "cvm_nogc") for case in CASES), ("Cholesky", "vm_nogc"), ("user", "vm_nogc")])
def test_after_a_call_the_planned_bytes_are_there_and_no_more(case: str, linker: str) -> None:
    ours, stock = _function(case, with_pass(linker, storage="arena")), _function(case, without_pass(linker))
    for x in _arguments():
        same([ours(x)], [stock(x)])
    _holds_what_is_planned(ours, stock, x)


def _holds_what_is_planned(ours: Any, stock: Any, *arguments: Any) -> None:
    held, report = memory.held_by_call(ours, *arguments), theano_memopt.explain(ours, *arguments)
    assert held.reserved <= 1.02 * report.reserved[0].bytes + 2048
    assert held.reserved <= min(1.05 * report.peak, memory.held_by_call(stock, *arguments).reserved) + 2048


def test_a_convolution_without_c_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fills again the array that it finds, so it lies in the block."""
    monkeypatch.setattr(theano.config, "cxx", "")
    _find_scipys_convolution(monkeypatch)
    x, w = tt.tensor4("x"), tt.tensor4("w")

    def made(mode: Any) -> Any:
        h = tt.tanh(tt.nnet.conv2d(x, w))
        return theano.function([x, w], (tt.nnet.conv2d(h, w.dimshuffle(1, 0, 2, 3)) ** 2).sum(), mode=mode)

    ours, stock = made(with_pass("vm_nogc", storage="arena")), made(without_pass("vm_nogc"))
    for k in range(5):
        arguments = floats(4, 3, 20, 20, seed=k), floats(6, 3, 5, 5, seed=k + 5)
        same([ours(*arguments)], [stock(*arguments)])
    (first, second) = (b for b, root in enumerate(annotation(ours).reading.roots) if root.owner and isinstance(root.owner.op, conv.ConvOp))
    assert {first, second} <= set(ours.fn.fitting.buffers)
    _holds_what_is_planned(ours, stock, *arguments)


def _find_scipys_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theano looks for it where it was before SciPy 1.8, and else has no convolution in Python."""
    if not conv.imported_scipy_signal:
        from scipy.signal import _signaltools, _sigtools

        for module, name in ((_signaltools, "_valfrommode"), (_signaltools, "_bvalfromboundary"), (_sigtools, "_convolve2d")):
            monkeypatch.setattr(conv, name, getattr(module, name), raising=False)
        monkeypatch.setattr(conv, "imported_scipy_signal", True)


@pytest.mark.parametrize("case", ["Cholesky", "user"])
def test_they_would_stay(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: not let go, they are held beside the block, and `profile` says so."""
    monkeypatch.setattr(ArenaPlanner, "let_go_from_now_on", lambda planner, buffers: None)
    ours = _function(case, with_pass("cvm_nogc", storage="arena"))
    for x in _arguments():
        ours(x)
    assert memory.held_by_call(ours, x).reserved >= theano_memopt.explain(ours, x).reserved[0].bytes - ARRAY // 2
    assert ours.fn.kept_outside()


def test_an_array_that_its_op_fills_again_stays_where_there_is_room() -> None:
    x = tt.dmatrix("x")
    h = tt.exp(x) + 1
    kept = Refilled()(h[:4, :4])
    function = theano.function([x], tt.dot(h, h.T).sum() + kept.sum(), mode=with_pass("cvm_nogc", storage="arena"))
    for value in _arguments():
        function(value)
    (node,) = (n for n in function.maker.fgraph.apply_nodes if isinstance(n.op, Refilled))
    cell = function.fn.storage_map[node.outputs[0]]
    before = cell[0]
    function(value)
    assert before is not None and cell[0] is before


def test_planned_and_measured_peak_agree_with_own_arrays() -> None:
    function = _function("Cholesky", with_pass("cvm_nogc", storage="arena"))
    for x in _arguments():
        function(x)
    comparison = theano_memopt.profile(function, x)
    assert comparison.keeps_as_planned
    assert abs(comparison.profile.peak - comparison.explained_peak) <= 0.02 * comparison.explained_peak + 16_384
    assert "arrays that ops allocate for themselves" in comparison.report.reserved[0].meaning


# --- small functions -------------------------------------------------------------------------------------------------


def _chain(mode: Any) -> Any:
    x = tt.dmatrix("x")
    h = x
    for _ in range(5):
        h = tt.tanh(tt.dot(h, x))
    return theano.function([x], h.sum(axis=0), mode=mode)


def test_a_small_function_holds_what_stock_holds_until_it_has_grown() -> None:
    ours, stock = _chain(theano_memopt.mode(Mode("cvm_nogc", "fast_run"))), _chain(without_pass("cvm_nogc"))

    def calls(size: int) -> Any:
        for k in range(4):
            x = floats(size, size, seed=k).astype("float64")
            same([ours(x)], [stock(x)])
        return x, memory.held_by_call(ours, x).reserved, memory.held_by_call(stock, x).reserved

    x, held, by_stock = calls(10)
    assert isinstance(ours.fn.state, Small) and "would save" in ours.fn.aside
    assert held == by_stock and "as without the pass" in theano_memopt.explain(ours, x).reserved[0].meaning
    plan = theano_memopt.plan_of(ours)
    assert plan.graph.sizes_from == "the last call" and max(buffer.size for buffer in plan.graph.buffers) == x.nbytes
    assert theano_memopt.explain(ours).inputs == (("x", "10x10"),)
    _, held, by_stock = calls(200)
    assert not isinstance(ours.fn.state, (Small, New)) and not ours.fn.aside
    assert held < 0.6 * by_stock


def test_a_small_function_is_asked_again_only_when_an_input_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def too_little(planner: Any, signature: Any) -> str:
        asked.append(x.nbytes)
        return "never worthwhile"

    monkeypatch.setattr(call, "too_little", too_little)
    function = _chain(theano_memopt.mode(Mode("cvm_nogc", "fast_run")))
    for size in (10, 12, 3, 14, 15, 10, 22, 4, 15, 21):  # twice as many bytes from 15 on, and once more from 22 on
        x = floats(size, size).astype("float64")
        function(x)
    assert asked == [8 * size * size for size in (10, 15, 22)]

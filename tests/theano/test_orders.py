"""The order for the true sizes, where some were assumed when the function was compiled: least, the same bits, and never in the way."""

from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest
import theano
import theano.tensor as tt

import theano_memopt
from tests.theano.both import floats, same, with_pass, without_pass
from theano_memopt.hosts.theano import orders, probe, rewrite
from theano_memopt.hosts.theano.orders import OrderVM
from theano_memopt.planner.plan import check_plan

GC = ("cvm", "vm")
WIDTH = 100


def _two_sides(mode: Any, hinted: bool = False) -> Any:
    """Two squares that are not needed at once, and what is left of each: which comes first matters if they differ in size."""
    inputs, left = [], []
    for name in "ab":
        x, y = tt.matrix(name), tt.matrix(name + "'")
        inputs += [x, y]
        left.append(tt.dot(tt.tanh(tt.dot(x, x.T)), y))
    if hinted:
        for variable, value in zip(inputs, _arguments(40, 60)):
            theano_memopt.hint(variable, value.shape)
    return theano.function(inputs, left, mode=mode)


def _arguments(n: int, m: int, seed: int = 0) -> List[Any]:
    return [floats(n, 3, seed=seed), floats(n, WIDTH, seed=seed + 1), floats(m, 3, seed=seed + 2), floats(m, WIDTH, seed=seed + 3)]


def _peak(n: int, m: int) -> int:
    """Of the side of n x n before that of m x m."""
    return np.dtype(theano.config.floatX).itemsize * max(n * n + WIDTH * n, WIDTH * n + m * m + WIDTH * m)


@pytest.mark.parametrize("storage", ["off", "share"])
@pytest.mark.parametrize("linker", GC)
def test_the_first_call_settles_the_order_for_its_sizes(linker: str, storage: str) -> None:
    function, stock = _two_sides(with_pass(linker, storage=storage)), _two_sides(without_pass(linker))
    for n, m in ((40, 60), (60, 40)):
        for _ in range(3):
            same(function(*_arguments(n, m)), stock(*_arguments(n, m)))
        plan = theano_memopt.plan_of(function)
        assert plan and plan.schedule.proven and plan.schedule.peak == _peak(max(n, m), min(n, m)) < _peak(min(n, m), max(n, m))
        check_plan(plan)
        report = theano_memopt.explain(function, *_arguments(n, m))
        assert report.peak == report.floor == plan.schedule.peak


@pytest.mark.parametrize("linker", GC)
def test_the_machine_runs_it_and_holds_no_more(linker: str) -> None:
    arguments = _arguments(300, 500)
    measured = []
    for mode in (with_pass(linker), with_pass(linker, order="host")):
        function = _two_sides(mode)
        function(*arguments)
        measured.append(probe.held_by_call(function, *arguments).peak)
    ran = probe.recorded_order(_two_sides(with_pass(linker)), *arguments)
    first = next(node for node in ran if node.op == ran[0].op)
    assert [v.name for v in first.inputs if v.name] == ["b"]
    assert _peak(500, 300) <= measured[0] < 1.02 * _peak(500, 300) < _peak(300, 500) <= measured[1]


def test_other_sizes_get_what_is_known_and_a_search_when_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    function = _two_sides(with_pass("cvm"))
    searched = []
    search = orders.minimise_peak
    monkeypatch.setattr(orders, "minimise_peak", lambda *given: searched.append(1) or search(*given))
    machine = function.fn

    def call(n: int, m: int) -> Any:
        function(*_arguments(n, m))
        return machine.machines.peak(machine.machines.order, machine._sizes_at(machine.signature)), len(searched)

    assert call(40, 60) == (_peak(60, 40), 1)
    assert call(41, 60) == (_peak(60, 41), 1)
    assert call(60, 41) == (_peak(60, 41), 1)  # one of the host's orders, without a search
    assert call(60, 41) == (_peak(60, 41), 1)
    assert call(60, 41) == (_peak(60, 41), 2)
    assert call(60, 41) == call(40, 60) == (_peak(60, 40), 2) or call(60, 41)[1] == 2
    for k in range(2 * orders.SIGNATURES):
        call(10 + k, 60)
    assert len(searched) == 2 and len(machine.chosen) <= orders.SIGNATURES


@pytest.mark.parametrize(
    "mode",
    [
        lambda: with_pass("cvm", order="host"),
        lambda: with_pass("cvm", effort=0),
        lambda: with_pass("cvm_nogc"),
        lambda: with_pass("cvm", storage="arena"),
        lambda: without_pass("cvm"),
    ],
)
def test_where_there_is_no_order_to_choose_the_machine_is_theanos_own(mode: Any) -> None:
    assert not isinstance(_two_sides(mode()).fn, OrderVM)


def test_with_sizes_that_are_known_the_machine_is_theanos_own() -> None:
    assert not isinstance(_two_sides(with_pass("cvm"), hinted=True).fn, OrderVM)
    assert isinstance(_two_sides(with_pass("cvm")).fn, OrderVM)


def test_a_large_graph_keeps_the_order_of_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    from theano_memopt.hosts.theano import vm

    monkeypatch.setattr(vm, "MOST", 5)
    assert not isinstance(_two_sides(with_pass("cvm")).fn, OrderVM)


def _tenants_of_one_cell(mode: Any) -> Any:
    """Three squares of one shape, one after the other, and what is left of each."""
    inputs, left = [], []
    for name in "abc":
        x, y = tt.matrix(name), tt.matrix(name + "'")
        inputs += [x, y]
        left.append(tt.dot(tt.exp(tt.dot(x, x.T) * 0.01), y))
    pair = tt.dot(left[0].T, left[0]) + tt.dot(left[1].T, left[1])
    return theano.function(inputs, [pair, left[2], (tt.dot(left[0], left[0].T)[:1] + tt.dot(left[0], left[0].T)[1:2]).sum()], mode=mode)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("linker", GC)
def test_cells_that_are_bound_are_right_in_every_order(linker: str, verify: bool) -> None:
    ours, stock = _tenants_of_one_cell(with_pass(linker, verify=verify)), _tenants_of_one_cell(without_pass(linker))
    for k, lengths in enumerate([(9, 5, 3), (3, 9, 5), (5, 3, 9), (9, 9, 9), (2, 3, 4)] * 4):
        arguments = [floats(n, width, seed=k + width) for n in lengths for width in (3, 7)]
        same(ours(*arguments), stock(*arguments))


def test_untied_tenants_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tenants of one cell, and an order in which both are alive: only `tied` forbids it."""
    x = tt.matrix("x")
    w = [theano.shared(floats(6, 6, seed=k)) for k in range(3)]
    outputs = [tt.dot(tt.dot(x, w[k]), w[2]) for k in range(2)]
    function = theano.function([x], outputs, mode=with_pass("cvm", verify=True))
    machines = function.fn.machines
    (cell,) = [cell for cell in _shared(function) if len(cell) > 1]
    late = [t for t, node in enumerate(machines.reading.nodes) if node.outputs[0] in machines.fgraph.outputs]
    both_first = (*sorted(set(range(4)) - set(late)), *late)
    assert len(cell) == 2 and machines.reading.graph.is_legal(both_first) and not machines.graph.is_legal(both_first)
    monkeypatch.setattr(orders.Machines, "best_order", lambda machines, sizes: both_first)
    with pytest.raises(Exception, match="mem_reuse.verify"):
        function(floats(4, 6))


def _shared(function: Any) -> List[List[Any]]:
    cells: Any = {}
    for v, cell in function.fn.storage_map.items():
        if v.owner is not None:
            cells.setdefault(id(cell), []).append(v)
    return list(cells.values())


def test_trouble_leaves_the_order_until_now(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    function, stock = _two_sides(with_pass("cvm")), _two_sides(without_pass("cvm"))

    def fails(*_: Any) -> Any:
        raise RuntimeError("no plan today")

    monkeypatch.setattr(orders, "minimise_peak", fails)
    with theano.configparser.change_flags(on_opt_error="warn"):
        for _ in range(3):
            same(function(*_arguments(4, 6)), stock(*_arguments(4, 6)))
    assert caplog.text.count("no plan today") >= 1
    assert len([r for r in caplog.records if "could not be planned" in r.getMessage()]) == 1
    assert function.fn.plan() is None and theano_memopt.plan_of(function)


def test_an_interrupted_search_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    function = _two_sides(with_pass("cvm"))

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(orders, "minimise_peak", interrupted)
        with pytest.raises(KeyboardInterrupt):
            function(*_arguments(40, 60))
    function(*_arguments(40, 60))
    assert theano_memopt.plan_of(function).schedule.peak == _peak(60, 40)


def test_a_subset_of_the_outputs_and_a_raising_call() -> None:
    function, stock = _two_sides(with_pass("cvm")), _two_sides(without_pass("cvm"))
    same(function(*_arguments(4, 6), output_subset=[1]), stock(*_arguments(4, 6), output_subset=[1]))
    with pytest.raises(ValueError):
        function(floats(4, 3), floats(5, WIDTH), floats(4, 3), floats(4, WIDTH))
    same(function(*_arguments(4, 6)), stock(*_arguments(4, 6)))
    same(function(*_arguments(6, 4), output_subset=[0]), stock(*_arguments(6, 4), output_subset=[0]))


def test_the_annotation_stays_that_of_the_graph() -> None:
    """toposort, copies and pickles ask for it; the machine keeps its order to itself."""
    function = _two_sides(with_pass("cvm"))
    feature = rewrite.feature_of(function.maker.fgraph)
    before = feature.annotation(function.maker.fgraph)
    function(*_arguments(40, 60))
    assert feature.annotation(function.maker.fgraph) is before
    twin = function.copy()
    same(twin(*_arguments(60, 40)), function(*_arguments(60, 40)))

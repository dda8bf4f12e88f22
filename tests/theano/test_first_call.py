"""A budget for a function of which no length is known while it is compiled: kept at the sizes that come."""

from __future__ import annotations

import logging
import pickle
from typing import Any, List, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile.mode import Mode

import theano_memopt
from tests.theano.test_recompute import clones
from theano_memopt import progress
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.optimize.feature import feature_of
from theano_memopt.hosts.theano.optimize.recompute import BudgetNotMet
from theano_memopt.hosts.theano.run import first_call

OBJECTS = 16 * 1024
LINKERS = ("cvm", "cvm_nogc", "vm", "vm_nogc")


def net(mode: Any, **how: Any) -> Tuple[Any, List[Any]]:
    """A training step of six layers over batches of any length."""
    random, x = np.random.RandomState(1), tt.fmatrix("x")
    weights, h = [], x
    for _ in range(6):
        weights.append(theano.shared(random.normal(0, 0.3, (16, 16)).astype("float32")))
        h = tt.tanh(tt.dot(h, weights[-1]))
    loss = tt.sqr(h).sum()
    updates = [(w, w - np.float32(0.001) * g) for w, g in zip(weights, tt.grad(loss, weights))]
    return theano.function([x], loss, updates=updates, mode=mode, **how), weights


def batch(length: int) -> np.ndarray:
    return np.random.RandomState(length).normal(size=(length, 16)).astype("float32")


def story(function: Any, weights: List[Any]) -> List[bytes]:
    told = [function(batch(length)).tobytes() for length in (512, 512, 512, 300, 700, 512)]
    return told + [w.get_value().tobytes() for w in weights]


def within(budget: Any, linker: str = "cvm", **more: Any) -> Any:
    return theano_memopt.mode(Mode(linker, "fast_run"), budget=budget, **more)


@pytest.fixture(scope="module")
def stock() -> List[bytes]:
    return story(*net(Mode("cvm", "fast_run").excluding("mem_reuse", "mem_recompute")))


@pytest.mark.parametrize("storage", ["share", "arena", "off"])
@pytest.mark.parametrize("linker", LINKERS)
def test_the_same_bits_in_less_memory(linker: str, storage: str, stock: List[bytes]) -> None:
    function, weights = net(within("0.6", linker, storage=storage))
    assert not clones(function) and feature_of(function.maker.fgraph).waits
    assert story(function, weights) == stock
    assert clones(function) and not feature_of(function.maker.fgraph).waits
    report = theano_memopt.explain(function, (512, 16))
    assert report.repeats.planned_at == "the sizes of the first call"
    assert report.peak <= 0.61 * report.repeats.ordered_peak


def test_a_budget_in_bytes_means_the_sizes_that_come() -> None:
    ordered, _ = net(theano_memopt.mode(Mode("cvm", "fast_run")))
    ordered(batch(2000))
    peak = theano_memopt.plan_of(ordered).schedule.peak
    function, _ = net(within(str(int(0.6 * peak))))
    for _ in range(2):
        function(batch(2000))
    own = max(probe.workspaces(function, batch(2000)).values(), default=0)
    assert probe.held_by_call(function, batch(2000)).peak <= 0.6 * peak + own + OBJECTS < 0.8 * probe.held_by_call(ordered, batch(2000)).peak


def test_what_is_said_before_and_after() -> None:
    function, _ = net(within("0.6"))
    before = theano_memopt.explain(function)
    assert before.repeats is None and any("decided at the first call" in note for note in before.notes)
    function(batch(512))
    after = theano_memopt.explain(function)
    assert after.repeats is not None and "the sizes of the first call" in str(after) and not any("decided" in note for note in after.notes)


def test_where_the_machine_cannot_be_made_again_it_is_decided_while_compiling() -> None:
    function, _ = net(within("0.6", "c|py"))
    assert clones(function) and theano_memopt.explain(function).repeats.planned_at == "assumed sizes"


def test_copies_pickles_free_and_verify(stock: List[bytes]) -> None:
    function, weights = net(within("0.6", verify=True))
    assert story(function, weights) == stock
    function, weights = net(within("0.6"))
    early = pickle.loads(pickle.dumps(function))
    assert feature_of(early.maker.fgraph).waits
    early(batch(512))
    assert clones(early)
    function(batch(512))
    late = pickle.loads(pickle.dumps(function))
    for other in (late, function.copy()):
        assert clones(other) and not feature_of(other.maker.fgraph).waits
    assert late(batch(300)).tobytes() == early(batch(300)).tobytes() == function(batch(300)).tobytes()
    function.free()
    function(batch(300))


def test_theanos_profile_counts_the_machine_that_runs() -> None:
    function, _ = net(within("0.6"), profile=True)
    for _ in range(3):
        function(batch(512))
    counts = function.profile.apply_callcount
    assert set(counts.values()) == {3} and set(counts) == set(function.maker.fgraph.apply_nodes)


def test_a_budget_that_cannot_be_met_is_told_at_the_first_call(caplog: Any) -> None:
    function, _ = net(within("1KB"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            function(batch(512))
    assert caplog.text.count("no schedule at all can go below") == 1
    with theano.configparser.change_flags(on_opt_error="raise"):
        function, _ = net(within("1KB"))
        for _ in range(2):
            with pytest.raises(BudgetNotMet):
                function(batch(512))


def test_trouble_leaves_the_machine_of_compile_time(monkeypatch: Any, caplog: Any, stock: List[bytes]) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("not today")

    monkeypatch.setattr(first_call, "recompute", broken)
    function, weights = net(within("0.6"))
    with caplog.at_level(logging.WARNING):
        assert story(function, weights) == stock
    assert not clones(function) and caplog.text.count("not today") >= 1


def test_functions_that_share_an_arena_go_on_sharing_it() -> None:
    with theano_memopt.shared_arena() as lender:
        one, _ = net(within("0.6", "cvm_nogc", storage="arena"))
        other, _ = net(within("0.6", "cvm_nogc", storage="arena"))
    for _ in range(3):
        one(batch(512))
        other(batch(512))
    assert clones(one) and one.fn.lender is lender and other.fn.lender is lender


def test_an_input_that_is_missing_decides_nothing() -> None:
    function, _ = net(within("0.6"))
    with pytest.raises(TypeError):
        function()
    assert feature_of(function.maker.fgraph).waits


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
def test_what_is_decided_and_planned_inside_calls_counts_as_planning(linker: str) -> None:
    function, _ = net(within("0.6", linker, storage="auto" if linker == "cvm" else "arena"))
    spent = []
    for length in (512, 512, 512, 512, 512, 512, 77):
        before = progress.planned_for()
        function(batch(length))
        spent.append(progress.planned_for() - before)
    assert spent[0] > 0.001 and spent[4] == spent[5] == 0.0  # a call whose sizes came before plans nothing
    assert linker == "cvm" or spent[6] > 0.0

"""A budget for a function of which no length is known while it is compiled: kept at the sizes that come."""

from __future__ import annotations

import copy
import logging
import pickle
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile.mode import Mode

import theano_memopt
from tests.marks import nightly_if
from tests.theano.test_recompute import clones
from theano_memopt import progress
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.optimize import making
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


@pytest.mark.parametrize(
    ("linker", "storage"),
    [nightly_if(storage == "off" and linker != "cvm", linker, storage) for linker in LINKERS for storage in ("share", "arena", "off")],
)
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
    function, _ = net(within(int(0.6 * peak)))
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


# --- before the first call -------------------------------------------------------------------------------------------

LOOKS: Dict[str, Callable[[Any], Any]] = {
    "explain": lambda f: theano_memopt.explain(f),
    "explain these sizes": lambda f: theano_memopt.explain(f, (700, 16)),
    "profile": lambda f: theano_memopt.profile(f, batch(700)),
    "compare": lambda f: theano_memopt.compare(theano_memopt.explain(f, batch(9)), theano_memopt.profile(f, batch(700))),
    "plan_of": theano_memopt.plan_of,
    "a copy without updates": lambda f: f.copy(delete_updates=True)(batch(700)),
    "a copy that shares memory": lambda f: f.copy(share_memory=True)(batch(700)),
    "a copy of a copy": lambda f: f.copy(delete_updates=True).copy()(batch(700)),
    "a pickle": lambda f: pickle.loads(pickle.dumps(f))(batch(700)),
    "a deep copy": lambda f: copy.deepcopy(f)(batch(700)),
}
"""What may be done with a function that was not called yet."""


@pytest.mark.parametrize(
    ("look", "linker"),
    [
        *(nightly_if(look in ("a copy of a copy", "a deep copy"), look, "cvm") for look in sorted(LOOKS)),
        ("profile", "vm_nogc"),
        ("a pickle", "vm_nogc"),
    ],
)
def test_whoever_looks_before_the_first_call_leaves_the_function_as_it_was(look: str, linker: str, stock: List[bytes]) -> None:
    function, weights = net(within("0.6", linker))
    nodes = set(function.maker.fgraph.apply_nodes)
    start = [w.get_value() for w in weights]
    LOOKS[look](function)
    for weight, value in zip(weights, start):
        weight.set_value(value)
    assert feature_of(function.maker.fgraph).waits and set(function.maker.fgraph.apply_nodes) == nodes
    assert story(function, weights) == stock
    assert clones(function) and theano_memopt.explain(function, (512, 16)).repeats.planned_at == "the sizes of the first call"


@pytest.mark.parametrize("goal", [{"budget": "0.6"}, {"extra_time": 0.5}])
def test_a_profile_before_the_first_call_is_of_what_that_will_decide(goal: Dict[str, Any]) -> None:
    function, _ = net(theano_memopt.mode(Mode("cvm", "fast_run"), **goal))
    before = theano_memopt.profile(function, batch(2000))
    assert before.profile.steps and before.report.repeats.again
    assert before.planned_peak <= before.profile.peak <= before.planned_peak + 64 * 1024
    foreseen = theano_memopt.explain(function, batch(2000))
    assert any("was not called yet" in note for note in foreseen.notes)
    function(batch(2000))
    after = theano_memopt.explain(function, batch(2000))
    assert before.planned_peak == foreseen.peak == after.peak and foreseen.repeats.again == after.repeats.again


def test_probes_measure_the_machine_that_a_first_call_makes() -> None:
    function, _ = net(within("0.6"))
    ran = probe.recorded_order(function, batch(512))
    assert len(ran) > len(function.maker.fgraph.apply_nodes) and feature_of(function.maker.fgraph).waits


def test_no_listener_is_told_of_what_is_made_to_look() -> None:
    function, _ = net(within("0.6"))
    heard: List[Any] = []
    making.listeners.append(heard.append)
    try:
        theano_memopt.profile(function, batch(512))
        theano_memopt.explain(function, batch(512))
        assert heard == []
        other = function.copy()
        assert heard == [other]
    finally:
        making.listeners.remove(heard.append)


@pytest.mark.parametrize("linker", LINKERS)
def test_several_machines_of_one_graph(linker: str, stock: List[bytes]) -> None:
    """The first that is called changes the graph, and the others follow."""
    function, weights = net(within("0.6", linker))
    maker = function.maker
    other = maker.create([c if c.implicit else c.storage[0] for c in function.input_storage])
    start = [w.get_value() for w in weights]
    assert story(other, weights) == stock
    for weight, value in zip(weights, start):
        weight.set_value(value)
    assert story(function, weights) == stock
    assert theano_memopt.explain(function, (512, 16)).repeats.again and set(probe.recorded_order(function, batch(512))) == maker.fgraph.apply_nodes


@pytest.mark.parametrize("linker", LINKERS)
def test_what_was_handed_out_is_not_filled_again(linker: str) -> None:
    """A result that runs again in the end is another variable than the one that was handed out while compiling."""
    x, weights = tt.dmatrix("x"), [np.random.RandomState(i).normal(0, 0.1, (50, 50)) for i in range(6)]
    large = tt.exp(0.3 * x)
    wrt = [theano.shared(w) for w in weights]
    h = 1.5 * large + 2
    for w in wrt:
        h = tt.tanh(tt.dot(h, w))
    gradients = tt.grad(tt.sqr(h).mean(), wrt)
    function = theano.function([x], [large, *gradients], mode=within("0.5", linker))
    compiled = function.maker.fgraph.outputs[0]
    values = np.random.RandomState(3).normal(size=(400, 50))
    results = function(values)
    assert function.maker.fgraph.outputs[0] is not compiled
    kept = [result.copy() for result in results]
    function(0.5 * values)
    function(0.2 * values)
    assert probe.same_bits(results, kept)


def test_a_new_value_of_a_shared_variable_may_run_again_in_the_end() -> None:
    linker, before, now = SimpleNamespace(), ["kept", "w", "v"], ["kept", "w again", "v"]
    linker.fgraph, linker.no_recycling, linker.updated_vars = SimpleNamespace(outputs=now), [], {"W": "w", "V": "v"}
    first_call.outputs_were(linker, before)
    assert linker.updated_vars == {"W": "w again", "V": "v"}


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linker", LINKERS)
def test_a_graph_that_cannot_be_linked_anew_is_put_back(linker: str, monkeypatch: Any, caplog: Any, stock: List[bytes]) -> None:
    def broken(machine: Any) -> Any:
        raise RuntimeError("no linking today")

    monkeypatch.setattr(first_call.FirstCallVM, "_link", broken)
    function, weights = net(within("0.6", linker))
    nodes, outputs = set(function.maker.fgraph.apply_nodes), list(function.maker.fgraph.outputs)
    with caplog.at_level(logging.WARNING):
        assert story(function, weights) == stock
    assert caplog.text.count("left a function as it was: nothing runs again in it") == 1
    assert set(function.maker.fgraph.apply_nodes) == nodes and list(function.maker.fgraph.outputs) == outputs
    report = theano_memopt.explain(function, batch(512))
    assert report.repeats.again == () and "could not be linked" in str(report)
    monkeypatch.undo()
    for other in (pickle.loads(pickle.dumps(function)), function.copy()):
        assert not clones(other)
        other(batch(300))


def test_ctrl_c_while_it_is_decided_leaves_it_for_the_next_call(monkeypatch: Any, stock: List[bytes]) -> None:
    def interrupted(machine: Any) -> Any:
        raise KeyboardInterrupt

    function, weights = net(within("0.6"))
    with monkeypatch.context() as patched:
        patched.setattr(first_call.FirstCallVM, "_link", interrupted)
        with pytest.raises(KeyboardInterrupt):
            function(batch(512))
    assert feature_of(function.maker.fgraph).waits and not clones(function)
    assert story(function, weights) == stock and clones(function)

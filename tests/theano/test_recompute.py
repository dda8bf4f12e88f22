"""Results that run again on Theano's machines: the same bits, the lower peak, and what must not run again does not.

The net below keeps every layer for the gradient; half of that is made again where a budget says so.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano import gof
from theano.compile.mode import Mode
from theano.ifelse import ifelse
from theano.sandbox.rng_mrg import MRG_RandomStreams

import theano_memopt
from tests.marks import nightly_if
from tests.theano.programs import WITHIN_BUDGETS, Invalid, Setup, differences, generate, setups_of
from theano_memopt.hosts.theano.install.flags import settings
from theano_memopt.hosts.theano.optimize import recompute as host
from theano_memopt.hosts.theano.optimize import repeats
from theano_memopt.hosts.theano.optimize.feature import feature_of
from theano_memopt.hosts.theano.optimize.recompute import BudgetNotMet, Goal, goal_of
from theano_memopt.hosts.theano.read.assumed_sizes import Sizes
from theano_memopt.hosts.theano.read.graph import read
from theano_memopt.hosts.theano.read.program import read_program
from theano_memopt.hosts.theano.run.verify import Corrupted
from theano_memopt.planner.budget import Budget
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.recompute import plan_recompute

STEPS = 4
SETTINGS = host.Settings("auto", "auto", 2000, 128, 20000, False)
BATCH = np.random.RandomState(0).normal(size=(256, 16)).astype("float32")


def net(mode: Any, draws: bool = False) -> Tuple[Any, List[Any]]:
    """A training step of six layers, and the weights that it trains."""
    random, noise = np.random.RandomState(1), MRG_RandomStreams(5)
    x = theano_memopt.hint(tt.fmatrix("x"), BATCH.shape)
    weights, h = [], x
    for i in range(6):
        weights.append(theano.shared(random.normal(0, 0.3, (16, 16)).astype("float32"), name=f"w{i}"))
        h = tt.tanh(tt.dot(h, weights[-1]))
        h.name = f"layer {i}"
        if draws and i == 2:
            h = h * noise.binomial(h.shape, p=0.5, dtype="float32")
    loss = (h**2).sum()
    updates = [(w, w - np.float32(0.001) * g) for w, g in zip(weights, tt.grad(loss, weights))]
    return theano.function([x], loss, updates=updates, mode=mode), weights


def story(function: Any, weights: List[Any]) -> List[bytes]:
    """All that can be seen of some steps."""
    told = [function(BATCH).tobytes() for _ in range(STEPS)]
    return told + [w.get_value().tobytes() for w in weights]


def base(linker: str = "cvm") -> Any:
    return Mode(linker, "fast_run")


def within(budget: Any, linker: str = "cvm", **overrides: Any) -> Any:
    return theano_memopt.mode(base(linker), budget=budget, **overrides)


def clones(function: Any) -> List[Any]:
    return [node for node in function.maker.fgraph.toposort() if (repeats.mark_of(node) or (0, 0))[1]]


@pytest.fixture(scope="module")
def stock() -> List[bytes]:
    return story(*net(base().excluding("mem_reuse", "mem_recompute")))


@pytest.fixture(scope="module")
def ordered_peak() -> int:
    return theano_memopt.plan_of(net(theano_memopt.mode(base()))[0]).schedule.peak


# --- what is promised ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("linker", "storage"),
    [("cvm", "share"), ("cvm_nogc", "arena"), ("vm", "arena"), ("vm_nogc", "share"), ("c|py", "share")],
)
def test_the_same_bits_in_less_memory(linker: str, storage: str, stock: List[bytes], ordered_peak: int) -> None:
    function, weights = net(within("0.7", linker, storage=storage))
    assert clones(function)
    assert theano_memopt.plan_of(function).schedule.peak <= 0.7 * ordered_peak
    assert story(function, weights) == stock
    if storage == "arena":
        assert theano_memopt.plan_of(function).reserved_bytes <= 0.75 * ordered_peak


def test_a_call_holds_no_more_than_the_plan() -> None:
    comparison = theano_memopt.profile(net(within("0.7"))[0], BATCH)
    assert comparison.profile.peak <= comparison.explained_peak + 8192


def test_the_lowest_peak_within_an_extra_time(stock: List[bytes], ordered_peak: int) -> None:
    function, weights = net(theano_memopt.mode(base(), extra_time=0.2))
    assert clones(function) and theano_memopt.plan_of(function).schedule.peak < ordered_peak
    assert story(function, weights) == stock


def test_copies_and_pickles_run_again_what_the_function_does(stock: List[bytes]) -> None:
    function, weights = net(within("0.7"))
    peak, outcome = theano_memopt.plan_of(function).schedule.peak, feature_of(function.maker.fgraph).outcome  # type: ignore[union-attr]
    copied, loaded = function.copy(), pickle.loads(pickle.dumps(function))
    for other in (copied, loaded):
        assert theano_memopt.plan_of(other).schedule.peak == peak
        assert len(clones(other)) == len(clones(function))
        assert feature_of(other.maker.fgraph).outcome == outcome  # type: ignore[union-attr]
    assert [loaded(BATCH).tobytes() for _ in range(STEPS)] == stock[:STEPS]
    told = [function(BATCH).tobytes(), np.asarray(copied(BATCH)).tobytes()]  # a copy answers a list, in stock Theano too
    function.free()
    assert [*told, np.asarray(copied(BATCH)).tobytes(), function(BATCH).tobytes()] == stock[:STEPS]
    assert [w.get_value().tobytes() for w in weights] == stock[STEPS:]


def test_a_copy_without_updates_is_explained_though_first_runs_may_be_gone(stock: List[bytes]) -> None:
    function, _ = net(within("0.5"))
    copied = function.copy(delete_updates=True)
    assert np.asarray(copied(BATCH)).tobytes() == stock[0] == np.asarray(copied(BATCH)).tobytes()
    report = theano_memopt.explain(copied, BATCH)
    assert report.repeats is not None and len(report.graph.tasks) < len(theano_memopt.explain(function, BATCH).graph.tasks)
    fgraph, _ = function.maker.fgraph.clone_get_equiv(check_integrity=False, attach_feature=False)
    for node in [n for n in fgraph.toposort() if repeats.mark_of(n) and repeats.mark_of(n)[1] == 0]:  # type: ignore[index]
        del node.tag.__dict__[repeats.MARK]  # as if the first run were another node
    repeats.take_out(fgraph)


def test_verify_compares_with_a_run_in_which_nothing_runs_again(stock: List[bytes]) -> None:
    assert story(*net(within("0.7", verify=True))) == stock


def test_names_and_lines_go_along() -> None:
    function, _ = net(within("0.5"))
    for clone in clones(function):
        original = next(n for n in function.maker.fgraph.apply_nodes if repeats.mark_of(n) == (repeats.mark_of(clone)[0], 0))  # type: ignore[index]
        assert [v.name for v in clone.outputs] == [v.name for v in original.outputs]
        assert [v.tag.trace for v in clone.outputs] == [v.tag.trace for v in original.outputs]


def test_a_chain_into_a_parameter_is_opened() -> None:
    """The gradient of a weight that is used in each step is summed up in the weight itself, from the first backward step on."""

    def chain(mode: Any) -> Tuple[Any, List[Any]]:
        w = theano.shared(np.random.RandomState(3).normal(0, 0.3, (16, 16)).astype("float32"), name="w")
        x = theano_memopt.hint(tt.fmatrix("x"), BATCH.shape)
        h = x
        for _ in range(6):
            h = tt.tanh(tt.dot(h, w))
        loss = (h**2).sum()
        return theano.function([x], loss, updates=[(w, w - np.float32(0.001) * tt.grad(loss, w))], mode=mode), [w]

    function, weights = chain(within("0.6"))
    assert any(hasattr(node.tag, repeats.OPENED) for node in function.maker.fgraph.apply_nodes) and clones(function)
    assert story(function, weights) == story(*chain(base().excluding("mem_reuse", "mem_recompute")))


@pytest.mark.parametrize("seed", [nightly_if(True, 12), 15])  # of these verify's twin once forgot what is handed out
def test_a_random_program_within_a_budget(seed: int) -> None:
    _judged(generate(seed, wide=False), setups_of(seed, count=1, among=WITHIN_BUDGETS))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(500))
def test_a_random_program_within_budgets(seed: int) -> None:
    _judged(generate(seed), setups_of(seed, among=WITHIN_BUDGETS))


def _judged(program: Any, setups: List[Setup]) -> None:
    try:
        found = differences(program, setups)
    except Invalid as why:
        pytest.skip(f"Theano itself does not take it: {why}")
    assert not found


# --- when it does nothing --------------------------------------------------------------------------------------------


def _must_not_be_asked(*rest: Any, **more: Any) -> Any:
    raise AssertionError("nothing was asked for")


@pytest.mark.parametrize(
    "mode",
    [
        lambda: theano_memopt.mode(base()),
        lambda: within("0.5").excluding("mem_recompute"),
        lambda: within("0.5").excluding("mem_reuse"),
        lambda: within("0.5", order="host"),
    ],
)
def test_where_nothing_is_asked_for_nothing_is_done(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "read_program", _must_not_be_asked)
    function, _ = net(mode())
    assert not clones(function)


def test_a_budget_above_the_ordered_peak(ordered_peak: int, caplog: pytest.LogCaptureFixture) -> None:
    function, _ = net(within(ordered_peak + 1))
    assert not clones(function) and not caplog.records
    outcome = feature_of(function.maker.fgraph).outcome  # type: ignore[union-attr]
    assert outcome is not None and outcome.status == "fits" and "nothing has to run again" in outcome.note


def test_the_body_of_a_loop_is_left_as_it_is() -> None:
    x = theano_memopt.hint(tt.fmatrix("x"), (20, 8))
    states, _ = theano.scan(lambda row, h: tt.tanh(tt.tanh(row + h) * h), sequences=[x], outputs_info=[tt.zeros((8,), "float32")])
    function = theano.function([x], states[-1].sum(), mode=within("0.5"))
    (scan,) = [node for node in function.maker.fgraph.apply_nodes if isinstance(node.op, theano.scan_module.scan_op.Scan)]
    assert feature_of(scan.op.fn.maker.fgraph).outcome is None  # type: ignore[union-attr]


def test_random_numbers_are_drawn_once() -> None:
    function, weights = net(within("0.5"), draws=True)
    assert clones(function) and not any(repeats.why_once(node) for node in clones(function))
    assert story(function, weights) == story(*net(base().excluding("mem_reuse", "mem_recompute"), draws=True))


# --- budgets that cannot be met --------------------------------------------------------------------------------------


def test_one_warning_says_what_is_possible(caplog: pytest.LogCaptureFixture, stock: List[bytes]) -> None:
    with caplog.at_level(logging.WARNING, "theano.mem_reuse"):
        function, weights = net(within("1KiB"))
    (record,) = caplog.records
    said = record.getMessage()
    assert ": asked 1.0 KiB, lowest found " in said and "no schedule at all can go below" in said and "holds that" in said
    assert clones(function) and story(function, weights) == stock


def test_an_error_if_theano_is_told_to_raise() -> None:
    with theano.configparser.change_flags(on_opt_error="raise"), pytest.raises(BudgetNotMet, match="asked 1.0 KiB, lowest found"):
        net(within("1KiB"))


@pytest.mark.parametrize(("name", "value"), [("budget", "half"), ("budget", "0"), ("budget", "-1"), ("budget", "5 parsecs"), ("extra_time", "-0.1")])
def test_a_bad_value_is_theanos_own_error(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f'configuration variable "mem_reuse.{name}"'):
        theano_memopt.mode(base(), **{name: value})
    with pytest.raises(ValueError, match=f'configuration variable "mem_reuse.{name}"'):
        setattr(theano.config.mem_reuse, name, value)


def test_flags_hold_for_whatever_is_compiled(ordered_peak: int) -> None:
    with theano.configparser.change_flags({"mem_reuse.budget": "0.7"}):
        function, _ = net(base())
    assert theano_memopt.plan_of(function).schedule.peak <= 0.7 * ordered_peak


# --- what is said about it ---------------------------------------------------------------------------------------------


def test_explain_says_what_runs_again_and_what_it_would_be_without(tmp_path: Any, ordered_peak: int) -> None:
    function, _ = net(within("0.7"))
    stock = theano_memopt.explain(net(theano_memopt.mode(base()))[0], BATCH)
    report = theano_memopt.explain(function, BATCH)
    assert stock.repeats is None and report.repeats is not None
    assert (report.host_peak, report.peak_of("toposort")) == (stock.host_peak, stock.peak_of("toposort"))  # of the graph without repeats
    assert report.repeats.ordered_peak == ordered_peak >= report.peak >= report.repeats.floor
    assert sum(row.times for row in report.repeats.again) == len(clones(function))
    assert report.repeats.extra_seconds == pytest.approx(sum(report.repeats.program.tasks[t].seconds for t in _tasks_again(function)))
    told = str(report)
    assert "a budget of 0.7 of the least peak of any order" in told and "planned at the sizes that were known while compiling" in told
    assert all(row.operation in told for row in report.repeats.again[:3]) and "test_recompute.py" in told.split("runs again")[1]
    data = json.loads(Path(report.to_json(str(tmp_path / "r.json"))).read_text())["repeats"]
    assert data["ordered_peak_bytes"] == ordered_peak and len(data["again"]) == len(report.repeats.again) and len(data["curve"]) >= 2
    page = Path(report.to_html(str(tmp_path / "r.html"))).read_text()
    assert "Results that run again" in page and "peak against extra time" in page


def _tasks_again(function: Any) -> List[int]:
    """For each clone its original, as a task of the graph without clones, whose order is that of the originals."""
    from theano_memopt.hosts.theano.explain.repeats import Once

    once = Once(function.maker.fgraph, feature_of(function.maker.fgraph))  # type: ignore[arg-type]
    task = {repeats.mark_of(node): t for t, node in enumerate(once.nodes)}
    return [task[repeats.mark_of(node)[0], 0] for node in clones(function)]  # type: ignore[index]


def test_a_measured_call_says_what_running_again_took() -> None:
    comparison = theano_memopt.profile(net(within("0.7"))[0], BATCH)
    assert comparison.report.measured_extra > 0  # type: ignore[operator]
    assert "in the measured call" in str(comparison.report)


def test_a_profile_stands_for_the_estimates(stock: List[bytes]) -> None:
    measured = theano_memopt.profile(net(theano_memopt.mode(base()))[0], BATCH)
    function, weights = net(within("0.7", profile=measured))
    outcome, report = feature_of(function.maker.fgraph).outcome, theano_memopt.explain(function, BATCH)  # type: ignore[union-attr]
    assert outcome is not None and outcome.costs == measured.profile.costs and clones(function)
    assert story(function, weights) == stock
    times = dict(measured.profile.costs)
    once = report.repeats.program  # type: ignore[union-attr]
    assert sum(task.seconds in times.values() for task in once.tasks) > 0.8 * len(once.tasks)
    assert "by the profile that was given" in str(report)


def test_a_profile_of_another_function_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    x = tt.dvector("x")
    other = theano_memopt.profile(theano.function([x], tt.sort(x), mode=theano_memopt.mode(base())), np.ones(3))
    with caplog.at_level(logging.WARNING, "theano.mem_reuse"):
        function, _ = net(within("0.7", profile=other))
    assert "the profile knows no task of this function" in caplog.records[0].getMessage() and not clones(function)


def test_assumed_sizes_are_called_so() -> None:
    x = tt.fmatrix("x")
    h = x
    for _ in range(5):
        h = tt.tanh(h * 2)
    function = theano.function([x], tt.grad((h**2).sum(), x), mode=within("0.8", "c|py"))
    assert "planned at assumed sizes" in str(theano_memopt.explain(function))


def test_a_failure_leaves_the_function_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stock: List[bytes]) -> None:
    monkeypatch.setattr(host, "read_program", _must_not_be_asked)
    with caplog.at_level(logging.WARNING, "theano.mem_reuse"):
        function, weights = net(within("0.7"))
    (record,) = caplog.records
    assert "nothing runs again in it" in record.getMessage() and story(function, weights) == stock


# --- the checks are checked ------------------------------------------------------------------------------------------


def _planned(draws: bool = False) -> Tuple[Any, Any, Any]:
    """A graph without the pass, as the optimization would find it, its reading, and a plan for half of its peak."""
    function, _ = net(base().excluding("mem_reuse", "mem_recompute"), draws=draws)
    fgraph = function.maker.fgraph
    fgraph.attach_feature(gof.toolbox.ReplaceValidate())
    sizes = Sizes(fgraph, fgraph.toposort(), 128)
    reading = read_program(fgraph, fgraph.toposort(), {}, sizes.shape_of)
    return fgraph, reading, plan_recompute(reading.program, budget_share=0.5)


def test_a_clone_of_a_random_op_is_refused() -> None:
    fgraph, reading, plan = _planned(draws=True)
    drawn = next(t for t, reason in enumerate(reading.why_once) if "random" in reason)
    forged = replace(plan, sequence=(*plan.sequence, drawn))
    with pytest.raises(Rejected, match="not-again: task .*mrg_uniform"):
        repeats.rewritten(fgraph, reading, forged)
    # Were the planner told that it may: the check of the graph knows better.
    before, outputs = repeats.shape_of_graph(fgraph), tuple(fgraph.outputs)
    node = reading.nodes[drawn]
    clone = node.clone_with_new_inputs(list(node.inputs))
    made = repeats.Rewritten(outputs=list(fgraph.outputs), clones={clone: node})
    (reader, i), *_ = next(v.clients for v in node.outputs if v.clients and v.clients[0][0] != "output")
    made.inputs[reader] = [*reader.inputs[:i], clone.outputs[reader.inputs[i].index], *reader.inputs[i + 1 :]]
    repeats.put_in(fgraph, made)
    with pytest.raises(Rejected, match="not-again: mrg_uniform.*random numbers"):
        repeats.check_repeats(fgraph, before, outputs, made)


def test_a_sequence_that_leaves_out_a_rerun_is_refused() -> None:
    fgraph, reading, plan = _planned()
    again = next(step for step, task in enumerate(plan.sequence) if task in plan.sequence[:step])
    forged = replace(plan, sequence=plan.sequence[:again] + plan.sequence[again + 1 :])
    with pytest.raises(Rejected, match="overwritten|wrong-peak|not-there"):
        repeats.rewritten(fgraph, reading, forged)


def test_a_clone_that_reads_what_was_overwritten_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run of a tanh in place is made to read what the first run has overwritten, not the product that was made again."""
    fgraph, reading, plan = _planned()
    sequence, sources = plan.sequence, [dict(read) for read in plan.instances.sources]
    run, v = next(
        (run, v)
        for run, task in enumerate(sequence)
        for v in sources[run]
        if task in sequence[:run] and plan.program.overwriter[v] == task and sources[sequence.index(task)][v] != sources[run][v]
    )
    sources[run][v] = sources[sequence.index(sequence[run])][v]
    forged = replace(plan, instances=replace(plan.instances, sources=tuple(tuple(read.items()) for read in sources)))
    with pytest.raises(Rejected, match="another-graph"):
        repeats.rewritten(fgraph, reading, forged)
    # Were that not looked at: Theano's destroy handler knows better, and the graph is put back.
    before = repeats.shape_of_graph(fgraph)
    monkeypatch.setattr(repeats, "check_recomputed", lambda plan: None)
    with pytest.raises(host.Undone, match="Multiple destroyers"):
        host._rewrite(fgraph, SETTINGS, reading, forged, None)
    assert repeats.shape_of_graph(fgraph) == before


def test_a_rewrite_that_gains_nothing_is_undone(monkeypatch: pytest.MonkeyPatch, stock: List[bytes]) -> None:
    monkeypatch.setattr(host, "_planned_peak", lambda *rest: 1)
    function, weights = net(within("0.7"))
    outcome = feature_of(function.maker.fgraph).outcome  # type: ignore[union-attr]
    assert not clones(function) and "would not lower the peak" in outcome.note and outcome.peak == 1
    assert story(function, weights) == stock


def test_verify_finds_a_clone_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    original = repeats.rewritten

    def wrong(fgraph: Any, reading: Any, plan: Any) -> Any:
        made = original(fgraph, reading, plan)
        for clone in made.clones:
            if clone.inputs[-1] in fgraph.inputs[1:]:  # the weights of a product
                clone.inputs[-1] = next(v for v in fgraph.inputs[1:] if v is not clone.inputs[-1])
        return made

    monkeypatch.setattr(host, "rewritten", wrong)
    monkeypatch.setattr(host, "check_repeats", lambda *rest: None)
    function, _ = net(within("0.7", verify=True))
    with pytest.raises(Corrupted, match="differs from the one without the pass"):
        function(BATCH)


# --- settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("none", [None, "none", "None", ""])
def test_a_global_budget_is_turned_off_for_one_function(none: Any, ordered_peak: int) -> None:
    with theano.configparser.change_flags({"mem_reuse.budget": "0.7"}):
        function, _ = net(within(none))
        other, _ = net(within("0.7"))
    assert not clones(function) and theano_memopt.plan_of(function).schedule.peak == ordered_peak
    assert clones(other)
    with theano.configparser.change_flags({"mem_reuse.budget": "none"}):
        assert theano.config.mem_reuse.budget == "" and not clones(net(base())[0])


def test_ways_to_write_a_goal(ordered_peak: int) -> None:
    for budget in (0.7, "70%", ".7", int(0.7 * ordered_peak), np.int64(0.7 * ordered_peak), f"{int(0.7 * ordered_peak)}B"):
        assert theano_memopt.plan_of(net(within(budget))[0]).schedule.peak <= 0.7 * ordered_peak, budget
    assert goal_of(settings({"extra_time": "2 %"})) == goal_of(settings({"extra_time": 0.02})) == Goal(None, 0.02)
    assert goal_of(settings({"budget": 4096})).budget == Budget(None, 4096)
    assert goal_of(settings({"budget": 1.0})).budget == Budget(1.0, None)


ALLOWED = [
    ("budget", 2.0, "a share is at most 1"),
    ("budget", "2", "write a share like 0.5 or 50%, or bytes with a unit like 500MB"),
    ("budget", True, "write a share"),
    ("effort", "lots", "a number of states, 0 or more"),
    ("effort", -1, "a number of states, 0 or more"),
    ("default_dim", 0, "a length, 1 or more"),
    ("max_nodes", 1.5, "a number of nodes, 0 or more"),
    ("extra_time", -1, "a share of the time, 0 or more, like 0.02 or 2%"),
    ("extra_time", "soon", "a share of the time, 0 or more, like 0.02 or 2%"),
    ("verify", "perhaps", "True or False"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), ALLOWED)
def test_one_line_with_the_name_of_the_flag_and_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    for way in (lambda: theano_memopt.mode(base(), **{name: value}), lambda: setattr(theano.config.mem_reuse, name, value)):
        with pytest.raises(ValueError, match=f'configuration variable "mem_reuse.{name}"') as caught:
            way()
        assert allowed in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_value_in_the_environment_says_what_is_allowed() -> None:
    environment = {**os.environ, "THEANO_FLAGS": os.environ.get("THEANO_FLAGS", "") + ",mem_reuse.extra_time=-1"}
    done = subprocess.run([sys.executable, "-c", "import theano_memopt, theano"], capture_output=True, text=True, env=environment)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode and 'variable "mem_reuse.extra_time"' in last and "0 or more, like 0.02 or 2%" in last


# --- who is told ---------------------------------------------------------------------------------------------------------


def test_a_warning_names_the_function_and_its_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "theano.mem_reuse"):
        x = theano_memopt.hint(tt.dmatrix("x"), (300, 300))
        theano.function([x], tt.exp(x), mode=within("1KiB"), name="grow")
        theano.function([x], tt.exp(x), mode=within("1KiB"))
    named, unnamed = [record.getMessage() for record in caplog.records]
    assert re.match(r"mem_reuse\.budget: grow \(tests/theano/test_recompute\.py:\d+\): asked 1\.0 KiB", named)
    assert re.match(r"mem_reuse\.budget: tests/theano/test_recompute\.py:\d+: asked 1\.0 KiB", unnamed)


def test_at_the_first_call_too(caplog: pytest.LogCaptureFixture) -> None:
    x = tt.dmatrix("x")
    function = theano.function([x], tt.exp(x), mode=within("1KiB"), name="grow")
    with caplog.at_level(logging.WARNING, "theano.mem_reuse"):
        theano_memopt.profile(function, np.ones((300, 300)))
        assert not caplog.records
        pickle.loads(pickle.dumps(function))(np.ones((300, 300)))
        function(np.ones((300, 300)))
    assert [record.getMessage().split(" (tests/")[0] for record in caplog.records] == ["mem_reuse.budget: grow"] * 2


def test_nothing_is_said_of_what_theano_compiles_for_itself_nor_of_what_is_tiny(caplog: pytest.LogCaptureFixture) -> None:
    """To make a random stream MRG compiles functions of its own. A share of the peak is meant for functions that have one."""
    with theano.configparser.change_flags({"mem_reuse.budget": "0.5"}), caplog.at_level(logging.INFO, "theano.mem_reuse"):
        streams = MRG_RandomStreams(3)
        streams.inc_rstate()
        x = theano_memopt.hint(tt.dvector("x"), (40,))
        theano.function([x], tt.exp(x), mode=base())
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert any("lowest found" in record.getMessage() for record in caplog.records)
        with theano.configparser.change_flags(on_opt_error="raise"):
            theano.function([x], tt.exp(x), mode=base())
        big = theano_memopt.hint(tt.dvector("x"), (400_000,))
        theano.function([big], tt.exp(big), mode=base())  # the same, and worth a word
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


# --- advice --------------------------------------------------------------------------------------------------------------


def small(mode: Any, shape: Any = (200, 50)) -> Any:
    """Four layers that share a matrix; peaks of some hundred thousand bytes."""
    x, w = tt.dmatrix("x"), theano.shared(np.full((50, 50), 0.01), "W")
    h = x if shape is None else theano_memopt.hint(x, shape)
    for _ in range(4):
        h = tt.tanh(tt.dot(h, w)) * 2
    loss = tt.sqr(h).mean()
    return theano.function([x], loss, updates=[(w, w - 0.1 * tt.grad(loss, w))], mode=mode)


def test_a_small_function_is_told_of_repeats_that_gain_a_tenth() -> None:
    report = theano_memopt.explain(small(theano_memopt.mode(base())))
    (found,) = [one for one in report.advice if "extra_time=0.1" in one.text]
    assert report.peak < 2**20 and found.saves is not None and found.saves >= 0.1 * report.peak


def test_nothing_is_said_to_help_only_where_it_was_looked_for() -> None:
    function = small(theano_memopt.mode(base(), budget=0.8))
    report = theano_memopt.explain(function)
    assert report.may_repeat and "results that run again more often may" in report.nothing_to_do
    lowest = theano_memopt.explain(small(theano_memopt.mode(base(), budget=0.01)))
    assert not lowest.may_repeat and lowest.nothing_to_do == "nothing that is known here would help"
    guessed = theano_memopt.explain(small(theano_memopt.mode(base()), None))
    assert guessed.may_repeat and guessed.nothing_to_do.startswith("no order does better; results that run again may")
    kept = theano_memopt.explain(small(theano_memopt.mode(base(), order="host")))
    assert not kept.may_repeat


def test_what_is_decided_at_the_first_call_is_not_advised_before_it() -> None:
    function = small(theano_memopt.mode(base(), extra_time=0.1), None)
    first = theano_memopt.explain(function).advice[0]
    assert "at most 10 % more time is decided at the first call" in first.text and first.saves is None
    for report in (theano_memopt.explain(function), theano_memopt.explain(function, (200, 50))):
        assert not any("extra_time" in line for one in report.advice for line in one.paste)
        assert "What to do" in str(report)


def test_with_lazy_ops_too_a_budget_is_a_share_of_the_peak_that_the_best_order_has() -> None:
    """Dropout as Keras has it: an IfElse hands out one of two results, and holds the other no longer than its own readers do."""
    training, x = tt.fscalar("training"), theano_memopt.hint(tt.fmatrix("x"), BATCH.shape)
    weights = [theano.shared(np.eye(16, dtype="float32")) for _ in range(6)]
    h = x
    for w in weights:
        h = tt.tanh(tt.dot(h, w))
        h = ifelse(training > 0, h * (h > 0.1), tt.exp(h))
    loss = (h**2).sum()
    fgraph = theano.function([training, x], [loss, *tt.grad(loss, weights)], mode=base().excluding("mem_reuse", "mem_recompute")).maker.fgraph
    nodes = fgraph.toposort()
    program = read_program(fgraph, nodes, {}, Sizes(fgraph, nodes, 128).shape_of).program
    least = minimise_peak(read(fgraph, nodes, {}, 128).graph).peak
    assert plan_recompute(program, extra_time=0).ordered_peak == pytest.approx(least, rel=0.02)

"""explain and profile: every figure against a measured call, and what bad use is told."""

from __future__ import annotations

import functools
import inspect
import linecache
import re
import sys
import tracemalloc
from types import SimpleNamespace
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano import gof
from theano.compile.mode import Mode
from theano.tensor.signal.pool import pool_2d

import theano_memopt
from tests.theano.both import floats, with_pass, without_pass
from theano_memopt.demo import models as demo_models
from theano_memopt.hosts.theano.explain import BadUse
from theano_memopt.hosts.theano.explain import advice as host_advice
from theano_memopt.hosts.theano.install import blas
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.measure import peaks
from theano_memopt.planner.arena import check_arena
from theano_memopt.planner.certificate import Rejected, check_certificate
from theano_memopt.planner.plan import check_plan, plan_from_json, plan_to_json
from theano_memopt.planner.slots import Slots, check_slots
from theano_memopt.report import run_table
from theano_memopt.report.json_form import report_to_json
from theano_memopt.report.page import page_data

SIZE = 4
PYTHON_OBJECTS = 16 * 1024
MODELS = ("logreg", "mlp", "lenet", "branches")


@functools.lru_cache(maxsize=None)
def compiled(name: str, linker: str = "cvm", stock: bool = False) -> Tuple[Any, Any]:
    model = demo_models.build(name, SIZE)
    return model, model.compile(without_pass(linker) if stock else with_pass(linker))


# --- peaks and storage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_peaks_are_those_that_are_measured(name: str) -> None:
    """The order in force on our function; the order that the CVM really runs on the one without the pass."""
    model, ours = compiled(name)
    _, stock = compiled(name, stock=True)
    report = theano_memopt.explain(ours, *model.batch)
    assert [word for word, _ in report.host_orders] == ["order that the CVM really runs", "toposort"]
    for function, peak in ((ours, report.peak), (stock, report.host_peak)):
        own = max(probe.workspaces(function, *model.batch).values(), default=0)
        held = probe.held_by_call(function, *model.batch).peak
        assert 0.98 * peak <= held <= 1.02 * (peak + own) + PYTHON_OBJECTS


def test_the_toposort_figure_is_measured_on_a_machine_that_runs_toposort() -> None:
    model, _ = compiled("mlp")
    _, stock = compiled("mlp", "vm", stock=True)
    report = theano_memopt.explain(compiled("mlp")[1], *model.batch)
    held, own = probe.held_by_call(stock, *model.batch).peak, max(probe.workspaces(stock, *model.batch).values(), default=0)
    assert 0.98 * report.peak_of("toposort") <= held <= 1.02 * (report.peak_of("toposort") + own) + PYTHON_OBJECTS
    assert report.peak_of("toposort") != report.host_peak  # or the test could not tell the two apart


@pytest.mark.parametrize("name", MODELS)
def test_the_minimum_is_certified_and_the_plan_in_the_json_holds(name: str) -> None:
    model, function = compiled(name)
    report = theano_memopt.explain(function, *model.batch)
    check_certificate(report.graph, report.plan.schedule)
    assert report.floor <= report.peak <= report.host_peak
    plan = plan_from_json(report_to_json(report)["plan"])
    check_certificate(plan.graph, plan.schedule)
    assert isinstance(report.plan.storage, Slots)
    check_slots(report.graph, report.order, report.plan.storage)


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
@pytest.mark.quick
@pytest.mark.blas
def test_both_settings_of_gc_are_told_and_the_kept_one_is_measured(linker: str) -> None:
    model, function = compiled("mlp", linker)
    report = theano_memopt.explain(function, *model.batch)
    rows = {r.setting: r for r in report.reserved}
    assert report.reserved[0].setting == ("allow_gc=True" if linker == "cvm" else "allow_gc=False")
    kept = probe.held_by_call(compiled("mlp", "cvm_nogc")[1], *model.batch).reserved
    stock = probe.held_by_call(compiled("mlp", "cvm_nogc", stock=True)[1], *model.batch).reserved
    assert 0.98 * kept - PYTHON_OBJECTS <= rows["allow_gc=False"].bytes <= 1.02 * kept + PYTHON_OBJECTS
    assert 0.98 * stock - PYTHON_OBJECTS <= rows["allow_gc=False"].without <= 1.02 * stock + PYTHON_OBJECTS
    assert rows["allow_gc=False"].bytes < 0.8 * rows["allow_gc=False"].without
    assert rows["allow_gc=True"].bytes == report.peak and rows["allow_gc=True"].without == report.host_peak


@pytest.mark.quick
def test_without_arguments_it_is_the_plan_itself() -> None:
    _, function = compiled("mlp")
    report = theano_memopt.explain(function)
    plan = theano_memopt.plan_of(function)
    assert (report.plan.graph, report.plan.schedule, report.plan.storage) == (plan.graph, plan.schedule, plan.storage)
    check_plan(report.plan)


@pytest.mark.quick
def test_shapes_are_as_good_as_arrays() -> None:
    model, function = compiled("lenet")
    by_shape = theano_memopt.explain(function, *(data.shape for data in model.batch))
    assert by_shape == theano_memopt.explain(function, *model.batch)
    twice = theano_memopt.explain(function, *((2 * data.shape[0], *data.shape[1:]) for data in model.batch))
    assert by_shape.peak < twice.peak < 2.1 * by_shape.peak


@pytest.mark.quick
def test_asking_changes_nothing() -> None:
    model, function = compiled("mlp")
    before = theano_memopt.plan_of(function)
    tags = [dict(v.tag.__dict__) for v in function.maker.fgraph.inputs]
    theano_memopt.explain(function, *((7, *data.shape[1:]) for data in model.batch))
    assert theano_memopt.plan_of(function) == before
    assert [dict(v.tag.__dict__) for v in function.maker.fgraph.inputs] == tags


def test_an_order_planned_for_other_sizes_is_told_as_such() -> None:
    """Two branches, of which the larger should run first: which one that is depends on the lengths."""
    x, y = tt.dvector("x"), tt.dvector("y")

    def branch(v: Any) -> Any:
        wide = tt.outer(v, v)
        return tt.dot(wide, wide).sum(axis=0)

    theano_memopt.hint(x, (8,))
    theano_memopt.hint(y, (200,))
    function = theano.function([x, y], [branch(x), branch(y)], mode=with_pass())
    planned = theano_memopt.explain(function, (8,), (200,))
    other = theano_memopt.explain(function, (200,), (8,))
    assert planned.peak == planned.least and not [note for note in planned.notes if note != blas.offer()] and planned.best is None
    assert other.best is not None and other.best.peak == other.least < other.peak
    assert any(
        advice.saves == other.peak - other.best.peak and advice.paste == ("theano_memopt.hint(x, (200,))", "theano_memopt.hint(y, (8,))")
        for advice in other.advice
    )
    assert "above the floor" in other.gap and "another order is known to reach the floor" in other.verdict
    assert re.search(rf"best order known: .*{other.best.peak:,} .* at the floor", str(other))


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_the_line_of_user_code_and_the_shape_are_named() -> None:
    x = tt.fmatrix("x")
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    large = tt.dot(x, x.T)
    function = theano.function([x], tt.nnet.softmax(large).sum(axis=0), mode=with_pass())
    report = theano_memopt.explain(function, (300, 20))
    made = [report.known_of(b).made_at for b in report.alive_at_peak if report.known_of(b).type == "float32 300x300"]
    assert f"tests/theano/test_explain.py:{line}  large = tt.dot(x, x.T)" in made
    assert "large = tt.dot(x, x.T)" in str(report) and "float32 300x300" in str(report)


def test_why_a_large_variable_is_alone() -> None:
    x = tt.fmatrix("x")
    square = tt.dot(x, x)
    function = theano.function([x], [square, tt.nnet.softmax(square).sum(axis=0)], mode=with_pass())
    report = theano_memopt.explain(function, (200, 200))
    reasons = {report.graph.buffers[b].pinned: report.known_of(b).alone for b in report.largest[:2]}
    assert reasons[True] == "it is handed to the caller, or becomes a new value of a shared variable"
    assert "no other variable" in reasons[False]


def test_storage_off_is_the_reason_then() -> None:
    x = tt.fmatrix("x")
    h = x
    for _ in range(4):
        h = tt.dot(h, x)
    for storage, alone in (("off", True), ("share", False)):
        function = theano.function([x], h.sum(axis=0), mode=with_pass("cvm_nogc", storage=storage))
        report = theano_memopt.explain(function, (200, 200))
        assert all(("storage=off" in report.known_of(b).alone) == alone for b in report.largest[:2])
        assert any(report.companions(b) for b in report.largest[:3]) != alone


def test_a_scan_that_owns_the_peak_is_named_with_what_would_help() -> None:
    x = tt.fmatrix("x")
    states, _ = theano.scan(lambda h: tt.tanh(h * 2), outputs_info=[x], n_steps=50)
    function = theano.function([x], states, mode=with_pass())
    report = theano_memopt.explain(function, (100, 100))
    assert any("The Scan" in sentence and "a Scan over parts" in sentence for sentence in report.owners), report.owners
    assert any("a Scan over parts" in sentence for sentence in str(report).replace("\n", " ").split("Task "))


@pytest.mark.nightly
def test_what_is_said_to_help_a_scan_does_help() -> None:
    """A gradient over a Scan of parts keeps less than one over a Scan of steps; theano.scan_checkpoints would do that, and fails."""
    x, w = tt.dtensor3("x"), theano.shared(0.5 * np.eye(8), name="w")

    def step(row: Any, state: Any) -> Any:
        return tt.tanh(tt.dot(state, w) + row)

    def part(rows: Any, state: Any) -> Any:
        return theano.scan(step, rows, state)[0][-1]

    plain, _ = theano.scan(step, x, tt.zeros_like(x[0]))
    parts, _ = theano.scan(part, x.reshape((x.shape[0] // 10, 10, x.shape[1], x.shape[2])), tt.zeros_like(x[0]))
    batch = floats(100, 16, 8)
    costs = [(states[-1] ** 2).sum() for states in (plain, parts)]
    first, second = (theano.function([x], [cost, tt.grad(cost, w)], mode=with_pass()) for cost in costs)
    for one, two in zip(first(batch), second(batch)):
        np.testing.assert_allclose(one, two)
    saved = [probe.held_by_call(function, batch).peak for function in (first, second)]
    assert saved[1] < 0.6 * saved[0]  # what runs inside the Scans is measured, too
    with pytest.raises(TypeError):
        theano.scan_checkpoints(step, sequences=x, outputs_info=[tt.zeros_like(x[0])], save_every_N=10, padding=False)


def test_the_gradient_of_an_index_is_told_how_to_be_small() -> None:
    table, rows = theano.shared(floats(3000, 30), name="table"), tt.ivector("rows")
    cost = (table[rows] ** 2).sum()
    function = theano.function([rows], cost, updates=[(table, table - tt.grad(cost, table))], mode=with_pass())
    report = theano_memopt.explain(function, (4,))
    assert any("rows that are read" in sentence for sentence in report.owners), report.owners
    read = table[rows]
    cost = (read**2).sum()
    small = theano.function([rows], cost, updates=[(table, tt.inc_subtensor(read, -tt.grad(cost, read)))], mode=with_pass())
    assert theano_memopt.explain(small, (4,)).peak < report.peak / 100  # it does help


def test_the_function_inside_a_scan_is_sized_from_outside() -> None:
    x = tt.fmatrix("x")
    states, _ = theano.scan(lambda row, w: tt.nnet.softmax(tt.outer(row, row)).sum(axis=0), sequences=[x], non_sequences=[x])
    function = theano.function([x], states.sum(), mode=with_pass())
    small, large = (theano_memopt.explain(function, (5, n)) for n in (100, 200))
    inside = [max(work.own_peak for work in report.work) for report in (small, large)]
    assert inside[1] > 3.5 * inside[0] > 0
    (node,) = [n for n in function.maker.fgraph.apply_nodes if hasattr(n.op, "fn") and "Scan" in type(n.op).__name__]
    assert theano_memopt.explain(node).name and theano_memopt.plan_of(node)
    measured = max(probe.workspaces(function, floats(5, 200).astype("float32")).values())
    assert 0.9 * inside[1] <= measured <= 1.1 * inside[1] + PYTHON_OBJECTS


# --- what to do ------------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_the_lines_to_paste_make_the_sizes_known() -> None:
    x, labels = tt.matrix("x"), tt.vector("the labels")
    cost = (tt.nnet.softmax(tt.dot(x, x.T)) * labels).sum()
    advice, *_ = theano_memopt.explain(theano.function([x, labels], cost, mode=with_pass())).advice
    assert advice.saves is None and advice.paste == ("theano_memopt.hint(x, (..., ...))", "theano_memopt.hint(the_labels, (...,))")
    names = {"theano_memopt": theano_memopt, "x": x, "the_labels": labels}
    with pytest.raises(ValueError, match=r"a length, or None, belongs in the place of each `\.\.\.`"):
        exec("\n".join(advice.paste), names)
    exec("\n".join(advice.paste).replace("...", "40"), names)
    report = theano_memopt.explain(theano.function([x, labels], cost, mode=with_pass()))
    assert not report.graph.sizes_assumed and not any(advice.paste for advice in report.advice)


def test_what_is_kept_is_advised_away_and_is_gone_then() -> None:
    model, function = compiled("mlp", "cvm_nogc")
    report = theano_memopt.explain(function, *model.batch)
    saves = [advice.saves for advice in report.advice if "allow_gc=True" in advice.text]
    assert saves == [report.kept] and report.kept > 0
    given_back = theano_memopt.explain(compiled("mlp", "cvm")[1], *model.batch)
    assert given_back.kept == 0 and probe.held_by_call(compiled("mlp", "cvm")[1], *model.batch).reserved < PYTHON_OBJECTS
    assert not any("allow_gc" in advice.text for advice in given_back.advice)


@pytest.mark.parametrize(("flag", "value"), [("storage", "off"), ("order", "host")])
def test_a_flag_that_costs_memory_is_advised_away_with_what_it_costs(flag: str, value: str) -> None:
    model = demo_models.build("mlp", SIZE)
    for variable, data in zip(model.inputs, model.batch):
        theano_memopt.hint(variable, data.shape)
    kept, better = (model.compile(with_pass("cvm_nogc", **{flag: setting})) for setting in (value, "auto"))
    for _ in range(3):
        better(*model.batch)  # an arena is there from the second call on
    report, other = (theano_memopt.explain(function, *model.batch) for function in (kept, better))
    (saves,) = [advice.saves for advice in report.advice if f"mem_reuse.{flag}=auto" in advice.text]
    gained = report.kept - other.kept if flag == "storage" else report.peak - other.peak
    assert 0 < saves <= gained and (flag == "storage" or saves == gained)
    assert not any(f"mem_reuse.{flag}" in advice.text for advice in other.advice)


@pytest.mark.nightly
def test_results_that_could_run_again_are_advised_with_about_what_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = demo_models.build("attention", SIZE)
    for variable, data in zip(model.inputs, model.batch):
        theano_memopt.hint(variable, data.shape)
    function = model.compile(with_pass())
    assert any("run again" in advice.text for advice in theano_memopt.explain(function, *model.batch).advice)
    monkeypatch.setattr(host_advice, "WORTH", 1)
    assert not any("run again" in advice.text for advice in theano_memopt.explain(function, *model.batch).advice)  # too little of a small peak
    monkeypatch.setattr(host_advice, "LARGE", 0)
    report = theano_memopt.explain(function, *model.batch)
    (found,) = [advice for advice in report.advice if "run again" in advice.text]
    (line,) = found.paste
    again = eval(line[line.index("mode=") + len("mode=") : -1], {"theano_memopt": theano_memopt})
    other = theano_memopt.explain(model.compile(again), *model.batch)
    assert 0 < found.saves <= 1.1 * (report.peak - other.peak)
    assert not any("run again" in advice.text for advice in other.advice)  # asked for already


# --- all that a call needs -------------------------------------------------------------------------------------------


def test_parameters_inputs_and_results_are_counted_as_they_are() -> None:
    x = tt.fmatrix("x")
    weights, spare = (theano.shared(np.ones((30, n), "float32")) for n in (20, 5))
    out = tt.dot(x, weights)
    function = theano.function([x], [out, out.sum()], updates=[(spare, spare * 2)], mode=with_pass())
    data = np.ones((40, 30), "float32")
    report = theano_memopt.explain(function, data)
    needs = {need.what: need.bytes for need in report.needs}
    assert needs["parameters and other shared variables"] == sum(v.get_value().nbytes for v in (weights, spare))
    assert needs["inputs"] == data.nbytes
    results, made, workspace = [need.bytes for need in report.needs[3:]]
    assert results + made + workspace == report.peak
    comparison = theano_memopt.profile(function, data)
    measured = comparison.report.needs[-1]
    assert measured.bytes == comparison.profile.workspace and "measured" in measured.what and "planned" in report.needs[-1].what
    figures = report_to_json(comparison.report)
    assert [need["bytes"] for need in figures["needs"]] == [*(need.bytes for need in report.needs[:-1]), measured.bytes]
    assert sum(line["bytes"] for line in figures["by_line"]) == report.peak == sum(line.bytes for line in comparison.by_line())


def test_the_workspace_of_a_convolution_at_the_peak_is_counted_as_such() -> None:
    model, function = compiled("lenet")
    report = theano_memopt.explain(function, *model.batch)
    at = [b for b in report.alive_at_peak if report.graph.buffers[b].is_workspace]
    assert report.needs[-1].bytes == sum(report.graph.buffers[b].size for b in at)
    assert sum(need.bytes for need in report.needs[3:]) == report.peak


# --- lines of code ---------------------------------------------------------------------------------------------------

CODE = "import theano.tensor as tt\nx = tt.fmatrix('x')\ny = tt.exp(tt.dot(x, x))\n"


@pytest.mark.parametrize(
    ("file", "known", "expected"),
    [
        ("<string>", False, r"<string>:3  \(code without a file, run at tests/theano/test_explain.py:\d+\)"),
        ("<string>", True, r"<string>:3  y = tt.exp\(tt.dot\(x, x\)\)"),
        ("<ipython-input-7-0a1b2c>", True, r"cell 7:3  y = .*"),
        ("/tmp/ipykernel_11/123.py", True, r"cell 9:3  y = .*"),
        ("/tmp/ipykernel_11/124.py", True, r"a cell:3  y = .*"),
    ],
)
@pytest.mark.quick
def test_code_without_a_file_and_cells_of_a_notebook(file: str, known: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if known:
        monkeypatch.setitem(linecache.cache, file, (len(CODE), None, CODE.splitlines(True), file))
    kernel = SimpleNamespace(compile=SimpleNamespace(_filename_map={"/tmp/ipykernel_11/123.py": 9}))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    names: Dict[str, Any] = {}
    exec(compile(CODE, file, "exec"), names)
    report = theano_memopt.explain(theano.function([names["x"]], names["y"], mode=with_pass()), (5, 5))
    (line,) = report.by_line()
    assert re.fullmatch(expected, line.where) and line.bytes == report.peak


def test_a_line_that_is_only_near_is_explained() -> None:
    x = tt.fmatrix("x")
    cost = tt.nnet.softmax(tt.dot(x, x)).sum(axis=0).max()
    report = theano_memopt.explain(theano.function([x], tt.grad(cost, x), mode=with_pass()), (50, 50))
    near = [b for b in report.alive_at_peak if report.known_of(b).near]
    assert near and all("near" not in report.known_of(b).made_at for b in near)
    assert "near tests/theano/test_explain.py:" in str(report) and "near: a rewrite of Theano's made this variable" in str(report)


# --- bad use ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((4, 4),), "takes 2 arguments"),
        (((4,), (4,)), "has 2 dimensions"),
        (((4, -1), (4,)), "whole numbers"),
        (((4, 30), (5,)), "the shapes do not fit"),
        ((np.zeros((4, 7), "float32"), np.zeros(4, "float32")), "the shapes do not fit"),
    ],
)
def test_shapes_that_do_not_fit_are_one_clear_line(arguments: Any, words: str) -> None:
    x, y = tt.fmatrix("x"), tt.fvector("y")
    weights = theano.shared(np.zeros((30, 2), "float32"), name="weights")
    function = theano.function([x, y], tt.dot(x, weights) + y.dimshuffle(0, "x"), mode=with_pass())
    with pytest.raises(BadUse, match=words) as caught:
        theano_memopt.explain(function, *arguments)
    assert "\n" not in str(caught.value)
    theano_memopt.explain(function, (4, 30), (4,))  # what does fit is taken


@pytest.mark.quick
def test_arrays_are_called_by_the_names_of_the_inputs() -> None:
    x, y = tt.fmatrix("x"), tt.fvector()
    function = theano.function([x, theano.In(y, name="bias")], tt.dot(x, x) + y, mode=with_pass())
    named = theano_memopt.explain(function, x=(4, 4), bias=(4,))
    assert named == theano_memopt.explain(function, (4, 4), bias=np.ones(4, "float32")) == theano_memopt.explain(function, (4, 4), (4,))
    assert "(given)" in named.graph.sizes_from and "hint" not in named.graph.sizes_from
    data = np.ones((4, 4), "float32")
    assert theano_memopt.profile(function, bias=data[0], x=data).floor == named.floor
    for arguments, by_name, words in (
        (((4, 4),), {"x": (4, 4)}, "x is given twice; the inputs are x, bias"),
        ((), {"bias": (4,)}, "bias is given without those before it"),
        (((4, 4),), {"b": (4,)}, "b is no input"),
        (((4, 4),), {"bias": (4, 4)}, "bias: has 1 dimensions"),
        (((4, 4),), {}, r"takes 2 arguments \(x, bias\); 1 was given"),
    ):
        with pytest.raises(BadUse, match=words):
            theano_memopt.explain(function, *arguments, **by_name)
    unnamed = theano.function([tt.fmatrix(), tt.fvector()], [], on_unused_input="ignore", mode=with_pass())
    with pytest.raises(BadUse, match=r"\(input 1, input 2\)"):
        theano_memopt.explain(unnamed, (4, 4))


def test_a_function_without_the_pass_is_told_so() -> None:
    x = tt.fvector("x")
    for mode, why in ((without_pass(), "as asked: .* excludes mem_reuse"), (Mode("py", "fast_compile"), "its mode does not include it")):
        with pytest.raises(BadUse, match=f"compiled without the pass.*{why}") as caught:
            theano_memopt.explain(theano.function([x], x + 1, mode=mode))
        assert "\n" not in str(caught.value)
    with pytest.raises(BadUse, match="only a function that Theano compiled"):
        theano_memopt.explain(x + 1)


def test_a_function_that_the_pass_left_alone_is_told_why() -> None:
    x = tt.fvector("x")
    function = theano.function([x], tt.exp(x).sum(), mode=with_pass(max_nodes=0))
    with pytest.raises(BadUse, match="max_nodes"):
        theano_memopt.explain(function)


# --- profile ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc", "vm"])
@pytest.mark.parametrize("name", ["logreg", pytest.param("mlp", marks=pytest.mark.blas), "branches"])
def test_planned_is_measured_at_every_step(name: str, linker: str) -> None:
    model, function = compiled(name, linker)
    comparison = theano_memopt.profile(function, *model.batch)
    assert [step.task for step in comparison.profile.steps] == list(comparison.report.order)
    for step, height, rest in comparison.rows:
        without = height - comparison.planned_workspace(step)
        assert abs(step.after - without) <= PYTHON_OBJECTS and abs(step.resting - rest) <= PYTHON_OBJECTS
        assert abs(step.workspace - comparison.planned_workspace(step)) <= PYTHON_OBJECTS
    assert all("workspace" in d.why for d in comparison.differences), str(comparison)
    held = probe.held_by_call(function, *model.batch)
    assert abs(comparison.profile.peak - held.peak) <= 0.02 * held.peak + PYTHON_OBJECTS
    assert comparison.profile.peak <= comparison.explained_peak + PYTHON_OBJECTS


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
@pytest.mark.blas
def test_an_arena_is_explained_as_the_machine_has_it(linker: str) -> None:
    model = demo_models.build("mlp", SIZE)
    function = model.compile(with_pass(linker, storage="arena"))
    for _ in range(3):
        function(*model.batch)
    report = theano_memopt.explain(function, *model.batch)
    assert report.plan.storage == theano_memopt.plan_of(function).storage
    check_arena(report.graph, report.order, report.plan.storage, report.plan.options.alignment, report.plan.may_share)
    comparison = theano_memopt.profile(function, *model.batch)
    assert comparison.planned_peak <= comparison.profile.peak <= comparison.explained_peak + 2 * PYTHON_OBJECTS
    assert all("workspace" in d.why or "before the first" in d.why for d in comparison.differences), str(comparison)


def test_the_workspace_of_a_convolution_is_planned() -> None:
    model, function = compiled("lenet")
    comparison = theano_memopt.profile(function, *model.batch)
    planned = {step.task: comparison.planned_workspace(step) for step, _, _ in comparison.rows}
    measured = {step.task: step.workspace for step, _, _ in comparison.rows}
    tasks = [t for t, task in enumerate(comparison.report.graph.tasks) if "CorrMM" in task.label]
    assert len(tasks) >= 4 and all(planned[t] > 0 and planned[t] == pytest.approx(measured[t], rel=0.05) for t in tasks)
    assert not [d for d in comparison.differences if "workspace" in d.why]
    assert 0.98 * comparison.planned_peak - PYTHON_OBJECTS <= comparison.profile.peak <= 1.02 * comparison.planned_peak + PYTHON_OBJECTS


class TakesMuch(gof.Op):
    """Adds 1, and takes a megabyte for itself meanwhile."""

    __props__ = ()

    def make_node(self, x: Any) -> Any:
        return gof.Apply(self, [x], [x.type()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        much = np.ones(2**17)
        outputs[0][0] = inputs[0] + much[0]


def test_the_workspace_of_an_op_that_is_not_known_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    x = tt.dvector("x")
    function = theano.function([x], TakesMuch()(x), mode=with_pass())
    comparison = theano_memopt.profile(function, np.ones(100))
    (found,) = [d for d in comparison.differences if "workspace" in d.why]
    assert 2**20 <= found.bytes <= 2**20 + PYTHON_OBJECTS
    assert "TakesMuch" in comparison.report.graph.tasks[comparison.rows[found.step][0].task].label
    monkeypatch.setattr(peaks, "SETS_BACK", False)
    as_on_3_8 = theano_memopt.profile(function, np.ones(100))
    for one, other in zip(comparison.profile.steps, as_on_3_8.profile.steps):
        assert abs(one.highest - other.highest) <= PYTHON_OBJECTS and abs(one.after - other.after) <= PYTHON_OBJECTS


@pytest.mark.quick
@pytest.mark.parametrize("sets_back", [peaks.SETS_BACK, False])
def test_the_peak_is_counted_anew(sets_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "SETS_BACK", sets_back)
    tracemalloc.start()
    try:
        del bytearray(1_000_000)[:]  # a peak that is over
        before, lift, _held = peaks.count_anew()
        kept = bytearray(200_000)
        del bytearray(100_000)[:]
        after, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert abs(after - lift - before - len(kept)) < 2_000 and abs(highest - lift - before - 300_000) < 2_000
    assert sets_back or lift > 990_000  # else it would be the peak that is over


def test_what_the_plan_did_not_know_is_told() -> None:
    """How many elements are not zero depends on data: the plan has to guess."""
    x = tt.fvector("x")
    chosen = x[tt.nonzero(x)[0]]
    function = theano.function([x], tt.exp(chosen).sum(), mode=with_pass())
    comparison = theano_memopt.profile(function, np.ones(100_000, "float32"))
    assert any("unknown to the plan" in d.why for d in comparison.differences), str(comparison)
    assert "unknown to the plan" in str(comparison)


def test_profile_trains_nothing() -> None:
    model, function = compiled("mlp")
    before = model.state()
    theano_memopt.profile(function, *model.batch)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.state()))
    function(*model.batch)
    assert not all(np.array_equal(a, b) for a, b in zip(before, model.state()))  # a call does train


def test_profile_wants_arrays() -> None:
    model, function = compiled("logreg")
    with pytest.raises(BadUse, match="needs arrays"):
        theano_memopt.profile(function, *(data.shape for data in model.batch))
    with pytest.raises(BadUse, match=r"takes 2 arguments \(.*\); 0 were given"):
        theano_memopt.profile(function)


# --- sizes that are assumed ------------------------------------------------------------------------------------------


def _of_two_products(x: Any, **flags: Any) -> Any:
    y = tt.exp(tt.dot(x, x))
    return theano.function([x], tt.dot(y, y.T).sum(), mode=with_pass(**flags))


def _claims(report: Any) -> List[str]:
    """All places where a report says how low a peak can go."""
    lines = [line for line in str(report).splitlines() if re.search("proven|no order needs less", line)]
    assert len(lines) == 2, lines  # the floor and the verdict
    return [report.verdict, report.gap, page_data(report)["verdict"], *lines, _row_of_run(report)]


def _row_of_run(report: Any) -> str:
    table = run_table.of_rows([SimpleNamespace(name="f", inside=False, calls=1, seconds=0.0, planning=0.0, report=report, why="")])
    (line,) = [line for line in table.splitlines() if re.match(r"f +│ +1 │", line)]
    return line


@pytest.mark.quick
def test_what_is_planned_at_assumed_sizes_says_so_beside_each_claim() -> None:
    report = theano_memopt.explain(_of_two_products(tt.matrix("x")))
    assert report.least is not None and "mem_reuse.default_dim" in report.graph.sizes_from
    assert all(re.search("at assumed sizes|│ assumed ", claim) for claim in _claims(report))
    assert page_data(report)["atSizes"] == " at assumed sizes" and "sizes, some of them assumed: " in str(report)
    data = report_to_json(report)
    assert (data["sizes"], data["plan"]["sizes"]) == ("assumed", "assumed")
    assert plan_from_json(data["plan"]).sizes == "assumed"


@pytest.mark.parametrize("how", ["hint", "arrays", "shape", "shared"])
@pytest.mark.quick
def test_at_known_sizes_a_proof_is_just_a_proof(how: str) -> None:
    x = tt.matrix("x")
    if how == "hint":
        report = theano_memopt.explain(_of_two_products(theano_memopt.hint(x, (7, 7))))
    elif how == "shared":
        w = theano.shared(floats(7, 7), name="w")
        report = theano_memopt.explain(theano.function([], tt.exp(tt.dot(w, w)).sum(), mode=with_pass()))
    else:
        report = theano_memopt.explain(_of_two_products(x), floats(7, 7) if how == "arrays" else (7, 7))
    assert not any("assumed" in claim for claim in [*_claims(report), str(report)])
    data = report_to_json(report)
    assert (data["sizes"], data["plan"]["sizes"], page_data(report)["atSizes"]) == ("given", "given", "")


@pytest.mark.quick
def test_one_unknown_length_is_enough() -> None:
    x = theano_memopt.hint(tt.matrix("x"), (7, None))
    report = theano_memopt.explain(theano.function([x], tt.exp(tt.dot(x.T, x)).sum(), mode=with_pass()))
    assert all(re.search("at assumed sizes|│ assumed ", claim) for claim in _claims(report))


def test_after_a_call_with_an_arena_the_plan_is_at_true_sizes() -> None:
    function = _of_two_products(tt.matrix("x"), storage="arena")
    assert theano_memopt.plan_of(function).sizes == "assumed"
    for _ in range(3):
        function(floats(7, 7))
    plan = theano_memopt.plan_of(function)
    assert (plan.sizes, plan.graph.sizes_from) == ("given", "the last call")


@pytest.mark.quick
def test_a_plan_that_contradicts_its_graph_about_the_sizes_is_refused() -> None:
    data = plan_to_json(theano_memopt.plan_of(_of_two_products(tt.matrix("x"))))
    with pytest.raises(Rejected, match="assumed"):
        plan_from_json({**data, "sizes": "given"})


# --- the headline names the sizes ------------------------------------------------------------------------------------


def test_a_blas_is_offered_in_the_first_report_of_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "offer", lambda: "take this one")
    monkeypatch.setattr(blas, "_offered", False)
    x = tt.dmatrix("x")
    reports = [theano_memopt.explain(theano.function([x], tt.exp(x).sum(), mode=with_pass()), (3, 4)) for _ in range(3)]
    assert ["take this one" in report.notes for report in reports] == [True, False, False]


@pytest.mark.parametrize("ask", (theano_memopt.explain, theano_memopt.plan_of))
def test_what_is_no_function_is_named_and_not_shown(ask: Any) -> None:
    with pytest.raises((BadUse, TypeError), match=r"not ndarray of shape \(20, 50\)$"):
        ask(np.ones((20, 50)))


def _reserved(report: Any, setting: str) -> Any:
    return next(found for found in report.reserved if found.setting == setting)


def _of_two_pools(x: Any, linker: str, **flags: Any) -> Any:
    found = pool_2d(tt.exp(x), (2, 2), ignore_border=True)
    return theano.function([x], tt.tanh(pool_2d(tt.exp(found), (2, 2), ignore_border=True)).sum(), mode=with_pass(linker, **flags))


def test_what_would_be_kept_without_gc_is_foretold_with_gc() -> None:
    """Also where ops are replaced by others that write into a block, as Pool is."""
    batch = floats(20, 3, 40, 40)
    with_gc, without = (_of_two_pools(tt.dtensor4("x"), linker, storage=how) for linker, how in (("cvm", "auto"), ("cvm_nogc", "arena")))
    for function in (with_gc, without):
        for _ in range(4):
            function(batch)
    foretold, real = (_reserved(theano_memopt.explain(function, batch), "allow_gc=False") for function in (with_gc, without))
    assert foretold.bytes == real.bytes and "Estimated" in foretold.meaning and "Estimated" not in real.meaning
    assert real.bytes == theano_memopt.explain(without, batch).kept
    assert abs(theano_memopt.profile(without, batch).kept - real.bytes) <= PYTHON_OBJECTS


def test_after_a_smaller_call_both_sides_are_of_that_one_and_the_block_that_is_there_is_told() -> None:
    function = _of_two_pools(tt.dtensor4("x"), "cvm_nogc", storage="arena")
    large, small = floats(20, 3, 40, 40), floats(13, 3, 40, 40)
    for _ in range(4):
        function(large)
    before = theano_memopt.explain(function)
    function(small)
    after = theano_memopt.explain(function)
    there = function.fn.lender.height
    row = after.reserved[0]
    assert row.bytes == theano_memopt.explain(_of_two_pools(tt.dtensor4("x"), "cvm_nogc", storage="arena"), small).kept
    assert 0.6 * before.kept < after.kept < 0.7 * before.kept and there > after.kept
    assert f"(at present it has {there:,} bytes, for a larger call before)" in row.meaning and "at present" not in before.reserved[0].meaning


def test_a_block_that_functions_share_is_told_as_such() -> None:
    with theano_memopt.shared_arena():
        train, validate = (_of_two_pools(tt.dtensor4("x"), "cvm_nogc", storage="arena") for _ in range(2))
    alone = _of_two_pools(tt.dtensor4("x"), "cvm_nogc", storage="arena")
    large, small = floats(20, 3, 40, 40), floats(13, 3, 40, 40)
    for function, batch in ((train, large), (validate, small), (alone, large)):
        for _ in range(4):
            function(batch)
    there = train.fn.lender.height
    said = [theano_memopt.explain(function).reserved[0].meaning for function in (train, validate, alone)]
    assert f"{there:,} bytes of a block shared with 1 other function for the intermediates" in said[0]
    assert f"of a block shared with 1 other function (at present it has {there:,} bytes, for the largest call of them all)" in said[1]
    assert said[2].startswith(f"one block of {there:,} bytes for the intermediates")


def _headline(report: Any) -> str:
    return str(report).replace("\n", " ").split(" tasks, ")[0]


@pytest.mark.parametrize("allow_gc", (True, False))
def test_the_headline_names_the_sizes_and_whose_they_are(allow_gc: bool) -> None:
    x, y, n = tt.dmatrix("x"), tt.dvector("y"), tt.lscalar("n")
    mode = with_pass("cvm") if allow_gc else with_pass("cvm_nogc", storage="arena")
    wide, numbers = tt.exp(x), tt.arange(n)
    function = theano.function([x, y, n], tt.tanh(tt.dot(wide.T, wide)).sum() + tt.dot(numbers, numbers) + y.sum(), name="f", mode=mode)
    assert _headline(theano_memopt.explain(function)).startswith("f, at x 128x128, y 128 (assumed): ")
    assert "(given): " in _headline(theano_memopt.explain(function, (2000, 3), (4,), 5))
    for batch in (2000, 1000, 1000):  # an arena knows the sizes of the last call from the second one on
        function(floats(batch, 300), floats(4), 500)
    report = theano_memopt.explain(function)
    assert _headline(report).startswith("f, at x 1000x300, n = 500 (the last call): ")  # on the length of y no size rests
    assert not report.graph.sizes_assumed
    assert report_to_json(report)["inputs"]["x"] == "1000x300" and page_data(report)["at"] == report.at
    assert "x 2000x300" in _headline(theano_memopt.profile(function, floats(2000, 300), floats(4), 500))


def test_reports_at_different_sizes_are_not_compared_in_silence(tmp_path: Any) -> None:
    x = tt.dmatrix("x")
    function = theano.function([x], tt.exp(x).sum(), mode=with_pass())
    one, same, other = (theano_memopt.explain(function, (n, 30)) for n in (50, 50, 32))
    both = theano_memopt.compare(one, other)
    assert "The sizes are not the same: x 50x30 before and 32x30 after." in str(both).split("bytes")[0].replace("\n", " ")
    page = both.to_html(str(tmp_path / "both.html"))
    with open(page, encoding="utf-8") as stream:
        assert "<p>The sizes are not the same: x 50x30 before" in stream.read()
    assert "not the same:" not in str(theano_memopt.compare(one, same))


def test_effort_is_advised_where_sizes_make_no_difference() -> None:
    """The lengths of the argument are a guess, and no result has them: it was no other sizes that were planned for."""
    weights = [theano.shared(floats(n, n)) for n in (60, 50, 40, 30, 20, 10)]
    argument = tt.matrix("argument")
    total = argument[0, 0]
    for w in weights:
        h = tt.tanh(tt.dot(w, w))
        g = tt.exp(tt.dot(h, h.T))
        total = total + (h * g).sum(axis=0)[:5].sum() + (tt.dot(h, g) / (1 + h)).sum()
    outputs = [total, *(tt.grad(total, w).sum() for w in weights)]
    function = theano.function([argument], outputs, mode=with_pass(effort=1))
    for given in ((), (floats(3, 700),)):
        advice = "\n".join(found.text for found in theano_memopt.explain(function, *given).advice)
        assert "more effort while compiling finds a better order" in advice and "other sizes" not in advice
    function = theano.function([argument], outputs, mode=with_pass())
    assert "effort" not in str(theano_memopt.explain(function, floats(3, 700)).advice)

"""Every figure of a report against another way of getting it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import least_peak_by_memo, peak_by_reference_counts
from tests.report.plans import real_report
from tests.strategies import graphs
from theano_memopt.options import PlanOptions
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, build_graph
from theano_memopt.planner.plan import make_plan
from theano_memopt.report.comparison import NOISE, occupied
from theano_memopt.report.model import Advice, Known, Need, Profile, Reserved, Step
from theano_memopt.report.printable import PrintableComparison, report_of
from theano_memopt.report.words import in_bytes


@settings(max_examples=60, deadline=None)
@given(graphs(1, 8))
def test_the_figures_of_a_report_are_those_of_the_oracles(graph: Graph) -> None:
    report = report_of(make_plan(graph))
    assert report.host_peak == peak_by_reference_counts(graph, graph.natural_order)
    assert report.peak == peak_by_reference_counts(graph, report.order)
    assert report.least == least_peak_by_memo(graph)
    assert sum(graph.buffers[b].size for b in report.alive_at_peak) == report.peak
    for step, height in enumerate(report.plan.schedule.timeline.heights):
        assert sum(graph.buffers[b].size for b in report.alive(step)) == height


@settings(max_examples=60, deadline=None)
@given(graphs(1, 8))
def test_without_cells_what_is_occupied_is_what_lives(graph: Graph) -> None:
    along = timeline(graph, graph.natural_order)
    assert occupied(graph, graph.natural_order, None, kept=False) == (list(along.heights), list(along.resting))


@settings(max_examples=60, deadline=None)
@given(graphs(1, 8))
def test_an_arena_is_occupied_as_a_whole(graph: Graph) -> None:
    plan = make_plan(graph, PlanOptions(storage="arena", alignment=1))
    outside = {b for b, offset in enumerate(plan.storage.offsets) if offset is None}
    assert all(graph.buffers[b].producer is None for b in outside)
    assert set(occupied(graph, plan.schedule.order, plan.storage, kept=False)[0]) == {plan.reserved_bytes}


@settings(max_examples=60, deadline=None)
@given(graphs(1, 8))
def test_cells_that_are_kept_fill_up_to_what_is_reserved(graph: Graph) -> None:
    plan = make_plan(graph)
    heights, resting = occupied(graph, plan.schedule.order, plan.storage, kept=True)
    assert heights[-1] == resting[-1] == plan.reserved_bytes
    assert heights == sorted(heights)


@pytest.mark.parametrize("storage", ["share", "arena"])
def test_companions_are_those_that_lie_at_the_same_place(storage: str) -> None:
    report = real_report("mlp", storage=storage)
    placed = report.plan.storage
    found = {b: set(report.companions(b)) for b in range(len(report.graph.buffers))}
    assert any(found.values())
    for b, mates in found.items():
        assert all(b in found[o] for o in mates)
        assert set(report.companions(b, 2)) <= mates and len(report.companions(b, 2)) == min(2, len(mates))
        if storage == "share":
            assert mates == {o for o in found if o != b and placed.cell_of[o] == placed.cell_of[b] is not None}


def test_groups_are_whole_cells_in_the_order_of_their_lives() -> None:
    report = real_report("mlp")
    assert {frozenset(group) for group in report.groups()} == {frozenset((b, *report.companions(b))) for b in report.largest if report.companions(b)}
    for group in report.groups():
        assert all(report.spans[a][1] <= report.spans[b][0] for a, b in zip(group, group[1:]))


def test_a_task_that_owns_the_peak_is_named_with_what_would_help() -> None:
    graph = build_graph({"a": 1, "b": 100, "c": 1}, [("small", (), ("a",)), ("big", ("a",), ("b",)), ("end", ("b",), ("c",))], keep=("c",))
    (sentence,) = report_of(make_plan(graph)).owners
    assert "'big' owns the peak" in sentence and "100 % of it" in sentence and "batch" in sentence


def test_to_give_the_owner_half_saves_what_is_said() -> None:
    graph = build_graph({"a": 1, "b": 100, "c": 1}, [("small", (), ("a",)), ("big", ("a",), ("b",)), ("end", ("b",), ("c",))], keep=("c",))
    report = report_of(make_plan(graph))
    (advice,) = report.advice
    halved = build_graph({"a": 0, "b": 50, "c": 1}, [("small", (), ("a",)), ("big", ("a",), ("b",)), ("end", ("b",), ("c",))], keep=("c",))
    assert advice.saves == report.peak - peak_by_reference_counts(halved, report.order) == 50
    first, rest = str(report).split("peak: bytes live at once")
    assert "owns the peak" not in rest  # it is said once
    assert "What to do: Task 'big' owns the peak" in first and "saves 50 bytes, as long as all else stays as large as it is" in first.replace(
        "\n", " "
    )


def test_what_saves_most_is_advised_first_and_what_cannot_be_known_before_that() -> None:
    report = replace(report_of(make_plan(GRAPH)), advised=(Advice("little", 1), Advice("ask"), Advice("much", 900), Advice("more", 20)))
    assert [advice.text for advice in report.advice if "owns" not in advice.text] == ["ask", "much", "more", "little"]
    told = str(replace(report, advised=report.advised[:1], plan=real_report("mlp").plan, host_orders=()))
    assert "What to do: little saves 1 bytes\n" in told
    assert "What to do: nothing that is known here would help; the peak is at the floor." in str(real_report("mlp"))


@settings(max_examples=60, deadline=None)
@given(graphs(1, 8), st.integers(1, 3))
def test_the_bytes_by_line_are_those_of_the_peak_whoever_made_them(graph: Graph, lines: int) -> None:
    known = tuple(Known(made_at=f"line {b % lines}", returned=buffer.pinned) for b, buffer in enumerate(graph.buffers))
    report = replace(report_of(make_plan(graph)), known=known, given=(Need("parameters", 7, 1),))
    found = report.by_line()
    assert sum(line.bytes for line in found) == report.peak and sum(line.variables for line in found) == len(report.alive_at_peak)
    for line in found:
        assert line.bytes == sum(graph.buffers[b].size for b in report.alive_at_peak if known[b].made_at == line.where)
    assert [line.bytes for line in found] == sorted((line.bytes for line in found), reverse=True)
    assert sum(need.bytes for need in report.needs) == report.peak + 7
    results = next(need for need in report.needs if "results" in need.what)
    assert results.bytes == sum(graph.buffers[b].size for b in report.alive_at_peak if graph.buffers[b].pinned)


def test_the_shares_of_the_lines_are_the_whole_peak() -> None:
    report = real_report("mlp_adam")
    known = tuple(Known(made_at=f"model.py:{b}  line") for b in range(len(report.graph.buffers)))
    text = str(replace(report, known=known)).split("By the line of code")[1].split("\n\n")[0]
    shown = [line.split("│") for line in text.splitlines() if "│" in line]
    assert sum(int(cells[0].replace(",", "")) for cells in shown) == report.peak and "the rest, of" in shown[-1][2]
    one = tuple(Known(made_at="model.py:1  line") for _ in report.graph.buffers)
    assert "the rest, of" not in str(replace(report, known=one))


def test_a_peak_that_many_share_has_no_owner() -> None:
    buffers = {f"b{i}": 10 for i in range(10)}
    tasks: List[Any] = [(f"make{i}", (), (f"b{i}",)) for i in range(10)]
    graph = build_graph({**buffers, "out": 1}, [*tasks, ("add", (), ("out",), [f"make{i}" for i in range(10)])], keep=tuple(buffers))
    assert report_of(make_plan(graph)).owners == ()


def test_an_open_peak_is_said_to_be_open() -> None:
    report = real_report("attention", effort=1)
    assert report.least is None
    assert "is open" in report.verdict and "is open" in str(report)
    settled = real_report("mlp")
    assert settled.gap == "at the floor" and "open" not in settled.verdict


def test_the_text_holds_the_figures() -> None:
    report = real_report("mlp_adam")
    text = str(report)
    for figure in (report.host_peak, report.peak, report.reserved[0].bytes, report.reserved[0].without):
        assert f"{figure:,}" in text
    assert report.graph.buffers[report.alive_at_peak[0]].label in text
    assert all(len(line) <= 140 for line in text.splitlines())


def test_bytes_with_a_unit() -> None:
    assert [in_bytes(n) for n in (0, 1023, 1024, 1024**2 - 1, 3 * 1024**3, 5 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.00 KiB",
        "1024.00 KiB",
        "3.00 GiB",
        "5.00 TiB",
    ]


# --- planned beside measured -----------------------------------------------------------------------------------------

GRAPH = build_graph({"a": 10_000, "b": 20_000, "c": 5_000}, [("one", (), ("a",)), ("two", ("a",), ("b",)), ("three", ("b",), ("c",))], keep=("c",))
EXACT = (Step(0, 0, 10_000, 10_000, 10_000, 10_000), Step(1, 10_000, 30_000, 20_000, 30_000, 20_000), Step(2, 20_000, 25_000, 5_000, 25_000, 5_000))


def compare(*steps: Step) -> PrintableComparison:
    report = report_of(make_plan(GRAPH, PlanOptions(storage="off")))
    return PrintableComparison(report, Profile(steps, max(s.highest for s in steps), 0, 0.0))


def test_where_measured_is_planned_nothing_is_said() -> None:
    assert compare(*EXACT).differences == ()
    assert compare(*EXACT).planned_peak == 30_000 == compare(*EXACT).explained_peak
    drift = tuple(
        Step(s.task, s.before + 90 * i, s.after + 90 * i, s.resting + 90 * (i + 1), s.highest + 90 * i, s.made) for i, s in enumerate(EXACT)
    )
    assert NOISE > 90 and compare(*drift).differences == ()


def test_workspace_is_told_as_workspace_at_its_step() -> None:
    one, two, three = EXACT
    comparison = compare(one, Step(1, 10_000, 30_000, 20_000, 42_000, 20_000), three)
    (found,) = comparison.differences
    assert (found.step, found.bytes) == (1, 12_000) and "workspace" in found.why
    assert comparison.explained_peak == 42_000


def test_a_result_of_another_size_is_told_once_and_goes_when_it_goes() -> None:
    one, two, three = EXACT
    (found,) = compare(one, Step(1, 10_000, 40_000, 30_000, 40_000, 30_000), Step(2, 30_000, 35_000, 5_000, 35_000, 5_000)).differences
    assert (found.step, found.bytes) == (1, 10_000) and "unknown to the plan" in found.why


def test_what_is_there_before_the_first_task_is_told_as_such() -> None:
    moved = tuple(Step(s.task, s.before + 9_000, s.after + 9_000, s.resting + 9_000, s.highest + 9_000, s.made) for s in EXACT)
    (found,) = compare(*moved).differences
    assert (found.step, found.bytes) == (0, 9_000) and "before the first task" in found.why


def test_a_result_in_storage_that_was_there_is_told_so() -> None:
    one, two, three = EXACT
    (first, *_) = compare(one, Step(1, 10_000, 10_000, 10_000, 10_000, 20_000), three).differences
    assert first.bytes == -20_000 and "storage that was there" in first.why


def test_what_is_not_given_back_is_told() -> None:
    one, two, three = EXACT
    (found, *_) = compare(one, Step(1, 10_000, 30_000, 30_000, 30_000, 20_000), Step(2, 30_000, 35_000, 15_000, 35_000, 5_000)).differences
    assert (found.step, found.bytes) == (1, 10_000) and "freed later" in found.why


def test_the_text_of_a_comparison_names_task_and_difference() -> None:
    text = str(compare(EXACT[0], Step(1, 10_000, 30_000, 20_000, 42_000, 20_000), EXACT[2]))
    assert "two: +12,000 bytes: workspace" in text and "measured peak 42,000" in text
    assert "agree at every step" in str(compare(*EXACT))


def test_kept_storage_is_planned_as_kept() -> None:
    report = report_of(make_plan(GRAPH))
    kept = Reserved("kept", report.plan.storage, 0, 0, "", kept=True)
    steps = (
        Step(0, 0, 10_000, 10_000, 10_000, 10_000),
        Step(1, 10_000, 30_000, 30_000, 30_000, 20_000),
        Step(2, 30_000, 35_000, 35_000, 35_000, 5_000),
    )
    comparison = PrintableComparison(report_of(report.plan), Profile(steps, 35_000, 35_000, 0.0))
    assert (comparison.peak, comparison.kept, comparison.floor) == (35_000, 35_000, report.floor)
    assert comparison.differences  # with storage that is given back this would be told
    assert PrintableComparison(type(report)("kept", report.plan, reserved=(kept,)), comparison.profile).differences == ()

"""The table of a whole program: every figure stands where it belongs, nothing is blank, twice or cut, and the advice adds up."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Dict, List, Sequence

import pytest

from tests.report.plans import real_report
from theano_memopt.planner.plan import along
from theano_memopt.report import run_table
from theano_memopt.report.model import Advice, Known, Profile, Report, Reserved, Step, Work
from theano_memopt.report.repeats import Again, Repeats


def row(name: str, report: Any = None, **more: Any) -> Any:
    return SimpleNamespace(**{"name": name, "inside": False, "calls": 3, "seconds": 0.25, "planning": 0.125, "report": report, "why": "", **more})


def cells(text: str) -> Dict[str, List[str]]:
    lines = [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]
    return {found[0]: found[1:] for found in lines}


def above_the_floor(name: str) -> Report:
    """In force is an order that another one is known to beat."""
    best = real_report(name)
    schedule = along(best.plan.schedule, best.graph, best.graph.natural_order, "another", "an order with less is known")
    return replace(best, plan=replace(best.plan, schedule=schedule), best=best.plan.schedule)


def kept(report: Report, name: str, ours: int, stock: int, block: Any = None) -> Report:
    storage = Reserved("allow_gc=False", report.plan.storage, ours, stock, "kept", kept=True, after_call=True, block=block)
    return replace(report, name=name, reserved=(storage,))


def test_the_figures_of_each_function_and_of_all() -> None:
    one, two = kept(real_report("mlp"), "one", 700, 900), replace(real_report("lenet"), name="two")
    measured = Profile((), 12_345, 678, 0.0)
    text = run_table.of_rows([row("one", replace(one, measured=measured)), row("two", two, calls=0, seconds=0.0, planning=0.0)])
    found = cells(text)
    for name, report in (("one", one), ("two", two)):
        figures = [f"{n:,}" for n in (report.host_peak, report.peak, report.floor)]
        assert found[name][3:] == ["true", *figures, "at the floor", f"{report.host_kept:,}", f"{report.kept:,}", *found[name][-2:]]
    assert found["one"][:3] == ["3", "0.25", "0.125"]
    assert found["one"][-2:] == ["12,345", "678"] and found["two"][-2:] == ["not measured", "not measured"]
    largest = max((one, two), key=lambda report: report.peak)
    assert found["in all"][:7] == ["3", "0.25", "0.125", "true", f"{max(one.host_peak, two.host_peak):,}", f"{largest.peak:,}", f"{largest.floor:,}"]
    assert found["in all"][7:] == ["2 of 2 at the floor", "900", "700", "12,345", "678"]


def test_a_peak_above_the_floor_is_not_counted_among_those_at_it() -> None:
    report = above_the_floor("mlp_adam")
    assert report.least is not None and report.peak > report.floor
    text = run_table.of_rows([row("above", report), row("at", real_report("mlp"))])
    assert cells(text)["above"][7] == "25 % above the floor" and cells(text)["in all"][7] == "1 of 2 at the floor"
    assert "proven" not in text and "not all peaks are at the floor" in text


def test_nothing_is_blank_and_nothing_is_cut() -> None:
    why = "compiled without the pass, " + " ".join(f"reason{i}" for i in range(60))
    name = "a_function_with_a_name_that_is_" + "very_" * 20 + "long"
    rows = [row(name, real_report("mlp")), row("first", why=why), row("second", why=why), row("third", why="another reason", calls=1)]
    text = run_table.of_rows(rows)
    shown = cells(run_table.of_rows([*rows[1:], row("mlp", real_report("mlp"))]))
    assert all(cell for first, found in shown.items() if first for cell in found)  # a line without a first cell goes on with the one above
    squeezed = re.sub(r"[\s│]+", "", text)
    assert name in squeezed and squeezed.count(why.replace(" ", "")) == 1 and "…" not in text
    assert cells(text)["first, second"][:2] == ["6", "0.5"] and cells(text)["third"][:2] == ["1", "0.25"]


def test_large_numbers_widen_the_table_before_they_are_cut() -> None:
    report = kept(real_report("mlp"), "huge", 10**17, 10**18)
    report = replace(report, measured=Profile((), 10**18, 10**18, 0.0))
    text = run_table.of_rows([row("huge", report)])
    assert text.count(f"{10**18:,}") == 6 and text.count(f"{10**17:,}") == 2


def test_what_other_processes_do_is_left_out_and_never_shown_as_zero() -> None:
    rows = [row("called here", real_report("mlp")), row("called there", real_report("mlp"), calls=0, seconds=0.0), row("gone", why="gone", calls=0)]
    found = cells(run_table.of_rows(rows, children=2))
    assert found["called there"][:3] == ["not here"] * 3 and found["gone"][:2] == ["not here"] * 2 and found["called here"][0] == "3"
    assert "2 child processes were started" in run_table.of_rows(rows, 2) and "child" not in run_table.of_rows(rows)
    assert "no function was compiled in this process" in run_table.of_rows([], 2)
    only = cells(run_table.of_rows([row("there", real_report("mlp"), calls=0, seconds=0.0)], 1))
    assert only["in all"][:3] == ["not here"] * 3


def test_the_function_in_a_scan_counts_no_calls() -> None:
    measured = replace(real_report("mlp"), measured=Profile((), 12_345, 678, 0.0))
    rows = [row("outer", measured), row("step", real_report("logreg"), inside=True, calls=0)]
    text = run_table.of_rows(rows)
    found = cells(text)
    assert found["step"][:3] == ["-"] * 3 and found["step"][-2:] == ["-", "-"] and found["in all"][0] == "3"
    assert "\n-: an op of another function runs it" in text and "\n-:" not in run_table.of_rows(rows[:1])


def test_what_a_function_inside_needs_on_top_is_told_of_the_one_that_it_is_in() -> None:
    def with_inside(peak: int) -> Report:
        report = real_report("mlp")
        return replace(report, work=tuple(Work("Scan", own_peak=peak if t == 3 else 0) for t in range(len(report.graph.tasks))))

    text = run_table.of_rows([row("outer", with_inside(2_345_678)), row("step", with_inside(2_345_678), inside=True)])
    assert text.count("needs up to 2,345,678 bytes on top") == 1 and "outer: the function inside it" in text
    assert "on top" not in run_table.of_rows([row("outer", with_inside(12))])


def with_repeats(report: Report, ordered: int, floor: int, seconds: float = 0.05) -> Report:
    again = (Again("Tanh", "a.py:1", 100, 1, seconds, (0,)),)
    program: Any = None
    return replace(report, repeats=Repeats("a budget", "", "", ordered, floor, "", 1.0, "estimated", again, (), program, ()))


def test_under_a_budget_the_least_order_and_what_no_schedule_can_do_without_are_kept_apart() -> None:
    plain = real_report("mlp")
    again = with_repeats(plain, ordered=9_000_000, floor=5_000_000)
    measured = Profile((Step(0, 0, 0, 0, 0, 0, 0.25), Step(1, 0, 0, 0, 0, 0, 1.0)), 12_345, 678, 0.0)
    text = run_table.of_rows([row("again", replace(again, measured=measured)), row("plain", plain)])
    found, heads = cells(text), [head.strip() for head in next(line for line in text.splitlines() if "┃" in line).split("┃")]
    one = dict(zip(heads[1:], found["again"]))
    assert (one["least by order"], one["floor"]) == ("9,000,000", "5,000,000") and "above the floor" in one["ours is"]
    assert (one["extra: estimated"], one["measured"]) == ("5 %", "25 %")
    two = dict(zip(heads[1:], found["plain"]))
    assert two["least by order"] == two["floor"] == f"{plain.floor:,}" and two["extra: estimated"] == "0 %"
    assert "least by order: nothing run twice" in text and "not all peaks are at the floor" in text
    assert dict(zip(heads[1:], found["in all"]))["least by order"] == f"{max(9_000_000, plain.peak):,}"
    assert "least by order" not in run_table.of_rows([row("plain", plain)])


# --- what to do ------------------------------------------------------------------------------------------------------


def advised(name: str, *found: Advice) -> Report:
    return replace(real_report(name), name=name, advised=found)


def test_only_what_lowers_the_largest_peak_helps_and_only_down_to_the_next_one() -> None:
    large, small = advised("mlp_adam", Advice("split it", 5_000_000), Advice("ask")), advised("mlp", Advice("split this", 7_000_000))
    assert small.peak < large.peak < small.peak + 5_000_000
    (advice,) = run_table.advice_of([row("large", large), row("small", small)])
    assert advice.text == "large: split it" and advice.saves == large.peak - small.peak
    assert advice.provided == f"of the largest peak of all (4.77 MiB of its own peak): then small needs most, {small.peak:,} bytes"
    (alone,) = run_table.advice_of([row("large", large)])
    assert (alone.saves, alone.provided) == (5_000_000, "")
    text = run_table.of_rows([row("large", large), row("small", small)])
    assert "What to do: large: split it" in text and f"{advice.saves:,} bytes" in text and "ask" not in text
    assert "What to do: nothing that is known here would help; all peaks are at the floor." in run_table.of_rows([row("mlp", real_report("mlp"))])


def test_what_helps_several_functions_is_said_once() -> None:
    same = Advice("give it back, which", 100, kept=True)
    rows = [row(name, replace(advised(name, same), reserved=())) for name in ("mlp", "lenet")]
    rows = [row(one.name, kept(one.report, one.name, 150, 150, block)) for one, block in zip(rows, (None, None))]
    (advice,) = [advice for advice in run_table.advice_of(rows) if advice.kept]
    in_one_block = [row(one.name, kept(one.report, one.name, 150, 150, 7)) for one in rows]
    assert [advice.saves for advice in run_table.advice_of(in_one_block) if advice.kept] == [150]  # no more than is kept
    assert advice.saves == 200 and advice.text.endswith(": give it back, which") and {"mlp", "lenet"} == set(advice.text.split(":")[0].split(", "))


@pytest.mark.parametrize(("blocks", "saves"), [((1, 2, 3), 50), ((1, 1, 2), 30), ((1, 1, 1), None), ((1, None, None), None)])
def test_blocks_of_functions_could_be_one(blocks: Sequence[Any], saves: Any) -> None:
    heights = (20, 60, 30)
    rows = [row(f"f{i}", kept(real_report("mlp"), f"f{i}", height, 100, block)) for i, (height, block) in enumerate(zip(heights, blocks))]
    found = [advice for advice in run_table.advice_of(rows) if "shared_arena" in advice.text]
    assert [advice.saves for advice in found] == ([] if saves is None else [saves])
    together = {block: max(h for h, b in zip(heights, blocks) if b == block) for block in blocks if block is not None}
    alone = sum(height for height, block in zip(heights, blocks) if block is None)
    assert cells(run_table.of_rows(rows))["in all"][-1] == f"{sum(together.values()) + alone}"


def test_the_largest_lines_are_those_of_large_functions() -> None:
    def lined(name: str, line: str) -> Report:
        report = real_report(name)
        return replace(report, name=name, known=tuple(Known(made_at=f"{line}:{b % 5}") for b in range(len(report.graph.buffers))))

    large, small = lined("mlp", "large.py"), lined("logreg", "small.py")
    assert small.peak < 0.1 * large.peak
    text = run_table.of_rows([row("large", large), row("small", small)])
    first, *_ = large.by_line()
    assert re.search(rf"large +│ +{first.bytes:,} │ .* {re.escape(first.where)}", text) and "small.py" not in text
    assert "small.py" in run_table.of_rows([row("small", small)])

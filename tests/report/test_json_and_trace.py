"""A report as JSON and as a trace, and paths that cannot be written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.report.plans import real_report
from theano_memopt.files import CannotWrite
from theano_memopt.planner.liveness import lives
from theano_memopt.planner.plan import check_plan, plan_from_json


@pytest.mark.parametrize("storage", ["off", "share", "arena"])
def test_json_holds_the_plan_and_every_figure(storage: str, tmp_path: Path) -> None:
    report = real_report("mlp", storage=storage)
    data = json.loads(Path(report.to_json(str(tmp_path / "r.json"))).read_text())
    plan = plan_from_json(data["plan"])
    check_plan(plan)
    assert plan == report.plan
    assert data["peak_bytes"] == plan.schedule.peak == sum(row["bytes"] for row in data["alive_at_peak"])
    assert data["least_bytes"] == data["floor_bytes"] == plan.schedule.floor
    assert data["host_peaks"] == [{"name": "given order", "peak_bytes": report.host_peak}]
    assert data["reserved"][0]["bytes"] == plan.reserved_bytes


def test_a_trace_has_the_curves_the_tasks_and_the_tenants(tmp_path: Path) -> None:
    report = real_report("mlp_adam")
    events = json.loads(Path(report.to_trace(str(tmp_path / "t.json"))).read_text())["traceEvents"]
    curves = {}
    for event in events:
        assert event["ph"] in "MCX" and isinstance(event["pid"], int)
        if event["ph"] == "C":
            curves.setdefault(event["name"], []).append(event["args"]["bytes"])
    assert max(curves["live bytes, in force"]) == report.peak
    assert max(curves["live bytes, host: given order"]) == report.host_peak
    tasks = [e for e in events if e["ph"] == "X" and e["tid"] == 1]
    assert [e["name"] for e in tasks] == [report.graph.tasks[t].label for t in report.order]
    tenants = [e for e in events if e["ph"] == "X" and e["tid"] != 1]
    spans = lives(report.graph, report.order)
    assert len(tenants) == sum(cell is not None for cell in report.plan.storage.cell_of)
    assert {e["name"]: (e["ts"] // 10, (e["ts"] + e["dur"]) // 10) for e in tenants} == {
        report.graph.buffers[b].label: spans[b] for b, cell in enumerate(report.plan.storage.cell_of) if cell is not None
    }
    for cell in {e["tid"] for e in tenants}:  # Perfetto nests what overlaps on one track
        ends = sorted((e["ts"], e["ts"] + e["dur"]) for e in tenants if e["tid"] == cell)
        assert all(first[1] <= second[0] for first, second in zip(ends, ends[1:]))


@pytest.mark.parametrize("write", ["to_json", "to_html", "to_trace"])
def test_a_path_that_cannot_be_written_is_one_line_that_names_it(write: str, tmp_path: Path) -> None:
    report = real_report("logreg")
    for path, word in ((tmp_path / "no" / "such.file", "no directory"), (tmp_path, "is a directory")):
        with pytest.raises(CannotWrite, match=word) as caught:
            getattr(report, write)(str(path))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_all_there_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    path.write_text("before")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CannotWrite, match="No space left"):
        real_report("logreg").to_json(str(path))
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["r.json"]

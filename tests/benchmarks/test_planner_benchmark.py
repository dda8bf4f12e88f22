"""The benchmark says what it measured, and sees when the planner is worse than it may be."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Sequence

import pytest

from benchmarks import improved_rule, planner, simple_rules
from benchmarks.families import make_graph
from theano_memopt.options import PlanOptions
from theano_memopt.planner.certificate import Schedule
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.model import Graph

pytestmark = pytest.mark.long
ARGUMENTS = ["--budget", "0.5", "1", "--families", "montage", "fork_join", "--sizes", "70", "--seeds", "1", "--only", "families"]


def test_a_row_per_graph_and_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "rows.csv"
    assert planner.main([*ARGUMENTS, "--csv", str(path)]) == 0
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["table"] == "families"]
    assert [(row["family"], row["budget"]) for row in rows] == [("montage", "0.5"), ("montage", "1.0"), ("fork_join", "0.5"), ("fork_join", "1.0")]
    for row in rows:
        graph = make_graph(row["family"], 70, 0)
        assert int(row["best_simple"]) == simple_rules.best_of_all(graph)[1]
        assert int(row["floor"]) <= int(row["peak"]) <= int(row["improved"]) <= int(row["best_simple"])
        assert row["checked"] == "yes"
    assert "montage-70-0" in capsys.readouterr().out


def test_worse_than_a_simple_rule_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = simple_rules.peaks
    monkeypatch.setattr(simple_rules, "peaks", lambda graph: dict.fromkeys(real(graph), 1))
    assert planner.main([*ARGUMENTS, "--csv", str(tmp_path / "rows.csv")]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_worse_than_the_improved_rule_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(improved_rule, "best_improved", lambda graph, seconds: 1)
    assert planner.main([*ARGUMENTS, "--csv", str(tmp_path / "rows.csv")]) == 1
    assert "improved 1" in capsys.readouterr().out


def test_a_certificate_that_does_not_hold_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert planner.main([*ARGUMENTS, "--csv", str(tmp_path / "rows.csv")]) == 0

    def another_graph(graph: Graph, options: PlanOptions, competing: Sequence[Any] = ()) -> Schedule:
        return minimise_peak(make_graph("series_parallel", 70, 9), PlanOptions(effort=100))

    monkeypatch.setattr(planner, "minimise_peak", another_graph)
    assert planner.main([*ARGUMENTS, "--csv", str(tmp_path / "rows.csv")]) == 1
    assert "does not hold" in capsys.readouterr().out

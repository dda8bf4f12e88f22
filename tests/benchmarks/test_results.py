"""The planner finds today what benchmarks/results.json says: a change that makes a plan worse is seen in review."""

from __future__ import annotations

import json
from typing import Any, Dict

import pytest

from benchmarks import results

KEPT: Dict[str, Dict[str, Dict[str, Any]]] = json.loads(results.RESULTS.read_text(encoding="utf-8"))
SAY = "the planner finds something else than benchmarks/results.json says: if that is meant, run `make results` and commit the difference"


@pytest.mark.parametrize("name", sorted(results.GRAPHS))
def test_each_graph_is_planned_as_the_file_says(name: str) -> None:
    assert results.planned(results.graph_of(name)) == KEPT["graphs"][name], SAY


@pytest.mark.parametrize("name", ["branches", "mlp", "z_lenet"])
def test_programs_are_recomputed_as_the_file_says(name: str) -> None:
    assert results.recomputed(results.program_of(name)) == KEPT["programs"][name], SAY


def test_every_graph_and_program_has_its_line_and_no_other_has() -> None:
    assert {kind: sorted(rows) for kind, rows in KEPT.items()} == {"graphs": sorted(results.GRAPHS), "programs": sorted(results.PROGRAMS)}


def test_a_worse_plan_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with less effort than the search needs, the figures are others."""
    honest = results.PlanOptions
    monkeypatch.setattr(results, "PlanOptions", lambda storage: honest(storage=storage, effort=0))
    assert any(results.planned(results.graph_of(name)) != KEPT["graphs"][name] for name in ("mlp_adam", "attention", "lstm"))

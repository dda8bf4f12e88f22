"""The figures of the harder families that docs quote: none above the peer, none worse than before, and tables that say what the file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import family_results
from benchmarks.families import FAMILIES, make_graph
from benchmarks.family_results import by_family, is_proven, still_open

ROWS = family_results.load()
COMPLETE = {name: row for name, row in ROWS.items() if set(row) >= family_results.COLUMNS}


@pytest.mark.skipif(not ROWS, reason="`make family-results` was never run here")
def test_every_family_is_there() -> None:
    assert {row["family"] for row in COMPLETE.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", COMPLETE)
def test_no_peak_is_above_that_of_the_peer_or_the_one_before(name: str) -> None:
    row = ROWS[name]
    assert row["now"]["floor"] <= row["now"]["peak"] <= min(row["peer"], row["before"]["peak"])
    assert row["before"]["floor"] <= row["now"]["peak"], "a floor above a peak: one of the two is wrong"
    assert is_proven(row["now"]) or not is_proven(row["before"])


def test_the_lines_of_a_family() -> None:
    def row(family: str, before: int, now: int, floor: int, peer: int) -> Any:
        return {"family": family, "tasks": 9, "before": {"peak": before, "floor": 10}, "now": {"peak": now, "floor": floor}, "peer": peer}

    rows = {"lstm 1/0": row("lstm", 14, 10, 10, 20), "lstm 2/0": row("lstm", 20, 12, 10, 15), "lstm 3/0": {"family": "lstm", "tasks": 9}}
    family, everything = by_family(rows)
    assert family == {
        "family": "families/lstm",
        "proven before": "0 of 2",
        "proven now": "1 of 2",
        "peak/floor before": "1.7000",
        "peak/floor now": "1.1000",
        "ours/peer": "0.6500",
        "most": "0.8000",
        "floor/peer": "0.5833",
    }
    assert everything == {**family, "family": "all"}
    (open_,) = still_open(rows)
    assert open_["graph"] == "families/lstm 2/0" and open_["now/before"] == "0.6000" and open_["ours/peer"] == "0.8000"


def test_what_is_measured_is_written_after_each_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_results, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(family_results, "graphs", lambda families: iter([("fork_join", "fork_join 70/0", make_graph("fork_join", 70, 0))]))
    for column in ("peer", "now"):
        assert family_results.main([column, "--seconds", "0.2", "--families", "fork_join"]) == 0
    ((name, row),) = family_results.load().items()
    assert name == "fork_join 70/0" and row["family"] == "fork_join" and row["tasks"] == 70
    assert row["now"]["floor"] <= row["now"]["peak"] <= row["peer"]

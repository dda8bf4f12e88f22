"""The tables that README quotes are those of the last run, and nothing else in it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import readme, tables

ROWS = [{"model": "mlp", "peak": 7192, "ratio": 0.5837, "": "proven"}, {"model": "lenet", "peak": 1_234_567, "ratio": 1.0, "": "open"}]
BEFORE = "Above.\n<!-- table memory -->\nold\n<!-- end -->\nBetween.\n<!-- table memory: model; ratio -->\n<!-- end -->\nBelow.\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tables.save(ROWS, tmp_path / "memory.csv")
    (tmp_path / "machine.txt").write_text("a machine\n")
    return tmp_path


def test_tables_are_replaced_and_the_rest_stays(place: Path) -> None:
    text = readme.filled(BEFORE, place)
    assert "| mlp | 7,192 | 0.58 | proven |" in text and "| mlp | 0.58 |" in text
    assert "old" not in text
    assert [line for line in text.splitlines() if line in ("Above.", "Between.", "Below.")] == ["Above.", "Between.", "Below."]


def test_twice_is_once(place: Path) -> None:
    once = readme.filled(BEFORE, place)
    assert readme.filled(once, place) == once


def test_the_machine_is_named(place: Path) -> None:
    assert "a machine\n" in readme.filled("<!-- table machine -->\n<!-- end -->\n", place)


def test_a_table_that_was_never_measured_is_missed(place: Path) -> None:
    with pytest.raises(FileNotFoundError):
        readme.filled("<!-- table time -->\n<!-- end -->\n", place)


def test_the_tables_of_kept_graphs_are_those_of_the_results() -> None:
    for page in readme.PAGES:
        text = page.read_text(encoding="utf-8")
        assert readme.filled(text, Path("nowhere"), readme.KEPT) == text, "run `make results`"


def test_other_tables_stay_where_some_are_named() -> None:
    assert readme.filled(BEFORE, Path("nowhere"), ["graphs"]) == BEFORE
    text = readme.filled("<!-- table graphs: graph; ours -->\n<!-- end -->\n", Path("nowhere"))
    assert "| graph | ours |" in text and "| graphs/mlp | 7,360,516 |" in text


def test_a_table_of_another_benchmark_is_filled_where_it_is_named(place: Path) -> None:
    page = "<!-- table program_families -->\nold\n<!-- end -->\n"
    assert readme.filled(page, place / "bench") == page
    tables.save([{"family": "vgg", "tasks": 1005}], place / "recompute" / "program_families.csv")
    assert "| vgg | 1,005 |" in readme.filled(page, place / "bench", ["program_families"])


def test_columns_are_aligned() -> None:
    lines = tables.text(ROWS, left=1).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("mlp ") and "7,192" in lines[1]

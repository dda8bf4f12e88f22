"""The pages under docs/ say what the sources say."""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

import theano_memopt
from tools import api

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PATH = re.compile(r"`((?:theano_memopt|theano_memopt_ops|tests|benchmarks|tools|docs|clients|hosts|planner|report|commands)/[\w./-]+?)`")


def test_the_page_of_the_api_is_made_from_the_sources() -> None:
    assert api.PAGE.read_text(encoding="utf-8") == api.page(), "docs/api.md is not what the docstrings say now: run `make api`"


def test_a_name_that_is_gone_is_missed() -> None:
    with pytest.raises(LookupError, match="defines no nosuch"):
        api._entry("theano_memopt.options", "nosuch")


def test_a_changed_docstring_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    honest = api._source_of
    monkeypatch.setattr(api, "_source_of", lambda module: honest(module).replace("Bytes live", "Octets live").replace("order", "sequence"))
    assert api.PAGE.read_text(encoding="utf-8") != api.page()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not any((root / path.rstrip("/")).exists() for root in (ROOT, ROOT / "theano_memopt"))] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_examples_of_the_planner_s_page_run() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "planner.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (failed, tried > 5) == (0, True)


@pytest.mark.parametrize(
    "word", ["CVM", "toposort", "cell", "floor", "held open", "aside", "in force", "given order", "kept", "peak", "hint", "shared arena"]
)
def test_the_words_of_a_report_are_explained_in_a_line_each(word: str) -> None:
    _, words = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## Words")
    (line,) = [line for line in words.split("## One function")[0].splitlines() if line.startswith(f"| {word} |")]
    assert len(line) > len(word) + 40
    assert "docs/design.md#words" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(importlib.util.find_spec("theano") is None, reason="Theano is not installed")
def test_the_calls_of_readme_are_those_that_there_are() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"theano_memopt\.([a-z_]+)\(", readme))
    assert {"hint", "shared_arena", "explain", "profile", "mode"} <= named
    assert sorted(name for name in named if not callable(getattr(theano_memopt, name, None))) == []

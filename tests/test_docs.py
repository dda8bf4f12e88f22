"""The pages under docs/ say what the sources say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

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

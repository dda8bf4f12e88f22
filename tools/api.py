"""Makes docs/api.md from signatures and docstrings: `make api`.

The sources are read with `ast`, so no Theano is needed, and every Python makes the same page. tests/test_docs.py compares the
page with the sources.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Dict, Iterator, List, Tuple, Union

import theano_memopt
from theano_memopt import files

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"

Definition = Union[ast.FunctionDef, ast.ClassDef]

REPORT = "theano_memopt.report"
PLANNER = "theano_memopt.planner"
SECTIONS: Tuple[Tuple[str, str, Tuple[Tuple[str, str], ...]], ...] = (
    (
        "With Theano",
        "Each of these is an attribute of `theano_memopt`; the first use imports Theano.",
        tuple((module, name) for name, module in sorted(theano_memopt._PUBLIC.items())),
    ),
    (
        "Reports",
        "`explain` answers a `PrintableReport`, `profile` a `PrintableComparison`, `compare` a `PrintableTogether`.",
        (
            (f"{REPORT}.printable", "PrintableReport"),
            (f"{REPORT}.model", "Report"),
            (f"{REPORT}.printable", "PrintableComparison"),
            (f"{REPORT}.comparison", "Comparison"),
            (f"{REPORT}.model", "Profile"),
            (f"{REPORT}.printable", "PrintableTogether"),
            (f"{REPORT}.together", "Together"),
            (f"{REPORT}.printable", "report_of"),
        ),
    ),
    (
        "The planner by itself",
        "These need no Theano.",
        (
            (f"{PLANNER}.model", "Buffer"),
            (f"{PLANNER}.model", "Task"),
            (f"{PLANNER}.model", "Graph"),
            (f"{PLANNER}.model", "build_graph"),
            (f"{PLANNER}.model", "graph_from_json"),
            (f"{PLANNER}.exact", "minimise_peak"),
            (f"{PLANNER}.certificate", "Schedule"),
            (f"{PLANNER}.certificate", "check_certificate"),
            (f"{PLANNER}.plan", "make_plan"),
            (f"{PLANNER}.plan", "check_plan"),
            (f"{PLANNER}.plan", "Plan"),
            (f"{PLANNER}.arena", "pack"),
            (f"{PLANNER}.program", "program_from_json"),
            (f"{PLANNER}.recompute", "plan_recompute"),
            ("theano_memopt.options", "PlanOptions"),
            ("theano_memopt.options", "Prunings"),
            ("theano_memopt.options", "PackOptions"),
            ("theano_memopt.options", "RecomputeOptions"),
        ),
    ),
)
"""Title, a sentence, and (module, name) of everything that the section shows."""


def page() -> str:
    parts = ["# API\n", "Made from the docstrings by `make api`; edit those, not this page.\n"]
    for title, sentence, names in SECTIONS:
        parts += [f"## {title}\n", f"{sentence}\n"]
        parts += [_entry(module, name) for module, name in names]
    return "\n".join(parts)


def _entry(module: str, name: str) -> str:
    source = _source_of(module)
    found = _definitions(source).get(name)
    if found is None:
        raise LookupError(f"{module} defines no {name}")
    lines = [f"### `{name}`\n", f"`{module}`\n", "```python", *_signature(source, found), "```\n"]
    words = ast.get_docstring(found)
    if words:
        lines += [*_paragraphs(words), ""]
    if isinstance(found, ast.ClassDef):
        members = [f"- {row}" for row in _members(source, found)]
        lines += [*members, ""] if members else []
    return "\n".join(lines)


def _source_of(module: str) -> str:
    path = ROOT.joinpath(*module.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


def _definitions(source: str) -> Dict[str, Definition]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def _signature(source: str, found: Definition) -> List[str]:
    """The lines from `def` or `class` up to the body."""
    lines = source.splitlines()[found.lineno - 1 : found.body[0].lineno - 1] or [source.splitlines()[found.lineno - 1]]
    return textwrap.dedent("\n".join(lines)).rstrip().split("\n")


def _members(source: str, found: ast.ClassDef) -> Iterator[str]:
    """The fields of a dataclass, its properties and its public methods, each with the first paragraph that is said of it."""
    for at, node in enumerate(found.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
            yield _with_words(f"`{' '.join((ast.get_source_segment(source, node) or '').split())}`", _docstring_below(found.body, at))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            plain = any(isinstance(mark, ast.Name) and mark.id in ("property", "cached_property") for mark in node.decorator_list)
            yield _with_words(f"`{node.name}`" if plain else f"`{node.name}(...)`", ast.get_docstring(node) or "")


def _docstring_below(body: List[ast.stmt], at: int) -> str:
    below = body[at + 1] if at + 1 < len(body) else None
    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
        return inspect.cleandoc(below.value.value)
    return ""


def _with_words(head: str, words: str) -> str:
    first = " ".join(words.split("\n\n")[0].split())
    return f"{head}: {first}" if first else head


def _paragraphs(words: str) -> Iterator[str]:
    """A docstring as Markdown: what is indented, and each example, becomes code."""
    for paragraph in words.split("\n\n"):
        if paragraph.startswith((">>>", "    ")):
            yield "\n".join(["```python" if paragraph.startswith(">>>") else "```", textwrap.dedent(paragraph), "```"])
        else:
            yield paragraph
        yield ""


def main() -> int:
    files.write_whole(str(PAGE), page())
    return 0


if __name__ == "__main__":
    sys.exit(main())

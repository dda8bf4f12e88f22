"""The walls of the house: who may import whom, read from the source with `ast`, and a planner that runs without any framework.

    model, load <- liveness <- {floors, heuristics, reduce, exact, slots, arena} <- plan <- hosts, report, commands
    model <- program <- replay, which shares nothing with recompute and what lies below that

`report` never imports `hosts`, nobody imports `commands.menu`, and nothing in the planner imports Theano.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Dict, Set

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "theano_memopt"
PLANNER = "theano_memopt.planner"
FRAMEWORKS = ("theano", "pytensor", "aesara", "torch", "tensorflow", "jax")


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, name: str, is_package: bool = False) -> Set[str]:
    """Every dotted name that a module imports, anywhere in it; `from a import b` counts as `a` and as `a.b`."""
    found: Set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = name.split(".")
                up = up[: len(up) - node.level + (1 if is_package else 0)]
                base = ".".join(up + ([node.module] if node.module else []))
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def sources() -> Dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def allowed(importer: str, imported: str) -> bool:
    """May `importer` import `imported`? Only names inside the package and frameworks are restricted."""
    if importer.startswith(PLANNER):
        if imported.split(".")[0] in FRAMEWORKS:
            return False
        if not imported.startswith("theano_memopt"):
            return True
        if not imported.startswith(PLANNER):
            return imported == "theano_memopt.options" or imported.startswith("theano_memopt.options.") or imported == "theano_memopt"
        return _within_planner(importer[len(PLANNER) + 1 :], imported[len(PLANNER) + 1 :].split(".")[0])
    if importer == "theano_memopt.options":
        return imported.split(".")[0] not in FRAMEWORKS and not imported.startswith("theano_memopt.")
    if importer.startswith("theano_memopt.report"):
        return not imported.startswith("theano_memopt.hosts") and imported.split(".")[0] not in FRAMEWORKS and not _is_menu(imported)
    return not _is_menu(imported) or importer == "theano_memopt.__main__"


def _is_menu(imported: str) -> bool:
    return imported == "theano_memopt.commands.menu" or imported.startswith("theano_memopt.commands.menu.")


def _within_planner(importer: str, imported: str) -> bool:
    if imported == "":
        return True
    if importer in ("model", "load"):
        return False
    if importer == "liveness":
        return imported in ("model", "load")
    if importer == "program":
        return imported == "model"
    if importer == "replay":  # it judges everything that plans repeats, so it may know none of that
        return imported in ("program", "certificate")
    if importer == "plan":
        return True
    return imported != "plan"  # the layer in the middle may use itself and what lies below


@pytest.mark.parametrize("name", sorted(sources()))
def test_imports_follow_the_walls(name: str) -> None:
    path = sources()[name]
    imported = imports_of(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")
    # `from theano_memopt.planner import exact` also lists names that are no modules; only real ones are walls.
    broken = sorted(i for i in imported if not allowed(name, i) and (not i.startswith(PLANNER) or _exists(i)))
    assert broken == []


def _exists(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize(
    ("importer", "source", "broken"),
    [
        ("theano_memopt.planner.model", "from theano_memopt.planner import liveness", "theano_memopt.planner.liveness"),
        ("theano_memopt.planner.model", "from . import liveness", "theano_memopt.planner.liveness"),
        ("theano_memopt.planner.load", "from .liveness import lives", "theano_memopt.planner.liveness"),
        ("theano_memopt.planner.liveness", "from .slots import share_cells", "theano_memopt.planner.slots"),
        ("theano_memopt.planner.replay", "from theano_memopt.planner.evict import flatten", "theano_memopt.planner.evict"),
        ("theano_memopt.planner.exact", "def f():\n    from theano_memopt.planner.plan import Plan", "theano_memopt.planner.plan"),
        ("theano_memopt.planner.floors", "import theano.gof", "theano.gof"),
        ("theano_memopt.planner.floors", "from theano_memopt.hosts import theano", "theano_memopt.hosts"),
        ("theano_memopt.report.text", "import theano_memopt.hosts.theano.run.linker", "theano_memopt.hosts.theano.run.linker"),
        ("theano_memopt.hosts.theano.run.linker", "from ....commands.menu import main", "theano_memopt.commands.menu"),
    ],
)
def test_a_breach_is_seen(importer: str, source: str, broken: str) -> None:
    """The negative control: each of these breaks a wall, and the reader says so."""
    assert broken in {i for i in imports_of(source, importer) if not allowed(importer, i)}


BLOCKED = """
import importlib, sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {frameworks!r}:
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Wall())
for name in {names!r}:
    importlib.import_module(name)
assert not set({frameworks!r}) & set(sys.modules), sys.modules.keys()
print("imported", len({names!r}))
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), capture_output=True, text=True)


def test_the_planner_imports_with_every_framework_blocked() -> None:
    names = [name for name in sources() if name.startswith(PLANNER)] + ["theano_memopt.options", "theano_memopt.commands.menu"]
    done = run_python(BLOCKED.format(frameworks=FRAMEWORKS, names=names))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["imported", str(len(names))]


def test_the_block_holds() -> None:
    done = run_python(BLOCKED.format(frameworks=FRAMEWORKS, names=["theano"]))
    assert done.returncode != 0
    assert "blocked: theano" in done.stderr

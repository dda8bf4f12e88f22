"""The walls of the house: who may import whom, read from the source with `ast`, and a planner that runs without any framework.

    options, files, progress, program              know nothing of the package
    planner    model, load <- liveness <- {floors, heuristics, reduce, exact, slots, arena} <- plan
               model <- program <- replay, which shares nothing with recompute and what lies below that
    report     words <- repeats <- model <- comparison, drawing, together <- text, json_form <- page, trace, run_table <- printable
    hosts      planner and report; in hosts/theano  install <- read <- optimize <- run <- explain <- measure
    commands   all of these; base <- inputs <- one file per verb <- menu, and nobody else imports them

`report` never imports `hosts`, nothing in the planner or in `report` imports Theano, and there is no circle inside any of these folders.
In the host `read` knows of `install` the flags alone, and `install` imports the rest only in functions: what registers the pass, and by
name what install/patches.py lists.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "theano_memopt"
PLANNER, REPORT, COMMANDS = "theano_memopt.planner", "theano_memopt.report", "theano_memopt.commands"
HOST = "theano_memopt.hosts.theano"
LAYERS = ("", "install", "read", "optimize", "run", "explain", "measure")
"""Of the host: each imports itself and what stands before it. The first is the package's own file."""
SHARED = ("base", "inputs")
"""Of `commands`: what the verbs share. A verb imports these, a module of its own tables (recompute, recompute_tables), and no other verb."""
ALONE = ("theano_memopt.options", "theano_memopt.files", "theano_memopt.progress", "theano_memopt.program")
FRAMEWORKS = ("theano", "pytensor", "aesara", "torch", "tensorflow", "jax")


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, name: str, is_package: bool = False, in_functions: bool = True) -> Set[str]:
    """Every dotted name that a module imports, anywhere in it; `from a import b` counts as `a` and as `a.b`."""
    found: Set[str] = set()
    for node in _statements(ast.parse(source), in_functions):
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


def _statements(tree: ast.AST, in_functions: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        if in_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _statements(node, in_functions)


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
            return imported == "theano_memopt" or _is_in(imported, "theano_memopt.options", "theano_memopt.files")
        return _within_planner(importer[len(PLANNER) + 1 :], imported[len(PLANNER) + 1 :].split(".")[0])
    if importer in ALONE:
        return imported.split(".")[0] not in FRAMEWORKS and not imported.startswith("theano_memopt.")
    if importer.startswith(REPORT):
        return imported.split(".")[0] not in FRAMEWORKS and (
            not imported.startswith("theano_memopt.") or _is_in(imported, PLANNER, REPORT, *ALONE[:2])
        )
    if importer.startswith(COMMANDS + "."):
        shared = imported == COMMANDS or _is_in(imported, importer + "_tables", *(f"{COMMANDS}.{name}" for name in SHARED))
        return shared or importer == f"{COMMANDS}.menu" or not _is_in(imported, COMMANDS)
    if _is_in(importer, HOST) and _is_in(imported, HOST):
        return _within_host(importer[len(HOST) + 1 :], imported[len(HOST) + 1 :])
    return not _is_in(imported, COMMANDS) or importer == "theano_memopt.__main__"


def _within_host(importer: str, imported: str) -> bool:
    layer, other = importer.split(".")[0], imported.split(".")[0]
    if importer == "install.import_hook" and _is_in(imported, "optimize", "optimize.optimizer", "optimize.pickles"):
        return True  # in `_register`, once Theano is there; that it is in a function is a test of its own
    if layer == "":
        return other in ("", "install")
    if layer == "read" and other == "install":
        return imported == "install" or _is_in(imported, "install.flags")
    return LAYERS.index(other) <= LAYERS.index(layer)


def _is_in(imported: str, *modules: str) -> bool:
    return any(imported == module or imported.startswith(module + ".") for module in modules)


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
        ("theano_memopt.report.text", "from theano_memopt.commands.base import above", "theano_memopt.commands.base"),
        ("theano_memopt.hosts.theano.run.linker", "from ....commands.base import BadInput", "theano_memopt.commands.base"),
        (f"{HOST}.read.graph", f"from {HOST}.optimize.optimizer import feature_of", f"{HOST}.optimize.optimizer"),
        (f"{HOST}.read.graph", f"from {HOST}.install import blas", f"{HOST}.install.blas"),
        (f"{HOST}.optimize.making", "from ..run import linker", f"{HOST}.run.linker"),
        (f"{HOST}.run.arena.call", f"def f():\n    import {HOST}.measure.memory", f"{HOST}.measure.memory"),
        (f"{HOST}.run.linker", f"from {HOST} import explain", f"{HOST}.explain"),
        (f"{HOST}.install.patches", f"def f():\n    from {HOST}.run import linker", f"{HOST}.run.linker"),
        (HOST, f"from {HOST}.optimize import optimizer", f"{HOST}.optimize.optimizer"),
        ("theano_memopt.commands.run", "from theano_memopt.commands.demo import STEPS", "theano_memopt.commands.demo"),
        ("theano_memopt.files", "from theano_memopt.report.model import Report", "theano_memopt.report.model"),
    ],
)
def test_a_breach_is_seen(importer: str, source: str, broken: str) -> None:
    """The negative control: each of these breaks a wall, and the reader says so."""
    assert broken in {i for i in imports_of(source, importer) if not allowed(importer, i)}


@pytest.mark.parametrize("name", sorted(name for name in sources() if name == HOST or _is_in(name, f"{HOST}.install")))
def test_installing_imports_no_theano_before_it_is_there(name: str) -> None:
    """At import time: nothing of the host but itself, and no framework."""
    assert _too_early(sources()[name].read_text(encoding="utf-8"), name) == []


def test_an_import_that_is_too_early_is_seen() -> None:
    lazily = f"def f():\n    import theano\n    from {HOST}.optimize import optimizer\n"
    assert _too_early(lazily, f"{HOST}.install.import_hook") == []
    assert "theano" in _too_early("if True:\n    import theano", f"{HOST}.install.import_hook")
    assert f"{HOST}.optimize.optimizer" in _too_early(f"from {HOST}.optimize import optimizer", f"{HOST}.install.import_hook")


def _too_early(source: str, name: str) -> List[str]:
    imported = imports_of(source, name, in_functions=False)
    return sorted(i for i in imported if i.split(".")[0] in FRAMEWORKS or (_is_in(i, HOST) and not _is_in(i, f"{HOST}.install")))


WITHOUT_CIRCLES = (PLANNER, REPORT, COMMANDS, HOST)


def circle_in(imports: Dict[str, Set[str]]) -> List[str]:
    """A circle of modules, each of which imports the next; empty if there is none."""
    done: Set[str] = set()

    def look(name: str, path: List[str]) -> List[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        found = next(filter(None, (look(other, [*path, name]) for other in sorted(imports[name] & set(imports)))), [])
        done.add(name)
        return found

    return next(filter(None, (look(name, []) for name in sorted(imports))), [])


@pytest.mark.parametrize("folder", WITHOUT_CIRCLES)
def test_there_is_no_circle_in_a_folder(folder: str) -> None:
    """Imports inside functions count."""
    inside = {name: path for name, path in sources().items() if name.startswith(folder + ".")}
    assert len(inside) > 5
    assert circle_in({name: imports_of(path.read_text(encoding="utf-8"), name) for name, path in inside.items()}) == []


def test_a_circle_is_seen() -> None:
    assert circle_in({"a": {"b"}, "b": {"c", "x"}, "c": {"d"}, "d": {"b"}}) == ["b", "c", "d"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


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

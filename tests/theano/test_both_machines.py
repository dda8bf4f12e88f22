"""The tests that the BLAS has a say in, once without one and once with SciPy's, whichever of them this machine runs the others with.

They are marked `blas` and run in a child: Theano finds out about its BLAS once in a process.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest
import theano

from theano_memopt.hosts.theano.install import blas

ROOT = Path(__file__).resolve().parents[2]
WAYS = {"without": "blas.ldflags=", "scipy": "mem_reuse.blas=scipy"}
TOLD = "MEM_REUSE_TESTED_WITH"
FILES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "tests").rglob("test_*.py")
    if re.search(r"^(@|pytestmark = )pytest\.mark\.blas\b", path.read_text(), re.M)
)
"""Those with a test that is marked."""


def _environment(way: str) -> Dict[str, str]:
    flags = ",".join([*filter(None, [os.environ.get("THEANO_FLAGS")]), WAYS[way]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "THEANO_FLAGS": flags, TOLD: way}


def _not_here(way: str) -> str:
    """Why this way is not tried in a child; nothing if it is."""
    if TOLD in os.environ:
        return "this is the child"
    if (way == "without") == (not theano.config.blas.ldflags):
        return f"this process runs {'without' if way == 'without' else 'with'} a BLAS itself: {blas.in_words()}"
    try:
        blas.scipy_library()
    except blas.BlasRefused as no:
        return str(no) if way == "scipy" else ""
    return ""


@pytest.mark.parametrize("way", WAYS)
def test_with_and_without(way: str) -> None:
    why = _not_here(way)
    if why:
        pytest.skip(why)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "blas and not nightly", "-p", "no:cacheprovider", *FILES]
    done = subprocess.run(command, cwd=str(ROOT), env=_environment(way), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:]
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1])


def test_what_is_marked() -> None:
    names = {Path(file).stem for file in FILES}
    assert names >= {"test_both_machines", "test_arena_host", "test_memory", "test_array_layout", "test_faults", "test_demo"}


@pytest.mark.blas
@pytest.mark.skipif(TOLD not in os.environ, reason="this is not the child")
def test_the_child_runs_the_way_that_it_was_told() -> None:
    assert bool(theano.config.blas.ldflags) == (os.environ[TOLD] == "scipy")
    assert blas.in_words().startswith({"without": "none", "scipy": "SciPy's"}[os.environ[TOLD]])

"""Where Theano is not installed the package is there for its planner, and says in one line what is missing for the rest."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import theano_memopt
from theano_memopt.commands.menu import main
from theano_memopt.hosts.theano.install import environment

EXTRA = 'pip install "theano-memopt[theano]"'
ROOT = Path(__file__).resolve().parents[1]
missing = pytest.mark.skipif(importlib.util.find_spec("theano") is not None, reason="Theano is installed")


@pytest.fixture
def no_theano(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Python that could have it."""
    monkeypatch.setattr(environment, "theano_is_there", lambda: False)
    monkeypatch.setattr(sys, "version_info", (3, 11, 0, "final", 0))


@pytest.mark.parametrize("name", [name for name in dir(theano_memopt) if name in theano_memopt._PUBLIC])
def test_its_names_say_which_extra_is_missing(name: str, no_theano: None) -> None:
    with pytest.raises(ImportError, match="Theano 1.0.5 is not installed here") as error:
        getattr(theano_memopt, name)
    assert name in str(error.value) and EXTRA in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("verb", [["run", __file__], ["demo"]])
def test_its_commands_say_so_too(verb: Any, no_theano: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(verb) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert EXTRA in line


@missing
def test_the_package_itself_is_imported_in_silence() -> None:
    program = "import theano_memopt\ntry: theano_memopt.explain\nexcept ImportError as no: print(no)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert EXTRA in done.stdout and done.stderr == ""


def test_the_tests_themselves_are_found() -> None:
    """All but those of the host, whose folders have a conftest.py that imports Theano."""
    program = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda finder, name, *more: None if name == "theano" else find(name, *more))
import pytest
sys.exit(pytest.main(["-q", "--collect-only", "-p", "no:cacheprovider", "-n0"]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=str(ROOT), check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert "tests/planner/test_search.py" in found and not [file for file in found if file.startswith("tests/theano")]

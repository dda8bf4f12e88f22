"""`demo`: real models, small here, with stock and with the pass, and what it says at the end."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from theano_memopt.commands.menu import main

ROOT = Path(__file__).resolve().parent.parent
needs_theano = pytest.mark.skipif(importlib.util.find_spec("theano") is None, reason="Theano is not installed")


@needs_theano
@pytest.mark.blas
def test_models_side_by_side(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "theano_memopt", "demo", "--size", "4", "--steps", "3", "--models", "mlp_adam,logreg", "--html", "d.html"]
    done = subprocess.run(command, cwd=str(tmp_path), capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    found = {cells[0].strip(): [c.strip() for c in cells[1:]] for line in done.stdout.splitlines() for cells in [line.split("│")] if len(cells) > 5}
    assert set(found) == {"mlp_adam", "logreg"}
    peak_stock, peak_ours, saved, least, reserved_stock, reserved_ours, *_, difference = found["mlp_adam"]
    assert number(peak_ours) < 0.7 * number(peak_stock) and saved.startswith("-")
    assert "at the floor" in least and number(least) == pytest.approx(number(peak_ours), rel=0.03)
    assert number(reserved_ours) < 0.6 * number(reserved_stock)
    assert difference == "0"
    assert "same loss on both sides: yes" in done.stdout
    assert re.search(r"1/2 mlp_adam: compiling", done.stderr)
    page = tmp_path / "d.html"
    assert str(page) in done.stdout and "uPlot" in page.read_text()


def number(text: str) -> float:
    amount, unit = text.split()[:2]
    return float(amount) * {"B": 1, "KiB": 1024, "MiB": 1024**2}[unit.rstrip(",")]


@needs_theano
def test_losses_that_differ_fail_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The negative control: a difference is not printed as 0."""
    from theano_memopt.commands import demo

    honest = demo._train

    def wrong(*arguments: Any) -> Any:
        (stock, ours), seconds = honest(*arguments)
        return [stock, [loss + 0.5 for loss in ours]], seconds

    monkeypatch.setattr(demo, "_train", wrong)
    assert main(["demo", "--size", "8", "--steps", "1", "--models", "logreg", "--html", str(tmp_path / "d.html")]) == 1
    told = capsys.readouterr().out
    assert "0.5" in told and "both sides: NO" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "mlp,nosuch"], "no model 'nosuch'"),
        (["--models", ","], "at least one"),
        (["--steps", "0"], "whole number"),
        (["--html", "/no/such/d.html"], "no directory"),
    ],
)
@needs_theano
@pytest.mark.quick
def test_bad_use_is_one_clear_line(arguments: Any, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line

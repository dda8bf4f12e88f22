"""The comparing part of `make clients`: it must see one bit."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from clients import table
from clients.table import Side, differences, loss_differs, planned_of

SCRIPTS = Path(table.SCRIPTS)
ONE = Side(((0.5, 0.25), (0.125, 0.0)), (0.1, 0.2), "ab", 100, 0)


def ending() -> Any:
    spec = importlib.util.spec_from_file_location("ending", SCRIPTS / "ending.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_equal_sides_have_no_difference_whatever_their_times_and_peaks() -> None:
    assert differences(ONE, replace(ONE, seconds=(9.0, 9.0), peak=1)) == []
    assert loss_differs(ONE, ONE) == 0


@pytest.mark.parametrize(
    "other, words, much",
    [
        (replace(ONE, digest="ac"), ["weights"], 0.0),
        (replace(ONE, losses=((0.5, 0.25), (float(np.nextafter(0.125, 1)), 0.0))), ["losses"], 2**-55),
        (replace(ONE, losses=((0.5, 0.25), (0.125, -0.0))), ["losses"], 0.0),
        (replace(ONE, losses=((0.5, 0.25), (0.125, math.nan))), ["losses"], math.inf),
        (replace(ONE, losses=ONE.losses[:1], digest=""), ["losses", "weights"], math.inf),
    ],
)
def test_one_bit_is_a_difference(other: Side, words: Any, much: float) -> None:
    assert differences(ONE, other) == words
    assert loss_differs(ONE, other) in (much, 2**-56)


def test_a_digest_tells_bits_types_and_shapes_apart() -> None:
    digest = ending().digest
    zeros = np.zeros((2, 3), "float32")
    others = [zeros.reshape(3, 2), zeros.astype("int32"), -zeros, zeros.T, np.zeros((2, 3))]
    assert digest([zeros]) == digest([zeros.copy()])
    assert digest([zeros]) not in [digest([other]) for other in others] + [digest([zeros, zeros]), digest([])]


def test_what_a_script_prints_is_read_back_exactly(capsys: pytest.CaptureFixture[str]) -> None:
    training = ending().Training()
    for value in (1 / 3, float("nan"), -0.0):
        training.step(lambda v: [v, np.float32(0.1)], value)
    training.finish([np.zeros(2)])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [float.fromhex(v).hex() for step in said["losses"] for v in step] == [
        v for value in (1 / 3, float("nan"), -0.0) for v in (value.hex(), float(np.float32(0.1)).hex())
    ]


def test_the_function_with_the_largest_stock_peak_is_quoted() -> None:
    def row(stock: int, ours: int, inside: str = "") -> Dict[str, Any]:
        report = {"host_peaks": [{"name": "it", "peak_bytes": stock}], "peak_bytes": ours, "floor_bytes": ours, "least_bytes": ours}
        return {"inside": inside, "report": report}

    planned = planned_of([row(10, 8), row(12, 7), row(99, 98, "inside a Scan"), {"inside": "", "report": None}])
    assert (planned.stock, planned.ours, planned.proven, planned.functions, planned.declined) == (12, 7, True, 4, 1)


def test_what_is_missing_or_unknown_is_one_line_and_a_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(table, "NEEDED", {"keras": ("no_such_package",), "pymc3": ()})
    assert table.main([]) == table.MISSING
    assert "no_such_package" in capsys.readouterr().err
    monkeypatch.setattr(table, "NEEDED", {"keras": (), "pymc3": ()})
    monkeypatch.setattr(table.shutil, "which", lambda name: "/" + name)
    assert table.main(["no_such_client"]) == table.MISSING
    error = capsys.readouterr().err
    assert "no_such_client" in error and error.count("\n") == 1


def test_a_client_that_differs_or_breaks_ends_with_a_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = {"stock": ONE, "run": ONE}
    monkeypatch.setattr(table, "_run", lambda client, side, *rest: sides[side])
    monkeypatch.setattr(table, "_planned", lambda *rest: table.Planned(10, 8, 8, True, 1, 0))
    monkeypatch.setattr(table, "missing", lambda environment: "")
    assert table.main(["mlp", "--out", str(tmp_path)]) == table.SAME
    sides["run"] = replace(ONE, digest="ac")
    assert table.main(["mlp", "--out", str(tmp_path)]) == table.DIFFERENT
    assert "weights differ" in capsys.readouterr().out

    def broken(*arguments: Any) -> Any:
        raise table.Broken("it fell")

    monkeypatch.setattr(table, "_run", broken)
    assert table.main(["mlp", "--out", str(tmp_path)]) == table.DIFFERENT
    assert "it fell" in capsys.readouterr().out


def test_every_script_is_a_client_and_none_knows_of_the_package() -> None:
    scripts = {path.stem for path in SCRIPTS.glob("*.py")} - {"ending", "begin_keras", "sampling"}
    assert scripts == {client.script for client in table.CLIENTS}
    assert not [path.name for path in SCRIPTS.glob("*.py") if "memopt" in path.read_text()]


def test_each_environment_runs_its_own_clients_in_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []

    def run(client: table.Client, side: str, *rest: Any) -> Any:
        runs.append((client.script, side))
        return replace(ONE, seconds=(7.0,) * table.UNTIMED + {"stock": (0.4, 0.1 * len(runs)), "pass": (0.1 * len(runs), 0.3), "run": (9, 9)}[side])

    monkeypatch.setattr(table, "missing", lambda environment: "")
    monkeypatch.setattr(table, "_run", run)
    monkeypatch.setattr(table, "_planned", lambda *rest: table.Planned(10, 8, 8, True, 1, 0))
    assert table.main(["--of", "pymc3", "pymc3_lkj", "mlp", "--out", str(tmp_path)]) == table.SAME
    once = [("pymc3_lkj", "stock"), ("pymc3_lkj", "run"), *[("pymc3_lkj", "stock"), ("pymc3_lkj", "pass")] * 3]
    assert runs == once * 2  # with gc and without
    assert "2 of 2 clients" in capsys.readouterr().out
    first, second = csv.DictReader((tmp_path / "clients_pymc3.csv").open())
    assert float(first["in_all"]) == pytest.approx((0.4 + 0.3) / (0.4 + 0.3)) and float(second["in_all"]) == pytest.approx((1.2 + 0.3) / (0.4 + 1.1))
    assert table.main(["--of", "pymc3", "mlp", "--out", str(tmp_path)]) == table.SAME and len(runs) == 16
    assert {table._environment(c, "", "stock")["THEANO_FLAGS"].split("floatX=")[1][:7] for c in table.CLIENTS if c.environment == "pymc3"} == {
        "float64"
    }


def test_the_package_is_run_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "clients", "--help"], cwd=str(SCRIPTS.parent.parent), capture_output=True, text=True)
    assert done.returncode == 0 and "keras_images" in done.stdout


def test_a_budget_goes_to_our_side_alone(tmp_path: Path) -> None:
    client = table.Client("mlp", flags=("mem_reuse.budget=0.5",))
    flags = {side: table._environment(client, str(tmp_path), side)["THEANO_FLAGS"] for side in table.STARTERS}
    assert [side for side in flags if "mem_reuse.budget=0.5" in flags[side]] == [side for side in table.STARTERS if side != "stock"]

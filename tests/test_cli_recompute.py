"""`recompute` and the `check` of its answer, as a user types them: tables, JSON, exit codes, and one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Tuple

import pytest

from theano_memopt.commands.base import BAD_INPUT, DONE, REJECTED
from theano_memopt.commands.menu import main
from theano_memopt.planner.program import program_to_json, worked_program

FROZEN = Path(__file__).parent / "programs" / "recompute"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.json"
    path.write_text(json.dumps(program_to_json(worked_program())), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Tuple[int, str, str]:
    status = main([str(word) for word in words])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_a_table_for_people(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "recompute", program, "--budget", "10B")
    assert status == DONE and err == ""
    for words in ("least found by order alone", "17", "with results made again", "20.00 %", "floor under every sequence", "expand", "It fits."):
        assert words in out


def test_json_and_the_file_are_the_same_and_checked(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_path = tmp_path / "result.json"
    status, out, _ = run(capsys, "recompute", program, "--budget", "0.6", "--json", "--out", out_path)
    answer = json.loads(out)
    assert status == DONE and answer == json.loads(out_path.read_text(encoding="utf-8"))
    assert (answer["peak_bytes"], answer["budget_bytes"], answer["again"]) == (10, 10, [{"name": "expand", "times": 1}])
    status, out, err = run(capsys, "check", program, out_path)
    assert status == DONE and "accepted: peak 10 bytes, 20.00 % more time, no sequence below 10" in out and err == ""


def test_extra_time(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "recompute", program, "--extra-time", "0.2", "--json")[1])["peak_bytes"] == 10
    assert json.loads(run(capsys, "recompute", program, "--extra-time", "0.19", "--json")[1])["peak_bytes"] == 17


def test_a_budget_that_cannot_be_met(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "recompute", program, "--budget", "9B")
    assert status == DONE and "It does not fit: asked 9 bytes, lowest found 10 bytes, no sequence at all goes below 10 bytes (task 'join')." in out


def test_a_budget_above_the_ordered_peak(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "recompute", program, "--budget", "1GiB")
    assert status == DONE and "Nothing to do" in out


def test_effort_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    path = FROZEN / "z_mlp.json"
    first = run(capsys, "recompute", path, "--budget", "0.5", "--effort", "30", "--json")[1]
    assert first == run(capsys, "recompute", path, "--budget", "0.5", "--effort", "30", "--json")[1]
    assert json.loads(first)["simulations"] <= 4 * 30  # a budget that is missed is looked for in four ways
    assert run(capsys, "recompute", path, "--budget", "0.5", "--time", "0.01", "--json")[0] == DONE


@pytest.mark.parametrize("budget", ["0", "2", "-1", "-0.5", "half", "5 parsecs", "1.5", "nan", ""])
def test_budgets_that_are_none(program: Path, tmp_path: Path, budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "recompute", program, f"--budget={budget}", "--out", tmp_path / "out.json")
    assert (status, out, err.count("\n")) == (BAD_INPUT, "", 1)
    assert "--budget" in err and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "words", [(), ("--budget", "0.5", "--extra-time", "0.1"), ("--extra-time", "-1"), ("--extra-time", "nan"), ("--extra-time", "some")]
)
def test_goals_that_are_none(program: Path, words: Tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "recompute", program, *words)
    assert (status, out, err.count("\n")) == (BAD_INPUT, "", 1)


BAD = {
    "a cycle": ('{"values": [{"name": "a", "bytes": 1}], "tasks": [{"name": "t", "reads": ["a"], "writes": ["a"], "seconds": 1}]}', "cycle"),
    "an unknown value": ('{"values": [{"name": "a", "bytes": 1, "view_of": "b"}], "tasks": []}', "values[0].view_of"),
    "missing seconds": ('{"values": [], "tasks": [{"name": "t"}]}', "tasks[0].seconds"),
    "negative seconds": ('{"values": [], "tasks": [{"name": "t", "seconds": -1}]}', "tasks[0].seconds"),
    "not a number": ('{"values": [], "tasks": [{"name": "t", "seconds": NaN}]}', "NaN"),
    "no JSON": ("{", "line 1"),
    "too many bytes": ('{"values": [{"name": "a", "bytes": 4611686018427387904}], "tasks": []}', "bad-size"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_programs_that_are_none(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, out_path = tmp_path / "bad.json", tmp_path / "out.json"
    path.write_text(BAD[name][0], encoding="utf-8")
    status, out, err = run(capsys, "recompute", path, "--budget", "0.5", "--out", out_path)
    assert (status, out, err.count("\n")) == (BAD_INPUT, "", 1)
    assert str(path) in err and BAD[name][1] in err and not out_path.exists()


def test_what_is_not_true_is_rejected(program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.json"
    run(capsys, "recompute", program, "--budget", "10B", "--out", result)
    answer: Any = json.loads(result.read_text(encoding="utf-8"))
    for change, status, words in (
        ({"sequence": ["expand", "sum", "blow_up", "shrink", "join"]}, REJECTED, "wrong-peak"),
        ({"peak_bytes": "ten"}, BAD_INPUT, "peak_bytes"),
    ):
        result.write_text(json.dumps({**answer, **change}), encoding="utf-8")
        found, out, err = run(capsys, "check", program, result)
        assert (found, out, err.count("\n")) == (status, "", 1) and words in err
    result.write_text("[]", encoding="utf-8")
    assert run(capsys, "check", program, result)[0] == BAD_INPUT

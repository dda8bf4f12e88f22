"""The command line: what it prints, how it ends, and that no bad input gets past it or leaves half a file behind."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Set, Tuple

import pytest

import theano_memopt
from theano_memopt.commands import menu
from theano_memopt.commands.menu import VERBS, main, verb_named
from theano_memopt.options import PlanOptions
from theano_memopt.planner.certificate import Schedule
from theano_memopt.planner.model import Graph, graph_from_json, graph_to_json, worked_example

ROOT = Path(__file__).resolve().parent.parent
GRAPHS = ROOT / "tests" / "graphs"
LIVES = "id,lower,upper,size\na,0,2,6\nb,1,4,3\nc,2,4,3\n"
PLACED = "id,lower,upper,size,offset\na,0,2,6,0\nb,1,4,3,6\nc,2,4,3,0\n"


def command(*arguments: str) -> List[str]:
    return [sys.executable, "-m", "theano_memopt", *arguments]


def spawn(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=str(ROOT), capture_output=True, text=True, **keywords)


def write(path: Path, content: Any) -> str:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def small(**changes: Any) -> Dict[str, Any]:
    """A sound graph of two tasks with some entries changed."""
    return {
        "buffers": [{"name": "a", "bytes": 4}, {"name": "b", "bytes": 2}],
        "tasks": [{"name": "make", "reads": [], "writes": ["a"], "after": []}, {"name": "use", "reads": ["a"], "writes": ["b"], "after": []}],
        "keep": ["b"],
        **changes,
    }


@pytest.fixture()
def graph(tmp_path: Path) -> str:
    return write(tmp_path / "graph.json", graph_to_json(worked_example()))


@pytest.fixture()
def result(tmp_path: Path, graph: str) -> str:
    path = str(tmp_path / "result.json")
    assert main(["order", graph, "--out", path, "--json"]) == 0
    return path


# ------------------------------------------------------------------------------------------------------------- order


def test_order_prints_one_object_and_nothing_else(graph: str) -> None:
    done = spawn("order", graph, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)  # fails on anything before or after the object
    assert done.stdout.count("\n") == 1
    assert {"peak_bytes", "floor_bytes", "status", "gap_percent", "order", "method", "states", "certificate"} <= set(answer)
    assert (answer["peak_bytes"], answer["floor_bytes"], answer["status"], answer["sizes"], answer["gap_percent"]) == (8, 8, "proven", "given", 0)
    assert sorted(answer["order"]) == ["add", "left", "left_sum", "right", "right_sum"]


def test_a_result_at_assumed_sizes_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON, in words, and when it is checked. Without the word it would read as a proof about true sizes."""
    assumed = {**graph_to_json(worked_example()), "sizes_from": "guesses", "sizes_assumed": True}
    path, out = write(tmp_path / "graph.json", assumed), tmp_path / "result.json"
    assert main(["order", path, "--json", "--out", str(out)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["sizes"]) == ("proven", "assumed")
    assert main(["order", path]) == 0 and "Proven at assumed sizes" in capsys.readouterr().out
    assert main(["check", path, str(out)]) == 0 and "proven least at assumed sizes" in capsys.readouterr().out
    write(out, {**answer, "sizes": "given"})
    assert main(["check", path, str(out)]) == 1 and "wrong-sizes" in one_line(capsys)
    del answer["sizes"]  # of a result that was written before it was said there
    write(out, answer)
    assert main(["check", path, str(out)]) == 0


def test_order_prints_a_table(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["order", graph]) == 0
    seen = capsys.readouterr()
    assert seen.err == ""
    assert "Proven" in seen.out
    assert "floor" in seen.out
    assert "chosen" in seen.out


def test_order_of_a_real_graph_is_accepted_by_check(tmp_path: Path) -> None:
    known = json.loads((GRAPHS / "KNOWN.json").read_text())["mlp"]
    out = tmp_path / "mlp.result.json"
    done = spawn("order", str(GRAPHS / "mlp.json"), "--out", str(out), "--json")
    answer = json.loads(done.stdout)
    assert answer == json.loads(out.read_text())
    assert answer["peak_bytes"] <= known["best_found"]
    checked = spawn("check", str(GRAPHS / "mlp.json"), str(out))
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "accepted" in checked.stdout


def test_the_same_graph_gets_the_same_order_under_any_hash_seed() -> None:
    answers = {spawn("order", str(GRAPHS / "lenet.json"), "--json", env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("0", "77")}
    assert len(answers) == 1


def test_a_graph_without_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "empty.json", {"buffers": [], "tasks": [], "keep": []})
    out = str(tmp_path / "result.json")
    assert main(["order", path, "--json", "--out", out]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["peak_bytes"], answer["status"], answer["order"]) == (0, "proven", [])
    assert main(["check", path, out]) == 0
    assert main(["order", path]) == 0


def test_little_effort_still_gives_a_legal_order_that_checks(tmp_path: Path) -> None:
    out = str(tmp_path / "result.json")
    path = str(GRAPHS / "mlp_adam.json")
    assert main(["order", path, "--effort", "0", "--out", out]) == 0
    assert main(["check", path, out]) == 0


def test_names_are_printed_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Task names are data: neither markup for the table nor codes for the terminal."""
    tasks = [{"name": "[red]\x1b[2Jmake", "reads": [], "writes": ["a"], "after": []}]
    path = write(tmp_path / "odd.json", {"buffers": [{"name": "a", "bytes": 4}], "tasks": tasks, "keep": ["a"]})
    assert main(["order", path]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[red]" in out


def test_long_work_is_announced_on_standard_error(graph: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from theano_memopt.planner import exact

    quick = exact.minimise_peak

    def slow(graph: Graph, options: PlanOptions) -> Schedule:
        assert options.progress is not None
        options.progress("floors")
        time.sleep(1.3)  # the line comes after a second
        options.progress("search")
        return quick(graph, options)

    monkeypatch.setattr(exact, "minimise_peak", slow)
    assert main(["order", graph, "--json"]) == 0
    seen = capsys.readouterr()
    assert seen.err == "theano_memopt: floors ...\n"
    assert json.loads(seen.out)["peak_bytes"] == 8


FOR_ORDER = {
    "commands",
    "commands.base",
    "commands.inputs",
    "commands.menu",
    "commands.order",
    "files",
    "options",
    "progress",
    "report",
    "report.words",
    "hosts",
    "hosts.theano",
    "hosts.theano.install",
    "hosts.theano.install.environment",
    "hosts.theano.install.import_hook",
    "planner",
    "planner.bits",
    "planner.certificate",
    "planner.descent",
    "planner.exact",
    "planner.floors",
    "planner.flow",
    "planner.heuristics",
    "planner.improve",
    "planner.kernel",
    "planner.lined_up",
    "planner.liveness",
    "planner.load",
    "planner.merges",
    "planner.milestones",
    "planner.model",
    "planner.moves",
    "planner.numbers_for_c",
    "planner.reduce",
    "planner.search",
}
"""Modules of the package that `order` imports, for a table."""
SLOW_TO_IMPORT = {"tempfile", "logging", "urllib.parse", "csv", "importlib.abc"}


def imported_by(arguments: List[str]) -> Set[str]:
    """The modules that the command line with these arguments imports, beside what Python has at its start, and `importlib.util`, which
    takes more along on Python 3.8 and 3.9."""
    code = f"""
import importlib.util, sys
before = set(sys.modules)
from theano_memopt.commands.menu import main
main({arguments!r})
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""
    # -S: without the modules that site imports on one machine and not on another
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=str(ROOT), check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("extra", [["--json"], []])
def test_order_imports_only_what_it_needs(graph: str, extra: List[str]) -> None:
    """A small graph is planned sooner than NumPy, SciPy, a library of tables or the other verbs are imported."""
    imported = imported_by(["order", graph, *extra])
    own = {name.partition(".")[2] for name in imported if name.startswith("theano_memopt.")}
    assert own == FOR_ORDER - ({"report", "report.words"} if extra else set())
    foreign = {name.partition(".")[0] for name in imported} - {"theano_memopt"}
    assert not foreign & {"numpy", "scipy", "rich", "attr", "theano"} and not imported & SLOW_TO_IMPORT


def test_what_a_verb_imports_is_seen(tmp_path: Path, graph: str) -> None:
    """The negative control: to write a file takes one module more."""
    assert "tempfile" in imported_by(["order", graph, "--out", str(tmp_path / "result.json")])


def test_theano_is_not_imported(graph: str) -> None:
    code = f"""
import runpy, sys
sys.argv = ["theano_memopt", "order", {graph!r}, "--json"]
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("theano", "pytensor"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Wall())
runpy.run_module("theano_memopt", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "theano_memopt", "order", graph], cwd=str(ROOT), capture_output=True, text=True
    )
    modules = {line.split("|")[-1].strip() for line in loaded.stderr.splitlines() if line.startswith("import time:")}
    assert "theano_memopt.commands.menu" in modules  # negative control: the list does hold what is imported
    assert not {name for name in modules if name.split(".")[0] == "theano"}


# ------------------------------------------------------------------------------------------------------------- check


def _reversed(answer: Dict[str, Any]) -> None:
    answer["order"].reverse()


def _without_last(answer: Dict[str, Any]) -> None:
    answer["order"].pop()


def _twice(answer: Dict[str, Any]) -> None:
    answer["order"][-1] = answer["order"][0]


def _unknown_task(answer: Dict[str, Any]) -> None:
    answer["order"][0] = "nobody"


def _lower_peak(answer: Dict[str, Any]) -> None:
    answer["peak_bytes"] -= 1


def _lower_peak_and_floor(answer: Dict[str, Any]) -> None:
    answer["peak_bytes"] -= 1
    answer["floor_bytes"] -= 1


def _higher_floor(answer: Dict[str, Any]) -> None:
    answer["floor_bytes"] += 1


def _worse_order(answer: Dict[str, Any]) -> None:
    answer["order"] = ["left", "right", "left_sum", "right_sum", "add"]


@pytest.mark.parametrize("forge", [_reversed, _without_last, _twice, _unknown_task, _lower_peak, _lower_peak_and_floor, _higher_floor, _worse_order])
def test_forged_results_are_rejected(forge: Callable[[Dict[str, Any]], None], graph: str, result: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(Path(result).read_text())
    forge(answer)
    write(Path(result), answer)
    assert main(["check", graph, result]) == 1
    assert "rejected: " in one_line(capsys)


def test_a_result_of_another_graph_is_rejected(result: str, tmp_path: Path) -> None:
    other = graph_to_json(worked_example())
    other["buffers"][0]["bytes"] += 5
    assert main(["check", write(tmp_path / "other.json", other), result]) == 1


def test_an_open_result_cannot_be_called_proven(tmp_path: Path) -> None:
    """Whatever little effort leaves open must not pass once the word is changed."""
    path, out = str(GRAPHS / "attention.json"), tmp_path / "result.json"
    assert main(["order", path, "--effort", "0", "--out", str(out)]) == 0
    answer = json.loads(out.read_text())
    if answer["status"] == "proven":
        pytest.skip("proven without any search")
    answer["status"] = "proven"
    write(out, answer)
    assert main(["check", path, str(out)]) in (1, 2)
    answer["floor_bytes"] = answer["peak_bytes"]
    write(out, answer)
    assert main(["check", path, str(out)]) in (1, 2)


@pytest.mark.parametrize(
    ("placed", "reason"),
    [
        (PLACED.replace("c,2,4,3,0", "c,2,4,3,4"), "overlap"),
        (PLACED.replace("b,1,4,3,6", "b,1,4,3,5"), "overlap"),
    ],
)
def test_overlaps_are_rejected(placed: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--placed", write(tmp_path / "placed.csv", placed)]) == 1
    assert reason in one_line(capsys)


def test_a_sound_placement_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "placed.csv", PLACED)
    assert main(["check", "--placed", path]) == 0
    assert main(["check", "--placed", path, "--capacity", "9"]) == 0
    assert "accepted" in capsys.readouterr().out
    assert main(["check", "--placed", path, "--capacity", "8"]) == 1
    assert "over-capacity" in one_line(capsys)


# -------------------------------------------------------------------------------------------------------------- pack


@pytest.mark.parametrize(("capacity", "fits"), [(9, True), (8, False)])
def test_pack_prints_one_object(capacity: int, fits: bool, tmp_path: Path) -> None:
    lives, out = write(tmp_path / "lives.csv", LIVES), tmp_path / "placed.csv"
    done = spawn("pack", lives, "--capacity", str(capacity), "--out", str(out), "--json")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert json.loads(done.stdout) == {"height": 9, "floor": 9, "buffers": 3, "capacity": capacity, "fits": fits}
    assert main(["check", "--placed", str(out)]) == 0


def test_pack_keeps_every_row_and_its_place(tmp_path: Path) -> None:
    lives, out = write(tmp_path / "lives.csv", LIVES), tmp_path / "placed.csv"
    assert main(["pack", lives, "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [[row[c] for c in ("id", "lower", "upper", "size")] for row in rows] == [line.split(",") for line in LIVES.splitlines()[1:]]


def test_pack_says_what_it_knows_about_a_capacity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lives = write(tmp_path / "lives.csv", LIVES)
    assert main(["pack", lives, "--capacity", "9"]) == 0
    assert "It fits" in capsys.readouterr().out
    assert main(["pack", lives, "--capacity", "8"]) == 0
    assert "cannot fit" in capsys.readouterr().out
    assert main(["pack", lives]) == 0
    assert "fit" not in capsys.readouterr().out


def test_pack_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", write(tmp_path / "lives.csv", "id,lower,upper,size\n"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"height": 0, "floor": 0, "buffers": 0}


# --------------------------------------------------------------------------------------------------------- bad input


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that was printed, which is on standard error."""
    seen = capsys.readouterr()
    assert seen.err.count("\n") == 1
    assert seen.err.startswith("theano_memopt: ")
    assert "Traceback" not in seen.err
    return seen.err


TASK = {"name": "t", "reads": [], "writes": [], "after": []}
BAD_GRAPHS: List[Tuple[str, Any, str]] = [
    ("empty file", "", "line 1, column 1"),
    ("not json", '{"buffers": [}', "line 1, column 14"),
    ("not utf-8", b'{"buffers": "\xff"}', "UTF-8"),
    ("binary", bytes(range(256)), "UTF-8"),
    ("nested too deeply", "[" * 100_000, "nested"),
    ("cut off", json.dumps(small())[:-20], "not JSON"),
    ("key twice", '{"buffers": [], "buffers": [], "tasks": [], "keep": []}', "'buffers' twice"),
    ("a list", [], "top level"),
    ("a number", 3, "top level"),
    ("no buffers", {"tasks": [], "keep": []}, "buffers"),
    ("buffers no list", small(buffers={}), "buffers"),
    ("no tasks", {"buffers": [], "keep": []}, "tasks"),
    ("buffer without name", small(buffers=[{"bytes": 4}]), "buffers[0]"),
    ("buffer name no text", small(buffers=[{"name": 3, "bytes": 4}]), "buffers[0]"),
    ("buffer without size", small(buffers=[{"name": "a"}, {"name": "b", "bytes": 2}]), "buffers[0].bytes"),
    ("negative size", small(buffers=[{"name": "a", "bytes": 1}, {"name": "b", "bytes": -2}]), "buffers[1].bytes"),
    ("fraction", small(buffers=[{"name": "a", "bytes": 1.5}, {"name": "b", "bytes": 2}]), "buffers[0].bytes"),
    ("whole float", small(buffers=[{"name": "a", "bytes": 1.0}, {"name": "b", "bytes": 2}]), "buffers[0].bytes"),
    ("size as text", small(buffers=[{"name": "a", "bytes": "4"}, {"name": "b", "bytes": 2}]), "buffers[0].bytes"),
    ("size true", small(buffers=[{"name": "a", "bytes": True}, {"name": "b", "bytes": 2}]), "buffers[0].bytes"),
    ("size null", small(buffers=[{"name": "a", "bytes": None}, {"name": "b", "bytes": 2}]), "buffers[0].bytes"),
    ("size NaN", '{"buffers": [{"name": "a", "bytes": NaN}], "tasks": [], "keep": []}', "NaN"),
    ("size infinite", '{"buffers": [{"name": "a", "bytes": 1e999}], "tasks": [], "keep": []}', "buffers[0].bytes"),
    ("size beyond 62 bits", small(buffers=[{"name": "a", "bytes": 2**62}, {"name": "b", "bytes": 2}]), "bad-size"),
    ("sizes beyond it together", small(buffers=[{"name": "a", "bytes": 2**61}, {"name": "b", "bytes": 2**61}]), "bad-size"),
    ("size of 5000 digits", '{"buffers": [{"name": "a", "bytes": 1' + "0" * 5000 + '}], "tasks": [], "keep": []}', "graph.json"),
    ("kind no text", small(buffers=[{"name": "a", "bytes": 1, "kind": 3}, {"name": "b", "bytes": 2}]), "buffers[0].kind"),
    ("buffer twice", small(buffers=[{"name": "a", "bytes": 1}, {"name": "a", "bytes": 2}, {"name": "b", "bytes": 2}]), "duplicate-name"),
    ("task twice", small(tasks=[TASK, TASK], keep=[]), "duplicate-name"),
    ("unknown buffer read", small(tasks=[{**TASK, "reads": ["nothing"]}], keep=[]), "tasks[0].reads"),
    ("unknown buffer written", small(tasks=[{**TASK, "writes": ["nothing"]}], keep=[]), "tasks[0].writes"),
    ("unknown buffer kept", small(keep=["nothing"]), "keep"),
    ("unknown task before", small(tasks=[{**TASK, "after": ["nobody"]}], keep=[]), "tasks[0].after"),
    ("reads no list", small(tasks=[{**TASK, "reads": "a"}], keep=[]), "tasks[0].reads"),
    ("name in reads no text", small(tasks=[{**TASK, "reads": [["a"]]}], keep=[]), "tasks[0].reads"),
    ("two producers", small(tasks=[{**TASK, "writes": ["a"]}, {**TASK, "name": "u", "writes": ["a"]}], keep=[]), "two-producers"),
    ("circle by after", small(tasks=[{**TASK, "after": ["u"]}, {**TASK, "name": "u", "after": ["t"]}], keep=[]), "cycle"),
    ("circle by data", small(tasks=[{**TASK, "reads": ["a"], "writes": ["b"]}, {**TASK, "name": "u", "reads": ["b"], "writes": ["a"]}]), "cycle"),
    ("reads what it writes", small(tasks=[{**TASK, "reads": ["a"], "writes": ["a"]}], keep=[]), "cycle"),
    ("after itself", small(tasks=[{**TASK, "after": ["t"]}], keep=[]), "cycle"),
]


@pytest.mark.parametrize(("content", "place"), [row[1:] for row in BAD_GRAPHS], ids=[row[0] for row in BAD_GRAPHS])
def test_bad_graphs(content: Any, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "graph.json", content)
    out = tmp_path / "result.json"
    assert main(["order", path, "--json", "--out", str(out)]) == 2
    line = one_line(capsys)
    assert path in line
    assert place in line
    assert os.listdir(str(tmp_path)) == ["graph.json"]


def test_the_sound_graph_is_sound(tmp_path: Path) -> None:
    """Negative control: what the bad ones were changed from is taken."""
    assert main(["order", write(tmp_path / "graph.json", small())]) == 0


BAD_LIVES: List[Tuple[str, Any, str]] = [
    ("empty file", "", "line 1"),
    ("wrong column", LIVES.replace("size", "bytes"), "line 1, column 'size'"),
    ("no column id", "lower,upper,size\n0,1,2\n", "'id'"),
    ("column twice", LIVES.replace("id,", "size,", 1), "line 1"),
    ("too few fields", LIVES + "d,1\n", "line 5"),
    ("too many fields", LIVES + "d,1,2,3,4\n", "line 5"),
    ("negative size", LIVES + "d,1,2,-3\n", "line 5, column 'size'"),
    ("fraction", LIVES + "d,1,2,3.5\n", "line 5, column 'size'"),
    ("word", LIVES + "d,now,2,3\n", "line 5, column 'lower'"),
    ("ends before it begins", LIVES + "d,3,2,3\n", "line 5, column 'upper'"),
    ("id twice", LIVES + "a,1,2,3\n", "line 5, column 'id'"),
    ("too large", LIVES + "d,1,2," + "9" * 40 + "\n", "line 5, column 'size'"),
    ("too large together", LIVES + "".join(f"x{i},1,2,{10**18 - 1}\n" for i in range(6)), "'size'"),
    ("not utf-8", b"id,lower,upper,size\n\xff,0,1,2\n", "UTF-8"),
    ("zero byte", LIVES + "d,1,2,3\0\n", "line 5"),
]


@pytest.mark.parametrize(("content", "place"), [row[1:] for row in BAD_LIVES], ids=[row[0] for row in BAD_LIVES])
def test_bad_lives(content: Any, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "lives.csv", content)
    assert main(["pack", path, "--json", "--out", str(tmp_path / "placed.csv")]) == 2
    line = one_line(capsys)
    assert path in line
    assert place in line
    assert os.listdir(str(tmp_path)) == ["lives.csv"]


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", '{"order": 3}', '{"order": [3]}', '{"order": null, "peak_bytes": 8}', "{"])
def test_files_that_are_no_results(content: str, graph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "result.json", content)
    assert main(["check", graph, path]) == 2
    assert path in one_line(capsys)


@pytest.mark.parametrize("key", ["peak_bytes", "floor_bytes", "status", "order", "certificate"])
def test_results_with_a_part_missing_or_of_another_form(key: str, graph: str, result: str, capsys: pytest.CaptureFixture[str]) -> None:
    sound = json.loads(Path(result).read_text())
    for strange in (None, "text", [[]], {"a": 1}, 1.5, True):
        write(Path(result), {**sound, key: strange})
        assert main(["check", graph, result]) == 2, strange
        assert "is not a result of `order`" in one_line(capsys)
    del sound[key]
    write(Path(result), sound)
    assert main(["check", graph, result]) == 2
    assert key in one_line(capsys)


def test_a_placed_file_needs_offsets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--placed", write(tmp_path / "placed.csv", LIVES)]) == 2
    assert "'offset'" in one_line(capsys)


VERB_READS = [["order"], ["pack"], ["check", "--placed"]]


@pytest.mark.parametrize("verb", VERB_READS, ids=" ".join)
def test_files_that_cannot_be_read(verb: List[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing")
    assert main([*verb, missing]) == 2
    assert f"{missing}: cannot be read: No such file" in one_line(capsys)
    assert main([*verb, str(tmp_path)]) == 2
    assert "Is a directory" in one_line(capsys)
    through_a_file = write(tmp_path / "file", "x") + "/inside"
    assert main([*verb, through_a_file]) == 2
    assert "Not a directory" in one_line(capsys)
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    assert main([*verb, str(circle)]) == 2
    one_line(capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("verb", VERB_READS, ids=" ".join)
def test_no_permission_to_read(verb: List[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "secret", "x")
    os.chmod(path, 0)
    assert main([*verb, path]) == 2
    assert "Permission denied" in one_line(capsys)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux's /proc")
@pytest.mark.parametrize("verb", VERB_READS, ids=" ".join)
def test_a_file_that_fails_while_it_is_read(verb: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb, "/proc/self/mem"]) == 2
    assert "/proc/self/mem: cannot be read" in one_line(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["order"],
        ["order", "a.json", "b.json"],
        ["order", "a.json", "--effort", "many"],
        ["order", "a.json", "--effort", "-1"],
        ["order", "a.json", "--effort", "1.5"],
        ["order", "a.json", "--time", "0"],
        ["order", "a.json", "--time", "nan"],
        ["order", "a.json", "--time", "soon"],
        ["order", "a.json", "--colour"],
        ["check"],
        ["check", "a.json"],
        ["check", "a.json", "b.json", "--placed", "c.csv"],
        ["check", "a.json", "b.json", "--capacity", "3"],
        ["pack", "a.csv", "--capacity", "-1"],
        ["pack", "a.csv", "--capacity", "1e6"],
        ["pack"],
    ],
    ids=" ".join,
)
def test_bad_arguments(arguments: List[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    one_line(capsys)


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    menu = capsys.readouterr().out
    assert all(re.search(rf"^ +{name}\b", menu, re.MULTILINE) for name in VERBS)


# ----------------------------------------------------------------------------------------------------------- writing


def test_places_that_cannot_be_written(tmp_path: Path, graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    lives = write(tmp_path / "lives.csv", LIVES)
    for place in (str(tmp_path), str(tmp_path / "no" / "such" / "out"), "/dev/null", graph + "/out", ""):
        for verb, source in (("order", graph), ("pack", lives)):
            assert main([verb, source, "--out", place]) == 2, place
            assert "cannot be written" in one_line(capsys)
    assert sorted(os.listdir(str(tmp_path))) == ["graph.json", "lives.csv"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux's /proc")
def test_a_directory_that_takes_no_files(tmp_path: Path, graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["order", graph, "--out", "/proc/result.json"]) == 2
    assert "/proc/result.json: cannot be written" in one_line(capsys)


@pytest.mark.parametrize(("verb", "source", "content"), [("order", "graph.json", None), ("pack", "lives.csv", LIVES)])
@pytest.mark.parametrize("fails", ["replace", "chmod"])
def test_a_full_disk_leaves_the_old_file(
    verb: str, source: str, content: Any, fails: str, tmp_path: Path, graph: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        write(tmp_path / source, content)
    out = tmp_path / "out"
    out.write_text("before")
    before = sorted(os.listdir(str(tmp_path)))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    assert main([verb, str(tmp_path / source), "--out", str(out), "--json"]) == 2
    assert "No space left" in one_line(capsys)
    assert out.read_text() == "before"
    assert sorted(os.listdir(str(tmp_path))) == before


def test_what_is_read_is_not_overwritten(tmp_path: Path, graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(graph).read_text()
    link = tmp_path / "link.json"
    link.symlink_to(graph)
    for place in (graph, str(link)):
        assert main(["order", graph, "--out", place]) == 2
        assert "it is the file that is read" in one_line(capsys)
    assert Path(graph).read_text() == text


def test_a_link_stays_a_link(tmp_path: Path, graph: str) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    assert main(["order", graph, "--out", str(link)]) == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["status"] == "proven"


def test_a_new_file_has_the_usual_rights(tmp_path: Path, graph: str) -> None:
    (tmp_path / "plain").write_text("")
    assert main(["order", graph, "--out", str(tmp_path / "out.json")]) == 0
    assert os.stat(str(tmp_path / "out.json")).st_mode == os.stat(str(tmp_path / "plain")).st_mode


# ------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", sorted(path.stem for path in GRAPHS.glob("*.json") if path.stem != "KNOWN"))
def test_graphs_survive_the_round_trip(name: str) -> None:
    graph = graph_from_json(json.loads((GRAPHS / f"{name}.json").read_text()))
    assert graph_from_json(json.loads(json.dumps(graph_to_json(graph)))) == graph


def test_results_survive_the_round_trip(graph: str, result: str, tmp_path: Path) -> None:
    from theano_memopt.planner.certificate import schedule_from_json, schedule_to_json

    sound, data = graph_from_json(json.loads(Path(graph).read_text())), json.loads(Path(result).read_text())
    assert json.loads(json.dumps(schedule_to_json(sound, schedule_from_json(sound, data)))) == data


# ------------------------------------------------------------------------------------------------------ interruptions


def test_a_reader_that_goes_away(graph: str) -> None:
    """`... | head -c 0`: no traceback, and not the status of success."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command("order", graph, "--json"), cwd=str(ROOT), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c(tmp_path: Path) -> None:
    """A FIFO as input makes the program wait, so that the signal surely finds it at work."""
    fifo = str(tmp_path / "graph.json")
    os.mkfifo(fifo)
    out = tmp_path / "result.json"
    running = subprocess.Popen(
        command("order", fifo, "--out", str(out)),
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job would hand on "ignore"
    )
    writer = os.open(fifo, os.O_WRONLY)  # opens once the program has opened it to read
    time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    printed, complaint = running.communicate(timeout=120)
    os.close(writer)
    assert (running.returncode, printed) == (130, "")
    assert complaint == "theano_memopt: stopped; nothing was written\n"
    assert os.listdir(str(tmp_path)) == ["graph.json"]


@pytest.mark.parametrize("name", VERBS)
def test_the_help_of_a_verb_has_examples_that_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb = verb_named(name)
    assert verb.name == name
    with pytest.raises(SystemExit) as ended:
        main([verb.name, "--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and verb.examples
    for example in verb.examples:
        assert f"  python -m theano_memopt {example}\n" in told
        parsed = menu._parser().parse_args(shlex.split(example.split(" <")[0]))
        assert type(parsed.verb) is type(verb)


def test_the_version_is_told_and_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"theano_memopt {theano_memopt.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", theano_memopt.__version__)
    assert "__version__" in (ROOT / "setup.py").read_text() and theano_memopt.__version__ not in (ROOT / "setup.py").read_text()

"""`run`: a user's script, unchanged, and a report at the end, whatever becomes of the script."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Sequence

import pytest

from theano_memopt.commands.menu import main
from theano_memopt.planner.plan import check_plan, plan_from_json

ROOT = Path(__file__).resolve().parent.parent
needs_theano = pytest.mark.skipif(importlib.util.find_spec("theano") is None, reason="Theano is not installed")

SCRIPT = """
import sys
import numpy as np
import theano, theano.tensor as tt
print("arguments", sys.argv, __name__)
x = tt.fmatrix("x")
W = theano.shared(np.full((30, 20), 0.1, "float32"), name="W")
h = tt.tanh(tt.dot(x, W))
cost = ((tt.dot(h, h.T) - 1) ** 2).sum()
train = theano.function([x], cost, updates=[(W, W - np.float32(0.01) * tt.grad(cost, W))], name="train")
look = theano.function([x], h)
for i in range(3):
    print("cost", float(train(np.ones((50, 30), "float32"))))
look(x=np.ones((7, 30), "float32"))
"""


def run(folder: Path, script: str, options: Sequence[str] = (), arguments: Sequence[str] = (), **more: str) -> Any:
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-m", "theano_memopt", "run", *options, "script.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(command, cwd=str(folder), capture_output=True, text=True, env=environment)


def rows(text: str) -> Any:
    """Name -> the cells of its line in the first table that has it."""
    lines = [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]
    return {cells[0]: cells[1:] for cells in reversed(lines)}


@needs_theano
@pytest.mark.quick
def test_a_script_runs_as_it_would_and_every_function_is_reported(tmp_path: Path) -> None:
    files = [f"--{kind}={tmp_path / kind}" for kind in ("html", "json", "trace")]
    done = run(tmp_path, SCRIPT + "sys.exit(7)\n", files, ["a", "--html", "b"])
    plain = subprocess.run(
        [sys.executable, "-c", "import theano_memopt, sys; sys.argv = ['script.py', 'a', '--html', 'b']; exec(open('script.py').read())"],
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == plain.returncode == 7
    assert done.stdout == plain.stdout and "['script.py', 'a', '--html', 'b'] __main__" in done.stdout
    found = rows(done.stderr)
    assert found["train"][0] == "3" and found["script.py:11"][0] == "1" and found["in all"][0] == "4"
    assert found["train"][3] == found["script.py:11"][3] == "true"
    data = {row["name"]: row for row in json.loads((tmp_path / "json").read_text())}
    for name, row in data.items():
        report = row["report"]
        plan = plan_from_json(report["plan"])
        check_plan(plan)
        assert found[name][4:7] == [f"{n:,}" for n in (report["host_peaks"][0]["peak_bytes"], plan.schedule.peak, plan.schedule.floor)]
    assert "x.shape[0] = 50 (given)" in data["train"]["report"]["plan"]["graph"]["sizes_from"]  # of the first call
    assert data["script.py:11"]["report"]["peak_bytes"] == 7 * 20 * 4
    assert "uPlot" in (tmp_path / "html").read_text()
    written = [line for line in done.stderr.splitlines() if line.startswith(("figures: ", "picture: ", "trace: "))]
    assert written == [f"{what}: {tmp_path / kind}" for what, kind in (("figures", "json"), ("picture", "html"), ("trace", "trace"))]
    assert data["train"]["planning_seconds"] >= 0 and float(found["train"][2]) == pytest.approx(data["train"]["planning_seconds"], rel=0.01)
    assert data["train"]["report"]["sizes_of"] == "the first call" and data["train"]["report"]["inputs"]["x"].startswith("50x")
    assert {e["pid"] for e in json.loads((tmp_path / "trace").read_text())["traceEvents"]} == {1, 2}


@needs_theano
def test_a_script_that_fails_still_gets_its_report(tmp_path: Path) -> None:
    done = run(tmp_path, SCRIPT + "train(np.ones((2, 3), 'float32'))\n", ["--json", str(tmp_path / "r.json")])
    assert done.returncode == 1
    assert "ValueError" in done.stderr and "Traceback" in done.stderr
    early = run(tmp_path, "import theano\nraise KeyError('mine')\n")
    assert early.returncode == 1 and "KeyError: 'mine'" in early.stderr and "BLAS found" not in early.stderr and "SciPy" not in early.stderr
    assert early.stderr.rstrip().endswith("no function was compiled")
    assert rows(done.stderr)["train"][0] == "4"
    assert (tmp_path / "r.json").exists()


@needs_theano
def test_the_order_of_the_host_and_no_storage_can_be_asked_for(tmp_path: Path) -> None:
    done = run(tmp_path, SCRIPT, ["--order", "host", "--storage", "off", "--json", "r.json"])
    assert done.returncode == 0, done.stderr
    (train, _) = json.loads((tmp_path / "r.json").read_text())
    assert train["report"]["plan"]["storage"] is None
    assert train["report"]["plan"]["schedule"]["method"] == "host"
    assert train["report"]["peak_bytes"] == train["report"]["host_peaks"][0]["peak_bytes"]


@needs_theano
def test_a_script_may_set_its_own_flags_before_it_imports_theano(tmp_path: Path) -> None:
    flags = "import os\nos.environ['THEANO_FLAGS'] = os.environ.get('THEANO_FLAGS', '') + ',floatX=float32,mem_reuse.max_nodes=0'\n"
    done = run(tmp_path, flags + "import theano\nprint(theano.config.floatX)\n" + SCRIPT)
    assert done.returncode == 0 and done.stdout.startswith("float32\n")
    assert "max_nodes" in done.stderr  # why there is no plan is told in each line


@needs_theano
def test_scans_names_that_come_twice_and_functions_without_the_pass(tmp_path: Path) -> None:
    script = """
import numpy as np, theano, theano.tensor as tt
x = tt.fvector("x")
states, _ = theano.scan(lambda h: tt.tanh(h) * 2, outputs_info=[x], n_steps=5)
f = theano.function([x], states, name="loop")
f(np.ones(9, "float32"))
def forgotten():
    theano.function([x], x + 1, name="forgotten")
forgotten()
import gc; gc.collect()
each = [theano.function([x], x + n, name=name) for n, name in enumerate([None, None, "loop"])]
each[0](np.ones(4, "float32"))
for mode in (theano.compile.get_default_mode().excluding("mem_reuse"), theano.Mode("py", "fast_compile")):
    for n in range(2):
        theano.function([x], x * n, mode=mode, name=f"without {n}")(np.ones(2, "float32"))
from theano.sandbox.rng_mrg import MRG_RandomStreams
MRG_RandomStreams(5).normal((3,))
print(float((x + 1).eval({x: np.ones(2, "float32")}).sum()))
"""
    done = run(tmp_path, script, ["--json", "r.json", "--html", "r.html", "--measure"])
    found = rows(done.stderr)
    assert found["loop"][0] == "1" and "loop (2)" in found and "script.py:11" in found and "script.py:11 (2)" in found
    inner = next(cells for cells in found.values() if cells[0] == "-")
    assert inner[3] == "true" and found["script.py:11 (2)"][3] == "assumed" and found["script.py:11"][3] == "true"
    assert found["script.py:18"][0] == "1"  # x.eval: the line of the program
    assert not any("scan.py" in name for name in found) and "script.py:17" not in found  # what Theano compiles for itself
    names = [row["name"] for row in json.loads((tmp_path / "r.json").read_text())]
    assert len(names) == len(set(names))
    assert "never called, and no longer there" in found["forgotten"][2]
    assert "as asked" in found["without 0, without 1"][2] and "excludes mem_reuse" in found["without 0, without 1"][2]
    assert "its mode does not include it" in found["without 0 (2), without 1 (2)"][2]
    assert "import theano_memopt" not in done.stderr and found["without 0, without 1"][0] == "2"
    shown = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "r.html").read_text(), re.S).group(1))["reports"]  # type: ignore[union-attr]
    compiled = [row["report"]["peak_bytes"] for row in json.loads((tmp_path / "r.json").read_text()) if row["report"]]
    assert [report["peak"] for report in shown] == sorted(compiled, reverse=True) != compiled  # the page opens at the largest
    measured = int(found["loop"][-2].replace(",", ""))
    assert measured >= 5 * 9 * 4 and found["loop (2)"][-2:] == ["not measured", "not measured"]
    assert done.stdout == "4.0\n"


@needs_theano
def test_measuring_leaves_the_program_as_it_is(tmp_path: Path) -> None:
    mutable = """
y = tt.fvector("y")
spoil = theano.function([theano.In(y, mutable=True)], y * 2 + 1, name="spoil")
data = np.ones(5, "float32")
spoil(data)
print(W.get_value().sum(), data)
import tracemalloc
tracemalloc.start()
late = theano.function([y], tt.exp(y), name="late")
late(data)
print(tracemalloc.is_tracing())
"""
    plain, measured = run(tmp_path, SCRIPT + mutable), run(tmp_path, SCRIPT + mutable, ["--measure"])
    assert measured.stdout == plain.stdout and measured.stdout.endswith("True\n") and measured.returncode == 0
    found = rows(measured.stderr)
    assert found["train"][0] == "3" and int(found["train"][-2].replace(",", "")) >= int(found["train"][5].replace(",", ""))
    assert found["late"][-2:] == ["not measured", "not measured"]
    assert "late: Not measured: the program uses tracemalloc itself." in measured.stderr


@needs_theano
@pytest.mark.quick
def test_a_script_without_theano_is_run_all_the_same(tmp_path: Path) -> None:
    done = run(tmp_path, "import sys\nprint('theano' in sys.modules)\n")
    assert (done.returncode, done.stdout) == (0, "False\n")
    assert "no function was compiled" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch.py"], "nosuch.py: cannot be read: No such file"),
        ([os.path.join(os.path.dirname(__file__), "graphs")], "there is no __main__.py in it"),
        (["--effort", "-1", __file__], "not a whole number"),
        (["--html", "/no/such/folder/r.html", __file__], "there is no directory /no/such/folder"),
        (["--json", "/", __file__], "it is a directory"),
        (["--order", "best", __file__], "invalid choice"),
        (["--budget", "0", __file__], "'0' is no budget: nothing runs in 0 bytes"),
        (["--budget", "2", __file__], "'2' is no budget; write a share like 0.5 or 50%, or bytes with a unit like 500MB"),
        (["--budget=-5", __file__], "'-5' is no budget"),
        (["--budget", "5 parsecs", __file__], "'5 parsecs' is no budget; write a share like 0.5"),
        (["--extra-time", "half", __file__], "'half' is no extra time; write a share"),
        ([], r"required: PROGRAM \(see"),
    ],
)
@needs_theano
@pytest.mark.quick
def test_bad_use_is_one_clear_line(arguments: Any, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from theano_memopt.hosts.theano.optimize import making

    program, listening = sys.modules["__main__"], list(making.listeners)
    assert main(["run", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("theano_memopt: ") and re.search(words, line)
    assert sys.modules["__main__"] is program and making.listeners == listening, "something was begun"


@pytest.mark.parametrize("verb", [["run", __file__], ["demo"]])
@pytest.mark.quick
def test_an_unsupported_python_is_told_so(verb: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 12, 1, "final", 0))
    assert main(verb) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Python 3.12 is not supported" in line and "3.8 to 3.11" in line

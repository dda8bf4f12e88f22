"""A program under `run` sees what it sees under `python`, whatever it is; and its child processes begin as it did."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Sequence

import pytest

from theano_memopt import program

ROOT = Path(__file__).resolve().parent.parent
needs_theano = pytest.mark.skipif(importlib.util.find_spec("theano") is None, reason="Theano is not installed")
quick = pytest.mark.quick

LOOK = """
import sys
print(__name__, __package__, getattr(__spec__, "name", None), globals().get("__file__"), __loader__ is None, sys.argv, sys.path[0])
print(sys.modules["__main__"].__dict__ is globals())
"""
FAILS = LOOK + "def f():\n    return 1 / 0\nf()\n"
RELATIVE = LOOK + "from .other import VALUE\nprint(VALUE)\nsys.exit(VALUE)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("import sys\nprint('package', sys.argv[0] == '-m')\n")
    (package / "other.py").write_text("VALUE = 7\n")
    (package / "missing.py").write_text("import nowhere_at_all\n")
    for name in ("__main__.py", "module.py"):
        (package / name).write_text(RELATIVE)
    (tmp_path / "script.py").write_text(FAILS)
    (tmp_path / "thread.py").write_text(
        "import atexit, threading, time\natexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), print('thread', flush=True))).start()\n"
    )
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", LOOK)
    return tmp_path


def both(folder: Path, arguments: Sequence[str], given: str = "") -> Any:
    """The same arguments for Python and for `run`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return [
        subprocess.run([sys.executable, *verb, *arguments], cwd=str(folder), input=given, capture_output=True, text=True, env=environment)
        for verb in ([], ["-m", "theano_memopt", "run"])
    ]


@needs_theano
@quick
@pytest.mark.parametrize(
    ("arguments", "given", "status"),
    [
        (["script.py", "-m", "--html", "a b"], "", 1),
        (["-m", "package", "-x"], "", 7),
        (["-m", "package.module"], "", 7),
        (["-m", "package.missing"], "", 1),
        (["package/__main__.py"], "", 1),
        (["package"], "", 1),
        (["archive.zip", "a"], "", 0),
        (["-", "a"], FAILS, 1),
        (["thread.py"], "", 0),
    ],
)
def test_it_is_run_as_python_runs_it(folder: Path, arguments: Sequence[str], given: str, status: int) -> None:
    plain, ours = both(folder, arguments, given)
    assert (plain.returncode, ours.returncode) == (status, status), ours.stderr
    assert ours.stdout == plain.stdout
    said, report = ours.stderr.split("\ntheano_memopt:", 1)
    frames = re.sub(r'  File ".*runpy.*\n(    .*\n)*', "", plain.stderr).splitlines()
    assert [line for line in frames if line not in said] == [] and "no function was compiled" in report
    assert "program.py" not in said and "run.py" not in said


@needs_theano
@quick
@pytest.mark.parametrize("arguments", [["-m", "nowhere"], ["-m", "package.nowhere"], ["-m", "package."], ["empty"]])
def test_what_is_not_there_is_one_line(folder: Path, arguments: Sequence[str]) -> None:
    (folder / "empty").mkdir()
    _, ours = both(folder, arguments)
    (line,) = ours.stderr.splitlines()
    assert ours.returncode == 2 and line.startswith("theano_memopt: ") and ("no module named" in line or "no __main__.py" in line)


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(300)", 300 & 0xFF, ""),
        ("import sys; sys.exit('too bad')", 1, "too bad"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("def broken(:", 1, "SyntaxError"),
    ],
)
@quick
def test_the_status_is_what_python_would_give(
    end: str, status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    for name in ("argv", "path"):
        monkeypatch.setattr(sys, name, list(getattr(sys, name)))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    (tmp_path / "script.py").write_text(end)
    assert program.run(program.Program(str(tmp_path / "script.py")), []) == status
    told = capsys.readouterr().err
    assert said in told and "program.py" not in told


# --- child processes -------------------------------------------------------------------------------------------------

CHILDREN = """
import multiprocessing, sys
def look(n):
    return n, "theano_memopt" in sys.modules
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print(sorted(pool.map(look, range(4))), flush=True)
    one = context.Process(target=look, args=(5,))
    one.start()
    one.join()
    print(one.exitcode)
"""
WITH_THEANO = """
import multiprocessing, sys
import numpy as np, theano, theano.tensor as tt
x = tt.fvector("x")
double = theano.function([x], x * 2, name="double")
def call(n):
    import theano_memopt
    return float(double(np.full(3, n, "float32"))[0]), theano_memopt.plan_of(double) is not None, theano.config.mem_reuse.effort
if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        print(pool.map(call, [1, 2]))
"""
METHODS = multiprocessing.get_all_start_methods()


@needs_theano
@quick
@pytest.mark.parametrize(("how", "form"), [*((how, "script") for how in METHODS), ("spawn", "module")])
def test_children_begin_with_the_package(folder: Path, how: str, form: str) -> None:
    (folder / "many.py").write_text(CHILDREN)
    plain, ours = both(folder, ["many.py", how] if form == "script" else ["-m", "many", how])
    assert ours.stdout.splitlines() == [str([(n, True) for n in range(4)]), "0"], ours.stderr
    assert plain.stdout.splitlines() == [str([(n, False) for n in range(4)]), "0"]  # the negative control: nothing else brings it there
    assert "3 child processes were started" in ours.stderr
    assert ours.stderr.count("theano_memopt:") == 1  # the report is the parent's alone


@pytest.mark.long
@needs_theano
@pytest.mark.parametrize("how", [how if how == "spawn" else pytest.param(how, marks=pytest.mark.nightly) for how in METHODS])
def test_children_import_theano_and_run_the_pass(folder: Path, how: str) -> None:
    (folder / "many.py").write_text(WITH_THEANO)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "theano_memopt", "run", "--effort", "77", "many.py", how]
    done = subprocess.run(command, cwd=str(folder), capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0 and done.stdout == "[(2.0, True, 77), (4.0, True, 77)]\n", done.stderr
    assert re.search("1 child process was started", done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("double")]
    assert not any(cell.strip() in ("0", "0.00") for cell in line.split("│")[:3])


GRANDCHILDREN = """
import os, sys
import numpy as np, theano, theano.tensor as tt
x = tt.fvector("x")
f = theano.function([x], x * 2, name="double")
for depth in range(2):
    child = os.fork()
    if child:
        print("child ended with", os.waitpid(child, 0)[1] >> 8, flush=True)
        sys.exit(depth)
    g = theano.function([x], x * 3, name="triple")
    f(np.ones(2, "float32")), g(np.ones(2, "float32"))
sys.exit(2)
"""


@pytest.mark.long
@needs_theano
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_by_fork_ends_as_it_likes_and_only_the_program_itself_reports(folder: Path) -> None:
    (folder / "forks.py").write_text(GRANDCHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "theano_memopt", "run", "forks.py"]
    done = subprocess.run(command, cwd=str(folder), capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (0, "child ended with 2\nchild ended with 1\n"), done.stderr
    assert done.stderr.count("were compiled") + done.stderr.count("was compiled") == 1 and "Exception ignored" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("double")]
    assert [cell.strip() for cell in line.split("│")][1:3] == ["not here", "not here"] and "triple" not in done.stderr


@needs_theano
@quick
def test_a_child_that_cannot_have_the_pass_goes_on_without_it(folder: Path) -> None:
    break_it = """
    from theano_memopt.hosts.theano.install import children
    children.BEGIN = children.BEGIN.replace("children.begin(", "1 / 0, children.begin(")
    children.Children().follow({})
"""
    (folder / "many.py").write_text(CHILDREN.replace('"__main__":\n', f'"__main__":{break_it}'))
    done = subprocess.run(
        [sys.executable, "many.py", "spawn"], cwd=str(folder), capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr
    assert "a child process goes on without the pass: ZeroDivisionError" in done.stderr

"""The BLAS inside SciPy's wheel, for those who have none. Each case is a fresh process that finds none of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scipy
import theano

import theano_memopt
from tests.marks import nightly_if
from theano_memopt.hosts.theano.install import blas
from theano_memopt.hosts.theano.install.blas import CALLED, BlasRefused, Library, _library_of, scipy_library

SCIPY = os.path.dirname(os.path.abspath(scipy.__file__))


def _at_hand() -> bool:
    try:
        return bool(scipy_library().path)
    except BlasRefused:
        return False


needs_library = pytest.mark.skipif(not _at_hand(), reason="this SciPy brings no BLAS that Theano can link with")

PRODUCT = """
import theano_memopt, theano, theano.tensor as tt, numpy as np
x, v = tt.fmatrix("x"), tt.fvector("v")
f = theano.function([x, v], [tt.dot(x, x), tt.dot(x, v)])
a = np.random.RandomState(0).rand(60, 60).astype("f")
square, row = f(a, a[0])
assert np.allclose(square, a.dot(a), rtol=1e-4) and np.allclose(row, a.dot(a[0]), rtol=1e-4)
print("linked:", "CGemv" in [type(node.op).__name__ for node in f.maker.fgraph.apply_nodes])
"""
"""Theano makes a CGemv of matrix times vector where it has a BLAS to link with, and only there."""


def _run(program: str, flags: str = "", **environment: str) -> Any:
    theano_flags = ",".join(part for part in (os.environ.get("THEANO_FLAGS", ""), "blas.ldflags=", flags) if part)
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, env={**os.environ, "THEANO_FLAGS": theano_flags, **environment}, capture_output=True, text=True, check=False)


def _build(source: str, library: Path) -> None:
    subprocess.run([theano.config.cxx, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)], input=source, text=True, check=True)


@needs_library
@pytest.mark.parametrize(
    ("begin", "flags"),
    [
        ("import theano_memopt\ntheano_memopt.use_scipy_blas()\n", ""),
        ("import theano_memopt\n", "mem_reuse.blas=scipy"),
        ("import theano_memopt, theano\nassert theano_memopt.use_scipy_blas() == theano_memopt.use_scipy_blas()\n", ""),
    ],
    ids=["before Theano", "by the flag", "after Theano, twice"],
)
@pytest.mark.quick
def test_products_run_in_it(begin: str, flags: str) -> None:
    done = _run(begin + PRODUCT, flags)
    assert done.returncode == 0 and done.stdout == "linked: True\n", done.stderr
    if "import theano_memopt, theano" not in begin:
        assert "WARNING" not in done.stderr  # that there is no BLAS is not true any more


@pytest.mark.quick
def test_off_is_the_default_and_theano_warns_as_ever() -> None:
    """The negative control."""
    done = _run(PRODUCT)
    assert done.returncode == 0 and done.stdout == "linked: False\n", done.stderr
    assert done.stderr.count(blas.WARNING) == 1


@needs_library
def test_a_module_of_the_cache_finds_the_library_in_a_later_process(tmp_path: Path) -> None:
    def modules() -> Any:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")}

    for flags in ("mem_reuse.blas=scipy", "mem_reuse.blas=scipy", ""):
        before = modules()
        done = _run(PRODUCT, f"base_compiledir={tmp_path},{flags}")
        assert done.stdout == f"linked: {bool(flags)}\n", done.stderr
        if flags and before:
            assert modules() == before  # nothing was compiled again
    name = os.path.basename(scipy_library().path).encode()
    linked = {path for path in modules() if name in path.read_bytes()}
    assert linked and len(linked) < len(modules())


@needs_library
def test_it_keeps_its_number_of_threads() -> None:
    program = """
import ctypes, theano_memopt, theano
from theano_memopt.hosts.theano.install import blas
library = blas.scipy_library()
count = getattr(ctypes.CDLL(library.path), library.prefix + "openblas_get_num_threads")
before = count(); theano_memopt.use_scipy_blas(); assert count() == before == 1, (before, count())
"""
    done = _run(program, OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr


@needs_library
def test_what_was_compiled_with_another_blas_is_a_refusal() -> None:
    program = """
import theano_memopt, theano, theano.tensor as tt
x = tt.fmatrix("x")
f = theano.function([x], tt.dot(x, x), name="early")
try:
    theano_memopt.use_scipy_blas()
except theano_memopt.BlasRefused as no:
    print(no)
print(repr(theano.config.blas.ldflags))
del f
theano_memopt.use_scipy_blas()
print("scipy.libs" in theano.config.blas.ldflags)
"""
    done = _run(program)
    assert done.returncode == 0, done.stderr
    refusal, flags, later = done.stdout.splitlines()
    assert "'early'" in refusal and "before the first theano.function" in refusal
    assert (flags, later) == ("''", "True")


@pytest.mark.parametrize("broken", ["nothing there", nightly_if(True, "another library"), "no library at all"])
def test_a_scipy_without_a_library_is_one_line_and_nothing_changes(broken: str, tmp_path: Path) -> None:
    folder = tmp_path / "scipy.libs"
    if broken != "nothing there":
        folder.mkdir()
        (folder / "libopenblas.so").write_bytes(b"no ELF")
    if broken == "another library":
        _build('extern "C" double sgemm_() { return 0.; }\n', folder / "libopenblas.so")  # and nothing else that is called
    program = f"import scipy; scipy.__file__ = {str(tmp_path / 'scipy' / '__init__.py')!r}\n" + PRODUCT
    done = _run(program, "mem_reuse.blas=scipy")
    assert done.returncode == 0 and done.stdout == "linked: False\n", done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "mem_reuse.blas=scipy" in line]
    assert "brings no BLAS" in line and str(folder) in line
    assert _run(program.replace("import theano_memopt,", "import theano_memopt\nprint(theano_memopt.use_scipy_blas())\nimport")).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/a/scipy", "darwin", "g++"), "on Linux only"),
        (("/a/scipy", "linux", ""), "without a C++ compiler"),
        (("/a b/scipy", "linux", "g++"), "with a space"),
    ],
)
@pytest.mark.quick
def test_where_it_cannot_be(arguments: Any, words: str) -> None:
    with pytest.raises(BlasRefused, match=words.replace("+", r"\+")) as refused:
        _library_of(*arguments)
    assert "\n" not in str(refused.value)


def test_names_with_a_prefix_are_replaced(tmp_path: Path) -> None:
    """As in newer wheels: this one answers 30 where Theano's own trial of a BLAS expects it."""
    folder = tmp_path / "scipy.libs"
    folder.mkdir()
    source = "".join(f'extern "C" double scipy_{name}() {{ return 30.; }}\n' for name in CALLED)
    _build(source, folder / "libscipy_openblas-1.so")
    library = _library_of(str(tmp_path / "scipy"), "linux", theano.config.cxx)
    assert library == Library(str(folder / "libscipy_openblas-1.so"), "scipy_")
    from theano.configdefaults import try_blas_flag

    assert try_blas_flag([*library.ldflags.split(), f"-Wl,-rpath,{folder}"])
    assert not try_blas_flag([*library.ldflags.split()[:2], f"-Wl,-rpath,{folder}"])  # without the other names nothing is found


def test_a_wrong_flag_is_theanos_own_error() -> None:
    done = _run("import theano_memopt, theano", "mem_reuse.blas=mkl")
    assert done.returncode == 1 and 'Invalid value ("mkl") for configuration variable "mem_reuse.blas"' in done.stderr.splitlines()[-1]


def test_the_flag_is_for_all_functions_and_for_good() -> None:
    with pytest.raises(Exception, match="after initialization"):
        theano.config.mem_reuse.blas = "scipy"
    with pytest.raises(TypeError, match="no setting 'blas'"):
        theano_memopt.mode(blas="scipy")


@needs_library
def test_where_there_is_none_the_commands_say_how_to_take_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PRODUCT)
    run = "import sys; from theano_memopt.commands.menu import main; sys.exit(main({!r}))"
    without, taken = (_run(run.format(["run", *more, str(script)])) for more in ([], ["--blas", "scipy"]))
    assert (without.stdout, taken.stdout) == ("linked: False\n", "linked: True\n")
    assert without.stderr.count("Theano found no BLAS here. SciPy brings one") == 1 and "--blas scipy" in without.stderr
    assert "no BLAS" not in taken.stderr and "WARNING" not in taken.stderr
    explained = _run(PRODUCT + "print(theano_memopt.explain(f))")
    assert explained.stdout.count("Theano found no BLAS here.") == 1, explained.stderr
    assert "no BLAS" not in _run(PRODUCT + "print(theano_memopt.explain(f))", "mem_reuse.blas=scipy").stdout


@needs_library
@pytest.mark.parametrize(("more", "words"), [([], "BLAS: none, NumPy multiplies."), (["--blas", "scipy"], "BLAS: SciPy's OpenBLAS (")])
def test_the_demo_says_which_it_measured_with(more: Any, words: str, tmp_path: Path) -> None:
    command = ["demo", "--models", "logreg", "--size", "4", "--steps", "1", "--html", str(tmp_path / "d.html"), *more]
    done = _run(f"import sys; from theano_memopt.commands.menu import main; sys.exit(main({command!r}))")
    assert done.returncode == 0, done.stderr
    assert words in done.stdout and ("SciPy brings one" in done.stdout) == (not more)

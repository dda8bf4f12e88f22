"""`import theano_memopt`, before and after Theano, twice, and without it. Each case is a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.marks import nightly_if

BEFORE = "import theano_memopt\n"
WITH_THEANO = BEFORE + "import theano\n"
REGISTERED = "from theano.compile.mode import optdb; assert 'mem_reuse' in optdb._names\n"
STOCK_ENOUGH = "import numpy.distutils.__config__ as c\nif not hasattr(c, 'blas_opt_info'): c.blas_opt_info = {}\n"


def _run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _with(flags: str) -> str:
    """Flags on top of those that the tests run with: the place of the compile cache."""
    return ",".join(part for part in (os.environ.get("THEANO_FLAGS", ""), flags) if part)


def test_importing_the_package_imports_no_theano() -> None:
    _run(BEFORE + "import sys; assert 'theano' not in sys.modules and 'numpy.distutils' not in sys.modules\n")


def test_the_planner_works_where_theano_cannot_be_imported() -> None:
    planning = "import theano_memopt.planner.plan as p, theano_memopt.planner.model as m; p.make_plan(m.worked_example())\n"
    _run("import sys; sys.modules['theano'] = None\n" + planning)


NOT_REGISTERED = REGISTERED.replace(" in ", " not in ")
NOTHING_INSTALLED = """
import numpy, sys
finders, modules = list(sys.meta_path), set(sys.modules)
{imports}
assert sys.meta_path == finders, sys.meta_path
assert not any(name.startswith("theano_memopt.hosts") or name == "theano" for name in sys.modules), set(sys.modules) - modules
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import theano_memopt.planner",
        "import theano_memopt.planner.plan as plan",
        "from theano_memopt.planner import exact",
        "import importlib; importlib.import_module('theano_memopt.planner.arena')",
        "import theano_memopt.options, theano_memopt.planner.model, theano_memopt.report.model",
    ],
)
def test_importing_the_planner_installs_nothing(imports: str) -> None:
    _run(NOTHING_INSTALLED.format(imports=imports))


def test_the_planner_registers_nothing_where_theano_is_there_already() -> None:
    _run(STOCK_ENOUGH + "import theano\nimport theano_memopt.planner.plan\n" + NOT_REGISTERED)


@pytest.mark.parametrize(
    ("program", "registered"),
    [
        ("import theano_memopt.planner\nimport theano_memopt\ntheano_memopt.mode\n", True),
        ("import theano_memopt.planner\nimport theano_memopt.hosts.theano\nimport theano\n", True),
        nightly_if(True, "import theano_memopt.planner\nfrom theano_memopt.hosts.theano.install import flags\nimport theano\n", True),
        ("import theano_memopt\nimport theano_memopt.planner\nimport theano\n", True),
        nightly_if(True, "from theano_memopt import planner\nimport theano\n", True),
        ("import theano_memopt.commands.menu\nimport theano\n", True),
        (STOCK_ENOUGH + "import theano_memopt.planner\nimport theano_memopt\nimport theano\n", False),
    ],
    ids=["a public name", "the host", "a part of the host", "the package first", "from the package", "the commands", "the package after it"],
)
def test_what_registers_after_the_planner(program: str, registered: bool) -> None:
    """Python runs the package's own file once, at the first import of any of its modules: that import decides."""
    _run(program + (REGISTERED if registered else NOT_REGISTERED))


@pytest.mark.parametrize(
    "program",
    [
        WITH_THEANO + REGISTERED,
        STOCK_ENOUGH + "import theano\nimport theano_memopt\n" + REGISTERED,
        WITH_THEANO + "import importlib; importlib.reload(theano_memopt)\nimport theano_memopt\n" + REGISTERED,
        BEFORE + "theano_memopt.mode\n" + REGISTERED,
        BEFORE + "import theano.tensor as tt\n" + REGISTERED,
    ],
    ids=["before", "after", "twice", "lazily", "through a submodule"],
)
@pytest.mark.quick
def test_it_registers(program: str) -> None:
    _run(program)


@pytest.mark.parametrize(
    "module",
    [
        nightly_if(module not in ("install.flags", "run.linker", "explain"), module)
        for module in ("install.flags", "install.patches", "read.graph", "optimize.making", "run.linker", "measure.observer", "explain")
    ],
)
def test_any_module_of_the_host_may_be_the_first_to_import_theano(module: str) -> None:
    _run(f"import theano_memopt.hosts.theano.{module}\nimport theano\n" + REGISTERED)


def test_theano_looks_as_if_nothing_had_been_in_the_way() -> None:
    _run(WITH_THEANO + "import pkgutil; assert type(theano.__loader__).__module__.startswith(('importlib', '_frozen')), theano.__loader__\n")


def test_unknown_names_are_attribute_errors() -> None:
    _run(BEFORE + "try:\n    theano_memopt.nothing\nexcept AttributeError as e:\n    assert 'nothing' in str(e)\nelse:\n    raise SystemExit(1)\n")


def test_flags_come_from_the_environment_and_leave_the_compile_cache_alone() -> None:
    told = _run(
        WITH_THEANO + "print(theano.config.mem_reuse.effort, theano.config.mem_reuse.order, theano.config.mem_reuse.verify)\n"
        "from theano.configparser import _config_var_list as v\nprint([p.in_c_key for p in v if p.fullname.startswith('mem_reuse')])\n",
        THEANO_FLAGS=_with("mem_reuse.effort=17,mem_reuse.order=host,mem_reuse.verify=True"),
    )
    assert told.splitlines()[0] == "17 host True"
    assert set(eval(told.splitlines()[1])) == {False}


def test_only_flags_that_do_not_exist_are_warned_of() -> None:
    warned = subprocess.run(
        [sys.executable, "-c", WITH_THEANO],
        env={**os.environ, "THEANO_FLAGS": _with("mem_reuse.effort=17,mem_reuse.efort=18,mem_reuse.storage=off")},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "there is no flag mem_reuse.efort; there are mem_reuse.order" in warned
    assert "recognise" not in warned and warned.count("UserWarning") == 1


@pytest.mark.quick
def test_a_wrong_flag_is_theanos_own_error() -> None:
    with pytest.raises(AssertionError, match="Invalid value .*mem_reuse.order"):
        _run(WITH_THEANO, THEANO_FLAGS="mem_reuse.order=best")


def test_batched_dot_without_a_blas() -> None:
    program = (
        "import theano.tensor as tt, numpy as np\nx, y = tt.ftensor3s('xy')\nf = theano.function([x, y], tt.batched_dot(x, y))\n"
        "a = np.random.rand(3, 4, 5).astype('f'); b = np.random.rand(3, 5, 2).astype('f')\n"
        "assert np.allclose(f(a, b), np.einsum('bij,bjk->bik', a, b), rtol=1e-4)\n"
    )
    _run(WITH_THEANO + program, THEANO_FLAGS=_with("blas.ldflags="))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Scan's C code compiles on older Pythons")
def test_scan_takes_its_python_path_where_its_c_code_does_not_compile() -> None:
    _run(WITH_THEANO + "import sys; assert sys.modules['theano.scan_module.scan_perform_ext'] is None\n")


@pytest.mark.parametrize(
    ("flags", "on"), [("mode=FAST_COMPILE,optimizer_including=mem_reuse", True), ("optimizer_excluding=mem_reuse", False), ("", True)]
)
def test_theanos_own_flags_turn_it_on_and_off(flags: str, on: bool) -> None:
    program = "import theano.tensor as tt\nx = tt.matrix()\nprint(theano_memopt.plan_of(theano.function([x], tt.exp(x) + x.T)) is not None)\n"
    assert _run(WITH_THEANO + program, THEANO_FLAGS=_with(flags)).strip() == str(on)


GIVES_UP = """
import gc, numpy as np, theano.tensor as tt
def compiled():
    x, w = tt.matrix(), theano.shared(np.eye(3))
    h = tt.exp(x * w)
    theano.function([x], tt.dot(h, x) + h.T, mode=theano.compile.mode.Mode("py", "fast_run"))  # an in-place Gemm is tried whose arguments overlap
compiled()
shared = lambda: sum(isinstance(o, theano.compile.SharedVariable) for o in gc.get_objects())
gc.collect(); before = shared()
compiled(); gc.collect()
print(shared() - before)
"""


def test_variables_are_let_go_after_a_rewrite_gave_up() -> None:
    assert _run(WITH_THEANO + GIVES_UP).split()[-1] == "0"


def test_upstream_would_keep_them() -> None:
    """The negative control."""
    without = (
        "from theano_memopt.hosts.theano.install import patches\n"
        "patches.ALWAYS = tuple(patch for patch in patches.ALWAYS if not patch.place.endswith(':nodes_constructed'))\n"
    )
    assert _run(BEFORE + without + "import theano\n" + GIVES_UP).split()[-1] != "0"

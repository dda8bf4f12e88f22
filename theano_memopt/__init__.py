"""Less memory for compiled Theano functions: never worse than Theano's own order in the plan, proven least wherever the search ends.

    FunctionGraph --read--> Graph --order--> Schedule --share--> Storage --> Plan --annotate--> FunctionGraph --> the standard VM

Importing this package registers the optimization `mem_reuse`: at once where Theano is imported already, otherwise right
after it is imported. The import itself needs no Theano. The names below ask for it.

    mode(base, order=..., storage=..., ...)   a Mode that compiles one function with settings of its own
    plan_of(function)                         the plan that a compiled function runs
    shared_arena()                            a context: functions compiled inside lay their intermediates into one block
    hint(variable, shape)                     the likely shape of an input, for sizes at compile time
    explain(function, *arguments)             a Report: what the peak is, what makes it, how low it can go
    profile(function, *arguments)             a Comparison: one measured call beside the plan
    compare(before, after)                    two of these side by side
    use_scipy_blas()                          link with the BLAS inside SciPy's wheel, where Theano found none

The planner alone installs nothing. Python runs this file before `theano_memopt.planner` too, and before the other parts that know
no Theano (`report`, `options`). Where the first import of this package in a program names one of them, the pass is not registered,
and Python runs nothing at a later `import theano_memopt`. The first use of a name above registers it then, and so does
`import theano_memopt.hosts.theano`.
"""

from __future__ import annotations

import importlib
import sys
from types import FrameType
from typing import Any, List, Optional

__version__ = "0.1.0"

_PUBLIC = {
    "mode": "theano_memopt.hosts.theano.optimize.optimizer",
    "plan_of": "theano_memopt.hosts.theano.optimize.optimizer",
    "StoodAside": "theano_memopt.hosts.theano.optimize.feature",
    "hint": "theano_memopt.hosts.theano.read.assumed_sizes",
    "shared_arena": "theano_memopt.hosts.theano.run.arena.block",
    "explain": "theano_memopt.hosts.theano.explain.report",
    "BadUse": "theano_memopt.hosts.theano.explain.subject",
    "compare": "theano_memopt.report.printable",
    "profile": "theano_memopt.hosts.theano.measure.one_call",
    "use_scipy_blas": "theano_memopt.hosts.theano.install.blas",
    "BlasRefused": "theano_memopt.hosts.theano.install.blas",
}
"""Public name -> the module that has it; imported when first asked for, and Theano with it."""


_HOST = "theano_memopt.hosts.theano"
_WITHOUT_THEANO = ("planner", "report", "options", "files", "progress", "program")
"""Parts that work without a host, and register nothing."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    environment = importlib.import_module(f"{_HOST}.install.environment")
    if not environment.theano_is_there():
        raise ImportError(f"theano_memopt.{name}: {environment.NO_THEANO}", name="theano")
    if not _PUBLIC[name].endswith(".blas"):  # which imports Theano by itself, and keeps it from complaining that there is no BLAS
        importlib.import_module("theano")  # through the import hook, so that everything is registered
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> List[str]:
    return sorted(set(globals()) | set(_PUBLIC))


def _asked_for() -> str:
    """The module that the import names which runs this file: this package, or a module inside it.

    The importing functions of importlib are called one inside the other, for the module first and then for its parent. Each has the
    name as an argument.
    """
    asked = __name__
    frame: Optional[FrameType] = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        name = frame.f_locals.get("name")
        asked = name if isinstance(name, str) and name.startswith(f"{__name__}.") else asked
        frame = frame.f_back
    return asked


if _asked_for().split(".")[1:2] not in [[part] for part in _WITHOUT_THEANO]:
    importlib.import_module(_HOST)

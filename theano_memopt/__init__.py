"""Less memory for compiled Theano functions: never worse than Theano's own order in the plan, proven least wherever the search ends.

    FunctionGraph --read--> Graph --order--> Schedule --share--> Storage --> Plan --annotate--> FunctionGraph --> the standard VM

Importing this package registers the optimization `mem_reuse`: at once where Theano is imported already, otherwise right
after somebody imports it. The import itself needs no Theano, so the planner works without; the names below ask for it.

    mode(base, order=..., storage=..., ...)   a Mode that compiles one function with settings of its own
    plan_of(function)                         the plan that a compiled function runs
    shared_arena()                            a context: functions compiled inside lay their intermediates into one block
    hint(variable, shape)                     the likely shape of an input, for sizes at compile time
    explain(function, *arguments)             a Report: what the peak is, what makes it, how low it can go
    profile(function, *arguments)             a Comparison: one measured call beside the plan
    use_scipy_blas()                          link with the BLAS inside SciPy's wheel, where Theano found none
"""

from __future__ import annotations

import importlib
from typing import Any, List

from theano_memopt.hosts.theano.install import environment, import_hook

_PUBLIC = {
    "mode": "theano_memopt.hosts.theano.optimize.optimizer",
    "plan_of": "theano_memopt.hosts.theano.optimize.optimizer",
    "StoodAside": "theano_memopt.hosts.theano.optimize.feature",
    "hint": "theano_memopt.hosts.theano.read.assumed_sizes",
    "shared_arena": "theano_memopt.hosts.theano.run.arena.block",
    "explain": "theano_memopt.hosts.theano.explain",
    "BadUse": "theano_memopt.hosts.theano.explain",
    "profile": "theano_memopt.hosts.theano.measure.one_call",
    "use_scipy_blas": "theano_memopt.hosts.theano.install.blas",
    "BlasRefused": "theano_memopt.hosts.theano.install.blas",
}
"""Public name -> the module that has it; imported when first asked for, and Theano with it."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not environment.theano_is_there():
        raise ImportError(f"theano_memopt.{name}: {environment.NO_THEANO}", name="theano")
    if not _PUBLIC[name].endswith(".blas"):  # which imports Theano by itself, and keeps it from complaining that there is no BLAS
        importlib.import_module("theano")  # through the watcher, so that everything is registered
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> List[str]:
    return sorted(set(globals()) | set(_PUBLIC))


import_hook.install()

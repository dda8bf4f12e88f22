"""Registers the pass as soon as Theano is imported, by whomever, and not before: `import theano_memopt` stays cheap.

import theano_memopt  ->  a finder in front of sys.meta_path
import theano         ->  the finder steps out, compat.prepare(), Theano's own import, then register()
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any, Callable, List, Optional, Sequence

from theano_memopt.hosts.theano.install import blas
from theano_memopt.hosts.theano.install import environment as compat


def watch() -> None:
    """Register now if Theano is there already, else when it comes. Called twice it does nothing more."""
    if hasattr(sys.modules.get("theano"), "function"):  # a half imported Theano has none yet
        _register()
    elif not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watcher())


def then(callback: Callable[[], None]) -> None:
    """Call this once the pass is registered: now if it is, else as soon as Theano has been imported."""
    _waiting.append(callback)
    if hasattr(sys.modules.get("theano"), "function"):
        _call_waiting()


_waiting: List[Callable[[], None]] = []


def _call_waiting() -> None:
    while _waiting:
        _waiting.pop(0)()


def _register() -> None:
    compat.prepare()
    compat.repair()
    from theano_memopt.hosts.theano.measure import theano_profiler as profiling
    from theano_memopt.hosts.theano.optimize import optimizer as rewrite
    from theano_memopt.hosts.theano.run import linker as vm

    rewrite.register()
    vm.install()
    profiling.install()
    blas.obey_flag()
    _call_waiting()


class _Watcher(importlib.abc.MetaPathFinder):
    """Stays until Theano has been imported: to be asked where it is (importlib.util.find_spec) is no import yet."""

    def __init__(self) -> None:
        self.looking = False

    def find_spec(self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None) -> Any:
        if name != "theano" or self.looking:
            return None
        self.looking = True
        try:
            spec = importlib.util.find_spec("theano")
        finally:
            self.looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenRegister(spec.loader, self)
        return spec


class _ThenRegister(importlib.abc.Loader):
    """Theano's own loader, and one call after it."""

    def __init__(self, loader: Any, watcher: _Watcher) -> None:
        self.loader = loader
        self.watcher = watcher

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        compat.prepare()
        with blas.blas_warning_comes_last():
            self.loader.exec_module(module)  # if it fails the watcher stays: a later attempt may succeed
            if self.watcher in sys.meta_path:
                sys.meta_path.remove(self.watcher)
            _register()

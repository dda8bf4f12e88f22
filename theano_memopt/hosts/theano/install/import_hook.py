"""Registers the pass as soon as Theano is imported, by whatever module, and not before: this file imports no Theano.

import theano_memopt  ->  a finder in front of sys.meta_path
import theano         ->  environment.prepare(), Theano's own import, the finder is taken out, then `_register`
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any, Callable, List, Optional, Sequence

from theano_memopt.hosts.theano.install import environment


def install() -> None:
    """Register the pass now if Theano is there already, else when it is imported. Called twice it does nothing more."""
    if _theano_is_whole():
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def when_registered(callback: Callable[[], None]) -> None:
    """Call this once the pass is registered: now if it is, else as soon as Theano has been imported."""
    _waiting.append(callback)
    if _theano_is_whole():
        _call_waiting()


_waiting: List[Callable[[], None]] = []


def _theano_is_whole() -> bool:
    """A half imported Theano has no `function` yet."""
    return hasattr(sys.modules.get("theano"), "function")


def _call_waiting() -> None:
    while _waiting:
        _waiting.pop(0)()


def _register() -> None:
    from theano_memopt.hosts.theano.install import blas, patches

    environment.prepare()
    patches.wrap(patches.ALWAYS)
    from theano_memopt.hosts.theano.optimize import optimizer, pickles

    optimizer.register()
    pickles.register()
    blas.obey_flag()
    _call_waiting()


class _Finder:
    """Finds Theano as Python would, and puts `_Loader` around its loader. It stays in sys.meta_path until Theano has been imported:
    importlib.util.find_spec("theano") asks it too, and imports nothing."""

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
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader:
    """Theano's own loader, and one call after it."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        from theano_memopt.hosts.theano.install import blas

        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        environment.prepare()
        with blas.blas_warning_comes_last():
            self.loader.exec_module(module)  # if it fails the finder stays: a later attempt may succeed
            if self.finder in sys.meta_path:
                sys.meta_path.remove(self.finder)
            _register()

"""Runs a Python program inside this process as `python` would run it: a file, a folder or archive, a module, or standard input.

    python train.py a b        run(Program("train.py"), ["a", "b"])
    python -m package.train    run(Program("package.train", module=True), [])
    python folder_or_zip       run(Program("folder_or_zip"), [])       its __main__.py
    python -                   run(Program("-"), [])

What the program can see is as Python has it: sys.argv, sys.path[0], and of `__main__` its name, file, spec and package, so that relative
imports work, and so does multiprocessing, whose children read spec and file to find the program again.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import io
import linecache
import os
import sys
import types
from dataclasses import dataclass
from typing import Any, Optional, Sequence

FAILED, STOPPED = 1, 130
"""The status of a Python program that an exception ended, and of one that Ctrl-C ended."""
STDIN = "<stdin>"
"""The name of a program that was read from standard input."""


class NotThere(Exception):
    """There is no such program. The message is one line."""


@dataclass(frozen=True)
class Program:
    """What Python is asked to run."""

    name: str
    """A path, the dotted name of a module, or "-"."""
    module: bool = False

    def check(self) -> None:
        """Raise `NotThere` where that can be said before anything runs: finding a module may run the packages that it is in."""
        if self.module or self.name == "-":
            return
        if _is_archive(self.name):
            _main_in(self.name)
        else:
            _read(self.name)


def run(program: Program, arguments: Sequence[str]) -> int:
    """Run it, and answer the exit status that Python would give it. What ends it is shown as Python shows it."""
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    try:
        exec(_prepared(program, module, arguments), module.__dict__)
    except NotThere:
        raise
    except SystemExit as stop:
        return _status(stop.code)
    except BaseException as trouble:
        frames = trouble.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next  # without ours
        sys.excepthook(type(trouble), trouble.with_traceback(frames), frames)
        return STOPPED if isinstance(trouble, KeyboardInterrupt) else FAILED
    return 0


def _prepared(program: Program, module: types.ModuleType, arguments: Sequence[str]) -> types.CodeType:
    """The code of the program; argv, path and `__main__` are set for it."""
    sys.argv = [program.name, *arguments]
    if program.module:
        sys.argv[0] = "-m"  # as long as packages are imported in which it lies
        _first_on_path(os.getcwd())
        spec = _spec_of(program.name)
        sys.argv[0] = str(spec.origin)
        return _code_of(spec, module)
    if program.name == "-":
        _first_on_path("")
        source = sys.stdin.buffer.read()
        module.__file__, module.__loader__ = STDIN, importlib.machinery.BuiltinImporter
        text = importlib.util.decode_source(source)
        linecache.cache[STDIN] = (len(text), None, text.splitlines(True), STDIN)  # without a time: nobody looks for it on disk
        return compile(source, STDIN, "exec")
    if _is_archive(program.name):
        _first_on_path(_named(program.name))
        return _code_of(_main_in(program.name), module)
    _first_on_path(os.path.dirname(os.path.realpath(program.name)))
    path = _named(program.name)
    module.__file__, module.__cached__ = path, None  # type: ignore[attr-defined]
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    return compile(_read(program.name), path, "exec")


def _spec_of(name: str) -> importlib.machinery.ModuleSpec:
    """Of the module, or of `__main__` in a package."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as trouble:
        if trouble.name is not None and not f"{name}.".startswith(f"{trouble.name}."):
            raise  # a package was found, and something that it imports was not
        spec = None
    except ValueError:  # a module without a spec, or a name that is none
        spec = None
    if spec is None:
        raise NotThere(f"no module named {name}")
    return spec


def _code_of(spec: importlib.machinery.ModuleSpec, module: types.ModuleType) -> types.CodeType:
    loader: Any = spec.loader
    code: Optional[types.CodeType] = loader.get_code(spec.name) if hasattr(loader, "get_code") else None
    if code is None:
        raise NotThere(f"{spec.name}: it has no Python code")
    module.__spec__, module.__loader__, module.__package__ = spec, loader, spec.parent
    module.__file__, module.__cached__ = spec.origin, spec.cached  # type: ignore[attr-defined]
    return code


def _is_archive(path: str) -> bool:
    """A folder, or a file that Python can import from, as a zip."""
    if os.path.isdir(path):
        return True
    try:
        return os.path.isfile(path) and importlib.machinery.PathFinder.find_spec("__main__", [path]) is not None
    except Exception:  # an importer of the user's that does not like the file
        return False


def _main_in(path: str) -> importlib.machinery.ModuleSpec:
    """What runs of a folder or archive."""
    inside = importlib.machinery.PathFinder.find_spec("__main__", [_named(path)])
    if inside is None:
        raise NotThere(f"{path}: there is no __main__.py in it")
    return inside


def _named(path: str) -> str:
    """As Python names a program to itself."""
    return os.path.abspath(path) if sys.version_info >= (3, 9) else path


def _first_on_path(folder: str) -> None:
    """In the place of the folder that Python put there for its own `-m`; under `python -P` it put none."""
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = folder


def _read(path: str) -> bytes:
    try:
        with io.open_code(os.path.abspath(path)) as stream:
            return stream.read()
    except OSError as trouble:
        raise NotThere(f"{path}: cannot be read: {trouble.strerror or trouble}") from None


def _status(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return FAILED

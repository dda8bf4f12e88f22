"""A BLAS where Theano finds none: the OpenBLAS inside SciPy's wheel.

    mem_reuse.blas=scipy   use_scipy_blas()   run --blas scipy      ->  blas.ldflags names that library  ->  Theano links with it

Theano reads `blas.ldflags` when it compiles, so the flag may be set as long as nothing was compiled. This file does not load the
library: Theano imports scipy.linalg.blas, which loads it, with the Fortran library that it needs, so a module out of the compile cache
finds both. The flag is part of the key of that cache: a module that was linked with another BLAS is not taken.

The number of threads of OpenBLAS stays as it is. Off is the default: the last bits of a product differ between NumPy's library and
SciPy's, and the import of this package changes no bit.

Words
    prefix    newer wheels put `scipy_` before each name that the library exports; the C code is then compiled with the names so replaced
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import glob
import importlib
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any, Iterator, List

from theano_memopt.progress import complain

CALLED = (
    *(kind + name for name in ("gemm_", "gemv_", "ger_", "dot_", "axpy_") for kind in "sd"),
    *(f"openblas_{verb}_num_threads" for verb in ("get", "set")),
)
"""The functions that Theano's C code calls."""
PREFIXES = ("", "scipy_")
HOW = "`--blas scipy`, the flag mem_reuse.blas=scipy, or theano_memopt.use_scipy_blas() before anything is compiled"
WARNING = "Using NumPy C-API based implementation for BLAS functions."

_logger = logging.getLogger("theano.mem_reuse")


class BlasRefused(RuntimeError):
    """SciPy's BLAS cannot be used. The message gives the reason in one line. Nothing was changed."""


@dataclass(frozen=True)
class Library:
    """A shared library that exports all of `CALLED`, each with this prefix."""

    path: str
    prefix: str

    @property
    def ldflags(self) -> str:
        """Folder and plain name: Theano adds the folder to the places where the compiled module looks for libraries."""
        folder, file = os.path.split(self.path)
        names = [f"-D{name}={self.prefix}{name}" for name in CALLED] if self.prefix else []
        return " ".join([f"-L{folder}", f"-l{file[len('lib') : -len('.so')]}", *names])


def use_scipy_blas() -> str:
    """Let Theano link with SciPy's OpenBLAS from now on. Answers its path. Raises `BlasRefused` where it cannot be used."""
    with blas_warning_comes_last():
        theano: Any = importlib.import_module("theano")
        library = scipy_library()
        if theano.config.blas.ldflags != library.ldflags:
            _refuse_a_second_blas(theano)
            theano.config.blas.ldflags = library.ldflags
    return library.path


def take_or_complain() -> None:
    """What `--blas scipy` asks for. Where it cannot be had, one line, and things go on without it."""
    try:
        use_scipy_blas()
    except BlasRefused as no:
        complain(f"--blas scipy: {no}")


def obey_flag() -> None:
    """Do what the flag mem_reuse.blas says, right after Theano's import. Where SciPy's BLAS cannot be used, warn in one line."""
    import theano

    if theano.config.mem_reuse.blas == "scipy":
        try:
            use_scipy_blas()
        except BlasRefused as refused:
            _logger.warning("mem_reuse.blas=scipy: %s", refused)


@contextlib.contextmanager
def blas_warning_comes_last() -> Iterator[None]:
    """Theano warns during its import that it has no BLAS. The warning is held back, and given at the end if it is still true."""
    held: List[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        if record.msg == WARNING:
            held.append(record)
        return record.msg != WARNING

    logger = logging.getLogger("theano.tensor.blas")
    logger.addFilter(hold)
    try:
        yield
    finally:
        logger.removeFilter(hold)
        for record in held:
            if not _ldflags():
                logger.handle(record)


# ------------------------------------------------------------------------------------------------------------- words


def in_words() -> str:
    """Which BLAS Theano's products run in."""
    flags = _ldflags()
    if not flags:
        return "none, NumPy multiplies"
    with contextlib.suppress(BlasRefused):
        if flags == scipy_library().ldflags:
            return f"SciPy's OpenBLAS ({os.path.basename(scipy_library().path)})"
    return f"blas.ldflags={flags}"


def offer() -> str:
    """One line on how to get SciPy's BLAS where Theano found none; empty where it has one, or SciPy's cannot be used."""
    if _ldflags():
        return ""
    try:
        scipy_library()
    except BlasRefused:
        return ""
    return f"Theano found no BLAS here. SciPy brings one; to take it: {HOW}."


def offer_once() -> str:
    """The same, and empty from the second time on: a program with many reports need not read it in each."""
    global _offered
    found = "" if _offered else offer()
    _offered = _offered or bool(found)
    return found


_offered = False


def _ldflags() -> str:
    config = getattr(sys.modules.get("theano"), "config", None)
    return str(config.blas.ldflags) if hasattr(config, "blas") else ""


# ------------------------------------------------------------------------------------------------------- the library


def scipy_library() -> Library:
    """The library inside SciPy's wheel that exports all of `CALLED`. Raises `BlasRefused` where there is none."""
    scipy: Any = importlib.import_module("scipy")
    return _library_of(os.path.dirname(os.path.abspath(scipy.__file__)), sys.platform, _compiler())


def _compiler() -> str:
    config = getattr(sys.modules.get("theano"), "config", None)
    return str(getattr(config, "cxx", ""))


@functools.lru_cache(maxsize=None)
def _library_of(scipy: str, platform: str, compiler: str) -> Library:
    if not platform.startswith("linux"):
        raise BlasRefused(f"SciPy's BLAS can be linked with on Linux only, not on {platform}")
    if not compiler:
        raise BlasRefused("without a C++ compiler (the flag cxx) Theano links with no BLAS")
    folder = os.path.join(os.path.dirname(scipy), "scipy.libs")
    if len(folder.split()) > 1:
        raise BlasRefused(f"blas.ldflags cannot name a folder with a space in it: {folder}")
    importlib.import_module("scipy.linalg.blas")  # with it come the libraries that this one needs
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "lib*openblas*.so"))):
        for prefix in PREFIXES:
            if _exports_all(path, prefix):
                return Library(path, prefix)
    raise BlasRefused(f"this SciPy brings no BLAS in a form that Theano can link with: {folder} has none (a wheel from PyPI would)")


def _exports_all(path: str, prefix: str) -> bool:
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return False
    return all(hasattr(library, prefix + name) for name in CALLED)


def _refuse_a_second_blas(theano: Any) -> None:
    """In one process all products have the same bits: the BLAS does not change once a function was compiled."""
    kind = theano.compile.function_module.Function
    gc.collect()  # a function is part of a cycle of references: one that is no longer used does not count
    found = next((thing for thing in gc.get_objects() if issubclass(type(thing), kind)), None)
    if found is not None:
        name = f" ({found.name!r})" if getattr(found, "name", None) else ""
        raise BlasRefused(f"a function was compiled with another BLAS already{name}: call use_scipy_blas() before the first theano.function")

"""What every verb of the command line is and says, so that a verb can live in a file of its own."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from typing import Any, Iterator, Optional

from theano_memopt.hosts.theano.install import blas
from theano_memopt.hosts.theano.install import environment as compat
from theano_memopt.hosts.theano.install import import_hook as on_import


class BadInput(Exception):
    """What the user gave cannot be used. The message names the file and the place, in one line."""


class Verb:
    """A verb declares its arguments and runs. `name` is what the user types, `says` its line in the menu."""

    name = ""
    says = ""

    def declare(self, parser: argparse.ArgumentParser) -> None:
        raise NotImplementedError

    def run(self, parsed: argparse.Namespace) -> int:
        raise NotImplementedError


def complain(message: str) -> None:
    """One harmless line on standard error: names from a file may hold line ends and terminal codes."""
    line = "".join(c if c.isprintable() else " " for c in message)
    with contextlib.suppress(OSError):
        print(f"theano_memopt: {line}", file=sys.stderr, flush=True)


def require_theano() -> None:
    """Theano 1.0.5 neither builds nor runs outside these versions, and it is an extra of this package."""
    if not (3, 8) <= sys.version_info[:2] < (3, 12):
        raise BadInput(f"Python {sys.version_info[0]}.{sys.version_info[1]} is not supported: Theano 1.0.5 runs on Python 3.8 to 3.11")
    if not compat.theano_is_there():
        raise BadInput(compat.NO_THEANO)


def declare_blas(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--blas", choices=("scipy",), help="scipy: link with the BLAS inside SciPy's wheel, for those who have none")


def take_blas(wanted: Optional[str]) -> None:
    """As soon as Theano is there, before anything is compiled. Where it cannot be had, one line, and things go on without it."""

    def take() -> None:
        try:
            blas.use_scipy_blas()
        except blas.BlasRefused as no:
            complain(f"--blas {wanted}: {no}")

    if wanted is not None:
        on_import.then(take)


class Progress:
    """What is being done, on standard error, once it has taken longer than a second.

    On a terminal one line that changes; otherwise a line of its own every ten seconds at most.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._shown = False
        self._last_line = 0.0
        self._status: Optional[Any] = None
        self._timer = threading.Timer(1.0, self._show)
        self._timer.daemon = True

    def __call__(self, message: str) -> None:
        self._doing = message
        if self._shown:
            self._say()

    def start(self) -> None:
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()
        self._timer.join()  # it may just be starting the line that is ended here
        if self._status is not None and self._shown:
            self._status.stop()

    def _show(self) -> None:
        self._shown = True
        if sys.stderr.isatty():
            from rich.console import Console  # here, for whoever is done within a second does without

            self._status = Console(stderr=True).status("")
            self._status.start()
        self._say()

    def _say(self) -> None:
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(self._doing))
        elif time.monotonic() - self._last_line >= 10:
            self._last_line = time.monotonic()
            complain(self._doing + " ...")


@contextlib.contextmanager
def progress_of(doing: str) -> Iterator[Progress]:
    progress = Progress(doing)
    progress.start()
    try:
        yield progress
    finally:
        progress.stop()

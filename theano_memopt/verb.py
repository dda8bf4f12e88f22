"""What every verb of the command line is, so that a verb can live in a file of its own."""

from __future__ import annotations

import argparse
import contextlib
import sys


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


def require_python() -> None:
    """Theano 1.0.5 neither builds nor runs outside these versions."""
    if not (3, 8) <= sys.version_info[:2] < (3, 12):
        raise BadInput(f"Python {sys.version_info[0]}.{sys.version_info[1]} is not supported: Theano 1.0.5 runs on Python 3.8 to 3.11")

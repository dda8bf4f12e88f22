"""What the verbs of the command line share: the exit status, what a verb is, the types of arguments, and a few words."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Optional, Tuple

if TYPE_CHECKING:
    from theano_memopt.planner.budget import Budget

DONE, REJECTED, BAD_INPUT, STOPPED, NO_READER = 0, 1, 2, 130, 141
"""The exit status: done or accepted, rejected, bad input, stopped by Ctrl-C, the reader of our output went away."""


class BadInput(Exception):
    """What the user gave cannot be used. The message names the file and the place, in one line."""


class Verb:
    """A verb declares its arguments and runs. `name` is what the user types, `says` its line in the menu."""

    name = ""
    says = ""
    examples: Tuple[str, ...] = ()
    """What the user types after `python -m theano_memopt`."""

    def declare(self, parser: argparse.ArgumentParser) -> None:
        raise NotImplementedError

    def run(self, parsed: argparse.Namespace) -> int:
        raise NotImplementedError


def require_theano() -> None:
    """Theano 1.0.5 neither builds nor runs outside these versions, and it is an extra of this package."""
    if not (3, 8) <= sys.version_info[:2] < (3, 12):
        raise BadInput(f"Python {sys.version_info[0]}.{sys.version_info[1]} is not supported: Theano 1.0.5 runs on Python 3.8 to 3.11")
    from theano_memopt.hosts.theano.install import environment

    if not environment.theano_is_there():
        raise BadInput(environment.NO_THEANO)


def declare_blas(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--blas", choices=("scipy",), help="scipy: link with the BLAS inside SciPy's wheel, for those who have none")


def take_blas(wanted: Optional[str]) -> None:
    """As soon as Theano is there, before anything is compiled."""
    if wanted is not None:
        from theano_memopt.hosts.theano.install import blas, import_hook

        import_hook.when_registered(blas.take_or_complain)


def above(peak: int, floor: int) -> str:
    """How far a peak lies above a floor, in percent."""
    if peak <= floor:
        return "0 %"
    return f"{100 * (peak - floor) / floor:.3g} %" if floor else "unbounded"


def in_words(error: object) -> str:
    """What an error says; its type where it says nothing."""
    return str(error) or type(error).__name__


def whole(text: str) -> int:
    """The type of an argument that is a whole number."""
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """The type of an argument that is a number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def budget(text: str) -> Budget:
    """The type of an argument that is a budget: a share, or bytes."""
    from theano_memopt.planner.budget import parse_budget

    try:
        return parse_budget(text)
    except ValueError as no:
        raise argparse.ArgumentTypeError(str(no)) from None


def budget_as_written(text: str) -> str:
    """The same, or "none", for a flag of Theano's, which reads it itself."""
    from theano_memopt.planner.budget import NO_BUDGET

    if text != NO_BUDGET:
        budget(text)
    return text


def share_of_time(text: str) -> float:
    """The type of an argument that is a share of a time."""
    from theano_memopt.planner.budget import parse_extra_time

    try:
        return parse_extra_time(text)
    except ValueError as no:
        raise argparse.ArgumentTypeError(str(no)) from None

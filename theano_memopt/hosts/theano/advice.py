"""What a user of Theano can do so that a function needs less: each an action, what it saves, and lines to paste.

    lengths that are assumed          hint(variable, shape), ready to paste
    another order is known            whatever keeps the function from it (`Obstacle`), else mem_reuse.effort
    storage stays from call to call   mem_reuse.storage where it is off, else allow_gc=True

A task that owns the peak is found by the report itself (`Report.advice`), and functions that could share one block by the table of `run`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

from theano import tensor

from theano_memopt.hosts.theano.read.assumed_sizes import GUESS, Sizes
from theano_memopt.planner.certificate import Schedule
from theano_memopt.report.model import Advice, Reserved


@dataclass(frozen=True)
class Obstacle:
    """What keeps a function from a better order that is known."""

    words: str
    """They end where `saves ... bytes` can follow."""
    hint_helps: bool = False
    """Would it run if it were compiled for these sizes?"""


@dataclass(frozen=True)
class Facts:
    """What `explain` knows about a function when its report is made."""

    inputs: Tuple[Tuple[str, Any], ...]
    """Those that the caller gives: their names, and their variables."""
    assumed: Sizes
    """As they were at compile time."""
    true: Optional[Sizes]
    """At the arguments that were given; None if none were."""
    settings: Any
    reserved: Reserved
    """In force."""
    packed: int
    """The most that would be kept from call to call with the storage that `auto` chooses."""
    peak: int
    best: Optional[Schedule]
    """A better order, if one is known."""
    obstacle: Optional[Obstacle]
    """Why that one does not run; None if no more than effort is missing."""
    replans: bool
    """Is the function planned anew for the sizes that come?"""


def advice_of(facts: Facts) -> Tuple[Advice, ...]:
    return (*_lengths(facts), *_order(facts), *_storage(facts))


def _lengths(facts: Facts) -> List[Advice]:
    hints = _hints(facts.inputs, facts.assumed, facts.assumed)
    if facts.true is not None or not hints:
        return []
    words = "some lengths are assumed, so these figures are of other shapes than yours. Give yours to explain"
    if facts.replans:
        words += " (a call is planned for the sizes that come)"
    return [Advice(f"{words}, or say them before theano.function:", None, hints)]


def _order(facts: Facts) -> List[Advice]:
    if facts.best is None:
        return []
    saves = facts.peak - facts.best.peak
    if facts.obstacle is not None:
        hints = _hints(facts.inputs, facts.assumed, facts.true) if facts.obstacle.hint_helps and facts.true is not None else ()
        return [Advice(facts.obstacle.words, saves, hints)]
    return [Advice(f"more effort while compiling finds a better order (the flag mem_reuse.effort, which is {facts.settings.effort}), which", saves)]


def _storage(facts: Facts) -> List[Advice]:
    kept = facts.reserved.bytes if facts.reserved.after_call else 0
    found = []
    if facts.settings.storage == "off" and facts.packed < kept:
        found.append(
            Advice(
                "the flag mem_reuse.storage=off lets no variable share; mem_reuse.storage=auto, by a cautious count,", kept - facts.packed, kept=True
            )
        )
    if kept:
        found.append(
            Advice("allow_gc=True gives all storage back after each call, at the price of allocating it again, and between calls", kept, kept=True)
        )
    return found


def _hints(inputs: Sequence[Tuple[str, Any]], assumed: Sizes, sizes: Sizes) -> Tuple[str, ...]:
    """A line for each input of which some length was assumed at compile time, or was another one, with the lengths of `sizes`."""
    found = []
    for name, variable in inputs:
        if not isinstance(variable.type, tensor.TensorType):
            continue
        before = assumed.dims(variable)
        shape = tuple(row[GUESS] for row in sizes.dims(variable))
        if any(len(set(row)) > 1 or row[GUESS] != length for row, length in zip(before, shape)):
            found.append(f"theano_memopt.hint({re.sub(r'[^0-9A-Za-z_]', '_', name)}, {shape})")
    return tuple(found)

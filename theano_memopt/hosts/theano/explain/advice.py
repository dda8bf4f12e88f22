"""What a user of Theano can do so that a function needs less: each an action, what it saves, and lines to paste.

    lengths that are assumed          hint(variable, shape), ready to paste
    another order is known            whatever keeps the function from it (`Obstacle`), else mem_reuse.effort
    storage stays from call to call   mem_reuse.storage where it is off, else allow_gc=True
    cheap results are kept            mem_reuse.extra_time, where results that are cheap to make again hold much of it

A task that owns the peak is found by the report itself (`Report.advice`), and functions that could share one block by the table of `run`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

from theano import tensor

from theano_memopt.hosts.theano.read.assumed_sizes import GUESS, Sizes
from theano_memopt.hosts.theano.read.program import read_program
from theano_memopt.planner.certificate import Schedule
from theano_memopt.planner.glance import Glance, glance
from theano_memopt.report.model import Advice, Reserved

EXTRA_TIME = 0.1
"""The share of more time for which it is told how much less would do."""
LARGE, WORTH, LEAST = 2**20, 10, 4096
"""Of a peak below so many bytes it is told if it comes down by one part in so many, and by so many bytes."""


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
    with_repeats: Optional[Glance]
    """The peak if cheap results ran again, for `EXTRA_TIME` more; None if that was not looked for."""
    waits_for: str = ""
    """The goal, if what runs again for it is decided at a call that has not come yet."""


def advice_of(facts: Facts) -> Tuple[Advice, ...]:
    return (*_waiting(facts), *_lengths(facts), *_order(facts), *_storage(facts), *_repeats(facts))


def with_repeats(fgraph: Any, nodes: Sequence[Any], lengths: Sizes, order: Tuple[int, ...]) -> Optional[Glance]:
    """What a quick look finds for `EXTRA_TIME` more; None where it would take long.

    It looks at the graph as it was compiled. The optimization plans before ops are replaced, and with more effort: what it finds is as low or lower.
    """
    program = read_program(fgraph, nodes, {}, lengths.shape_of).program
    return glance(program, order if program.is_legal(order) else program.natural_order, EXTRA_TIME)


def _waiting(facts: Facts) -> List[Advice]:
    if not facts.waits_for:
        return []
    words = f"what runs again for {facts.waits_for} is decided at the first call, for the sizes that come, and is not in these figures yet."
    return [Advice(f"{words} Give arguments to explain to see it", None)]


def _lengths(facts: Facts) -> List[Advice]:
    hints = _hints(facts.inputs, facts.assumed, facts.assumed)
    if facts.true is not None or not hints:
        return []
    words = "some lengths are assumed, so these figures are of other shapes than yours. Give yours to explain"
    if facts.replans:
        words += " (a call is planned for the sizes that come)"
    return [Advice(f"{words}, or say them before theano.function, a length in the place of each `...`:", None, hints)]


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


def _repeats(facts: Facts) -> List[Advice]:
    if facts.with_repeats is None or facts.peak - facts.with_repeats.peak < (1 if facts.peak >= LARGE else max(LEAST, facts.peak // WORTH)):
        return []
    flag = f"the flag mem_reuse.extra_time={EXTRA_TIME:g}, or `run --extra-time {EXTRA_TIME:g}`, or this mode"
    words = f"cheap results can run again, for at most {100 * EXTRA_TIME:g} % more time by an estimate: {flag}"
    paste = f"theano.function(..., mode=theano_memopt.mode('FAST_RUN', extra_time={EXTRA_TIME:g}))"
    return [Advice(words, facts.peak - facts.with_repeats.peak, (paste,))]


def _hints(inputs: Sequence[Tuple[str, Any]], assumed: Sizes, sizes: Sizes) -> Tuple[str, ...]:
    """A line for each input of which some length was assumed at compile time, or was another one, with the lengths of `sizes`: `...` for
    those that are assumed there too, since 128 is nobody's length."""
    found = []
    for name, variable in inputs:
        if not isinstance(variable.type, tensor.TensorType):
            continue
        before = assumed.dims(variable)
        shape = sizes.shape_of(variable)
        if any(len(set(row)) > 1 or row[GUESS] != length for row, length in zip(before, shape)):
            lengths = ["..." if len(set(row)) > 1 else str(row[GUESS]) for row in sizes.dims(variable)]
            inside = ", ".join(lengths) + ("," if len(lengths) == 1 else "")
            found.append(f"theano_memopt.hint({re.sub(r'[^0-9A-Za-z_]', '_', name)}, ({inside}))")
    return tuple(found)

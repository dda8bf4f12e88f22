"""Loads: how many bytes live at each step, from the births and deaths of buffers. The one sweep over time that the planner has.

    step    0    1    2    3            changes    +6   +3   -6   -3
    L       #########                                   (at step 2 S is born as well: +3)
    R            ##############         load        6    9    6    6
    S                 #########

Words
    span      the half-open interval [born, dead) of steps in which a buffer lives; an empty one counts nothing
    load      the bytes live at one step
    changes   what the load rises or falls by at the start of each step

Lemma. The load of a step is the sum of all changes up to it: of each buffer born by then its size, less that of each one dead by
then. So one pass over the buffers and one over the steps give every load.

The checkers (`check_slots`, `check_packing`, `check_certificate`) do not call this: they count in their own way.

>>> loads([6, 3, 3], [(0, 2), (1, 4), (2, 4)], steps=4)
[6, 9, 6, 6]
>>> greatest_load([6, 3, 3], [(0, 2), (1, 4), (2, 4)])
9
"""

from __future__ import annotations

from itertools import accumulate
from typing import Iterable, List, Sequence, Tuple

Span = Tuple[int, int]


def loads(sizes: Iterable[int], spans: Iterable[Span], steps: int) -> List[int]:
    """The load of each of the steps 0, 1, ..., steps - 1. No span may end after `steps`."""
    changes = [0] * (steps + 1)
    for size, (born, dead) in zip(sizes, spans):
        changes[born] += size
        changes[dead] -= size
    return list(accumulate(changes[:steps]))


def greatest_load(sizes: Sequence[int], spans: Sequence[Span]) -> int:
    """The greatest load of spans with any moments, far apart or below 0: the moments are sorted, not counted through."""
    moments = sorted({moment for span in spans for moment in span})
    number = {moment: step for step, moment in enumerate(moments)}
    return max(loads(sizes, [(number[born], number[dead]) for born, dead in spans], len(moments)), default=0)

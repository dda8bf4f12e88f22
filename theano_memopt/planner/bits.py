"""Sets of small whole numbers as the bits of one integer. The checkers have their own: they share nothing with what they check.

>>> mask_of([0, 2, 5]), members_of(37)
(37, [0, 2, 5])
"""

from __future__ import annotations

from typing import Iterable, List


def mask_of(members: Iterable[int]) -> int:
    """Each number is given once."""
    return sum(1 << member for member in members)


def members_of(mask: int) -> List[int]:
    """Ascending."""
    found = []
    while mask:
        found.append((mask & -mask).bit_length() - 1)
        mask &= mask - 1
    return found

"""A budget as people write it: a share of the least peak of any order, or bytes.

    0.5      half of the least peak of any order; a share has a point and is above 0 and at most 1
    800000   bytes
    500MB    bytes in a unit: B, KB, MB, GB, TB count thousands, KiB, MiB, GiB, TiB count 1,024

>>> parse_budget("0.5"), parse_budget("1.5 GiB")
(Budget(share=0.5, bytes=None), Budget(share=None, bytes=1610612736))
>>> parse_budget("half")
Traceback (most recent call last):
    ...
ValueError: 'half' is no budget; write a share like 0.5, or bytes like 500MB or 1.5GiB
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Dict, Optional

UNITS: Dict[str, int] = {
    "b": 1,
    **{f"{letter}b": 1000**i for i, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**i for i, letter in enumerate("kmgt", 1)},
}
_FORM = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", re.ASCII)


@dataclass(frozen=True)
class Budget:
    share: Optional[float]
    bytes: Optional[int]
    """One of the two."""


def parse_budget(text: str) -> Budget:
    """What the text says, or `ValueError` with one sentence."""
    found = _FORM.fullmatch(text)
    if found is None or (found[2] and found[2].lower() not in UNITS):
        raise ValueError(f"{text!r} is no budget; write a share like 0.5, or bytes like 500MB or 1.5GiB")
    number, unit = Fraction(found[1]), found[2].lower()
    if number == 0:
        raise ValueError(f"{text!r} is no budget: nothing runs in 0 bytes")
    if not unit and "." in found[1]:
        if number > 1:
            raise ValueError(f"{text!r} is no budget: a share is at most 1, and bytes are a whole number or have a unit")
        return Budget(float(number), None)
    size = int(number * UNITS[unit or "b"])
    if size == 0:
        raise ValueError(f"{text!r} is no budget: it is less than one byte")
    return Budget(None, size)


def in_words(size: int) -> str:
    """Bytes as people read them.

    >>> in_words(512), in_words(4_404_019)
    ('512 bytes', '4.2 MiB')
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= UNITS[unit.lower()]:
            return f"{size / UNITS[unit.lower()]:.1f} {unit}"
    return f"{size} bytes"

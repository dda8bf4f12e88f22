"""A budget and an extra time as people write them.

    0.5, .5, 50%     half of the least peak of any order: a share has a point, or is in percent; it is above 0 and at most 1
    500MB, 1.5GiB    bytes, with a unit: B, kB, MB, GB, TB count thousands, KiB, MiB, GiB, TiB count 1,024; small or capital letters
    0.02, 2%         an extra time: a share of the time, 0 or more

A whole number alone is neither: 2 could be twice the peak, or two bytes.

>>> parse_budget("0.5"), parse_budget("1.5 GiB")
(Budget(share=0.5, bytes=None), Budget(share=None, bytes=1610612736))
>>> parse_budget("800000")
Traceback (most recent call last):
    ...
ValueError: '800000' is no budget; write a share like 0.5 or 50%, or bytes with a unit like 500MB or 1.5GiB
>>> parse_extra_time("2 %")
0.02
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Dict, Optional

UNITS: Dict[str, int] = {
    "b": 1,
    **{f"{letter}b": 1000**i for i, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**i for i, letter in enumerate("kmgt", 1)},
}
_NUMBER = r"\d{1,18}(?:\.\d{0,18})?|\.\d{1,18}"
_FORM = re.compile(rf"\s*({_NUMBER})\s*([A-Za-z]*|%)\s*", re.ASCII)
NO_BUDGET = "none"
"""Where a budget may be given, and none is wanted."""
WAYS = "write a share like 0.5 or 50%, or bytes with a unit like 500MB or 1.5GiB"


@dataclass(frozen=True)
class Budget:
    share: Optional[float]
    bytes: Optional[int]
    """One of the two."""


def parse_budget(text: str) -> Budget:
    """What the text says, or `ValueError` with one sentence."""
    found = _FORM.fullmatch(text)
    if found is None or found[2].lower() not in {"", "%", *UNITS}:
        raise ValueError(f"{text!r} is no budget; {WAYS}")
    number, unit = Fraction(found[1] + "0" if found[1].endswith(".") else found[1]), found[2].lower()
    if number == 0:
        raise ValueError(f"{text!r} is no budget: nothing runs in 0 bytes")
    if not unit and "." not in found[1]:
        raise ValueError(f"{text!r} is no budget; {WAYS}")
    if unit in ("", "%"):
        share = number / (100 if unit else 1)
        if share > 1:
            raise ValueError(f"{text!r} is no budget: a share is at most 1, and bytes have a unit, like 500MB or 1.5GiB")
        return Budget(float(share), None)
    size = int(number * UNITS[unit])
    if size == 0:
        raise ValueError(f"{text!r} is no budget: it is less than one byte")
    return Budget(None, size)


def parse_extra_time(text: str) -> float:
    """The same for an extra time."""
    number, percent = (text.strip()[:-1], 100) if text.strip().endswith("%") else (text, 1)
    try:
        share = float(number) / percent
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf:
        raise ValueError(f"{text!r} is no extra time; write a share of the time, 0 or more, like 0.02 or 2%")
    return share


def in_words(size: int) -> str:
    """Bytes as people read them.

    >>> in_words(512), in_words(4_404_019)
    ('512 bytes', '4.2 MiB')
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= UNITS[unit.lower()]:
            return f"{size / UNITS[unit.lower()]:.1f} {unit}"
    return f"{size} bytes"

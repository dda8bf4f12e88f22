"""Rows of numbers for the compiled twins, given by address.

An array of `ctypes` would have a type of its own for every length: two kilobytes each, in circles that only Python's collector lets go. One
plan makes dozens of them, and with gc a small function's call needs no more than that.

>>> ints((3, 1, 2)), room_for_ints(2)
(array('i', [3, 1, 2]), array('i', [0, 0]))
>>> in_rows([(0, 1), (), (2,)])                    # where each row begins, and all items in a row
[array('i', [0, 2, 2, 3]), array('i', [0, 1, 2])]
"""

from __future__ import annotations

import ctypes
from array import array
from typing import Any, List, Sequence


class ByAddress:
    """The type of such an argument. The twin reads it, or fills it, and keeps no pointer."""

    @staticmethod
    def from_param(numbers: Any) -> ctypes.c_void_p:
        return ctypes.c_void_p(None if numbers is None else numbers.buffer_info()[0])


def ints(items: Sequence[int]) -> array[int]:
    return array("i", items)


def int64s(items: Sequence[int]) -> array[int]:
    return array("q", items)


def doubles(items: Sequence[float]) -> array[float]:
    return array("d", items)


def room_for_ints(count: int) -> array[int]:
    return array("i", [0]) * count


def in_rows(lists: Sequence[Sequence[int]]) -> List[Any]:
    """A list of lists as two arrays."""
    starts, items = array("i", [0]), array("i")
    for row in lists:
        items.extend(row)
        starts.append(len(items))
    return [starts, items]

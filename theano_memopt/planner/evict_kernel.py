"""Which twin simulates: the compiled one where it was built and the numbers fit into 64 bits, else the Python one.

Both make the same sequences, so the choice changes the time and nothing else. `THEANO_MEMOPT_KERNEL=python` chooses the Python one.
"""

from __future__ import annotations

import ctypes
import glob
import os
from typing import Any, List, Optional, Sequence, Tuple, Union

from theano_memopt.planner import evict as python
from theano_memopt.planner.evict import Flat, Rule
from theano_memopt.planner.numbers_for_c import ByAddress, doubles, in_rows, int64s, ints, room_for_ints

_LARGEST_SUM = 1 << 60


class PythonEviction:
    def __init__(self, flat: Flat) -> None:
        self.flat = flat

    def evict(self, order: Sequence[int], budget: int, rule: Rule, worth: Sequence[float], limit: int) -> List[int]:
        return python.evict(self.flat, order, budget, rule, worth, limit)

    def trial(self, order: Sequence[int], budget: int, rule: Rule, worth: Sequence[float], limit: int) -> Tuple[List[int], int]:
        return python.trial(self.flat, order, budget, rule, worth, limit)

    def peak_of(self, sequence: Sequence[int]) -> int:
        return python.peak_of(self.flat, sequence)

    def drop_needless(self, sequence: Sequence[int], budget: int, least: int = 0) -> List[int]:
        return python.drop_needless(self.flat, sequence, budget, least)


class CompiledEviction:
    def __init__(self, flat: Flat, library: Any) -> None:
        self.flat = flat
        self._library = library
        self._handle = library.memopt_program(
            len(flat.reads),
            len(flat.size),
            *in_rows(flat.reads),
            *in_rows(flat.writes),
            int64s(flat.ticks),
            bytes(flat.again),
            ints(flat.lies_in),
            bytes(flat.in_place),
            int64s(flat.size),
            ints(flat.producer),
            ints(flat.overwriter),
            bytes(flat.keep),
        )

    def evict(self, order: Sequence[int], budget: int, rule: Rule, worth: Sequence[float], limit: int) -> List[int]:
        room = 4 * len(order)
        while True:
            out = room_for_ints(room)
            length = self._library.memopt_evict(self._handle, ints(order), budget, *rule, doubles(worth), limit, out, room)
            if length <= room:
                return list(out[:length])
            room = length

    def trial(self, order: Sequence[int], budget: int, rule: Rule, worth: Sequence[float], limit: int) -> Tuple[List[int], int]:
        room, peak, given, worths = 4 * len(order), ctypes.c_int64(), ints(order), doubles(worth)
        while True:
            out = room_for_ints(room)
            length = self._library.memopt_trial(self._handle, given, budget, *rule, worths, limit, out, room, ctypes.byref(peak))
            if length <= room:
                return list(out[:length]), peak.value
            room = length

    def peak_of(self, sequence: Sequence[int]) -> int:
        return int(self._library.memopt_peak_of(self._handle, ints(sequence), len(sequence)))

    def drop_needless(self, sequence: Sequence[int], budget: int, least: int = 0) -> List[int]:
        out = room_for_ints(len(sequence))
        length = self._library.memopt_drop_needless(self._handle, ints(sequence), len(sequence), budget, least, out)
        return list(out[:length])

    def __del__(self) -> None:
        self._library.memopt_program_free(self._handle)


Eviction = Union[PythonEviction, CompiledEviction]


def eviction_for(flat: Flat) -> Eviction:
    if _LIBRARY is None or sum(flat.size) >= _LARGEST_SUM:
        return PythonEviction(flat)
    return CompiledEviction(flat, _LIBRARY)


def _load() -> Optional[Any]:
    if os.environ.get("THEANO_MEMOPT_KERNEL") == "python":
        return None
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "_evict.*"))):
        if path.endswith((".so", ".pyd", ".dylib")):
            try:
                return _declare(ctypes.CDLL(path))
            except (OSError, AttributeError):  # built for another machine, or by another version: the Python twin serves
                continue
    return None


def _declare(library: Any) -> Any:
    handle, number, size, flags = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
    numbers = ByAddress
    for name, result, arguments in (
        ("program", handle, [number, number, *[numbers] * 5, flags, numbers, flags, *[numbers] * 3, flags]),
        ("program_free", None, [handle]),
        ("evict", number, [handle, numbers, size, *[number] * 5, numbers, size, numbers, number]),
        ("trial", number, [handle, numbers, size, *[number] * 5, numbers, size, numbers, number, ctypes.POINTER(size)]),
        ("peak_of", size, [handle, numbers, number]),
        ("drop_needless", number, [handle, numbers, number, size, size, numbers]),
    ):
        function = getattr(library, f"memopt_{name}")
        function.restype, function.argtypes = result, arguments
    return library


_LIBRARY = _load()
"""The compiled twin, or None."""

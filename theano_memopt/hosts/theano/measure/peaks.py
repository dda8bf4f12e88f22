"""The most bytes that are held from a moment on, by tracemalloc.

From Python 3.9 on the peak of tracemalloc can be set back. On Python 3.8 it can not; there an array that nobody touches lifts what is
held up to the last peak, so that the next byte makes a new one.

    last peak   - - - - - - - - - -- _____/\\___  with the array
    held        ___/\\___/\\/\\________|            its length is the lift
"""

from __future__ import annotations

import tracemalloc
from typing import Any, Tuple

import numpy as np

SETS_BACK = hasattr(tracemalloc, "reset_peak")


def count_anew() -> Tuple[int, int, Any]:
    """The bytes held now; how much too high both figures of tracemalloc are from now on; and the array, to be held until they are read."""
    held, peak = tracemalloc.get_traced_memory()
    if SETS_BACK:
        tracemalloc.reset_peak()
        return held, 0, None
    array = np.empty(peak - held, np.uint8)
    return held, tracemalloc.get_traced_memory()[0] - held, array

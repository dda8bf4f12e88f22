"""Does an arena save more than it takes?

The Python objects of an arena (formulas of shapes, machines, views) take some kilobytes, and about one more for each task. A
function of a few tasks over short vectors has less than that to save, and runs in Theano's own machine, as without the pass.
"""

from __future__ import annotations

import math
from typing import Any

from theano_memopt.planner.load import greatest_load

OBJECTS, OBJECTS_OF_A_TASK = 12_000, 1_000
"""Bytes of Python objects that an arena holds: of functions with 13 to 326 tasks, tracemalloc found 0.8 to 1.8 kB a task."""


def too_little(planner: Any) -> str:
    """Why an arena is not worthwhile for the inputs that are in their cells now; empty if it is."""
    signature = planner.read_formulas()
    concerned = {*planner.variables.candidates, *planner.variables.disposable}
    spans = planner.spans(planner.order)
    rows = [(max(0, math.prod(shape)) * dtype.itemsize, spans[b]) for b, dtype, shape in planner.shaped(signature) if b in concerned]
    sizes = [size for size, _ in rows]
    saved = sum(sizes) - greatest_load(sizes, [span for _, span in rows])
    takes = OBJECTS + OBJECTS_OF_A_TASK * len(planner.reading.nodes)
    return "" if saved > takes else f"an arena would save {saved:,} bytes, and its own objects take about {takes:,}"

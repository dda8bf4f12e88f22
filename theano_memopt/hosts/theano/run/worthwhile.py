"""Does planning for the sizes that come save more than it takes?

The Python objects of it (formulas of shapes, machines, views) take some kilobytes, and some more for each task. A function of a few tasks
over short vectors has less than that to save, and runs in Theano's own machine, as without the pass. It is asked again when an input has
grown; of an order also when one has shrunk, for another may be better then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Sequence, Tuple

from theano_memopt.hosts.theano.read.true_sizes import Signature
from theano_memopt.hosts.theano.run.machines import Cell
from theano_memopt.planner.certificate import footprint
from theano_memopt.planner.load import greatest_load

OF_AN_ARENA = 12_000, 1_000
"""Bytes of Python objects that an arena holds, and those for each task: of functions with 13 to 326 tasks, tracemalloc found 0.8 to 1.8 kB a task."""
OF_ORDERS = 6_000, 500
"""The same for choosing orders, at most: 7 kB for 13 tasks, 17 to 52 for 75, 133 for 178."""
ASKED_AGAIN_AT = 2
"""An input so many times as large makes it worth asking again."""
SHARE = 100
"""What is remembered of sizes that came may take one part in so many of what the function needs."""


def too_little(planner: Any, signature: Signature) -> str:
    """Why an arena is not worthwhile for calls with this signature; empty if it is."""
    concerned = {*planner.variables.candidates, *planner.variables.disposable}
    spans = planner.spans(planner.order)
    rows = [(max(0, math.prod(shape)) * dtype.itemsize, spans[b]) for b, dtype, shape in planner.shaped(signature) if b in concerned]
    sizes = [size for size, _ in rows]
    saved = sum(sizes) - greatest_load(sizes, [span for _, span in rows])
    takes = _taken(OF_AN_ARENA, len(planner.reading.nodes))
    return "" if saved > takes else f"an arena would save {saved:,} bytes, and its own objects take about {takes:,}"


def no_order_saves_enough(planner: Any, sizes: Tuple[int, ...]) -> str:
    """Why it is not worthwhile to choose an order at these sizes; empty if it is."""
    graph = planner.graph.resized(sizes)
    saved = planner.peak(planner.annotation.stock, sizes) - max((footprint(graph, task) for task in range(len(graph.tasks))), default=0)
    takes = _taken(OF_ORDERS, len(graph.tasks))
    return "" if saved > takes else f"no order saves more than {saved:,} bytes, and to choose one takes about {takes:,}"


def needs_less_than_an_order(planner: Any, sizes: Tuple[int, ...]) -> bool:
    """Is all that the function needs less than choosing an order takes? Then it is so for smaller inputs, too."""
    return bool(planner.peak(planner.annotation.stock, sizes) <= _taken(OF_ORDERS, len(planner.graph.tasks)))


def kept_at_most(few: int, most: int, bytes_of_each: int, needed: int) -> int:
    """Plans that are remembered for a function that needs so many bytes: `few` whatever they take, and never more than `most`."""
    return min(most, max(few, needed // (SHARE * bytes_of_each)))


def _taken(objects: Tuple[int, int], tasks: int) -> int:
    once, of_a_task = objects
    return once + of_a_task * tasks


@dataclass(frozen=True)
class HasGrown:
    """Is an input of a call so much larger than in every call at which it was asked that the answer may be another?"""

    most_bytes: Tuple[Tuple[Cell, int], ...] = ()
    """Cells of inputs, and the most bytes that they may have."""
    most: Tuple[Tuple[Cell, int], ...] = ()
    """The same for whole numbers on which sizes rest."""

    def __call__(self) -> bool:
        for cell, most in self.most_bytes:
            if getattr(cell[0], "nbytes", 0) > most:
                return True
        return bool(self.most) and any(cell[0] is not None and abs(cell[0]) > most for cell, most in self.most)

    def asked(self, inputs: Sequence[Cell], numbers: Sequence[Cell] = ()) -> HasGrown:
        """After it was asked once more, for what is in these cells now."""
        sizes = _raised(self.most_bytes, [(cell, getattr(cell[0], "nbytes", 0)) for cell in inputs])
        return HasGrown(sizes, _raised(self.most, [(cell, abs(cell[0])) for cell in numbers]))


@dataclass(frozen=True)
class HasShrunk:
    """Is an input of a call so much smaller than in every call at which it was asked?"""

    least_bytes: Tuple[Tuple[Cell, int], ...] = ()
    """Cells of inputs, and the fewest bytes that they may have."""
    least: Tuple[Tuple[Cell, int], ...] = ()
    """The same for whole numbers on which sizes rest."""

    def __call__(self) -> bool:
        for cell, least in self.least_bytes:
            if getattr(cell[0], "nbytes", least) < least:
                return True
        return bool(self.least) and any(cell[0] is not None and abs(cell[0]) < least for cell, least in self.least)

    def asked(self, inputs: Sequence[Cell], numbers: Sequence[Cell] = ()) -> HasShrunk:
        """After it was asked once more, for what is in these cells now."""
        sizes = _lowered(self.least_bytes, [(cell, getattr(cell[0], "nbytes", 0)) for cell in inputs])
        return HasShrunk(sizes, _lowered(self.least, [(cell, abs(cell[0])) for cell in numbers]))


NEVER_ASKED = HasGrown((([None], -1),))
"""Its cell is no input, and has always more."""


def _raised(before: Sequence[Tuple[Cell, int]], now: Sequence[Tuple[Cell, int]]) -> Tuple[Tuple[Cell, int], ...]:
    known: Dict[int, int] = {id(cell): most for cell, most in before}
    return tuple((cell, max(ASKED_AGAIN_AT * size, known.get(id(cell), 0))) for cell, size in now)


def _lowered(before: Sequence[Tuple[Cell, int]], now: Sequence[Tuple[Cell, int]]) -> Tuple[Tuple[Cell, int], ...]:
    known: Dict[int, int] = {id(cell): least for cell, least in before}
    return tuple((cell, min(size // ASKED_AGAIN_AT, known.get(id(cell), size))) for cell, size in now)

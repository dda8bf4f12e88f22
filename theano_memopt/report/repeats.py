"""What runs again, what for, and what it costs: figures beside a report, and the curve of peaks against extra time.

    asked      the goal, in words
    once       the same function with nothing run twice: its least peak by order, and its seconds
    again      results that are made again, each with what it takes and what it costs
    floor      no schedule is lower, however often it runs things again

Times are estimates, unless a profile was taken; they count as shares of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Dict, Optional, Sequence, Tuple

from theano_memopt.options import RecomputeOptions
from theano_memopt.planner.program import Program
from theano_memopt.planner.recompute import trade_off

SIMULATIONS = 150
"""For the curve: a fraction of what a plan gets, since nobody runs it."""
Curve = Tuple[Tuple[int, float], ...]
"""Peaks, ascending, each with extra time as a share."""


@dataclass(frozen=True)
class Again:
    """A result that is made more than once."""

    operation: str
    made_at: str
    """The line of the user's code."""
    bytes: int
    times: int
    """Beyond the first."""
    seconds: float
    """Of all further times, estimated."""
    tasks: Tuple[int, ...]
    """The further runs, as tasks of the report's graph."""


@dataclass(frozen=True)
class Repeats:
    asked: str
    planned_at: str
    """The sizes at which it was decided what runs again."""
    verdict: str
    """What came of it, in a sentence."""
    ordered_peak: int
    """The least peak of any order that runs nothing twice, at the sizes of the report."""
    floor: int
    floor_owner: str
    """The task that shows the floor; empty if it is what is handed out at the end."""
    seconds: float
    """Of running everything once."""
    times_from: str
    """Where times are from: estimated, or a profile."""
    again: Tuple[Again, ...]
    opened: Tuple[str, ...]
    """Parameters that are not updated in place, so that what needs them can run again."""
    program: Program
    orders: Tuple[Tuple[int, ...], ...]
    """Orders of the program to begin at."""

    @property
    def extra_seconds(self) -> float:
        return sum(row.seconds for row in self.again)

    @property
    def extra_share(self) -> float:
        return self.extra_seconds / self.seconds if self.seconds else 0.0

    @property
    def owner_in_words(self) -> str:
        return f"task {self.floor_owner!r} holds that" if self.floor_owner else "what is handed out at the end"

    def measured_share(self, seconds: Dict[int, float]) -> Optional[float]:
        """Of a measured call, by task: what ran again, as a share of the rest."""
        extra = sum(seconds.get(task, 0.0) for row in self.again for task in row.tasks)
        rest = sum(seconds.values()) - extra
        return extra / rest if rest > 0 else None

    @cached_property
    def curve(self) -> Curve:
        """The least extra time that was found for each peak, with little effort, so a plan may be better."""
        options = RecomputeOptions(simulations=SIMULATIONS)
        found = trade_off(self.program, options, self.orders)
        return tuple((peak, seconds / self.seconds if self.seconds else 0.0) for peak, seconds in found)

    def thinned(self, rows: int) -> Curve:
        """So many points of the curve at most, evenly between the lowest and the highest peak."""
        points = self.curve
        if len(points) <= rows:
            return points
        lowest, highest = points[0][0], points[-1][0]
        wanted = [lowest + (highest - lowest) * i / (rows - 1) for i in range(rows)]
        nearest = [min(points, key=lambda point: abs(point[0] - peak)) for peak in wanted]
        return tuple(sorted(set(nearest)))


def to_json(repeats: Optional[Repeats], measured: Optional[float], curve: bool = True) -> Optional[Dict[str, Any]]:
    if repeats is None:
        return None
    return {
        "asked": repeats.asked,
        "planned_at": repeats.planned_at,
        "verdict": repeats.verdict,
        "ordered_peak_bytes": repeats.ordered_peak,
        "floor_bytes": repeats.floor,
        "floor_task": repeats.floor_owner or None,
        "estimated_seconds": repeats.seconds,
        "estimated_extra_share": repeats.extra_share,
        "measured_extra_share": measured,
        "again": [
            {"task": row.operation, "made_at": row.made_at, "bytes": row.bytes, "times": row.times, "estimated_seconds": row.seconds}
            for row in repeats.again
        ],
        "opened": list(repeats.opened),
        "curve": [{"peak_bytes": peak, "extra_share": share} for peak, share in repeats.curve] if curve else None,
    }


def largest(again: Sequence[Again], rows: int) -> Tuple[Tuple[Again, ...], Tuple[Again, ...]]:
    """The results that take most, and the rest."""
    ranked = sorted(again, key=lambda row: (-row.bytes, -row.seconds, row.operation))
    return tuple(ranked[:rows]), tuple(ranked[rows:])

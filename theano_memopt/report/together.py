"""Two reports side by side, for a change of the model or of flags: what became of the peak, of what is kept, and of each line of code.

>>> from theano_memopt.planner.model import worked_example
>>> from theano_memopt.planner.plan import make_plan
>>> from theano_memopt.report.model import Report
>>> graph = worked_example()
>>> before, after = (Report(name, make_plan(graph), (("given order", graph.natural_order),)) for name in ("one", "two"))
>>> Together(before, after).figures[1]
('peak', 8, 8)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

from theano_memopt.report.model import Report

Figure = Tuple[str, Optional[int], Optional[int]]
"""What, before, after; None where one side does not have it."""


@dataclass(frozen=True)
class Together:
    before: Report
    after: Report

    @property
    def unlike(self) -> str:
        """A sentence where the two are of different sizes, so that a change need not come from the model or the flags; else empty."""
        one, two = dict(self.before.inputs), dict(self.after.inputs)
        if one == two:
            return ""
        changed = [name for name in {**one, **two} if one.get(name) != two.get(name)]
        told = ", ".join(f"{name} {one.get(name, 'not there')} before and {two.get(name, 'not there')} after" for name in changed)
        return f"The sizes are not the same: {told}. What differs below may come from that alone."

    @property
    def figures(self) -> List[Figure]:
        one, two = self.before, self.after
        rows: List[Figure] = [
            ("peak without the plan", one.host_peak, two.host_peak),
            ("peak", one.peak, two.peak),
            ("floor", one.floor, two.floor),
            ("kept after a call", one.kept, two.kept),
        ]
        measured = [None if report.measured is None else report.measured.peak for report in (one, two)]
        return rows if measured == [None, None] else [*rows, ("measured peak", measured[0], measured[1])]

    @property
    def needs(self) -> List[Figure]:
        """All that a call needs at its peak, of either side."""
        one, two = ({need.what: need.bytes for need in report.needs} for report in (self.before, self.after))
        return [(what, one.get(what), two.get(what)) for what in {**one, **two}]

    @property
    def lines(self) -> List[Figure]:
        """Bytes at the peak of each line of code; what changed most comes first."""
        one, two = ({line.where: line.bytes for line in report.by_line()} for report in (self.before, self.after))
        changes = sorted({**one, **two}, key=lambda where: (-abs(two.get(where, 0) - one.get(where, 0)), -two.get(where, 0), where))
        return [(where or "no line is known", one.get(where, 0), two.get(where, 0)) for where in changes]

    @property
    def tables(self) -> List[Tuple[str, List[Figure]]]:
        """Each with its title."""
        return [
            ("bytes", self.figures),
            ("all that a call needs at its peak", self.needs),
            ("at the peak, by the line of code that made it", self.lines),
        ]

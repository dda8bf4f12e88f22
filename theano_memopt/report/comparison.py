"""Planned beside measured, for one call of one function: where they differ, and why.

    Report + Profile  ->  Comparison

A step whose measured bytes are not the planned ones is a Difference. A difference that stays from step to step is told once, where it arises.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import List, Sequence, Tuple

from theano_memopt.planner.arena import Arena
from theano_memopt.planner.liveness import lives
from theano_memopt.planner.model import Graph
from theano_memopt.planner.plan import Storage, tenants_outside
from theano_memopt.report.model import Line, Profile, Report, Step


@dataclass(frozen=True)
class Difference:
    """One step where planned and measured are not the same, and why."""

    step: int
    bytes: int
    why: str


CLOSE = 0.02
"""Planned and measured bytes of storage that differ by more than this share are worth a word."""
NOISE = 4096
"""Bytes of Python objects (array headers, tuples) that a step may hold besides its arrays; not worth a word."""


@dataclass(frozen=True)
class Comparison:
    """Planned beside measured, for the same graph."""

    report: Report
    profile: Profile

    # --- a Report answers the same: there as planned, here as measured ---------------------------------------------

    @property
    def peak(self) -> int:
        """The most bytes that the call held at once."""
        return self.profile.peak

    @property
    def floor(self) -> int:
        """No order needs less. What ops hold for themselves while they run comes on top of it."""
        return self.report.floor

    @property
    def kept(self) -> int:
        """Bytes of storage that stayed after the call."""
        return self.profile.kept

    def by_line(self) -> Tuple[Line, ...]:
        """Bytes that were live at the measured peak, summed by the line of code that made them; the largest line first."""
        if not self._complete or not self.profile.steps:
            return self.report.by_line()
        highest = max(range(len(self.profile.steps)), key=lambda i: self.profile.steps[i].highest)
        return self.report.by_line(self.report.order.index(self.profile.steps[highest].task))

    @cached_property
    def rows(self) -> Tuple[Tuple[Step, int, int], ...]:
        """(measured step, planned height, planned rest), in the order that ran."""
        if not self._complete:
            return tuple((step, step.after, step.resting) for step in self.profile.steps)
        report = self.report
        storage, kept = (report.reserved[0].storage, report.reserved[0].kept) if report.reserved else (report.plan.storage, False)
        heights, resting = occupied(report.graph, [step.task for step in self.profile.steps], storage, kept)
        return tuple(zip(self.profile.steps, heights, resting))

    @property
    def _complete(self) -> bool:
        """Did every task run? A lazy op may leave some out, and then nothing is planned for what was left."""
        return self.report.graph.is_legal([step.task for step in self.profile.steps])

    @cached_property
    def differences(self) -> Tuple[Difference, ...]:
        found: List[Difference] = []
        known_before = 0  # a difference that stays from step to step is told once, where it arises
        for i, (step, height, rest) in enumerate(self.rows):
            height -= self.planned_workspace(step)  # it is given back before the task is done
            more = step.workspace - self.planned_workspace(step)
            if more > NOISE:
                found.append(Difference(i, more, "workspace of the op: held while it runs, and no variable of the graph"))
            arisen = step.after - height - known_before
            early = step.before - (height - self._results(step)) if not i else 0
            if early > NOISE and abs(arisen - early) <= NOISE:
                found.append(Difference(i, early, "there before the first task: views into the arena, and objects of the call"))
            elif abs(arisen) > NOISE:
                found.append(Difference(i, arisen, self._why(step)))
            left = step.resting - rest - (step.after - height)
            if abs(left) > NOISE and not (left < 0 and i == len(self.rows) - 1):  # the end of the call gives everything back
                found.append(
                    Difference(
                        i, left, "freed later than planned, or kept for later" if left > 0 else "freed something that the plan keeps for longer"
                    )
                )
            known_before = step.resting - rest
        return tuple(found)

    def planned_workspace(self, step: Step) -> int:
        """What the plan knows of the workspace of this task."""
        return sum(self.report.graph.buffers[b].size for b in self.report.graph.tasks[step.task].writes if self.report.graph.buffers[b].is_workspace)

    def _results(self, step: Step) -> int:
        return self.report.graph.allocates[step.task] - self.planned_workspace(step)

    def _why(self, step: Step) -> str:
        planned = self._results(step)
        if abs(step.made - planned) <= NOISE < abs(step.allocated - planned):
            if step.allocated < planned:
                return "written into storage that was there already"
            return "the op keeps something besides its results"
        likely = "a copy where a view was declared" if step.made > planned else "a view, or nothing to compute"
        return f"unknown to the plan: its results take {step.made:,} bytes, planned were {planned:,} ({likely}, or another size)"

    @property
    def planned_peak(self) -> int:
        return max((height for _, height, _ in self.rows), default=0)

    @property
    def keeps_as_planned(self) -> bool:
        return abs(self.kept - self.report.kept) <= max(CLOSE * self.report.kept, NOISE)

    @property
    def explained_peak(self) -> int:
        """The planned heights, each with the measured workspace of its op in place of the planned one: what the measured peak should be."""
        return max((height - self.planned_workspace(step) + step.workspace for step, height, _ in self.rows), default=0)


def occupied(graph: Graph, order: Sequence[int], storage: Storage, kept: bool) -> Tuple[List[int], List[int]]:
    """Bytes of storage in use while each step runs, and after it: cells from their first tenant to their last; with `kept`, to the end.

    Without cells each buffer is its own, and this is the timeline. An arena is there as a whole from the first step on.
    """
    block = storage.height if isinstance(storage, Arena) else 0
    spans = lives(graph, order)
    comes, goes = [0] * (len(order) + 2), [0] * (len(order) + 2)
    for tenants in tenants_outside(graph, storage):
        size = max(graph.buffers[b].size for b in tenants)
        stays = (kept and not any(graph.buffers[b].is_workspace for b in tenants)) or any(graph.buffers[b].pinned for b in tenants)
        comes[min(spans[b][0] for b in tenants)] += size
        goes[len(order) + 1 if stays else max(spans[b][1] for b in tenants)] += size
    heights: List[int] = []
    resting: List[int] = []
    for step in range(len(order)):
        heights.append((resting[-1] if resting else block) + comes[step])
        resting.append(heights[-1] - goes[step + 1])
    return heights, resting

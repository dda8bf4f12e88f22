"""A floor over several tasks at once, and orders that come near it: in which order do a few tasks, the milestones, run?

    none done --a--> {a} --b--> {a, b} --c--> all        each arrow: the least height at which that milestone can run there
              --b--> {b} --c--> {b, c} --a--> all        floor: the way from none to all whose highest arrow is lowest

Words
    milestone    one of a few tasks whose order is looked at; the other tasks may run whenever they like
    group        tasks of which the last to run, whichever that is, is a milestone: with the last of its readers a buffer dies
    event        a milestone as a number: of the task, or for a group one that is no task's
    stage        which milestones are done
    step         a milestone runs at a stage; its height is its flow floor (flow.py), the stage being done and the other milestones not
    way          steps from the stage where none is done to the one where all are

Lemma. Every order is at least as high as the lowest way. Proof: it runs the milestones in some order, and so goes some way; when it
takes a step, the done tasks are among the sets over which the flow floor is the least. With one milestone this is the flow floor; the
floors of the last and of the first of a set look at one step of each way, and at no other.
Where a group is not done, one of its tasks is not; where it becomes done, one of its tasks runs and the others are done. Which one is not
known, so the step is as high as the lowest choice. (A task runs before the group that it is the last of, so that each order goes some way.)
That takes a cut for each task of the group, where the stages of all of them would be two to the power of their number: of many lanes that
read one source, and may end with it in any order, the floor sees that either a lane is passed while the source is there, or it waits for all.

Where a way is low, the least sets of its steps tell in which parts an order would have to run the tasks: by submodularity they grow from
step to step, a step's milestone included. So the tasks between two of them are run there, lowest height first. Either that order is as low
as the way, and both are the least there is; or it shows a task that is too high there, and that becomes a milestone as well.

A least set that happens to obey one more demand (this one done, that one not) is the least set for all of them, so about half of the cuts
that a new milestone asks for are known.

>>> from theano_memopt.planner.kernel import kernel_for
>>> from theano_memopt.planner.model import worked_example
>>> milestones = MilestoneSearch(kernel_for(worked_example()))
>>> milestones.tasks = [2, 3]                        # the two sums, each made while its array is there
>>> way = milestones.lowest_way(limit=14, cuts=100)
>>> way.floor, [step.task for step in way.steps], milestones.order_along(way)
(8, [2, 3], (0, 2, 1, 3, 4))
>>> milestones.lowest_way(limit=8, cuts=100)         # below 8 there is none
Way(floor=8, steps=None)
"""

from __future__ import annotations

import heapq
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from theano_memopt.planner.bits import mask_of, members_of
from theano_memopt.planner.heuristics import in_parts
from theano_memopt.planner.kernel import IMPOSSIBLE, Kernel
from theano_memopt.planner.reduce import ancestor_masks, before_any

CANDIDATES = 24
"""Tasks that are looked at for the next milestone: those that run highest in the order along the way."""

TAKEN_OVER = 8
"""Least sets taken over from fewer milestones that count as one cut: they need none, but there may be a great many."""

REMEMBERED = 1 << 27
"""Bytes that known cuts may take; then all are forgotten, which costs time and changes no answer."""


class Step(NamedTuple):
    stage: int
    """Milestones that are done before it, as bits."""
    event: int
    task: int
    """What runs: of a group the lowest choice."""
    least_set: bytes
    """For each task whether it is done before it, where least is live."""


class Way(NamedTuple):
    floor: int
    """No order is lower."""
    steps: Optional[Sequence[Step]]
    """None where no way is below the limit, or the cuts were spent before one was found."""


class MilestoneSearch:
    """They become more as long as that raises the floor; `tasks` are the milestones, in the order in which they were found."""

    def __init__(self, kernel: Kernel) -> None:
        self.tasks: List[int] = []
        self.groups: List[Tuple[int, ...]] = []
        self.cuts = 0
        """Effort so far: cuts, and the steps that needed none in bunches."""
        self._taken_over = 0
        self._kernel = kernel
        self._ancestors = ancestor_masks(kernel.graph)
        self._known: Dict[Tuple[int, int, int], Tuple[int, bytes]] = {}
        self._place: Dict[int, int] = {}

    def lowest_way(self, limit: int, cuts: int, known: int = 0, stop: Callable[[], bool] = lambda: False) -> Way:
        """The lowest way below the limit, within so many cuts; what is below the floor that is `known` does not matter.

        Stages are settled from the lowest up, so an end that comes early leaves a floor. A step is looked at when it is the next one.
        """
        until = self.cuts + cuts
        earlier = {event: self._earlier(event) for event in self._events()}
        everything = mask_of(earlier)
        came: Dict[int, Step] = {}  # stage that is settled -> the last step on the best way to it
        tried: Dict[Tuple[int, int], Step] = {}  # steps that wait at their true height
        waiting: List[Tuple[int, int, int, int, int]] = []  # height, milestones that are not done, place in the last way, stage before, event

        def wait_for_steps(stage: int, height: int) -> None:
            left = len(earlier) - bin(stage).count("1") - 1
            for event in earlier:
                if not stage >> event & 1 and not earlier[event] & ~stage and stage | 1 << event not in came:
                    heapq.heappush(waiting, (height, left, self._place.get(event, 0), stage, event))

        wait_for_steps(0, known)
        if not earlier:
            return Way(known, [])
        while waiting:
            height, left, place, stage, event = heapq.heappop(waiting)
            following = stage | 1 << event
            if following in came:
                continue
            if (stage, event) not in tried:
                if self.cuts >= until or stop():
                    return Way(height, None)
                reached, tried[stage, event] = self._step(event, stage, limit)
                if reached > height:
                    if reached < limit:
                        heapq.heappush(waiting, (reached, left, place, stage, event))
                    continue
            came[following] = tried[stage, event]
            if following == everything:
                steps = _steps_to(everything, came)
                self._place = {step.event: i for i, step in enumerate(steps)}
                return Way(height, steps)
            wait_for_steps(following, height)
        return Way(limit, None)

    def order_along(self, way: Way) -> Tuple[int, ...]:
        """An order of all tasks that goes this way, what lies between two steps lowest height first."""
        assert way.steps is not None
        return in_parts(self._kernel.graph, self._parts(way.steps))

    def add(self, way: Way, heights: Sequence[int]) -> bool:
        """Of the tasks that run higher than this way in the order along it, the one with the greatest floor there becomes a milestone.

        Answers whether there is one: each round has one more, or a higher floor, so an end is reached however few cuts the rounds need.
        """
        assert way.steps is not None
        parts, order = self._parts(way.steps), self.order_along(way)
        everything = mask_of(self._events())
        stages = [*(step.stage for step in way.steps), everything]
        highest = sorted((-height, task) for task, height in zip(order, heights) if height > way.floor and not everything >> task & 1)
        ranked = []
        for height, task in highest[:CANDIDATES]:
            stage = stages[parts[task] // 2]
            ranked.append((-self._beside(task, stage, way.steps[parts[task] // 2 :]), height, task))
        if ranked:
            self.tasks.append(min(ranked)[2])
        return bool(ranked)

    def drop_useless(self, way: Way, cuts: int, known: int = 0, stop: Callable[[], bool] = lambda: False) -> None:
        """Where the floor has risen: drop the milestones without which it is the same. Elsewhere they may be needed together with the next ones."""
        if way.floor <= known:
            return
        until = self.cuts + cuts
        for task in list(self.tasks):
            kept = self.tasks
            self.tasks = [other for other in kept if other != task]
            if self.lowest_way(way.floor, until - self.cuts, way.floor - 1, stop).floor < way.floor:
                self.tasks = kept
        for group in list(self.groups):
            all_groups = self.groups
            self.groups = [other for other in all_groups if other != group]
            if self.lowest_way(way.floor, until - self.cuts, way.floor - 1, stop).floor < way.floor:
                self.groups = all_groups

    def may_be_last(self, tasks: Sequence[int]) -> Tuple[int, ...]:
        """The tasks without those that another one of them waits for."""
        before = self._before_any(mask_of(tasks))
        return tuple(task for task in tasks if not before >> task & 1)

    def _parts(self, steps: Sequence[Step]) -> List[int]:
        """Twice the number of the first step before which a task is done, and for a milestone one more than for its step."""
        parts = [2 * len(steps)] * len(self._kernel.graph.tasks)
        for i in reversed(range(len(steps))):
            for task, done in enumerate(steps[i].least_set):
                if done:
                    parts[task] = 2 * i
        for i, step in enumerate(steps):
            parts[step.task] = min(parts[step.task], 2 * i + 1)  # what runs for a group may be done at an earlier step, where another one is not
        return parts

    def _events(self) -> List[int]:
        return [*self.tasks, *range(len(self._ancestors), len(self._ancestors) + len(self.groups))]

    def _earlier(self, event: int) -> int:
        """The milestones that each way has before this one, as bits."""
        count = len(self._ancestors)
        if event < count:
            before = self._ancestors[event]
            return before & mask_of(self.tasks) | sum(1 << count + i for i, group in enumerate(self.groups) if not mask_of(group) & ~before)
        group = self.groups[event - count]
        return (mask_of(group) | self._before_any(mask_of(group))) & mask_of(self.tasks)

    def _before_any(self, tasks: int) -> int:
        """What must run before one of these tasks, as bits."""
        return before_any(members_of(tasks), self._ancestors)

    def _beside(self, task: int, stage: int, steps: Sequence[Step]) -> int:
        """The floor of a task at a stage, for the one choice of what is not done of each group that the first of these steps has made."""
        done, undone = self._demands(task, stage)
        for i, group in enumerate(self.groups):
            if not stage >> len(self._ancestors) + i & 1:
                undone |= next((1 << other for other in group if not steps[0].least_set[other]), 0)
        return self._before(task, done, undone & ~(1 << task))[0]

    def _demands(self, event: int, stage: int) -> Tuple[int, int]:
        """The tasks that are done at a stage, and those that are not, apart from what the event runs."""
        singles = mask_of(self.tasks)
        done = stage & singles
        for i, group in enumerate(self.groups):
            done |= mask_of(group) if stage >> len(self._ancestors) + i & 1 else 0
        return done, singles & ~stage & ~(1 << event)

    def _step(self, event: int, stage: int, limit: int = IMPOSSIBLE) -> Tuple[int, Step]:
        """The height of a step, and the step. A height that is not below the limit may be higher in truth."""
        count = len(self._ancestors)
        done, undone = self._demands(event, stage)
        if event >= count:
            return self._step_of_group(event, stage, done, undone, limit)
        height, least_set = self._before(event, done, undone, limit)
        for i, group in enumerate(self.groups):
            if height >= limit:
                break
            if stage >> count + i & 1 or not all(least_set[task] for task in group):
                continue  # one of them is not done there anyway
            begun = done | self._ancestors[event] | self._before_any(done)
            choices = [self._before(event, done, undone | 1 << task, limit) for task in group if not begun >> task & 1]
            height, least_set = max((height, least_set), min(choices, default=(IMPOSSIBLE, least_set), key=_height), key=_height)
        return height, Step(stage, event, event, least_set)

    def _step_of_group(self, event: int, stage: int, done: int, undone: int, limit: int) -> Tuple[int, Step]:
        group = self.groups[event - len(self._ancestors)]
        lowest, step = IMPOSSIBLE, Step(stage, event, group[0], bytes(len(self._ancestors)))
        for last in group:
            others = (done | mask_of(group)) & ~(1 << last)
            if not self._before_any(others) >> last & 1:
                height, least_set = self._before(last, others, undone, min(limit, lowest))
                if height < lowest:
                    lowest, step = height, Step(stage, event, last, least_set)
        return lowest, step

    def _before(self, task: int, done: int, undone: int, limit: int = IMPOSSIBLE) -> Tuple[int, bytes]:
        """The height of a step and its least set. A height that is not below the limit may be higher in truth."""
        known = self._known.get((task, done, undone))
        if known is not None:
            return known
        latest = self._latest(done | undone)
        if latest:
            known = self._before(task, done & ~latest, undone & ~latest, limit)
            if known[0] >= limit:
                return known
        if known is None or any(bool(known[1][other]) != bool(done >> other & 1) for other in members_of(latest)):
            self.cuts += 1
            known = self._kernel.least_set(task, members_of(done), members_of(undone))
        else:
            self._taken_over += 1
            self.cuts += self._taken_over % TAKEN_OVER == 0
        if (len(self._known) + 1) * len(known[1]) > REMEMBERED:
            self._known.clear()
        self._known[task, done, undone] = known
        return known

    def _latest(self, demanded: int) -> int:
        """The demand that came last, as bits: what is asked of groups, all at once, then of the tasks, one by one."""
        of_groups = demanded & ~mask_of(self.tasks)
        return of_groups or next((1 << task for task in reversed(self.tasks) if demanded >> task & 1), 0)


def _steps_to(stage: int, came: Dict[int, Step]) -> List[Step]:
    steps: List[Step] = []
    while stage:
        steps.append(came[stage])
        stage = came[stage].stage
    return steps[::-1]


def _height(found: Tuple[int, bytes]) -> int:
    return found[0]

"""The order with the lowest peak, and how it is known that there is none lower.

    orders that compete  ->  floors  ->  shrink the graph  ->  search under a budget, from the floor upwards  ->  answer

1. Every competing order, and the cheap rules (heuristics.py) on the shrunk graph: the best of them is where we start.
2. The greatest floor (floors.py). Where it meets the best order, that is the proof.
3. Else search under budgets between floor and peak (search.py). An order found lowers the peak; a search that fails everywhere
   raises the floor. At first it is on the plainly reduced graph, since the checker needs to be told no merges for that; what goes on for
   longer is on the fully reduced one. Slices of effort grow fourfold; each slice is spent on
       the floor    under it the search is sharpest, and most training graphs end here
       rules        once: the cheap ones on the whole graph, so that the answer is never worse than any of them; and with all lanes
                    in one order (lined_up.py)
       dives        greedy searches without cuts, under falling budgets: thousands of tasks in a blink
       moves        tasks and groups of tasks to another place, many thousand times, from several beginnings (descent.py)
       pieces       the steps around the peak in a better order of their own (improve.py)
       milestones   the order of a few tasks alone: a floor over all of them at once, and orders that come near it (milestones.py);
                    and once more, with the deaths of large buffers that many tasks read
       halving      budgets between floor and peak

Effort is counted in states and in moves, MOVES of them to a state, so the same graph gets the same plan on every machine; a
limit in seconds, if one is given, only ends the work early, with the answer `Open`.

>>> from theano_memopt.planner.model import worked_example
>>> schedule = minimise_peak(worked_example())
>>> schedule.peak, schedule.floor, schedule.proven, schedule.baseline_peak
(8, 8, True, 13)
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from theano_memopt.options import PlanOptions
from theano_memopt.planner.certificate import Exhausted, Merged, Milestones, Open, Proof, Proven, Schedule
from theano_memopt.planner.descent import Descent, Descents
from theano_memopt.planner.floors import best_footprint, best_of_sets, witness
from theano_memopt.planner.heuristics import RULES
from theano_memopt.planner.improve import Piece, WalkedOrder
from theano_memopt.planner.kernel import Kernel, Search, kernel_for
from theano_memopt.planner.lined_up import line_up
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.merges import Merge
from theano_memopt.planner.milestones import CANDIDATES, MilestoneSearch
from theano_memopt.planner.model import Graph
from theano_memopt.planner.reduce import Reduced, reduce_graph, unreduced
from theano_memopt.planner.search import EXHAUSTED, FARTHEST, FOUND, LEAST_LIVE, RUNNING

CRITICAL = 8
"""Tasks whose least live memory the search watches. More of them prune more states and make each state dearer."""
FIRST_SLICE = 500
"""States of the first search at each budget; real training graphs end well below it."""
FIRST_GLANCE = 25
"""States at each budget after a first search that ended: most small graphs are settled by so few, before the cheap rules have begun."""
WIDTHS = (24, 96, 384)
"""Steps in the pieces that are ordered anew around the peak."""
SET_CANDIDATES = 24
"""Tasks in the sets of which one runs last, or first. A set of k costs about k * k / 2 minimum cuts."""
CUTS_AT_MOST = 600_000
"""Minimum cuts times tasks that the floors may cost at the beginning: all tasks of graphs of up to 775, 92 of 6,500."""
CUTS_PER_EFFORT = 60
"""The same for each state of effort, so that little effort means little time on large graphs too."""

MEMBERS = 64
"""Tasks in a group at most: a step asks for a cut for each of them."""
GROUPS = 3
"""Groups at most; each doubles the stages."""
TASKS_OF_A_STATE = 50
"""A minimum cut for milestones counts as one state for each so many tasks: it takes about as long."""
SHARE_OF_MILESTONES = 2
"""Each round spends so many times its slice on them."""
PART_FOR_MILESTONES = 2
"""But at most this part of what is left, or nothing would be left for moves."""
SHARE_OF_DEATHS = 1
"""The same for those with groups, from the second round on."""

MOVES = 8
"""Moves that count as one state: they take about as long."""
SHARE_OF_MOVES = 2
"""Each round spends so many times its slice on moves."""
MOVES_OF_A_TASK = 8
"""In each round the best descent gets so many for every task, or a share in a round of a large graph moves only a few of its tasks."""
PART_FOR_THE_BEST = 64
"""But no more moves than the effort divided by this: while compiling, that is next to nothing."""
AIM = 4_000
"""Moves before a descent aims anew."""

BY_PIECES = ", improved by pieces"

NamedOrder = Tuple[str, Sequence[int]]


def minimise_peak(graph: Graph, options: Optional[PlanOptions] = None, competing_orders: Sequence[NamedOrder] = ()) -> Schedule:
    """The best order that can be found within the effort, with a certificate. Never worse than any competing order."""
    options = options or PlanOptions()
    for name, order in competing_orders:
        if not graph.is_legal(order):
            raise ValueError(f"the competing order {name!r} is not a legal order of this graph")
    work = _Minimiser(graph, options)
    work.compete([("given order", graph.natural_order), *competing_orders])
    baseline = work.peak
    if work.floor < work.peak:
        work.compete_shrunk_rules()
    if work.floor < work.peak:
        work.raise_floor_by_flow()
    for slice_ in _slices(options.effort):
        if work.floor >= work.peak:
            break
        work.remember()
        outcome = work.search(work.floor, slice_)
        if slice_ <= FIRST_SLICE:
            if outcome == EXHAUSTED:
                work.halve(FIRST_GLANCE)
            work.compete_rules()
            work.compete_lined_up()
            work.remember()
        if slice_ == FIRST_SLICE:
            work.raise_floor_by_sets()
        work.pass_milestones(work.milestones, SHARE_OF_MILESTONES * slice_)
        if slice_ == FIRST_SLICE:
            work.merge_fully()
        if slice_ > FIRST_SLICE:
            work.add_group()
            work.pass_milestones(work.deaths, SHARE_OF_DEATHS * slice_)
        if outcome == EXHAUSTED:
            work.halve(slice_)  # where one search comes to an end the next ones are likely to
        work.move(slice_)
        work.dive(slice_)
        work.remember()
        work.improve_by_pieces(slice_)
        work.halve(slice_)
        if work.settled:
            break
    return work.answer(baseline)


def _slices(effort: int) -> Iterator[int]:
    slice_ = FIRST_SLICE
    while slice_ < effort:
        yield slice_
        slice_ *= 4
    yield min(slice_, max(effort, 1))


class _Minimiser:
    """The best order and the greatest floor so far, and the effort spent on them."""

    def __init__(self, graph: Graph, options: PlanOptions) -> None:
        self.graph = graph
        self.options = options
        self.deadline = None if options.seconds is None else time.monotonic() + options.seconds
        self.states = 0
        self.order: Tuple[int, ...] = ()
        self.peak = -1
        self.method = ""
        self.competing: List[Tuple[str, int]] = []
        self.floor: int
        self.proof: Proof
        self.floor, self.proof = best_footprint(graph)
        self.shown_by: Tuple[Sequence[int], str] = ((), "")  # tasks that show the floor, and which of them runs last or first
        self.walked: Dict[str, WalkedOrder] = {}  # orders that are being improved by pieces
        self.beginnings: List[Tuple[int, ...]] = []  # orders that no descent has begun with yet
        self.ranking: List[int] = []  # tasks of the reduced graph, highest flow floor first
        self.merges: Tuple[Merge, ...] = ()  # what led to the reduced graph, if the checker has to be told

    @cached_property
    def reduced(self) -> Reduced:
        return reduce_graph(self.graph, fully=False, stop=self._out_of_time) if self.options.prunings.merge else unreduced(self.graph)

    @cached_property
    def kernel(self) -> Kernel:
        return kernel_for(self.reduced.graph)

    @cached_property
    def smallest(self) -> Reduced:
        """The fully reduced graph: good for orders, and for proofs where those of the plainly reduced one, which list no merges, do not do."""
        return reduce_graph(self.graph, stop=self._out_of_time) if self.options.prunings.merge and self.options.prunings.tree else self.reduced

    @cached_property
    def diver(self) -> Kernel:
        return kernel_for(self.smallest.graph)

    @cached_property
    def descents(self) -> Descents:
        return Descents(self.smallest.graph)

    @cached_property
    def milestones(self) -> MilestoneSearch:
        """On the whole graph, so that the checker of certificates can follow."""
        return MilestoneSearch(kernel_for(self.graph))

    @cached_property
    def deaths(self) -> MilestoneSearch:
        """The same with groups: the tasks one of which is the last to read a buffer."""
        return MilestoneSearch(kernel_for(self.graph))

    @cached_property
    def lowest(self) -> List[int]:
        """For each task of the smaller graph the lowest height at which an order ran it."""
        return [1 << 200] * len(self.reduced.graph.tasks)

    @property
    def settled(self) -> bool:
        return self.floor >= self.peak or self.states >= self.options.effort or self._out_of_time()

    # ---------------------------------------------------------------------------------------------- orders that compete

    def compete(self, orders: Sequence[NamedOrder]) -> None:
        for name, order in orders:
            peak = timeline(self.graph, order).peak
            self._offer(name, order, peak)
            self.competing.append((name, peak))

    def compete_rules(self) -> None:
        """The cheap rules, until one of them reaches the floor."""
        for name, rule in RULES.items():
            if self.floor < self.peak:
                self.compete([(name, rule(self.graph))])

    def compete_shrunk_rules(self) -> None:
        """The same on the smaller graph, which costs less, and tells how low each of its tasks can run."""
        for name, rule in RULES.items():
            if self.floor < self.peak:
                order = rule(self.reduced.graph)
                for task, height in zip(order, timeline(self.reduced.graph, order).heights):
                    self.lowest[task] = min(self.lowest[task], height)
                self.compete([(f"{name}, shrunk", self.reduced.lift(order))])
                self.beginnings.append(self.reduced.lift(order))

    def compete_lined_up(self) -> None:
        """The same with all lanes in one order: where that leaves few tasks, no rule can go far astray."""
        if self.smallest is self.reduced or self.floor >= self.peak:
            return
        lined_up = line_up(self.smallest.graph, self._out_of_time)
        if len(lined_up.graph.tasks) < len(self.smallest.graph.tasks):
            for name, rule in RULES.items():
                self.compete([(f"{name}, lined up", self.smallest.lift(lined_up.lift(rule(lined_up.graph))))])

    def remember(self) -> None:
        """The best order so far is worth improving by pieces, even after a better one was found."""
        if not self.method.endswith(BY_PIECES) and (self.method not in self.walked or self.peak < self.walked[self.method].peak):
            self.walked[self.method] = WalkedOrder(self.graph, self.order)

    def _offer(self, method: str, order: Sequence[int], peak: int) -> None:
        if self.peak < 0 or peak < self.peak:
            self.order, self.peak, self.method = tuple(order), peak, method

    # ------------------------------------------------------------------------------------------------------------ floors

    def raise_floor_by_flow(self) -> None:
        """Only a task whose lowest known height is above the floor can raise it; the most promising come first."""
        if not self.options.prunings.flow_floor:
            return
        count = len(self.reduced.graph.tasks)
        at_most = min(CUTS_AT_MOST, CUTS_PER_EFFORT * self.options.effort)
        floors: Dict[int, int] = {}
        for task in sorted(range(count), key=lambda t: (-self.lowest[t], t)):
            if self._out_of_time() or len(floors) * count > at_most or len(floors) >= CRITICAL and self.lowest[task] <= self.floor:
                break
            floors[task] = self.kernel.flow_floor(task)
            self._raise_floor(floors[task], Exhausted(floors[task] - 1, self._heads([task]), 0))
            if len(floors) % 64 == 0:
                self._say(f"floor {self.floor:,} after {len(floors)} minimum cuts")
        self.ranking = sorted(floors, key=lambda t: (-floors[t], t))
        self.shown_by = (self._heads(self.ranking[:1]), "last")

    def raise_floor_by_sets(self) -> None:
        if not self.options.prunings.set_floor or self.settled or len(self.reduced.graph.tasks) ** 2 > CUTS_AT_MOST:
            return
        small = self.reduced.graph
        walked = WalkedOrder(self.graph, self.order)
        done = {t for t, head in enumerate(self.reduced.heads) if head in set(self.order[: walked.highest_step()])}
        last_done = [t for t in sorted(done) if all(s not in done for s in small.successors[t])]
        first_undone = [t for t in range(len(small.tasks)) if t not in done and all(p in done for p in small.predecessors[t])]
        for candidates, which in ((self.ranking, "last"), (self.ranking, "first"), (last_done, "last"), (first_undone, "first")):
            floor, tasks = best_of_sets(self.kernel, candidates[:SET_CANDIDATES], which, self._out_of_time)
            if floor > self.floor:
                self._raise_floor(floor, Exhausted(floor - 1, self._heads(tasks), 0))
                self.shown_by = (self._heads(tasks), which)

    def _prefer_chains(self) -> None:
        """Chains are the better proof, where the full graph has them too: they are checked without a search."""
        tasks, which = self.shown_by
        if tasks and isinstance(self.proof, Exhausted) and self.proof.states == 0:
            shown, chains = witness(self.graph, tasks, which)
            if shown >= self.floor:
                self.proof = chains

    def _heads(self, tasks: Sequence[int]) -> Tuple[int, ...]:
        """Tasks of the reduced graph by their numbers in the whole one."""
        return tuple(self.reduced.heads[t] for t in tasks)

    def _raise_floor(self, floor: int, proof: Proof) -> None:
        if floor > self.peak:
            raise AssertionError(f"a floor of {floor} above the peak {self.peak} of a legal order: a bound or the search is wrong")
        if floor > self.floor:
            self.floor, self.proof = floor, proof

    # ------------------------------------------------------------------------------------------------------------ search

    def merge_fully(self) -> None:
        """From now on the searches are on the fully reduced graph, which has fewer sets of tasks; their proofs list the merges that lead there."""
        if self.settled or self.smallest.merges == self.reduced.merges:
            return
        whole = {part: task for task, parts in enumerate(self.smallest.parts) for part in parts}
        self.ranking = list(dict.fromkeys(whole[head] for head in self._heads(self.ranking)))
        self.reduced, self.kernel, self.merges = self.smallest, self.diver, self.smallest.merges

    def search(self, budget: int, slice_: int) -> str:
        """Look for an order under the budget, with everything that prunes. Lowers the peak or raises the floor if it can."""
        if self.settled:
            return RUNNING
        search = self.kernel.search(budget, self.ranking[:CRITICAL], self.options.prunings)
        outcome = self._run(search, slice_, (LEAST_LIVE, FARTHEST))
        if outcome == FOUND:
            self._found("search", self.reduced.lift(search.trail))
        elif outcome == EXHAUSTED:
            floor = min(search.next_budget, self.peak)
            proof = Exhausted(floor - 1, self._heads(self.ranking[:CRITICAL]), search.states)
            self._raise_floor(floor, Merged(self.merges, proof) if self.merges else proof)
        self._say(f"peak {self.peak:,}, floor {self.floor:,}, {self.states:,} states: under {budget:,} bytes {outcome}")
        return outcome

    def halve(self, slice_: int) -> None:
        """Budgets between floor and peak: halve what is between until a search ends neither way, then come from above."""
        low = self.floor
        while not self.settled and low < self.peak:
            budget = (low + self.peak - 1) // 2
            outcome = self.search(budget, slice_)
            low = self.floor if outcome == EXHAUSTED else budget + 1 if outcome == RUNNING else low
            if self.peak - low <= self.peak // 1000:
                break
        self.search(self.peak - 1, slice_)

    def dive(self, slice_: int) -> None:
        """Greedy searches: without cuts a state costs little, and under a loose budget few steps are ever taken back."""
        states = 2 * len(self.smallest.graph.tasks) + slice_ // 4
        for rule in (LEAST_LIVE, FARTHEST, slice_, slice_ + 1):
            low = self.floor
            while not self.settled and self.peak - low > self.peak // 200:
                budget = (low + self.peak - 1) // 2
                search = self.diver.search(budget, (), self.options.prunings)
                if self._run(search, states, (rule,)) == FOUND:
                    self._found("dive", self.smallest.lift(search.trail))
                else:
                    low = budget + 1
            self._say(f"peak {self.peak:,}, floor {self.floor:,}, {self.states:,} states: dived")

    def _found(self, method: str, order: Sequence[int]) -> None:
        self._offer(method, order, timeline(self.graph, order).peak)

    def _run(self, search: Search, slice_: int, rules: Sequence[int]) -> str:
        """An equal share of the slice for each rule: where one goes astray another often does not."""
        slice_ = min(slice_, max(1, self.options.effort - self.states))
        outcome = RUNNING
        for i, rule in enumerate(rules):
            until = slice_ * (i + 1) // len(rules)
            step = until if self.deadline is None else 100
            while outcome == RUNNING and search.states < until and not self._out_of_time():
                outcome = search.run(min(until, search.states + step), rule)
            if outcome == RUNNING:
                search.restart()
        self.states += search.states
        return outcome

    # ------------------------------------------------------------------------------------------------------------- moves

    def move(self, slice_: int) -> None:
        """A round of all descents. The best order so far, whatever found it, is one of the beginnings."""
        if self.settled:
            return
        for order in self.beginnings:
            self.descents.begin(self.smallest.lower(order))
        self.beginnings.clear()
        if self.peak < self.descents.least:
            self.descents.begin(self.smallest.lower(self.order))
        if slice_ > FIRST_SLICE:
            self.descents.begin_by_chance()
        share = slice_ * MOVES * SHARE_OF_MOVES // len(self.descents.going)
        for descent in self.descents.going:
            self._descend(descent, share)
            self._say(f"peak {self.peak:,}, floor {self.floor:,}, {self.states:,} states: moved, to {descent.peak:,}")
        best = min(self.descents.going, key=lambda descent: descent.peak)
        self._descend(best, min(MOVES_OF_A_TASK * len(self.smallest.graph.tasks), self.options.effort // PART_FOR_THE_BEST) - share)

    def _descend(self, descent: Descent, moves: int) -> None:
        tried = 0
        while tried < moves and not self.settled:
            most = min(AIM, moves - tried, max(1, self.options.effort - self.states) * MOVES)
            now = descent.go(most, self.floor)
            tried += now
            self.states += -(-now // MOVES)
            if descent.peak < self.peak:
                self._found("moves", self.smallest.lift(descent.order))

    # ------------------------------------------------------------------------------------------------------------ pieces

    def improve_by_pieces(self, slice_: int) -> None:
        """Order the steps around the peak anew, in wider and wider pieces, as long as that lowers the peak.

        Every way of starting gets stuck somewhere, and seldom the same place is the lowest: so several orders are improved.
        """
        if self.peak - self.floor <= self.peak // 1000:
            return  # what is left to gain is for the searches, which can also prove that it is not there
        for method, walked in self.walked.items():
            while not self.settled and self._improve_somewhere(walked, slice_ // 4):
                self._say(f"peak {self.peak:,}, floor {self.floor:,}, {self.states:,} states: improving {method!r} by pieces, at {walked.peak:,}")
            self._offer(method + BY_PIECES, walked.order, walked.peak)

    def _improve_somewhere(self, walked: WalkedOrder, slice_: int) -> bool:
        middle = walked.highest_step()
        for width in WIDTHS:
            for share in (2, 4, 3):  # the peak in the middle of the piece, or nearer to its beginning
                start = max(0, middle - width // share)
                if width < 2 * len(walked.order) and self._improve_piece(walked, start, min(len(walked.order), start + width), slice_):
                    return True
        return False

    def _improve_piece(self, walked: WalkedOrder, start: int, stop: int, slice_: int) -> bool:
        peak = walked.peak
        piece = walked.cut_out(start, stop)
        reduced = reduce_graph(piece.graph)
        kernel = kernel_for(reduced.graph)
        for pressing in (False, True):  # most pieces give way without cuts, which cost more than the rest
            critical = _most_pressing(reduced, kernel, piece, walked) if pressing else []
            least = max([self.floor] + [kernel.flow_floor(t) + piece.constant for t in critical[:1]])
            for budget in sorted({max(least, peak * 7 // 8), max(least, peak * 63 // 64), peak - 1}):
                if self.settled or least >= peak:
                    return False
                search = kernel.search(budget - piece.constant, critical, self.options.prunings)
                if self._run(search, slice_, (LEAST_LIVE, FARTHEST) if pressing else (LEAST_LIVE,)) == FOUND:
                    walked.put_back(piece, reduced.lift(search.trail))
                    return True
        return False

    # -------------------------------------------------------------------------------------------------------- milestones

    def add_group(self) -> None:
        """The largest buffer that is live at the peak and may die in several ways: the last of its readers is a milestone from now on."""
        if self.settled or len(self.deaths.groups) >= GROUPS:
            return
        step = WalkedOrder(self.graph, self.order).highest_step()
        for buffer, (born, dead) in sorted(zip(self.graph.buffers, lives(self.graph, self.order)), key=lambda pair: -pair[0].size):
            if born <= step < dead and not buffer.pinned and len(buffer.readers) > 1:
                group = self.deaths.may_be_last(buffer.readers)
                if 1 < len(group) <= MEMBERS and group not in self.deaths.groups:
                    self.deaths.groups.append(group)
                    return

    def pass_milestones(self, search: MilestoneSearch, effort: int) -> None:
        """Milestones are added where the order along the lowest way is too high, as long as ways can be found within the effort."""
        weight = 1 + len(self.graph.tasks) // TASKS_OF_A_STATE
        cuts = min(effort, max(0, self.options.effort - self.states) // PART_FOR_MILESTONES) // weight
        if not self.options.prunings.milestones or cuts < CANDIDATES:
            return  # the first of them would take all cuts
        until = search.cuts + cuts
        order: Sequence[int] = ()
        going = True
        while going and not self.settled and search.cuts < until:
            before = search.cuts
            way = search.lowest_way(self.peak, until - search.cuts, self.floor, self._out_of_time)
            search.drop_useless(way, until - search.cuts, self.floor, self._out_of_time)
            self._raise_floor(way.floor, Milestones(tuple(search.tasks), tuple(search.groups)))
            going = way.steps is not None
            if going:
                order = search.order_along(way)
                walked = timeline(self.graph, order)
                self._offer("milestones", order, walked.peak)
                going = search.add(way, walked.heights)
            self.states += (search.cuts - before) * weight
            self._say(f"peak {self.peak:,}, floor {self.floor:,}, {self.states:,} states: {len(search.tasks)} milestones")
        if order:
            self.beginnings.append(tuple(order))

    # ------------------------------------------------------------------------------------------------------------ answer

    def answer(self, baseline: int) -> Schedule:
        self._prefer_chains()
        certificate = Proven(self.floor, self.proof) if self.floor == self.peak else Open(self.floor, self.proof, self._why_open())
        return Schedule(self.order, timeline(self.graph, self.order), certificate, baseline, self.method, self.states, tuple(self.competing))

    def _why_open(self) -> str:
        if self._out_of_time():
            return f"the time limit of {self.options.seconds:g} s ended the search"
        return f"the effort of {self.options.effort:,} states was spent"

    def _out_of_time(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _say(self, sentence: str) -> None:
        if self.options.progress is not None:
            self.options.progress(sentence)


def _most_pressing(reduced: Reduced, kernel: Kernel, piece: Piece, walked: WalkedOrder) -> List[int]:
    """Of the tasks that run highest now, the ones with the greatest flow floors."""
    height = {i + 1: walked.heights[piece.start + i] for i in range(len(piece.tasks))}
    highest = sorted(range(len(reduced.heads)), key=lambda t: (-height.get(reduced.heads[t], 0), t))[:CRITICAL]
    floors = {t: kernel.flow_floor(t) for t in highest}
    return sorted(highest, key=lambda t: (-floors[t], t))

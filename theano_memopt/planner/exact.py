"""The order with the lowest peak, and how it is known that there is none lower.

    orders that compete  ->  floors  ->  shrink the graph  ->  search under a budget, from the floor upwards  ->  answer

1. Every competing order, every cheap rule (heuristics.py): the best of them is where we start, so the answer is never worse.
2. The greatest floor (floors.py). Where it meets the best order, that is the proof.
3. Else search under budgets between floor and peak (search.py). An order found lowers the peak; a search that fails everywhere
   raises the floor. On the way the order is also improved by pieces (windows.py). Slices of effort grow fourfold.

Effort is counted in states, so the same graph gets the same plan on every machine; a limit in seconds, if one is given,
only ends the work early, with the answer `Open`.

>>> from theano_memopt.planner.model import worked_example
>>> schedule = minimise_peak(worked_example())
>>> schedule.peak, schedule.floor, schedule.proven, schedule.baseline_peak
(8, 8, True, 13)
"""

from __future__ import annotations

import time
from typing import Iterator, List, Optional, Sequence, Tuple

from theano_memopt.options import PlanOptions
from theano_memopt.planner.certificate import Chains, Exhausted, Footprint, Open, Proof, Proven, Schedule
from theano_memopt.planner.floors import best_footprint, best_last_of_a_set, flow_floors, lowest_heights, witness
from theano_memopt.planner.heuristics import RULES
from theano_memopt.planner.kernel import Kernel, Search, kernel_for
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph
from theano_memopt.planner.reduce import Reduced, reduce_graph
from theano_memopt.planner.search import EXHAUSTED, FARTHEST, FOUND, LEAST_LIVE, RUNNING
from theano_memopt.planner.windows import cut_out

CRITICAL = 8
"""Tasks whose least live memory the search watches. More of them prune more states and make each state dearer."""
FIRST_SLICE = 500
"""States of the first search at each budget; real training graphs end well below it."""
WIDTHS = (12, 24, 48, 96, 192, 384)
"""Steps in the pieces that are ordered anew around the peak."""
LARGEST_SET = 12
SET_CANDIDATES = 16

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
        work.compete_lifted([(name, rule(work.reduced.graph)) for name, rule in RULES.items()])
        work.raise_floor_by_flow()
    for slice_ in _slices(options.effort):
        if work.settled:
            break
        work.search_between(slice_)
        if not work.settled:
            work.improve_by_pieces(slice_)
        if slice_ == FIRST_SLICE and not work.settled:
            work.raise_floor_by_sets()
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
        self.lifted: List[Tuple[int, ...]] = []
        self.floor, self.proof = _as_proof(best_footprint(graph)) if graph.tasks else (0, Chains((), ()))
        self.reduced: Reduced = reduce_graph(graph)
        self.kernel: Kernel = kernel_for(self.reduced.graph)
        self.ranking: List[int] = []  # tasks of the reduced graph, highest flow floor first

    # ---------------------------------------------------------------------------------------------- orders that compete

    def compete(self, orders: Sequence[NamedOrder]) -> None:
        for name, order in orders:
            self._offer(name, tuple(order))
            self.competing.append((name, timeline(self.graph, order).peak))

    def compete_lifted(self, orders: Sequence[NamedOrder]) -> None:
        """Orders of the smaller graph."""
        self.lifted.extend(tuple(order) for _, order in orders)
        self.compete([(name, self.reduced.lift(order)) for name, order in orders])

    def _offer(self, method: str, order: Tuple[int, ...]) -> bool:
        peak = timeline(self.graph, order).peak
        if self.peak >= 0 and peak >= self.peak:
            return False
        self.order, self.peak, self.method = order, peak, method
        return True

    # ------------------------------------------------------------------------------------------------------------ floors

    def raise_floor_by_flow(self) -> None:
        """Only tasks whose lowest known height is above the floor can raise it; the most promising come first."""
        small = self.reduced.graph
        lowest = lowest_heights(small, [*self.lifted, small.natural_order])
        tasks = sorted(range(len(small.tasks)), key=lambda t: (-lowest[t], t))
        floors = {}
        for task in tasks:
            if self._out_of_time() or (len(floors) >= CRITICAL and lowest[task] <= self.floor) or len(floors) > self.options.effort:
                break
            floors.update(flow_floors(self.kernel, [task], 1))
            if floors[task] > self.floor:
                self._raise_floor(floors[task], Exhausted(floors[task] - 1, (self.reduced.heads[task],), 0))
            if len(floors) % 200 == 0:
                self._say(f"floors of {len(floors)} of {len(tasks)} tasks")
        self.ranking = sorted(floors, key=lambda t: (-floors[t], t))
        if self.ranking:
            self._prefer_chains((self.reduced.heads[self.ranking[0]],))

    def raise_floor_by_sets(self) -> None:
        candidates = self.ranking[:SET_CANDIDATES]
        if len(self.reduced.graph.tasks) > 2000 or not candidates:
            return  # too dear: each step of growing costs one minimum cut per pair
        floor, tasks = best_last_of_a_set(self.kernel, candidates, LARGEST_SET, self._out_of_time)
        if floor > self.floor:
            heads = tuple(self.reduced.heads[t] for t in tasks)
            self._raise_floor(floor, Exhausted(floor - 1, heads, 0))
            self._prefer_chains(heads)

    def _prefer_chains(self, tasks: Tuple[int, ...]) -> None:
        """Chains are the better proof, where the full graph has them too: they are checked without a search."""
        if not isinstance(self.proof, Exhausted):
            return
        chains = witness(self.graph, tasks)
        shown = min(
            (self.graph.allocates[t] + sum(amount for amount, _ in family) for t, family in zip(tasks, chains.chains) if family or len(tasks) == 1),
            default=0,
        )
        if shown >= self.floor:
            self.proof = chains

    def _raise_floor(self, floor: int, proof: Proof) -> None:
        assert floor <= self.peak, "a floor above the peak of a legal order: a bound or the search is wrong"
        if floor > self.floor:
            self.floor, self.proof = floor, proof

    # ------------------------------------------------------------------------------------------------------------ search

    @property
    def settled(self) -> bool:
        return self.floor >= self.peak or self.states >= self.options.effort or self._out_of_time()

    def search_between(self, slice_: int) -> None:
        """From the floor: budgets that fail everywhere raise it, budgets that succeed lower the peak; halve what is between."""
        low, high = self.floor, self.peak - 1
        budget = low
        while not self.settled and low <= high:
            outcome = self._search(budget, slice_)
            if outcome == FOUND:
                high = self.peak - 1
            low = max(self.floor, budget + 1 if outcome == RUNNING else low)
            if high - low < self.peak // 1000:
                budget = high
                if low == high + 1 or outcome == RUNNING and budget < high:
                    break
            else:
                budget = (low + high) // 2
            self._say(f"peak {self.peak:,}, floor {self.floor:,}, searching under {budget:,} bytes, {self.states:,} states")

    def _search(self, budget: int, slice_: int) -> str:
        search = self.kernel.search(budget, self.ranking[:CRITICAL])
        outcome = self._run(search, slice_)
        if outcome == FOUND:
            self._offer("search", self.reduced.lift(search.trail))
        elif outcome == EXHAUSTED:
            critical = tuple(self.reduced.heads[t] for t in self.ranking[:CRITICAL])
            self._raise_floor(min(search.next_budget, self.peak), Exhausted(min(search.next_budget, self.peak) - 1, critical, search.states))
        return outcome

    def _run(self, search: Search, slice_: int) -> str:
        """Half of the slice with one rule, half with another: where one goes astray the other often does not."""
        slice_ = min(slice_, max(1, self.options.effort - self.states))
        begun = search.states
        outcome = RUNNING
        for rule, until in ((LEAST_LIVE, slice_ // 2), (FARTHEST, slice_)):
            step = until if self.deadline is None else 64
            while outcome == RUNNING and search.states < until and not self._out_of_time():
                outcome = search.run(min(until, search.states + step), rule)
            if outcome == RUNNING:
                search.restart()
        self.states += search.states - begun
        return outcome

    # ------------------------------------------------------------------------------------------------------------ pieces

    def improve_by_pieces(self, slice_: int) -> None:
        """Order the steps around the peak anew, in wider and wider pieces, as long as that lowers the peak."""
        improving = True
        while improving and not self.settled:
            improving = any(self._improve_piece(width, slice_ // 4) for width in WIDTHS if not self.settled)
            self._say(f"peak {self.peak:,}, floor {self.floor:,}, improving by pieces, {self.states:,} states")

    def _improve_piece(self, width: int, slice_: int) -> bool:
        steps = timeline(self.graph, self.order)
        start = max(0, steps.peak_step - width // 2)
        stop = min(len(self.order), start + width)
        if width // 2 > len(self.order):
            return False
        outside = max((*steps.heights[:start], *steps.heights[stop:]), default=0)
        piece = cut_out(self.graph, self.order, start, stop)
        reduced = reduce_graph(piece.graph)
        kernel = kernel_for(reduced.graph)
        floors = flow_floors(kernel, range(len(reduced.graph.tasks)), len(reduced.graph.tasks), self._out_of_time)
        ranking = sorted(floors, key=lambda t: (-floors[t], t))
        lowest = max(max(floors.values(), default=0) + piece.constant, outside, self.floor)
        for budget in sorted({lowest, (lowest + self.peak - 1) // 2, self.peak - 1}):
            if not lowest <= budget < self.peak or self.settled:
                continue
            search = kernel.search(budget - piece.constant, ranking[:CRITICAL])
            if self._run(search, slice_) == FOUND:
                return self._offer("search, improved by pieces", piece.put_back(self.order, reduced.lift(search.trail)))
        return False

    # ------------------------------------------------------------------------------------------------------------ answer

    def answer(self, baseline: int) -> Schedule:
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


def _as_proof(found: Tuple[int, Footprint]) -> Tuple[int, Proof]:
    return found

"""Is there an order with a peak of at most B bytes? A search over down-sets that finds one, or proves that there is none.

Live bytes depend on the set of tasks done (liveness.py), so a state is such a set. The search goes depth first, remembers
every set from which it has failed, and stays small through four rules. Each has a switch (`Prunings`). S is the set of tasks done.

    settle     a ready task that fits and frees at least what it allocates is run at once
    commit     if a step, followed by tasks that it alone made ready and that are free in the sense of `settle`, comes back
               to live(S) or lower, the other ready tasks need not be tried
    cut        if the least live memory before some critical task, S being done (flow.py), is too much for B, S has failed
    memory     a set that has failed once has failed

Proof of `settle` and `commit`. Both go from S to a larger set T with live(T) <= live(A) for every down-set A between S and
T: for `settle` nothing lies between; for `commit` every A but S contains the step, and running the rest of T from A adds
no bytes because by submodularity a free task stays free when more is done. Now let S = X0, X1, ... be any way to the end
under B. Then live(Xi|T) <= live(Xi) + live(T) - live(Xi&T) <= live(Xi), so T, X1|T, X2|T, ... is a way under B as well.

When everything has failed, every step that was too high has shown a height above B. The least of these, `next_budget`, is
a floor for every order: under any smaller budget the search would have gone the same way.

_search.cpp is this file again, compiled: same order of trying, same count of states, same answer. kernel.py chooses.

>>> from theano_memopt.planner.model import worked_example
>>> search = BudgetSearch(worked_example(), budget=8, critical=())
>>> search.run(until=100), search.trail
('found', [0, 2, 1, 3, 4])
>>> search = BudgetSearch(worked_example(), budget=7, critical=())
>>> search.run(until=100), search.next_budget
('exhausted', 8)
"""

from __future__ import annotations

from typing import List, NamedTuple, Sequence, Set, Tuple

from theano_memopt.options import ALL_PRUNINGS, Prunings
from theano_memopt.planner.flow import INFINITE, Cut, CutMark, Network
from theano_memopt.planner.model import Graph

RUNNING, FOUND, EXHAUSTED = "running", "found", "exhausted"

LEAST_LIVE, FARTHEST = 0, 1
"""Rules for which child to try first; any larger number is the seed of chance: a step's growth counts for up to twice what it is."""

_WORD = (1 << 64) - 1


class _Frame(NamedTuple):
    mark: int
    cut_marks: List[CutMark]
    key: int
    children: List[int]  # the next one to try is at the end


class BudgetSearch:
    def __init__(self, graph: Graph, budget: int, critical: Sequence[int], prunings: Prunings = ALL_PRUNINGS) -> None:
        self.states = 0
        self.next_budget = INFINITE
        self.trail: List[int] = []
        self._budget = budget
        self._prunings = prunings
        self._behind = graph.successors
        self._allocates = graph.allocates
        self._sizes = [buffer.size for buffer in graph.buffers]
        self._reads, self._transient = what_is_freed(graph)
        self._unread = [len(buffer.readers) for buffer in graph.buffers]
        self._missing = [len(needs) for needs in graph.predecessors]
        self._ready: Set[int] = {t for t, count in enumerate(self._missing) if count == 0}
        self._done = 0
        self._live = 0
        self._failed: Set[int] = set()
        self._stack: List[_Frame] = []
        self._status = RUNNING
        critical = critical if prunings.cut else ()
        network = Network(graph) if critical else None
        self._cuts = [Cut(network, task) for task in critical] if network else []
        self._root_marks = [cut.mark() for cut in self._cuts]

    def run(self, until: int, rule: int = LEAST_LIVE) -> str:
        """Go on until `until` states have been opened in all. Once found, the order is `trail`."""
        if self._status == RUNNING and not self._stack:
            self._status = self._enter(0, rule)
        while self._status == RUNNING and self.states < until:
            self._status = self._advance(rule)
        return self._status

    def restart(self) -> None:
        """Begin again at the empty set, for another rule; what is known to fail stays known."""
        if self._status != RUNNING:
            return
        self._stack.clear()
        self._leave(0, self._root_marks)

    def _advance(self, rule: int) -> str:
        top = self._stack[-1]
        if not top.children:
            self._fail(top.key)
            self._leave(top.mark, top.cut_marks)
            self._stack.pop()
            return RUNNING if self._stack else EXHAUSTED
        mark = len(self.trail)
        self._step(top.children.pop())
        return self._enter(mark, rule)

    def _enter(self, mark: int, rule: int) -> str:
        """What was run since `mark` is new: settle, and open a frame unless the state is known to fail."""
        self._settle()
        if len(self.trail) == len(self._allocates):
            return FOUND
        cut_marks = [cut.mark() for cut in self._cuts]
        if self._done in self._failed or not self._fits(mark):
            self._fail(self._done)
            self._leave(mark, cut_marks)
            return RUNNING if self._stack else EXHAUSTED
        self._stack.append(_Frame(mark, cut_marks, self._done, self._children(rule)[::-1]))
        return RUNNING

    def _leave(self, mark: int, cut_marks: Sequence[CutMark]) -> None:
        self._back_to(mark)
        for cut, cut_mark in zip(self._cuts, cut_marks):
            cut.undo(cut_mark)

    def _fail(self, done: int) -> None:
        if self._prunings.memory:
            self._failed.add(done)

    def _fits(self, mark: int) -> bool:
        """The `cut` rule, for what was run since `mark`."""
        for cut in self._cuts:
            if self._done >> cut.task & 1:
                continue
            room = self._budget - self._allocates[cut.task]
            if cut.value > room or not all(cut.force(task, room) for task in self.trail[mark:]):
                self.next_budget = min(self.next_budget, cut.value + self._allocates[cut.task])
                return False
        return True

    def _children(self, rule: int) -> List[int]:
        """The steps worth trying, best first; one alone where the `commit` rule holds."""
        self.states += 1
        before, resting = sorted(self._ready), self._live
        open_: List[Tuple[int, int, int]] = []
        for task in before:
            height = self._live + self._allocates[task]
            if height > self._budget:
                self.next_budget = min(self.next_budget, height)
                continue
            mark = len(self.trail)
            self._step(task)
            committed = self._prunings.commit and self._falls_back(set(before), resting)
            self._settle()
            known = self._done in self._failed
            if not committed and not known:
                open_.append(self._rank(rule, task, mark, resting))
            self._back_to(mark)
            if committed:
                return [] if known else [task]
        return [task for _, _, task in sorted(open_)]

    def _rank(self, rule: int, task: int, mark: int, resting: int) -> Tuple[int, int, int]:
        if rule == LEAST_LIVE:
            return (self._live, 0, task)
        if rule == FARTHEST:
            return (mark - len(self.trail), self._live, task)
        chance = scramble(rule * 1000003 + self.states * 8191 + task) >> 56
        return (self._live + max(self._live - resting, 0) // 256 * chance, 0, task)

    def _falls_back(self, before: Set[int], resting: int) -> bool:
        """Do free tasks that were not ready `before` bring live bytes back to `resting`?"""
        moved = True
        while self._live > resting and moved:
            moved = False
            for task in sorted(self._ready):
                if task not in before and self._is_free(task):
                    self._step(task)
                    moved = True
                    if self._live <= resting:
                        break
        return self._live <= resting

    def _settle(self) -> None:
        moved = self._prunings.settle
        while moved:
            moved = False
            for task in sorted(self._ready):
                if self._is_free(task):
                    self._step(task)
                    moved = True

    def _is_free(self, task: int) -> bool:
        allocates = self._allocates[task]
        return self._live + allocates <= self._budget and self._frees(task) >= allocates

    def _frees(self, task: int) -> int:
        return self._transient[task] + sum(self._sizes[b] for b in self._reads[task] if self._unread[b] == 1)

    def _step(self, task: int) -> None:
        self._live += self._allocates[task] - self._frees(task)
        for b in self._reads[task]:
            self._unread[b] -= 1
        self._done |= 1 << task
        self._ready.remove(task)
        for later in self._behind[task]:
            self._missing[later] -= 1
            if self._missing[later] == 0:
                self._ready.add(later)
        self.trail.append(task)

    def _back_to(self, mark: int) -> None:
        while len(self.trail) > mark:
            task = self.trail.pop()
            for b in self._reads[task]:
                self._unread[b] += 1
            self._live -= self._allocates[task] - self._frees(task)
            self._done &= ~(1 << task)
            self._ready.add(task)
            for later in self._behind[task]:
                if self._missing[later] == 0:
                    self._ready.remove(later)
                self._missing[later] += 1


def what_is_freed(graph: Graph) -> Tuple[List[List[int]], List[int]]:
    """For each task the buffers that it may be the last to read, and the bytes that it writes for nobody."""
    reads = [
        [b for b in task.reads if graph.buffers[b].size and graph.buffers[b].producer is not None and not graph.buffers[b].pinned]
        for task in graph.tasks
    ]
    transient = [
        sum(graph.buffers[b].size for b in task.writes if not graph.buffers[b].readers and not graph.buffers[b].pinned) for task in graph.tasks
    ]
    return reads, transient


def scramble(x: int) -> int:
    """splitmix64, so that both twins shuffle alike."""
    x = (x + 0x9E3779B97F4A7C15) & _WORD
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _WORD
    return x ^ (x >> 31)

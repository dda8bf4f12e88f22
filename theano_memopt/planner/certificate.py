"""What the planner answers, and an independent check of it.

    Proven(floor, proof)          the peak of the order is the floor: no order needs less
    Open(floor, proof, reason)    the least peak lies between floor and peak; `reason` says why that is not settled

A floor is proved in one of five ways, each small enough to be checked without trusting the planner:

    Footprint    one task's own reads and writes are live while it runs, in every order
    Chains       of a set of tasks one runs last (or first); before it, the others being done (or not), so many bytes must be
                 live, whichever it is. The witness is a family of chains. A chain b1, b2, .. has a live buffer whenever its start is done and its
                 end is not: the producer of b1 is done; if all readers of b1 are done, then so is the producer of b2; and
                 so on; a reader of the last one comes after a task that is not done (or the last one is pinned). No
                 buffer is used for more than its size, so the bytes of all chains together are live.
    Milestones   these tasks run in some order, and of each group one is the last; whichever it is, something of that cannot run with less
                 beside it, what is before it being done and what is behind it not. The checker goes through all sets of them that can be done
                 below the floor, with cuts of its own
    Exhausted    a search below the floor that fails from every set of tasks; the checker searches again in its own way
    Merged       one of these about a smaller graph, and the merges that lead there; the checker does them again, each by its lemma (merges.py)

This file shares nothing with the search but the accounting; its maximum flows are those of SciPy.

>>> from theano_memopt.planner.model import worked_example
>>> graph = worked_example()
>>> proof = Chains((2, 3), (((6, (0,)), (1, (3,))), ((6, (1,)), (1, (2,)))))     # the last of the two sums: 7 there, 1 made
>>> check_proof(graph, 8, proof)
>>> check_proof(graph, 9, proof)
Traceback (most recent call last):
    ...
theano_memopt.planner.certificate.Rejected: weak-proof: the chains show 8 bytes, not 9
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import AbstractSet, Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, Sequence, Set, Tuple, Union

from theano_memopt.planner.liveness import Timeline, timeline
from theano_memopt.planner.merges import Merge, WrongMerge, after_merges
from theano_memopt.planner.model import Graph


class Rejected(ValueError):
    """A schedule or a proof that does not hold. `reason` is a fixed word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


Chain = Tuple[int, Tuple[int, ...]]


@dataclass(frozen=True)
class Footprint:
    task: int

    def describe(self) -> str:
        return "one task alone holds that much"


@dataclass(frozen=True)
class Chains:
    tasks: Tuple[int, ...]
    chains: Tuple[Tuple[Chain, ...], ...]
    """For each of the tasks, the chains that are live when it is the last of them, or the first."""
    which: str = "last"

    def describe(self) -> str:
        if len(self.tasks) == 1:
            return "one task cannot run with less beside it (minimum cut)"
        return f"the {self.which} of {len(self.tasks)} tasks cannot run with less beside it (minimum cuts)"


@dataclass(frozen=True)
class Milestones:
    tasks: Tuple[int, ...]
    groups: Tuple[Tuple[int, ...], ...] = ()
    """Of each the last to run, whichever that is, is a milestone too."""

    def describe(self) -> str:
        if self.groups:
            return (
                f"in whatever order {len(self.tasks)} tasks and the last of {len(self.groups)} groups run, "
                "one of them cannot run with less beside it (minimum cuts)"
            )
        return f"in whatever order {len(self.tasks)} tasks run, one of them cannot run with less beside it (minimum cuts)"


@dataclass(frozen=True)
class Exhausted:
    budget: int
    """The search below this budget, inclusive, has failed."""
    critical: Tuple[int, ...]
    """Tasks before which the checker should look at the least live memory, most telling first: a hint, not a claim."""
    states: int

    def describe(self) -> str:
        return f"a search under {self.budget:,} bytes fails everywhere ({self.states:,} states)"


@dataclass(frozen=True)
class Merged:
    merges: Tuple[Merge, ...]
    proof: Union[Footprint, Chains, Milestones, Exhausted]
    """About the graph that is left, by the numbers of the whole graph."""

    def describe(self) -> str:
        return f"after {len(self.merges):,} merges, some least order of which is left: {self.proof.describe()}"


Proof = Union[Footprint, Chains, Milestones, Exhausted, Merged]


@dataclass(frozen=True)
class Proven:
    floor: int
    proof: Proof


@dataclass(frozen=True)
class Open:
    floor: int
    proof: Proof
    reason: str


@dataclass(frozen=True)
class Schedule:
    order: Tuple[int, ...]
    timeline: Timeline
    certificate: Union[Proven, Open]
    baseline_peak: int
    """The lowest peak among the orders that were there before: the competing ones and the natural one."""
    method: str
    """What found the order."""
    states: int
    """Effort spent: states opened by the search."""
    competing: Tuple[Tuple[str, int], ...] = ()
    """Every order that competed, by name, with its peak."""

    @property
    def peak(self) -> int:
        return self.timeline.peak

    @property
    def floor(self) -> int:
        return self.certificate.floor

    @property
    def proven(self) -> bool:
        return isinstance(self.certificate, Proven)

    @property
    def gap_percent(self) -> float:
        return 100.0 * (self.peak - self.floor) / self.floor if self.floor else 0.0


def check_certificate(graph: Graph, schedule: Schedule) -> None:
    """Replay the order and the proof. Answers nothing, or raises `Rejected`."""
    if not graph.is_legal(schedule.order):
        raise Rejected("illegal-order", "the order is not a permutation of the tasks that respects what they need")
    replayed = timeline(graph, schedule.order)
    if replayed != schedule.timeline:
        raise Rejected("wrong-timeline", f"replaying the order gives a peak of {replayed.peak} bytes, claimed are {schedule.timeline.peak}")
    if schedule.peak > schedule.baseline_peak:
        raise Rejected("worse-than-baseline", f"the peak {schedule.peak} is above the {schedule.baseline_peak} bytes of the orders there were")
    if schedule.floor > schedule.peak:
        raise Rejected("impossible-floor", f"the floor {schedule.floor} is above the peak {schedule.peak} of a legal order")
    if isinstance(schedule.certificate, Proven) and schedule.floor != schedule.peak:
        raise Rejected("not-least", f"called proven, but the floor {schedule.floor} is below the peak {schedule.peak}")
    check_proof(graph, schedule.floor, schedule.certificate.proof)


def check_proof(graph: Graph, floor: int, proof: Proof) -> None:
    """Does the proof show that every order has a peak of at least `floor`?"""
    if floor <= 0:
        return
    if isinstance(proof, Footprint):
        _known_tasks(graph, (proof.task,))
        shown = footprint(graph, proof.task)
        if shown < floor:
            raise Rejected("weak-proof", f"task {graph.tasks[proof.task].label!r} holds {shown} bytes, not {floor}")
    elif isinstance(proof, Chains):
        shown = _shown_by_chains(graph, proof)
        if shown < floor:
            raise Rejected("weak-proof", f"the chains show {shown} bytes, not {floor}")
    elif isinstance(proof, Milestones):
        _known_tasks(graph, [*proof.tasks, *(task for group in proof.groups for task in group)])
        if _MilestoneWays(graph, floor - 1, proof).one_exists():
            raise Rejected("weak-proof", f"an order of the milestones may need less than {floor} bytes")
    elif isinstance(proof, Merged):
        _check_merged(graph, floor, proof)
    else:
        _known_tasks(graph, proof.critical)
        if proof.budget < floor - 1:
            raise Rejected("weak-proof", f"the search was under {proof.budget} bytes, which says nothing about {floor}")
        if _Refutation(graph, floor - 1, proof.critical).order_exists():
            raise Rejected("not-exhausted", f"there is an order with a peak below {floor} bytes")


def _check_merged(graph: Graph, floor: int, proof: Merged) -> None:
    try:
        left = after_merges(graph, proof.merges)
    except WrongMerge as wrong:
        raise Rejected(wrong.reason, str(wrong)) from None

    def task(t: int) -> int:
        if t not in left.task_number:
            raise Rejected("unknown-task", f"the proof names task {t}, which is not left after the merges")
        return left.task_number[t]

    def buffer(b: int) -> int:
        if b not in left.buffer_number:
            raise Rejected("broken-chain", f"a chain names buffer {b}, which is not left after the merges")
        return left.buffer_number[b]

    check_proof(left.graph, floor, _renumbered(proof.proof, task, buffer))


def _renumbered(proof: Proof, task: Callable[[int], int], buffer: Callable[[int], int]) -> Proof:
    def tasks(of: Sequence[int]) -> Tuple[int, ...]:
        return tuple(task(t) for t in of)

    if isinstance(proof, Footprint):
        return Footprint(task(proof.task))
    if isinstance(proof, Chains):
        families = tuple(tuple((amount, tuple(buffer(b) for b in chain)) for amount, chain in family) for family in proof.chains)
        return Chains(tasks(proof.tasks), families, proof.which)
    if isinstance(proof, Milestones):
        return Milestones(tasks(proof.tasks), tuple(tasks(group) for group in proof.groups))
    if isinstance(proof, Exhausted):
        return Exhausted(proof.budget, tasks(proof.critical), proof.states)
    raise Rejected("broken-proof", "a proof about what merges leave must not list merges itself")


def footprint(graph: Graph, task: int) -> int:
    """Bytes of what a task reads and writes: live while it runs, whatever the order."""
    here = graph.tasks[task]
    return sum(graph.buffers[b].size for b in set(here.reads) | set(here.writes) if graph.buffers[b].producer is not None)


def _known_tasks(graph: Graph, tasks: Sequence[int]) -> None:
    for task in tasks:
        if not 0 <= task < len(graph.tasks):
            raise Rejected("unknown-task", f"the proof names task {task}, which does not exist")


def _ancestors(graph: Graph, tasks: Sequence[int]) -> Set[int]:
    """The tasks and everything that must run before them."""
    found = set(tasks)
    waiting = list(tasks)
    while waiting:
        for p in graph.predecessors[waiting.pop()]:
            if p not in found:
                found.add(p)
                waiting.append(p)
    return found


def _shown_by_chains(graph: Graph, proof: Chains) -> int:
    _known_tasks(graph, proof.tasks)
    if not proof.tasks or len(proof.tasks) != len(proof.chains) or proof.which not in ("first", "last"):
        raise Rejected("broken-proof", "there must be one family of chains for each task of the set, for the last or the first of them")
    shown = []
    for task, family in zip(proof.tasks, proof.chains):
        others = [t for t in proof.tasks if t != task]
        done = _ancestors(graph, (task,)) - {task}
        undone = {task}
        if proof.which == "last":
            done |= _ancestors(graph, others)
        else:
            undone |= set(others)
        if done & undone:
            continue  # another task of the set comes after it (before it), so it is never the last (the first)
        shown.append(graph.allocates[task] + sum(_check_chain(graph, chain, done, undone) for chain in family))
        _check_use(graph, family)
    if not shown:
        raise Rejected("broken-proof", "no task of the set can be the one")
    return min(shown)


class _MilestoneWays:
    """Is there an order of the milestones in which each fits beside the least that can be live there? A group is one, that its last task ends.

    An order of all tasks that keeps to the budget goes such a way: where a task is a milestone and also the last of a group, the task comes first.
    """

    def __init__(self, graph: Graph, budget: int, proof: Milestones) -> None:
        if not all(proof.groups):
            raise Rejected("broken-proof", "a group without tasks has no last one")
        self.graph = graph
        self.budget = budget
        self.tasks = sorted(set(proof.tasks))
        self.groups = sorted(set(proof.groups))
        self.before = {t: _ancestors(graph, (t,)) - {t} for t in (*self.tasks, *(t for group in self.groups for t in group))}
        self.least_live = _LeastLive(graph)

    def one_exists(self) -> bool:
        everything = (frozenset(self.tasks), frozenset(self.groups))
        known: Set[Tuple[FrozenSet[int], FrozenSet[Tuple[int, ...]]]] = {(frozenset(), frozenset())}
        waiting = list(known)
        while waiting:
            tasks, groups = waiting.pop()
            if (tasks, groups) == everything:
                return True
            done = tasks.union(*groups)
            undone = everything[0] - tasks
            steps = [(tasks | {t}, groups) for t in undone if self._task_fits(t, done, undone, everything[1] - groups)]
            steps += [(tasks, groups | {group}) for group in everything[1] - groups if self._last_fits(group, done, undone)]
            waiting.extend(step for step in steps if step not in known)
            known.update(steps)
        return False

    def _task_fits(self, task: int, done: AbstractSet[int], undone: AbstractSet[int], unfinished: AbstractSet[Tuple[int, ...]]) -> bool:
        """Of a group that is not finished some task is not done."""
        return self._fits(task, done, undone) and all(
            undone & set(group) or any(self._fits(task, done, undone | {other}) for other in group) for group in unfinished
        )

    def _last_fits(self, group: Tuple[int, ...], done: AbstractSet[int], undone: AbstractSet[int]) -> bool:
        if any(undone & (self.before[t] | {t}) for t in group):
            return False
        return any(self._fits(last, (done | set(group)) - {last}, undone) for last in group)

    def _fits(self, task: int, done: AbstractSet[int], undone: AbstractSet[int]) -> bool:
        forced = self.before[task].union(done, *(self.before[t] for t in done))
        if task in forced or undone & forced:
            return False
        return not self.least_live.is_above(self.budget - self.graph.allocates[task], _bits(forced), _bits((*undone, task)))


def _bits(tasks: Iterable[int]) -> int:
    return sum(1 << task for task in set(tasks))


def _check_use(graph: Graph, family: Sequence[Chain]) -> None:
    used: Dict[int, int] = {}
    for amount, buffers in family:
        for b in buffers:
            used[b] = used.get(b, 0) + amount
    for b, amount in used.items():
        if amount > graph.buffers[b].size:
            raise Rejected("broken-chain", f"buffer {graph.buffers[b].label!r} is used for {amount} bytes and has {graph.buffers[b].size}")


def _check_chain(graph: Graph, chain: Chain, done: Set[int], undone: Set[int]) -> int:
    """A chain must have a live buffer whenever the tasks in `done` are done and those in `undone` are not. Answers its bytes."""
    amount, buffers = chain
    if amount <= 0 or not buffers or any(not 0 <= b < len(graph.buffers) for b in buffers) or len(set(buffers)) != len(buffers):
        raise Rejected("broken-chain", "a chain has some bytes and names existing buffers, each once")
    if graph.buffers[buffers[0]].producer not in done:
        raise Rejected("broken-chain", f"buffer {graph.buffers[buffers[0]].label!r} begins a chain but need not be there")
    for b, following in zip(buffers, buffers[1:]):
        if graph.buffers[following].producer not in _ancestors(graph, graph.buffers[b].readers):
            raise Rejected("broken-chain", f"the readers of {graph.buffers[b].label!r} can run without {graph.buffers[following].label!r}")
    last = graph.buffers[buffers[-1]]
    if not last.pinned and not undone & _ancestors(graph, last.readers):
        raise Rejected("broken-chain", f"buffer {last.label!r} ends a chain but can be dead by then")
    return amount


class _Refutation:
    """Is there an order with a peak of at most `budget` bytes? Every set of done tasks is looked at once.

    Four rules keep the sets few. Each is proved by moving tasks in an order without raising a height:
        a ready task that fits and frees at least what it allocates runs at once;
        if a step and such tasks as it alone made ready bring live bytes back to where they were, no other step is tried;
        a task that frees nothing in any order and is needed by one other task alone waits until all else that this one
        needs is done;
        a set is given up if the least live memory before a critical task is too much.
    """

    def __init__(self, graph: Graph, budget: int, critical: Sequence[int]) -> None:
        self.graph = graph
        self.budget = budget
        self.critical = list(critical)
        self.needs = [sum(1 << p for p in needs) for needs in graph.predecessors]
        self.readers = [sum(1 << r for r in buffer.readers) for buffer in graph.buffers]
        self.ancestors = [sum(1 << p for p in _ancestors(graph, (t,))) for t in range(len(graph.tasks))]
        self.may_die = [
            [b for b in (*task.reads, *task.writes) if graph.buffers[b].producer is not None and not graph.buffers[b].pinned] for task in graph.tasks
        ]
        self.waits_for = [self._waits_for(t) for t in range(len(graph.tasks))]
        self.least_live = _LeastLive(graph)

    def order_exists(self) -> bool:
        full = (1 << len(self.graph.tasks)) - 1
        seen = set()
        waiting = [self._settled(0, 0)]
        while waiting:
            done, live = waiting.pop()
            if done == full:
                return True
            if done in seen:
                continue
            seen.add(done)
            if not self._too_much_before_critical(done):
                waiting.extend(self._steps(done, live))
        return False

    def _steps(self, done: int, live: int) -> List[Tuple[int, int]]:
        """The sets that one step leads to, settled; one alone if that returns to `live`."""
        found = []
        before = self._ready(done)
        for task in before:
            if live + self.graph.allocates[task] > self.budget or self.waits_for[task] & ~done:
                continue
            returned = self._settled(done | 1 << task, self._live_after(done, live, task), set(before), live)
            settled = self._settled(*returned)
            if returned[1] <= live:
                return [settled]
            found.append(settled)
        return found

    def _ready(self, done: int) -> List[int]:
        return [t for t, needs in enumerate(self.needs) if not done >> t & 1 and not needs & ~done]

    def _live_after(self, done: int, live: int, task: int) -> int:
        then = done | 1 << task
        return live + self.graph.allocates[task] - sum(self.graph.buffers[b].size for b in self.may_die[task] if not self.readers[b] & ~then)

    def _settled(self, done: int, live: int, untouched: AbstractSet[int] = frozenset(), until: int = -1) -> Tuple[int, int]:
        """Run what fits and frees at least what it allocates, `untouched` ones excepted, as long as more than `until` is live."""
        moved = True
        while moved and live > until:
            moved = False
            for task in self._ready(done):
                if task in untouched or live <= until or live + self.graph.allocates[task] > self.budget:
                    continue
                then = self._live_after(done, live, task)
                if then <= live:
                    done, live, moved = done | 1 << task, then, True
        return done, live

    def _waits_for(self, task: int) -> int:
        """What else must be done before it is worth running `task`: the other needs of the one task that needs it."""
        direct = [s for s in self.graph.successors[task] if not any(self.ancestors[q] >> task & 1 for q in self.graph.predecessors[s] if q != task)]
        keeps = all(self.graph.buffers[b].readers or self.graph.buffers[b].pinned for b in self.graph.tasks[task].writes)
        frees_nothing = keeps and all(
            buffer.producer is None or buffer.pinned or any(r != task and self.ancestors[r] >> task & 1 for r in buffer.readers)
            for buffer in (self.graph.buffers[b] for b in self.graph.tasks[task].reads)
        )
        if len(direct) != 1 or not frees_nothing:
            return 0
        (only,) = direct
        return sum(1 << p for p in self.graph.predecessors[only] if not self._may_wait_too(p, only) and p != task)

    def _may_wait_too(self, task: int, only: int) -> bool:
        """Does `task` possibly wait for the same one? Then the two must not wait for each other."""
        return all(s == only or self.ancestors[s] >> only & 1 for s in self.graph.successors[task])

    def _too_much_before_critical(self, done: int) -> bool:
        for i, task in enumerate(self.critical):
            forced = done | self.ancestors[task] & ~(1 << task)
            if not done >> task & 1 and self.least_live.is_above(self.budget - self.graph.allocates[task], forced, 1 << task):
                self.critical.insert(0, self.critical.pop(i))  # what refuted this set will refute its neighbours
                return True
        return False


class _LeastLive:
    """Floors of the live bytes over the sets that contain some tasks and not some others: SciPy's maximum flow.

    SciPy counts in 32 bits, so a flow is found in a coarse unit first, rounded down, and what room it leaves is filled in finer ones. A flow
    found for one set says something about others: what begins in tasks that are done there too is a flow there.
    """

    REMEMBERED = 32

    def __init__(self, graph: Graph) -> None:
        # Here, for only this check needs them, and importing them takes longer than planning most graphs.
        import numpy
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import maximum_flow

        self.numpy, self.matrix, self.maximum_flow = numpy, csr_matrix, maximum_flow
        tasks, buffers = len(graph.tasks), len(graph.buffers)
        sizes = [b.size if b.producer is not None else 0 for b in graph.buffers]
        self.grain = max(1, reduce(gcd, sizes, 0), sum(sizes) >> 58)  # what rooms are counted in
        self.coarsest = max(1, sum(sizes) // self.grain >> 28)
        self.unlimited = 1 << 60
        self.source, self.sink = tasks + buffers, tasks + buffers + 1
        arcs: Dict[Tuple[int, int], int] = {}
        for b, buffer in enumerate(graph.buffers):
            if buffer.producer is not None:
                arcs[buffer.producer, tasks + b] = sizes[b] // self.grain
                arcs.update(((tasks + b, reader), self.unlimited) for reader in buffer.readers)
                if buffer.pinned:
                    arcs[tasks + b, self.sink] = self.unlimited
        for t, needs in enumerate(graph.predecessors):
            arcs.update(((t, needed), self.unlimited) for needed in needs)
            arcs[self.source, t] = arcs[t, self.sink] = 0
        places = sorted({**{(stop, start): 0 for start, stop in arcs}, **arcs})
        self.room = numpy.array([arcs.get(place, 0) for place in places], dtype=numpy.int64)
        self.row = numpy.array([start for start, _ in places], dtype=numpy.int32)
        self.column = numpy.array([stop for _, stop in places], dtype=numpy.int32)
        self.row_start = numpy.searchsorted(self.row, range(self.sink + 2)).astype(numpy.int32)
        place_of = {place: i for i, place in enumerate(places)}
        self.from_source = [place_of[self.source, t] for t in range(tasks)]
        self.to_sink = [place_of[t, self.sink] for t in range(tasks)]
        self.flows: Dict[int, List[Dict[int, int]]] = {}  # tasks not done -> the last flows that were too much: task -> what begins there

    def is_above(self, limit: int, done: int, undone: int) -> bool:
        known = self.flows.setdefault(undone, [])
        for i, begins in enumerate(known):
            if sum(amount for t, amount in begins.items() if done >> t & 1) * self.grain > limit:
                known.insert(0, known.pop(i))
                return True
        room = self.room.copy()
        room[[arc for t, arc in enumerate(self.from_source) if done >> t & 1]] = self.unlimited
        room[[arc for t, arc in enumerate(self.to_sink) if undone >> t & 1]] = self.unlimited
        begins = {}
        unit = self.coarsest
        while True:
            flow = self._flow(self.numpy.minimum(room // unit, 1 << 29).astype(self.numpy.int32))
            for t, amount in zip(flow[self.source].indices, flow[self.source].data):
                begins[int(t)] = begins.get(int(t), 0) + int(amount) * unit
            if sum(begins.values()) * self.grain > limit:
                known.insert(0, {t: amount for t, amount in begins.items() if amount})
                del known[self.REMEMBERED :]
                return True
            if unit == 1:
                return False
            room -= unit * self.numpy.asarray(flow[self.row, self.column]).ravel().astype(self.numpy.int64)
            unit = max(1, unit * len(room) >> 28)  # each arc has lost less than one unit

    def _flow(self, room: Any) -> Any:
        found = self.maximum_flow(self.matrix((room, self.column, self.row_start), shape=(self.sink + 1, self.sink + 1)), self.source, self.sink)
        return found.flow if hasattr(found, "flow") else found.residual  # so named before SciPy 1.9


def schedule_to_json(graph: Graph, schedule: Schedule) -> Dict[str, Any]:
    """One JSON object that says everything; `schedule_from_json` reads it back without loss."""
    verdict = schedule.certificate
    return {
        "peak_bytes": schedule.peak,
        "floor_bytes": schedule.floor,
        "status": "proven" if schedule.proven else "open",
        "sizes": graph.sizes,
        "gap_percent": schedule.gap_percent,
        "method": schedule.method,
        "states": schedule.states,
        "baseline_peak_bytes": schedule.baseline_peak,
        "competing": [{"name": name, "peak_bytes": peak} for name, peak in schedule.competing],
        "order": [graph.tasks[t].label for t in schedule.order],
        "certificate": {
            "reason": verdict.reason if isinstance(verdict, Open) else None,
            "proof": _proof_to_json(graph, verdict.proof),
        },
    }


def _proof_to_json(graph: Graph, proof: Proof) -> Dict[str, Any]:
    def task(t: int) -> str:
        return graph.tasks[t].label

    if isinstance(proof, Footprint):
        return {"by": "footprint", "task": task(proof.task)}
    if isinstance(proof, Milestones):
        groups = {"groups": [[task(t) for t in group] for group in proof.groups]} if proof.groups else {}
        return {"by": "milestones", "tasks": [task(t) for t in proof.tasks], **groups}
    if isinstance(proof, Exhausted):
        return {"by": "exhausted", "budget": proof.budget, "critical": [task(t) for t in proof.critical], "states": proof.states}
    if isinstance(proof, Merged):
        merges = [[merge.rule, *(task(t) for t in merge.tasks)] for merge in proof.merges]
        return {"by": "merges", "merges": merges, "proof": _proof_to_json(graph, proof.proof)}
    return {
        "by": "chains",
        "which": proof.which,
        "tasks": [task(t) for t in proof.tasks],
        "chains": [[[amount, [graph.buffers[b].label for b in buffers]] for amount, buffers in family] for family in proof.chains],
    }


def schedule_from_json(graph: Graph, data: Any) -> Schedule:
    """Read a result back. What does not fit the form or the graph is `Rejected`; whether it is true, `check_certificate` says."""
    tasks = {task.label: t for t, task in enumerate(graph.tasks)}
    buffers = {buffer.label: b for b, buffer in enumerate(graph.buffers)}
    try:
        order = tuple(tasks[name] for name in data["order"])
        proof = _proof_from_json(data["certificate"]["proof"], tasks, buffers)
        floor, peak = _number(data, "floor_bytes"), _number(data, "peak_bytes")
        verdict: Union[Proven, Open]
        if data["status"] == "proven":
            verdict = Proven(floor, proof)
        elif data["status"] == "open":
            verdict = Open(floor, proof, str(data["certificate"]["reason"]))
        else:
            raise Rejected("bad-form", f"status is 'proven' or 'open', not {data['status']!r}")
        competing = tuple((str(row["name"]), _number(row, "peak_bytes")) for row in data.get("competing", ()))
        baseline = _number(data, "baseline_peak_bytes")
        method, states = str(data["method"]), _number(data, "states")
        gap, sizes = data.get("gap_percent"), data.get("sizes", graph.sizes)
    except Rejected:
        raise
    except KeyError as missing:
        raise Rejected("unknown-name", f"{missing} is missing, or is not a name in this graph") from None
    except (TypeError, ValueError, AttributeError) as wrong:
        raise Rejected("bad-form", f"the result does not have the form of a schedule: {wrong}") from None
    if not graph.is_legal(order):
        raise Rejected("illegal-order", "the order is not a permutation of the tasks that respects what they need")
    schedule = Schedule(order, timeline(graph, order), verdict, baseline, method, states, competing)
    if peak != schedule.peak:
        raise Rejected("wrong-timeline", f"replaying the order gives a peak of {schedule.peak} bytes, claimed are {peak}")
    if sizes != graph.sizes:
        raise Rejected("wrong-sizes", f"the sizes of this graph are {graph.sizes}, claimed is {sizes!r}")
    if gap is not None and gap != schedule.gap_percent:
        raise Rejected("wrong-gap", f"the gap is {schedule.gap_percent} %, claimed are {gap}")
    return schedule


def _number(row: Mapping[str, Any], word: str) -> int:
    value: object = row[word]
    if isinstance(value, bool) or not isinstance(value, int):
        raise Rejected("bad-form", f"{word} must be a whole number, not {value!r}")
    return value


def _proof_from_json(data: Mapping[str, Any], tasks: Mapping[str, int], buffers: Mapping[str, int]) -> Proof:
    if data["by"] == "footprint":
        return Footprint(tasks[data["task"]])
    if data["by"] == "milestones":
        groups = tuple(tuple(tasks[name] for name in group) for group in data.get("groups", ()))
        return Milestones(tuple(tasks[name] for name in data["tasks"]), groups)
    if data["by"] == "exhausted":
        return Exhausted(_number(data, "budget"), tuple(tasks[name] for name in data["critical"]), _number(data, "states"))
    if data["by"] == "chains":
        families = tuple(
            tuple((_number({"amount": amount}, "amount"), tuple(buffers[name] for name in names)) for amount, names in family)
            for family in data["chains"]
        )
        return Chains(tuple(tasks[name] for name in data["tasks"]), families, str(data["which"]))
    if data["by"] == "merges":
        merges = tuple(Merge(str(rule), tuple(tasks[name] for name in names)) for rule, *names in data["merges"])
        proof = _proof_from_json(data["proof"], tasks, buffers)
        if isinstance(proof, Merged):
            raise Rejected("bad-form", "a proof about what merges leave lists no merges itself")
        return Merged(merges, proof)
    raise Rejected("bad-form", f"a proof is by footprint, chains, milestones, exhausted or merges, not {data['by']!r}")

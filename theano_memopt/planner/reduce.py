"""Safe shrinking: merge tasks that some optimal order runs back to back, plan the smaller graph, lift the order back.

Three rules, used until none applies; `reduce_graph` is asked which. "Only" neighbours are meant after edges that other edges imply are dropped.

    follow     v waits for p alone, adds nothing, and needs no more than p gives back     ->  run v right after p
    prepare    only v waits for p, p gives back nothing, and p reaches no higher than v   ->  run p right before v
    lanes      chains wait for the same tasks, and the same tasks wait for them          ->  one chain, by hills and valleys

What a task adds is what it leaves behind less what surely dies with it: a buffer whose other readers all come before it. Where
that depends on the order, the task counts at its worst.

Lemma (follow). Moving v forward to just after p changes no height for the worse: v adds no bytes, so every set between
holds at most what it held, and v's own height is at most p's, because p gave back as much as v needs.
Lemma (prepare). Moving p back to just before v takes p's bytes out of every set between, and p does not free more there than it
keeps; p's own height is at most v's, which runs on top of what p left.
Lemma (lanes; after J. W. H. Liu, 1987, for trees, and H. M. Abdel-Wahab and T. Kameda, 1978, for costs in series and parallel). Let every
buffer that a lane reads either die inside this one lane in every order, or outlive all lanes in every order: its other readers come
before the lanes, or one comes behind them, or it is pinned. Then live bytes are a sum: what each lane adds by how far it has come, and the
rest by what else is done. So the order among the tasks of all lanes can be fixed, whatever runs between them.
A task p of a lane and the next one v are not merged by the other rules, so either p goes down, and v too and reaches higher, or v up; or both go
up, and p reaches higher. So the tasks of a lane stand as they will among those of all lanes: first those that go down (or nowhere), by rising top,
then those that go up, by falling top minus valley. Where two could not be merged because one task cannot stand for both, they may stand otherwise:
such a lane is left as it is.
Proof. What runs between two tasks of the lanes neither waits for lanes nor is waited for by them, so it may change places with them. Let A of one
lane run, then tasks Z of no lane, then B of another lane. A adds a bytes and reaches A^ above what is live when it begins, B likewise; without
lanes Z changes what is live from z to z'. These changes raise no height:
       both go up, B^ - b >= A^ - a    ->  Z B A    Z and B run on a bytes less; A reaches z' + b + A^ <= z' + a + B^, where B was
       both go down, B^ <= A^          ->  B A Z    B reaches z + B^ <= z + A^, where A was; A and Z run on less
       A goes up, B down               ->  Z B A if z' <= z: A reaches z' + b + A^ <= z + A^.  Else B A Z: B reaches z + B^ < z' + a + B^
So all tasks of the lanes come into one order, the same for every order that we began with, and those of one lane never change places.
In-trees, out-trees whose outputs have one reader each, and what lies between a fork and a join come down to lanes from their leaves
inwards. A result that several lanes read and that dies with the last of them breaks the sum: which of them is the last to begin changes
what all others may do, and already trees that spread from such results are NP-hard to order (shared outputs, arXiv 2312.13526). Such lanes
are left to the search.

A merged task allocates what the sum of its parts holds at their highest moment; what of that does not outlive the merged
task becomes a workspace buffer that nobody reads. So the smaller graph is an ordinary `Graph` with the same optimum.

>>> from theano_memopt.planner.model import build_graph
>>> chain = build_graph({"a": 4, "b": 1}, [("load", (), ("a",)), ("sum", ("a",), ("b",)), ("print", ("b",), ())], keep=("b",))
>>> reduced = reduce_graph(chain)
>>> len(reduced.graph.tasks), reduced.lift([0])
(1, (0, 1, 2))
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Sequence, Set, Tuple

from theano_memopt.planner.bits import mask_of, members_of
from theano_memopt.planner.merges import FOLLOW, LANES, PREPARE, Merge
from theano_memopt.planner.model import Buffer, Graph, Task


@dataclass(frozen=True)
class Reduced:
    graph: Graph
    parts: Tuple[Tuple[int, ...], ...]
    """For each task of the smaller graph the tasks of the original, in the order in which they run."""
    heads: Tuple[int, ...]
    """For each task of the smaller graph the part that runs at its greatest height."""
    merges: Tuple[Merge, ...] = ()
    """What was done, for the checker of certificates to do again (merges.py)."""

    def lift(self, order: Sequence[int]) -> Tuple[int, ...]:
        """The order of the original graph that an order of the smaller one stands for."""
        return tuple(task for merged in order for task in self.parts[merged])

    def lower(self, order: Sequence[int]) -> Tuple[int, ...]:
        """An order of the smaller graph that stays as close as it can to one of the original: by heads, always the first that is ready."""
        place = {task: step for step, task in enumerate(order)}
        missing = [len(needs) for needs in self.graph.predecessors]
        ready = [(place[head], merged) for merged, head in enumerate(self.heads) if missing[merged] == 0]
        heapq.heapify(ready)
        found: List[int] = []
        while ready:
            _, merged = heapq.heappop(ready)
            found.append(merged)
            for later in self.graph.successors[merged]:
                missing[later] -= 1
                if missing[later] == 0:
                    heapq.heappush(ready, (place[self.heads[later]], later))
        return tuple(found)


def ancestor_masks(graph: Graph) -> List[int]:
    """For each task the set of all tasks that must run before it, as the bits of one integer."""
    masks = [0] * len(graph.tasks)
    for task in graph.natural_order:
        for p in graph.predecessors[task]:
            masks[task] |= masks[p] | 1 << p
    return masks


def direct_predecessors(graph: Graph, ancestors: Sequence[int]) -> List[Set[int]]:
    """Predecessors without those that another predecessor already waits for."""
    direct: List[Set[int]] = []
    for needs in graph.predecessors:
        implied = before_any(needs, ancestors)
        direct.append({p for p in needs if not implied >> p & 1})
    return direct


def before_any(tasks: Iterable[int], ancestors: Sequence[int]) -> int:
    """What must run before one of these tasks, as bits."""
    before = 0
    for task in tasks:
        before |= ancestors[task]
    return before


def reduce_graph(graph: Graph, fully: bool = True, stop: Callable[[], bool] = lambda: False) -> Reduced:
    """Merge until no rule applies, or until `stop` says so: what is merged by then keeps the optimum as well.

    Without `fully` only the plain cases are merged: v allocates nothing, p frees nothing, and no lanes. The checker of certificates
    knows these too when it searches. Any other merge it has to be told of, so proofs come from the plainly reduced graph where they can.
    """
    return Merging(graph, fully).reduced(stop)


def unreduced(graph: Graph) -> Reduced:
    """Nothing merged: for those who want to see what merging saves."""
    return Reduced(graph, tuple((t,) for t in range(len(graph.tasks))), tuple(range(len(graph.tasks))))


class Merging:
    """The graph while it shrinks. A merged task goes by the name of its head: p for `follow`, v for `prepare`.

    Words
        last      the readers of a buffer that no other reader comes behind: if there is one alone, the buffer dies with it in every order
        frees     bytes of what a task reads that die with it in every order
        unsure    how many buffers a task reads that die with it in some orders and not in others

    The rules ask for these far more often than they change, so they are counted and not looked for. They change where two tasks become one.
    Proof of what `_join` and the rules make of them. A merge puts p in front of whatever waits for v, and v behind whatever p waits for.
        follow     v waits for p alone, so its own place is known already; but p is in front of the other tasks that wait for it, and if one
                   of those may read b last, p with v in it may not. Behind the others it cannot come new.
        prepare    v alone waits for p, so nobody comes behind p but v and what is behind v. What p may be the last to read it is surely the
                   last to read, or the rule would not apply; so is v then.
        lanes      a task of one that may be the last to read b is so surely, or the lanes would not add up. So none of another lane reads b
                   and is not behind it: the order among lanes changes nothing.
    """

    def __init__(self, graph: Graph, fully: bool) -> None:
        buffers = graph.buffers
        self.graph = graph
        self.fully = fully
        self.ancestors = ancestor_masks(graph)
        self.before = direct_predecessors(graph, self.ancestors)
        self.behind: List[Set[int]] = [set() for _ in graph.tasks]
        for task, needs in enumerate(self.before):
            for p in needs:
                self.behind[p].add(task)
        self.queue: Dict[int, None] = dict.fromkeys(graph.natural_order[::-1])  # a rule may apply to them; the last one is looked at next
        self.changed: Dict[int, None] = dict.fromkeys(graph.natural_order) if fully else {}  # their chains are to be compared with those beside
        self.touched: Dict[int, None] = {}  # tasks whose neighbours, or what they free, a merge has changed
        self.freer: Dict[int, None] = {}  # those that free more: what waits for them may follow now
        self.merges: List[Merge] = []
        self.parts: Dict[int, List[int]] = {t: [t] for t in range(len(graph.tasks))}
        self.needs = list(graph.allocates)
        self.reads = [{b for b in task.reads if buffers[b].size and buffers[b].producer is not None} for task in graph.tasks]
        self.writes = [{b for b in task.writes if buffers[b].size and (buffers[b].readers or buffers[b].pinned)} for task in graph.tasks]
        self.keeps = [sum(buffers[b].size for b in writes) for writes in self.writes]
        """For each task the bytes that it leaves behind."""
        self.readers = [len(buffer.readers) for buffer in buffers]
        self.last = [0] * len(buffers)  # as bits, for there may be hundreds; none of a buffer that never dies
        self.frees = [0] * len(graph.tasks)
        self.unsure = [0] * len(graph.tasks)
        for b, buffer in enumerate(buffers):
            if buffer.size and buffer.producer is not None and not buffer.pinned:
                self._now_last(b, mask_of(buffer.readers) & ~before_any(buffer.readers, self.ancestors))
        self.touched.clear()
        self.freer.clear()

    def reduced(self, stop: Callable[[], bool]) -> Reduced:
        while (self.queue or self.changed) and not stop():
            if self.queue:
                task, _ = self.queue.popitem()
                if task in self.parts and not self.try_follow(task):
                    self.try_prepare(task)
            else:
                self.try_lanes()
        return self.result()

    def try_follow(self, v: int) -> bool:
        """Merge v behind the one task it waits for, if that may be."""
        if not self._may_follow(v):
            return False
        (p,) = self.before[v]
        if self.needs[v] > self.needs[p] - self.keeps[p] + self.frees[p] or not self._fits_in_one(p, v, self.needs[p]):
            return False
        self.behind[p].remove(v)
        self._read_inside(p, v)
        for b in self._last_reads(v):
            others = self.last[b] & ~(1 << v)
            overtaken = bool(self.behind[p]) and any(self.ancestors[other] >> p & 1 for other in members_of(others))
            self._now_last(b, others if overtaken else others | 1 << p)
        for later in sorted(self.behind[v]):
            self.before[later].remove(v)
            self._link(p, later)
        self.merges.append(Merge(FOLLOW, (p, v)))
        self._join(p, v, p)
        return True

    def try_prepare(self, p: int) -> bool:
        """Merge p in front of the one task that waits for it, if that may be."""
        if not self._may_prepare(p):
            return False
        (v,) = self.behind[p]
        added = self.keeps[p] - self.frees[p]
        if self.needs[p] > added + self.needs[v] or not self._fits_in_one(p, v, added + self.needs[v]):
            return False
        self.before[v].remove(p)
        self.needs[v] += added
        self._read_inside(p, v)
        for b in self._last_reads(p):
            self._now_last(b, 1 << v)
        for earlier in sorted(self.before[p]):
            self.behind[earlier].remove(p)
            self._link(earlier, v)
        self.merges.append(Merge(PREPARE, (p, v)))
        self._join(p, v, v)
        return True

    def _may_follow(self, v: int) -> bool:
        """What the rule asks of v alone."""
        return len(self.before[v]) == 1 and self.keeps[v] <= self.frees[v] and (self.fully or not self.needs[v])

    def _may_prepare(self, p: int) -> bool:
        """What the rule asks of p alone."""
        if len(self.behind[p]) != 1 or self.unsure[p]:
            return False
        return self.keeps[p] >= self.frees[p] if self.fully else not self.frees[p] and self.needs[p] == self.keeps[p]

    def try_lanes(self) -> None:
        """Take a task whose chain has changed, and make one chain of it and those beside it."""
        task, _ = self.changed.popitem()
        if task not in self.parts:
            return
        lanes = self._lanes_beside(self._chain_from(self._head_of_chain(task)))
        for lane in lanes:
            for seen in lane:
                self.changed.pop(seen, None)
        lanes = [lane for lane in lanes if self._may_line_up(lane)]
        if len(lanes) < 2:
            return
        order = self._in_one_order(lanes)
        self.merges.append(Merge(LANES, tuple(order)))
        self._chain_up(order, set(self.before[lanes[0][0]]), set(self.behind[lanes[0][-1]]))
        self.changed[order[0]] = None
        self.queue.update(dict.fromkeys(order))
        self._look_again_beside(order[0], order[-1])

    def _head_of_chain(self, task: int) -> int:
        """Up from the task, as long as one waits for one."""
        while len(self.before[task]) == 1:
            (above,) = self.before[task]
            if len(self.behind[above]) > 1:
                break
            task = above
        return task

    def _chain_from(self, head: int) -> List[int]:
        """Down from the head, as long as one waits for one."""
        chain = [head]
        while len(self.behind[chain[-1]]) == 1:
            (below,) = self.behind[chain[-1]]
            if len(self.before[below]) > 1:
                break
            chain.append(below)
        return chain

    def _lanes_beside(self, chain: Sequence[int]) -> List[List[int]]:
        """This chain and all others that wait for the same tasks, and that the same tasks wait for."""
        above, below = self.before[chain[0]], self.behind[chain[-1]]
        if above:
            heads = self.behind[min(above, key=lambda task: (len(self.behind[task]), task))]
        elif below:
            heads = {self._head_of_chain(end) for end in self.before[min(below, key=lambda task: (len(self.before[task]), task))]}
        else:
            heads = set(self.parts)
        lanes = [self._chain_from(head) for head in sorted(heads) if self.before[head] == above]
        return [lane for lane in lanes if self.behind[lane[-1]] == below]

    def _may_line_up(self, lane: Sequence[int]) -> bool:
        """Do its tasks stand as they would among those of other lanes?"""
        places = [self._place(task) for task in lane]
        return self._adds_up(lane) and places == sorted(places)

    def _adds_up(self, lane: Sequence[int]) -> bool:
        """Does whatever dies in this lane die there in every order? If not, the last of its tasks that reads it is unsure."""
        return not any(self.unsure[task] for task in lane)

    def _chain_up(self, order: Sequence[int], above: Set[int], below: Set[int]) -> None:
        """The tasks of several lanes one after the other."""
        for task in order:
            for p in self.before[task]:
                self.behind[p].discard(task)
            for later in self.behind[task]:
                self.before[later].discard(task)
        done = 0
        for previous, task, following in zip([above, *({t} for t in order)], order, [*({t} for t in order[1:]), below]):
            self.ancestors[task] |= done
            done |= self.ancestors[task] | 1 << task
            self.before[task], self.behind[task] = set(previous), set(following)
        for p in above:
            self.behind[p].add(order[0])
        for later in below:
            self.before[later].add(order[-1])

    def _in_one_order(self, lanes: Sequence[Sequence[int]]) -> List[int]:
        return sorted((task for lane in lanes for task in lane), key=self._place)

    def _place(self, task: int) -> Tuple[int, int]:
        """Downwards by rising top, then upwards by falling top minus valley."""
        adds = self.keeps[task] - self.frees[task]
        return (0, self.needs[task]) if adds <= 0 else (1, adds - self.needs[task])

    def _now_last(self, b: int, last: int) -> None:
        """These tasks, as bits, may read b last from now on."""
        before, size = self.last[b], self.graph.buffers[b].size
        self.last[b] = last
        unsure_before, unsure = 0 if _is_one(before) else before, 0 if _is_one(last) else last
        for task in members_of(unsure_before & ~unsure):
            self.unsure[task] -= 1
            self.touched[task] = None
        for task in members_of(unsure & ~unsure_before):
            self.unsure[task] += 1
        if before and not unsure_before:
            self.frees[before.bit_length() - 1] -= size
        if last and not unsure:
            task = last.bit_length() - 1
            self.frees[task] += size
            self.touched[task] = None
            self.freer[task] = None

    def _last_reads(self, task: int) -> List[int]:
        return sorted(b for b in self.reads[task] if self.last[b] >> task & 1)

    def _fits_in_one(self, p: int, v: int, needs: int) -> bool:
        """Can one task stand for both? What they leave behind is allocated by it, so that must not be more than it needs."""
        inside = sum(self.graph.buffers[b].size for b in self.writes[p] & self.reads[v] if self.readers[b] == 1 and not self.graph.buffers[b].pinned)
        return self.keeps[p] + self.keeps[v] - inside <= needs

    def _read_inside(self, p: int, v: int) -> None:
        """What p writes v reads in the same merged task: now only the readers outside count."""
        for b in sorted(self.writes[p] & self.reads[v]):
            self.reads[v].remove(b)
            self.readers[b] -= 1
            self._now_last(b, self.last[b] & ~(1 << v))
            if not self.readers[b] and not self.graph.buffers[b].pinned:
                self.writes[p].remove(b)
                self.keeps[p] -= self.graph.buffers[b].size

    def _link(self, earlier: int, later: int) -> None:
        """An edge, unless others imply it: a task waits for the earlier one, and the later one for that."""
        behind, before = self.behind[earlier], self.before[later]
        if len(behind) < len(before):
            ancestors = self.ancestors[later]
            implied = any(ancestors >> task & 1 for task in behind)
        else:
            implied = any(self.ancestors[task] >> earlier & 1 for task in before)
        if not implied:
            before.add(earlier)
            behind.add(later)
        self.touched.update({earlier: None, later: None})

    def _join(self, p: int, v: int, head: int) -> None:
        """One task for both, by the name of `head`; and a rule may apply now to what the merge has changed, or beside it."""
        gone = v if head == p else p
        for b in self.reads[gone] & self.reads[head]:
            self.readers[b] -= 1
        self.reads[head] |= self.reads[gone]
        self.writes[head] |= self.writes[gone]
        self.keeps[head] += self.keeps[gone]
        parts = self.parts[p]
        parts.extend(self.parts[v])
        self.parts[head] = parts
        del self.parts[gone]
        self.touched[head] = None
        self._look_again_at_what_changed()
        self._look_again_beside(head, head)

    def _look_again_at_what_changed(self) -> None:
        self.queue.update(self.touched)
        if self.fully:
            self.changed.update(self.touched)
        for task in filter(self.parts.__contains__, self.freer):
            self.queue.update(dict.fromkeys(sorted(filter(self._may_follow, self.behind[task]))))
        self.touched.clear()
        self.freer.clear()

    def _look_again_beside(self, first: int, last: int) -> None:
        """What the first of some tasks waits for, and what waits for the last, may have become neighbours of one task alone."""
        self.queue.update(dict.fromkeys(sorted(filter(self._may_prepare, self.before[first]))))
        self.queue.update(dict.fromkeys(sorted(filter(self._may_follow, self.behind[last]))))

    def result(self) -> Reduced:
        heads = [t for t in self.graph.natural_order if t in self.parts]
        number = {head: i for i, head in enumerate(heads)}
        buffers: List[Buffer] = []
        renamed: Dict[int, int] = {}
        readers: List[List[int]] = [[] for _ in self.graph.buffers]
        for i, head in enumerate(heads):
            for b in self.reads[head]:
                readers[b].append(i)
        for head in heads:
            for b in sorted(self.writes[head]):
                old = self.graph.buffers[b]
                renamed[b] = len(buffers)
                buffers.append(Buffer(old.size, old.kind, number[head], tuple(readers[b]), old.pinned, old.label))
        tasks: List[Task] = []
        for head in heads:
            writes = [renamed[b] for b in sorted(self.writes[head])]
            workspace = self.needs[head] - sum(buffers[b].size for b in writes)
            if workspace:
                writes.append(len(buffers))
                buffers.append(Buffer(workspace, "workspace", number[head], (), False, f"workspace of task {head}"))
            reads = tuple(renamed[b] for b in sorted(self.reads[head]))
            after = tuple(sorted(number[p] for p in self.before[head]))
            tasks.append(Task(reads, tuple(writes), after, self.graph.tasks[head].label))
        graph = Graph(tuple(tasks), tuple(buffers), self.graph.sizes_from)
        return Reduced(graph, tuple(tuple(self.parts[h]) for h in heads), tuple(heads), tuple(self.merges))


def _is_one(mask: int) -> bool:
    return bool(mask) and not mask & (mask - 1)

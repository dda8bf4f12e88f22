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
Proof. Cut each lane into pieces, from valley to valley, first those that go down, to its lowest valley, then those that go up. On either side
the highest top is in the piece next to the lowest valley, and so on outwards (`_pieces`); before the top of a piece no valley is lower than the
one at which the piece begins, and after it none is lower than the one at which it ends. What runs between two tasks of the lanes neither waits
for lanes nor is waited for by them, so it may change places with them.
1. Each piece can run as a whole at the moment of its highest task. What comes before that task is held back: the lane stays at the valley where
   the piece begins. What comes after it runs on at once, to the valley where it ends. So the lane is nowhere higher than it was.
2. Let piece A of one lane run, then tasks Z of no lane, then piece B of another lane. A adds a bytes and reaches A^ above what is live when
   it begins, B likewise; without lanes Z changes what is live from z to z'. These changes raise no height:
       both go up, B^ - b > A^ - a    ->  Z B A    Z and B run on a bytes less; A reaches z' + b + A^ < z' + a + B^, where B was
       both go down, B^ < A^          ->  B A Z    B reaches z + B^ < z + A^, where A was; A and Z run on less
       A goes up, B down              ->  Z B A if z' <= z: A reaches z' + b + A^ <= z + A^.  Else B A Z: B reaches z + B^ < z' + a + B^
3. So the pieces come into one order, the same for every order that we began with: downwards by rising top, then upwards by falling top minus
   valley. Pieces of one lane lie in it as they do in the lane.
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
from typing import Dict, List, Optional, Sequence, Set, Tuple

from theano_memopt.planner.bits import mask_of
from theano_memopt.planner.model import Buffer, Graph, Task


@dataclass(frozen=True)
class Reduced:
    graph: Graph
    parts: Tuple[Tuple[int, ...], ...]
    """For each task of the smaller graph the tasks of the original, in the order in which they run."""
    heads: Tuple[int, ...]
    """For each task of the smaller graph the part that runs at its greatest height."""

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
        implied = 0
        for p in needs:
            implied |= ancestors[p]
        direct.append({p for p in needs if not implied >> p & 1})
    return direct


def reduce_graph(graph: Graph, fully: bool = True) -> Reduced:
    """Merge until no rule applies.

    Without `fully` only the plain cases are merged: v allocates nothing, p frees nothing, and no lanes. The checker of certificates
    knows these too. What a search on the fully reduced graph proves, it could not follow in reasonable time; so proofs come from the
    plainly reduced graph, and orders from the fully reduced one.
    """
    merging = _Merging(graph, fully)
    queue = list(graph.natural_order)[::-1]
    while queue or merging.changed:
        if not queue:
            queue.extend(merging.try_lanes())
            continue
        task = queue.pop()
        if task in merging.parts:
            again = merging.try_follow(task) or merging.try_prepare(task)
            queue.extend(again)
            if fully:
                merging.changed.update(dict.fromkeys(again))
    return merging.result()


def unreduced(graph: Graph) -> Reduced:
    """Nothing merged: for those who want to see what merging saves."""
    return Reduced(graph, tuple((t,) for t in range(len(graph.tasks))), tuple(range(len(graph.tasks))))


class _Merging:
    """The graph while it shrinks. A merged task goes by the name of its head: p for `follow`, v for `prepare`."""

    def __init__(self, graph: Graph, fully: bool) -> None:
        self.graph = graph
        self.fully = fully
        self.ancestors = ancestor_masks(graph)
        self.before = direct_predecessors(graph, self.ancestors)
        self.behind: List[Set[int]] = [set() for _ in graph.tasks]
        for task, needs in enumerate(self.before):
            for p in needs:
                self.behind[p].add(task)
        self.changed: Dict[int, None] = dict.fromkeys(graph.natural_order) if fully else {}  # their chains are to be compared with those beside
        self.touched: List[int] = []  # tasks that a superfluous edge has left; they may have one neighbour now
        self.parts: Dict[int, Tuple[int, ...]] = {t: (t,) for t in range(len(graph.tasks))}
        self.needs = list(graph.allocates)
        self.readers: List[Set[int]] = [set(b.readers) for b in graph.buffers]
        self.reader_masks: List[int] = [mask_of(readers) for readers in self.readers]
        """The same as bits: a buffer may have hundreds of readers, and each is asked whether it is the last."""
        self.reads: List[Set[int]] = [set(t.reads) for t in graph.tasks]
        self.writes: List[Set[int]] = [set(t.writes) for t in graph.tasks]
        self.frees: Dict[int, int] = {}
        """What `_frees` has answered since the graph changed last: of a merged task that reads hundreds of buffers it is asked again and again."""

    def try_follow(self, v: int) -> List[int]:
        """Merge v behind the one task it waits for. Answers the tasks to look at again."""
        if len(self.before[v]) != 1 or (self.needs[v] and not self.fully) or self._keeps(v) > self._frees(v):
            return []
        (p,) = self.before[v]
        if self.needs[v] > self.needs[p] - self._keeps(p) + self._frees(p) or not self._fits_in_one(p, v, self.needs[p]):
            return []
        self.behind[p].remove(v)
        for later in self.behind[v]:
            self.before[later].remove(v)
            self._link(p, later)
        return self._join(p, v, self.parts[p] + self.parts[v])

    def try_prepare(self, p: int) -> List[int]:
        """Merge p in front of the one task that waits for it."""
        if len(self.behind[p]) != 1 or not self._frees_the_same_in_every_order(p):
            return []
        (v,) = self.behind[p]
        added = self._keeps(p) - self._frees(p)
        if not self.fully and (self._frees(p) or self.needs[p] != added):
            return []
        if added < 0 or self.needs[p] > added + self.needs[v] or not self._fits_in_one(p, v, added + self.needs[v]):
            return []
        self.before[v].remove(p)
        for earlier in self.before[p]:
            self.behind[earlier].remove(p)
            self._link(earlier, v)
        self.needs[v] += added
        return self._join(v, p, self.parts[p] + self.parts[v])

    def try_lanes(self) -> List[int]:
        """Take a task whose chain has changed, and make one chain of it and those beside it."""
        task, _ = self.changed.popitem()
        if task not in self.parts:
            return []
        lanes = self._lanes_beside(self._chain_from(self._head_of_chain(task)))
        for lane in lanes:
            for seen in lane:
                self.changed.pop(seen, None)
        lanes = [lane for lane in lanes if self._adds_up(lane)]
        if len(lanes) < 2:
            return []
        pieces = sorted((piece for lane in lanes for piece in self._pieces(lane)), key=lambda piece: piece[0])
        order = [task for _, tasks in pieces for task in tasks]
        self._chain_up(order, set(self.before[lanes[0][0]]), set(self.behind[lanes[0][-1]]))
        self.changed[order[0]] = None
        return order

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

    def _adds_up(self, lane: Sequence[int]) -> bool:
        """Does whatever dies in this lane die there in every order?"""
        return all(
            reader in lane or self.ancestors[lane[0]] >> reader & 1
            for b in {b for task in lane for b in self.reads[task]}
            if self._may_die(b) and not any(self.ancestors[reader] >> lane[-1] & 1 for reader in self.readers[b])
            for reader in self.readers[b]
        )

    def _chain_up(self, order: Sequence[int], above: Set[int], below: Set[int]) -> None:
        """The tasks of several lanes one after the other."""
        for task in order:
            for p in self.before[task]:
                self.behind[p].discard(task)
            for later in self.behind[task]:
                self.before[later].discard(task)
        self.frees.clear()
        done = 0
        for previous, task, following in zip([above, *({t} for t in order)], order, [*({t} for t in order[1:]), below]):
            self.ancestors[task] |= done
            done |= self.ancestors[task] | 1 << task
            self.before[task], self.behind[task] = set(previous), set(following)
        for p in above:
            self.behind[p].add(order[0])
        for later in below:
            self.before[later].add(order[-1])

    def _pieces(self, lane: Sequence[int]) -> List[Tuple[Tuple[int, int], Sequence[int]]]:
        """The lane from valley to valley: first those that go down, then those that go up, each with its place among those of other lanes."""
        hills, valleys = [], [0]
        for task in lane:
            hills.append(valleys[-1] + self.needs[task])
            valleys.append(valleys[-1] + self._keeps(task) - self._frees(task))
        lowest = min(range(len(valleys)), key=lambda i: (valleys[i], -i))
        found: List[Tuple[Tuple[int, int], Sequence[int]]] = []
        stop = lowest
        while stop > 0:
            top = max(range(stop), key=lambda i: (hills[i], i))
            start = min(range(top + 1), key=lambda i: (valleys[i], i))
            found.append(((0, hills[top] - valleys[start]), lane[start:stop]))
            stop = start
        found.reverse()
        start = lowest
        while start < len(lane):
            top = max(range(start, len(lane)), key=lambda i: (hills[i], -i))
            stop = min(range(top + 1, len(lane) + 1), key=lambda i: (valleys[i], -i))
            found.append(((1, valleys[stop] - hills[top]), lane[start:stop]))
            start = stop
        return found

    def _keeps(self, task: int) -> int:
        """Bytes that it leaves behind."""
        buffers = self.graph.buffers
        return sum(buffers[b].size for b in self.writes[task] if self.readers[b] or buffers[b].pinned)

    def _frees(self, task: int) -> int:
        """Bytes of what it reads that die with it in every order."""
        if task not in self.frees:
            self.frees[task] = sum(self.graph.buffers[b].size for b in self.reads[task] if self._may_die(b) and self._is_last(task, b))
        return self.frees[task]

    def _frees_the_same_in_every_order(self, task: int) -> bool:
        return all(
            not self._may_die(b) or self._is_last(task, b) or any(self.ancestors[reader] >> task & 1 for reader in self.readers[b])
            for b in self.reads[task]
        )

    def _may_die(self, b: int) -> bool:
        buffer = self.graph.buffers[b]
        return not buffer.pinned and buffer.producer is not None and buffer.size > 0

    def _is_last(self, task: int, b: int) -> bool:
        return not self.reader_masks[b] & ~(self.ancestors[task] | 1 << task)

    def _fits_in_one(self, p: int, v: int, needs: int) -> bool:
        """Can one task stand for both? What they leave behind is allocated by it, so that must not be more than it needs."""
        inside = sum(self.graph.buffers[b].size for b in self.writes[p] if self.readers[b] == {v} and not self.graph.buffers[b].pinned)
        return self._keeps(p) + self._keeps(v) - inside <= needs

    def _link(self, earlier: int, later: int) -> None:
        """An edge, unless other edges of `later` imply it; it may make some of them superfluous in turn."""
        if any(self.ancestors[q] >> earlier & 1 for q in self.before[later]):
            return
        for q in [q for q in self.before[later] if self.ancestors[earlier] >> q & 1]:
            self.before[later].remove(q)
            self.behind[q].remove(later)
            self.touched.append(q)
        self.before[later].add(earlier)
        self.behind[earlier].add(later)

    def _join(self, head: int, gone: int, parts: Tuple[int, ...]) -> List[int]:
        self.frees.clear()
        self.parts[head] = parts
        del self.parts[gone]
        self.writes[head] |= self.writes[gone]
        self.reads[head] |= self.reads[gone]
        for b in self.reads[gone]:
            self._replace_reader(b, gone, head)
        for b in self.writes[head] & self.reads[head]:  # written and read inside: now only the readers outside count
            self._replace_reader(b, head)
            self.reads[head].discard(b)
        again = [*self.touched, head, *sorted(self.before[head]), *sorted(self.behind[head])]
        self.touched.clear()
        return again

    def _replace_reader(self, b: int, old: int, new: Optional[int] = None) -> None:
        self.readers[b].discard(old)
        self.reader_masks[b] &= ~(1 << old)
        if new is not None:
            self.readers[b].add(new)
            self.reader_masks[b] |= 1 << new

    def result(self) -> Reduced:
        heads = [t for t in self.graph.natural_order if t in self.parts]
        number = {head: i for i, head in enumerate(heads)}
        buffers: List[Buffer] = []
        renamed: Dict[int, int] = {}
        for head in heads:
            for b in sorted(self.writes[head]):
                old = self.graph.buffers[b]
                if old.size and (self.readers[b] or old.pinned):
                    renamed[b] = len(buffers)
                    readers = tuple(sorted(number[r] for r in self.readers[b]))
                    buffers.append(Buffer(old.size, old.kind, number[head], readers, old.pinned, old.label))
        tasks: List[Task] = []
        for head in heads:
            writes = [renamed[b] for b in sorted(self.writes[head]) if b in renamed]
            workspace = self.needs[head] - sum(buffers[b].size for b in writes)
            if workspace:
                writes.append(len(buffers))
                buffers.append(Buffer(workspace, "workspace", number[head], (), False, f"workspace of task {head}"))
            reads = tuple(renamed[b] for b in sorted(self.reads[head]) if b in renamed)
            after = tuple(sorted(number[p] for p in self.before[head]))
            tasks.append(Task(reads, tuple(writes), after, self.graph.tasks[head].label))
        return Reduced(Graph(tuple(tasks), tuple(buffers), self.graph.sizes_from), tuple(self.parts[h] for h in heads), tuple(heads))

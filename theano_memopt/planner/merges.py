"""The merges that a proof lists, done again one by one for the checker of certificates: what is left has a least peak that is not greater.

    follow   p v       v waits for p alone, adds nothing and needs no more than p gives back    ->  run v right after p
    prepare  p v       only v waits for p, p gives back nothing and reaches no higher than v    ->  run p right before v
    lanes    a b c ..  what else waits for one of them, or is waited for, is so for all of them ->  run them in this order

A floor of what is left is a floor of the whole graph. To show this, each merge is looked at in the graph as it is at that point; this file shares
nothing with reduce.py, which finds them, and asks for no more than the proofs below need. `live` means live bytes before the task in question.

Words
    before, behind   the tasks that must be done before one, and those that it must be done before, as bits, directly or not
    keeps            bytes that a task writes and that are not gone when it is done
    surely frees     bytes of what it reads, all other readers being before it: they die with it in every order
    may free         bytes of what it reads, no reader being behind it: they die with it in some order

follow.  Let an order run v later than just after p. All that v waits for is before p, so v may run there. It adds no more than it surely
         frees, so what runs between runs on no more than before. Its own height there is at most live + keeps(p) - surely frees(p) + needs(v),
         which is at most live + needs(p), the height of p.
prepare. Let an order run p earlier than just before v. All that waits for p is v, or behind it, so p may run there. It adds keeps(p) less at
         most what it may free, and no less than nothing, so what runs between runs on no more than before. Its own height there is at most
         live + needs(p), which is at most live + keeps(p) - may free(p) + needs(v), and that is at most the height of v, as it was.
lanes.   What runs between two of them is neither before nor behind any of them, so it may change places with them. What a task frees is the same
         in every order, since it surely frees all that it may free; so live bytes are what they have added so far, and the rest by what else is
         done: a buffer that one of them reads has a reader behind them all, or the last of its readers is one of them in every order.
         First come those that add nothing, by rising needs, then the others, by falling needs less what they add. Let an order run A, then tasks
         Z of no lane, then B that should be before A (and waits for it in no way, or the list would be out of order). Z changes what is
         live without A and B from z to z', A adds a and needs A^, B likewise; these changes raise no height:
             both add something, B^ - b >= A^ - a    ->  Z B A    Z and B run on a bytes less; A reaches z' + b + A^ <= z' + a + B^, as B did
             both add nothing, B^ <= A^              ->  B A Z    B reaches z + B^ <= z + A^, as A did; A and Z run on no more than before
             A adds something, B nothing             ->  Z B A if z' <= z: A reaches z' + b + A^ <= z + A^, Z and B run on a bytes less.
                                                         Else B A Z: B reaches z + B^ < z' + a + B^, A and Z run on no more than before
         After as many changes as there are pairs in the wrong order, the tasks run in this one.
joined.  p and v back to back reach needs(p) (follow), or at least keeps(p) - may free(p) + needs(v) (prepare), above what was live before. So
         the one task that stands for both needs that; what both leave behind must fit in it, or it would seem to need more than they do.

>>> from theano_memopt.planner.model import build_graph
>>> chain = build_graph({"a": 4, "b": 1}, [("load", (), ("a",)), ("sum", ("a",), ("b",)), ("print", ("b",), ())], keep=("b",))
>>> left = after_merges(chain, [Merge(FOLLOW, (1, 2)), Merge(PREPARE, (0, 1))])
>>> left.graph.allocates, left.task_number
((5,), {1: 0})
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Sequence, Set, Tuple

from theano_memopt.planner.model import WORKSPACE, Buffer, Graph, Task

FOLLOW, PREPARE, LANES = "follow", "prepare", "lanes"


class Merge(NamedTuple):
    rule: str
    tasks: Tuple[int, ...]
    """By their numbers in the whole graph; two that are one go by that of p (follow), or of v (prepare)."""


class WrongMerge(ValueError):
    """A merge that its rule does not allow. `reason` is a fixed word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Left(NamedTuple):
    graph: Graph
    task_number: Dict[int, int]
    """Of each task that is left."""
    buffer_number: Dict[int, int]


def after_merges(graph: Graph, merges: Sequence[Merge]) -> Left:
    """The graph that is left, or `WrongMerge`."""
    replay = _Replay(graph)
    for merge in merges:
        replay.do(merge)
    return replay.left()


class _Replay:
    def __init__(self, graph: Graph) -> None:
        buffers = graph.buffers
        self.graph = graph
        self.before = [0] * len(graph.tasks)
        self.behind = [0] * len(graph.tasks)
        for t in graph.natural_order:
            for p in graph.predecessors[t]:
                self.before[t] |= self.before[p] | 1 << p
        for t in reversed(graph.natural_order):
            for s in graph.successors[t]:
                self.behind[t] |= self.behind[s] | 1 << s
        self.there = (1 << len(graph.tasks)) - 1
        self.part_of = list(range(len(graph.tasks)))
        self.edges = [(p, t) for t, needs in enumerate(graph.predecessors) for p in needs]
        self.needs = list(graph.allocates)
        self.reads = [{b for b in task.reads if buffers[b].producer is not None} for task in graph.tasks]
        self.writes = [{b for b in task.writes if buffers[b].readers or buffers[b].pinned} for task in graph.tasks]
        self.readers = [sum(1 << t for t in buffer.readers) for buffer in buffers]

    def do(self, merge: Merge) -> None:
        for t in merge.tasks:
            if not 0 <= t < len(self.graph.tasks):
                raise WrongMerge("unknown-task", f"a merge names task {t}, which does not exist")
            if not self.there >> t & 1:
                raise WrongMerge("merged-before", f"task {self._name(t)} is part of another one already")
        if len(set(merge.tasks)) < len(merge.tasks) or len(merge.tasks) < 2 or merge.rule != LANES and len(merge.tasks) > 2:
            raise WrongMerge("broken-merge", f"{merge.rule!r} takes two tasks, lanes two or more, each once")
        if merge.rule == FOLLOW:
            self._follow(*merge.tasks)
        elif merge.rule == PREPARE:
            self._prepare(*merge.tasks)
        elif merge.rule == LANES:
            self._line_up(merge.tasks)
        else:
            raise WrongMerge("broken-merge", f"a merge is by {FOLLOW}, {PREPARE} or {LANES}, not {merge.rule!r}")

    def _follow(self, p: int, v: int) -> None:
        if (self.before[v] ^ (self.before[p] | 1 << p)) & self.there:
            raise WrongMerge("not-neighbours", f"task {self._name(v)} does not wait for {self._name(p)} alone")
        if self._keeps(v) > self._surely_frees(v) or self.needs[v] > self.needs[p] - self._keeps(p) + self._surely_frees(p):
            raise WrongMerge("too-high", f"task {self._name(v)} may need more right after {self._name(p)} than later")
        self._join(p, v, into=p, needs=self.needs[p])

    def _prepare(self, p: int, v: int) -> None:
        if (self.behind[p] ^ (self.behind[v] | 1 << v)) & self.there:
            raise WrongMerge("not-neighbours", f"task {self._name(v)} is not the only one that waits for {self._name(p)}")
        adds = self._keeps(p) - self._may_free(p)
        if adds < 0 or self.needs[p] > adds + self.needs[v]:
            raise WrongMerge("too-high", f"task {self._name(p)} may need more right before {self._name(v)} than earlier")
        self._join(p, v, into=v, needs=adds + self.needs[v])

    def _line_up(self, tasks: Sequence[int]) -> None:
        outside = self.there & ~sum(1 << t for t in tasks)
        done = 0
        for t in tasks:
            if ((self.before[t] ^ self.before[tasks[0]]) | (self.behind[t] ^ self.behind[tasks[0]])) & outside:
                raise WrongMerge("not-beside", f"tasks {self._name(t)} and {self._name(tasks[0])} have other tasks before or behind them")
            if self._surely_frees(t) != self._may_free(t):
                raise WrongMerge("unsure", f"what task {self._name(t)} frees depends on the order")
            if self.behind[t] & done:
                raise WrongMerge("wrong-order", f"task {self._name(t)} comes after one that waits for it")
            self.before[t] |= done
            done |= 1 << t
        if any(self._place(t) > self._place(later) for t, later in zip(tasks, tasks[1:])):
            raise WrongMerge("wrong-order", "first come tasks that add nothing, by rising needs, then others, by falling needs less what they add")
        done = 0
        for t in reversed(tasks):
            self.behind[t] |= done
            done |= 1 << t
        self.edges.extend(zip(tasks, tasks[1:]))

    def _place(self, t: int) -> Tuple[int, int]:
        adds = self._keeps(t) - self._may_free(t)
        return (0, self.needs[t]) if adds <= 0 else (1, adds - self.needs[t])

    def _join(self, p: int, v: int, into: int, needs: int) -> None:
        gone = v if into == p else p
        for b in self.writes[p] & self.reads[v]:
            self.reads[v].remove(b)
            self.readers[b] &= ~(1 << v)
            if not self.readers[b] and not self.graph.buffers[b].pinned:
                self.writes[p].remove(b)
        for b in self.reads[gone]:
            self.readers[b] = self.readers[b] & ~(1 << gone) | 1 << into
        self.reads[into] |= self.reads[gone]
        self.writes[into] |= self.writes[gone]
        self.needs[into] = needs
        self.part_of[gone] = into
        self.there &= ~(1 << gone)
        if self._keeps(into) > needs:
            raise WrongMerge("too-much-kept", f"one task for {self._name(p)} and {self._name(v)} would need {needs} bytes, and leave more behind")

    def _keeps(self, t: int) -> int:
        return sum(self.graph.buffers[b].size for b in self.writes[t])

    def _surely_frees(self, t: int) -> int:
        buffers, others = self.graph.buffers, ~(self.before[t] | 1 << t)
        return sum(buffers[b].size for b in self.reads[t] if not buffers[b].pinned and not self.readers[b] & others)

    def _may_free(self, t: int) -> int:
        buffers = self.graph.buffers
        return sum(buffers[b].size for b in self.reads[t] if not buffers[b].pinned and not self.readers[b] & self.behind[t])

    def _name(self, t: int) -> str:
        return repr(self.graph.tasks[t].label)

    def left(self) -> Left:
        """Each task that is left by its name, with what it needs beside the buffers that it leaves behind as a workspace."""
        left = [t for t in range(len(self.graph.tasks)) if self.there >> t & 1]
        number = {t: i for i, t in enumerate(left)}
        after: List[Set[int]] = [set() for _ in left]
        for p, t in self.edges:
            earlier, later = number[self._whole(p)], number[self._whole(t)]
            if earlier != later:
                after[later].add(earlier)
        kept = sorted(b for t in left for b in self.writes[t])
        buffer_number = {b: i for i, b in enumerate(kept)}
        made_by = {b: number[t] for t in left for b in self.writes[t]}
        read_by: Dict[int, List[int]] = {b: [] for b in kept}
        for t in left:
            for b in self.reads[t]:
                read_by[b].append(number[t])
        buffers = []
        for b in kept:
            old, name = self.graph.buffers[b], f"buffer {b}"  # so that no workspace is named like it
            buffers.append(Buffer(old.size, old.kind, made_by[b], tuple(read_by[b]), old.pinned, name))
        tasks = []
        for t in left:
            writes = [buffer_number[b] for b in sorted(self.writes[t])]
            workspace = self.needs[t] - self._keeps(t)
            if workspace:
                writes.append(len(buffers))
                buffers.append(Buffer(workspace, WORKSPACE, number[t], (), False, f"workspace {t}"))
            reads = tuple(buffer_number[b] for b in sorted(self.reads[t]))
            tasks.append(Task(reads, tuple(writes), tuple(sorted(after[number[t]])), self.graph.tasks[t].label))
        return Left(Graph(tuple(tasks), tuple(buffers)), number, buffer_number)

    def _whole(self, t: int) -> int:
        """The task that stands for this one."""
        while self.part_of[t] != t:
            t = self.part_of[t]
        return t

"""Safe shrinking: merge tasks that some optimal order runs back to back, plan the smaller graph, lift the order back.

Two rules, used until neither applies. "Only" neighbours are meant after edges that other edges imply are dropped.

    follow     v allocates nothing and p is all that it waits for       ->  run v right after p
    prepare    p frees nothing in any order and only v waits for p      ->  run p right before v

Lemma (follow). Moving v forward to just after p changes no height for the worse: v adds no bytes, so every set between
holds at most what it held, and v's own height is what p left behind, at most p's height.
Lemma (prepare). Moving p back to just before v takes p's bytes out of every set between and frees nothing later than
before, because p frees nothing; p's own height is at most v's, since what p wrote is still live while v runs.

A merged task allocates what the sum of its parts holds at their highest moment; what of that does not outlive the merged
task becomes a workspace buffer that nobody reads. So the smaller graph is an ordinary `Graph` with the same optimum.

>>> from theano_memopt.planner.model import build_graph
>>> chain = build_graph({"a": 4, "b": 1}, [("load", (), ("a",)), ("sum", ("a",), ("b",)), ("print", ("b",), ())], keep=("b",))
>>> reduced = reduce_graph(chain)
>>> len(reduced.graph.tasks), reduced.lift([0])
(1, (0, 1, 2))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence, Set, Tuple

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
        """The inverse: merged tasks in the order of their heads. By the lemmas the peak does not rise."""
        number = {head: merged for merged, head in enumerate(self.heads)}
        return tuple(number[task] for task in order if task in number)


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


def reduce_graph(graph: Graph) -> Reduced:
    """Merge until neither rule applies."""
    merging = _Merging(graph)
    queue = list(graph.natural_order)[::-1]
    while queue:
        task = queue.pop()
        if task in merging.parts:
            queue.extend(merging.try_follow(task) or merging.try_prepare(task))
    return merging.result()


def unreduced(graph: Graph) -> Reduced:
    """Nothing merged: for those who want to see what merging saves."""
    return Reduced(graph, tuple((t,) for t in range(len(graph.tasks))), tuple(range(len(graph.tasks))))


class _Merging:
    """The graph while it shrinks. A merged task goes by the name of its head: p for `follow`, v for `prepare`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ancestors = ancestor_masks(graph)
        self.before = direct_predecessors(graph, self.ancestors)
        self.behind: List[Set[int]] = [set() for _ in graph.tasks]
        for task, needs in enumerate(self.before):
            for p in needs:
                self.behind[p].add(task)
        self.touched: List[int] = []  # tasks that a superfluous edge has left; they may have one neighbour now
        self.parts: Dict[int, Tuple[int, ...]] = {t: (t,) for t in range(len(graph.tasks))}
        self.needs = list(graph.allocates)
        self.readers: List[Set[int]] = [set(b.readers) for b in graph.buffers]
        self.reads: List[Set[int]] = [set(t.reads) for t in graph.tasks]
        self.writes: List[Set[int]] = [set(t.writes) for t in graph.tasks]

    def try_follow(self, v: int) -> List[int]:
        """Merge v behind the one task it waits for, if v allocates nothing. Answers the tasks to look at again."""
        if self.needs[v] or len(self.before[v]) != 1:
            return []
        (p,) = self.before[v]
        self.behind[p].remove(v)
        for later in self.behind[v]:
            self.before[later].remove(v)
            self._link(p, later)
        return self._join(p, v, self.parts[p] + self.parts[v])

    def try_prepare(self, p: int) -> List[int]:
        """Merge p in front of the one task that waits for it, if p frees nothing whatever the order."""
        if len(self.behind[p]) != 1 or not self._frees_nothing(p):
            return []
        (v,) = self.behind[p]
        self.before[v].remove(p)
        for earlier in self.before[p]:
            self.behind[earlier].remove(p)
            self._link(earlier, v)
        self.needs[v] += self.needs[p]
        return self._join(v, p, self.parts[p] + self.parts[v])

    def _frees_nothing(self, p: int) -> bool:
        if self.needs[p] != sum(self.graph.buffers[b].size for b in self.writes[p] if self.readers[b] or self.graph.buffers[b].pinned):
            return False  # it has bytes of its own that nobody keeps
        return all(
            buffer.pinned or buffer.size == 0 or buffer.producer is None or any(self.ancestors[r] >> p & 1 for r in self.readers[b])
            for b, buffer in ((b, self.graph.buffers[b]) for b in self.reads[p])
        )

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
        self.parts[head] = parts
        del self.parts[gone]
        self.writes[head] |= self.writes[gone]
        self.reads[head] |= self.reads[gone]
        for b in self.reads[gone]:
            self.readers[b].discard(gone)
            self.readers[b].add(head)
        for b in self.writes[head] & self.reads[head]:  # written and read inside: now only the readers outside count
            self.readers[b].discard(head)
            self.reads[head].discard(b)
        again = [*self.touched, head, *sorted(self.before[head]), *sorted(self.behind[head])]
        self.touched.clear()
        return again

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

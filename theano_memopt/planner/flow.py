"""Least live memory before a task, as a minimum cut that grows by one done task at a time.

The question: over all down-sets that contain the ancestors of a task v and some other tasks, but not v itself, how few
bytes can be live? Since live bytes are submodular (liveness.py), a minimum cut answers it.

    node t     "task t is done"                    arc producer(b) -> b       room = size of b   cut: b is live
    node b     "all readers of b are done"         arc b -> reader, b -> end  no limit           (to the end if b is pinned)
                                                   arc t -> what t needs      no limit           a done task has done needs
    source     the tasks forced to be done         v and the end are where the flow must not get to

Forcing one more task can only raise the cut. It is enough to look for new paths that begin at that task: nodes from which
no path is left stay that way (`_closed`), because a path that touched one of them could be continued from there.

The compiled twin, _search.cpp, walks the arcs in the same order, so it stops at the same value when a limit is hit.

>>> from theano_memopt.planner.model import worked_example
>>> cut = Cut(Network(worked_example()), 3)        # before right_sum, the right array is there
>>> cut.value
6
>>> cut.force(2, limit=100), cut.value             # ... and if left_sum is done by then, its number too
(True, 7)
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from theano_memopt.planner.model import Graph
from theano_memopt.planner.reduce import ancestor_masks

INFINITE = 1 << 200


class Network:
    """The arcs, shared by every cut of one graph. Arc 2k is given with its reverse 2k + 1."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        tasks, buffers = len(graph.tasks), len(graph.buffers)
        self.end = tasks + buffers
        self.arcs: List[List[int]] = [[] for _ in range(self.end + 1)]
        self.to: List[int] = []
        self.room: List[int] = []
        for b, buffer in enumerate(graph.buffers):
            if buffer.producer is None or buffer.size == 0:
                continue
            self._join(buffer.producer, tasks + b, buffer.size)
            if buffer.pinned:
                self._join(tasks + b, self.end, INFINITE)
            else:
                for reader in buffer.readers:
                    self._join(tasks + b, reader, INFINITE)
        for task, needs in enumerate(graph.predecessors):
            for needed in needs:
                self._join(task, needed, INFINITE)
        self.ancestors = ancestor_masks(graph)

    def _join(self, start: int, stop: int, room: int) -> None:
        for node, other, space in ((start, stop, room), (stop, start, 0)):
            self.arcs[node].append(len(self.to))
            self.to.append(other)
            self.room.append(space)


class CutMark(NamedTuple):
    flows: int
    closed: int
    value: int


class Cut:
    """The cut for one task v; `value` is the least live memory, the ancestors of v being done, v and `undone` not."""

    def __init__(self, network: Network, task: int, undone: Sequence[int] = ()) -> None:
        self.task = task
        self.value = 0
        self._sinks = frozenset((task, network.end, *undone))
        self._network = network
        self._room = list(network.room)
        self._closed = bytearray(network.end + 1)
        self._flow_log: List[Tuple[int, int]] = []
        self._closed_log: List[int] = []
        self._force_together([t for t in reversed(network.graph.natural_order) if network.ancestors[task] >> t & 1])

    def force(self, done: int, limit: int) -> bool:
        """Demand that task `done` is done too. False as soon as the value is above the limit; then it is a lower bound."""
        if done in self._sinks:
            self.value = INFINITE
        if self._closed[done]:
            return self.value <= limit
        while self.value <= limit:
            path = self._find_path(done)
            if path is None:
                return True
            pushed = min(self._room[arc] for arc in path)
            if pushed >= INFINITE // 2:  # `done` cannot be done before v
                self.value = INFINITE
                break
            for arc in path:
                self._shift(arc, pushed)
                self._flow_log.append((arc, pushed))
            self.value += pushed
        return self.value <= limit

    def mark(self) -> CutMark:
        return CutMark(len(self._flow_log), len(self._closed_log), self.value)

    def undo(self, mark: CutMark) -> None:
        while len(self._flow_log) > mark.flows:
            arc, pushed = self._flow_log.pop()
            self._shift(arc, -pushed)
        while len(self._closed_log) > mark.closed:
            self._closed[self._closed_log.pop()] = 0
        self.value = mark.value

    def flows(self) -> List[int]:
        """What flows through each arc, reverses left out."""
        return [self._network.room[arc] - self._room[arc] for arc in range(0, len(self._room), 2)]

    def least_set(self) -> bytes:
        """For each task whether it is done in the smallest of the sets that have this value: what the forced tasks still reach."""
        return bytes(self._closed[: len(self._network.graph.tasks)])

    def _force_together(self, sources: List[int]) -> None:
        """Force many tasks at once, from nothing (Dinic: shortest paths first, a whole level graph at a time)."""
        network = self._network
        while True:
            level = self._levels(sources)
            if all(level[sink] < 0 for sink in self._sinks):
                break
            next_arc = [0] * (network.end + 1)
            for source in sources:
                self._push_along(source, level, next_arc)
        for node, distance in enumerate(level):
            if distance >= 0:
                self._closed[node] = 1

    def _levels(self, sources: List[int]) -> List[int]:
        network = self._network
        level = [-1] * (network.end + 1)
        for source in sources:
            level[source] = 0
        queue = list(sources)
        for node in queue:
            for arc in network.arcs[node]:
                other = network.to[arc]
                if self._room[arc] > 0 and level[other] < 0:
                    level[other] = level[node] + 1
                    if other not in self._sinks:
                        queue.append(other)
        return level

    def _push_along(self, source: int, level: List[int], next_arc: List[int]) -> None:
        """All that gets from one source to v or the end, one level a step."""
        network = self._network
        path: List[int] = []
        node = source
        while True:
            if node in self._sinks:
                pushed = min(self._room[arc] for arc in path)
                self.value += pushed
                for arc in path:
                    self._shift(arc, pushed)
                del path[next(i for i, arc in enumerate(path) if self._room[arc] == 0) :]
            else:
                arcs = network.arcs[node]
                while next_arc[node] < len(arcs) and not (
                    self._room[arcs[next_arc[node]]] > 0 and level[network.to[arcs[next_arc[node]]]] == level[node] + 1
                ):
                    next_arc[node] += 1
                if next_arc[node] < len(arcs):
                    path.append(arcs[next_arc[node]])
                elif path:
                    level[node] = -2  # nothing gets through here any more, in this phase
                    path.pop()
                else:
                    return
            node = network.to[path[-1]] if path else source

    def _shift(self, arc: int, pushed: int) -> None:
        self._room[arc] -= pushed
        self._room[arc ^ 1] += pushed

    def _find_path(self, start: int) -> Optional[List[int]]:
        """Arcs of a path with room, breadth first; where there is none, everything reached is closed for good."""
        network, room, closed = self._network, self._room, self._closed
        arcs, to = network.arcs, network.to
        via = {start: -1}
        queue = [start]
        for node in queue:
            for arc in arcs[node]:
                other = to[arc]
                if room[arc] <= 0 or closed[other] or other in via:
                    continue
                via[other] = arc
                if other in self._sinks:
                    return _trace(via, other, to)
                queue.append(other)
        for node in queue:
            closed[node] = 1
        self._closed_log.extend(queue)
        return None


def _trace(via: Dict[int, int], node: int, to: List[int]) -> List[int]:
    path: List[int] = []
    while via[node] >= 0:
        path.append(via[node])
        node = to[via[node] ^ 1]
    return path


def chains(network: Network, flows: Sequence[int], ends: Sequence[int]) -> List[Tuple[int, Tuple[int, ...]]]:
    """The flow of a cut as witnesses: (bytes, buffers), each chain of buffers one of which must be live.

    `ends` are the tasks that are not done. The flow is taken apart into paths; circles, which augmenting can leave behind,
    are cancelled on the way.
    """
    tasks = len(network.graph.tasks)
    sinks = frozenset((network.end, *ends))
    flow = {2 * i: amount for i, amount in enumerate(flows) if amount > 0}
    out: Dict[int, List[int]] = {}
    surplus: Dict[int, int] = {}
    for arc, amount in flow.items():
        start, stop = network.to[arc ^ 1], network.to[arc]
        out.setdefault(start, []).append(arc)
        surplus[start] = surplus.get(start, 0) + amount
        surplus[stop] = surplus.get(stop, 0) - amount
    found: List[Tuple[int, Tuple[int, ...]]] = []
    for source in sorted(node for node, extra in surplus.items() if extra > 0):
        while surplus[source] > 0:
            path: List[int] = []
            node = source
            position = {source: 0}
            while node not in sinks:
                arc = next(a for a in out[node] if flow[a] > 0)
                path.append(arc)
                node = network.to[arc]
                if node in position:  # a circle: cancel it and go on from where it began
                    circle = path[position[node] :]
                    least = min(flow[a] for a in circle)
                    for a in circle:
                        flow[a] -= least
                    path = path[: position[node]]
                    position = {source: 0}
                    for i, a in enumerate(path):
                        position[network.to[a]] = i + 1
                else:
                    position[node] = len(path)
            amount = min([surplus[source]] + [flow[a] for a in path])
            for a in path:
                flow[a] -= amount
            surplus[source] -= amount
            found.append((amount, tuple(network.to[a] - tasks for a in path if tasks <= network.to[a] < network.end)))
    return found

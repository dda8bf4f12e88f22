"""Lanes in one order where the lemma of reduce.py does not hold: good orders to begin with, and no proof.

    fork --> lane a --\\                                           fork --> a --> b --> c --> join
         --> lane b ---> join        all lanes read the fork
         --> lane c --/

A result that several lanes read dies with the last of them to begin, so what the others should do depends on which one that is. Here it
counts as outliving every lane until their order is fixed, and from then on it dies where it does. The hills and valleys of the lanes are
those that they have at their worst; their order may be bad, but in workflows and in series-parallel graphs it seldom is.

What comes out is a graph with fewer orders: each of them is an order of the whole graph, with the same peak, but the best may be missing.

>>> from theano_memopt.planner.model import build_graph
>>> from theano_memopt.planner.reduce import reduce_graph
>>> graph = build_graph(
...     {"source": 5, "a": 9, "b": 4, "x": 1, "y": 3, "sum": 1},
...     [("fork", (), ("source",)), ("read a", ("source",), ("a",)), ("read b", ("source",), ("b",)),
...      ("shrink a", ("a",), ("x",)), ("shrink b", ("b",), ("y",)), ("join", ("x", "y"), ("sum",))], keep=("sum",))
>>> len(reduce_graph(graph).graph.tasks), [graph.tasks[t].label for t in line_up(graph).lift([0])]
(6, ['fork', 'read a', 'shrink a', 'read b', 'shrink b', 'join'])
"""

from __future__ import annotations

from typing import Callable, List, Sequence, Set, Tuple

from theano_memopt.planner.bits import members_of
from theano_memopt.planner.model import Graph
from theano_memopt.planner.reduce import Merging, Reduced, before_any


def line_up(graph: Graph, stop: Callable[[], bool] = lambda: False) -> Reduced:
    """Merge as far as it goes, all lanes in one order."""
    return LinedUp(graph, fully=True).reduced(stop)


class LinedUp(Merging):
    def _may_line_up(self, lane: Sequence[int]) -> bool:
        return True

    def _in_one_order(self, lanes: Sequence[Sequence[int]]) -> List[int]:
        """What is not sure keeps tasks apart that else would be one: each such piece of a lane counts as one task."""
        pieces = sorted((piece for lane in lanes for piece in self._pieces(lane)), key=lambda piece: piece[0])
        return [task for _, tasks in pieces for task in tasks]

    def _pieces(self, lane: Sequence[int]) -> List[Tuple[Tuple[int, int], Sequence[int]]]:
        """The lane from valley to valley: first those that go down, then those that go up, each with its place among those of other lanes."""
        hills, valleys = [], [0]
        for task in lane:
            hills.append(valleys[-1] + self.needs[task])
            valleys.append(valleys[-1] + self.keeps[task] - self.frees[task])
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

    def _chain_up(self, order: Sequence[int], above: Set[int], below: Set[int]) -> None:
        """Which task of the lanes is the last to read a buffer is known now."""
        super()._chain_up(order, above, below)
        for b in sorted({b for task in order for b in self.reads[task]}):
            last = self.last[b] & ~before_any(members_of(self.last[b]), self.ancestors)
            if last != self.last[b]:
                self._now_last(b, last)
        self._look_again_at_what_changed()

"""One call in which every result is looked at: which ops write into the places that they were given, and which fill an array again.

place given, and the result lies elsewhere             the op allocates for itself: the buffer has no place from now on
array of the recorded call found, another left         the op allocates in each call: the array is let go after its last reader
a result in the block that nothing declares            the op hands out memory that it was given: no arena for this function
"""

from __future__ import annotations

from typing import Any, Dict, List, Set

import numpy as np
from theano.ifelse import IfElse

from theano_memopt.hosts.theano.run.arena.block import Block
from theano_memopt.hosts.theano.run.arena.fitting import ArenaPlanner, Fitting
from theano_memopt.hosts.theano.run.machines import empty


class Trial:
    """Looks at each node when it has run. Arrays that ops allocated for themselves are let go in this call already."""

    def __init__(self, planner: ArenaPlanner, fitting: Fitting, block: Block) -> None:
        self.known = known = planner.variables
        self.block = block
        roots = planner.reading.roots
        self.elsewhere: Set[int] = set()
        """Buffers that were given a place, and whose op put another array into the cell."""
        self.allocated: Set[int] = {b for b in known.unjudged if isinstance(roots[b].owner.op, IfElse)}
        """Buffers without a place whose op made another array than the one in the cell. An IfElse never looks into its cell."""
        self.astray: List[Any] = []
        """Variables that lie in the block without having a place there."""
        self._expected = {roots[b]: (b, block.address + offset) for b, offset in zip(fitting.buffers, fitting.offsets)}
        self._placed = set(fitting.buffers)
        ending = (*fitting.buffers, *known.unjudged)
        known.unjudged -= self.allocated
        cells = {b: known.storage_map[roots[b]] for b in known.unjudged}
        self._found = {roots[b]: (b, cell[0]) for b, cell in cells.items() if cell[0] is not None}
        self._step = {planner.reading.nodes[t]: step for step, t in enumerate(fitting.order)}
        self._ending: Dict[int, List[int]] = {}
        for b in ending:
            if known.ends_for_certain(b):
                self._ending.setdefault(planner.last_step(fitting.order, b), []).append(b)

    def look(self, node: Any) -> None:
        for v in node.outputs:
            value = self.known.storage_map[v][0]
            if v in self._found:
                b, before = self._found.pop(v)
                if self.known.judge(b, before, value):
                    self.allocated.add(b)
            if isinstance(value, np.ndarray):
                self._look_where_it_lies(v, value)
        for b in self._ending.get(self._step[node], ()):
            if b in self.elsewhere or b in self.allocated:
                empty(self.known.cells_of(b))

    def _look_where_it_lies(self, v: Any, array: np.ndarray) -> None:
        address = array.ctypes.data
        if v in self._expected and address != self._expected[v][1]:
            self.elsewhere.add(self._expected[v][0])
        elif array.nbytes and self.block.has(address) and not self.known.buffers_of.get(v, set()) & self._placed:
            self.astray.append(v)

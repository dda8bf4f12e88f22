"""Machines that run the same thunks in several orders, and what is known of the sizes of a call.

What is planned while a function is compiled rests on sizes that are partly assumed. With a call they are known: the order is
searched again, and a machine made over the thunks that there are, in milliseconds.

    signature  what the sizes rest on: shapes of inputs and shared variables (and whole numbers among the inputs)
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Callable, Collection, Dict, List, Optional, Sequence, Tuple

import numpy as np
from theano import tensor
from theano.gof import link

from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.feature import MemReuse
from theano_memopt.hosts.theano.read.true_sizes import Signature, TrueShapes
from theano_memopt.hosts.theano.run.thunks import followed
from theano_memopt.options import PlanOptions
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import lives
from theano_memopt.planner.load import Span, loads
from theano_memopt.planner.model import Graph
from theano_memopt.planner.plan import Plan, Storage, along, put_together
from theano_memopt.progress import planning

ORDERS = 4
"""Orders, and machines over the same thunks, that are kept."""

Order = Tuple[int, ...]
Cell = List[Any]
Shaped = Sequence[Tuple[int, np.dtype, Tuple[int, ...]]]
"""Buffer, dtype and true shape."""
Sources = Dict[Any, Tuple[Tuple[int, ...], Optional[int]]]
"""Of each input on which sizes rest its shape, and its value if that matters."""


@dataclass(frozen=True)
class ComesAgain:
    """Has a call the signature of an earlier one?"""

    shapes: Tuple[Tuple[Cell, Any], ...]
    """Cells of the inputs that the signature rests on, and the shapes that were in them."""
    values: Tuple[Tuple[Cell, int], ...]
    """The same for whole numbers."""

    def __call__(self) -> bool:
        try:
            for cell, shape in self.shapes:
                if cell[0].shape != shape:
                    return False
            for cell, value in self.values:
                if cell[0] != value:
                    return False
        except AttributeError:  # an input that was not given
            return False
        return True


class Machines:
    """What does not change from call to call: the graph, the thunks, and the machines made over them."""

    def __init__(
        self, make: Callable[..., Any], feature: MemReuse, annotation: Annotation, linker: Any, thunks: Sequence[Any], storage_map: Any, graph: Graph
    ) -> None:
        self._make = make
        self.feature, self.linker, self.storage_map = feature, linker, storage_map
        self.fgraph = linker.fgraph
        self.allow_gc = linker.allow_gc
        self.annotation = annotation
        self.reading = annotation.reading
        self.graph = graph
        """That orders are searched for, and lives are counted on."""
        self.orders: List[Order] = [annotation.schedule.order]
        """The orders found last. The host's own is none of them, and always competes."""
        self.order = annotation.schedule.order
        """The order in use."""
        self._spans: Dict[Order, Tuple[Span, ...]] = {}
        self._machines: Dict[Order, Any] = {}
        self._watching: List[Any] = []
        """Machines of one call, until a profile has taken their times."""
        self.time_thunks: Any = False
        """Are the nodes timed, for Theano's profile?"""
        self._thunk = dict(zip(annotation.nodes, thunks))
        self.shapes: Optional[TrueShapes] = None
        self._index = {root: b for b, root in enumerate(self.reading.roots)}

    # --- machines ----------------------------------------------------------------------------------------------------

    @planning("making a machine for another order")
    def machine(self, order: Order) -> Any:
        if order not in self._machines:
            if len(self._machines) >= ORDERS:
                self.retire(next(iter(self._machines)))
            self._machines[order] = self._build(order, self.allow_gc, None)
        return self._machines[order]

    def retire(self, *orders: Order) -> None:
        """No call runs in these machines any more. What they have counted for Theano's profiler is not lost."""
        for order in orders:
            machine = self._machines.pop(order)
            if self.time_thunks:
                self._watching.append(machine)

    def watching(self, order: Order, allow_gc: bool, look: Callable[[Any], None]) -> Any:
        """A machine that lets `look` see each node when it has run."""
        return self._build(order, allow_gc, look)

    def _build(self, order: Order, allow_gc: bool, look: Optional[Callable[[Any], None]]) -> Any:
        nodes = [self.reading.nodes[t] for t in order]
        thunks = [self._thunk[node] for node in nodes]
        if look is not None:
            thunks = [followed(thunk, functools.partial(look, node)) for node, thunk in zip(nodes, thunks)]
        for position, cells in self.let_go_at(order).items():
            thunks[position] = followed(thunks[position], functools.partial(empty, cells))
        before, kept = self.linker.allow_gc, self.feature.adopt(self.feature.reordered(self.annotation, order))
        self.linker.allow_gc = allow_gc
        try:
            made = self._make(nodes, thunks, self._clears(nodes) if allow_gc else None)
            made.time_thunks = self.time_thunks
            if look is not None and self.time_thunks:
                self._watching.append(made)
            return made
        finally:
            self.linker.allow_gc = before
            self.feature.adopt(kept)

    def time(self, wanted: Any) -> None:
        """Have every machine count and time its nodes, or none."""
        self.time_thunks = wanted
        for machine in self._machines.values():
            machine.time_thunks = wanted

    def update_profile(self, profile: Any) -> None:
        """Hand on what was counted since the last time."""
        for machine in [*self._watching, *self._machines.values()]:
            machine.update_profile(profile)
        self._watching.clear()

    def let_go_at(self, order: Order) -> Dict[int, List[Cell]]:
        """For positions in the order, the cells that are emptied when the task there has run. A machine with gc empties them itself."""
        return {}

    def _clears(self, nodes: Sequence[Any]) -> List[List[Cell]]:
        """As Theano's make_all has it: after each node the cells that it reads last."""
        computed, last_user = link.gc_helper(list(nodes))
        return [
            [self.storage_map[v] for v in node.inputs if v in computed and v not in self.fgraph.outputs and node == last_user[v]] for node in nodes
        ]

    def starts_with(self, machine: Any) -> None:
        """The machine that Theano made for the first order."""
        self._machines[self.orders[0]] = machine
        self.time(machine.time_thunks)

    # --- sizes -------------------------------------------------------------------------------------------------------

    @planning("reading the formulas of the shapes")
    def read_formulas(self, value_of: Optional[Callable[[Any], Any]] = None) -> Signature:
        """Write out the formulas, for the inputs that are in their cells now, or for these values."""
        asked = [root for root in self.reading.roots if isinstance(root.type, tensor.TensorType)]
        asked += [v for workspace in self.reading.workspaces for v in workspace.asks]
        self.shapes = TrueShapes(self.fgraph, self.annotation.nodes, dict.fromkeys(asked), value_of or (lambda v: self.storage_map[v][0]))
        return self.signature()

    def read_formulas_at(self, sources: Sources) -> Signature:
        """The same for the call that had these sources; its arrays may be gone."""
        return self.read_formulas(lambda v: _stand_in(*sources[v]))

    def signature(self) -> Signature:
        assert self.shapes is not None
        return self.shapes.signature()

    def comes_again(self, signature: Signature) -> ComesAgain:
        """Asks in a later call whether it comes with this signature."""
        assert self.shapes is not None
        cells = [self.storage_map[v] for v in [*self.shapes.shape_sources, *self.shapes.value_sources]]
        pairs, count = list(zip(cells, signature)), len(self.shapes.shape_sources)
        return ComesAgain(tuple(pairs[:count]), tuple(pairs[count:]))

    def sources(self, came: ComesAgain) -> Sources:
        """Input variable -> its shape, and its value if that matters, in the call that had these."""
        assert self.shapes is not None
        found: Sources = {v: (shape, None) for v, (_, shape) in zip(self.shapes.shape_sources, came.shapes)}
        for v, (_, value) in zip(self.shapes.value_sources, came.values):
            found[v] = ((), value)
        return found

    def shapes_at(self, signature: Signature) -> Dict[Any, Tuple[int, ...]]:
        """The shape of each variable that has a formula."""
        assert self.shapes is not None
        try:
            return dict(zip(self.shapes.known, self.shapes.shapes(*signature)))
        except Exception:  # a formula divides by a length that is 0 now, say: this call allocates as Theano does
            return {}

    def shaped(self, signature: Signature) -> Shaped:
        """The true shape of each buffer that has a formula."""
        return self._shaped(self.shapes_at(signature))

    def _shaped(self, known: Dict[Any, Tuple[int, ...]]) -> Shaped:
        return [(self._index[v], np.dtype(v.type.dtype), shape) for v, shape in known.items() if v in self._index]

    def workspaces_at(self, signature: Signature) -> List[int]:
        """True bytes of every workspace. Where they depend on data, the guess."""
        return self._workspaces(self.shapes_at(signature))

    def _workspaces(self, known: Dict[Any, Tuple[int, ...]]) -> List[int]:
        guessed = [buffer.size for buffer in self.graph.buffers[len(self.reading.roots) :]]
        return [w.bytes([known[v] for v in w.asks]) if known.keys() >= set(w.asks) else size for w, size in zip(self.reading.workspaces, guessed)]

    def sizes_at(self, signature: Signature) -> Tuple[int, ...]:
        """True bytes of every buffer. Where they depend on data, the guess."""
        sizes = [buffer.size for buffer in self.graph.buffers[: len(self.reading.roots)]]
        known = self.shapes_at(signature)
        for b, dtype, shape in self._shaped(known):
            sizes[b] = max(0, math.prod(shape)) * dtype.itemsize
        return (*sizes, *self._workspaces(known))

    # --- orders ------------------------------------------------------------------------------------------------------

    def best_known(self, sizes: Sequence[int]) -> Order:
        """Of the orders found so far and the host's own the one with the least peak at these sizes; the one in use if it is as good."""
        if self.feature.settings.order == "host":
            return self.order
        return min(dict.fromkeys((self.order, *self.orders, self.annotation.stock)), key=lambda order: self.peak(order, sizes))

    @planning("looking for the best order at the sizes of a call")
    def best_order(self, sizes: Sequence[int]) -> Order:
        """The order to run at these sizes. It is kept if it is new."""
        best = self.searched(sizes)
        if best not in (*self.orders, self.annotation.stock):
            self.orders = [*self.orders, best][-ORDERS:]
        return best

    def searched(self, sizes: Sequence[int]) -> Order:
        """What `best_order` answers, and nothing is kept. For a new order a new machine has to be made: only if it gains."""
        best = self.best_known(sizes)
        if self.annotation.options.effort and self.feature.settings.order == "auto":
            schedule = minimise_peak(self.graph.resized(sizes), self.annotation.options, [("order until now", best)])
            if schedule.peak < self.peak(best, sizes):
                found = self.feature.reordered(self.annotation, schedule.order)
                known = self.annotation.steps is None or found.steps is not None
                if known and self.peak(found.schedule.order, sizes) < self.peak(best, sizes):
                    return found.schedule.order
        return best

    def plan_of(self, graph: Graph, order: Order, storage: Storage, may_share: Optional[Collection[int]], options: PlanOptions) -> Plan:
        """A graph at true sizes, and this order and storage with what is known of the least peak there."""
        found = minimise_peak(graph, options, [("order in use", order)])
        return put_together(graph, along(found, graph, order, method_of(self.annotation, order)), storage, options, may_share)

    def spans(self, order: Order) -> Tuple[Span, ...]:
        if order not in self._spans:
            if len(self._spans) >= 2 * ORDERS:
                self._spans.clear()
            self._spans[order] = lives(self.graph, order)
        return self._spans[order]

    def peak(self, order: Order, sizes: Sequence[int]) -> int:
        return max(loads(sizes, self.spans(order), len(order)), default=0)


def method_of(annotation: Annotation, order: Order) -> str:
    """How an order of this function was found."""
    return annotation.schedule.method if order == annotation.schedule.order else "planned for these sizes"


def _stand_in(shape: Tuple[int, ...], value: Optional[int]) -> Any:
    """Something with this shape and value that takes no memory."""
    return np.broadcast_to(np.zeros(()), shape) if value is None else value


def empty(cells: Sequence[Cell]) -> None:
    for cell in cells:
        cell[0] = None

"""Machines that run the same thunks in several orders, and the order that is best at the true sizes of a call.

What is planned while a function is compiled rests on sizes that are partly assumed. With the first call they are known: the
order is searched again, and a machine made over the thunks that there are, in milliseconds. Other sizes get the best of
the orders known so far, and a search when they have come a few times in a row.

    compiled   sizes assumed   order A
    call 1     x is 64 x 200   order B, for it needs less at these sizes
    call 2     as before       B
    call 3     x is 9 x 200    A or B, whichever needs less; at the third such call a search

Cells that were bound for order A stay bound. So tenants keep their sequence in every order (`tied`), and of those between
which a gap has come up, the first is cleared when it dies: Theano's op then makes its array itself.

Words
    signature  what the sizes rest on: shapes of inputs and shared variables (and whole numbers among the inputs)
    familiar   a signature that has come several times in a row
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from dataclasses import replace
from itertools import accumulate
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from theano import tensor
from theano.gof import link

from theano_memopt.hosts.theano.rewrite import Annotation, MemReuse, StoodAside, along, complain, cvm_order, others_demands, reordered
from theano_memopt.hosts.theano.true_shapes import Signature, TrueShapes
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import lives
from theano_memopt.planner.model import Graph
from theano_memopt.planner.plan import Plan

ORDERS = 4
"""Orders, and machines over the same thunks, that are kept."""
SIGNATURES = 64
"""Signatures of which it is kept what was decided; the one not used for longest goes first."""
FAMILIAR = 3
"""Calls after which a new signature is worth a search; before that it gets what is best of what is known."""
MOST = 2000
"""Tasks for which a call may wait for an order: about a second."""

Order = Tuple[int, ...]
Span = Tuple[int, int]
Cell = List[Any]


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
        self.hosts: Sequence[Order] = ()
        """Orders that compete wherever one is chosen."""
        self.order = annotation.schedule.order
        """The order in use."""
        self._spans: Dict[Order, Tuple[Span, ...]] = {}
        self._machines: Dict[Order, Any] = {}
        self._thunk = dict(zip(annotation.nodes, thunks))
        self.shapes: Optional[TrueShapes] = None
        self.row: List[Tuple[int, np.dtype]] = []
        """Buffer and dtype of each shape that the formulas give."""

    # --- machines ----------------------------------------------------------------------------------------------------

    def machine(self, order: Order) -> Any:
        if order not in self._machines:
            if len(self._machines) >= ORDERS:
                self._machines.pop(next(iter(self._machines)))
            self._machines[order] = self._build(order, self.allow_gc, None)
        return self._machines[order]

    def watching(self, order: Order, allow_gc: bool, look: Callable[[Any], None]) -> Any:
        """A machine that lets `look` see each node when it has run."""
        return self._build(order, allow_gc, look)

    def _build(self, order: Order, allow_gc: bool, look: Optional[Callable[[Any], None]]) -> Any:
        nodes = [self.reading.nodes[t] for t in order]
        thunks = [self._thunk[node] if look is None else looked_at(node, self._thunk[node], look) for node in nodes]
        before, kept = self.linker.allow_gc, self.feature.adopt(reordered(self.annotation, self.feature, order))
        self.linker.allow_gc = allow_gc
        try:
            return self._make(nodes, thunks, self._clears(nodes) if allow_gc else None)
        finally:
            self.linker.allow_gc = before
            self.feature.adopt(kept)

    def _clears(self, nodes: Sequence[Any]) -> List[List[Cell]]:
        """As Theano's make_all has it: after each node the cells that it reads last."""
        computed, last_user = link.gc_helper(list(nodes))
        return [
            [self.storage_map[v] for v in node.inputs if v in computed and v not in self.fgraph.outputs and node == last_user[v]] for node in nodes
        ]

    # --- sizes -------------------------------------------------------------------------------------------------------

    def read_formulas(self) -> Signature:
        """Write out the formulas, for the inputs that are in their cells now."""
        asked = [root for root in self.reading.roots if isinstance(root.type, tensor.TensorType)]
        self.shapes = TrueShapes(self.fgraph, self.annotation.nodes, asked, lambda v: self.storage_map[v][0])
        index = {root: b for b, root in enumerate(self.reading.roots)}
        self.row = [(index[v], np.dtype(v.type.dtype)) for v in self.shapes.known]
        return self.signature()

    def signature(self) -> Signature:
        assert self.shapes is not None
        shapes = [self.storage_map[v][0].shape for v in self.shapes.shape_sources]
        return (*shapes, *(int(self.storage_map[v][0]) for v in self.shapes.value_sources))

    def shapes_at(self, signature: Signature) -> Sequence[Any]:
        assert self.shapes is not None
        try:
            return self.shapes.shapes(*signature)
        except Exception:  # a formula divides by a length that is 0 now, say: this call allocates as Theano does
            return ()

    # --- orders ------------------------------------------------------------------------------------------------------

    def best_order(self, sizes: Sequence[int]) -> Order:
        """For a new order a new machine has to be made: only if it gains."""
        graph = self.graph.resized(sizes)
        best = self.best_known_order(sizes)
        if self.annotation.options.effort and self.feature.settings.order == "auto":
            schedule = minimise_peak(graph, self.annotation.options, [("order until now", best)])
            if schedule.peak < self.peak(best, sizes):
                best = schedule.order
                self.orders = [*self.orders, best][-ORDERS:]
        return best

    def spans(self, order: Order) -> Tuple[Span, ...]:
        if order not in self._spans:
            if len(self._spans) >= 2 * ORDERS:
                self._spans.clear()
            self._spans[order] = lives(self.graph, order)
        return self._spans[order]

    def best_known_order(self, sizes: Sequence[int]) -> Order:
        return min([*self.orders, *self.hosts], key=lambda order: self.peak(order, sizes))

    def peak(self, order: Order, sizes: Sequence[int]) -> int:
        changes = [0] * (len(order) + 1)
        for size, (born, dead) in zip(sizes, self.spans(order)):
            changes[born] += size * (born < dead)
            changes[dead] -= size * (born < dead)
        return max(accumulate(changes))


class Around:
    """A machine around Theano's, which looks at the inputs before each call. In everything else it is that machine."""

    def __init__(self, machines: Machines, vm: Any) -> None:
        self.machines = machines
        self.vm = vm
        machines._machines[machines.orders[0]] = vm
        self.storage_map, self.compute_map = machines.storage_map, None
        self.allow_gc = machines.allow_gc
        self.need_update_inputs = getattr(vm, "need_update_inputs", True)
        self.follow: Optional[Callable[[Order], None]] = None
        """Is told the order of every machine that is about to run."""
        self.signature: Optional[Signature] = None
        self.calls = 0
        """With this signature, in a row."""
        self._look_at_everything()

    def _look_at_everything(self) -> None:
        """The next call takes the slow way."""
        self.shapes_now: Tuple[Tuple[Cell, Any], ...] = (([None], ()),)
        self.values_now: Tuple[Tuple[Cell, int], ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name in ("vm", "machines", "house", "lender"):
            raise AttributeError(name)
        return getattr(self.vm, name)

    def _as_before(self) -> bool:
        try:
            for cell, shape in self.shapes_now:
                if cell[0].shape != shape:
                    return False
            for cell, value in self.values_now:
                if cell[0] != value:
                    return False
        except AttributeError:
            return False
        return True

    def _settle(self, signature: Signature) -> None:
        """From now on a few comparisons are enough."""
        shapes = self.machines.shapes
        assert shapes is not None
        cells = [self.storage_map[v] for v in [*shapes.shape_sources, *shapes.value_sources]]
        pairs = list(zip(cells, signature))
        self.shapes_now = tuple(pairs[: len(shapes.shape_sources)])
        self.values_now = tuple(pairs[len(shapes.shape_sources) :])

    def _run(self, output_subset: Any) -> Any:
        return self.vm() if output_subset is None else self.vm(output_subset=output_subset)


class OrderVM(Around):
    """Theano's machine, in the order that is best at the true sizes."""

    def __init__(self, machines: Machines, vm: Any, storage: Callable[[Graph, Order], Any]) -> None:
        super().__init__(machines, vm)
        self.storage = storage
        self.aside = ""
        """Why nothing is looked at any more, once that is settled."""
        self.chosen: OrderedDict[Signature, Tuple[Order, bool]] = OrderedDict()
        """The order for a signature, and whether it was searched for."""
        self.sizes: Sequence[int] = ()

    def __call__(self, output_subset: Any = None) -> Any:
        if not self._as_before() and not self.aside:
            try:
                self._choose()
            except Exception as trouble:
                self._stand_aside(trouble)
        return self.vm() if output_subset is None else self.vm(output_subset=output_subset)

    def _choose(self) -> None:
        machines = self.machines
        try:
            signature = machines.read_formulas() if machines.shapes is None else machines.signature()
        except (AttributeError, TypeError):  # an input that was not given: with output_subset it may not be needed
            return
        self.calls = self.calls + 1 if signature == self.signature else 1
        order, searched = self.chosen.get(signature, (None, False))
        if order is None or (not searched and self.calls >= FAMILIAR):
            sizes = self._sizes_at(signature)
            searched = not self.chosen or self.calls >= FAMILIAR
            order = machines.best_order(sizes) if searched else machines.best_known_order(sizes)
            self.chosen[signature] = (order, searched)
            if len(self.chosen) > SIGNATURES:
                self.chosen.popitem(last=False)
        self.chosen.move_to_end(signature)
        self.signature = signature
        self.vm, machines.order = machines.machine(order), order
        if self.follow is not None:
            self.follow(order)
        if searched:
            self._settle(signature)
        else:
            self._look_at_everything()

    def _sizes_at(self, signature: Signature) -> List[int]:
        """Bytes of every buffer; as they were assumed where a shape depends on data."""
        sizes = [buffer.size for buffer in self.machines.graph.buffers]
        for (b, kind), shape in zip(self.machines.row, self.machines.shapes_at(signature)):
            sizes[b] = max(0, math.prod(shape)) * kind.itemsize
        return sizes

    def _stand_aside(self, trouble: Exception) -> None:
        """The order until now, from now on."""
        self.aside = "the order for the true sizes could not be planned"
        self.chosen.clear()
        complain(StoodAside(self.aside, f"{type(trouble).__name__}: {trouble}"), trouble)

    def plan(self) -> Optional[Plan]:
        """For the sizes of the last call; None before there was one."""
        machines = self.machines
        if self.signature is None or self.aside:
            return None
        graph = machines.reading.graph.resized(self._sizes_at(self.signature))
        options = machines.annotation.options
        schedule = along(minimise_peak(graph, options, [("order in use", machines.order)]), graph, machines.order)
        return Plan(graph, schedule, self.storage(graph, machines.order), options, machines.feature.sharing)


def with_true_orders(
    vm: Any,
    make: Callable[..., Any],
    feature: MemReuse,
    annotation: Annotation,
    linker: Any,
    thunks: Any,
    storage_map: Any,
    tenants: Sequence[Sequence[int]],
    storage: Callable[[Graph, Order], Any],
    follow: Optional[Callable[[Order], None]],
) -> Any:
    """The machine `vm`, which `make(nodes, thunks, clears)` can make again over another order, in the best order at the true sizes.

    `tenants` are the buffers of each cell; `storage` says what they are in another order; `follow` as in Around.
    """
    machines = Machines(make, feature, annotation, linker, thunks, storage_map, tied(annotation.reading.graph, tenants))
    index = {node: t for t, node in enumerate(annotation.reading.nodes)}
    cvm = cvm_order(annotation.reading.nodes, linker.fgraph.outputs, others_demands(linker.fgraph))
    hosts = [annotation.reading.graph.natural_order, tuple(index[node] for node in cvm)]
    machines.hosts = [order for order in hosts if machines.graph.is_legal(order)]
    machine = OrderVM(machines, vm, storage)
    machine.follow = follow
    feature.true_plan = asked_of(machine)
    return machine


def asked_of(machine: Any) -> Callable[[], Optional[Plan]]:
    """Its plan, as long as it is there."""
    weak = weakref.ref(machine)

    def plan() -> Optional[Plan]:
        alive = weak()
        return None if alive is None else alive.plan()

    return plan


def tied(graph: Graph, tenants: Sequence[Sequence[int]]) -> Graph:
    """The graph in which buffers of one cell have to come in this sequence: each is made when the one before it is read no more."""
    waits: Dict[int, set] = {}
    for before, after in ((pair[0], pair[1]) for inside in tenants for pair in zip(inside, inside[1:])):
        first, second = graph.buffers[before], graph.buffers[after]
        assert first.producer is not None and second.producer is not None
        waits.setdefault(second.producer, set()).update([first.producer, *first.readers])
    tasks = [replace(task, after=tuple(sorted({*task.after, *waits.get(t, ())} - {t}))) for t, task in enumerate(graph.tasks)]
    return replace(graph, tasks=tuple(tasks))


def looked_at(node: Any, thunk: Any, look: Callable[[Any], None]) -> Any:
    def run() -> Any:
        asked_for = thunk()
        if not asked_for:
            look(node)
        return asked_for

    run.lazy, run.inputs, run.outputs = thunk.lazy, thunk.inputs, thunk.outputs  # type: ignore[attr-defined]
    return run

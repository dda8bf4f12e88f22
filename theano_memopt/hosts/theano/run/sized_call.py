"""The machine of a function some of whose lengths are only guessed while it is compiled: the order for the sizes that come.

    call with sizes never seen     formulas -> true sizes -> best order -> a machine over the same thunks and cells     (once, milliseconds)
    the same sizes again           compare the shapes of the inputs, run Theano's machine
    no order saves more than that  run Theano's machine in the host's own order, until an input has grown or shrunk

An arena does the same and more (run/arena). This one is for functions with gc whose variables have cells of Theano's, shared or not:
without gc every array stays, whatever the order.

Words
    chain       the tenants of one cell, in the sequence in which they live there
    tied        a graph in which every tenant is born after the death of the one before it in its chain
    held        a cell between two tenants: its array is there, and nothing in it is needed

Why it is sound. Thunks know their cells for good, so a tenant keeps its cell whatever the order. Each order is legal in the tied graph, so
no two tenants of a cell ever live at once; `check_slots` holds every order against that before its machine is made. The host's own order is
always one of them (cells.py binds no chain that it would break), so no call has to run in an order that is worse than stock's.

When a search is made (`CellPlanner._calls_for_a_search`). At the first call; when the host's own order is better than every order found so
far; and when some result is more than SIZES_ALIKE times larger or smaller than at every search so far. In between, and after SEARCHES of them, the
best order known is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from theano import tensor

from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.feature import MemReuse, StoodAside, complain
from theano_memopt.hosts.theano.read.true_sizes import Signature
from theano_memopt.hosts.theano.run import cells
from theano_memopt.hosts.theano.run.machines import ComesAgain, Machines, Order, Sources
from theano_memopt.hosts.theano.run.stand_in import StandIn
from theano_memopt.hosts.theano.run.worthwhile import HasGrown, HasShrunk, kept_at_most, needs_less_than_an_order, no_order_saves_enough
from theano_memopt.planner.plan import Plan
from theano_memopt.planner.slots import Slots

SIZES_ALIKE = 2
"""Between sizes that differ by less, the best order of the one was as good for the other as its own (benchmarks/sizes.py)."""
SEARCHES = 32
"""Searches for one function. After them the best of the orders kept is taken."""
ORDERS_AT_MOST = 1024
"""Signatures of which the order is remembered at most; the one not used for longest goes first."""
ORDERS_AT_LEAST = 16
"""Signatures that are remembered whatever they take. More of them only while they take at most a part in `SHARE` of the least peak planned."""
NONE_BETTER = "no better order was found"
OF_A_SIGNATURE = 100
"""Bytes of Python objects that one takes, by tracemalloc."""
STRANGERS = 64
"""After so many calls in a row, each with a signature that was not known, nothing is searched for and no order is remembered until one comes
again. Each call takes the best order that is known then."""


@dataclass(frozen=True)
class Unseen:
    """No call has come yet. The machine has the order for the guessed sizes."""


@dataclass(frozen=True)
class InOrder:
    """The order in use is the one for the sizes of the last call."""

    order: Order
    signature: Signature
    came: ComesAgain


@dataclass(frozen=True)
class Small:
    """The host's own order runs: no order saves as many bytes as the objects take that choose one, or none that is better was found."""

    reason: str
    signature: Signature
    """Of the call at which this was found."""
    sources: Sources
    has_grown: HasGrown
    has_shrunk: HasShrunk
    """Asks nothing where smaller inputs can save nothing, either."""


@dataclass(frozen=True)
class NoOrder:
    """The sizes of calls cannot be known: every call runs in the host's own order."""

    reason: str


State = Union[Unseen, Small, InOrder, NoOrder]


class CellPlanner(Machines):
    """Orders and machines over cells that are bound already."""

    def __init__(self, make: Callable[..., Any], feature: MemReuse, linker: Any, thunks: Sequence[Any], storage_map: Any, binding: Any) -> None:
        """`make(nodes, thunks, clears)` makes a machine over another order."""
        annotation: Annotation = binding.annotation
        graph = annotation.reading.graph
        self.chains = cells.chains(graph, annotation.schedule.order, feature.storage)
        super().__init__(make, feature, annotation, linker, thunks, storage_map, cells.tied(graph, self.chains))
        self._binding = binding
        self._searched_at: List[Any] = []
        """The sizes at each search, as an array."""

    def order_for(self, sizes: Tuple[int, ...]) -> Order:
        """The order to run at these sizes, found by a search where one is called for."""
        best = self.best_known(sizes)
        if not self._calls_for_a_search(best, sizes):
            return best
        self._searched_at.append(np.array(sizes))
        return self.best_order(sizes)

    def host_is_best(self, sizes: Tuple[int, ...]) -> bool:
        """Is no order known, and none found, that is better than the host's own at these sizes?"""
        return self.peak(self.order_for(sizes), sizes) >= self.peak(self.annotation.stock, sizes)

    def would_run(self, sizes: Sequence[int]) -> Order:
        """What `order_for` would answer, and nothing is kept."""
        best = self.best_known(sizes)
        return self.searched(sizes) if self._calls_for_a_search(best, sizes) else best

    def _calls_for_a_search(self, best: Order, sizes: Sequence[int]) -> bool:
        if len(self._searched_at) >= SEARCHES:
            return False
        if best == self.annotation.stock not in self.orders:
            return True
        return not self.has_searched_near(sizes)

    def has_searched_near(self, sizes: Sequence[int]) -> bool:
        now = np.array(sizes)
        return any((before <= SIZES_ALIKE * now).all() and (now <= SIZES_ALIKE * before).all() for before in self._searched_at)

    def forget(self) -> None:
        """All that a machine in the host's own order does without."""
        self.shapes = None
        self.retire(*(order for order in list(self._machines) if order != self.order))
        self._spans.clear()

    def _build(self, order: Order, allow_gc: bool, look: Optional[Callable[[Any], None]]) -> Any:
        """With the clears withheld that this order wants withheld."""
        slots, before = self.storage(order), self._binding.next_tenant
        if slots is not None:
            self._binding.next_tenant = cells.following(self.reading, self.graph, order, slots)
        try:
            return super()._build(order, allow_gc, look)
        finally:
            self._binding.next_tenant = before

    def storage(self, order: Order, sizes: Optional[Sequence[int]] = None) -> Optional[Slots]:
        """The cells of this order at these sizes, or at the guessed ones, checked."""
        if self.feature.storage is None:
            return None
        return cells.along(self.graph if sizes is None else self.graph.resized(sizes), order, self.chains, set(self.feature.sharing or ()))


class SizedVM(StandIn):
    """It takes the order for the sizes of a call before Theano's machine runs."""

    planner: CellPlanner

    def __init__(
        self, planner: CellPlanner, vm: Any, linker: Any, storage_map: Any, follow: Optional[Callable[[Order], None]], sparing: bool
    ) -> None:
        """`sparing`: is it asked whether choosing an order is worthwhile?"""
        super().__init__(vm, linker, storage_map, follow)
        self.planner, self._sparing = planner, sparing
        self._inputs = tuple(storage_map[v] for v in linker.fgraph.inputs if isinstance(v.type, tensor.TensorType))
        planner.starts_with(vm)
        self.state: State = Unseen()
        self._orders: Dict[int, Optional[Order]] = {}
        """The order for the hash of each signature that came, the one used last at the end; None where its sizes were not looked at. Every
        order is right for all sizes, so a hash will do, and it takes a fifth of the bytes."""
        self._least_peak = math.inf
        """Of all calls whose sizes were looked at."""
        self._strangers = 0
        """Calls in a row, each with a signature that was not known."""

    def __call__(self, output_subset: Any = None) -> Any:
        state = self.state
        if (state.has_grown() or state.has_shrunk()) if isinstance(state, Small) else not (isinstance(state, InOrder) and state.came()):
            self._look_at_sizes()
        return self.vm() if output_subset is None else self.vm(output_subset=output_subset)

    def _look_at_sizes(self) -> None:
        """-> InOrder or Small; or NoOrder, with one warning."""
        planner = self.planner
        if isinstance(self.state, NoOrder):
            return
        try:
            try:
                signature = planner.signature() if planner.shapes is not None else planner.read_formulas()
            except (AttributeError, TypeError):  # an input was not given: Theano says so better, or output_subset does without it
                return
            found = self._small(signature) if self._sparing else None
            if found is None:
                self._sparing = False
                found = self._in_order(signature)
            self._run_in(planner.annotation.stock if isinstance(found, Small) else found.order)
            self.state = found
            if isinstance(found, Small):
                planner.forget()
        except Exception as trouble:
            self._stand_aside(trouble)

    def _small(self, signature: Signature) -> Optional[Small]:
        """The state for functions that are too small, if this is one."""
        planner = self.planner
        sizes = planner.sizes_at(signature)
        reason = no_order_saves_enough(planner, sizes)
        if not reason and not planner.host_is_best(sizes):
            return None
        came = planner.comes_again(signature)
        numbers = [cell for cell, _ in came.values]
        grown, shrunk = (self.state.has_grown, self.state.has_shrunk) if isinstance(self.state, Small) else (HasGrown(), HasShrunk())
        shrunk = HasShrunk() if needs_less_than_an_order(planner, sizes) else shrunk.asked(self._inputs, numbers)
        return Small(reason or NONE_BETTER, signature, planner.sources(came), grown.asked(self._inputs, numbers), shrunk)

    def _in_order(self, signature: Signature) -> InOrder:
        """The state for a call with this signature, remembered."""
        planner, key = self.planner, hash(signature)
        self._strangers = 0 if key in self._orders else self._strangers + 1
        order = self._orders.pop(key, None)
        if order is not None:
            self._orders[key] = order
        else:
            sizes, familiar = planner.sizes_at(signature), self._strangers <= STRANGERS
            order = planner.order_for(sizes) if familiar else planner.best_known(sizes)
            self._orders[key] = order if familiar else None
            if familiar:
                self._least_peak = min(self._least_peak, planner.peak(order, sizes))
            while len(self._orders) > kept_at_most(ORDERS_AT_LEAST, ORDERS_AT_MOST, OF_A_SIGNATURE, int(self._least_peak)):
                del self._orders[next(iter(self._orders))]
        return InOrder(order, signature, planner.comes_again(signature))

    def _run_in(self, order: Order) -> None:
        if order is self.planner.order:
            return
        self.vm = self.planner.machine(order)
        self.planner.order = order
        if self.follow is not None:
            self.follow(order)

    def _stand_aside(self, trouble: Exception) -> None:
        """-> NoOrder."""
        reason = "the order could not be planned for the sizes of a call"
        self.state = NoOrder(reason)
        self._run_in(self.planner.annotation.stock)
        complain(StoodAside(reason, f"{type(trouble).__name__}: {trouble}"), trouble)

    # --- what others ask ---------------------------------------------------------------------------------------------

    def order_at(self, sizes: Sequence[int]) -> Order:
        """What runs when a call comes with these sizes."""
        state, planner = self.state, self.planner
        if isinstance(state, InOrder) and planner.sizes_at(state.signature) == tuple(sizes):
            return state.order
        none_better = isinstance(state, Small) and planner.has_searched_near(sizes)
        if isinstance(state, NoOrder) or none_better or (self._sparing and no_order_saves_enough(planner, tuple(sizes))):
            return planner.annotation.stock
        return planner.would_run(sizes)

    def last_sources(self) -> Sources:
        """Of the last call whose sizes were looked at."""
        if isinstance(self.state, Small):
            return self.state.sources
        return self.planner.sources(self.state.came) if isinstance(self.state, InOrder) else {}

    def plan(self) -> Optional[Plan]:
        """What runs at the sizes of the last call; None before the first one."""
        state, planner = self.state, self.planner
        if isinstance(state, Small):
            planner.read_formulas_at(state.sources)
            sizes, order = planner.sizes_at(state.signature), planner.annotation.stock
            planner.forget()
        elif isinstance(state, InOrder):
            sizes, order = planner.sizes_at(state.signature), state.order
        else:
            return None
        graph, storage = planner.reading.graph.resized(sizes, "the last call"), planner.storage(order, sizes)
        return planner.plan_of(graph, order, storage, planner.feature.sharing, planner.annotation.options)

    @property
    def small(self) -> str:
        """Why the host's own order runs, while it does because the function is too small."""
        return self.state.reason if isinstance(self.state, Small) else ""

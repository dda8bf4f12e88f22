"""The machine of a function with an arena: Theano's own machine, with every cell filled with its place before each call.

    call 1     recorded   Theano allocates, with gc; each array is looked at when its task has run: shape, layout, whose memory
    call 2     tried      every cell is filled with its place in the block; a variable whose op writes elsewhere has none from now on
    call 3...             the same places again: compare the shapes of the inputs, fill the cells, run Theano's own machine

Picture: the cells of three variables before a call, and the block.

    cell of a  [view] ----------+                          +--- offset 0
    cell of b  [view] ------+   +---> |  a, later c        |
    cell of c  [view] --+   |         |                    |
                        |   +-------> |  b                 |
                        +-----------> (where a was)

Words are in block.py (block, place, lender), variables.py (candidates and others), fitting.py (fitting, and why it is sound) and
read/true_sizes.py (signature); the states and what leads from one to the next in states.py.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any, Callable, FrozenSet, List, Optional, Sequence, Set, Tuple

import numpy as np
from theano import tensor

from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.feature import MemReuse, StoodAside, complain
from theano_memopt.hosts.theano.read.true_sizes import Signature
from theano_memopt.hosts.theano.run.arena.block import ALIGNMENT, USER, Block, Lender, Lending, lender_for
from theano_memopt.hosts.theano.run.arena.fitting import ArenaPlanner, Fitting, Place
from theano_memopt.hosts.theano.run.arena.states import Aside, Fitted, New, Recorded, Settled, Small, State
from theano_memopt.hosts.theano.run.arena.trial import Trial
from theano_memopt.hosts.theano.run.machines import Cell, Order, Sources
from theano_memopt.hosts.theano.run.same_kind import flags_as_now
from theano_memopt.hosts.theano.run.stand_in import StandIn
from theano_memopt.hosts.theano.run.worthwhile import NEVER_ASKED, HasGrown, kept_at_most, too_little
from theano_memopt.planner.arena import Arena
from theano_memopt.planner.plan import Plan

FITTINGS_AT_MOST = 64
"""Fittings that are kept at most; the one not used for longest goes first. After as many calls in a row that find none, none is made."""
FITTINGS_AT_LEAST = 16
"""Fittings that are kept whatever they take. More of them only while they take at most a part in `SHARE` of the block."""
OF_A_FITTING = 900, 8
"""Bytes of Python objects that one takes with its signature, and those for each buffer that has a place, by tracemalloc."""
FAMILIAR = 3
"""Calls after which a new signature is worth a search; before that it gets the best known order and one-pass offsets."""
TRIALS = 3
"""Calls in which arrays outside the block are looked at; an op that has not run by then may keep the array that it has."""


class ArenaVM(StandIn):
    """It fills cells with their places before Theano's machine runs."""

    planner: Optional[ArenaPlanner]
    """None in the state Small."""

    def __init__(
        self,
        make_planner: Callable[[], ArenaPlanner],
        vm: Any,
        linker: Any,
        storage_map: Any,
        follow: Optional[Callable[[Order], None]],
        lender: Lender,
        sparing: bool,
    ) -> None:
        super().__init__(vm, linker, storage_map, follow)
        self.state: State = Small()
        self._make_planner = make_planner
        self._inputs = tuple(storage_map[v] for v in linker.fgraph.inputs if isinstance(v.type, tensor.TensorType))
        self._has_grown = NEVER_ASKED
        """In the state Small."""
        self.lender = lender
        self.lock: Any = threading.RLock()
        """Held in a call: another thread that calls this very function waits. (Its inputs lie in the same cells anyway.)"""
        self.emptying: Any = threading.RLock()
        """Held while another tenant's call empties the cells, and for no longer: nobody waits for anything meanwhile."""
        self.without_block = False
        """Is a call under way that allocates as Theano does, because another has the block?"""
        self.wants: Optional[Fitting] = None
        """The fitting of the last call, while its block is kept for the next one."""
        self._came: Optional[Signature] = None
        """The signature of the last call."""
        self._without_place: FrozenSet[int] = frozenset()
        """Candidates that have no place with it."""
        self._strangers = 0
        """Calls in a row, each with a signature that was not known."""
        self._tried: Set[int] = set()
        """Buffers whose place was seen to be written to."""
        self._trials = 0
        self.fittings: OrderedDict[Tuple[Signature, FrozenSet[int]], Fitting] = OrderedDict()
        self.block: Optional[Block] = None
        """The block that the places in `_filling` lie in. None: nothing in a cell lies in a block, whatever the call before left there."""
        self._filling: Tuple[Tuple[Cell, Any], ...] = ()
        """Cells, and the places that they are filled with."""
        self._places: Tuple[Place, ...] = ()
        """Of the fitting in force."""
        self._placed: Set[int] = set()
        """Buffers whose cells hold places, if they hold anything."""
        self._emptied_at_the_end: List[Cell] = []
        lender.add(self)
        if not sparing:
            self._begin(make_planner())

    # --- a call ------------------------------------------------------------------------------------------------------

    def __call__(self, output_subset: Any = None) -> Any:
        if self.planner is None:
            for cell, most in self._has_grown.most_bytes:  # written out here: the calls of a small function are so short that they feel a call more
                if getattr(cell[0], "nbytes", 0) > most:
                    break
            else:
                return self.vm() if output_subset is None else self.vm(output_subset=output_subset)
            if output_subset is not None or not self._has_become_worthwhile():
                return self._run(output_subset)
        lock = self.lock
        if lock._is_owned():  # this function itself, further up the stack
            return self._run_without_block(output_subset)
        # It is `with` and not acquire and try, for between those two Python looks for Ctrl-C, and the lock would be held for ever. A block
        # that stays taken harms nobody: the others do without it.
        with lock:
            lender = self.lender
            if lender.taken.setdefault(USER, self) is not self:
                if lender.lending is Lending.ASKED_FOR:
                    return self._run_without_block(output_subset)
                lender = self._move_out()
            try:
                state = self.state
                if isinstance(state, Settled) and state.comes_again():
                    self._fill(state)
                    result = self._run(output_subset)
                else:
                    result = self._run_anew(output_subset)
                if self.allow_gc:
                    lender.give_back()
                return result
            except BaseException:
                # The cells stay as they are, as with Theano's machines: the error message is made from them. The views hold
                # the block until the next call.
                if self.allow_gc:
                    self.block = lender.block = None
                raise
            finally:
                lender.taken.clear()

    def _move_out(self) -> Lender:
        """A lender of its own, which it has taken: another function of this thread is in a call, further up the stack or in another thread."""
        before, own = self.lender, Lender()
        own.taken[USER] = self
        own.add(self)
        with self.emptying:  # from here on nobody else empties the cells
            self.lender = own
        before.leave(self)
        if self.block is not None:
            self.let_go()
        return own

    def _fill(self, state: Fitted) -> None:
        """Every cell with its place, in a block that may be another than in the last call."""
        assert self.planner is not None
        if self.block is None or self.block is not self.lender.block:
            self._lay_out(state.fitting)
        else:
            for cell, place in self._filling:
                cell[0] = place
        for cell in self.planner.variables.emptied_first:
            cell[0] = None

    def _lay_out(self, fitting: Fitting) -> None:
        self.wants = fitting
        block = self.lender.of(fitting.height)
        place = block.place
        filling = []
        for cell, kind, offset, transposition in self._places:
            view = place(kind, offset)
            cell[0] = view if transposition is None else view.transpose(transposition)
            filling.append((cell, cell[0]))
        self._filling = tuple(filling)
        self.block = block

    def _run(self, output_subset: Any) -> Any:
        result = self.vm() if output_subset is None else self.vm(output_subset=output_subset)
        for cell in self._emptied_at_the_end:
            cell[0] = None
        return result

    def _run_without_block(self, output_subset: Any) -> Any:
        """Another function has the block, or this one itself further up the stack: allocate as Theano does."""
        assert self.planner is not None
        block, before = self.block, self.without_block
        with self.emptying:  # from here on nobody else empties the cells
            self.without_block = True
        outputs = {id(self.storage_map[v]) for v in self.planner.fgraph.outputs}
        kept = [(cell, cell[0]) for v, cell in self.storage_map.items() if v.owner is not None and id(cell) not in outputs]
        for cell, _ in kept:
            cell[0] = None
        try:
            return self._run(output_subset)
        finally:
            self.without_block = before
            for cell, value in kept:
                cell[0] = value
            if self.block is not block:  # given back meanwhile
                self.let_go()

    # --- from one state to the next ------------------------------------------------------------------------------------

    def _has_become_worthwhile(self) -> bool:
        """Small -> New, if an arena is worthwhile for the inputs of this call. It is asked again when one of them has grown."""
        if any(cell[0] is None for cell in self._inputs):  # one was not given: Theano says so better
            return False
        try:
            planner = self._make_planner()
            signature = planner.read_formulas()
            reason = too_little(planner, signature)
        except Exception as trouble:
            self._has_grown = HasGrown()
            self._stand_aside("the formulas of the shapes could not be read", trouble)
            return False
        if reason:
            self._has_grown = self._has_grown.asked(self._inputs)
            self.state = Small(reason, planner.sources(planner.comes_again(signature)))
            return False
        self._begin(planner)
        return True

    def _begin(self, planner: ArenaPlanner) -> None:
        planner.starts_with(self.vm)
        known = planner.variables
        self.state = New() if known.candidates or known.kept_by_theano else Aside("no variable may lie in an arena")
        self.planner = planner  # last: after Ctrl-C in between it is asked again whether an arena is worthwhile, and no recorded call is left out

    def _run_anew(self, output_subset: Any) -> Any:
        """A call that is not as the one before."""
        state = self.state
        if isinstance(state, Aside):
            return self._run(output_subset)
        if isinstance(state, New):
            return self._run(output_subset) if output_subset is not None else self._record()
        fitted = self._fit()
        if fitted is None or output_subset is not None or not self._is_to_be_tried(fitted.fitting):
            return self._run(output_subset)
        return self._try(fitted)

    def _record(self) -> Any:
        """New -> Recorded."""
        planner = self.planner
        assert planner is not None
        known = planner.variables
        if any(cell[0] is None for cell in known.arguments):  # Theano says so better, and the next call may give it
            return self._run(None)
        try:
            known.take_up_again()
            signature, layout = planner.read_formulas(), known.layout()  # before the call: updates may change shapes
            planner.order = order = planner.best_order(planner.sizes_at(signature))
            machine = planner.watching(order, True, known.record)
        except Exception as trouble:
            self._stand_aside("the formulas of the shapes could not be read", trouble)
            return self._run(None)
        if self.follow is not None:
            self.follow(order)
        result = self._run_once(machine, order)
        known.end_recording(layout, planner.shaped(signature))
        self.state, self._came = Recorded(), signature
        return result

    def _run_once(self, machine: Any, order: Order) -> Any:
        """One call of another machine. If it fails it stays in place: Theano asks it which node was to blame."""
        assert self.planner is not None
        self.vm = machine
        result = machine()
        self.vm = self.planner.machine(order)
        return result

    def _fit(self) -> Optional[Fitted]:
        """-> Fitted or Settled, with everything in its place for the sizes of this call. None: every cell is empty and Theano allocates."""
        assert self.planner is not None
        known = self.planner.variables
        try:
            signature = self.planner.signature()
        except (AttributeError, TypeError):  # an input that was not given: with output_subset it may not be needed
            self.let_go()
            return None
        try:
            fitting = self._fitting_for(signature)
            if fitting is None:
                self._leave_to_theano()
            else:
                self.state = self._put_in_force(signature, fitting)
            for cell, array in known.to_resize:
                cell[0] = array
            known.to_resize.clear()
        except MemoryError:  # there may be room for the parts, and for the whole another time
            self.state, self.wants = Recorded(), None
            self.let_go()
        except Exception as trouble:
            self._stand_aside("the arena could not be planned", trouble)
        return self.state if isinstance(self.state, Fitted) else None

    def _fitting_for(self, signature: Signature) -> Optional[Fitting]:
        """None if it does not pay to make one, or if nothing has a place."""
        planner = self.planner
        assert planner is not None
        known = planner.variables
        again = signature == self._came
        if not again:
            self._without_place = known.without_place(planner.shaped(signature) if known.asks_for_shapes() else ())
            if known.to_resize:
                self.fittings.clear()
                self.state = Recorded()
            self._came = signature  # last: what hangs on it is asked again after Ctrl-C
        key = (signature, self._without_place)
        fitting = self.fittings.get(key)
        self._strangers = 0 if again or fitting is not None else self._strangers + 1
        if self.is_left_to_theano():
            return None
        calls = self._calls_with(signature)
        if fitting is None or (not fitting.searched and calls >= FAMILIAR):
            fitting = planner.fit(signature, self._without_place, not self.fittings or calls >= FAMILIAR, self.lender.height)
            self.fittings[key] = fitting
            once, of_a_buffer = OF_A_FITTING
            needed = max(fitting.height, self.lender.height)
            while len(self.fittings) > kept_at_most(FITTINGS_AT_LEAST, FITTINGS_AT_MOST, once + of_a_buffer * len(fitting.buffers), needed):
                self.fittings.popitem(last=False)
        self.fittings.move_to_end(key)
        return fitting if fitting.buffers or known.kept_by_theano else None

    def _calls_with(self, signature: Signature) -> int:
        state = self.state
        return state.calls + 1 if isinstance(state, Fitted) and state.signature == signature else 1

    def is_left_to_theano(self) -> bool:
        """It does not pay to plan for signatures that will not come again: until one does, Theano allocates."""
        return self._strangers > FITTINGS_AT_MOST and self.planner is not None and self.planner.variables.always_in_c_order()

    def _leave_to_theano(self) -> None:
        """-> Recorded."""
        assert self.planner is not None
        known = self.planner.variables
        hopeless = not set(known.candidates) - known.allocates_itself - known.undeclared_alias - known.formula_mismatch
        if isinstance(self.state, Fitted) or self._filling:
            self.let_go()
        self._wants_nothing()
        self.state = Aside("no op writes where it is told") if hopeless and not known.kept_by_theano else Recorded()

    def _put_in_force(self, signature: Signature, fitting: Fitting) -> Fitted:
        planner, before = self.planner, self.state
        assert planner is not None
        calls = self._calls_with(signature)
        if not fitting.buffers and self._filling:
            self.let_go()
        anew = not (isinstance(before, Fitted) and before.fitting is fitting and before.signature == signature)
        if anew:
            self.state = Recorded()  # until all is in its place: after Ctrl-C the old places must not be used with the new order
            cells = planner.variables.cells
            for b in self._placed.difference(fitting.buffers):
                cells[b][0] = None
            self._placed = set(fitting.buffers)
            self.vm = planner.machine(fitting.order)
            if self.follow is not None:
                self.follow(fitting.order)
            self._places = planner.places(fitting, signature)
        self.wants = fitting
        too_large = self.lender.follow_down()
        state = Fitted(signature, fitting, calls)
        if anew:
            self._lay_out(fitting)
        self._fill(state)
        if not fitting.searched or self._is_to_be_tried(fitting) or too_large:
            return state
        return Settled(signature, fitting, calls, planner.comes_again(signature))

    def _is_to_be_tried(self, fitting: Fitting) -> bool:
        assert self.planner is not None
        return not self._tried.issuperset(fitting.buffers) or (bool(self.planner.variables.unjudged) and self._trials < TRIALS)

    def _try(self, state: Fitted) -> Any:
        """Fitted -> Recorded, if an op does not write into its place; or Aside."""
        planner, block, fitting = self.planner, self.block, state.fitting
        assert planner is not None and block is not None
        trial = Trial(planner, fitting, block)
        result = self._run_once(planner.watching(fitting.order, self.allow_gc, trial.look), fitting.order)
        if trial.astray:
            return self._gone_astray(result, trial.astray, block)
        self._tried.update(fitting.buffers)  # after that: Ctrl-C in between has them tried again
        self._trials += 1
        if trial.elsewhere:
            planner.variables.allocates_itself |= trial.elsewhere
            self._placed -= trial.elsewhere
            self.fittings.clear()
            self.state = Recorded()
        if not self.allow_gc:
            planner.let_go_from_now_on(trial.elsewhere | trial.allocated)
            planner.let_go_from_now_on(planner.without_room(fitting, planner.seen_sizes_at(state.signature)))
            self._emptied_at_the_end = planner.variables.emptied_at_the_end()
            self.vm = planner.machine(fitting.order)
        return result

    def _gone_astray(self, result: Any, astray: Sequence[Any], block: Block) -> Any:
        """Something lies in the block that no declaration explains: no arena for this function, and copies for the caller."""
        assert self.planner is not None
        for v in [*self.planner.fgraph.outputs, *self.planner.fgraph.inputs]:  # updates are in the inputs' cells by now
            cell = self.storage_map[v]
            if isinstance(cell[0], np.ndarray) and block.has(cell[0].ctypes.data):
                cell[0] = cell[0].copy()
        self._stand_aside(f"{astray[0].owner.op} hands out memory that it was given")
        if isinstance(result, list):
            return [r.copy() if isinstance(r, np.ndarray) and block.has(r.ctypes.data) else r for r in result]
        return result

    def _stand_aside(self, reason: str, trouble: Optional[BaseException] = None) -> None:
        """-> Aside."""
        self.state = Aside(reason)
        self.fittings.clear()
        self.let_go()
        if self.planner is not None:
            self._wants_nothing()
        complain(StoodAside(reason, "" if trouble is None else f"{type(trouble).__name__}: {trouble}"), trouble)

    # --- memory --------------------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """No cell refers to the block any more. While a call runs without the block, none does, and its own results lie there."""
        if not self.without_block and self.planner is not None:
            known = self.planner.variables
            outside = {id(known.cells[b]) for b in (known.allocates_itself | self._without_place) - self._placed}
            for cell in known.candidate_cells:
                if id(cell) not in outside:
                    cell[0] = None
            if self.is_left_to_theano():
                known.fill_with_c_order()
        self._filling = ()
        self.block = None

    def _wants_nothing(self) -> None:
        """The block may be for the other tenants alone. Only in a call that has taken it."""
        self.wants = None
        self.lender.follow_down()

    def release(self) -> None:
        """Give the block back. The other tenants make one anew when they need it."""
        if not self.lender.taken:
            with self.lock:
                self.wants = None
                self.lender.give_back_if_idle(self)

    def after_free(self) -> None:
        """`Function.free` has let go of all arrays, and with them of their layouts. Where a layout can be another one now: -> New. From then on
        only what is always in C order has a place, so the next `free`, after each run of a Scan maybe, changes nothing that was found out.
        """
        self.release()
        if not self.lender.taken:
            with self.lock:
                if self.planner is None or isinstance(self.state, Aside):
                    return
                if self.planner.variables.layouts_may_change():
                    self._forget_arrays(self.planner)
                else:
                    self.let_go()

    def _forget_arrays(self, planner: ArenaPlanner) -> None:
        self.let_go()
        self.state, self._came, self._without_place = New(), None, frozenset()
        planner.forget_arrays()
        self.fittings.clear()
        self._tried.clear()
        self._placed.clear()
        self._trials, self._filling, self._places, self._emptied_at_the_end = 0, (), (), []

    # --- what others ask -------------------------------------------------------------------------------------------------

    @property
    def fitting(self) -> Optional[Fitting]:
        """The one in force."""
        return self.state.fitting if isinstance(self.state, Fitted) else None

    @property
    def aside(self) -> str:
        """Why there is no arena, while that is so."""
        return self.state.reason if isinstance(self.state, (Small, Aside)) else ""

    def plan(self) -> Optional[Plan]:
        """Where everything lies for the sizes of the last call. After the first one its order alone is known; before it, None."""
        fitting, planner, came = self.fitting, self.planner, self._came
        if isinstance(self.state, Small) and self.state.sources is not None:
            planner = self._make_planner()
            came = planner.read_formulas_at(self.state.sources)
        if planner is None or came is None or isinstance(self.state, Aside):
            return None
        options = replace(planner.annotation.options, alignment=ALIGNMENT)
        if fitting is None:
            graph = planner.graph.resized(planner.sizes_at(came), "the last call")
            return planner.plan_of(graph, planner.order, None, (), options)
        sizes = planner.seen_sizes_at(came)
        graph = planner.graph.resized(sizes, "the last call")
        offsets: List[Optional[int]] = [None] * len(graph.buffers)
        for b, offset in zip(fitting.buffers, fitting.offsets):
            offsets[b] = offset
        arena = Arena(tuple(offsets), fitting.height, planner.floor(fitting, sizes))
        return planner.plan_of(graph, fitting.order, arena, fitting.buffers, options)

    def order_at(self, sizes: Sequence[int]) -> Optional[Order]:
        """What runs when a call comes with these sizes; None where it is not known, for Theano's machine alone runs."""
        if self.planner is None or isinstance(self.state, Aside):
            return None
        state = self.state
        if isinstance(state, Fitted) and self.planner.seen_sizes_at(state.signature) == tuple(sizes):
            return state.fitting.order
        return self.planner.searched(sizes)

    def last_sources(self) -> Sources:
        """Of each input on which the sizes rest, its shape in the last call whose sizes were looked at, and its value if that matters."""
        if isinstance(self.state, Small):
            return self.state.sources or {}
        if self.planner is None or self._came is None:
            return {}
        return self.planner.sources(self.planner.comes_again(self._came))

    def kept_outside(self) -> FrozenSet[int]:
        """Buffers without a place whose arrays stay in their cells after a call."""
        return frozenset() if self.planner is None else self.planner.variables.kept_outside()


def with_arena(
    vm: Any,
    make: Callable[..., Any],
    feature: MemReuse,
    annotation: Annotation,
    linker: Any,
    thunks: Any,
    storage_map: Any,
    follow: Optional[Callable[[Order], None]],
) -> Any:
    """The machine `vm`, which `make(nodes, thunks, clears)` can make again over another order, with an arena.

    `follow`, if given, is told the order of every machine that is about to run.
    """
    make_planner = flags_as_now()(functools.partial(ArenaPlanner, make, feature, annotation, linker, thunks, storage_map))
    lender = lender_for(linker.allow_gc)
    sparing = feature.settings.storage == "auto" and not linker.allow_gc and lender.lending is not Lending.ASKED_FOR
    return ArenaVM(make_planner, vm, linker, storage_map, follow, lender, sparing)

"""`explain`: where the memory of a compiled function goes, as a Report.

    feature on the function  ->  its plan  ->  at the sizes of these arguments  ->  peaks, storage, words  ->  Report

Words
    argument    an array, or the shape of one as a tuple, for each input that the caller gives; or no argument at all, for the
                sizes with which the function was compiled
    in force    what the function really runs; with other sizes than the planned ones a better order may be known, and
                the report then says so
"""

from __future__ import annotations

import contextlib
import copy
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import numpy as np
from theano import tensor
from theano.gof import Constant
from theano.gof import vm as host
from theano.scan_module.scan_op import Scan
from theano.tensor.subtensor import AdvancedIncSubtensor, AdvancedIncSubtensor1

from theano_memopt.hosts.theano import advice
from theano_memopt.hosts.theano.advice import Facts, Obstacle, advice_of
from theano_memopt.hosts.theano.explain_repeats import Once, named
from theano_memopt.hosts.theano.install import blas
from theano_memopt.hosts.theano.install.flags import storage_for
from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.feature import MemReuse, feature_of, others_demands
from theano_memopt.hosts.theano.optimize.making import copied_untold
from theano_memopt.hosts.theano.optimize.optimizer import planned_by, why_without_the_pass
from theano_memopt.hosts.theano.optimize.preallocated import would_write_into_preallocated, writes_into_preallocated
from theano_memopt.hosts.theano.optimize.recompute import goal_in_words, goal_of
from theano_memopt.hosts.theano.read.assumed_sizes import GUESS, Sizes, _known
from theano_memopt.hosts.theano.read.graph import Reading
from theano_memopt.hosts.theano.read.host_orders import host_orders
from theano_memopt.hosts.theano.read.op_facts import describe, kind_of, op_name
from theano_memopt.hosts.theano.read.scan_shapes import inner_shapes
from theano_memopt.hosts.theano.read.source_lines import made_at, short
from theano_memopt.hosts.theano.run import cells
from theano_memopt.hosts.theano.run.arena.block import Lending
from theano_memopt.hosts.theano.run.arena.variables import candidates
from theano_memopt.hosts.theano.run.machines import method_of
from theano_memopt.hosts.theano.run.sized_call import GROWTH, CellPlanner, SizedVM
from theano_memopt.hosts.theano.run.stand_in import unveiled
from theano_memopt.planner.arena import Arena, pack_graph
from theano_memopt.planner.certificate import Schedule
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.load import loads
from theano_memopt.planner.model import Graph
from theano_memopt.planner.plan import Plan, along, put_together
from theano_memopt.planner.slots import Slots, share_cells
from theano_memopt.progress import progress_of
from theano_memopt.report.comparison import occupied
from theano_memopt.report.model import Advice, Known, Need, Reserved, Work, total
from theano_memopt.report.printable import PrintableReport
from theano_memopt.report.repeats import Repeats

Progress = Callable[[str], None]
Given = Dict[Any, Tuple[Tuple[Optional[int], ...], Any]]
"""Input variable -> its shape, and its value if that is a single whole number."""
EFFORT = 20_000
"""States that the search for the least peak may open: more than while compiling, and still well below a second on training graphs."""
LARGE = 0.01
"""Words about why a variable is alone are looked for if it takes this share of all bytes."""
BELOW_EVERY_ORDER = (
    "Less than any order needs: with theano_memopt.mode(budget=0.5), or extra_time=0.1, cheap results run again instead of being kept, "
    "with the same bits; explain then says what each peak costs."
)
"""For functions with a large peak."""
SCAN_RELIEF = (
    "It would help to keep fewer steps (a Scan over parts of the sequence, x.reshape((parts, steps, ...)), whose step scans one part and hands out "
    "its last state: the gradient computes the steps of a part again; truncate_gradient looks back less far), to scan a shorter sequence at once, "
    "or to take a smaller batch."
)
"""Not theano.scan_checkpoints, which does the same: it divides the length of a sequence by `/`, so that on Python 3 it fails for every one."""
INDEX_RELIEF = (
    "It is the gradient of what was read by an index, and as large as all of that, whatever the batch. It would help to take the gradient with "
    "respect to the rows that are read, and to update these alone (theano.tensor.inc_subtensor)."
)


@dataclass(frozen=True)
class Sized:
    """A graph at certain sizes."""

    graph: Graph
    cautious: Graph
    shapes: Tuple[str, ...]
    """For each buffer."""
    given: Tuple[Need, ...]
    """What is there before a call."""
    lengths: Sizes
    arguments: bool
    """Are they the sizes of a call, not those at compile time?"""
    inputs: Tuple[Tuple[str, str], ...]
    """What the caller gives: the name of each, and its shape in words."""
    sizes_of: str
    """Whose shapes these are."""


class BadUse(ValueError):
    """What was given cannot be explained; the message is one line."""


class NoPlan(BadUse):
    """There is no plan to explain, and `reason` says why. It is the same for all functions of which the same is true."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}".replace("\n", " "))
        self.reason = reason


def explain(function: Any, *arguments: Any, progress: Optional[Progress] = None, **named: Any) -> PrintableReport:
    """Where the memory of a function that was compiled with the pass goes.

    `arguments`: for each input an array, a number, or a shape (a tuple), by position or by the input's name; or nothing, for the sizes of the
    last call, which may be those of a short last batch, and before the first one for those known at compile time. The headline names them.
    `progress` is called with a sentence now and then; without it, what takes longer than a second is told on standard error.

    >>> import theano_memopt, theano, theano.tensor as tt
    >>> x = tt.dmatrix("x")
    >>> y = tt.exp(tt.dot(x, x))
    >>> function = theano.function([x], tt.dot(y, y.T).sum(), mode=theano_memopt.mode("FAST_RUN"))
    >>> report = theano_memopt.explain(function, (10, 10))
    >>> report.peak, report.floor, report.peak_of("toposort")
    (1600, 1600, 1600)
    """
    subject = _Subject(compiled(function))
    arguments = subject.by_position(arguments, named)
    subject = subject.decided(arguments)
    if progress is not None:
        return subject.report(subject.sized(arguments), progress)
    with progress_of(f"explaining {subject.name}, {len(subject.reading.nodes)} tasks") as shown:
        return subject.report(subject.sized(arguments), shown)


def with_scans(function: Any, *arguments: Any) -> Iterator[Tuple[Any, PrintableReport]]:
    """The report of a function, and those of the functions inside its Scans and inside theirs, at the shapes that come from outside."""
    subject = _Subject(compiled(function))
    waiting = [(subject, subject.sized(arguments))]
    for subject, sized in waiting:
        yield subject.function, subject.report(sized, None)
        for node in subject.reading.nodes:
            if isinstance(node.op, Scan):
                with contextlib.suppress(NoPlan):
                    waiting.append(subject.inside(node, sized))


def arguments_by_position(function: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Tuple[Any, ...]:
    """Of a call of a function with a plan; `BadUse` if they do not fit."""
    subject = _Subject(compiled(function))
    found = subject.by_position(arguments, named)
    subject.match(found)
    return found


def decided(function: Any, arguments: Sequence[Any]) -> Any:
    """The function; or a copy of it, where the first call is to decide what runs again, that has decided as a call with these arguments would."""
    return _Subject(function).decided(arguments).function


def compiled(function: Any) -> Any:
    """The function itself, or the one inside a Scan (its op or node)."""
    op = getattr(function, "op", function)
    found = op.fn if isinstance(op, Scan) else function
    if not hasattr(getattr(found, "maker", None), "fgraph"):
        raise BadUse(f"only a function that Theano compiled can be explained, not {kind_of(function)}")
    return found


class _Subject:
    """One compiled function with its plan."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.fgraph = function.maker.fgraph
        self.linker = function.maker.linker
        self.name = name_of(function)
        feature = feature_of(self.fgraph)
        if feature is None:
            raise NoPlan(self.name, why_without_the_pass(function))
        annotation = feature.annotation(self.fgraph)
        if annotation is None:
            why = feature.aside
            said = "nothing is planned for it" if why is None else why.reason + (f" ({why.detail})" if why.detail else "")
            raise NoPlan(self.name, f"the pass left it as it was: {said}")
        self.feature: MemReuse = feature
        self.annotation: Annotation = annotation
        self.reading: Reading = annotation.reading
        self.ahead = False
        """Is it a copy that shows what the first call will decide?"""

    def decided(self, arguments: Sequence[Any]) -> _Subject:
        """As a first call with these arguments would make it. The function is left as it was."""
        if self.feature.waits is None or not arguments:
            return self
        subject = _Subject(copied_untold(self.function))
        subject.function.fn.settle(subject.sizes(subject.match(arguments)).shape_of, told=False)
        found = _Subject(subject.function)
        found.ahead = True
        return found

    # --- sizes ---------------------------------------------------------------------------------------------------

    def sized(self, arguments: Sequence[Any]) -> Sized:
        """The graph at the sizes of these arguments; without any, at those of the last call, and before the first one as it was planned."""
        given = self.match(arguments) if arguments else self.last_call()
        sizes = self.sizes(given)
        shapes = (*(_shape_at(sizes, root) for root in self.reading.roots), *("" for _ in self.reading.workspaces))
        inputs = tuple(self._inputs_at(sizes, given))
        if not given:
            sizes_of = "assumed" if sizes.has_free else "known while compiling"
            return Sized(self.reading.graph, self.reading.cautious, shapes, self.given(sizes), sizes, False, inputs, sizes_of)
        rows = self.reading.sizes_at(sizes.shape_of)
        source = sizes.sources() if arguments else "the last call"
        # Of the last call only that is known on which any size rests.
        asked = (*self.reading.roots, *(v for workspace in self.reading.workspaces for v in workspace.asks))
        free = sizes.has_free if arguments else any(len(set(sizes.bytes(v))) > 1 for v in asked)
        graph, cautious = (g.resized(rows, source, free) for g in (self.reading.graph, self.reading.cautious))
        whose = ("given" if arguments else "the last call") + (", other lengths assumed" if free else "")
        return Sized(graph, cautious, shapes, self.given(sizes), sizes, True, inputs, whose)

    def last_call(self) -> Given:
        """Of each input on which the sizes rest, its shape, and its value if that is one, in the last call of a machine that follows them."""
        asked = getattr(self.function.fn, "last_sources", None)
        return {} if asked is None else asked()

    def sizes(self, given: Given) -> Sizes:
        kept = [(v.tag, dict(v.tag.__dict__)) for v in given]
        try:
            for variable, (shape, value) in given.items():
                variable.tag.mem_reuse_given = shape
                if value is not None:
                    variable.tag.test_value = value
            sizes = Sizes(self.fgraph, self.reading.nodes, self.feature.settings.default_dim)
            _refuse_contradictions(sizes, given)
            asked = [v for workspace in self.reading.workspaces for v in workspace.asks]
            asked += [v for node in self.reading.nodes if isinstance(node.op, Scan) for v in node.inputs]
            for variable in (*self.reading.roots, *self.fgraph.inputs, *asked):  # what is given must be in place while rows are computed
                sizes.bytes(variable)
            return sizes
        finally:
            for tag, attributes in kept:
                tag.__dict__.clear()
                tag.__dict__.update(attributes)

    def _inputs_at(self, sizes: Sizes, given: Given) -> Iterator[Tuple[str, str]]:
        """All where no sizes were given, else those that were."""
        for name, variable in self.inputs():
            if given and variable not in given:
                continue
            if isinstance(variable.type, tensor.TensorType) and variable.type.ndim:
                yield name, "x".join(map(str, sizes.shape_of(variable)))
            elif given.get(variable, ((), None))[1] is not None:
                yield name, f"= {given[variable][1]}"

    def given(self, sizes: Sizes) -> Tuple[Need, ...]:
        """What is there before a call: it belongs to the caller, and to the function's shared variables."""
        containers = list(zip(self.fgraph.inputs, self.function.input_storage))
        shared = [_bytes_of(c.storage[0]) for _, c in containers if c.implicit]
        inputs = [sizes.bytes(v)[GUESS] for v, c in containers if not c.implicit]
        constants = {v: _bytes_of(v.data) for node in self.reading.nodes for v in node.inputs if isinstance(v, Constant)}
        return (
            Need("parameters and other shared variables", sum(shared), len(shared)),
            Need("inputs", sum(inputs), len(inputs)),
            Need("constants", sum(constants.values()), len(constants)),
        )

    def by_position(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> Tuple[Any, ...]:
        """Arguments as a call takes them: some by position, the others by the names of the inputs."""
        names = [name for name, _ in self.inputs()]
        found = list(arguments)
        for name in names[len(found) :]:
            if name not in named:
                break
            found.append(named[name])
        left = [name for name in named if name not in names[len(arguments) : len(found)]]
        if left:
            why = "given twice" if left[0] in names[: len(arguments)] else "no input" if left[0] not in names else "given without those before it"
            raise BadUse(f"{self.name}: {left[0]} is {why}; the inputs are {', '.join(names)}")
        return tuple(found)

    def match(self, arguments: Sequence[Any]) -> Given:
        """Input variable -> (shape, value of a single whole number), or `BadUse`."""
        slots = self.inputs()
        required = sum(1 for c in self.function.input_storage if not c.implicit and c.required)
        if not required <= len(arguments) <= len(slots):
            wanted = f"{len(slots)}" if required == len(slots) else f"{required} to {len(slots)}"
            names = ", ".join(name for name, _ in slots)
            took = f"{wanted} argument{'' if wanted == '1' else 's'}" + (f" ({names})" if names else "")
            raise BadUse(f"{self.name} takes {took}; {len(arguments)} {'was' if len(arguments) == 1 else 'were'} given")
        return {v: _shape_of(v, name, argument) for (name, v), argument in zip(slots, arguments)}

    # --- the report ----------------------------------------------------------------------------------------------

    def report(self, sized: Sized, progress: Optional[Progress]) -> PrintableReport:
        graph = sized.graph
        schedule, best = self.schedules(graph, progress)
        spans = lives(graph, schedule.order)
        reserved = self.reserved(sized, schedule)
        storage = reserved[0].storage
        sharing = self.feature.sharing
        if isinstance(storage, Arena):
            sharing = tuple(b for b, offset in enumerate(storage.offsets) if offset is not None)
        plan = put_together(graph, schedule, storage, self.annotation.options, sharing)
        repeats, with_repeats = self.repeats(sized), self._peak_with_repeats(sized, schedule)
        advised = self.advised(sized, schedule, reserved[0], best, with_repeats)
        return PrintableReport(
            self.name,
            plan,
            self.host_orders() if self.once is None else self.once.named(self.feature.runs),
            reserved,
            self.known(sized, storage, spans),
            tuple(self.work(t, sized) for t in range(len(self.reading.nodes))),
            self.notes(advised),
            best=best,
            given=sized.given,
            stock=None if self.once is None else self.once.graph_at(sized.lengths),
            repeats=repeats,
            may_repeat=self._may_repeat(schedule.peak, repeats, with_repeats),
            advised=advised,
            inputs=sized.inputs,
            sizes_of=sized.sizes_of,
        )

    def advised(
        self, sized: Sized, schedule: Schedule, reserved: Reserved, best: Optional[Schedule], with_repeats: Optional[int]
    ) -> Tuple[Advice, ...]:
        true = sized.lengths if sized.arguments else None
        assumed = self.sizes({}) if true is not None and best is not None else sized.lengths
        off = self.feature.settings.storage == "off" and reserved.after_call and isinstance(self.linker, host.VM_Linker)
        packed = self._kept_with_a_block(sized, schedule) if off else reserved.bytes
        facts = Facts(
            tuple(self.inputs()),
            assumed,
            true,
            self.feature.settings,
            reserved,
            packed,
            schedule.peak,
            None if getattr(self.function.fn, "small", "") else best,
            self.obstacle(best, sized.graph),
            self.feature.replans,
            with_repeats,
            self.asked_for if self.feature.waits is not None else "",
        )
        return advice_of(facts)

    def _may_repeat(self, peak: int, repeats: Optional[Repeats], with_repeats: Optional[int]) -> bool:
        """Is it open whether results that run again, or run again more often, bring the peak down?"""
        if repeats is None:
            return with_repeats is None and self.feature.settings.order != "host"
        return repeats.floor < peak and self.feature.outcome is not None and self.feature.outcome.status == "fits"

    def _peak_with_repeats(self, sized: Sized, schedule: Schedule) -> Optional[int]:
        """Where it can be looked for: at known sizes, in a function that was not asked for it."""
        asked = self.once is not None or self.feature.waits is not None or self.feature.settings.order == "host"
        if asked or sized.graph.sizes_assumed:
            return None
        return advice.peak_with_repeats(self.fgraph, self.reading.nodes, sized.lengths, schedule.order)

    @property
    def asked_for(self) -> str:
        return goal_in_words(goal_of(self.feature.settings))

    def _kept_with_a_block(self, sized: Sized, schedule: Schedule) -> int:
        """At most so much: while storage is off, ops that could write into a block have not been brought to do it."""
        arena = self.arena(sized, schedule, gc=False)
        return arena.height + sum(b.size for b, offset in zip(sized.graph.buffers, arena.offsets) if offset is None and not b.is_workspace)

    def inputs(self) -> List[Tuple[str, Any]]:
        """What the caller gives: the name of each, and its variable."""
        named = [getattr(entry, "name", None) for entry in self.function.maker.inputs]
        slots = zip(named, self.fgraph.inputs, self.function.input_storage)
        return [(name or v.name or f"input {i + 1}", v) for i, (name, v, c) in enumerate(slots) if not c.implicit]

    @cached_property
    def once(self) -> Optional[Once]:
        """The function with nothing run twice; None if no goal was set that could make results run again."""
        return None if self.feature.outcome is None else Once(self.fgraph, self.feature)

    def repeats(self, sized: Sized) -> Optional[Repeats]:
        if self.once is None:
            return None
        return self.once.repeats(sized.lengths, self.reading)

    def order_at(self, graph: Graph) -> Tuple[int, ...]:
        """What runs at these sizes."""
        asked = getattr(self.function.fn, "order_at", None)
        found: Optional[Tuple[int, ...]] = None if asked is None else asked([buffer.size for buffer in graph.buffers])
        return self.annotation.schedule.order if found is None else found

    def host_orders(self) -> Tuple[Tuple[str, Tuple[int, ...]], ...]:
        """The one that this function would run comes first."""
        return named(host_orders(self.reading.graph, self.reading.nodes, self.fgraph.outputs, others_demands(self.fgraph)), self.feature.runs)

    def schedules(self, graph: Graph, progress: Optional[Progress]) -> Tuple[Schedule, Optional[Schedule]]:
        """The order in force, with what is known of the least peak at these sizes; and a better order, if one is known."""
        ours = self.annotation.schedule
        plan = self.machine_plan(graph)
        if plan is not None and plan.schedule.proven:
            return plan.schedule, None
        if graph is not self.reading.graph:
            order = self.order_at(graph)
            ours = along(ours, graph, order, method_of(self.annotation, order), "")
        if graph is self.reading.graph and ours.proven:
            return ours, None
        options = replace(self.annotation.options, effort=max(EFFORT, self.annotation.options.effort), progress=progress)
        best = minimise_peak(graph, options, [*self.host_orders(), ("in force", ours.order)])
        if timeline(graph, ours.order).peak <= best.peak:
            return along(best, graph, ours.order, ours.method, ""), None
        reason = f"an order with {best.peak:,} bytes is known ({best.method})"
        return along(best, graph, ours.order, ours.method, reason), best

    def notes(self, advised: Sequence[Advice]) -> Tuple[str, ...]:
        notes = []
        if len(self.reading.certain) < len(self.reading.nodes):
            lazy = len(self.reading.nodes) - len(self.reading.certain)
            notes.append(f"{lazy} tasks run only if a lazy op asks for them; they are counted as if they all ran.")
        told = any("extra_time" in line for found in advised for line in found.paste)
        if self.ahead:
            notes.append("The function was not called yet. What runs again is what a first call with these arguments will decide.")
        if self.feature.waits is not None:
            notes.append("What runs again for the budget, or the extra time, is decided at the first call, for the sizes that come.")
        elif self.feature.outcome is None and self.annotation.schedule.peak >= advice.LARGE and not told:
            notes.append(BELOW_EVERY_ORDER)
        small = getattr(self.function.fn, "small", "")
        if small:
            notes.append(f"It runs in Theano's own order: {small}. That is asked again when an input has grown.")
        if blas.offer_once():
            notes.append(blas.offer())
        return tuple(notes)

    def obstacle(self, best: Optional[Schedule], graph: Graph) -> Optional[Obstacle]:
        """Why the function does not run in this better order; None if no more than effort is missing."""
        given = graph is not self.reading.graph
        planner = getattr(self.function.fn, "planner", None)
        if best is None:
            return None
        if self.feature.settings.order == "host":
            return Obstacle("the flag mem_reuse.order=host keeps Theano's order; with mem_reuse.order=auto a better one runs, which")
        if isinstance(planner, CellPlanner):
            if not planner.graph.is_legal(best.order):
                return Obstacle(
                    "the cells that were bound at the guessed sizes forbid a better order. Say the sizes before theano.function, which", True
                )
            if given and timeline(graph, planner.searched([b.size for b in graph.buffers])).peak <= best.peak:
                return Obstacle(
                    f"the order found for sizes less than {GROWTH} times larger or smaller runs here too; one for just these, by a hint,", True
                )
        elif not self.feature.replans and (given or self.reading.scenarios):
            kind = "the linker" if self.linker is None else type(self.linker).__name__
            return Obstacle(
                f"{kind} runs one order, the best that is no worse than Theano's own at other sizes. Say the sizes before theano.function, which",
                True,
            )
        elif given and planner is None:
            return Obstacle("the order was planned at other sizes. To compile for these, say them before theano.function, which", True)
        return None

    # --- storage -------------------------------------------------------------------------------------------------

    @cached_property
    def _last_plan(self) -> Optional[Plan]:
        """A search for the least peak goes into it, so it is asked for once."""
        return planned_by(self.function.fn)

    def machine_plan(self, graph: Graph) -> Optional[Plan]:
        """What the machine planned last, if that was at these sizes."""
        plan = self._last_plan
        return plan if plan is not None and [b.size for b in plan.graph.buffers] == [b.size for b in graph.buffers] else None

    def arena(self, sized: Sized, schedule: Schedule, gc: bool) -> Arena:
        """Where everything lies at these sizes: as the machine has it, or as it will be once calls of these sizes alone come."""
        made = self._made_arena(sized, schedule, gc)
        if made is None:
            found = candidates(self.annotation, self._linker_with(gc))
            inside = [b for b in found if would_write_into_preallocated(self.reading.roots[b].owner)]
            return pack_graph(*self.as_it_runs(sized, schedule), self.annotation.options.alignment, inside)
        if made.height == made.floor:
            return made
        inside = [b for b, offset in enumerate(made.offsets) if offset is not None]
        packed = pack_graph(*self.as_it_runs(sized, schedule), self.annotation.options.alignment, inside)
        return min(made, packed, key=lambda arena: arena.height)  # for sizes that came once or twice it has the offsets of larger ones

    def as_it_runs(self, sized: Sized, schedule: Schedule) -> Tuple[Graph, Sequence[int]]:
        return cells.as_it_runs(self.feature.reordered(self.annotation, schedule.order), sized.cautious)

    def _made_arena(self, sized: Sized, schedule: Schedule, gc: bool) -> Optional[Arena]:
        """The one that the machine has planned for these sizes, if it has."""
        plan = self.machine_plan(sized.graph) if gc == self._gc else None
        if plan is None or not isinstance(plan.storage, Arena) or plan.schedule.order != schedule.order:
            return None
        return plan.storage

    def _linker_with(self, gc: bool) -> Any:
        linker = copy.copy(self.linker)
        linker.allow_gc = gc
        return linker

    def reserved(self, sized: Sized, schedule: Schedule) -> Tuple[Reserved, ...]:
        """Bytes of storage with allow_gc False and True; the setting in force first."""
        return tuple(self._reserved(sized, schedule, gc, gc == self._gc) for gc in (self._gc, not self._gc))

    @property
    def _gc(self) -> bool:
        """In force."""
        return bool(getattr(self.linker, "allow_gc", True))

    def _reserved(self, sized: Sized, schedule: Schedule, gc: bool, in_force: bool) -> Reserved:
        graph = sized.graph
        stock, orders = (graph, self.host_orders()) if self.once is None else (self.once.graph_at(sized.lengths), self.once.named(self.feature.runs))
        without = timeline(stock, orders[0][1]).peak if gc else total(stock)
        if isinstance(self.linker, host.VM_Linker) and storage_for(self.feature.settings, gc) == "arena":
            if in_force and getattr(self.function.fn, "planner", self) is None:  # a small function runs as stock does
                why = self.function.fn.aside or "until the first call has shown whether an arena saves more than it takes"
                words = f"every variable in storage of its own, kept from call to call, as without the pass: {why}"
                return Reserved("allow_gc=False", None, total(graph), without, words, kept=True, after_call=True)
            found = self._with_a_block(sized, schedule, gc, without)
            return self._in_its_block(found) if in_force and not gc else found
        storage = self._cells_in_force(graph, schedule.order) if in_force else self._cells(sized, schedule, gc)
        if gc:
            held = storage.reserved_bytes if isinstance(storage, Slots) else schedule.peak
            return Reserved("allow_gc=True", storage, held, without, "the most bytes live or held open at one step; given back after the call")
        held = storage.reserved_bytes if isinstance(storage, Slots) else total(graph)
        return Reserved("allow_gc=False", storage, held, without, "bytes of all storage, kept from call to call", kept=True, after_call=True)

    def _with_a_block(self, sized: Sized, schedule: Schedule, gc: bool, without: int) -> Reserved:
        arena = self.arena(sized, schedule, gc)
        highest = max(occupied(sized.graph, schedule.order, arena, kept=False)[0], default=0)
        if gc:
            words = "one block for the intermediates, and at most so much at once with the arrays outside it; given back after the call"
            return Reserved("allow_gc=True", arena, highest, without, words)
        outside = sum(sized.graph.buffers[b].size for b in self.kept_outside(arena))
        words = f"{self._block_in_words(arena.height)} for the intermediates, kept from call to call"
        if outside:
            words += f", and {outside:,} bytes of arrays outside it that stay: results of the function, and arrays that ops fill again"
        if highest > arena.height + outside:
            words += f". With the arrays that ops allocate for themselves while a call runs, it is {highest:,} bytes in all at most at one step"
        if self._made_arena(sized, schedule, gc) is None:
            words += ". Estimated: the first calls show which ops write where they are told"
        return Reserved("allow_gc=False", arena, arena.height + outside, without, words, after_call=True)

    def _block_in_words(self, height: int) -> str:
        """For these sizes, beside what is there at present: that is for the last calls of all functions that lie in it."""
        lender = getattr(self.function.fn, "lender", None)
        if lender is None:
            return f"one block of {height:,} bytes"
        others = [vm for vm in lender.tenants() if vm.wants is not None and vm.storage_map is not self.function.fn.storage_map]
        shared = f"{height:,} bytes of a block shared with {len(others)} other function{'s' if len(others) > 1 else ''}"
        words = shared if others else f"one block of {height:,} bytes"
        if lender.height in (0, height):
            return words
        larger = f", for {'the largest call of them all' if others else 'a larger call before'}" if lender.height > height else ""
        return f"{words} (at present it has {lender.height:,} bytes{larger})"

    def _in_its_block(self, planned: Reserved) -> Reserved:
        """With the number of its block, where that is one that functions share."""
        lender = getattr(self.function.fn, "lender", None)
        return planned if lender is None or lender.lending is Lending.ALONE else replace(planned, block=id(lender))

    def kept_outside(self, arena: Arena) -> Set[int]:
        """Buffers outside the block that stay after a call: what is returned, and what the machine says."""
        updates = set(self.fgraph.update_mapping or ())
        returned = {v for i, v in enumerate(self.fgraph.outputs) if i not in updates}
        outside = [b for b, offset in enumerate(arena.offsets) if offset is None]
        kept = set(getattr(self.function.fn, "kept_outside", lambda: ())())
        return {b for b in outside if b in kept or returned.intersection(self.reading.names[b])}

    def _cells_in_force(self, graph: Graph, order: Tuple[int, ...]) -> Optional[Slots]:
        machine = unveiled(self.function.fn)
        if isinstance(machine, SizedVM):
            return machine.planner.storage(order, [buffer.size for buffer in graph.buffers])
        slots: Optional[Slots] = self.feature.storage
        return slots if slots is None else resized_slots(graph, order, slots)

    def _cells(self, sized: Sized, schedule: Schedule, gc: bool) -> Optional[Slots]:
        """The cells that the same linker would bind under the other setting, had it been compiled for these sizes."""
        if not isinstance(self.linker, host.VM_Linker) or self.feature.settings.storage == "off":
            return None
        sharing = cells.may_share(self.annotation, self._linker_with(gc))
        if not gc:
            return share_cells(*self.as_it_runs(sized, schedule), sharing)
        return share_cells(sized.graph, schedule.order, sharing, schedule.peak)

    # --- words ---------------------------------------------------------------------------------------------------

    def known(self, sized: Sized, storage: Any, spans: Sequence[Tuple[int, int]]) -> Tuple[Known, ...]:
        graph, everything = sized.graph, total(sized.graph)
        crowded = _crowded(storage)
        found = []
        for b, root in enumerate(self.reading.roots):
            large = graph.buffers[b].size >= LARGE * everything and b not in crowded
            why = self._why_alone(b, sized, storage, spans) if large else ""
            line, near = made_at(root, self.reading.names[b])
            found.append(Known(_name_of(graph.buffers[b].label, root), sized.shapes[b], line, why, near, self._is_returned(b)))
        for workspace in self.reading.workspaces:
            line, near = made_at(workspace.node.outputs[0], ())
            found.append(Known(f"workspace of {op_name(workspace.node.op)}", "", line, "", near))
        return tuple(found)

    def _why_alone(self, b: int, sized: Sized, storage: Any, spans: Sequence[Tuple[int, int]]) -> str:
        graph, cautious = sized.graph, sized.cautious
        root, gc = self.reading.roots[b], self._gc
        if not isinstance(self.linker, host.VM_Linker):
            return "this linker keeps storage of its own"
        if storage is None:
            return "storage is shared by nobody: storage=off"
        if self._is_returned(b):
            return "it is handed to the caller, or becomes a new value of a shared variable"
        if cautious.buffers[b].pinned:
            return "nobody reads it, so Theano clears it only at the end of the call"
        if b in cells.loose_for(self.annotation, self.linker):
            return "a lazy op, or an op that may keep its array, has to do with it, so its end is not certain"
        if not isinstance(storage, Arena):
            if not self.linker.c_thunks:
                return "without C code each op puts an array of its own into the storage"
            if not writes_into_preallocated(root.owner):
                return f"{type(root.owner.op).__name__} puts an array of its own into its storage, so nothing would be saved"
        if isinstance(storage, Arena) and storage.offsets[b] is None:
            return f"{type(root.owner.op).__name__} allocates its result for itself, outside the block; it is let go after its last reader"
        if gc and b in self.reading.doubtful:
            return "a reshape may copy it or not, so its end is not certain"
        mates = [o for o in self.feature.sharing or () if o != b and graph.buffers[o].kind == graph.buffers[b].kind]
        if not mates:
            return "no other variable that may share has its type and shape"
        if all(spans[o][0] < spans[b][1] and spans[b][0] < spans[o][1] for o in mates):
            return "every other variable of its type and shape is live at the same time"
        if gc:
            return "held open between two lives it could raise the peak"
        return "others of its type and shape fill each other's storage already"

    def _is_returned(self, b: int) -> bool:
        """Is it handed to the caller, or does it become the value of a shared variable?"""
        return not self._returned.isdisjoint(self.reading.names[b])

    @cached_property
    def _returned(self) -> Set[Any]:
        return {*getattr(self.linker, "no_recycling", ()), *self.fgraph.outputs}

    def work(self, task: int, sized: Sized) -> Work:
        node = self.reading.nodes[task]
        if isinstance(node.op, Scan):
            return Work(str(node), f"It is a Scan, and keeps what every step hands out. {SCAN_RELIEF}", self._peak_inside(node, sized))
        if isinstance(node.op, (AdvancedIncSubtensor, AdvancedIncSubtensor1)):
            return Work(str(node), INDEX_RELIEF)
        for b in self.reading.graph.tasks[task].writes:
            scan = next((v.owner for v in self.reading.names[b] if v.owner is not None and isinstance(v.owner.op, Scan)), None)
            if scan is not None:
                label = self.reading.graph.tasks[self.reading.nodes.index(scan)].label
                return Work(str(node), f"The Scan {label!r} writes what every step hands out into what it makes. {SCAN_RELIEF}")
        return Work(str(node))

    def _peak_inside(self, node: Any, sized: Sized) -> int:
        """The peak of a Scan's inner function, at the shapes that come from outside."""
        try:
            subject, inner = self.inside(node, sized)
        except NoPlan:
            return 0
        return timeline(inner.graph, subject.annotation.schedule.order).peak

    def inside(self, node: Any, sized: Sized) -> Tuple[_Subject, Sized]:
        """A Scan's inner function, at the shapes that come from outside; where these are not known, at those assumed at compile time."""
        subject = _Subject(compiled(node.op))
        try:
            return subject, subject.sized(inner_shapes(node, sized.lengths.shape_of))
        except BadUse:
            return subject, subject.sized(())


def name_of(function: Any) -> str:
    """Theano names a function after the whole path of the line that compiled it, if the user does not name it."""
    name = str(getattr(function, "name", None) or "function")
    return short(name) if os.path.isabs(name) else name


def resized_slots(graph: Graph, order: Sequence[int], slots: Slots) -> Slots:
    """The same tenants at the sizes of `graph`."""
    inside: List[List[int]] = [[] for _ in slots.cells]
    for b, cell in enumerate(slots.cell_of):
        if cell is not None:
            inside[cell].append(b)
    sizes = [max((graph.buffers[b].size for b in tenants), default=0) for tenants in inside]
    reserved = sum(sizes)
    if slots.eager:
        spans = lives(graph, order)
        held = [(min(spans[b][0] for b in tenants), max(spans[b][1] for b in tenants)) for tenants in inside]
        workspaces = [b for b, buffer in enumerate(graph.buffers) if buffer.is_workspace]
        taken = [graph.buffers[b].size for b in workspaces]
        reserved = max(loads([*sizes, *taken], [*held, *(spans[b] for b in workspaces)], len(order)), default=0)
    return Slots(slots.cell_of, tuple((kind, size) for (kind, _), size in zip(slots.cells, sizes)), reserved, slots.eager)


def _bytes_of(value: Any) -> int:
    """Of an array, or of the three that a sparse one is made of."""
    parts = [value] if isinstance(value, np.ndarray) else [getattr(value, name, None) for name in ("data", "indices", "indptr")]
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


def _shape_at(sizes: Sizes, root: Any) -> str:
    if not isinstance(root.type, tensor.TensorType):
        return str(root.type)
    return f"{root.type.dtype} " + ("x".join(str(row[GUESS]) for row in sizes.dims(root)) or "scalar")


def _name_of(label: str, root: Any) -> str:
    return label if root.name else f"{label} {op_name(root.owner.op)}"


def _crowded(storage: Any) -> Set[int]:
    """Buffers that share their cell."""
    if not isinstance(storage, Slots):
        return set()
    count: Dict[Optional[int], int] = {}
    for cell in storage.cell_of:
        count[cell] = count.get(cell, 0) + 1
    return {b for b, cell in enumerate(storage.cell_of) if cell is not None and count[cell] > 1}


def _shape_of(variable: Any, where: str, argument: Any) -> Tuple[Tuple[Optional[int], ...], Any]:
    if not isinstance(variable.type, tensor.TensorType):
        return (), None  # no dense array: it counts nothing
    if isinstance(argument, tuple):
        shape = argument
        if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 0 for n in shape):
            raise BadUse(f"{where}: a shape is a tuple of whole numbers, 0 or more, not {argument!r}")
    else:
        shape = np.shape(argument)
    if len(shape) != variable.type.ndim:
        raise BadUse(f"{where}: has {variable.type.ndim} dimensions, {shape} has {len(shape)}")
    for axis, (length, flat) in enumerate(zip(shape, variable.type.broadcastable)):
        if flat and length != 1:
            raise BadUse(f"{where}: dimension {axis} is always 1 long, {shape} says {length}")
    whole = not isinstance(argument, tuple) and not shape and np.asarray(argument).dtype.kind in "iub"
    return tuple(int(n) for n in shape), np.asarray(argument) if whole else None


def _refuse_contradictions(sizes: Sizes, given: Mapping[Any, Any]) -> None:
    """Dimensions that an op makes equal must be given equal."""
    leaves = sizes._leaves
    for root in list(leaves.inside):
        found = [(leaf, known[1]) for leaf in leaves.members(root) for known in [_known(leaf)] if known is not None and known[0] <= 2]
        mine = [(leaf, length) for leaf, length in found if leaf[0] in given]
        for (variable, axis), length in mine:
            for (other, other_axis), other_length in found:
                if length != other_length:
                    raise BadUse(
                        f"the shapes do not fit: dimension {axis} of {describe(variable)} is {length}, "
                        f"and dimension {other_axis} of {describe(other)}, which must be equal, is {other_length}"
                    )

"""`explain`: where the memory of a compiled function goes, as a Report.

    feature on the function  ->  its plan  ->  at the sizes of these arguments  ->  peaks, storage, words  ->  Report

Words
    in force    what the function really runs; with other sizes than the planned ones a better order may be known, and
                the report then says so
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Tuple

from theano.gof import vm as host
from theano.scan_module.scan_op import Scan

from theano_memopt.hosts.theano.explain.advice import EXTRA_TIME, LARGE, Facts, Obstacle, advice_of, with_repeats
from theano_memopt.hosts.theano.explain.storage import Storage
from theano_memopt.hosts.theano.explain.subject import NoPlan, Sized, Subject, compiled
from theano_memopt.hosts.theano.explain.words import Words
from theano_memopt.hosts.theano.install import blas
from theano_memopt.hosts.theano.optimize.recompute import goal_in_words, goal_of
from theano_memopt.hosts.theano.run.machines import method_of
from theano_memopt.hosts.theano.run.sized_call import SIZES_ALIKE, CellPlanner
from theano_memopt.planner.arena import Arena
from theano_memopt.planner.certificate import Schedule
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.glance import Glance
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.model import Graph
from theano_memopt.planner.plan import along, put_together
from theano_memopt.progress import progress_of
from theano_memopt.report.model import Advice, Reserved
from theano_memopt.report.printable import PrintableReport
from theano_memopt.report.repeats import Repeats

Progress = Callable[[str], None]
EFFORT = 20_000
"""States that the search for the least peak may open: more than while compiling, and still well below a second on training graphs."""
BELOW_EVERY_ORDER = (
    "Less than any order needs: with theano_memopt.mode(budget=0.5), or extra_time=0.1, cheap results run again instead of being kept, "
    "with the same bits; explain then says what each peak costs."
)
"""For functions with a large peak."""


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
    subject = Subject(compiled(function))
    arguments = subject.by_position(arguments, named)
    subject = subject.decided(arguments)
    if progress is not None:
        return reported(subject, subject.sized(arguments), progress)
    with progress_of(f"explaining {subject.name}, {len(subject.reading.nodes)} tasks") as shown:
        return reported(subject, subject.sized(arguments), shown)


def with_scans(function: Any, *arguments: Any) -> Iterator[Tuple[Any, PrintableReport]]:
    """The report of a function, and those of the functions inside its Scans and inside theirs, at the shapes that come from outside."""
    subject = Subject(compiled(function))
    waiting = [(subject, subject.sized(arguments))]
    for subject, sized in waiting:
        yield subject.function, reported(subject, sized, None)
        for node in subject.reading.nodes:
            if isinstance(node.op, Scan):
                with contextlib.suppress(NoPlan):
                    waiting.append(subject.inside(node, sized))


def arguments_by_position(function: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Tuple[Any, ...]:
    """Of a call of a function with a plan; `BadUse` if they do not fit."""
    subject = Subject(compiled(function))
    found = subject.by_position(arguments, named)
    subject.match(found)
    return found


def decided(function: Any, arguments: Sequence[Any]) -> Any:
    """The function; or a copy of it, where the first call is to decide what runs again, that has decided as a call with these arguments would."""
    return Subject(function).decided(arguments).function


def reported(subject: Subject, sized: Sized, progress: Optional[Progress]) -> PrintableReport:
    return _Explained(subject, sized).report(progress)


class _Explained:
    """One function at these sizes."""

    def __init__(self, subject: Subject, sized: Sized) -> None:
        self.subject, self.sized = subject, sized

    def report(self, progress: Optional[Progress]) -> PrintableReport:
        graph = self.sized.graph
        schedule, best = self.schedules(graph, progress)
        spans = lives(graph, schedule.order)
        storage, words = Storage(self.subject, self.sized, schedule), Words(self.subject, self.sized)
        reserved = storage.reserved()
        in_force = reserved[0].storage
        sharing = self.subject.feature.sharing
        if isinstance(in_force, Arena):
            sharing = tuple(b for b, offset in enumerate(in_force.offsets) if offset is not None)
        plan = put_together(graph, schedule, in_force, self.subject.annotation.options, sharing)
        repeats, glance = self.repeats(), self._glance(schedule) if self._looks_for_repeats else None
        advised = self.advised(schedule, storage, reserved[0], best, glance)
        return PrintableReport(
            self.subject.name,
            plan,
            self.subject.host_orders() if self.subject.once is None else self.subject.once.named(self.subject.feature.runs),
            reserved,
            words.known(in_force, spans),
            tuple(words.work(t) for t in range(len(self.subject.reading.nodes))),
            self.notes(advised, glance),
            best=best,
            given=self.sized.given,
            stock=None if self.subject.once is None else self.subject.once.graph_at(self.sized.lengths),
            repeats=repeats,
            may_repeat=self._may_repeat(schedule.peak, repeats, glance),
            advised=advised,
            inputs=self.sized.inputs,
            sizes_of=self.sized.sizes_of,
        )

    def schedules(self, graph: Graph, progress: Optional[Progress]) -> Tuple[Schedule, Optional[Schedule]]:
        """The order in force, with what is known of the least peak at these sizes; and a better order, if one is known."""
        ours = self.subject.annotation.schedule
        plan = self.subject.machine_plan(graph)
        if plan is not None and plan.schedule.proven:
            return plan.schedule, None
        if graph is not self.subject.reading.graph:
            order = self.subject.order_at(graph)
            ours = along(ours, graph, order, method_of(self.subject.annotation, order), "")
        if graph is self.subject.reading.graph and ours.proven:
            return ours, None
        options = replace(self.subject.annotation.options, effort=max(EFFORT, self.subject.annotation.options.effort), progress=progress)
        best = minimise_peak(graph, options, [*self.subject.host_orders(), ("in force", ours.order)])
        if timeline(graph, ours.order).peak <= best.peak:
            return along(best, graph, ours.order, ours.method, ""), None
        reason = f"an order with {best.peak:,} bytes is known ({best.method})"
        return along(best, graph, ours.order, ours.method, reason), best

    def notes(self, advised: Sequence[Advice], glance: Optional[Glance]) -> Tuple[str, ...]:
        notes = []
        if len(self.subject.reading.certain) < len(self.subject.reading.nodes):
            lazy = len(self.subject.reading.nodes) - len(self.subject.reading.certain)
            notes.append(f"{lazy} tasks run only if a lazy op asks for them; they are counted as if they all ran.")
        told = any("extra_time" in line for found in advised for line in found.paste)
        if self.subject.ahead:
            notes.append("The function was not called yet. What runs again is what a first call with these arguments will decide.")
        if self.subject.feature.waits is not None:
            notes.append("What runs again for the budget, or the extra time, is decided at the first call, for the sizes that come.")
        elif self.subject.feature.outcome is None and self.subject.annotation.schedule.peak >= LARGE and not told:
            notes.append(BELOW_EVERY_ORDER)
        if self._looks_for_repeats and (glance is None or not glance.full):
            how = "not looked for" if glance is None else f"looked for in {glance.simulations} trials only"
            tasks = f"{len(self.subject.reading.nodes):,} tasks are many for a report"
            notes.append(f"What could run again was {how}: {tasks}. Compiled with extra_time={EXTRA_TIME:g} it is looked for with full effort.")
        small = getattr(self.subject.function.fn, "small", "")
        if small:
            notes.append(f"It runs in Theano's own order: {small}. That is asked again when an input has grown, or shrunk.")
        if blas.offer_once():
            notes.append(blas.offer())
        return tuple(notes)

    def advised(
        self, schedule: Schedule, storage: Storage, reserved: Reserved, best: Optional[Schedule], glance: Optional[Glance]
    ) -> Tuple[Advice, ...]:
        true = self.sized.lengths if self.sized.arguments else None
        assumed = self.subject.sizes({}) if true is not None and best is not None else self.sized.lengths
        off = self.subject.feature.settings.storage == "off" and reserved.after_call and isinstance(self.subject.linker, host.VM_Linker)
        packed = storage.kept_with_a_block() if off else reserved.bytes
        facts = Facts(
            tuple(self.subject.inputs()),
            assumed,
            true,
            self.subject.feature.settings,
            reserved,
            packed,
            schedule.peak,
            None if getattr(self.subject.function.fn, "small", "") else best,
            self.obstacle(best, self.sized.graph),
            self.subject.feature.replans,
            glance,
            self.asked_for if self.subject.feature.waits is not None else "",
        )
        return advice_of(facts)

    def obstacle(self, best: Optional[Schedule], graph: Graph) -> Optional[Obstacle]:
        """Why the function does not run in this better order; None if no more than effort is missing."""
        given = graph is not self.subject.reading.graph
        planner = getattr(self.subject.function.fn, "planner", None)
        if best is None:
            return None
        if self.subject.feature.settings.order == "host":
            return Obstacle("the flag mem_reuse.order=host keeps Theano's order; with mem_reuse.order=auto a better one runs, which")
        if isinstance(planner, CellPlanner):
            if not planner.graph.is_legal(best.order):
                return Obstacle(
                    "the cells that were bound at the guessed sizes forbid a better order. Say the sizes before theano.function, which", True
                )
            if given and timeline(graph, planner.searched([b.size for b in graph.buffers])).peak <= best.peak:
                return Obstacle(
                    f"the order found for sizes less than {SIZES_ALIKE} times larger or smaller runs here too; one for just these, by a hint,", True
                )
        elif not self.subject.feature.replans and (given or self.subject.reading.scenarios):
            kind = "the linker" if self.subject.linker is None else type(self.subject.linker).__name__
            return Obstacle(
                f"{kind} runs one order, the best that is no worse than Theano's own at other sizes. Say the sizes before theano.function, which",
                True,
            )
        elif planner is None and graph.buffers != self.subject.reading.graph.buffers:
            return Obstacle("the order was planned at other sizes. To compile for these, say them before theano.function, which", True)
        return None

    def _may_repeat(self, peak: int, repeats: Optional[Repeats], glance: Optional[Glance]) -> bool:
        """Is it open whether results that run again, or run again more often, bring the peak down?"""
        if repeats is None:
            return glance is None and self.subject.feature.settings.order != "host"
        return repeats.floor < peak and self.subject.feature.outcome is not None and self.subject.feature.outcome.status == "fits"

    @property
    def _looks_for_repeats(self) -> bool:
        """Can it be told what could run again? At known sizes, of a function that was not asked for it."""
        asked = self.subject.once is not None or self.subject.feature.waits is not None or self.subject.feature.settings.order == "host"
        return not asked and not self.sized.graph.sizes_assumed

    def _glance(self, schedule: Schedule) -> Optional[Glance]:
        return with_repeats(self.subject.fgraph, self.subject.reading.nodes, self.sized.lengths, schedule.order)

    @property
    def asked_for(self) -> str:
        return goal_in_words(goal_of(self.subject.feature.settings))

    def repeats(self) -> Optional[Repeats]:
        if self.subject.once is None:
            return None
        return self.subject.once.repeats(self.sized.lengths, self.subject.reading)

"""Report and Profile: what was planned, and what was measured. Data alone; the readers are modules beside this one.

    Plan + what the host knows of each buffer  ->  Report   ->  text | page | json_form | trace | run_table
    one measured call                          ->  Profile

Words
    in force    the order that the function runs
    host order  an order that the host would run without a plan; there may be several, by linker
    peak        the most bytes that are live at once in an order
    floor       bytes below which no order has its peak, proven; a peak is at the floor, or x % above it
    least       the floor, where an order is known that reaches it; it is open whether there is one otherwise
    owner       a task without which there would be no such peak: in every order it holds most of it alone
    kept        bytes of storage that stay after a call
    needs       all that a call takes: parameters and inputs, which are there already, and what it makes
    near        of a line of code: that of the nearest variable before one that has none of its own

>>> from theano_memopt.planner.model import worked_example
>>> from theano_memopt.planner.plan import make_plan
>>> graph = worked_example()
>>> report = Report("example", make_plan(graph), (("given order", graph.natural_order),))
>>> report.peak_of("given order"), report.peak, report.least
(13, 8, 8)
>>> [report.graph.buffers[b].label for b in report.alive_at_peak]
['R', 'l', 'r']
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from theano_memopt.planner.arena import Arena
from theano_memopt.planner.certificate import Schedule, footprint
from theano_memopt.planner.liveness import Timeline, lives, timeline
from theano_memopt.planner.model import Graph
from theano_memopt.planner.plan import Plan, Storage
from theano_memopt.planner.slots import Slots
from theano_memopt.report.repeats import Repeats
from theano_memopt.report.words import against_floor, percent

Order = Tuple[int, ...]
Span = Tuple[int, int]

OWNS = 0.9
"""A task owns the peak if what it reads and writes is this share of it: no order can then lower it much."""
INPUTS = 6
"""Inputs whose shapes stand in the headline."""
DOMINATES = 0.5
"""The results of one task are worth a word if they are this share of what is live at the peak."""


@dataclass(frozen=True)
class Known:
    """What the host knows about one buffer, in words; empty where it knows nothing."""

    name: str = ""
    """For people, if the label alone says little."""
    type: str = ""
    """dtype and shape"""
    made_at: str = ""
    """The line of the user's code that made it."""
    alone: str = ""
    """Why it shares storage with nobody; empty if it does share."""
    near: bool = False
    """Is `made_at` the line of the nearest variable that it is computed from? It has none of its own then."""
    returned: bool = False
    """Is it handed to the caller, or does it become the value of a shared variable?"""


@dataclass(frozen=True)
class Need:
    """Bytes that a call takes for one kind of thing."""

    what: str
    bytes: int
    count: int
    """Arrays."""


@dataclass(frozen=True)
class Line:
    """What one line of the user's code holds."""

    where: str
    """The file and the line, and its source; empty for variables of which no line is known."""
    bytes: int
    variables: int


@dataclass(frozen=True)
class Advice:
    """What the user can do to need less."""

    text: str
    saves: Optional[int] = None
    """Bytes; None where that is known only when it is done."""
    paste: Tuple[str, ...] = ()
    """Lines of code, ready to paste."""
    kept: bool = False
    """Does it save bytes that are kept from call to call, and not of the peak?"""
    provided: str = ""
    """Under what condition it saves that much, or of what; words that follow the bytes."""


@dataclass(frozen=True)
class Work:
    """What the host knows about one task, in words."""

    operation: str = ""
    relief: str = ""
    """What would help if this task owned the peak."""
    own_peak: int = 0
    """Bytes that a function inside it (a loop's body) holds at its own peak; no part of the plan."""


@dataclass(frozen=True)
class Reserved:
    """Bytes of storage under one setting of the host, with the plan and without."""

    setting: str
    storage: Storage
    bytes: int
    without: int
    meaning: str
    kept: bool = False
    """Nothing is given back between steps."""
    after_call: bool = False
    """Do these bytes stay after a call?"""
    block: Optional[int] = None
    """With an arena that stays: which block. Functions with the same number lie in one."""


NO_ORDER_BETTER = "no order does better; results that run again may: the flag mem_reuse.budget=0.5, or `run --budget 0.5`"
NOTHING_HELPS = "nothing that is known here would help"


@dataclass(frozen=True)
class Report:
    name: str
    plan: Plan
    """The graph at the sizes in question, the order in force with its certificate, the storage in force."""
    host_orders: Tuple[Tuple[str, Order], ...] = ()
    """Orders that the host would run without the plan, by name; the first is the one that this function would run."""
    reserved: Tuple[Reserved, ...] = ()
    """The first one is in force."""
    known: Tuple[Known, ...] = ()
    work: Tuple[Work, ...] = ()
    notes: Tuple[str, ...] = ()
    measured: Optional[Profile] = None
    best: Optional[Schedule] = None
    """The best order that is known at these sizes, where it is not the one in force."""
    given: Tuple[Need, ...] = ()
    """What is there before a call begins: parameters, inputs, constants."""
    advised: Tuple[Advice, ...] = ()
    """What the host advises."""
    stock: Optional[Graph] = None
    """What the host orders are orders of, where that is another graph: the one in which nothing runs again."""
    repeats: Optional[Repeats] = None
    """What runs again; None if that was not asked for."""
    inputs: Tuple[Tuple[str, str], ...] = ()
    """What the caller gives: the name of each, and its shape in words."""
    sizes_of: str = ""
    """Whose shapes these are, in words."""
    may_repeat: bool = False
    """Might results that run again, or run again more often, lower the peak? True where nobody has looked whether they do."""

    # --- figures -------------------------------------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        return self.plan.graph

    @property
    def order(self) -> Order:
        return self.plan.schedule.order

    @property
    def peak(self) -> int:
        """The most bytes that are live at once in the order in force."""
        return self.plan.schedule.peak

    @property
    def host_peak(self) -> int:
        """Of the order that this function would run without the plan."""
        return self.host_timelines[0][1].peak if self.host_timelines else self.peak

    @property
    def floor(self) -> int:
        """No order needs less."""
        return self.plan.schedule.floor

    @property
    def kept(self) -> int:
        """Bytes of storage that stay after a call; 0 where they are given back, as with allow_gc=True."""
        return self.reserved[0].bytes if self.reserved and self.reserved[0].after_call else 0

    @property
    def host_kept(self) -> int:
        """Bytes that would stay without the plan."""
        return self.reserved[0].without if self.reserved and self.reserved[0].after_call else 0

    @property
    def least(self) -> Optional[int]:
        """The floor, where an order is known that reaches it; None where that is open."""
        return self.floor if self.peak == self.floor or (self.best is not None and self.best.proven) else None

    @property
    def at(self) -> str:
        """The sizes that all figures are about, for the headline; empty where no host has told them."""
        if not self.inputs:
            return ""
        told = ", ".join(f"{name} {shape}" for name, shape in self.inputs[:INPUTS])
        left = len(self.inputs) - INPUTS
        return f"at {told}{f' and {left} more' if left > 0 else ''} ({self.sizes_of})"

    @property
    def title(self) -> str:
        return f"{self.name}, {self.at}" if self.at else self.name

    @property
    def at_sizes(self) -> str:
        """To be said beside every claim about a floor: empty where the sizes are known."""
        return " at assumed sizes" if self.graph.sizes_assumed else ""

    @property
    def verdict(self) -> str:
        """The certificate in a sentence: of the order in force what it reaches, and of the floor that it is proven."""
        proof = self.plan.schedule.certificate.proof.describe()
        if self.peak == self.floor:
            return f"{self.gap}, so no order needs less; the floor is proven: {proof}"
        if self.least is not None:
            return f"{self.gap}; another order is known to reach the floor, which is proven: {proof}"
        why = getattr(self.plan.schedule.certificate, "reason", "")
        return f"{self.gap}; whether an order lies between is open{' (' + why + ')' if why else ''}; the floor is proven: {proof}"

    @property
    def gap(self) -> str:
        """How the peak of the order in force stands to the floor, in words."""
        return against_floor(self.peak, self.floor) + self.at_sizes

    def peak_of(self, name: str) -> int:
        return {n: t.peak for n, t in self.host_timelines}[name]

    @cached_property
    def host_timelines(self) -> Tuple[Tuple[str, Timeline], ...]:
        return tuple((name, timeline(self.stock or self.graph, order)) for name, order in self.host_orders)

    @property
    def measured_extra(self) -> Optional[float]:
        """What running again took in the measured call, as a share of the rest."""
        if self.repeats is None or self.measured is None:
            return None
        return self.repeats.measured_share({step.task: step.seconds for step in self.measured.steps})

    # --- the peak ------------------------------------------------------------------------------------------------

    @cached_property
    def spans(self) -> Tuple[Span, ...]:
        return lives(self.graph, self.order)

    def alive(self, step: int) -> Tuple[int, ...]:
        """Buffers that are live while the task at this step of the order in force runs, the largest first."""
        found = [b for b, (born, dead) in enumerate(self.spans) if born <= step < dead and self.graph.buffers[b].producer is not None]
        return tuple(sorted(found, key=lambda b: (-self.graph.buffers[b].size, b)))

    @property
    def peak_step(self) -> int:
        return self.plan.schedule.timeline.peak_step

    @property
    def alive_at_peak(self) -> Tuple[int, ...]:
        return self.alive(self.peak_step) if self.order else ()

    def by_line(self, step: Optional[int] = None) -> Tuple[Line, ...]:
        """Bytes that are live at the peak (or at another step), summed by the line of code that made them; the largest line first."""
        found: Dict[str, Tuple[int, int]] = {}
        for b in self.alive_at_peak if step is None else self.alive(step):
            size, count = found.get(self.known_of(b).made_at, (0, 0))
            found[self.known_of(b).made_at] = (size + self.graph.buffers[b].size, count + 1)
        return tuple(Line(where, *sums) for where, sums in sorted(found.items(), key=lambda row: (-row[1][0], row[0])))

    @cached_property
    def needs(self) -> Tuple[Need, ...]:
        """Everything that is there at the peak: what the caller has, and what the call makes."""
        buffers = self.graph.buffers
        workspaces = [b for b in self.alive_at_peak if buffers[b].is_workspace]
        returned = [b for b in self.alive_at_peak if self.known_of(b).returned]
        made = [b for b in self.alive_at_peak if b not in returned and b not in workspaces]
        planned = sum(buffers[b].size for b in workspaces)
        return (
            *self.given,
            Need("results, as far as they are there at the peak", sum(buffers[b].size for b in returned), len(returned)),
            Need("intermediates at the peak", sum(buffers[b].size for b in made), len(made)),
            Need("workspace of the op that runs at the peak, planned", planned, 0)
            if self.measured is None
            else Need("workspace of the op that ran at the peak, measured", self.measured.workspace, 0),
        )

    @cached_property
    def advice(self) -> Tuple[Advice, ...]:
        """What would help: where sizes are not known this comes first, then what saves most."""
        return tuple(sorted((*self.advised, *self._relief), key=lambda advice: -(advice.saves if advice.saves is not None else self.peak + 1)))

    @property
    def nothing_to_do(self) -> str:
        """What is said where there is no advice."""
        if not self.may_repeat:
            return NOTHING_HELPS
        return NO_ORDER_BETTER if self.repeats is None else "no order does better; results that run again more often may: a lower mem_reuse.budget"

    @cached_property
    def _relief(self) -> Tuple[Advice, ...]:
        """To give the task that owns the peak less at once: half of it, say."""
        if self.owner is None:
            return ()
        (sentence, *_), task = self.owners, self.graph.tasks[self.owner]
        halved = {*task.writes, *(task.reads if self._footprint_owns else ())}
        sizes = [buffer.size // 2 if b in halved else buffer.size for b, buffer in enumerate(self.graph.buffers)]
        saves = self.peak - timeline(self.graph.resized(sizes), self.order).peak
        return (Advice(f"{sentence} Half of that at once", saves, provided="as long as all else stays as large as it is"),) if saves else ()

    @cached_property
    def owner(self) -> Optional[int]:
        """The task that owns the peak, or whose results are most of it; None if there is no such task."""
        if not self.order or not self.peak:
            return None
        if self._footprint_owns:
            return self._largest
        task, share = self._shares_of_the_peak()[0]
        return task if share >= DOMINATES * self.peak else None

    @cached_property
    def _largest(self) -> int:
        """The task that reads and writes most."""
        return max(range(len(self.graph.tasks)), key=lambda t: (footprint(self.graph, t), -t))

    @property
    def _footprint_owns(self) -> bool:
        return footprint(self.graph, self._largest) >= OWNS * self.peak

    @cached_property
    def owners(self) -> Tuple[str, ...]:
        """Sentences about the task that owns the peak, about what would help, and about functions that run inside tasks."""
        said: List[str] = []
        label = [repr(task.label) for task in self.graph.tasks]
        if self.owner is not None and self._footprint_owns:
            alone = percent(footprint(self.graph, self.owner), self.peak)
            relief = self.work_of(self.owner).relief or "It would help to give it less at once: a smaller batch, or the work in parts."
            said.append(f"Task {label[self.owner]} owns the peak: what it reads and writes is {alone} of it, in every order. {relief}")
        elif self.owner is not None:
            share = percent(self._shares_of_the_peak()[0][1], self.peak)
            relief = self.work_of(self.owner).relief or "It would help to make them smaller, or to need them for less long."
            said.append(f"The results of task {label[self.owner]} are {share} of the peak. {relief}")
        for t, work in enumerate(self.work):
            if self.peak and work.own_peak > 0.1 * self.peak:
                said.append(f"Task {label[t]} runs a function of its own: its peak of {work.own_peak:,} bytes comes on top while it runs.")
        return tuple(said)

    def _shares_of_the_peak(self) -> List[Tuple[int, int]]:
        shares: Dict[int, int] = {}
        for b in self.alive_at_peak:
            producer = self.graph.buffers[b].producer
            assert producer is not None  # inputs are never among the living
            shares[producer] = shares.get(producer, 0) + self.graph.buffers[b].size
        return sorted(shares.items(), key=lambda item: (-item[1], item[0]))

    # --- words of the host ---------------------------------------------------------------------------------------

    def known_of(self, buffer: int) -> Known:
        return self.known[buffer] if self.known else Known()

    def name_of(self, buffer: int) -> str:
        return self.known_of(buffer).name or self.graph.buffers[buffer].label

    def work_of(self, task: int) -> Work:
        return self.work[task] if self.work else Work()

    # --- storage -------------------------------------------------------------------------------------------------

    @cached_property
    def _tenants(self) -> Dict[int, List[int]]:
        found: Dict[int, List[int]] = {}
        if isinstance(self.plan.storage, Slots):
            for b, cell in enumerate(self.plan.storage.cell_of):
                if cell is not None:
                    found.setdefault(cell, []).append(b)
        return found

    def companions(self, buffer: int, most: Optional[int] = None) -> Tuple[int, ...]:
        """The others in the cell of this buffer, or those that lie where it lies at another time; at most so many."""
        storage = self.plan.storage
        found: Iterable[int] = ()
        if isinstance(storage, Slots):
            cell = storage.cell_of[buffer]
            found = (b for b in self._tenants[cell] if b != buffer) if cell is not None else ()
        elif isinstance(storage, Arena) and storage.offsets[buffer] is not None:
            low = storage.offsets[buffer] or 0
            high = low + self.graph.buffers[buffer].size
            found = (b for b, o in enumerate(storage.offsets) if b != buffer and o is not None and o < high and low < o + self.graph.buffers[b].size)
        return tuple(islice(found, most))

    def groups(self) -> Tuple[Tuple[int, ...], ...]:
        """Tenants of each cell that has several, one after the other; the cell that saves most comes first."""
        sizes = [buffer.size for buffer in self.graph.buffers]
        crowded = [sorted(tenants, key=lambda b: self.spans[b]) for tenants in self._tenants.values() if len(tenants) > 1]
        return tuple(map(tuple, sorted(crowded, key=lambda tenants: (-saved(sizes, tenants), tenants))))

    @cached_property
    def largest(self) -> Tuple[int, ...]:
        """All buffers that tasks write, the largest first."""
        found = [b for b, buffer in enumerate(self.graph.buffers) if buffer.producer is not None]
        return tuple(sorted(found, key=lambda b: (-self.graph.buffers[b].size, b)))


@dataclass(frozen=True)
class Step:
    """One task of a measured call, in bytes above what was held before the call."""

    task: int
    before: int
    """Live when it began."""
    after: int
    """Live when it had run, nothing freed yet."""
    resting: int
    """Live when the host had freed what it frees after it."""
    highest: int
    """The most while it ran."""
    made: int
    """Bytes of the arrays that it newly handed out: those that did not lie anywhere before."""
    seconds: float = 0.0

    @property
    def allocated(self) -> int:
        return self.after - self.before

    @property
    def freed(self) -> int:
        return self.after - self.resting

    @property
    def workspace(self) -> int:
        """What the op held for itself while it ran."""
        return max(0, self.highest - max(self.before, self.after))


@dataclass(frozen=True)
class Profile:
    """One measured call."""

    steps: Tuple[Step, ...]
    peak: int
    """The most bytes held at once during the call, above those held before it."""
    kept: int
    """Bytes still held after the call, the result apart."""
    seconds: float
    costs: Tuple[Tuple[str, float], ...] = ()
    """What tasks took, by the host's signature of each: the least of some calls of which no memory was measured."""

    @property
    def workspace(self) -> int:
        """What the op that runs at the peak held for itself."""
        return max(self.steps, key=lambda step: step.highest).workspace if self.steps else 0


def total(graph: Graph) -> int:
    """Bytes of all buffers that tasks write: what is set aside if nobody shares."""
    return sum(buffer.size for buffer in graph.buffers if buffer.producer is not None and not buffer.is_workspace)


def saved(sizes: Sequence[int], tenants: Sequence[int]) -> int:
    """Bytes that they need less together than each for itself."""
    return sum(sizes[b] for b in tenants) - max(sizes[b] for b in tenants)

"""What `explain` says about results that run again: the same function with nothing run twice, at the same sizes.

    FunctionGraph with repeats  --clone, take_out-->  FunctionGraph without  -->  Graph, host orders, Program  -->  Repeats

What the function would need without repeats is looked for here, at the sizes of the report: when it was compiled, others may have been assumed.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Dict, List, Mapping, Tuple

from theano import gof

from theano_memopt.hosts.theano.optimize.feature import MemReuse
from theano_memopt.hosts.theano.optimize.recompute import Outcome, not_met
from theano_memopt.hosts.theano.optimize.repeats import OPENED, mark_of, runs_of, take_out
from theano_memopt.hosts.theano.read.assumed_sizes import Sizes
from theano_memopt.hosts.theano.read.costs import measured_costs
from theano_memopt.hosts.theano.read.graph import Reading, read
from theano_memopt.hosts.theano.read.host_orders import host_orders
from theano_memopt.hosts.theano.read.op_facts import describe
from theano_memopt.hosts.theano.read.program import ProgramReading, read_program
from theano_memopt.hosts.theano.read.source_lines import made_at
from theano_memopt.planner.budget import in_words
from theano_memopt.planner.model import Graph
from theano_memopt.planner.recompute import plan_recompute
from theano_memopt.report.repeats import Again, Repeats

Orders = Dict[str, Tuple[int, ...]]
Named = Tuple[Tuple[str, Tuple[int, ...]], ...]


class Once:
    """A compiled function as it would be with nothing run twice."""

    def __init__(self, fgraph: Any, feature: MemReuse) -> None:
        self.fgraph = fgraph
        assert feature.outcome is not None
        self.outcome: Outcome = feature.outcome
        self.default_dim, self.compiled = feature.settings.default_dim, feature.compiled
        self.clone, twin_of = fgraph.clone_get_equiv(check_integrity=False, attach_feature=False)
        take_out(self.clone)
        if any(isinstance(one, gof.DestroyHandler) for one in fgraph._features):
            self.clone.attach_feature(gof.DestroyHandler())
        self.original = {twin: v for v, twin in twin_of.items()}
        self.nodes = self.clone.toposort()

    @cached_property
    def reading(self) -> Reading:
        return read(self.clone, self.nodes, self.clone.orderings(), self.default_dim, self.compiled)

    @cached_property
    def orders(self) -> Orders:
        return host_orders(self.reading.graph, self.nodes, self.clone.outputs, self.clone.orderings())

    def named(self, runs: str) -> Named:
        return named(self.orders, runs)

    def graph_at(self, lengths: Sizes) -> Graph:
        rows = self.reading.sizes_at(lambda v: lengths.shape_of(self.original[v]))
        return self.reading.graph.resized(rows, lengths.sources(), lengths.has_free)

    def program_at(self, lengths: Sizes) -> ProgramReading:
        def shape_of(variable: Any) -> Tuple[int, ...]:
            return lengths.shape_of(self.original[variable])

        try:
            measured = measured_costs(self.nodes, shape_of, dict(self.outcome.costs)) if self.outcome.costs else None
        except ValueError:  # of other shapes
            measured = None
        return read_program(self.clone, self.nodes, {}, shape_of, measured)

    def repeats(self, lengths: Sizes, report: Reading) -> Repeats:
        """`report`: the graph as it runs, of which the report is."""
        reading = self.program_at(lengths)
        program = reading.program
        orders = tuple(order for order in self.orders.values() if program.is_legal(order))
        once = plan_recompute(program, budget_bytes=sum(value.size for value in program.values) + 1, competing_orders=orders)
        owner = once.floor.owner
        return Repeats(
            asked=self.outcome.asked,
            planned_at=self.outcome.planned_at,
            verdict=_verdict(self.outcome),
            ordered_peak=once.ordered_peak,
            floor=once.floor.bytes,
            floor_owner="" if owner is None else program.tasks[owner].label,
            seconds=program.seconds,
            again=tuple(_again(reading, report)),
            times_from="by the profile that was given" if self.outcome.costs else "estimated",
            opened=tuple(describe(node.inputs[0]) for node in self.fgraph.apply_nodes if hasattr(node.tag, OPENED)),
            program=program,
            orders=orders,
        )


def named(orders: Mapping[str, Tuple[int, ...]], runs: str) -> Named:
    """The orders of the host as people know them; the one that this function would run comes first."""
    names = {"toposort": "toposort", "cvm": "order that the CVM really runs"}
    return tuple((names[name], orders[name]) for name in sorted(orders, key=lambda name: name != runs))


def _again(once: ProgramReading, report: Reading) -> List[Again]:
    index = {node: t for t, node in enumerate(report.nodes)}
    left = {mark[0]: t for t, node in enumerate(once.nodes) for mark in [mark_of(node)] if mark is not None}
    found = []
    for name, runs in runs_of(report.nodes).items():
        first, *further = [index[node] for _, node in sorted(runs.items())]
        if not further:
            continue
        task = once.program.tasks[left[name]]
        size = sum(once.program.values[v].size for v in task.writes if v < len(once.variables) and once.program.values[v].view_of is None)
        line = made_at(report.nodes[first].outputs[0], [])[0]
        found.append(Again(report.graph.tasks[first].label, line, size, len(further), len(further) * task.seconds, tuple(further)))
    return found


def _verdict(outcome: Outcome) -> str:
    if outcome.status != "fits" and outcome.budget is not None:
        return not_met(outcome)
    found = f"{in_words(outcome.peak)} instead of {in_words(outcome.ordered_peak)}"
    return f"{found}, {outcome.note}" if outcome.note and outcome.peak < outcome.ordered_peak else outcome.note or found

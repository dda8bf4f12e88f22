"""The optimization `mem_recompute`: cheap results run again, so that the peak comes below that of any order.

    FunctionGraph --read_program--> Program --plan_recompute--> Recomputed --rewritten, put_in--> FunctionGraph --read, order--> lower, or undone

Where lengths are unknown while compiling, Theano's virtual machines wait for the first call, and plan for its sizes (run/first_call.py).

It comes after the last rewrite that makes anything in place, so that what runs again computes the same bits, and right before
`mem_reuse`, which orders the larger graph as any other. What it did stays only if

    the plan is what its checker says (check_recomputed), the graph is the one from before but for clones (check_repeats),
    Theano's destroy handler finds an order for it (fgraph.validate), and
    the order that `mem_reuse` then finds for it has a lower peak than before.

Else all of it is undone, and the function is as it would be without.

Words
    goal        a budget (the least extra time within it), or an extra time (the least peak within it); without one nothing is done
    outcome     what came of it, kept on the function (feature.py) for `explain`
    inside      a function that another one calls, a loop's body: the goal is of the outer one, and the inner one is left as it is
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Optional, Tuple

import theano
from theano import gof
from theano.gof import toolbox

from theano_memopt.hosts.theano.install.flags import Settings
from theano_memopt.hosts.theano.optimize.annotate import annotate
from theano_memopt.hosts.theano.optimize.repeats import check_repeats, put_in, rewritten, shape_of_graph, unmark
from theano_memopt.hosts.theano.read.assumed_sizes import Sizes
from theano_memopt.hosts.theano.read.costs import measured_costs
from theano_memopt.hosts.theano.read.graph import ShapeOf
from theano_memopt.hosts.theano.read.host_orders import demands_of, host_orders
from theano_memopt.hosts.theano.read.program import ProgramReading, read_program
from theano_memopt.planner.budget import Budget, in_words, parse_budget
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.recompute import Recomputed, plan_recompute, status_of
from theano_memopt.progress import planning

Costs = Tuple[Tuple[str, float], ...]
"""Signature of a task (read/costs.py), seconds."""
SMALL = 64 * 1024
"""A peak of so many bytes that is at the floor is not worth a warning where a share of the peak was asked for, for all functions maybe."""
ASSUMED, KNOWN = "assumed sizes", "the sizes that were known while compiling"

_logger = logging.getLogger("theano.mem_reuse")


@dataclass(frozen=True)
class Goal:
    budget: Optional[Budget]
    extra_time: float
    """Counts where there is no budget."""

    def __bool__(self) -> bool:
        return self.budget is not None or self.extra_time > 0


@dataclass(frozen=True)
class Outcome:
    """What came of a goal, in bytes and shares; plain data, which a pickle can carry."""

    asked: str
    """The goal in words."""
    budget: Optional[int]
    ordered_peak: int
    """Of the best order that runs nothing twice."""
    peak: int
    """Of the order that was found for the graph as it was left."""
    floor: int
    """No schedule is lower, however often it runs things again."""
    floor_owner: str
    status: str
    """`fits`, `over` or `impossible`, as in the planner."""
    planned_at: str = ""
    """The sizes at which this was decided, in words."""
    note: str = ""
    """What else is to be said."""
    costs: Costs = ()
    """Of a profile that was given; empty where times were estimated."""


@dataclass(frozen=True)
class Waiting:
    """There is a goal, and the machine decides at its first call what runs again."""

    costs: Costs = ()
    """Of a profile that was given."""
    asker: Optional[str] = None
    """Name and line of the function, for a warning; None: nobody is told."""


class BudgetNotMet(ValueError):
    """A budget cannot be met, and on_opt_error=raise asks to be told so by an error."""


class Undone(Exception):
    """The graph was rewritten, and put back."""

    def __init__(self, message: str, peak: int) -> None:
        """`peak`: of the order that the graph had before, and has again."""
        super().__init__(message)
        self.peak = peak


def goal_of(chosen: Settings) -> Goal:
    return Goal(parse_budget(chosen.budget) if chosen.budget else None, chosen.extra_time)


@planning("deciding what runs again")
def recompute(fgraph: Any, chosen: Settings, shape_of: Optional[ShapeOf] = None, costs: Costs = (), asker: Optional[str] = None) -> Optional[Outcome]:
    """Rewrite the graph for the goal in `chosen`, at these sizes, or at those that are known or assumed while compiling.

    `costs` are of a profile; `asker`: who is told where a budget is not met; None: nobody. The answer is None if nothing was asked for, or the
    graph is not for the pass. The feature `MemReuse` must answer no demands meanwhile: an order of the graph as it was would forbid every
    other one.
    """
    goal = goal_of(chosen)
    if not goal or chosen.order == "host" or not 0 < len(fgraph.apply_nodes) <= chosen.max_nodes:
        return None
    unmark(fgraph)
    sizes = Sizes(fgraph, fgraph.toposort(), chosen.default_dim)
    plan, reading = _plan(fgraph, chosen, goal, shape_of or sizes.shape_of, costs)
    peak, note = plan.ordered_peak, ""
    if plan.again or plan.opened:
        try:
            peak = _rewrite(fgraph, chosen, reading, plan, shape_of)
        except Undone as why:
            peak, note = why.peak, str(why)
    elif plan.status == "fits":
        note = "nothing has to run again for it" if goal.budget is not None else "nothing can run again in so little time that lowers the peak"
    planned_at = "the sizes of the first call" if shape_of is not None else ASSUMED if sizes.has_free else KNOWN
    outcome = replace(_outcome(goal, plan, peak, note), planned_at=planned_at, costs=costs)
    _say(outcome, goal, asker)
    return outcome


def waits_for_sizes(fgraph: Any, chosen: Settings) -> bool:
    """Is there a goal, and is some length a mere guess? Then it is better planned when the first arguments are there."""
    if not goal_of(chosen):
        return False
    nodes = fgraph.toposort()
    sizes = Sizes(fgraph, nodes, chosen.default_dim)
    for node in nodes:
        for v in node.outputs:
            sizes.bytes(v)
    return sizes.has_free


def _plan(fgraph: Any, chosen: Settings, goal: Goal, shape_of: ShapeOf, costs: Costs) -> Tuple[Recomputed, ProgramReading]:
    nodes = fgraph.toposort()
    measured = measured_costs(nodes, shape_of, dict(costs)) if costs else None
    # The destroy handler's demands follow from what is overwritten, and hold for each copy apart.
    reading = read_program(fgraph, nodes, demands_of(fgraph, but=gof.DestroyHandler), shape_of, measured)
    found = annotate(fgraph, chosen, "toposort", "off", bool(theano.config.cxx), replans=True)
    index = {node: t for t, node in enumerate(nodes)}
    orders = [[index[node] for node in found.nodes]]
    by_host = host_orders(found.reading.graph, found.reading.nodes, fgraph.outputs, fgraph.orderings())
    orders += [[index[found.reading.nodes[t]] for t in order] for order in by_host.values()]
    orders = [order for order in orders if reading.program.is_legal(order)]
    budget = goal.budget
    if budget is not None:
        return plan_recompute(reading.program, budget.bytes, budget.share, competing_orders=orders), reading
    return plan_recompute(reading.program, extra_time=goal.extra_time, competing_orders=orders), reading


def _rewrite(fgraph: Any, chosen: Settings, reading: ProgramReading, plan: Recomputed, shape_of: Optional[ShapeOf]) -> int:
    """Put the repeats in, and answer the peak of the order that is then found; or put everything back, and raise `Undone`."""
    before, outputs = shape_of_graph(fgraph), tuple(fgraph.outputs)
    least = _planned_peak(fgraph, chosen, shape_of)
    fgraph.attach_feature(toolbox.ReplaceValidate())
    undo = fgraph.checkpoint()
    try:
        made = rewritten(fgraph, reading, plan)
        put_in(fgraph, made)
        check_repeats(fgraph, before, outputs, made)
        fgraph.validate()
        peak = _planned_peak(fgraph, chosen, None if shape_of is None else lambda v: shape_of(made.original(v)))
        if peak >= least:
            raise Undone(f"what was found to run again would not lower the peak: {peak:,} bytes, and {least:,} without", least)
        return peak
    except Exception as why:
        fgraph.revert(undo)
        unmark(fgraph)
        if shape_of_graph(fgraph) != before or tuple(fgraph.outputs) != outputs:
            raise RuntimeError("a rewritten graph could not be put back") from why
        if isinstance(why, (Undone, gof.InconsistencyError, Rejected)):
            raise Undone(str(why), least) from why
        raise


def _planned_peak(fgraph: Any, chosen: Settings, shape_of: Optional[ShapeOf]) -> int:
    """As `mem_reuse` will read and order the graph."""
    found = annotate(fgraph, chosen, "toposort", "off", bool(theano.config.cxx), replans=True)
    if shape_of is None:
        return found.schedule.peak
    graph = found.reading.graph.resized(found.reading.sizes_at(shape_of))
    return minimise_peak(graph, found.options, [("in force", found.schedule.order)]).peak


# --- what is said ----------------------------------------------------------------------------------------------------


def _outcome(goal: Goal, plan: Recomputed, peak: int, note: str) -> Outcome:
    owner = plan.floor.owner
    return Outcome(
        asked=goal_in_words(goal),
        budget=plan.budget,
        ordered_peak=plan.ordered_peak,
        peak=peak,
        floor=plan.floor.bytes,
        floor_owner="" if owner is None else plan.given.tasks[owner].label,
        status=status_of(peak, plan.budget, plan.floor.bytes),
        note=note,
    )


def goal_in_words(goal: Goal) -> str:
    budget = goal.budget
    if budget is None:
        return f"at most {100 * goal.extra_time:g} % more time"
    return f"a budget of {f'{budget.share:g} of the least peak of any order' if budget.bytes is None else in_words(budget.bytes)}"


def _say(outcome: Outcome, goal: Goal, asker: Optional[str]) -> None:
    """One warning for a budget that is not met; an error if on_opt_error says so. Of a function that the program did not ask for, or that is
    too small to be meant by a share of its peak, it is noted for whoever looks at the log of level info."""
    if outcome.status == "fits" or outcome.budget is None:
        return
    sentence = f"{asker or 'a function'}: {not_met(outcome)}"
    if asker is None or (goal.budget is not None and goal.budget.bytes is None and outcome.ordered_peak <= min(SMALL, outcome.floor)):
        _logger.info("mem_reuse.budget: %s", sentence)
    elif theano.config.on_opt_error == "raise":
        raise BudgetNotMet(sentence)
    elif theano.config.on_opt_error != "ignore":
        _logger.warning("mem_reuse.budget: %s", sentence)


def not_met(outcome: Outcome) -> str:
    assert outcome.budget is not None
    held = f" (task {outcome.floor_owner!r} holds that)" if outcome.floor_owner else " (what is handed out at the end)"
    return (
        f"{'at assumed sizes: ' if outcome.planned_at == ASSUMED else ''}asked {in_words(outcome.budget)}, lowest found {in_words(outcome.peak)}, "
        f"no schedule at all can go below {in_words(outcome.floor)}{held}" + (f"; {outcome.note}" if outcome.note else "")
    )

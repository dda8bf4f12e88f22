"""From a FunctionGraph to an order, and to the links that make Theano run it.

    FunctionGraph --read--> Reading --minimise_peak--> Schedule --chain--> Annotation

Words
    host order  an order that the host would run by itself: its toposort, or the depth-first one of the CVM
    runs        the name of the host order that the linker at hand would run
    chain       the links node -> the node before it; a link that data or other features imply already is left out

Lemma. With a total order chained, whatever node is asked for, exactly the nodes before it have run when it runs: it
needs its predecessor directly, as an input that it always asks for, as another feature's demand or as a link, and so on
down to the first. (One exception, a lazy op on the Stack machine, which obeys no links: all nodes after it are linked to those before it.)
What only a lazy op asks for is not chained. Where it is known when the CVM runs it (read/branches.py), it stands there in the order, too.

Sizes are often guessed. Theano's virtual machines are planned anew when the first arguments are there (run/sized_call.py, run/arena). Other
linkers keep the order of compile time: among orders with a low peak at the guessed sizes that one is taken that is no worse than the
host's at other plausible sizes (the scenarios of assumed_sizes.py).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from theano.gof.graph import io_toposort

from theano_memopt.hosts.theano.install.flags import Settings
from theano_memopt.hosts.theano.read.branches import Step, order_of, steps_of
from theano_memopt.hosts.theano.read.graph import Reading, read
from theano_memopt.hosts.theano.read.host_orders import host_orders
from theano_memopt.hosts.theano.read.op_facts import always_asked, is_lazy
from theano_memopt.options import PlanOptions
from theano_memopt.planner.certificate import Schedule
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import peaks, timeline
from theano_memopt.planner.plan import along
from theano_memopt.progress import planning

ROUNDS = 3
"""The CVM asks for what features demand in the sequence of the nodes that it is given, so the order of the steps is found in rounds."""
OTHER_EFFORT = 500
"""States for an order at other sizes than the guessed ones."""
LARGE, FEW = 1000, 3
"""Above so many tasks only so many other sizes get an order of their own, by the cheap rules: compiling must not wait."""

Merit = Tuple[float, int]
"""How much worse than the host's at the worst of the other sizes, at least 1; then the peak at the guessed sizes."""


@dataclass(frozen=True)
class Annotation:
    """A graph as it is now, its order, and the links that make the host run it."""

    reading: Reading
    schedule: Schedule
    options: PlanOptions
    nodes: Tuple[Any, ...]
    """In the order that they run."""
    links: OrderedDict[Any, List[Any]]
    stock: Tuple[int, ...]
    """The order that the linker would run without the pass."""
    outputs: Tuple[Any, ...]
    """Of the graph, in their sequence: the CVM begins with them."""
    runs: str
    """The name of the host order that the linker would run."""
    steps: Optional[Tuple[Step, ...]] = None
    """Where there are lazy ops, and it is known in which order the CVM runs the nodes in every outcome: its steps. The order is theirs."""


class Declined(Exception):
    """This graph is not for the pass; nothing is wrong."""


@planning("looking for the order of a function that is compiled")
def annotate(fgraph: Any, chosen: Settings, runs: str, uses: str, compiled: bool, replans: bool) -> Annotation:
    """Read the graph, choose an order, and link it. The feature itself must answer no demands meanwhile.

    `runs` is the host order that the linker would run, `uses` the storage, `compiled` whether the linker asks for C code, `replans`
    whether its machine plans anew at the true sizes of a call.
    """
    if len(fgraph.apply_nodes) > chosen.max_nodes:
        raise Declined(f"{len(fgraph.apply_nodes)} nodes are more than mem_reuse.max_nodes={chosen.max_nodes}")
    demands = fgraph.orderings()
    nodes = io_toposort(fgraph.inputs, fgraph.outputs, demands)  # as fgraph.toposort, which would ask for the demands again
    reading = read(fgraph, nodes, demands, chosen.default_dim, compiled)
    options = PlanOptions(effort=chosen.effort, storage=uses)
    by_host = host_orders(reading.graph, nodes, fgraph.outputs, demands)
    schedule = _choose(reading, options, by_host, runs, chosen.order, replans)
    found = Annotation(reading, schedule, options, (), OrderedDict(), by_host[runs], tuple(fgraph.outputs), runs)
    ours = reordered(found, schedule.order, demands)
    if ours.steps is None:
        return ours
    stock = reordered(found, by_host[runs], demands)
    if stock.steps is None:
        return _linked(found, schedule.order, demands)
    if ours.schedule.peak > stock.schedule.peak:
        ours = replace(stock, schedule=along(stock.schedule, reading.graph, stock.schedule.order, "host", ""))
    return replace(ours, stock=stock.schedule.order)


def reordered(annotation: Annotation, order: Tuple[int, ...], demands: Mapping[Any, Sequence[Any]]) -> Annotation:
    """The annotation with another legal order of the same nodes; `demands` of features other than ours. Nodes that only a lazy op asks
    for come where it does, if that is known."""
    found = as_asked = _linked(annotation, order, demands)
    if annotation.runs == "cvm":
        for _ in range(ROUNDS):
            steps = steps_of(found.nodes, annotation.outputs, _merged(demands, found.links))
            if steps is None or not _chained(steps, found.nodes, annotation.reading.certain):
                break
            real = order_of(steps, annotation.reading)
            if real == found.schedule.order:
                return replace(found, steps=steps)
            if not annotation.reading.graph.is_legal(real):
                break
            found = _linked(annotation, real, demands)
    return as_asked


def _linked(annotation: Annotation, order: Tuple[int, ...], demands: Mapping[Any, Sequence[Any]]) -> Annotation:
    """As if every node were asked for in its turn."""
    reading = annotation.reading
    nodes = tuple(reading.nodes[t] for t in order)
    links = _chain([n for n in nodes if n in reading.certain], demands)
    schedule = annotation.schedule if order == annotation.schedule.order else along(annotation.schedule, reading.graph, order)
    return replace(annotation, schedule=schedule, nodes=nodes, links=links, steps=None)


def _chained(steps: Sequence[Step], order: Sequence[Any], certain: FrozenSet[Any]) -> bool:
    """Do the nodes that run in every call come in the sequence of the chain, whichever branches are taken? Else a call with output_subset
    would not be the beginning of a whole one."""
    return [step.node for step in steps if step.node in certain] == [node for node in order if node in certain]


def _merged(*demands: Mapping[Any, Sequence[Any]]) -> Dict[Any, List[Any]]:
    merged: Dict[Any, List[Any]] = {}
    for some in demands:
        for node, before in some.items():
            merged.setdefault(node, []).extend(before)
    return merged


def _choose(reading: Reading, options: PlanOptions, by_host: Mapping[str, Tuple[int, ...]], runs: str, wish: str, replans: bool) -> Schedule:
    """The order with the least peak at the guessed sizes, and, if the machine keeps it whatever sizes come, no worse than the host's
    at other plausible ones.

    There is always one: the order that the linker would run anyway, `by_host[runs]`, is a candidate.
    """
    graph = reading.graph
    competing = tuple(by_host.items())
    if wish == "host":
        schedule = minimise_peak(graph, replace(options, effort=0), competing)
        return along(schedule, graph, by_host[runs], "host", "the host's own order was asked for")
    schedule = minimise_peak(graph, options, competing)
    if schedule.peak == timeline(graph, by_host[runs]).peak:
        schedule = along(schedule, graph, by_host[runs], "host", "")
    if replans:
        return schedule
    others = reading.scenarios
    allowed = peaks(graph, by_host[runs], others)
    if all(peak <= limit for peak, limit in zip(peaks(graph, schedule.order, others), allowed)):
        return schedule
    quick = len(graph.tasks) > LARGE
    effort = 0 if quick else min(options.effort, OTHER_EFFORT)
    candidates: Dict[Tuple[int, ...], Tuple[Merit, str]] = {}

    def offer(name: str, order: Tuple[int, ...]) -> None:
        if order not in candidates:
            worst = max((peak / max(limit, 1) for peak, limit in zip(peaks(graph, order, others), allowed)), default=1.0)
            candidates[order] = ((max(worst, 1.0), timeline(graph, order).peak), name)

    for name, order in ((schedule.method, schedule.order), (runs, by_host[runs]), *competing):
        offer(name, order)
    for other in others[:FEW] if quick else others:
        if min(candidates.values())[0] == (1.0, schedule.peak):
            break  # as good at the guessed sizes and nowhere worse: no more to gain
        offer("best at other sizes", minimise_peak(graph.resized(other), replace(options, effort=effort), competing).order)
    order = min(candidates, key=lambda order: candidates[order][0])
    return along(schedule, graph, order, candidates[order][1], "the least peak at the guessed sizes is worse than the host's at others")


def _chain(order: Sequence[Any], demands: Mapping[Any, Sequence[Any]]) -> OrderedDict[Any, List[Any]]:
    """Links from each node to the one before it.

    A lazy op asks for its condition and one branch: the other inputs, though they are data, are links all the same. And
    the Stack machine asks for nothing before a lazy op, so what follows one is linked to what precedes it as well.
    """
    links: OrderedDict[Any, List[Any]] = OrderedDict()
    wanted: List[Any] = []  # the node before, and while that is lazy also the one before it; the machine begins with the last
    for before, node in zip(order, order[1:]):
        wanted = [before, *wanted] if is_lazy(before.op) else [before]
        asked = {v.owner for v in always_asked(node)}
        missing = [n for n in wanted if n not in asked and n not in demands.get(node, ())]
        if missing:
            links[node] = missing
    return links

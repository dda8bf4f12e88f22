"""The optimization `mem_reuse`, and the feature that carries order and storage on the FunctionGraph.

The optimization only attaches the feature. The feature plans when it is first asked for an order, which is when the
linker starts, and plans again when the graph has changed since: FunctionMaker inserts copies after the optimizers, and
clones and pickles have new nodes. So the plan is always one of the graph that runs.

    toposort and the virtual machines ask `orderings`  ->  a chain: every node after the one before it in the order

Words
    chain     the links node -> the node before it; a link that data or other features imply already is left out
    runs      which of the host's orders the linker at hand would run: its toposort, or the depth-first one of the CVM
    aside     the pass leaves a function as the host would have it, and says why

Lemma. With a total order chained, whatever node is asked for, exactly the nodes before it have run when it runs: it
needs its predecessor directly, as an input that it always asks for, as another feature's demand or as a link, and so on
down to the first. (One exception, a lazy op on the Stack machine, which obeys no links: what comes after it has them all.)
"""

from __future__ import annotations

import logging
import pdb
import sys
import traceback
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import theano
from theano import gof
from theano.compile import mode as modes
from theano.gof import toolbox
from theano.gof.graph import io_toposort

from theano_memopt.hosts.theano.install.flags import Settings, check, declare, settings, storage_for
from theano_memopt.hosts.theano.optimize.preallocated import bring, bring_products
from theano_memopt.hosts.theano.read.graph import Reading, always_asked, is_lazy, read
from theano_memopt.options import PlanOptions
from theano_memopt.planner.certificate import Open, Schedule
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import peaks, timeline
from theano_memopt.planner.plan import Plan

NAME = "mem_reuse"
POSITION = 1000.0
"""After every rewrite that changes the graph; Theano's own end at 100."""

OTHER_EFFORT = 500
"""States for an order at other sizes than the guessed ones."""
LARGE, FEW = 1000, 3
"""Above so many tasks only so many other sizes get an order of their own, by the cheap rules: compiling must not wait."""

Merit = Tuple[float, int]
"""How much worse than the host's at the worst of the other sizes, at least 1; then the peak at the guessed sizes."""

_logger = logging.getLogger("theano.mem_reuse")


@dataclass(frozen=True)
class StoodAside:
    """The pass was on and left the function as it was."""

    reason: str
    detail: str = ""

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True)
class Annotation:
    """What the feature knows of the graph as it is now."""

    reading: Reading
    schedule: Schedule
    options: PlanOptions
    nodes: Tuple[Any, ...]
    """In the order that they run."""
    links: OrderedDict[Any, List[Any]]


def plan_of(function: Any) -> Union[Plan, StoodAside, None]:
    """The plan that a compiled function runs; None if the pass was off; StoodAside (false in a test) if it declined.

    For Scan, give the inner function (`op.fn`), the op, or its node.

    >>> import theano_memopt, theano, theano.tensor as tt
    >>> x = theano_memopt.hint(tt.dmatrix("x"), (100, 100))
    >>> y = tt.exp(tt.dot(x, x))
    >>> plan = theano_memopt.plan_of(theano.function([x], tt.dot(y, y.T).sum(), mode=theano_memopt.mode("FAST_RUN")))
    >>> plan.schedule.peak, plan.schedule.proven     # two of 80,000 bytes at once, and no order needs less
    (160000, True)
    """
    if isinstance(function, gof.Apply):
        function = function.op
    function = getattr(function, "fn", function) if not hasattr(function, "maker") else function
    if not hasattr(function, "maker"):
        raise TypeError(f"plan_of needs a function that Theano compiled, not {function!r}")
    feature = feature_of(function.maker.fgraph)
    if feature is None:
        return None
    return feature.plan(function.maker.fgraph)


def mode(base: Any = None, **overrides: Any) -> Any:
    """A Mode like `base` (a name, a Mode, or None for the default) with the pass on, set up for this function alone.

    >>> import theano_memopt, theano, theano.tensor as tt
    >>> x = tt.dmatrix("x")
    >>> function = theano.function([x], tt.dot(x, x).sum(), mode=theano_memopt.mode("FAST_RUN", order="host", storage="off"))
    >>> theano_memopt.plan_of(function).schedule.method
    'host'
    >>> theano_memopt.mode("FAST_RUN", storage="of")
    Traceback (most recent call last):
    ...
    ValueError: Invalid value ("of") for configuration variable "mem_reuse.storage". Valid options are ('auto', 'share', 'arena', 'off')
    """
    for name, value in overrides.items():
        check(name, value)
    found = modes.get_mode(base)
    query = modes.predefined_optimizers.get(found.provided_optimizer) if _is_name(found.provided_optimizer) else found.provided_optimizer
    configure = MemReuseOptimizer(overrides)
    if not isinstance(query, gof.Query):
        return found.clone(optimizer=gof.opt.SeqOptimizer([found.optimizer, configure]))
    # The configured one comes first and attaches the feature; the registered one then finds it and does nothing.
    return found.clone(optimizer=query.including(NAME).register((configure, POSITION - 1)))


def register() -> None:
    """Declare the flags and put the optimization into Theano's database, once."""
    declare()
    if NAME not in modes.optdb._names:
        modes.optdb.register(NAME, MemReuseOptimizer(), POSITION, "fast_run", "memory")


def feature_of(fgraph: Any) -> Optional[MemReuse]:
    for feature in getattr(fgraph, "_features", ()):
        if isinstance(feature, MemReuse):
            return feature
    return None


def others_demands(fgraph: Any) -> Mapping[Any, Sequence[Any]]:
    """What features other than ours want to run before what."""
    found: Dict[Any, List[Any]] = {}
    for feature in fgraph._features:
        if hasattr(feature, "orderings") and not isinstance(feature, MemReuse):
            for node, before in feature.orderings(fgraph).items():
                found.setdefault(node, []).extend(before)
    return found


linkers: List[Any] = []
"""Of the functions that are being made, the innermost last."""


def shows_values(linker: Any) -> bool:
    """Was it given a function of the user's that sees every array? That one may keep what it sees: nothing of it is overwritten
    that stock Theano would not overwrite."""
    return getattr(linker, "callback", None) is not None or getattr(linker, "callback_input", None) is not None


class MemReuseOptimizer(gof.Optimizer):
    """Attach the feature. Everything else is done when an order is asked for."""

    def __init__(self, overrides: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__()
        self.overrides = dict(overrides or {})
        self.name = NAME

    def apply(self, fgraph: Any) -> None:
        if feature_of(fgraph) is None:
            give(fgraph, settings(self.overrides), linkers[-1] if linkers else None)


def give(fgraph: Any, chosen: Settings, linker: Any) -> None:
    """Give this graph the pass, for a linker if it is known."""
    uses = storage_for(chosen, getattr(linker, "allow_gc", theano.config.allow_gc))
    wanted = {"off": (), "share": (bring_products,), "arena": (bring_products, bring)}[uses]
    for bring_ops in () if shows_values(linker) else wanted:
        fgraph.attach_feature(toolbox.ReplaceValidate())
        try:
            bring_ops(fgraph)
        except Exception as trouble:  # these ops will put arrays of their own into their cells: more memory, nothing else
            complain(StoodAside("ops could not be brought to write where they are told", repr(trouble)), trouble)
    fgraph.attach_feature(MemReuse(chosen))


class MemReuse(toolbox.Feature):
    """Order and storage of one FunctionGraph."""

    def __init__(self, chosen: Settings) -> None:
        self.settings = chosen
        self._start()

    def _start(self) -> None:
        self.fgraph: Any = None
        self.runs = "cvm" if theano.config.linker.startswith("cvm") else "toposort"
        self.compiled = bool(theano.config.cxx)
        self.aside: Optional[StoodAside] = None
        self.uses = storage_for(self.settings, theano.config.allow_gc)
        """The kind of storage, as soon as the linker is known."""
        self.storage: Any = None
        """Slots that the linker has bound, or None."""
        self.sharing: Optional[Tuple[int, ...]] = None
        """The buffers that were allowed to share."""
        self.true_plan: Optional[Callable[[], Optional[Plan]]] = None
        """With an arena: asks the machine for the plan at the true sizes."""
        self._annotation: Optional[Annotation] = None
        self._planning = False

    # --- life on a FunctionGraph ---------------------------------------------------------------------------------

    def on_attach(self, fgraph: Any) -> None:
        if self.fgraph is not None and self.fgraph is not fgraph:
            # clone_get_equiv hands the features of one graph to its clone: the clone gets one of its own.
            fgraph.attach_feature(MemReuse(self.settings))
            raise toolbox.AlreadyThere()
        if any(isinstance(feature, MemReuse) for feature in fgraph._features):
            raise toolbox.AlreadyThere()
        self.fgraph = fgraph

    def on_detach(self, fgraph: Any) -> None:
        self._start()

    def unpickle(self, fgraph: Any) -> None:
        self.fgraph = fgraph

    def __getstate__(self) -> Dict[str, Any]:
        return {"settings": self.settings}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.settings = state["settings"]
        self._start()

    def on_import(self, fgraph: Any, node: Any, reason: Any) -> None:
        self.forget()

    def on_prune(self, fgraph: Any, node: Any, reason: Any) -> None:
        self.forget()

    def on_change_input(self, fgraph: Any, node: Any, i: Any, old: Any, new: Any, reason: Any = None) -> None:
        self.forget()

    def forget(self) -> None:
        """The graph has changed: what was planned was for another one."""
        self._annotation = None
        self.aside = None
        self.storage = None
        self.true_plan = None

    # --- what the host asks --------------------------------------------------------------------------------------

    def orderings(self, fgraph: Any) -> OrderedDict[Any, List[Any]]:
        found = self.annotation(fgraph)
        return OrderedDict() if found is None else OrderedDict((node, list(before)) for node, before in found.links.items())

    # --- what the linker asks ------------------------------------------------------------------------------------

    def annotation(self, fgraph: Any) -> Optional[Annotation]:
        """The plan for the graph as it is now; None while planning and after standing aside."""
        if self._planning or self.aside is not None or fgraph is not self.fgraph:
            return None
        if self._annotation is None:
            self._planning = True
            try:
                self._annotation = annotate(fgraph, self.settings, self.runs, self.uses, self.compiled)
            except Declined as why:
                self.aside = StoodAside(str(why))
            except Exception as trouble:
                self.stand_aside("the planner failed", trouble)
            finally:
                self._planning = False
        return self._annotation

    def adopt(self, annotation: Optional[Annotation]) -> Optional[Annotation]:
        """Another order of the same graph; answers the one until now."""
        before, self._annotation = self._annotation, annotation
        return before

    def links_with(self, linker: Any) -> str:
        """Settle which storage is used, now that the linker is known."""
        self.uses = "off" if shows_values(linker) else storage_for(self.settings, linker.allow_gc)
        if self._annotation is not None:
            self._annotation = replace(self._annotation, options=replace(self._annotation.options, storage=self.uses))
        return self.uses

    def runs_in(self, host_order: str, compiled: bool = True) -> None:
        """Say which of its own orders the linker would run, and whether it asks for C code."""
        if (host_order, compiled) != (self.runs, self.compiled):
            self.runs, self.compiled = host_order, compiled
            self._annotation = None

    def stand_aside(self, reason: str, trouble: Optional[BaseException] = None) -> None:
        """Leave this graph to the host, warn once, and keep the reason."""
        self._annotation = None
        self.storage = None
        self.aside = StoodAside(reason, "" if trouble is None else f"{type(trouble).__name__}: {trouble}")
        complain(self.aside, trouble)

    def plan(self, fgraph: Any) -> Union[Plan, StoodAside, None]:
        found = self.annotation(fgraph)
        if found is None:
            return self.aside
        true = None if self.true_plan is None else self.true_plan()
        if true is not None:
            return true
        return Plan(found.reading.graph, found.schedule, self.storage, found.options, self.sharing)


class Declined(Exception):
    """This graph is not for the pass; nothing is wrong."""


def complain(aside: StoodAside, trouble: Optional[BaseException]) -> None:
    """One warning, as `on_opt_error` wants it."""
    wish = theano.config.on_opt_error
    if wish == "raise" and trouble is not None:
        raise trouble
    if wish != "ignore":
        how = "".join(traceback.format_exception(type(trouble), trouble, trouble.__traceback__)) if trouble is not None else ""
        _logger.warning(
            "mem_reuse left a function as it was: %s%s%s", aside.reason, f" ({aside.detail})" if aside.detail else "", "\n" + how if how else ""
        )
    if wish == "pdb" and trouble is not None:
        pdb.post_mortem(sys.exc_info()[2])


# --- planning --------------------------------------------------------------------------------------------------------


def annotate(fgraph: Any, chosen: Settings, runs: str, uses: str, compiled: bool) -> Annotation:
    """Read the graph, choose an order, and link it. The feature itself must be silent meanwhile. `uses` is the storage,
    `compiled` whether the linker asks for C code."""
    if len(fgraph.apply_nodes) > chosen.max_nodes:
        raise Declined(f"{len(fgraph.apply_nodes)} nodes are more than mem_reuse.max_nodes={chosen.max_nodes}")
    demands = fgraph.orderings()
    nodes = io_toposort(fgraph.inputs, fgraph.outputs, demands)  # as fgraph.toposort, which would ask for the demands again
    reading = read(fgraph, nodes, demands, chosen.default_dim, compiled)
    index = {node: t for t, node in enumerate(nodes)}
    own = {
        "toposort": reading.graph.natural_order,
        "cvm": tuple(index[node] for node in cvm_order(nodes, fgraph.outputs, demands)),
    }
    if not reading.graph.is_legal(own["cvm"]):
        own["cvm"] = own["toposort"]  # the host itself would run an order that its features forbid
    options = PlanOptions(effort=chosen.effort, storage=uses)
    schedule = _choose(reading, options, own, runs, chosen.order)
    order = tuple(nodes[t] for t in schedule.order)
    return Annotation(reading, schedule, options, order, _chain([n for n in order if n in reading.certain], demands))


def reordered(annotation: Annotation, feature: MemReuse, order: Tuple[int, ...]) -> Annotation:
    """The annotation with another legal order of the same nodes."""
    if order == annotation.schedule.order:
        return annotation
    reading = annotation.reading
    nodes = tuple(reading.nodes[t] for t in order)
    links = _chain([n for n in nodes if n in reading.certain], others_demands(feature.fgraph))
    return replace(annotation, schedule=along(annotation.schedule, reading.graph, order), nodes=nodes, links=links)


def along(schedule: Schedule, graph: Any, order: Tuple[int, ...]) -> Schedule:
    """The same findings about another order of the same graph."""
    return _with_order(schedule, graph, order, schedule.method, "")


def cvm_order(nodes: Sequence[Any], outputs: Sequence[Any], demands: Mapping[Any, Sequence[Any]]) -> List[Any]:
    """The order in which `lazy_rec_eval` of lazylinker_c.c runs `nodes`, were every input asked for.

    It numbers the variables along `nodes`, and evaluates for each output, depth first: what the features demand, by
    number; then the inputs as they stand; then the node.
    """
    number: Dict[Any, int] = {}
    for node in nodes:
        for v in [*node.inputs, *node.outputs]:
            number.setdefault(v, len(number))
    needs: Dict[Any, List[Any]] = {}
    for node in nodes:
        prior = sorted((number[v], before) for before in dict.fromkeys(demands.get(node, ())) for v in before.outputs)
        needs[node] = [before for _, before in prior] + [v.owner for v in node.inputs if v.owner]
    done, order = set(), []
    for output in outputs:
        stack = [(output.owner, iter(needs[output.owner]))] if output.owner and output.owner not in done else []
        while stack:
            node, rest = stack[-1]
            missing = next((n for n in rest if n not in done), None)
            if missing is not None:
                stack.append((missing, iter(needs[missing])))
                continue
            stack.pop()
            if node not in done:
                done.add(node)
                order.append(node)
    return order


def _choose(reading: Reading, options: PlanOptions, own: Mapping[str, Tuple[int, ...]], runs: str, wish: str) -> Schedule:
    """The order with the least peak at the guessed sizes that is no worse than the host's at other plausible ones.

    There is always one: what the linker would run anyway, `own[runs]`, is a candidate.
    """
    graph = reading.graph
    competing = tuple(own.items())
    if wish == "host":
        schedule = minimise_peak(graph, replace(options, effort=0), competing)
        return _with_order(schedule, graph, own[runs], "host", "the host's own order was asked for")
    schedule = minimise_peak(graph, options, competing)
    if schedule.peak == timeline(graph, own[runs]).peak:
        schedule = _with_order(schedule, graph, own[runs], "host", "")
    others = reading.scenarios
    allowed = peaks(graph, own[runs], others)
    if all(peak <= limit for peak, limit in zip(peaks(graph, schedule.order, others), allowed)):
        return schedule
    quick = len(graph.tasks) > LARGE
    effort = 0 if quick else min(options.effort, OTHER_EFFORT)
    candidates: Dict[Tuple[int, ...], Tuple[Merit, str]] = {}

    def offer(name: str, order: Tuple[int, ...]) -> None:
        if order not in candidates:
            worst = max((peak / max(limit, 1) for peak, limit in zip(peaks(graph, order, others), allowed)), default=1.0)
            candidates[order] = ((max(worst, 1.0), timeline(graph, order).peak), name)

    for name, order in ((schedule.method, schedule.order), (runs, own[runs]), *competing):
        offer(name, order)
    for other in others[:FEW] if quick else others:
        if min(candidates.values())[0] == (1.0, schedule.peak):
            break  # as good at the guessed sizes and nowhere worse: no more to gain
        offer("best at other sizes", minimise_peak(graph.resized(other), replace(options, effort=effort), competing).order)
    order = min(candidates, key=lambda order: candidates[order][0])
    return _with_order(schedule, graph, order, candidates[order][1], "the least peak at the guessed sizes is worse than the host's at others")


def _with_order(schedule: Schedule, graph: Any, order: Tuple[int, ...], method: str, reason: str) -> Schedule:
    """The same findings about another order of the same graph."""
    along = timeline(graph, order)
    certificate = schedule.certificate
    if along.peak > schedule.floor:
        certificate = Open(schedule.floor, certificate.proof, reason or getattr(certificate, "reason", ""))
    # It was chosen for another reason than its peak at these sizes, so nothing is claimed of it beside the other orders.
    baseline = max(schedule.baseline_peak, along.peak)
    return replace(schedule, order=tuple(order), timeline=along, certificate=certificate, baseline_peak=baseline, method=method)


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


def _is_name(optimizer: Any) -> bool:
    return optimizer is None or isinstance(optimizer, str)

"""The optimizations of this package, as Theano knows them.

    mem_recompute   999.5   runs cheap results again, where an extra time or a budget was asked for (recompute.py)
    mem_reuse      1000     attaches the feature that plans (feature.py), and for an arena replaces ops (preallocated.py)

Registered in Theano's database for every mode that includes `fast_run`, or added to one mode by `mode`.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Collection, Iterator, Mapping, Optional, Tuple, Union

import theano
from theano import gof
from theano.compile import mode as modes
from theano.gof import toolbox

from theano_memopt.hosts.theano.install.flags import Settings, check, declare, settings, storage_for
from theano_memopt.hosts.theano.optimize.feature import MemReuse, StoodAside, complain, feature_of, shows_values
from theano_memopt.hosts.theano.optimize.preallocated import use_preallocated, use_preallocated_products
from theano_memopt.hosts.theano.optimize.recompute import BudgetNotMet, Costs, Outcome, Waiting, goal_of, recompute, waits_for_sizes
from theano_memopt.hosts.theano.read.op_facts import kind_of
from theano_memopt.planner.plan import Plan

NAME = "mem_reuse"
TAGS = (NAME, "fast_run", "memory")
"""By which a mode includes or excludes it."""
POSITION = 1000.0
"""After every rewrite that changes the graph; Theano's own end at 100."""
AGAIN, AGAIN_POSITION = "mem_recompute", 999.5
AGAIN_LATER = "mem_recompute_waits"
"""Attributes of a graph, by which the first optimization tells the second one what it did, or left for later."""
Asker = Callable[[], Optional[str]]
"""Answers who asks for a function: name and line; None where Theano asks for itself. Only a budget that is not met needs to know."""


def plan_of(function: Any) -> Union[Plan, StoodAside, None]:
    """The plan that a compiled function runs; None if the pass was off; StoodAside (false in a test) if it declined.

    Where lengths are unknown while compiling, the plan before the first call is one at assumed sizes (`plan.sizes` says so), and after
    a call the one that is in force since.

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
        raise TypeError(f"plan_of needs a function that Theano compiled, not {kind_of(function)}")
    feature = feature_of(function.maker.fgraph)
    if feature is None:
        return None
    in_force = planned_by(function.fn)
    return feature.plan(function.maker.fgraph) if in_force is None else in_force


def planned_by(machine: Any) -> Optional[Plan]:
    """The plan at the sizes of the last call, of a machine that plans anew when sizes come."""
    asked = getattr(machine, "plan", None)
    return None if asked is None else asked()


def mode(base: Any = None, *, profile: Any = None, **overrides: Any) -> Any:
    """A Mode like `base` (a name, a Mode, or None for the default) with the pass on, set up for this function alone.

    `profile`: what `theano_memopt.profile` measured of the same function, compiled without a budget; then extra time counts in
    measured seconds, and not in estimates.

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
    costs: Costs = () if profile is None else getattr(profile, "profile", profile).costs
    found = modes.get_mode(base)
    query = _query_of(found)
    configured = [(MemRecomputeOptimizer(overrides, costs), AGAIN_POSITION - 1), (MemReuseOptimizer(overrides), POSITION - 1)]
    if not isinstance(query, gof.Query):
        return found.clone(optimizer=gof.opt.SeqOptimizer([found.optimizer, *(optimizer for optimizer, _ in configured)]))
    # The configured ones come first, and the feature is attached; the registered ones then find it and do nothing.
    return found.clone(optimizer=query.including(NAME).register(*configured))


def why_without_the_pass(function: Any) -> str:
    """Why a function was compiled without the pass: it was excluded, not included, or not there yet."""
    query = _query_of(function.maker.mode)
    if not isinstance(query, gof.Query):
        return "compiled without the pass, in a mode with an optimizer of its own; to have it, compile with mode=theano_memopt.mode(...)"
    excluded = [tag for tag in TAGS if tag in query.exclude]
    if excluded:
        return f"compiled without the pass, as asked: its mode, or the flag optimizer_excluding, excludes {excluded[0]}"
    if not any(tag in query.include for tag in TAGS):
        return (
            "compiled without the pass: its mode does not include it; FAST_RUN does, the flag optimizer_including=mem_reuse, or theano_memopt.mode()"
        )
    return "compiled without the pass: `import theano_memopt` came later; compile after it"


def register() -> None:
    """Declare the flags and put the optimization into Theano's database, once."""
    declare()
    if NAME not in modes.optdb._names:
        modes.optdb.register(NAME, MemReuseOptimizer(), POSITION, *TAGS[1:])
        modes.optdb.register(AGAIN, MemRecomputeOptimizer(), AGAIN_POSITION, *TAGS[1:])


class _Making(threading.local):
    """What this thread makes."""

    linkers: Tuple[Any, ...] = ()
    """Of the functions that are being made, the innermost last."""
    excluded: Tuple[Collection[str], ...] = ()
    """Names of optimizations that their modes exclude."""
    askers: Tuple[Asker, ...] = ()
    linked: int = 0
    """Functions whose linkers are at work: one that is made meanwhile is called by a task of theirs."""


_making = _Making()


@contextlib.contextmanager
def linked() -> Iterator[None]:
    """This thread's linker is at work: functions that are made now are the bodies of loops, say."""
    _making.linked += 1
    try:
        yield
    finally:
        _making.linked -= 1


@contextlib.contextmanager
def making_in(chosen: Any, asker: Asker) -> Iterator[None]:
    """This thread makes a function in this mode: Theano gives an optimization the graph alone."""
    before = _making.linkers, _making.excluded, _making.askers
    _making.linkers = (*before[0], chosen.linker)
    _making.excluded = (*before[1], getattr(_query_of(chosen), "exclude", ()))
    _making.askers = (*before[2], asker)
    try:
        yield
    finally:
        _making.linkers, _making.excluded, _making.askers = before


class MemRecomputeOptimizer(gof.Optimizer):
    """Run cheap results again for the goal that was set; without one, nothing."""

    def __init__(self, overrides: Optional[Mapping[str, Any]] = None, costs: Costs = ()) -> None:
        super().__init__()
        self.overrides = dict(overrides or {})
        self.costs = costs
        self.name = AGAIN

    def apply(self, fgraph: Any) -> None:
        excluded = _making.excluded[-1] if _making.excluded else ()
        if feature_of(fgraph) is None and not _making.linked and NAME not in excluded and AGAIN not in excluded:
            chosen = settings(self.overrides)
            asker = _making.askers[-1]() if _making.askers and goal_of(chosen) else "a function"
            try:
                if can_wait(_making.linkers[-1] if _making.linkers else None) and waits_for_sizes(fgraph, chosen):
                    setattr(fgraph, AGAIN_LATER, Waiting(self.costs, asker))
                else:
                    setattr(fgraph, AGAIN, recompute(fgraph, chosen, costs=self.costs, asker=asker))
            except BudgetNotMet:
                raise
            except Exception as trouble:
                complain(StoodAside("nothing runs again in it", repr(trouble)), trouble)


class MemReuseOptimizer(gof.Optimizer):
    """Attach the feature. Everything else is done when an order is asked for."""

    def __init__(self, overrides: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__()
        self.overrides = dict(overrides or {})
        self.name = NAME

    def apply(self, fgraph: Any) -> None:
        if feature_of(fgraph) is None:
            outcome, waits = (fgraph.__dict__.pop(name, None) for name in (AGAIN, AGAIN_LATER))
            give(fgraph, settings(self.overrides), _making.linkers[-1] if _making.linkers else None, outcome, waits)


def can_wait(linker: Any) -> bool:
    """Can the machine of this linker be made again when the first call has come? That of a linker with a callback could show values twice."""
    return isinstance(linker, gof.vm.VM_Linker) and not shows_values(linker)


def give(fgraph: Any, chosen: Settings, linker: Any, outcome: Optional[Outcome] = None, waits: Optional[Waiting] = None) -> None:
    """Give this graph the pass, for a linker if it is known; `outcome`: what runs again in it, and why; `waits`: is that still to be decided?"""
    uses = storage_for(chosen, getattr(linker, "allow_gc", theano.config.allow_gc))
    wanted = {"off": (), "share": (use_preallocated_products,), "arena": (use_preallocated_products, use_preallocated)}[uses]
    for replace_ops in () if shows_values(linker) else wanted:
        fgraph.attach_feature(toolbox.ReplaceValidate())
        try:
            replace_ops(fgraph)
        except Exception as trouble:  # they go on allocating their results: more memory, nothing else
            complain(StoodAside("ops could not be replaced by ops that write into preallocated results", repr(trouble)), trouble)
    fgraph.attach_feature(MemReuse(chosen, outcome, waits))


def _query_of(chosen: Any) -> Any:
    """What a mode asks Theano's database for; or an optimizer that was made by hand."""
    named = chosen.provided_optimizer
    return modes.predefined_optimizers.get(named) if named is None or isinstance(named, str) else named

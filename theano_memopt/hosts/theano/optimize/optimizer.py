"""The optimization `mem_reuse`: it attaches the feature that plans (feature.py), and for an arena it replaces ops (preallocated.py).

Registered in Theano's database for every mode that includes `fast_run`, or added to one mode by `mode`.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Iterator, Mapping, Optional, Tuple, Union

import theano
from theano import gof
from theano.compile import mode as modes
from theano.gof import toolbox

from theano_memopt.hosts.theano.install.flags import Settings, check, declare, settings, storage_for
from theano_memopt.hosts.theano.optimize.feature import MemReuse, StoodAside, complain, feature_of, shows_values
from theano_memopt.hosts.theano.optimize.preallocated import use_preallocated, use_preallocated_products
from theano_memopt.planner.plan import Plan

NAME = "mem_reuse"
POSITION = 1000.0
"""After every rewrite that changes the graph; Theano's own end at 100."""


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
        raise TypeError(f"plan_of needs a function that Theano compiled, not {function!r}")
    feature = feature_of(function.maker.fgraph)
    if feature is None:
        return None
    in_force = planned_by(function.fn)
    return feature.plan(function.maker.fgraph) if in_force is None else in_force


def planned_by(machine: Any) -> Optional[Plan]:
    """The plan at the sizes of the last call, of a machine that plans anew when sizes come."""
    asked = getattr(machine, "plan", None)
    return None if asked is None else asked()


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


class _Making(threading.local):
    """The linkers of the functions that this thread makes, the innermost last."""

    linkers: Tuple[Any, ...] = ()


_making = _Making()


@contextlib.contextmanager
def linking_with(linker: Any) -> Iterator[None]:
    """This thread makes a function for this linker: Theano gives an optimization the graph alone."""
    before = _making.linkers
    _making.linkers = (*before, linker)
    try:
        yield
    finally:
        _making.linkers = before


class MemReuseOptimizer(gof.Optimizer):
    """Attach the feature. Everything else is done when an order is asked for."""

    def __init__(self, overrides: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__()
        self.overrides = dict(overrides or {})
        self.name = NAME

    def apply(self, fgraph: Any) -> None:
        if feature_of(fgraph) is None:
            give(fgraph, settings(self.overrides), _making.linkers[-1] if _making.linkers else None)


def give(fgraph: Any, chosen: Settings, linker: Any) -> None:
    """Give this graph the pass, for a linker if it is known."""
    uses = storage_for(chosen, getattr(linker, "allow_gc", theano.config.allow_gc))
    wanted = {"off": (), "share": (use_preallocated_products,), "arena": (use_preallocated_products, use_preallocated)}[uses]
    for replace_ops in () if shows_values(linker) else wanted:
        fgraph.attach_feature(toolbox.ReplaceValidate())
        try:
            replace_ops(fgraph)
        except Exception as trouble:  # they go on allocating their results: more memory, nothing else
            complain(StoodAside("ops could not be replaced by ops that write into preallocated results", repr(trouble)), trouble)
    fgraph.attach_feature(MemReuse(chosen))


def _is_name(optimizer: Any) -> bool:
    return optimizer is None or isinstance(optimizer, str)

"""Every function of Theano that this package wraps: where, by which function, why, and what breaks without it.

    Theano calls   VM_Linker.make_all(linker, ...)   ->   run/linker.py: make_all(upstream's make_all, linker, ...)

Each place is wrapped once, for good, right after `import theano`. A wrapper does nothing for a function that was compiled without the
pass, the repairs and Theano's own memory profile apart. No other function of Theano is replaced anywhere.

Not wrapped, but registered through interfaces that are made for it: the flags (install/flags.py, AddConfigVar), the optimization
(optimize/optimizer.py, optdb.register), and how a FunctionMaker is pickled (optimize/pickles.py, copyreg). Before `import theano`
install/environment.py prepares Python and NumPy for it.

This file imports nothing of the package until it wraps, and then only what the table names.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any, Callable, Sequence

HOST = __name__.rsplit(".", 2)[0]
"""The package of this host, under the name that it was imported by."""


@dataclass(frozen=True)
class Patch:
    """One wrapped function."""

    place: str
    """Module of Theano, then the attribute in it."""
    by: str
    """Module of this host, then the function. It is called with the wrapped function first, then with the caller's arguments."""
    why: str
    without: str
    """What breaks without it."""


REPAIRS = (
    Patch(
        "theano.tensor.blas:BatchedDot.c_code",
        "install.environment:batched_dot_c_code",
        why="the C code of BatchedDot calls dgemm_, and there may be no BLAS to link with",
        without="without a BLAS, a function with a BatchedDot cannot be loaded: undefined symbol dgemm_",
    ),
    Patch(
        "theano.gof.graph:nodes_constructed",
        "install.environment:nodes_constructed",
        why="where a rewrite gives up half way, upstream forgets to stop listening for new variables",
        without="every variable made later is kept for ever, with the shared values and functions that hang on it",
    ),
)
"""What Theano needs on these versions of Python and NumPy, with or without the pass."""

MAKERS = (
    Patch(
        "theano.compile.function_module:FunctionMaker.__init__",
        "optimize.making:maker_init",
        why="the optimization sees a graph only, and must know the linker and, in a copy, the settings of the original",
        without="storage=auto is chosen by the global flag allow_gc, and Function.copy loses the pass",
    ),
    Patch(
        "theano.compile.function_module:FunctionMaker.create",
        "optimize.making:maker_create",
        why="a graph that comes out of a pickle is given the pass again before its linker starts; `run` counts compiled functions",
        without="an unpickled function runs in stock's order and storage, and `run` reports no function",
    ),
    Patch(
        "theano.compile.function_module:Function.copy",
        "optimize.making:function_copy",
        why="upstream gives the copy a graph without features",
        without="a copy runs in stock's order and storage",
    ),
)
"""How functions are made."""

MACHINES = (
    Patch(
        "theano.gof.vm:VM_Linker.make_all",
        "run.linker:make_all",
        why="variables that share a cell are given it before upstream makes thunks and machine",
        without="each variable has a cell of its own: the order is planned, storage is not",
    ),
    Patch(
        "theano.gof.vm:VM_Linker.make_vm",
        "measure.theano_profiler:make_vm",
        why="the one place where order, thunks and cells come together (what a profile wants is done first, the rest by run.linker:make_vm): the"
        " plan is checked against them, clears are withheld, the arena is put over the machine, and thunks are wrapped for"
        " verify, for a profile and for a twin",
        without="the Loop machine empties a shared cell between two tenants, there is no arena, and nothing can be measured",
    ),
    Patch(
        "theano.gof.vm:VM_Linker.compute_gc_dependencies",
        "run.linker:compute_gc_dependencies",
        why="a cell is cleared only when its last tenant is dead",
        without="the CVM and the Stack machine empty a shared cell between two tenants, and the second one allocates",
    ),
    Patch(
        "theano.gof.vm:calculate_reallocate_info",
        "run.linker:calculate_reallocate_info",
        why="upstream's own reuse of storage pairs outputs with intermediates: it is off where the pass is on",
        without="upstream gives one more variable the cell that the plan has shared out, and clears the wrong one",
    ),
    Patch(
        "theano.gof.link:LocalLinker.schedule",
        "run.linker:schedule",
        why="the linker takes the planned order itself",
        without="the same order comes from a toposort over the chain, which takes long where a chain is long",
    ),
    Patch(
        "theano.gof.link:streamline",
        "run.thunks:streamline",
        why="linkers that are no virtual machines make theirs here: a twin's thunks are wrapped",
        without="what a function of linker=py or c|py really runs cannot be recorded",
    ),
    Patch(
        "theano.compile.function_module:Function.free",
        "run.linker:function_free",
        why="the block is given back too, and what the caller gave stays",
        without="the block is held after free(), and the cells of shared variables are emptied: the next function that uses one fails",
    ),
)
"""How machines are made, and what they keep."""

PROFILE = (
    Patch(
        "theano.compile.profiling:ProfileStats.summary",
        "measure.theano_profiler:summary",
        why="upstream's defaults are the stderr of import time and lists of 20, whatever the flags say",
        without="profile.summary() obeys neither profiling.destination nor profiling.n_ops and profiling.n_apply",
    ),
    Patch(
        "theano.compile.profiling:ProfileStats.summary_memory",
        "measure.theano_profiler:summary_memory",
        why="figures of the planned order beside those of stock's, and a minimum that is proven",
        without="profile_memory shows stock's figures, and its search for the minimum grows tenfold per layer",
    ),
)
"""Theano's own profiler, completed."""

OBSERVED = (
    Patch(
        "theano.compile.function_module:Function.__call__",
        "measure.observer:function_call",
        why="calls are counted and timed, and the first one gives the shapes for the report",
        without="`python -m theano_memopt run` reports no call",
    ),
)
"""Only under `python -m theano_memopt run`, so that no other program pays for it."""

ALWAYS = (*REPAIRS, *MAKERS, *MACHINES, *PROFILE)


def wrap(patches: Sequence[Patch]) -> None:
    """Wrap these places; those that are wrapped already stay as they are."""
    for patch in patches:
        module, attribute = patch.place.split(":")
        owner: Any = importlib.import_module(module)
        *inside, name = attribute.split(".")
        for part in inside:
            owner = getattr(owner, part)
        if not hasattr(getattr(owner, name), "mem_reuse_patch"):
            setattr(owner, name, _wrapper(getattr(owner, name), _function(patch.by), patch))


def _function(by: str) -> Callable[..., Any]:
    module, name = by.split(":")
    return getattr(importlib.import_module(f"{HOST}.{module}"), name)


def _wrapper(original: Callable[..., Any], by: Callable[..., Any], patch: Patch) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return by(original, *args, **kwargs)

    wrapped.mem_reuse_patch = patch  # type: ignore[attr-defined]
    return wrapped

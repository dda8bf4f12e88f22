"""A pickle of a function made with the pass is plain Theano: it loads where this package is absent, too.

    dump    in place of the maker's graph goes a clone with Theano's own ops, none of our features, and our settings as a dict
    load    where the package is imported the graph is given the pass again, before the linker starts

What upstream has made of the function stays as it is: the optimized graph, the linker, and the user's mode.
"""

from __future__ import annotations

import copy
import copyreg
from dataclasses import asdict
from typing import Any, Callable, List, Optional, Tuple

from theano import gof
from theano.compile import function_module
from theano.compile.mode import Mode
from theano.tensor.subtensor import AdvancedIncSubtensor1, IncSubtensor

import theano_memopt_ops as ops  # the module, not its names: it may be the first to import Theano, and be half made here
from theano_memopt.hosts.theano.install.flags import Settings
from theano_memopt.hosts.theano.optimize.feature import MemReuse, feature_of
from theano_memopt.hosts.theano.optimize.optimizer import MemRecomputeOptimizer, MemReuseOptimizer, give
from theano_memopt.hosts.theano.optimize.recompute import Outcome, Waiting

SETTINGS, OUTCOME, WAITS = "mem_reuse_settings", "mem_reuse_outcome", "mem_reuse_waits"
"""The attributes that a graph in a pickle has in place of the feature."""

LINKERS = (gof.vm.VM_Linker, gof.PerformLinker, gof.OpWiseCLinker)
"""Linkers that know of their graph what `_tell` tells them, and no more."""


def register() -> None:
    """Tell pickle how to take a FunctionMaker apart."""
    copyreg.pickle(function_module.FunctionMaker, _taken_apart)


def given_again(maker: Any) -> None:
    """Give the graph of a maker that comes out of a pickle the pass that it had. Out of a pickle upstream's own features are not
    whole, so it is given to a clone."""
    chosen, outcome, waits = (maker.fgraph.__dict__.pop(name, None) for name in (SETTINGS, OUTCOME, WAITS))
    if chosen is not None:
        disowned, maker.fgraph = _disowned(maker.linker), _cloned(maker.fgraph)
        give(
            maker.fgraph,
            Settings(**chosen),
            maker.linker,
            None if outcome is None else Outcome(**outcome),
            None if waits is None else Waiting(**waits),
        )
        _tell(maker, maker.linker, maker.fgraph, disowned)


def _taken_apart(maker: Any) -> Tuple[Any, ...]:
    feature = feature_of(maker.fgraph)
    state = dict(maker.__dict__)
    if feature is not None and isinstance(maker.linker, LINKERS):
        state.update(fgraph=_plain_graph(maker.fgraph, feature), linker=copy.copy(maker.linker), mode=_plain_mode(maker.mode))
        state["linker"].mem_reuse_binding = None
        _tell(maker, state["linker"], state["fgraph"], _disowned(maker.linker))
    return copyreg.__newobj__, (type(maker),), state  # type: ignore[attr-defined]


# --- what a linker knows of its graph --------------------------------------------------------------------------------


def _disowned(linker: Any) -> List[int]:
    """The outputs that the caller keeps."""
    return [i for i, output in enumerate(linker.fgraph.outputs) if output in linker.no_recycling]


def _tell(maker: Any, linker: Any, fgraph: Any, disowned: List[int]) -> None:
    """As in FunctionMaker, for a graph with other variables."""
    linker.fgraph = fgraph
    linker.no_recycling = function_module.infer_reuse_pattern(fgraph, [fgraph.outputs[i] for i in disowned])
    linker.updated_vars = function_module.fgraph_updated_vars(fgraph, maker.expanded_inputs)


# --- without a trace of ours -----------------------------------------------------------------------------------------


def _plain_graph(fgraph: Any, feature: MemReuse) -> Any:
    clone = _cloned(fgraph, _take_back)
    setattr(clone, SETTINGS, asdict(feature.settings))
    if feature.outcome is not None:
        setattr(clone, OUTCOME, asdict(feature.outcome))
    if feature.waits is not None:
        setattr(clone, WAITS, asdict(feature.waits))
    return clone


def _cloned(fgraph: Any, change: Optional[Callable[[Any, Any], None]] = None) -> Any:
    """A copy of the graph, changed before its DestroyHandler begins to keep count of it."""
    clone, _ = fgraph.clone_get_equiv(check_integrity=False, attach_feature=False)
    for node in clone.toposort() if change is not None else ():
        change(clone, node)  # type: ignore[misc]
    if any(isinstance(feature, gof.DestroyHandler) for feature in fgraph._features):
        clone.attach_feature(gof.DestroyHandler())
    for name in ("update_mapping", "name", "profile"):
        setattr(clone, name, getattr(fgraph, name, None))
    return clone


def _take_back(clone: Any, node: Any) -> None:
    """Undo what was done to bring this node to write where it is told. The clone is nobody else's: its nodes may be changed."""
    op = node.op
    stock = {ours: theirs for theirs, ours in [*ops.POOLS.items(), *ops.PRODUCTS.items()]}
    if type(op) in stock:
        node.op = object.__new__(stock[type(op)])
        node.op.__dict__.update(op.__dict__)
    elif isinstance(op, (IncSubtensor, AdvancedIncSubtensor1)) and _source(node.inputs[0], ops.Copy) is not None:
        clone.change_input(node, 0, _source(node.inputs[0], ops.Copy))
        node.op = _not_in_place(op)
    elif isinstance(op, ops.CopyToReshape):
        clone.replace(node.outputs[0], node.inputs[0])


def _source(variable: Any, of_class: type) -> Optional[Any]:
    """What was copied, if an op of this class made the variable."""
    return variable.owner.inputs[0] if variable.owner is not None and type(variable.owner.op) is of_class else None


def _not_in_place(op: Any) -> Any:
    if isinstance(op, AdvancedIncSubtensor1):
        return type(op)(inplace=False, set_instead_of_inc=op.set_instead_of_inc)
    return type(op)(op.idx_list, False, op.set_instead_of_inc, destroyhandler_tolerate_aliased=op.destroyhandler_tolerate_aliased)


def _plain_mode(mode: Any) -> Any:
    """Without what `theano_memopt.mode` added; where the package is there, the flags hold for whatever is optimized anew."""
    if not isinstance(mode, Mode):
        return mode
    return mode.clone(optimizer=_plain_optimizer(mode.provided_optimizer))


def _plain_optimizer(optimizer: Any) -> Any:
    if isinstance(optimizer, gof.Query):
        plain = copy.copy(optimizer)
        plain.extra_optimizations = [extra for extra in optimizer.extra_optimizations if not _is_ours(extra)]
        return plain
    if isinstance(optimizer, gof.opt.SeqOptimizer) and any(map(_is_ours, optimizer.data)):
        return gof.opt.SeqOptimizer([part for part in optimizer.data if not _is_ours(part)])
    return optimizer


def _is_ours(part: Any) -> bool:
    return isinstance(part[0] if isinstance(part, tuple) else part, (MemRecomputeOptimizer, MemReuseOptimizer))

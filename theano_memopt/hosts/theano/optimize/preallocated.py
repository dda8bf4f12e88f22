"""Ops that allocate their result in each call, replaced by ops that write into a preallocated array: the one in their output cell.

    Pool, its gradients     compare the first length of the old result with its number of dimensions, so they always
                            allocate: the same code with the comparison put right
    IncSubtensor            not in place: copies its input, then writes into the copy. Here the copy is an op with a cell,
                            and the writing is in place; where the input is a fill (Alloc), another fill takes its place.
                            Not where it runs in Python though the copy would run in C: its own copy is laid out otherwise
    Reshape                 of an array that is not contiguous: copies. Here the copy is an op with a cell, and Reshape a view of it;
                            not where the result is handed out, for an array that is handed out has no place in an arena
    products in Python      (no BLAS to link with, no compiler, or a type that the C code does not know) allocate in each call:
                            the same op with a `perform` that hands its cell to NumPy

Numbers and memory traffic stay the same. The rewrite is done after all others. Products are replaced wherever storage is
planned, the other ops only where an arena is asked for.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Optional, Sequence, Set

import theano
from theano import gof, tensor
from theano.gof.opt import copy_stack_trace
from theano.tensor.blas import Gemm
from theano.tensor.elemwise import Elemwise
from theano.tensor.subtensor import AdvancedIncSubtensor1, IncSubtensor

import theano_memopt_ops as ops  # the module, not its names: it may be the first to import Theano, and be half made here
from theano_memopt.hosts.theano.optimize.repeats import carry_marks
from theano_memopt.hosts.theano.read.aliases import with_names
from theano_memopt.hosts.theano.read.memory_layout import IN_C_ORDER, likely_scattered
from theano_memopt.hosts.theano.read.op_facts import aliases_are_known, lacks_c_for_its_types, runs_in_python


def use_preallocated(fgraph: Any) -> int:
    """Replace ops for an arena; answers how many."""
    nodes = fgraph.toposort()
    scattered = likely_scattered(nodes)
    return _replace(fgraph, nodes, lambda node: _replacement(fgraph, node, scattered))


def use_preallocated_products(fgraph: Any) -> int:
    """Replace products that run in Python; answers how many."""
    return _replace(fgraph, fgraph.toposort(), _product)


def _replace(fgraph: Any, nodes: Sequence[Any], replacement_of: Callable[[Any], Optional[Any]]) -> int:
    """To validate a graph is to sort it, so that is done once for all; where it fails, one replacement after the other."""
    before = fgraph.checkpoint()
    try:
        count = sum(_replace_node(node, replacement_of(node), fgraph.replace_all) for node in nodes)
        if count:
            fgraph.validate()
    except Exception:  # nothing stays that was not validated; what went wrong goes wrong again below, or does not matter
        fgraph.revert(before)
        count = 0
        for node in nodes:
            # A Scan, say, wants no result of its body to be made in place: there a node stays as it was.
            with contextlib.suppress(gof.InconsistencyError):
                count += _replace_node(node, replacement_of(node), fgraph.replace_all_validate)
    return count


def _replace_node(node: Any, replacement: Optional[Any], replace: Callable[..., Any]) -> bool:
    if replacement is None or any(old.type != new.type for old, new in zip(node.outputs, replacement.outputs)):
        return False
    for old, new in zip(node.outputs, replacement.outputs):
        new.name = old.name
    # `explain` and error messages name the user's line for the new nodes, too.
    made = [v for v in replacement.inputs if v.owner is not None and v not in node.inputs]
    copy_stack_trace(node.outputs, [*replacement.outputs, *made])
    carry_marks(node, replacement)
    replace(list(zip(node.outputs, replacement.outputs)), reason="mem_reuse")
    return True


def _product(node: Any) -> Optional[Any]:
    """The same product by an op that writes into its cell. In place of an input there is nothing to gain, but for Gemm's workspace."""
    if type(node.op) not in ops.PRODUCTS or (getattr(node.op, "destroy_map", None) and not isinstance(node.op, Gemm)):
        return None
    if not runs_in_python(node) or _reaches_the_untrusted(node.outputs[0]):
        return None
    return ops.in_place(node)[0].owner


def _reaches_the_untrusted(variable: Any) -> bool:
    """May an op read the array that does more with it than it declares? Such an op can hand the array on to the caller, and
    stock Theano, which allocates in each call, would not write to it again."""
    return any(not aliases_are_known(node.op) for v in with_names(variable) for node, _ in v.clients if node != "output")


def _replacement(fgraph: Any, node: Any, scattered: Set[Any]) -> Optional[Any]:
    op = node.op
    if type(op) in ops.POOLS:
        there = object.__new__(ops.POOLS[type(op)])
        there.__dict__.update(op.__dict__)
        return there.make_node(*node.inputs)
    if type(op) is IncSubtensor and not op.inplace and _runs_as_its_copy_would(node):
        there = IncSubtensor(op.idx_list, True, op.set_instead_of_inc, destroyhandler_tolerate_aliased=op.destroyhandler_tolerate_aliased)
        return there.make_node(_another(node.inputs[0]), *node.inputs[1:])
    if type(op) is AdvancedIncSubtensor1 and not op.inplace and _runs_as_its_copy_would(node):
        return op.clone_inplace().make_node(_another(node.inputs[0]), *node.inputs[1:])
    if isinstance(op, tensor.Reshape) and node.inputs[0] in scattered and not _is_handed_out(fgraph, node.outputs[0]):
        return op.make_node(ops.CopyToReshape()(*node.inputs), node.inputs[1])
    return None


def writes_into_preallocated(node: Any) -> bool:
    """Does the op write into the array in its output cell if the shape fits? Only ops that are known to do so count."""
    if isinstance(node.op, tuple(ops.PRODUCTS.values())):
        return True
    if type(node.op) in ops.PRODUCTS:
        return not runs_in_python(node)
    writing = (*IN_C_ORDER, Elemwise, tensor.Join, ops.Copy, *ops.POOLS.values())
    return isinstance(node.op, writing) and not lacks_c_for_its_types(node)


def would_write_into_preallocated(node: Any) -> bool:
    """The same for the graph as it would be made for an arena, where the ops at the top of this file are replaced."""
    if isinstance(node.op, (IncSubtensor, AdvancedIncSubtensor1)):
        return not node.op.inplace and _runs_as_its_copy_would(node)
    return type(node.op) in ops.POOLS or isinstance(node.op, tensor.Reshape) or writes_into_preallocated(node)


def _runs_as_its_copy_would(node: Any) -> bool:
    """In the same language, that is: in C a copy keeps the layout of its input, in Python it does not."""
    return not theano.config.cxx or not lacks_c_for_its_types(node)


def _another(variable: Any) -> Any:
    """The same value in memory that may be written to."""
    node = variable.owner
    if node is not None and type(node.op) is tensor.Alloc:
        return node.op.make_node(*node.inputs).outputs[0]
    return ops.Copy()(variable)


def _is_handed_out(fgraph: Any, variable: Any) -> bool:
    """Is it an output, or may an output be a view of it?"""
    return not with_names(variable).isdisjoint(fgraph.outputs)

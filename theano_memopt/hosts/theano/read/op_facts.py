"""Facts about a single op or node: how it runs, what it declares, and whether its declarations can be relied on.

Words
    lazy       the op may run without some of its inputs
    trusted    the outputs alias the inputs exactly as `view_map` and `destroy_map` say, and the op keeps no array
    in Python  Theano takes the C code of an op where it has some, and else the op's Python code, without saying so
"""

from __future__ import annotations

import functools
from typing import Any, Mapping, Optional, Sequence, Tuple

import theano
from theano import gof, scalar
from theano.compile.builders import OpFromGraph
from theano.compile.ops import FromFunctionOp
from theano.gof.utils import MethodNotDefined
from theano.ifelse import IfElse
from theano.printing import Print
from theano.sandbox.rng_mrg import mrg_uniform_base
from theano.scan_module.scan_op import Scan
from theano.tensor import elemwise
from theano.tensor.raw_random import RandomFunction, RandomStateType


def declared(op: Any, name: str) -> Mapping[int, Sequence[int]]:
    """A map of the op, `view_map` or `destroy_map`: output -> inputs. Empty if the op has none."""
    return getattr(op, name, None) or {}


def is_lazy(op: Any) -> bool:
    """May the op run without some of its inputs? A foreign op that makes its own thunk is taken to be lazy."""
    return isinstance(op, IfElse) or (not _from_theano(op) and _overrides(op, "make_thunk"))


def always_asked(node: Any) -> Sequence[Any]:
    """The inputs without which the node never runs."""
    return node.inputs if not is_lazy(node.op) else node.inputs[:1] if isinstance(node.op, IfElse) else []


def branch(node: Any, holds: bool) -> Sequence[Any]:
    """The inputs that an IfElse asks for if its condition holds, or if not."""
    return node.inputs[1 : 1 + node.op.n_outs] if holds else node.inputs[1 + node.op.n_outs :]


def branches(node: Any, output: Any) -> Tuple[Any, Any]:
    """The inputs that an IfElse hands out as `output`: the one if the condition holds, the other if not."""
    which = node.outputs.index(output)
    return node.inputs[1 + which], node.inputs[1 + node.op.n_outs + which]


def is_trusted(op: Any) -> bool:
    """Do the outputs of this op alias its inputs exactly as view_map and destroy_map say, and does it keep nothing?"""
    if not _from_theano(op) or isinstance(op, (IfElse, FromFunctionOp, OpFromGraph)):
        return False
    if isinstance(op, Scan):
        return not op.n_shared_outs  # the final value of a shared one can be the very array that came in
    # A function of the user's that prints an array may keep it.
    return not isinstance(op, Print) or getattr(op.global_fn, "__module__", None) == Print.__module__


def aliases_are_known(op: Any) -> bool:
    """Of a trusted op they are what it declares. An IfElse that declares a view hands out its first branch, or a copy of the other."""
    return is_trusted(op) or type(op) is IfElse


def why_once(node: Any) -> str:
    """Why this node may not run a second time with the same inputs, in words; empty if it may."""
    op = node.op
    if any(isinstance(v.type, RandomStateType) for v in node.inputs) or isinstance(op, (RandomFunction, mrg_uniform_base)):
        return "it draws random numbers"
    if is_lazy(op):
        return "it is lazy"
    if not is_trusted(op):
        return "its op may keep an array, or do what it does not declare"
    if isinstance(op, Print) or type(op).__module__ == "theano.tensor.io":
        return "it prints, reads or sends"
    if isinstance(op, Scan):
        return "it is a loop"
    if len(node.outputs) > 1:
        return "it has several results, and Theano keeps to the end of a call what nobody reads"
    return ""


def _from_theano(op: Any) -> bool:
    return _is_of_theano(type(op))


@functools.lru_cache(maxsize=512)
def _is_of_theano(kind: type) -> bool:
    """Asked a dozen times for each node."""
    module = kind.__module__
    if module.partition(".")[0] == "theano_memopt_ops":
        return True
    return module.startswith("theano.") and ".tests" not in module and (".sandbox" not in module or module == "theano.sandbox.rng_mrg")


def _overrides(op: Any, name: str) -> bool:
    return getattr(type(op), name, None) is not getattr(gof.Op, name)


# --- C or Python -----------------------------------------------------------------------------------------------------


def runs_in_python(node: Any) -> bool:
    """Will Theano run `perform` for this node? The same questions in the same order as in `gof.Op.make_thunk`.

    Only for ops whose C code is cheap to write out: it is written out here, and thrown away.
    """
    if lacks_c_for_its_types(node):
        return True
    try:
        node.op.c_code(node, "name", [f"i{i}" for i in range(len(node.inputs))], [f"o{i}" for i in range(len(node.outputs))], _SUBSTITUTES)
    except (NotImplementedError, MethodNotDefined, AttributeError):
        return True
    return False


def lacks_c_for_its_types(node: Any) -> bool:
    """Is there no compiler, or a half-precision number of which the C code knows nothing?"""
    if not theano.config.cxx:
        return True
    half = any(getattr(v.type, "dtype", None) == "float16" for v in [*node.inputs, *node.outputs])
    return half and not getattr(node.op, "_f16_ok", False)


def has_c_code(node: Any) -> bool:
    """Does this node, of an op that has C code in general, run in C where the linker asks for C code?"""
    if lacks_c_for_its_types(node):
        return False
    return not isinstance(node.op, elemwise.Elemwise) or _has_c_code(node.op.scalar_op, tuple(v.dtype for v in node.inputs))


@functools.lru_cache(maxsize=1024)
def _has_c_code(scalar_op: Any, dtypes: Tuple[str, ...]) -> bool:
    return bool(scalar_op.supports_c_code([scalar.get_scalar_type(dtype)() for dtype in dtypes], [None] * scalar_op.nout))


_SUBSTITUTES = {"fail": "", "params": "params"}


# --- names for people ------------------------------------------------------------------------------------------------


def op_name(op: Any) -> str:
    inner = getattr(op, "scalar_op", None)
    return type(op).__name__ + (f"{{{type(inner).__name__}}}" if inner is not None else "")


def kind_of(thing: Any) -> str:
    """What somebody gave, for a message of one line: its type, and the shape of an array, which may be too long to show."""
    shape = getattr(thing, "shape", None)
    return type(thing).__name__ + (f" of shape {shape}" if isinstance(shape, tuple) else "")


def describe(variable: Optional[Any]) -> str:
    """A variable as a person would name it: its name, or its node and output."""
    if variable is None:
        return "?"
    if variable.name:
        return str(variable.name)
    owner = variable.owner
    return str(variable) if owner is None else f"{op_name(owner.op)}.{owner.outputs.index(variable)}"

"""Which implementation of an op runs: Theano takes C code where it has some, and else the op's Python code, without saying so."""

from __future__ import annotations

from typing import Any

import theano
from theano.gof.utils import MethodNotDefined


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


_SUBSTITUTES = {"fail": "", "params": "params"}

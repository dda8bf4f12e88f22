"""Shapes of intermediates from the shapes of the inputs, fast enough to ask whenever a shape changes.

ShapeFeature's formulas are written out as one plain Python function, each part once:

    def shapes(p0, p1):            p0 = x.shape, p1 = W.shape
        a = p0[0] * p1[1]
        return ((p0[0], p1[1]), (a,))

Words
    source     what the formulas rest on: the shape of an input, or the value of a whole number that is one
    signature  the values of all sources in one call
    unknown    a shape that depends on data; it has no formula here

Every part is tried on the values of a real call while the function is written; a part that fails is unknown, and what
is built on it too. A formula that is wrong costs memory and never a result: it only says how much room to set aside.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from theano import gof, scalar, tensor
from theano.compile.ops import Shape, Shape_i
from theano.ifelse import IfElse
from theano.tensor import elemwise, subtensor
from theano.tensor.opt import MakeVector

from theano_memopt.hosts.theano.read.assumed_sizes import Formulas, _apply_once
from theano_memopt.hosts.theano.read.op_facts import branches

LONGEST = 64
"""Elements of a vector that is still taken for shape arithmetic."""

Signature = Tuple[Any, ...]


class TrueShapes:
    """The formulas of one FunctionGraph, written out for the variables that are asked about."""

    def __init__(self, fgraph: Any, nodes: Sequence[Any], variables: Sequence[Any], values: Callable[[Any], Any]) -> None:
        self._shape_of = Formulas(fgraph)
        self._inputs = {v: i for i, v in enumerate(fgraph.inputs)}
        self._value_now = values
        self._lines: List[str] = []
        self._names: Dict[Any, Optional[str]] = {}
        self._space: Dict[str, Any] = {}
        self._pending: set = set()
        self.shape_sources: List[Any] = []
        """Inputs of which the shape matters."""
        self.value_sources: List[Any] = []
        """Inputs of which the value matters."""
        self.known: List[Any] = []
        """The variables, of those asked about, that have a formula."""
        rows = []
        for variable in variables:
            dims = self._dims(variable)
            if dims is not None:
                self.known.append(variable)
                rows.append(f"({''.join(d + ',' for d in dims)})")
        arguments = [self._names[("shape", v)] for v in self.shape_sources] + [self._names[("value", v)] for v in self.value_sources]
        source = f"def shapes({', '.join(str(a) for a in arguments)}):\n"
        source += "".join(f"    {line}\n" for line in self._lines) + f"    return ({''.join(row + ', ' for row in rows)})\n"
        exec(compile(source, "<shapes>", "exec"), self._space)
        self.shapes: Callable[..., Tuple[Tuple[int, ...], ...]] = self._space["shapes"]
        """The shapes of `known`, from a signature."""

    # --- one part ------------------------------------------------------------------------------------------------

    def _dims(self, variable: Any) -> Optional[List[str]]:
        dims = [self._dim(variable, axis) for axis in range(variable.type.ndim)]
        return None if any(d is None for d in dims) else [str(d) for d in dims]

    def _dim(self, variable: Any, axis: int) -> Optional[str]:
        key = (variable, axis)
        if key not in self._names:
            if key in self._pending:
                return None
            self._pending.add(key)
            try:
                self._names[key] = self._find(variable, axis)
            except RecursionError:
                return None  # too deep from here; it may be reached from elsewhere
            finally:
                self._pending.discard(key)
        return self._names[key]

    def _find(self, variable: Any, axis: int) -> Optional[str]:
        if variable.type.broadcastable[axis]:
            return "1"
        if isinstance(variable, gof.Constant):
            return str(int(variable.data.shape[axis]))
        if variable in self._inputs:
            return self._line(f"{self._source('shape', variable)}[{axis}]")
        shape = self._shape_of.get(variable)
        if shape is None or axis >= len(shape):
            return None
        formula = shape[axis]
        node = formula.owner
        if node is not None and isinstance(node.op, Shape_i) and node.inputs[0] is variable:
            return None
        return self._value(formula)

    def _source(self, kind: str, variable: Any) -> str:
        key = (kind, variable)
        if key not in self._names:
            sources = self.shape_sources if kind == "shape" else self.value_sources
            name = f"{kind}{len(sources)}"
            present = self._value_now(variable)
            self._space[name] = np.shape(present) if kind == "shape" else int(present)
            self._names[key] = name
            sources.append(variable)
        return str(self._names[key])

    def _value(self, formula: Any) -> Optional[str]:
        """The name under which the value of an integer expression is known: a number, or a tuple of them."""
        if formula not in self._names:
            if formula in self._pending:
                return None
            self._pending.add(formula)
            try:
                self._names[formula] = self._write(formula)
            finally:
                self._pending.discard(formula)
        return self._names[formula]

    def _write(self, formula: Any) -> Optional[str]:
        if isinstance(formula, gof.Constant):
            return self._constant(formula.data)
        node = formula.owner
        if node is None:
            whole = str(getattr(formula.type, "dtype", "")).startswith(("int", "uint", "bool"))
            return self._source("value", formula) if formula in self._inputs and whole and getattr(formula.type, "ndim", 0) == 0 else None
        if isinstance(node.op, Shape_i):
            return self._dim(node.inputs[0], node.op.i)
        if isinstance(node.op, Shape):
            dims = self._dims(node.inputs[0])
            return None if dims is None else self._line(f"({''.join(d + ',' for d in dims)})")
        if isinstance(node.op, IfElse):
            return self._chosen(node, formula)
        if getattr(formula.type, "ndim", 0) > 1 or len(node.outputs) != 1:
            return None
        inputs = [self._value(v) for v in node.inputs]
        if any(name is None for name in inputs):
            return None
        return self._applied(node, [str(name) for name in inputs])

    def _chosen(self, node: Any, wanted: Any) -> Optional[str]:
        yes, no = (self._value(v) for v in branches(node, wanted))
        if yes is None or no is None or yes == no:
            return None if no is None else yes
        condition = self._value(node.inputs[0])
        return self._line(f"max({yes}, {no})" if condition is None else f"({yes} if {condition} else {no})")

    def _constant(self, data: Any) -> Optional[str]:
        if isinstance(data, slice):
            return None
        if np.ndim(data) == 0 and np.asarray(data).dtype.kind in "iub":
            return str(int(data))
        if np.ndim(data) == 1 and np.size(data) <= LONGEST and np.asarray(data).dtype.kind in "iub":
            return self._line(f"({''.join(f'{int(d)},' for d in data)})")
        return self._given(data)

    def _applied(self, node: Any, inputs: List[str]) -> Optional[str]:
        op = node.op
        if isinstance(op, (tensor.TensorFromScalar, tensor.ScalarFromTensor)):
            return inputs[0]
        if isinstance(op, MakeVector):
            return self._line(f"({''.join(i + ',' for i in inputs)})")
        if isinstance(op, subtensor.Subtensor) and len(op.idx_list) == 1 and not isinstance(op.idx_list[0], slice) and len(inputs) == 2:
            return self._line(f"{inputs[0]}[{inputs[1]}]")
        scalar_op = op.scalar_op if isinstance(op, elemwise.Elemwise) and node.outputs[0].type.ndim == 0 else op
        if isinstance(scalar_op, scalar.ScalarOp):
            return self._scalar(scalar_op, inputs)
        wanted = node.outputs[0]
        return self._called(lambda *values: _tuples(_apply_once(node, wanted, values)), inputs)

    def _scalar(self, op: Any, inputs: List[str]) -> Optional[str]:
        if isinstance(op, scalar.Composite):
            known: Dict[Any, Optional[str]] = dict(zip(op.fgraph.inputs, inputs))
            for node in op.fgraph.toposort():
                inside = [known[v] if v in known else self._constant(v.data) for v in node.inputs]
                known[node.outputs[0]] = None if any(i is None for i in inside) else self._scalar(node.op, [str(i) for i in inside])
            return known[op.fgraph.outputs[0]]
        pattern = _PATTERNS.get(type(op))
        if isinstance(op, scalar.Cast) and op.o_type.dtype.startswith(("int", "uint")):
            pattern = "int({0})"
        if isinstance(pattern, str) and len(inputs) > 0:
            return self._line("(" + pattern.join(inputs) + ")") if "{" not in pattern else self._line(pattern.format(*inputs))
        return self._called(lambda *values: _tuples(np.asarray(op.impl(*values))), inputs)

    def _given(self, value: Any) -> str:
        name = f"given{len(self._space)}"
        self._space[name] = value
        return name

    def _called(self, function: Callable[..., Any], inputs: List[str]) -> Optional[str]:
        return self._line(f"{self._given(function)}({', '.join(inputs)})")

    def _line(self, expression: str) -> Optional[str]:
        """Try the part on the values of the present call, and write it down if that goes well."""
        name = f"v{len(self._lines)}"
        try:
            value = eval(expression, self._space)
        except Exception:  # a part that cannot be computed leaves the shape unknown, which is allowed
            return None
        if value is None:
            return None
        self._space[name] = value
        self._lines.append(f"{name} = {expression}")
        return name


def _tuples(value: Any) -> Any:
    if value is None:
        raise ValueError("not to be computed from shapes alone")
    if isinstance(value, (np.ndarray, np.generic)):
        return value.item() if value.ndim == 0 else tuple(value.tolist())
    return value


_PATTERNS = {
    scalar.Add: " + ",
    scalar.Mul: " * ",
    scalar.Sub: " - ",
    scalar.IntDiv: " // ",
    scalar.Neg: "(-{0})",
    scalar.LT: "({0} < {1})",
    scalar.GT: "({0} > {1})",
    scalar.LE: "({0} <= {1})",
    scalar.GE: "({0} >= {1})",
    scalar.EQ: "({0} == {1})",
    scalar.NEQ: "({0} != {1})",
    scalar.Identity: "{0}",
    scalar.Maximum: "({0} if {0} > {1} else {1})",
    scalar.Minimum: "({0} if {0} < {1} else {1})",
    scalar.Switch: "({1} if {0} else {2})",
}
"""Between the arguments, or with places for them."""

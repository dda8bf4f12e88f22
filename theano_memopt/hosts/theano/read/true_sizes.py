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

from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
from theano import gof, scalar, tensor
from theano.tensor import elemwise, subtensor
from theano.tensor.opt import MakeVector

from theano_memopt.hosts.theano.read.formulas import LONGEST, Walker, computed, source_of, through

Signature = Tuple[Any, ...]


class TrueShapes(Walker[str]):
    """The formulas of one FunctionGraph, written out for the variables that are asked about."""

    def __init__(self, fgraph: Any, nodes: Sequence[Any], variables: Iterable[Any], values: Callable[[Any], Any]) -> None:
        super().__init__(fgraph)
        self._inputs = {v: i for i, v in enumerate(fgraph.inputs)}
        self._value_now = values
        self._lines: List[str] = []
        self._sources: Dict[Tuple[str, Any], str] = {}
        self._space: Dict[str, Any] = {}
        self.shape_sources: List[Any] = []
        """Inputs of which the shape matters."""
        self.value_sources: List[Any] = []
        """Inputs of which the value matters."""
        self.known: List[Any] = []
        """The variables, of those asked about, that have a formula."""
        rows = []
        for variable in variables:
            dims = self.dims(variable)
            if dims is not None:
                self.known.append(variable)
                rows.append(_tuple_of(dims))
        arguments = [self._sources[("shape", v)] for v in self.shape_sources] + [self._sources[("value", v)] for v in self.value_sources]
        source = f"def shapes({', '.join(arguments)}):\n"
        source += "".join(f"    {line}\n" for line in self._lines) + f"    return ({''.join(row + ', ' for row in rows)})\n"
        exec(compile(source, "<shapes>", "exec"), self._space)
        # Not left among its own globals: a circle is let go late, by Python's collector.
        self.shapes: Callable[..., Tuple[Tuple[int, ...], ...]] = self._space.pop("shapes")
        """The shapes of `known`, from a signature."""
        self._before: Signature = ()
        self._forget()

    def _forget(self) -> None:
        """What only the writing of the function needed: a hundred kilobytes for a deep net."""
        for i in range(len(self._lines)):
            del self._space[f"v{i}"]
        self._lines.clear()
        self._dims.clear()
        self._values.clear()

    def signature(self) -> Signature:
        """Of the values that are there now. `AttributeError` or `TypeError` where one is not given."""
        shapes = [self._value_now(v).shape for v in self.shape_sources]
        now = (*shapes, *(int(self._value_now(v)) for v in self.value_sources))
        # What has not changed is the object of the time before: dozens of signatures are kept, and most lengths in them are always the same.
        # (Of a list: a tuple made of a generator is cut to size, and Python keeps hundreds of such tuples when they are gone.)
        self._before = tuple([before if before == part else part for before, part in zip(self._before or now, now)])
        return self._before

    # --- the value of a formula: the name, or the source, of its Python code -------------------------------------

    def number(self, length: int) -> str:
        return str(length)

    def given(self, variable: Any, axis: int) -> Optional[str]:
        if isinstance(variable, gof.Constant):
            return str(int(variable.data.shape[axis]))
        return self._line(f"{self._source('shape', variable)}[{axis}]") if variable in self._inputs else None

    def number_given(self, variable: Any) -> Optional[str]:
        return self._source("value", variable) if variable in self._inputs else None

    def constant(self, data: Any) -> Optional[str]:
        if isinstance(data, slice):
            return None
        if np.ndim(data) == 0 and np.asarray(data).dtype.kind in "iub":
            return str(int(data))
        if np.ndim(data) == 1 and np.size(data) <= LONGEST and np.asarray(data).dtype.kind in "iub":
            return self._line(_tuple_of(str(int(d)) for d in data))
        return self._kept(data)

    def vector(self, dims: Sequence[str]) -> Optional[str]:
        return self._line(_tuple_of(dims))

    def choice(self, condition: Any, yes: Optional[str], no: Optional[str]) -> Optional[str]:
        """The longer branch where the condition depends on data."""
        if yes is None or no is None or yes == no:
            return None if no is None else yes
        known = self.value(condition)
        return self._line(f"max({yes}, {no})" if known is None else f"({yes} if {known} else {no})")

    def computes(self, node: Any) -> bool:
        return len(node.outputs) == 1

    def apply(self, node: Any, wanted: Any, inputs: Sequence[str]) -> Optional[str]:
        op = node.op
        if isinstance(op, (tensor.TensorFromScalar, tensor.ScalarFromTensor)):
            return inputs[0]
        if isinstance(op, MakeVector):
            return self._line(_tuple_of(inputs))
        if isinstance(op, subtensor.Subtensor) and len(op.idx_list) == 1 and not isinstance(op.idx_list[0], slice) and len(inputs) == 2:
            return self._line(f"{inputs[0]}[{inputs[1]}]")
        scalar_op = op.scalar_op if isinstance(op, elemwise.Elemwise) and wanted.type.ndim == 0 else op
        if isinstance(scalar_op, scalar.ScalarOp):
            return self._scalar(scalar_op, inputs)
        return self._called(lambda *values: _tuples(computed(node, wanted, values)), inputs)

    def _scalar(self, op: Any, inputs: Sequence[str]) -> Optional[str]:
        if isinstance(op, scalar.Composite):
            return through(op, inputs, self.constant, self._scalar)  # type: ignore[no-any-return]
        source = source_of(op, inputs)
        if isinstance(op, scalar.Cast) and op.o_type.dtype.startswith(("int", "uint")):
            source = f"int({inputs[0]})"
        return self._called(lambda *values: _tuples(np.asarray(op.impl(*values))), inputs) if source is None else self._line(source)

    # --- lines of code -------------------------------------------------------------------------------------------

    def _source(self, kind: str, variable: Any) -> str:
        """The argument of `shapes` that is the shape, or the value, of an input."""
        key = (kind, variable)
        if key not in self._sources:
            sources = self.shape_sources if kind == "shape" else self.value_sources
            name = f"{kind}{len(sources)}"
            present = self._value_now(variable)
            self._space[name] = np.shape(present) if kind == "shape" else int(present)
            self._sources[key] = name
            sources.append(variable)
        return self._sources[key]

    def _kept(self, value: Any) -> str:
        name = f"given{len(self._space)}"
        self._space[name] = value
        return name

    def _called(self, function: Callable[..., Any], inputs: Sequence[str]) -> Optional[str]:
        return self._line(f"{self._kept(function)}({', '.join(inputs)})")

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


def shapes_now(fgraph: Any, nodes: Sequence[Any], value_of: Callable[[Any], Any]) -> Dict[Any, Tuple[int, ...]]:
    """Of each dense array that has a formula its shape, for the inputs that have these values."""
    variables = dict.fromkeys(v for node in nodes for v in [*node.inputs, *node.outputs] if isinstance(v.type, tensor.TensorType))
    found = TrueShapes(fgraph, nodes, variables, value_of)
    return dict(zip(found.known, found.shapes(*found.signature())))


def _tuple_of(parts: Iterable[str]) -> str:
    return f"({''.join(part + ',' for part in parts)})"


def _tuples(value: Any) -> Any:
    if value is None:
        raise ValueError("not to be computed from shapes alone")
    if isinstance(value, (np.ndarray, np.generic)):
        return value.item() if value.ndim == 0 else tuple(value.tolist())
    return value

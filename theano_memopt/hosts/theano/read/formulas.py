"""The one walker of shape formulas, and the arithmetic in them.

ShapeFeature writes every dimension as a graph over the shapes and the whole numbers among the inputs. Two readers walk these
graphs, each with its own kind of value for a formula:

    assumed_sizes   a row of numbers, one for each scenario
    true_sizes      a piece of Python source, computed for the shapes of each call

Words
    formula   a graph of whole numbers: a length, or a short vector or slice made of lengths
    value     whatever a reader makes of a formula; None where it depends on data

Picture: the walker goes down, the reader makes a value at every node on the way up.

    dim(y, 0)  ->  x.shape[0] + 1  ->  add( dim(x, 0), 1 )
                                            |          |
                                       leaf or given   constant     then  apply(add, ...)
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict, Generic, List, Optional, Sequence, Set, Tuple, TypeVar

import numpy as np
from theano import gof, scalar, tensor
from theano.compile.ops import DeepCopyOp, Shape, Shape_i
from theano.configparser import change_flags
from theano.ifelse import IfElse
from theano.sandbox.rng_mrg import mrg_uniform_base
from theano.tensor import elemwise
from theano.tensor.opt import MakeVector, ShapeFeature

from theano_memopt.hosts.theano.read.op_facts import branches

Value = TypeVar("Value")

LONGEST = 64
"""Elements of a vector that is still taken for shape arithmetic."""


class Walker(Generic[Value]):
    """Finds the value of every dimension of a FunctionGraph; the methods under "the reader's" say what a value is."""

    def __init__(self, fgraph: Any) -> None:
        self._formulas = Formulas(fgraph)
        self._dims: Dict[Tuple[Any, int], Value] = {}
        self._values: Dict[Any, Optional[Value]] = {}
        self._pending: Set[Tuple[Any, int]] = set()
        """Dimensions that are being found: a formula can come back to the dimension that it explains, which is a leaf there."""

    def dims(self, variable: Any) -> Optional[Tuple[Value, ...]]:
        """For each axis its value; None if one is unknown."""
        found = [self.dim(variable, axis) for axis in range(variable.type.ndim)]
        return None if any(value is None for value in found) else tuple(found)  # type: ignore[arg-type]

    def dim(self, variable: Any, axis: int) -> Optional[Value]:
        key = (variable, axis)
        if key in self._dims:
            return self._dims[key]
        found = self._find(variable, axis)
        if found is None:
            found = self.leaf(variable, axis)
        if found is not None:
            self._dims[key] = found
        return found

    def value(self, formula: Any) -> Optional[Value]:
        if formula not in self._values:
            self._values[formula] = self._compute(formula)
        return self._values[formula]

    def formula(self, variable: Any, axis: int) -> Optional[Any]:
        """The formula of a dimension; None if there is none but the dimension itself."""
        shape = self._formulas.get(variable)
        if shape is None or axis >= len(shape):
            return None
        node = shape[axis].owner
        if node is not None and isinstance(node.op, Shape_i) and node.inputs[0] is variable:
            return None
        return shape[axis]

    def _find(self, variable: Any, axis: int) -> Optional[Value]:
        if variable.type.broadcastable[axis]:
            return self.number(1)
        known = self.given(variable, axis)
        key = (variable, axis)
        formula = self.formula(variable, axis) if known is None and key not in self._pending else None
        if formula is None:
            return known
        self._pending.add(key)
        try:
            value = self.value(formula)
            return None if value is None else self.length(value)
        except RecursionError:  # too deep from here; it may be reached from elsewhere
            return None
        finally:
            self._pending.discard(key)

    def _compute(self, formula: Any) -> Optional[Value]:
        if isinstance(formula, gof.Constant):
            return self.constant(formula.data)
        node = formula.owner
        if node is None:
            is_number = is_whole(formula) and getattr(formula.type, "ndim", 0) == 0
            return self.number_given(formula) if is_number else None
        if isinstance(node.op, Shape_i):
            return self.dim(node.inputs[0], node.op.i)
        if isinstance(node.op, Shape):
            dims = self.dims(node.inputs[0])
            return None if dims is None else self.vector(dims)
        if getattr(formula.type, "ndim", 0) > 1:  # shape arithmetic is over single numbers, short vectors and slices
            return None
        if isinstance(node.op, IfElse):
            yes, no = branches(node, formula)
            return self.choice(node.inputs[0], self.value(yes), self.value(no))
        if not self.computes(node):
            return None
        inputs = [self.value(v) for v in node.inputs]
        if any(value is None for value in inputs):
            return self.unknown(formula)
        return self.apply(node, formula, inputs)  # type: ignore[arg-type]

    # --- the reader's ----------------------------------------------------------------------------------------------------

    def number(self, length: int) -> Value:
        raise NotImplementedError

    def length(self, value: Value) -> Value:
        """The value of a formula as that of a dimension."""
        return value

    def given(self, variable: Any, axis: int) -> Optional[Value]:
        """A dimension that needs no formula."""
        return None

    def leaf(self, variable: Any, axis: int) -> Optional[Value]:
        """A dimension that no formula explains."""
        return None

    def number_given(self, variable: Any) -> Optional[Value]:
        """A whole number among the inputs."""
        return None

    def constant(self, data: Any) -> Optional[Value]:
        raise NotImplementedError

    def vector(self, dims: Sequence[Value]) -> Optional[Value]:
        raise NotImplementedError

    def choice(self, condition: Any, yes: Optional[Value], no: Optional[Value]) -> Optional[Value]:
        """The length of the branch that an IfElse hands out."""
        raise NotImplementedError

    def computes(self, node: Any) -> bool:
        """Are the results of this node asked for at all?"""
        return True

    def unknown(self, formula: Any) -> Optional[Value]:
        """A formula of which a part is unknown."""
        return None

    def apply(self, node: Any, wanted: Any, inputs: Sequence[Value]) -> Optional[Value]:
        raise NotImplementedError


def is_whole(variable: Any) -> bool:
    return str(getattr(variable.type, "dtype", "")).startswith(("int", "uint", "bool"))


# --- arithmetic ------------------------------------------------------------------------------------------------------

ARITHMETIC: Dict[type, str] = {
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
"""Whole-number arithmetic without NumPy, as Python source: between the arguments, or with places for them. Switch is safe to evaluate
on both sides: there are no side effects."""


def source_of(op: Any, arguments: Sequence[str]) -> Optional[str]:
    """A scalar op on whole numbers as Python source; None if it is not in the table."""
    pattern = ARITHMETIC.get(type(op))
    if pattern is None:
        return None
    return pattern.format(*arguments) if "{" in pattern else "(" + pattern.join(arguments) + ")"


@functools.lru_cache(maxsize=None)
def _function_of(kind: type, count: int) -> Callable[..., Any]:
    arguments = [f"a{i}" for i in range(count)]
    function: Callable[..., Any] = eval(f"lambda {', '.join(arguments)}: {source_of(object.__new__(kind), arguments)}")
    return function


def computed(node: Any, wanted: Any, values: Sequence[Any]) -> Optional[Any]:
    """The result `wanted` of one node of shape arithmetic, for these values of its inputs."""
    op = node.op
    try:
        if isinstance(op, elemwise.Elemwise) and all(isinstance(v, int) for v in values) and len(node.outputs) == 1:
            return _scalar(op.scalar_op, values)
        if isinstance(op, scalar.ScalarOp) and len(node.outputs) == 1:
            return _scalar(op, values)
        if isinstance(op, (tensor.TensorFromScalar, tensor.ScalarFromTensor)):
            return values[0]
        if isinstance(op, MakeVector):
            return np.array(values, dtype=op.dtype)
        return _performed(node, wanted, values)
    except Exception:  # an op that cannot be evaluated on its own leaves the dimension unknown, which is allowed
        return None


def _scalar(op: Any, values: Sequence[Any]) -> Any:
    if type(op) in ARITHMETIC:
        return _function_of(type(op), len(values))(*values)
    if isinstance(op, scalar.Cast):
        return values[0]
    if isinstance(op, scalar.Composite):
        return through(op, values, plain, _scalar)
    return plain(np.asarray(op.impl(*values)))


def through(composite: Any, inputs: Sequence[Any], constant: Callable[[Any], Any], apply: Callable[[Any, List[Any]], Any]) -> Any:
    """Walk a Composite node by node: its own `impl` repeats whatever is used twice. None if a part is None."""
    known = dict(zip(composite.fgraph.inputs, inputs))
    for node in composite.fgraph.toposort():
        parts = [known[v] if v in known else constant(v.data) for v in node.inputs]
        known[node.outputs[0]] = None if any(part is None for part in parts) else apply(node.op, parts)
    return known[composite.fgraph.outputs[0]]


def _performed(node: Any, wanted: Any, values: Sequence[Any]) -> Optional[Any]:
    inputs = [
        np.asarray(value, dtype=variable.type.dtype) if isinstance(variable.type, tensor.TensorType) else value
        for value, variable in zip(values, node.inputs)
    ]
    outputs: List[List[Any]] = [[None] for _ in node.outputs]
    node.op.perform(node, inputs, outputs)
    return plain(outputs[node.outputs.index(wanted)][0])


def plain(value: Any) -> Any:
    """A whole number as an int; anything else as it is."""
    return int(value) if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 and value.dtype.kind in "iub" else value


# --- formulas, of ShapeFeature and ours -------------------------------------------------------------------------------


class Formulas:
    """Of each variable a formula for every dimension: ShapeFeature's, and ours for the ops of which it has none.

    Formulas may speak of variables that a later rewrite replaced, so ours too are made when they are asked for.
    """

    def __init__(self, fgraph: Any) -> None:
        self._shape_of = _shapes_of_feature(fgraph)
        self._more: Dict[Any, Optional[Tuple[Any, ...]]] = {}

    def get(self, variable: Any) -> Optional[Sequence[Any]]:
        rule = None if variable.owner is None else _unwritten(type(variable.owner.op))
        if rule is None:
            return self._shape_of.get(variable)
        if variable not in self._more:
            with change_flags(compute_test_value="off"):  # the formulas are new graphs
                self._more[variable] = rule(variable.owner, variable)
        return self._more[variable]


def _like_its_input(node: Any, output: Any) -> Tuple[Any, ...]:
    return _dims_of(node.inputs[0])


def _random_draw(node: Any, output: Any) -> Tuple[Any, ...]:
    """A new state as large as the old one, and an array whose shape is the second input."""
    state, size = node.inputs
    if output is node.outputs[0]:
        return _dims_of(state)
    known = size.owner.inputs if size.owner is not None and isinstance(size.owner.op, MakeVector) else None
    return tuple(size[axis] if known is None else known[axis] for axis in range(output.type.ndim))


def _dims_of(variable: Any) -> Tuple[Any, ...]:
    return tuple(Shape_i(axis)(variable) for axis in range(getattr(variable.type, "ndim", 0)))


@functools.lru_cache(maxsize=None)
def _unwritten(op: type) -> Optional[Callable[[Any, Any], Tuple[Any, ...]]]:
    """DeepCopyOp comes after ShapeFeature's time and says nothing of shapes; nor does the draw of MRG_RandomStreams."""
    return _like_its_input if issubclass(op, DeepCopyOp) else _random_draw if issubclass(op, mrg_uniform_base) else None


def _shapes_of_feature(fgraph: Any) -> Dict[Any, Any]:
    feature = getattr(fgraph, "shape_feature", None)
    if feature is None:
        # A graph that was never optimized, or a copy that lost its features: ask the ops, and leave no trace.
        feature = ShapeFeature()
        try:
            feature.on_attach(fgraph)
        finally:
            if getattr(fgraph, "shape_feature", None) is feature:
                del fgraph.shape_feature
    return feature.shape_of

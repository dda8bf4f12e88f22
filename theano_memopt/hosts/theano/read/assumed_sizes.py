"""How large every variable is, before anything ran.

A dimension is known by promise (a broadcastable axis, a constant), by its present value (a shared variable), by a hint
(`hint`, `tag.test_value`), or it is free and gets `mem_reuse.default_dim`. ShapeFeature writes every other dimension
as a formula over these, but never simplifies: `Prod(MakeVector(a, b))` and `a * b` are different graphs there.

Words
    leaf       (variable, axis): a dimension that no formula explains
    scenario   one assignment of numbers to all leaves; every dimension is evaluated in all scenarios at once

Picture: the row of numbers that a dimension takes over the scenarios is its normal form.

    scenario                 guess    one   small   large   mixed ...   primes   other primes
    x.shape[0]  (free)         128      1      32     512          16      131            137
    W.shape[1]  (present)      512    512     512     512         512      512            512
    x.shape[0] * W.shape[1]  65536    512   16384  262144        8192    67072          70144

Two dimensions are taken for equal where their rows are equal; free leaves have primes of their own in the last two.
A wrong guess of sizes costs time or memory, never correctness: who may share with whom is settled by lives alone.

Ops imply equalities that ShapeFeature does not write down (the inner dimensions of a dot). They join leaves, so that
`x.shape[1]` of an input takes the length of the weights that it is multiplied with.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from theano import gof, scalar, tensor
from theano.compile.ops import DeepCopyOp, Shape, Shape_i
from theano.configparser import change_flags
from theano.ifelse import IfElse
from theano.sandbox.rng_mrg import mrg_uniform_base
from theano.tensor import blas, elemwise
from theano.tensor.nnet import nnet
from theano.tensor.opt import MakeVector, ShapeFeature

from theano_memopt.hosts.theano.read.op_facts import branches

Leaf = Tuple[Any, int]
Row = Tuple[int, ...]

_MIXED = 6
SCENARIOS = ("guess", "one", "small", "large", *(f"mixed {i}" for i in range(1, _MIXED + 1)), "primes", "other primes")
GUESS = 0
_IDENTITY = slice(len(SCENARIOS) - 2, len(SCENARIOS))
"""The scenarios in which free leaves differ from each other: equal there is equal."""


def hint(variable: Any, shape: Sequence[Optional[int]]) -> Any:
    """Say how long the dimensions of `variable` will likely be; None where you do not know. Returns the variable.

    >>> import theano_memopt, theano.tensor as tt
    >>> batch = theano_memopt.hint(tt.dmatrix("batch"), (256, None))
    >>> theano_memopt.hint(tt.dvector("weights"), (3, 4))
    Traceback (most recent call last):
    ...
    ValueError: weights has 1 dimensions, the hint (3, 4) has 2
    """
    lengths = tuple(None if length is None else int(length) for length in shape)
    if len(lengths) != variable.ndim:
        raise ValueError(f"{variable} has {variable.ndim} dimensions, the hint {lengths} has {len(lengths)}")
    if any(length is not None and length < 0 for length in lengths):
        raise ValueError(f"a dimension is 0 or more long, and the hint for {variable} says {lengths}")
    variable.tag.mem_reuse_shape = lengths
    return variable


class Sizes:
    """Every dimension of every variable of a FunctionGraph, in every scenario."""

    def __init__(self, fgraph: Any, nodes: Sequence[Any], default_dim: int) -> None:
        self.default_dim = default_dim
        self.shape_of = Formulas(fgraph)
        self._rows: Dict[Tuple[Any, int], Row] = {}
        self._values: Dict[Any, Any] = {}
        self._leaves = _Leaves()
        self._free = 0
        self._busy: set = set()
        self.came_from: Dict[str, str] = {}
        """For every leaf, in words: its number and where that came from."""
        for first, second in _equalities(fgraph, nodes):
            self._join(first, second)

    def dims(self, variable: Any) -> Tuple[Row, ...]:
        """For each axis its row."""
        return tuple(self.dim(variable, axis) for axis in range(variable.type.ndim))

    def dim(self, variable: Any, axis: int) -> Row:
        key = (variable, axis)
        if key not in self._rows:
            self._rows[key] = self._find(variable, axis)
        return self._rows[key]

    def bytes(self, variable: Any) -> Row:
        """The row of sizes in bytes; zeros for what is not a dense array on the CPU."""
        if not isinstance(variable.type, tensor.TensorType):
            return (0,) * len(SCENARIOS)
        row = [np.dtype(variable.type.dtype).itemsize] * len(SCENARIOS)
        for dim in self.dims(variable):
            row = [size * max(length, 0) for size, length in zip(row, dim)]
        return tuple(row)

    def kind(self, variable: Any) -> str:
        """The class of storage: dtype and shape, the latter as it is in the scenarios that tell leaves apart."""
        shape = "x".join("~".join(map(str, sorted(set(row[_IDENTITY])))) for row in self.dims(variable))
        return f"{variable.type.dtype}[{shape}]"

    def sources(self) -> str:
        """Where every number came from, in one line."""
        return "; ".join(f"{name} = {said}" for name, said in sorted(self.came_from.items())) or "every dimension is fixed"

    @property
    def has_free(self) -> bool:
        """Is any number a mere assumption?"""
        return self._free > 0

    # --- one dimension -------------------------------------------------------------------------------------------

    def _find(self, variable: Any, axis: int) -> Row:
        if variable.type.broadcastable[axis]:
            return (1,) * len(SCENARIOS)
        formula = self._formula(variable, axis)
        if formula is not None and (variable, axis) not in self._busy:
            self._busy.add((variable, axis))
            try:
                value = self._evaluate(formula)
            except RecursionError:
                value = None
            finally:
                self._busy.discard((variable, axis))
            if value is not None:
                return tuple(int(v) for v in value)
        return self._of_leaf((variable, axis))

    def _formula(self, variable: Any, axis: int) -> Optional[Any]:
        shape = self.shape_of.get(variable)
        if shape is None or axis >= len(shape):
            return None
        formula = shape[axis]
        node = formula.owner
        if node is not None and isinstance(node.op, Shape_i) and node.inputs[0] is variable:
            return None
        return formula

    def _of_leaf(self, leaf: Leaf) -> Row:
        root = self._leaves.root(leaf)
        if root not in self._leaves.rows:
            explained = self._leaves.formulas.get(root)
            if explained is not None and root not in self._busy:
                self._busy.add(root)
                row = self.dim(*explained)
                self._busy.discard(root)
                if root not in self._leaves.rows:
                    self._leaves.rows[root] = row
            else:
                self._leaves.rows[root] = self._number(self._leaves.members(root))
        return self._leaves.rows[root]

    def _number(self, members: Iterable[Leaf]) -> Row:
        """The best knowledge that any of the joined leaves has."""
        found = sorted((known for leaf in members for known in [_known(leaf)] if known is not None), key=lambda known: known[0])
        name = _name(min(members, key=lambda leaf: (leaf[0].owner is not None, leaf[0].name is None)))
        if found:
            _, length, source = found[0]
            self.came_from[name] = f"{length} ({source})"
            return (length,) * len(SCENARIOS)
        self.came_from[name] = f"{self.default_dim} (mem_reuse.default_dim)"
        return self._new_free()

    def _new_free(self) -> Row:
        d = self.default_dim
        which = self._free
        self._free += 1
        # In each mixed scenario one dimension is short where another is long, differently in each.
        mixed = [max(1, d // 8) if (which + 1) * (i + 1) % 7 < 4 else 4 * d for i in range(_MIXED)]
        return (d, 1, max(1, d // 4), 4 * d, *mixed, _prime(d, 2 * which), _prime(d, 2 * which + 1))

    # --- formulas over dimensions --------------------------------------------------------------------------------

    def _evaluate(self, formula: Any) -> Optional[Sequence[Any]]:
        """The values of an integer expression, one per scenario; None where it depends on data."""
        if formula not in self._values:
            self._values[formula] = self._compute(formula)
        return self._values[formula]

    def _compute(self, formula: Any) -> Optional[Sequence[Any]]:
        if isinstance(formula, gof.Constant):
            data = formula.data
            small = data is None or isinstance(data, slice) or np.size(data) <= 64
            return (_plain(data),) * len(SCENARIOS) if small else None
        node = formula.owner
        if node is None:
            return self._input_value(formula)
        if isinstance(node.op, Shape_i):
            return self.dim(node.inputs[0], node.op.i)
        if isinstance(node.op, Shape):
            return tuple(np.array(shape, dtype="int64") for shape in zip(*self.dims(node.inputs[0]))) or None
        if not _is_small(formula):
            return None
        if isinstance(node.op, IfElse):
            return self._choose(node, formula)
        inputs = [self._evaluate(i) for i in node.inputs]
        if any(i is None for i in inputs):
            return self._new_free() if formula.type.ndim == 0 and _is_whole(formula) else None
        return _apply(node, formula, inputs)

    def _choose(self, node: Any, wanted: Any) -> Optional[Sequence[Any]]:
        """The length of what an IfElse returns; the longer one where nobody knows the condition."""
        yes, no = (self._evaluate(v) for v in branches(node, wanted))
        if yes is None or no is None or all(map(_same, yes, no)):
            return yes if no is None else no
        condition = self._evaluate(node.inputs[0])
        if condition is None:
            return tuple(map(max, yes, no))
        return tuple(a if c else b for c, a, b in zip(condition, yes, no))

    def _input_value(self, variable: Any) -> Optional[Sequence[Any]]:
        """The value of an integer input: a length that the caller gives as a number."""
        if not _is_whole(variable) or getattr(variable.type, "ndim", 0) != 0:
            return None
        present = _present(variable)
        if present is not None:
            self.came_from[_name((variable, None))] = f"{int(present)} (value)"
            return (int(present),) * len(SCENARIOS)
        self.came_from[_name((variable, None))] = f"{self.default_dim} (mem_reuse.default_dim)"
        return self._new_free()

    # --- equalities ----------------------------------------------------------------------------------------------

    def _join(self, first: Leaf, second: Leaf) -> None:
        one, two = self._leaf_of(first), self._leaf_of(second)
        if one is not None and two is not None:
            self._leaves.join(one, two)
        elif one is not None and not second[0].type.broadcastable[second[1]]:
            self._leaves.explain(one, second)
        elif two is not None and not first[0].type.broadcastable[first[1]]:
            self._leaves.explain(two, first)

    def _leaf_of(self, place: Leaf) -> Optional[Leaf]:
        """The leaf that this dimension is, if it is one and not a formula."""
        variable, axis = place
        for _ in range(100):
            if variable.type.broadcastable[axis]:
                return None
            formula = self._formula(variable, axis)
            if formula is None:
                return (variable, axis)
            node = formula.owner
            if node is None or not isinstance(node.op, Shape_i):
                return None
            variable, axis = node.inputs[0], node.op.i
        return None


class _Leaves:
    """Union-find over leaves, with a formula for those that an equality explains."""

    def __init__(self) -> None:
        self.parent: Dict[Leaf, Leaf] = {}
        self.inside: Dict[Leaf, List[Leaf]] = {}
        self.rows: Dict[Leaf, Row] = {}
        self.formulas: Dict[Leaf, Leaf] = {}

    def root(self, leaf: Leaf) -> Leaf:
        while leaf in self.parent:
            leaf = self.parent[leaf]
        return leaf

    def members(self, root: Leaf) -> List[Leaf]:
        return self.inside.get(root, [root])

    def join(self, one: Leaf, two: Leaf) -> None:
        one, two = self.root(one), self.root(two)
        if one == two:
            return
        if len(self.members(one)) < len(self.members(two)):
            one, two = two, one
        self.parent[two] = one
        self.inside[one] = self.members(one) + self.inside.pop(two, [two])
        if two in self.formulas:
            self.formulas.setdefault(one, self.formulas.pop(two))

    def explain(self, leaf: Leaf, place: Leaf) -> None:
        root = self.root(leaf)
        if not any(_known(member) for member in self.members(root)):
            self.formulas.setdefault(root, place)


def _known(leaf: Leaf) -> Optional[Tuple[int, int, str]]:
    """(rank, length, source): what is known of a leaf by itself, the surest source first."""
    variable, axis = leaf
    if isinstance(variable, gof.Constant):
        return (0, int(variable.data.shape[axis]), "constant")
    shape = getattr(variable.tag, "mem_reuse_shape", None)
    if shape is not None and shape[axis] is not None:
        return (1, shape[axis], "hint")
    for rank, source, value in ((2, "present value", _shared(variable)), (3, "test value", getattr(variable.tag, "test_value", None))):
        if value is not None and np.ndim(value) > axis:
            return (rank, int(np.shape(value)[axis]), source)
    return None


def _shared(variable: Any) -> Optional[Any]:
    container = getattr(variable, "container", None)
    return None if container is None else container.storage[0]


def _present(variable: Any) -> Optional[Any]:
    for value in (_shared(variable), getattr(variable.tag, "test_value", None)):
        if value is not None and np.ndim(value) == 0:
            return value
    return None


def _name(leaf: Tuple[Any, Optional[int]]) -> str:
    variable, axis = leaf
    return f"{variable}" + ("" if axis is None else f".shape[{axis}]")


def _prime(above: int, which: int) -> int:
    """The prime number `which` after `above`."""
    number = above
    while True:
        number += 1
        if all(number % d for d in range(2, int(number**0.5) + 1)):
            which -= 1
            if which < 0:
                return number


def _is_whole(variable: Any) -> bool:
    return str(getattr(variable.type, "dtype", "")).startswith(("int", "uint", "bool"))


def _is_small(formula: Any) -> bool:
    """Shape arithmetic is over single numbers, short vectors and slices."""
    return getattr(formula.type, "ndim", 0) <= 1


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 and value.dtype.kind in "iub" else value


def _apply(node: Any, wanted: Any, inputs: Sequence[Sequence[Any]]) -> Optional[Sequence[Any]]:
    """One node of shape arithmetic, in every scenario."""
    if all(row[0] is row[i] or _same(row[0], row[i]) for row in inputs for i in range(1, len(SCENARIOS))):
        value = _apply_once(node, wanted, [row[0] for row in inputs])
        return None if value is None else (value,) * len(SCENARIOS)
    values = [_apply_once(node, wanted, [row[i] for row in inputs]) for i in range(len(SCENARIOS))]
    return None if any(value is None for value in values) else values


def _same(one: Any, two: Any) -> bool:
    return type(one) is type(two) and isinstance(one, int) and one == two


def _apply_once(node: Any, wanted: Any, values: Sequence[Any]) -> Optional[Any]:
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
        return _perform(node, wanted, values)
    except Exception:  # an op that cannot be evaluated on its own leaves the dimension unknown, which is allowed
        return None


def _scalar(op: Any, values: Sequence[Any]) -> Any:
    """A scalar op on whole numbers. A Composite is walked node by node: its own `impl` repeats what is used twice."""
    quick = _QUICK.get(type(op))
    if quick is not None:
        return quick(*values)
    if not isinstance(op, scalar.Composite):
        return _plain(np.asarray(op.impl(*values)))
    known = dict(zip(op.fgraph.inputs, values))
    for node in op.fgraph.toposort():
        inputs = [known[v] if v in known else _plain(v.data) for v in node.inputs]
        known[node.outputs[0]] = _scalar(node.op, inputs)
    return known[op.fgraph.outputs[0]]


def _perform(node: Any, wanted: Any, values: Sequence[Any]) -> Optional[Any]:
    inputs = [
        np.asarray(value, dtype=variable.type.dtype) if isinstance(variable.type, tensor.TensorType) else value
        for value, variable in zip(values, node.inputs)
    ]
    outputs: List[List[Any]] = [[None] for _ in node.outputs]
    node.op.perform(node, inputs, outputs)
    return _plain(outputs[node.outputs.index(wanted)][0])


_QUICK: Dict[type, Callable[..., Any]] = {
    scalar.Add: lambda *v: sum(v),
    scalar.Mul: lambda *v: functools.reduce(operator.mul, v),
    scalar.Neg: operator.neg,
    scalar.LT: operator.lt,
    scalar.GT: operator.gt,
    scalar.LE: operator.le,
    scalar.GE: operator.ge,
    scalar.EQ: operator.eq,
    scalar.NEQ: operator.ne,
    scalar.Sub: lambda a, b: a - b,
    scalar.Cast: lambda a: a,
    scalar.Identity: lambda a: a,
    scalar.IntDiv: lambda a, b: a // b,
    scalar.Maximum: lambda a, b: max(a, b),
    scalar.Minimum: lambda a, b: min(a, b),
    scalar.Switch: lambda c, a, b: a if c else b,
}
"""Whole-number arithmetic without numpy. Switch is safe to evaluate on both sides: there are no side effects."""


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


# --- equalities that ops imply ---------------------------------------------------------------------------------------


def _equalities(fgraph: Any, nodes: Sequence[Any]) -> Iterator[Tuple[Leaf, Leaf]]:
    for node in nodes:
        for rule, cases in _RULES:
            if isinstance(node.op, rule):
                yield from cases(node)
                break
    for output, source in (getattr(fgraph, "update_mapping", None) or {}).items():
        old, new = fgraph.inputs[source], fgraph.outputs[output]
        if isinstance(old.type, tensor.TensorType) and isinstance(new.type, tensor.TensorType):
            yield from (((old, axis), (new, axis)) for axis in range(old.type.ndim))  # an update rarely changes a shape


def _elemwise(node: Any) -> Iterator[Tuple[Leaf, Leaf]]:
    for axis in range(node.outputs[0].type.ndim):
        long = [v for v in node.inputs if not v.type.broadcastable[axis]]
        yield from (((first, axis), (second, axis)) for first, second in zip(long, long[1:]))


def _axes(*pairs: Tuple[int, int, int, int]) -> Callable[[Any], Iterator[Tuple[Leaf, Leaf]]]:
    """Equalities as (input, axis, input, axis)."""

    def cases(node: Any) -> Iterator[Tuple[Leaf, Leaf]]:
        return (((node.inputs[i], a), (node.inputs[j], b)) for i, a, j, b in pairs)

    return cases


def _dot(node: Any) -> Iterator[Tuple[Leaf, Leaf]]:
    first, second = node.inputs
    if first.type.ndim and second.type.ndim:
        yield ((first, first.type.ndim - 1), (second, max(0, second.type.ndim - 2)))


def _batched_dot(node: Any) -> Iterator[Tuple[Leaf, Leaf]]:
    first, second = node.inputs
    yield ((first, 0), (second, 0))
    yield ((first, first.type.ndim - 1), (second, 1))


def _join_op(node: Any) -> Iterator[Tuple[Leaf, Leaf]]:
    axis = node.inputs[0]
    if isinstance(axis, gof.Constant):
        parts = node.inputs[1:]
        along = int(axis.data) % parts[0].type.ndim
        for first, second in zip(parts, parts[1:]):
            yield from (((first, a), (second, a)) for a in range(first.type.ndim) if a != along)


_RULES: Sequence[Tuple[Any, Callable[[Any], Iterator[Tuple[Leaf, Leaf]]]]] = (
    (elemwise.Elemwise, _elemwise),
    (tensor.Dot, _dot),
    ((blas.Dot22, blas.Dot22Scalar), _axes((0, 1, 1, 0))),
    (blas.Gemm, _axes((2, 1, 3, 0), (0, 0, 2, 0), (0, 1, 3, 1))),
    (blas.Gemv, _axes((2, 0, 0, 0), (2, 1, 3, 0))),
    (blas.Ger, _axes((0, 0, 2, 0), (0, 1, 3, 0))),
    (blas.BatchedDot, _batched_dot),
    (tensor.Join, _join_op),
    (nnet.CrossentropySoftmaxArgmax1HotWithBias, _axes((0, 0, 2, 0), (0, 1, 1, 0))),
    (nnet.CrossentropySoftmax1HotWithBiasDx, _axes((1, 0, 2, 0))),
)

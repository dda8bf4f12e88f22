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

import operator
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from theano import gof, tensor
from theano.compile.ops import Shape_i
from theano.tensor import blas, elemwise
from theano.tensor.nnet import nnet

from theano_memopt.hosts.theano.read.formulas import LONGEST, Walker, computed, is_whole, plain
from theano_memopt.hosts.theano.read.source_lines import made_at

Leaf = Tuple[Any, int]
Row = Tuple[int, ...]

_MIXED = 6
SCENARIOS = ("guess", "one", "small", "large", *(f"mixed {i}" for i in range(1, _MIXED + 1)), "primes", "other primes")
GUESS = 0
_IDENTITY = slice(len(SCENARIOS) - 2, len(SCENARIOS))
"""The scenarios in which free leaves differ from each other: equal there is equal."""


def hint(variable: Any, shape: Sequence[Optional[int]]) -> Any:
    """Say how long the dimensions of an input will likely be; None where you do not know. Returns the input.

    >>> import theano_memopt, theano.tensor as tt
    >>> batch = theano_memopt.hint(tt.dmatrix("batch"), (256, None))
    >>> theano_memopt.hint(tt.dvector("weights"), (3, 4))
    Traceback (most recent call last):
    ...
    ValueError: weights has 1 dimensions, the hint (3, 4) has 2
    """
    if not isinstance(variable, gof.Variable):
        raise TypeError(f"hint takes a symbolic input, as tt.matrix('x') makes one, not {type(variable).__name__}")
    if getattr(variable, "container", None) is not None or isinstance(variable, gof.Constant):
        kind = "constant" if isinstance(variable, gof.Constant) else "shared variable"
        raise TypeError(f"hint takes a symbolic input; {variable.name or 'this'} is a {kind}, whose shape is known from its value")
    if variable.owner is not None:
        computed_by = variable.name or variable.owner.op
        raise TypeError(f"hint takes a symbolic input; {computed_by} is computed, and its shape follows from those of the inputs")
    if not isinstance(variable.type, tensor.TensorType):
        raise TypeError(f"hint takes a dense tensor; {variable} is of type {variable.type}")
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"the shape of a hint is a tuple, one length or None for each dimension of {variable}, not {type(shape).__name__}")
    lengths = tuple(None if length is None else _length(length) for length in shape)
    if any(length is ... for length in lengths):
        raise ValueError(f"in the hint for {variable} a length, or None, belongs in the place of each `...`")
    if any(length is NO_LENGTH for length in lengths):
        raise ValueError(f"the hint for {variable} is {shape!r}; a length is a whole number, 0 or more, or None where you do not know it")
    if len(lengths) != variable.ndim:
        raise ValueError(f"{variable} has {variable.ndim} dimensions, the hint {lengths} has {len(lengths)}")
    if any(length is not None and length < 0 for length in lengths):
        raise ValueError(f"a dimension is 0 or more long, and the hint for {variable} says {lengths}")
    variable.tag.mem_reuse_shape = lengths
    return variable


NO_LENGTH = object()


def _length(said: Any) -> Any:
    try:
        return said if said is ... else operator.index(said)
    except TypeError:
        return NO_LENGTH


class Sizes(Walker[Sequence[Any]]):
    """Every dimension of every variable of a FunctionGraph, in every scenario."""

    def __init__(self, fgraph: Any, nodes: Sequence[Any], default_dim: int) -> None:
        super().__init__(fgraph)
        self.default_dim = default_dim
        self._leaves = _Leaves()
        self._positions = {v: i + 1 for i, v in enumerate(fgraph.inputs)}
        self._free = 0
        self._busy: set = set()
        """Leaves that are being explained: an equality can lead back to its own leaf."""
        self.came_from: Dict[str, str] = {}
        """For every leaf, in words: its number and where that came from."""
        for first, second in _equalities(fgraph, nodes):
            self._join(first, second)

    def dims(self, variable: Any) -> Tuple[Row, ...]:
        """For each axis its row."""
        return tuple(self.dim(variable, axis) for axis in range(variable.type.ndim))

    def dim(self, variable: Any, axis: int) -> Row:
        row = super().dim(variable, axis)
        assert row is not None  # a dimension that no formula explains is a leaf, and a leaf has a row
        return tuple(row)

    def bytes(self, variable: Any) -> Row:
        """The row of sizes in bytes; zeros for what is not a dense array on the CPU."""
        if not isinstance(variable.type, tensor.TensorType):
            return (0,) * len(SCENARIOS)
        row = [np.dtype(variable.type.dtype).itemsize] * len(SCENARIOS)
        for dim in self.dims(variable):
            row = [size * max(length, 0) for size, length in zip(row, dim)]
        return tuple(row)

    def shape_of(self, variable: Any) -> Tuple[int, ...]:
        """As it is known or guessed."""
        return tuple(row[GUESS] for row in self.dims(variable))

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

    # --- leaves --------------------------------------------------------------------------------------------------

    def leaf(self, variable: Any, axis: int) -> Row:
        return self._of_leaf((variable, axis))

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
        name = self._name(min(members, key=lambda leaf: (leaf[0].owner is not None, leaf[0].name is None)))
        if found:
            _, length, source = found[0]
            self.came_from[name] = f"{length} ({source})"
            return (length,) * len(SCENARIOS)
        self.came_from[name] = f"{self.default_dim} (mem_reuse.default_dim)"
        return self._new_free()

    def _name(self, leaf: Tuple[Any, Optional[int]]) -> str:
        """In words. What has no name has its place among the inputs of the graph, shared variables included, and the line that made it."""
        variable, axis = leaf
        name = str(variable)
        if not variable.name and variable in self._positions:
            line, _ = made_at(variable, ())
            name = f"input {self._positions[variable]}" + (f" ({line.split('  ')[0]})" if line else "")
        return name if axis is None else f"{name}.shape[{axis}]"

    def _new_free(self) -> Row:
        d = self.default_dim
        which = self._free
        self._free += 1
        # In each mixed scenario one dimension is short where another is long, differently in each.
        mixed = [max(1, d // 8) if (which + 1) * (i + 1) % 7 < 4 else 4 * d for i in range(_MIXED)]
        return (d, 1, max(1, d // 4), 4 * d, *mixed, _prime(d, 2 * which), _prime(d, 2 * which + 1))

    # --- the value of a formula: one for each scenario -----------------------------------------------------------

    def number(self, length: int) -> Row:
        return (length,) * len(SCENARIOS)

    def length(self, value: Sequence[Any]) -> Row:
        return tuple(int(v) for v in value)

    def number_given(self, variable: Any) -> Row:
        """A length that the caller gives as a number."""
        present = _present(variable)
        if present is not None:
            self.came_from[self._name((variable, None))] = f"{int(present)} (value)"
            return (int(present),) * len(SCENARIOS)
        self.came_from[self._name((variable, None))] = f"{self.default_dim} (mem_reuse.default_dim)"
        return self._new_free()

    def constant(self, data: Any) -> Optional[Sequence[Any]]:
        small = data is None or isinstance(data, slice) or np.size(data) <= LONGEST
        return (plain(data),) * len(SCENARIOS) if small else None

    def vector(self, dims: Sequence[Sequence[Any]]) -> Optional[Sequence[Any]]:
        return tuple(np.array(shape, dtype="int64") for shape in zip(*dims)) or None

    def choice(self, condition: Any, yes: Optional[Sequence[Any]], no: Optional[Sequence[Any]]) -> Optional[Sequence[Any]]:
        """The longer branch where nothing is known of the condition."""
        if yes is None or no is None or all(map(_same, yes, no)):
            return yes if no is None else no
        conditions = self.value(condition)
        if conditions is None:
            return tuple(map(max, yes, no))
        return tuple(a if c else b for c, a, b in zip(conditions, yes, no))

    def unknown(self, formula: Any) -> Optional[Row]:
        return self._new_free() if formula.type.ndim == 0 and is_whole(formula) else None

    def apply(self, node: Any, wanted: Any, inputs: Sequence[Sequence[Any]]) -> Optional[Sequence[Any]]:
        if all(row[0] is row[i] or _same(row[0], row[i]) for row in inputs for i in range(1, len(SCENARIOS))):
            value = computed(node, wanted, [row[0] for row in inputs])
            return None if value is None else (value,) * len(SCENARIOS)
        values = [computed(node, wanted, [row[i] for row in inputs]) for i in range(len(SCENARIOS))]
        return None if any(value is None for value in values) else values

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
            formula = self.formula(variable, axis)
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
    for attribute, source in (("mem_reuse_given", "given"), ("mem_reuse_shape", "hint")):
        shape = getattr(variable.tag, attribute, None)
        if shape is not None and shape[axis] is not None:
            return (1, shape[axis], source)
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


def _prime(above: int, which: int) -> int:
    """The prime number `which` after `above`."""
    number = above
    while True:
        number += 1
        if all(number % d for d in range(2, int(number**0.5) + 1)):
            which -= 1
            if which < 0:
                return number


def _same(one: Any, two: Any) -> bool:
    return type(one) is type(two) and isinstance(one, int) and one == two


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

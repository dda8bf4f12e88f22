"""FunctionGraph -> Graph: what Theano would run, as tasks and buffers.

    a = dot(x, w)        a                       buffer a
    b = a.T              (view_map)              another name of a
    c = tanh(b) in place (destroy_map)           another name of a; every other reader of a and b runs before it
    d = c.sum()          d                       buffer d

Words
    root      the variable whose node allocates a buffer; the other names are views of it or in-place results
    trusted   an op whose declarations can be relied on; others may hand out, or keep, an array that they were given
    certain   a node that runs in every call; what only a lazy op asks for is not certain
    loose     a buffer whose end is not certain: it is planned, and never shares storage
    cautious  the same graph where everything that may be a view lives on as one: storage is planned on it

Reshape is declared a view, yet it copies when its input is not contiguous, as after a transposition. The plan counts
what will happen as far as strides can be foreseen; who shares is settled on the cautious graph, where it is both.

Inputs, constants and shared variables belong to the caller and are no buffers at all. What is not a dense array on the
CPU is carried at size 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Set, Tuple

from theano import gof, tensor
from theano.compile.builders import OpFromGraph
from theano.compile.ops import FromFunctionOp
from theano.ifelse import IfElse
from theano.printing import Print
from theano.scalar import Scalar
from theano.scan_module.scan_op import Scan
from theano.tensor.elemwise import DimShuffle, Elemwise
from theano.tensor.extra_ops import CpuContiguous
from theano.tensor.subtensor import Subtensor
from theano.tensor.type_other import NoneTypeT, SliceType

from theano_memopt.hosts.theano.read.assumed_sizes import GUESS, Sizes
from theano_memopt.hosts.theano.read.memory_layout import steady
from theano_memopt.planner.model import Buffer, Graph, Task

MAY_COPY = (tensor.Reshape, tensor.Flatten, CpuContiguous)
"""Declared views that copy what is not contiguous."""


@dataclass(frozen=True)
class Reading:
    """A FunctionGraph as the planner sees it, and the way back."""

    graph: Graph
    """Sizes as in the scenario `GUESS`."""
    nodes: Tuple[Any, ...]
    """Task index -> node."""
    roots: Tuple[Any, ...]
    """Buffer index -> the variable whose node allocates it."""
    names: Tuple[Tuple[Any, ...], ...]
    """Buffer index -> every variable that may lie in it, cautiously."""
    cautious: Graph
    doubtful: FrozenSet[int]
    """Buffers whose end differs between the two graphs."""
    loose: FrozenSet[int]
    steady: FrozenSet[int]
    """Buffers that are in C order in every call."""
    certain: FrozenSet[Any]
    """Nodes that run in every call. Closed under what they need."""
    scenarios: Tuple[Tuple[int, ...], ...]
    """Other plausible sizes of the buffers; empty if no size is a mere assumption."""


def read(fgraph: Any, nodes: Sequence[Any], orderings: Mapping[Any, Sequence[Any]], default_dim: int, compiled: bool = True) -> Reading:
    """`nodes` in an order that the host would run, `orderings` as the fgraph's other features demand them; `compiled` says whether
    the linker asks for C code."""
    sizes = Sizes(fgraph, nodes, default_dim)
    index = {node: t for t, node in enumerate(nodes)}
    aliases = _Aliases(fgraph, nodes)
    certain = certain_nodes(fgraph, nodes, orderings)
    loose = _loose(aliases, nodes, certain)

    guarded = any(isinstance(feature, gof.DestroyHandler) for feature in fgraph._features)
    demands = {} if guarded else _destroy_order(aliases, nodes)
    for node, before in orderings.items():
        demands[node] = [*demands.get(node, ()), *before]

    rows = [sizes.bytes(root) for root in aliases.roots]
    kinds = [sizes.kind(root) if isinstance(root.type, tensor.TensorType) else str(root.type) for root in aliases.roots]
    source = "; ".join(f"{name} = {said}" for name, said in sorted(sizes.came_from.items())) or "every dimension is fixed"

    def graph_of(lies_in: Mapping[Any, Tuple[int, ...]], scenario: int = GUESS) -> Graph:
        readers: List[List[int]] = [[] for _ in aliases.roots]
        kept: Set[int] = set()
        tasks: List[Task] = []
        for t, node in enumerate(nodes):
            writes = aliases.written.get(node, [])
            reads = sorted({b for v in node.inputs for b in lies_in.get(v, ())} - set(writes))
            for b in reads:
                readers[b].append(t)
            kept.update(b for v in node.outputs if _is_kept(v) for b in lies_in[v])
            after = {index[p] for p in [*(v.owner for v in node.inputs if v.owner), *demands.get(node, ())]} - {t}
            tasks.append(Task(tuple(reads), tuple(writes), tuple(sorted(after)), f"{t} {_op_name(node.op)}"))
        buffers = [
            Buffer(rows[b][scenario], kinds[b], index[root.owner], tuple(readers[b]), b in kept, _label(index[root.owner], root))
            for b, root in enumerate(aliases.roots)
        ]
        return Graph(tuple(tasks), tuple(buffers), source)

    graph = graph_of(aliases.of)
    cautious = graph_of(aliases.may_be) if aliases.copies else graph
    doubtful = frozenset(
        b for b, (one, two) in enumerate(zip(graph.buffers, cautious.buffers)) if (one.readers, one.pinned) != (two.readers, two.pinned)
    )
    others = tuple(row for i, row in enumerate(zip(*rows)) if i != GUESS) if sizes.has_free else ()
    in_c_order = steady([node for node in nodes if is_trusted(node.op)], compiled)
    orderly = frozenset(b for b, root in enumerate(aliases.roots) if root in in_c_order)
    names = tuple(map(tuple, aliases.names))
    return Reading(graph, tuple(nodes), tuple(aliases.roots), names, cautious, doubtful, loose, orderly, certain, others)


def certain_nodes(fgraph: Any, nodes: Sequence[Any], orderings: Mapping[Any, Sequence[Any]]) -> FrozenSet[Any]:
    """Nodes that run in every call: from the outputs backwards, past a lazy op only through what it always asks for."""
    found: Set[Any] = set()
    waiting = [v.owner for v in fgraph.outputs if v.owner]
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found.add(node)
        waiting.extend(v.owner for v in always_asked(node) if v.owner)
        waiting.extend(orderings.get(node, ()))
    return frozenset(found)


def always_asked(node: Any) -> Sequence[Any]:
    """The inputs without which the node never runs."""
    return node.inputs if not is_lazy(node.op) else node.inputs[:1] if isinstance(node.op, IfElse) else []


def is_lazy(op: Any) -> bool:
    """May the op run without some of its inputs? A stranger that makes its own thunk is taken to be lazy."""
    return isinstance(op, IfElse) or (not _from_theano(op) and _overrides(op, "make_thunk"))


def is_trusted(op: Any) -> bool:
    """Do the outputs of this op alias its inputs exactly as view_map and destroy_map say, and does it keep nothing?"""
    if not _from_theano(op) or isinstance(op, (IfElse, FromFunctionOp, OpFromGraph)):
        return False
    if isinstance(op, Scan):
        return not op.n_shared_outs  # the final value of a shared one can be the very array that came in
    # What a user's function is given to print it may keep.
    return not isinstance(op, Print) or getattr(op.global_fn, "__module__", None) == Print.__module__


def _from_theano(op: Any) -> bool:
    module = type(op).__module__
    if module.partition(".")[0] == "theano_memopt_ops":
        return True
    return module.startswith("theano.") and ".tests" not in module and (".sandbox" not in module or module == "theano.sandbox.rng_mrg")


def _overrides(op: Any, name: str) -> bool:
    return getattr(type(op), name, None) is not getattr(gof.Op, name)


class _Aliases:
    """Which buffers each variable may lie in."""

    def __init__(self, fgraph: Any, nodes: Sequence[Any]) -> None:
        self.roots: List[Any] = []
        self.names: List[List[Any]] = []
        self.of: Dict[Any, Tuple[int, ...]] = {}
        """As far as can be foreseen."""
        self.may_be: Dict[Any, Tuple[int, ...]] = {}
        """With every declared view taken at its word."""
        self.copies = False
        self.written: Dict[Any, List[int]] = {}
        self.strange: Set[int] = set()
        """Buffers that an untrusted op has touched."""
        self.storage_class: Dict[Any, Any] = {}
        """For the destroy order: variable -> what it is a view of, as far as declared, destroyed results apart."""
        self.scattered: Set[Any] = set()
        """Variables that are likely not contiguous."""
        for node in nodes:
            self._node(node)

    def _node(self, node: Any) -> None:
        trusted = is_trusted(node.op)
        views, destroys = _declared(node.op, "view_map"), _declared(node.op, "destroy_map")
        for i, output in enumerate(node.outputs):
            sources = [node.inputs[j] for j in destroys.get(i, [])] + [node.inputs[j] for j in views.get(i, [])]
            copies = isinstance(node.op, MAY_COPY) and node.inputs[0] in self.scattered
            inside = [b for source in sources for b in self.of.get(source, ())]
            may_be = [b for source in sources for b in self.may_be.get(source, ())]
            if not sources or not trusted or copies:
                self.roots.append(output)
                self.names.append([])
                self.written.setdefault(node, []).append(len(self.roots) - 1)
                inside = ([] if copies else inside) + [len(self.roots) - 1]
                may_be.append(len(self.roots) - 1)
                self.copies |= copies
            if not trusted:
                inside.extend(b for source in node.inputs for b in self.of.get(source, ()))
                may_be.extend(b for source in node.inputs for b in self.may_be.get(source, ()))
                self.strange.update(may_be)
            self.of[output] = tuple(dict.fromkeys(inside))
            self.may_be[output] = tuple(dict.fromkeys(may_be))
            for b in self.may_be[output]:
                self.names[b].append(output)
            viewed = views.get(i)
            self.storage_class[output] = self.storage_class.get(node.inputs[viewed[0]], node.inputs[viewed[0]]) if viewed else output
            if _is_scattered(node, sources, self.scattered):
                self.scattered.add(output)
        if not trusted or not all(_is_dense(v.type) for v in [*node.inputs, *node.outputs]):
            self.strange.update(b for v in [*node.inputs, *node.outputs] for b in self.may_be.get(v, ()))


def _is_scattered(node: Any, sources: Sequence[Any], scattered: Set[Any]) -> bool:
    """Will the first output likely not be contiguous? A guess: it decides only how a later Reshape is counted."""
    op = node.op
    if isinstance(op, MAY_COPY):
        return False
    if isinstance(op, DimShuffle):
        long = [axis for axis in op.new_order if axis != "x" and not node.inputs[0].type.broadcastable[axis]]
        return node.inputs[0] in scattered or long != sorted(long)
    if isinstance(op, Subtensor):
        # Whole rows from the front on stay contiguous; a step, or a slice of an inner axis, does not.
        first, inner = op.idx_list[:1], op.idx_list[1:]
        stepped = any(isinstance(index, slice) and index.step is not None for index in op.idx_list)
        single = all(not isinstance(index, slice) for index in first)
        return node.inputs[0] in scattered or stepped or any(isinstance(index, slice) for index in inner) or (bool(inner) and not single)
    if isinstance(op, Elemwise):
        # NumPy's rule, which the C code follows: the result is laid out like inputs that all agree.
        full = [v for v in node.inputs if v.type.broadcastable == node.outputs[0].type.broadcastable]
        return bool(full) and all(v in scattered for v in full)
    return any(source in scattered for source in sources)


def _destroy_order(aliases: _Aliases, nodes: Sequence[Any]) -> Dict[Any, List[Any]]:
    """A destroyer runs after all other readers of what it destroys and of its views.

    The destroy handler says the same; a FunctionGraph that lost its features, as Function.copy makes one, has none.
    """
    users: Dict[Any, List[Any]] = {}
    for node in nodes:
        for v in dict.fromkeys(node.inputs):
            users.setdefault(aliases.storage_class.get(v, v), []).append(node)
    demands: Dict[Any, List[Any]] = {}
    for node in nodes:
        for sources in _declared(node.op, "destroy_map").values():
            for j in sources:
                victim = node.inputs[j]
                before = [user for user in users[aliases.storage_class.get(victim, victim)] if user is not node]
                demands.setdefault(node, []).extend(before)
    return demands


def _loose(aliases: _Aliases, nodes: Sequence[Any], certain: FrozenSet[Any]) -> FrozenSet[int]:
    loose = set(aliases.strange)
    for node in nodes:
        if node not in certain or is_lazy(node.op):
            loose.update(b for v in [*node.inputs, *node.outputs] for b in aliases.may_be.get(v, ()))
    for b, root in enumerate(aliases.roots):
        if not isinstance(root.type, tensor.TensorType):
            loose.add(b)
    return frozenset(loose)


def _is_kept(variable: Any) -> bool:
    """An output is kept for the caller. A result that nobody reads is kept by Theano: it clears a cell only after a reader."""
    return not variable.clients or any(client == "output" for client, _ in variable.clients)


def _is_dense(kind: Any) -> bool:
    """Types whose values share memory with others only as view_map and destroy_map say."""
    return isinstance(kind, (tensor.TensorType, Scalar, NoneTypeT, SliceType))


def _declared(op: Any, name: str) -> Mapping[int, Sequence[int]]:
    return getattr(op, name, None) or {}


def _op_name(op: Any) -> str:
    inner = getattr(op, "scalar_op", None)
    return type(op).__name__ + (f"{{{type(inner).__name__}}}" if inner is not None else "")


def _label(task: int, root: Any) -> str:
    return f"{task}.{root.owner.outputs.index(root)}" + (f" {root.name}" if root.name else "")


def describe(variable: Optional[Any]) -> str:
    """A variable as a person would name it: its name, or its node and output."""
    if variable is None:
        return "?"
    if variable.name:
        return str(variable.name)
    owner = variable.owner
    return str(variable) if owner is None else f"{_op_name(owner.op)}.{owner.outputs.index(variable)}"

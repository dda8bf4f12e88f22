"""FunctionGraph -> Graph: what Theano would run, as tasks and buffers.

    a = dot(x, w)        a                       buffer a
    b = a.T              (view_map)              another name of a
    c = tanh(b) in place (destroy_map)           another name of a; every other reader of a and b runs before it
    d = c.sum()          d                       buffer d

Words
    root      the variable whose node allocates a buffer; the other names are views of it or in-place results (aliases.py)
    certain   a node that runs in every call; a node that only a lazy op asks for is not certain
    loose     a buffer whose end is not certain: it is planned, and never shares storage
    foreseen  the graph in which a declared view that will likely copy has a buffer of its own: the order is planned on it
    cautious  the same graph in which that buffer and the viewed one both live on: storage is planned on it

Reshape is declared a view, yet it copies when its input is not contiguous, as after a transposition. The plan counts
what will happen as far as strides can be foreseen; who shares is settled on the cautious graph, where it is both.

Inputs, constants and shared variables belong to the caller and are no buffers at all. What is not a dense array on the
CPU is carried at size 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import AbstractSet, Any, Callable, Dict, FrozenSet, List, Mapping, Sequence, Set, Tuple

import numpy as np
from theano import gof, tensor
from theano.ifelse import IfElse
from theano.scalar import Scalar
from theano.tensor.type_other import NoneTypeT, SliceType

from theano_memopt.hosts.theano.read.aliases import Aliases, Rule, as_declared, lies_in, viewed
from theano_memopt.hosts.theano.read.assumed_sizes import GUESS, Sizes
from theano_memopt.hosts.theano.read.memory_layout import MAY_COPY, likely_scattered, steady
from theano_memopt.hosts.theano.read.op_facts import aliases_are_known, always_asked, declared, is_lazy, is_trusted, op_name
from theano_memopt.hosts.theano.read.workspaces import Workspace, workspace_of
from theano_memopt.planner.model import Buffer, Graph, Task

ShapeOf = Callable[[Any], Tuple[int, ...]]
"""Variable -> its shape; asked for dense arrays alone."""


@dataclass(frozen=True)
class Reading:
    """A FunctionGraph as the planner sees it, and the way back."""

    graph: Graph
    """Sizes as in the scenario `GUESS`."""
    nodes: Tuple[Any, ...]
    """Task index -> node."""
    roots: Tuple[Any, ...]
    """Buffer index -> the variable whose node allocates it. The buffers beyond are workspaces."""
    workspaces: Tuple[Workspace, ...]
    """Of nodes that take memory for themselves: their buffers come after those of `roots`."""
    names: Tuple[Tuple[Any, ...], ...]
    """Buffer index -> every variable that may lie in it, cautiously."""
    cautious: Graph
    doubtful: FrozenSet[int]
    """Buffers whose end differs between the two graphs."""
    loose: FrozenSet[int]
    untrusted: FrozenSet[int]
    """Those that are loose for another reason than that a lazy op may leave out what reads or makes them."""
    steady: FrozenSet[int]
    """Buffers that are in C order in every call."""
    certain: FrozenSet[Any]
    """Nodes that run in every call. Closed under what they need."""
    scenarios: Tuple[Tuple[int, ...], ...]
    """Other plausible sizes of the buffers; empty if no size is a mere assumption."""

    def sizes_at(self, shape_of: ShapeOf) -> List[int]:
        """Bytes of every buffer, workspaces too, where variables have these shapes."""
        return [bytes_of(root, shape_of) for root in self.roots] + [w.bytes([shape_of(v) for v in w.asks]) for w in self.workspaces]


def read(fgraph: Any, nodes: Sequence[Any], orderings: Mapping[Any, Sequence[Any]], default_dim: int, compiled: bool = True) -> Reading:
    """`nodes` in an order that the host would run, `orderings` as the fgraph's other features demand them; `compiled` says whether
    the linker asks for C code."""
    scattered = likely_scattered(nodes)
    copying = likely_copying(nodes, scattered)
    foreseen = Aliases(nodes, _foreseen(copying))
    cautious = Aliases(nodes, _cautious(copying)) if copying else foreseen
    roots = tuple(foreseen.roots)
    certain = certain_nodes(fgraph, nodes, orderings)
    guarded = any(isinstance(feature, gof.DestroyHandler) for feature in fgraph._features)
    demands = {} if guarded else _destroy_order(nodes)
    for node, before in orderings.items():
        demands[node] = [*demands.get(node, ()), *before]

    sizes = Sizes(fgraph, nodes, default_dim)
    rows = [sizes.bytes(root) for root in roots]
    kinds = [sizes.kind(root) if isinstance(root.type, tensor.TensorType) else str(root.type) for root in roots]
    guessed = [row[GUESS] for row in rows]
    workspaces = tuple(w for w in (workspace_of(node, compiled, scattered) for node in nodes) if w is not None)
    index = {node: t for t, node in enumerate(nodes)}
    taken = [workspace_row(sizes, w) for w in workspaces]
    beside = [(index[w.node], row[GUESS]) for w, row in zip(workspaces, taken)]

    def graph_by(aliases: Aliases) -> Graph:
        return graph_of(nodes, aliases, demands, guessed, kinds, is_kept, sizes.sources(), sizes.has_free).with_workspaces(beside)

    graph = graph_by(foreseen)
    careful = graph_by(cautious) if copying else graph
    doubtful = frozenset(
        b for b, (one, two) in enumerate(zip(graph.buffers, careful.buffers)) if (one.readers, one.pinned) != (two.readers, two.pinned)
    )
    in_c_order = steady([node for node in nodes if aliases_are_known(node.op)], compiled)
    return Reading(
        graph,
        tuple(nodes),
        roots,
        workspaces,
        names=(*map(tuple, cautious.names), *(() for _ in workspaces)),
        cautious=careful,
        doubtful=doubtful,
        loose=_loose(cautious, nodes, certain),
        untrusted=_untrusted(cautious, nodes),
        steady=frozenset(b for b, root in enumerate(roots) if root in in_c_order),
        certain=certain,
        scenarios=tuple(row for i, row in enumerate(zip(*rows, *taken)) if i != GUESS) if sizes.has_free else (),
    )


def workspace_row(sizes: Sizes, workspace: Workspace) -> Tuple[int, ...]:
    """Its bytes in every scenario."""
    shapes = [tuple(zip(*sizes.dims(v))) for v in workspace.asks]
    return tuple(workspace.bytes(in_scenario) for in_scenario in zip(*shapes))


def graph_of(
    nodes: Sequence[Any],
    aliases: Aliases,
    demands: Mapping[Any, Sequence[Any]],
    sizes: Sequence[int],
    kinds: Sequence[str],
    is_kept: Callable[[Any], bool],
    sizes_from: str,
    sizes_assumed: bool = False,
) -> Graph:
    """Tasks and buffers for these nodes. `demands`: node -> nodes that run before it beside those that it reads; `sizes` and `kinds`
    of each buffer; `is_kept`: does this variable stay to the end of the call?"""
    index = {node: t for t, node in enumerate(nodes)}
    readers: List[List[int]] = [[] for _ in aliases.roots]
    kept: Set[int] = set()
    tasks: List[Task] = []
    for t, node in enumerate(nodes):
        writes = aliases.written.get(node, [])
        reads = sorted(set(aliases.of(*node.inputs)) - set(writes))
        for b in reads:
            readers[b].append(t)
        kept.update(aliases.of(*filter(is_kept, node.outputs)))
        after = {index[p] for p in [*(v.owner for v in node.inputs), *demands.get(node, ())] if p in index} - {t}
        tasks.append(Task(tuple(reads), tuple(writes), tuple(sorted(after)), f"{t} {op_name(node.op)}"))
    buffers = [
        Buffer(sizes[b], kinds[b], index[root.owner], tuple(readers[b]), b in kept, label_of(index[root.owner], root))
        for b, root in enumerate(aliases.roots)
    ]
    return Graph(tuple(tasks), tuple(buffers), sizes_from, sizes_assumed)


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


def ends_for_certain(reading: Reading, b: int, lazy_in_order: bool) -> bool:
    """Do the op that makes this buffer and all that read it run in every call, in the planned order? `lazy_in_order`: do lazy ops keep to it?
    On the Stack VM they obey no links, and may run after the last reader of the plan."""
    buffer = reading.cautious.buffers[b]
    touching = (reading.nodes[t] for t in (buffer.producer, *buffer.readers) if t is not None)
    return all(node in reading.certain and (lazy_in_order or not is_lazy(node.op)) for node in touching)


# --- rules of aliases ------------------------------------------------------------------------------------------------


def likely_copying(nodes: Sequence[Any], scattered: AbstractSet[Any]) -> FrozenSet[Any]:
    """Nodes that are declared to make a view and will likely make a copy."""
    return frozenset(node for node in nodes if isinstance(node.op, MAY_COPY) and node.inputs[0] in scattered)


def _foreseen(copying: FrozenSet[Any]) -> Rule:
    def rule(result: Any) -> Tuple[Sequence[Any], bool]:
        if result.owner in copying and is_trusted(result.owner.op):
            return [], True
        return _as_trusted(result)

    return rule


def _cautious(copying: FrozenSet[Any]) -> Rule:
    def rule(result: Any) -> Tuple[Sequence[Any], bool]:
        sources, allocates = _as_trusted(result)
        return sources, allocates or result.owner in copying

    return rule


def _as_trusted(result: Any) -> Tuple[Sequence[Any], bool]:
    """A trusted op does what it declares; any other may allocate, and may hand out every array that it was given.

    An IfElse hands out a copy; where it is declared a view of its first branch, it hands out that branch itself, or a copy of the other.
    """
    op = result.owner.op
    if is_trusted(op):
        return as_declared(result)
    if type(op) is IfElse:
        return lies_in(result), True
    return [*lies_in(result), *result.owner.inputs], True


# --- order and ends --------------------------------------------------------------------------------------------------


def _destroy_order(nodes: Sequence[Any]) -> Dict[Any, List[Any]]:
    """A destroyer runs after all other readers of the array that it destroys and of its views.

    The destroy handler says the same; a FunctionGraph that lost its features, as Function.copy makes one, has none.
    """
    storage: Dict[Any, Any] = {}  # variable -> the variable that it is a view of; a result made in place counts as another
    for node in nodes:
        for result in node.outputs:
            source = next(iter(viewed(result)), None)
            storage[result] = result if source is None else storage.get(source, source)
    users: Dict[Any, List[Any]] = {}
    for node in nodes:
        for v in dict.fromkeys(node.inputs):
            users.setdefault(storage.get(v, v), []).append(node)
    demands: Dict[Any, List[Any]] = {}
    for node in nodes:
        for sources in declared(node.op, "destroy_map").values():
            for j in sources:
                victim = node.inputs[j]
                before = [user for user in users[storage.get(victim, victim)] if user is not node]
                demands.setdefault(node, []).extend(before)
    return demands


def _loose(aliases: Aliases, nodes: Sequence[Any], certain: FrozenSet[Any]) -> FrozenSet[int]:
    """Buffers whose end is not certain: an op touches them that is lazy, may not run, or is not trusted, or whose other values
    are of a type that shares memory in ways of its own."""
    lazily = [v for node in nodes if node not in certain or is_lazy(node.op) for v in (*node.inputs, *node.outputs)]
    return _untrusted(aliases, nodes) | frozenset(aliases.of(*lazily))


def _untrusted(aliases: Aliases, nodes: Sequence[Any]) -> FrozenSet[int]:
    loose: Set[int] = set()
    for node in nodes:
        variables = [*node.inputs, *node.outputs]
        if not aliases_are_known(node.op) or not all(is_dense(v.type) for v in variables):
            loose.update(aliases.of(*variables))
    loose.update(b for b, root in enumerate(aliases.roots) if not isinstance(root.type, tensor.TensorType))
    return frozenset(loose)


def is_kept(variable: Any) -> bool:
    """An output is kept for the caller. A result that nobody reads is kept by Theano: it clears a cell only after a reader."""
    return not variable.clients or any(client == "output" for client, _ in variable.clients)


def is_dense(kind: Any) -> bool:
    """Types whose values share memory with others only as view_map and destroy_map say."""
    return isinstance(kind, (tensor.TensorType, Scalar, NoneTypeT, SliceType))


def label_of(task: int, root: Any) -> str:
    return f"{task}.{root.owner.outputs.index(root)}" + (f" {root.name}" if root.name else "")


def bytes_of(variable: Any, shape_of: ShapeOf) -> int:
    if not isinstance(variable.type, tensor.TensorType):
        return 0
    size = int(np.dtype(variable.type.dtype).itemsize)
    for length in shape_of(variable):
        size *= max(length, 0)
    return size

"""FunctionGraph -> Program: what Theano would run, as values in memory and tasks with costs, some of which may run again.

    a = dot(x, w)        a                       a value with memory of its own
    b = a.T              (view_map)              a value that is a view of a
    c = tanh(b) in place (destroy_map)           a value that overwrites b
    d = a user's op (c)  d                       not trusted: its task runs once, and whoever reads d holds c as well

Beside `graph.py`, which folds all names of one buffer, this reading keeps every variable apart: which copy of it a task reads is what
recomputation decides. Tasks are numbered as the nodes are, so an order is an order of both.

What this reading does not know can only make a plan worse. A plan is carried out on the FunctionGraph, Theano's destroy handler
looks at the result, and it is read again by `graph.py` before it is kept (optimize/recompute.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import AbstractSet, Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Set, Tuple

import theano

from theano_memopt.hosts.theano.read.aliases import lies_in, viewed
from theano_memopt.hosts.theano.read.costs import seconds_of
from theano_memopt.hosts.theano.read.graph import ShapeOf, bytes_of, certain_nodes, is_dense, is_kept, label_of, likely_copying
from theano_memopt.hosts.theano.read.memory_layout import likely_scattered
from theano_memopt.hosts.theano.read.op_facts import aliases_are_known, declared, is_trusted, op_name, why_once
from theano_memopt.hosts.theano.read.workspaces import workspace_of
from theano_memopt.planner.program import CostedTask, Program, Value


@dataclass(frozen=True)
class ProgramReading:
    """A FunctionGraph as recomputation sees it, and the way back."""

    program: Program
    nodes: Tuple[Any, ...]
    """Task index -> node."""
    variables: Tuple[Any, ...]
    """Value index -> variable. The values beyond are workspaces."""
    why_once: Tuple[str, ...]
    """Task index -> why it may not run again; empty if it may."""

    @cached_property
    def number(self) -> Dict[Any, int]:
        """Variable -> value index."""
        return {v: i for i, v in enumerate(self.variables)}


def read_program(
    fgraph: Any,
    nodes: Sequence[Any],
    demands: Mapping[Any, Sequence[Any]],
    shape_of: ShapeOf,
    measured: Optional[Mapping[Any, float]] = None,
) -> ProgramReading:
    """`nodes` in an order that the host would run; `demands`: node -> nodes that features want to run before it, but for the destroy
    handler's, which follow from what is overwritten. `measured`: node -> seconds, where they are known."""
    index = {node: t for t, node in enumerate(nodes)}
    variables = list(dict.fromkeys(v for node in nodes for v in [*node.inputs, *node.outputs]))
    number = {v: i for i, v in enumerate(variables)}
    scattered = likely_scattered(nodes)
    memory = _Memory(nodes, scattered)
    reasons = _why_once(fgraph, nodes, demands)
    readers: List[List[int]] = [[] for _ in variables]
    tasks = []
    workspaces: List[Value] = []
    for t, node in enumerate(nodes):
        reads = sorted({number[held] for v in node.inputs for held in (v, *memory.held_with.get(v, ()))})
        for v in reads:
            readers[v].append(t)
        after = sorted({index[before] for before in demands.get(node, ()) if before in index} - {t})
        seconds = (measured or {}).get(node)
        if seconds is None:
            seconds = seconds_of(node, shape_of, all(v in memory.view_of for v in node.outputs))
        workspace = workspace_of(node, bool(theano.config.cxx), scattered)
        writes = [number[v] for v in node.outputs]
        if workspace is not None:
            writes.append(len(variables) + len(workspaces))
            workspaces.append(Value(workspace.bytes([shape_of(v) for v in workspace.asks]), t, label=f"workspace of {t} {op_name(node.op)}"))
        tasks.append(CostedTask(tuple(reads), tuple(writes), tuple(after), seconds, not reasons[t], f"{t} {op_name(node.op)}"))
    values = []
    for i, v in enumerate(variables):
        producer = index.get(v.owner)
        view, overwrites = memory.view_of.get(v), memory.overwrites.get(v)
        values.append(
            Value(
                bytes_of(v, shape_of),
                producer,
                tuple(readers[i]),
                producer is not None and is_kept(v) and memory.content(v) not in memory.destroyed,
                None if view is None else number[view],
                None if overwrites is None else number[overwrites],
                f"given {i}" if producer is None else label_of(producer, v),
            )
        )
    return ProgramReading(Program((*values, *workspaces), tuple(tasks)), tuple(nodes), tuple(variables), tuple(reasons))


class _Memory:
    """For every result, in whose memory it lies."""

    def __init__(self, nodes: Sequence[Any], scattered: AbstractSet[Any]) -> None:
        self.view_of: Dict[Any, Any] = {}
        self.overwrites: Dict[Any, Any] = {}
        self.held_with: Dict[Any, Tuple[Any, ...]] = {}
        """Variable -> others that must be there as long as it is read: its array may be one of theirs, handed out by an op that is not trusted, or
        by an IfElse."""
        self.destroyed: Set[Any] = set()
        """The contents that some node overwrites."""
        for node in filter(lambda node: is_trusted(node.op), nodes):
            for result in node.outputs:
                self._enter(result)
        for node in nodes:
            for sources in declared(node.op, "destroy_map").values():
                self.destroyed.update(self.content(node.inputs[j]) for j in sources)
        for node in likely_copying(nodes, scattered):
            # Where nobody overwrites anything of it, it is what it will likely be: a copy.
            if self.content(node.inputs[0]) not in self.destroyed:
                self.view_of.pop(node.outputs[0], None)
        for node in nodes:
            self._hold(node)

    def content(self, v: Any) -> Any:
        while v in self.view_of:
            v = self.view_of[v]
        return v

    def _enter(self, result: Any) -> None:
        node = result.owner
        destroyed = [node.inputs[j] for j in declared(node.op, "destroy_map").get(result.index, ())]
        if destroyed:
            self.overwrites[result] = destroyed[0]
        elif viewed(result):
            self.view_of[result] = viewed(result)[0]

    def _hold(self, node: Any) -> None:
        """As graph.py has it: an op that is not trusted may hand out every array that it was given, an IfElse the branch of which it is declared a
        view. What Theano lets others overwrite meanwhile is not held."""
        for result in node.outputs:
            through = lies_in(result) if aliases_are_known(node.op) else node.inputs
            held = [h for v in through for h in self.held_with.get(v, ())]
            if not is_trusted(node.op):
                held += [v for v in through if self.content(v) not in self.destroyed]
            if held:
                self.held_with[result] = tuple(dict.fromkeys(held))


def _why_once(fgraph: Any, nodes: Sequence[Any], demands: Mapping[Any, Sequence[Any]]) -> List[str]:
    certain = certain_nodes(fgraph, nodes, demands)
    untrusted: FrozenSet[Any] = frozenset(v.owner for node in nodes if not is_trusted(node.op) for v in node.inputs if v.owner)
    reasons = []
    for node in nodes:
        reason = why_once(node)
        if not reason and node not in certain:
            reason = "it runs only if a lazy op asks for it"
        if not reason and node in untrusted:
            reason = "an op that may keep its result reads it"
        if not reason and not all(is_dense(v.type) for v in [*node.inputs, *node.outputs]):
            reason = "it reads or makes something else than dense arrays"
        reasons.append(reason)
    return reasons

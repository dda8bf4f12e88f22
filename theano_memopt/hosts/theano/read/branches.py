"""The order in which the CVM runs a graph with lazy ops (IfElse), whichever branches are taken.

An IfElse asks for its condition, then for the inputs of one branch; what only a branch needs runs right then, depth first, and what
another op has asked for before does not run again. So the order depends on the values of the conditions:

    a   L = ifelse(c, f(a), g(h(a)))   M = ifelse(d, L, h(a))        steps    a   f if c   h, g if not c   L   h if not d   M
    c true, d false     a  f  L  h  M
    c false, d false    a  h  g  L  M

Words
    condition   the variable that an IfElse asks for first; its value is the same all through a call
    outcome     true or false for every condition of the graph
    given       the values of conditions without which a step does not come
    steps       one sequence, in which a node can come several times, under other conditions

Lemma. In a call, the CVM runs the nodes of those steps whose `given` agrees with the outcome, in the sequence of the steps, each
node at the first of its steps that agrees.
Proof: both are depth-first walks that ask in the same sequence: what other features demand, by number, then the inputs; an IfElse its
condition, then a branch. They differ in what they leave out. The CVM leaves out what has run. The steps leave out what has run in every
outcome that agrees with what is given there; what they name beyond that has run, and so has all that it asks for.

So, if no step of a buffer's producer or readers lies between the first and the last one of another buffer's, they never live at once:
in each call what touches the one comes before what touches the other. `unrolled` is the graph in which the planner sees lives as long as that.

A call with output_subset stops earlier, for the nodes that every call runs are linked in one chain (optimize/annotate.py), outputs among them,
and what only a branch needs runs between the same two of them.

Nothing rests on the proof alone: `check` runs the walk of the CVM in every outcome, of which there are no more than 2 ** CONDITIONS.
"""

from __future__ import annotations

import itertools
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from theano.ifelse import IfElse

from theano_memopt.hosts.theano.read.graph import Reading
from theano_memopt.hosts.theano.read.host_orders import cvm_order, needs_of
from theano_memopt.hosts.theano.read.op_facts import branch, is_lazy
from theano_memopt.planner.model import Buffer, Graph, Task

CONDITIONS = 4
"""With more of them nothing is claimed."""
STEPS, DEPTH = 4, 100
"""Times as many steps as nodes, and IfElse in branches of IfElse, with more of which nothing is claimed."""

Given = FrozenSet[Tuple[Any, bool]]


class Step(NamedTuple):
    node: Any
    given: Given


class NotKnown(Exception):
    """The order in which this graph runs is not known."""


def steps_of(nodes: Sequence[Any], outputs: Sequence[Any], demands: Mapping[Any, Sequence[Any]]) -> Optional[Tuple[Step, ...]]:
    """Steps of the CVM for `nodes` in an order that it is given, with all `demands`, ours included; None if they are not known."""
    lazy = [node for node in nodes if is_lazy(node.op)]
    conditions = list(dict.fromkeys(node.inputs[0] for node in lazy if node.inputs))
    if not lazy or len(conditions) > CONDITIONS or any(type(node.op) is not IfElse for node in lazy):
        return None
    try:
        walk = _Walk(nodes, demands)
        for output in outputs:
            if output.owner is not None:
                walk.ask(output.owner, frozenset())
        check(walk.steps, nodes, outputs, demands, conditions)
    except (NotKnown, RecursionError):
        return None
    return tuple(walk.steps)


def check(
    steps: Sequence[Step], nodes: Sequence[Any], outputs: Sequence[Any], demands: Mapping[Any, Sequence[Any]], conditions: Sequence[Any]
) -> None:
    """Raise NotKnown unless the CVM runs these steps in every outcome."""
    for values in itertools.product((True, False), repeat=len(conditions)):
        outcome = dict(zip(conditions, values))
        agreeing = dict.fromkeys(step.node for step in steps if step.given <= outcome.items())
        if list(agreeing) != cvm_order(nodes, outputs, demands, outcome):
            raise NotKnown("the CVM would run other steps")


def order_of(steps: Sequence[Step], reading: Reading) -> Tuple[int, ...]:
    """Every task once, at the first of its steps. A life in it is never longer than it is in the unrolled graph."""
    index = {node: t for t, node in enumerate(reading.nodes)}
    return tuple(index[node] for node in dict.fromkeys(step.node for step in steps))


def unrolled(cautious: Graph, reading: Reading, steps: Sequence[Step]) -> Graph:
    """The cautious graph, at any sizes, with one task for each step, in their sequence. A buffer is made at the first step that may make it."""
    index = {node: t for t, node in enumerate(reading.nodes)}
    buffers = cautious.buffers
    readers: List[List[int]] = [[] for _ in buffers]
    producers: Dict[int, int] = {}
    tasks = []
    for position, step in enumerate(steps):
        task = cautious.tasks[index[step.node]]
        made = [b for b in task.writes if b not in producers]
        again = [b for b in task.writes if b in producers and not buffers[b].is_workspace]
        producers.update((b, position) for b in made)
        reads = sorted({*task.reads, *again})
        for b in reads:
            readers[b].append(position)
        tasks.append(Task(tuple(reads), tuple(made), (position - 1,) if position else (), f"{position} {task.label}"))
    seen = [Buffer(b.size, b.kind, producers[i], tuple(readers[i]), b.pinned, b.label) for i, b in enumerate(buffers)]
    return Graph(tuple(tasks), tuple(seen), cautious.sizes_from, cautious.sizes_assumed)


class _Walk:
    def __init__(self, nodes: Sequence[Any], demands: Mapping[Any, Sequence[Any]]) -> None:
        self.steps: List[Step] = []
        self._needs = needs_of(nodes, demands)
        self._ran: Dict[Any, List[Given]] = {}
        """Node -> what has to be given for it to have run."""
        self._most = STEPS * len(nodes)
        self._depth = 0

    def ask(self, node: Any, given: Given) -> None:
        """The steps of all that the node asks for and that has not run for certain, and of the node itself."""
        if self._has_run(node, given):
            return
        stack = [(node, iter(self._needs[node]))]
        while stack:
            node, rest = stack[-1]
            missing = next((n for n in rest if not self._has_run(n, given)), None)
            if missing is not None:
                stack.append((missing, iter(self._needs[missing])))
                continue
            stack.pop()
            if is_lazy(node.op):
                self._ask_branches(node, given)
            self.steps.append(Step(node, given))
            if len(self.steps) > self._most:
                raise NotKnown("too many steps")
            self._note(node, given)

    def _ask_branches(self, node: Any, given: Given) -> None:
        """What is given may say already that one of them is not taken. Its steps come all the same, once: every node has one."""
        self._depth += 1
        if self._depth > DEPTH:
            raise NotKnown("too many choices within each other")
        for value in (True, False):
            for v in branch(node, value):
                if v.owner is not None:
                    self.ask(v.owner, given | {(node.inputs[0], value)})
        self._depth -= 1

    def _has_run(self, node: Any, given: Given) -> bool:
        """In every outcome that agrees with what is given. Where none agrees, it is enough that the node has a step."""
        ran = self._ran.get(node)
        return ran is not None and (any(needed <= given for needed in ran) or len({c for c, _ in given}) < len(given))

    def _note(self, node: Any, given: Given) -> None:
        """What has run for either value of a condition has run whatever its value."""
        self._ran.setdefault(node, []).append(given)
        for condition, value in given:
            rest = given - {(condition, value)}
            if self._has_run(node, rest | {(condition, not value)}) and not self._has_run(node, rest):
                self._note(node, rest)

"""Repeats in a FunctionGraph: put in as a plan says, checked, and taken out again.

    plan        relu, conv, pool, relu again, gradient of conv
    graph       x -> relu -> conv -> pool             x -> relu' -> gradient        relu' is a clone of relu

Words
    run      of a task: the node itself the first time, a clone of it each further time
    clone    a node with the same op; of each input it reads the run that the plan names
    mark     (task, number of the run), in the tag of each run of a task that runs again; tags go along with copies and pickles
    opened   a node that overwrites a parameter, and by the plan shall not: it overwrites a copy

Lemma. Let every node have the op that it had, or be a clone of one that had it, and read from each input some run of the variable
that it read before. Then along any order in which what is read comes first and is not overwritten before, by induction, each node
makes what it made before, and a clone makes what its original made: all their ops answer the same inputs with the same bits. The
first part is what `check_repeats` looks at; the second is what Theano's destroy handler holds in every order.

Nothing merges clones back: Theano merges equal nodes long before, and never after.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from theano import tensor

from theano_memopt.hosts.theano.read.op_facts import declared, why_once
from theano_memopt.hosts.theano.read.program import ProgramReading
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.recompute import Recomputed, check_recomputed

REASON = "mem_recompute"
GraphShape = Mapping[Any, Tuple[Any, Tuple[Any, ...]]]
"""Every node with its op and inputs."""
MARK, OPENED = "mem_reuse_run", "mem_reuse_opened"


@dataclass
class Rewritten:
    """What a plan makes of a graph; nothing is done yet."""

    inputs: Dict[Any, List[Any]] = field(default_factory=dict)
    """Node of the graph -> the inputs that it gets."""
    outputs: List[Any] = field(default_factory=list)
    clones: Dict[Any, Any] = field(default_factory=dict)
    """Clone -> its original."""
    copies: Dict[Any, Any] = field(default_factory=dict)
    """Copy of a parameter -> the parameter."""
    marks: Dict[Any, Tuple[int, int]] = field(default_factory=dict)

    def original(self, variable: Any) -> Any:
        """The variable of the graph as it was that this one is a run or a copy of."""
        if variable in self.copies:
            return self.copies[variable]
        if variable.owner in self.clones:
            return self.clones[variable.owner].outputs[variable.index]
        return variable


def rewritten(fgraph: Any, reading: ProgramReading, plan: Recomputed) -> Rewritten:
    """The clones and copies of a plan for this graph. Raises `Rejected` where the plan is not legal."""
    check_recomputed(plan)
    made = Rewritten()
    newest: Dict[Tuple[int, Optional[int]], Any] = {(i, None): v for i, v in enumerate(reading.variables)}
    needed = _needed(fgraph, reading, plan)
    repeated = {task for task, count in Counter(plan.sequence[run] for run in needed).items() if count > 1}
    runs: Counter[int] = Counter()
    last: Dict[Any, Any] = {}
    for run in needed:
        task = plan.sequence[run]
        node = reading.nodes[task]
        by = dict(plan.instances.sources[run])
        inputs = [newest[number, by[number]] for number in map(reading.number.__getitem__, node.inputs)]
        for j in _opened_inputs(node, reading, plan):
            inputs[j] = _copy_of(inputs[j], made)
        ran = node
        if runs[task]:
            ran = node.clone_with_new_inputs(inputs)
            made.clones[ran] = node
        else:
            made.inputs[node] = inputs
        if task in repeated:
            made.marks[ran] = (task, runs[task])
        runs[task] += 1
        for before, now in zip(node.outputs, ran.outputs):
            newest[reading.number[before], run] = last[before] = now
    made.outputs = [last.get(v, v) for v in fgraph.outputs]
    return made


def put_in(fgraph: Any, made: Rewritten) -> None:
    """Carry it out. The caller can take it back by the graph's own history, and `validate` is left to the caller."""
    read = {v for inputs in [*made.inputs.values(), *(clone.inputs for clone in made.clones), made.outputs] for v in inputs}
    for clone in made.clones:
        if read.isdisjoint(clone.outputs):
            raise Rejected("unread", f"nobody reads what {clone.op} makes again")
    for clone in made.clones:  # first all of these, so that no node is without readers meanwhile: Theano would throw it away
        fgraph.__import_r__(clone.outputs[0], REASON)
    for node, inputs in made.inputs.items():
        for i, (now, then) in enumerate(zip(list(node.inputs), inputs)):
            if now is not then:
                fgraph.change_input(node, i, then, reason=REASON)
    for i, (now, then) in enumerate(zip(list(fgraph.outputs), made.outputs)):
        if now is not then:
            fgraph.change_input("output", i, then, reason=REASON)
    for node, mark in made.marks.items():
        setattr(node.tag, MARK, mark)
    for copy in made.copies:
        setattr(copy.owner.tag, OPENED, True)


def put_back(fgraph: Any, before: GraphShape, outputs: Sequence[Any]) -> None:
    """Undo `put_in`, or a part of it: the nodes of `before`, and no others, with the inputs that they had. Nothing is validated.

    A node that is without readers meanwhile is thrown away by Theano, and comes back with the first of its readers, so it is gone over again.
    """
    changed = True
    while changed:
        changed = False
        wanted = [(node, i, v) for node, (_, inputs) in before.items() if node in fgraph.apply_nodes for i, v in enumerate(inputs)]
        wanted += [("output", i, v) for i, v in enumerate(outputs)]
        for node, i, then in wanted:
            now = fgraph.outputs[i] if node == "output" else node.inputs[i]
            if now is not then and (node == "output" or node in fgraph.apply_nodes):
                fgraph.change_input(node, i, then, reason=REASON)
                changed = True
    unmark(fgraph)
    if shape_of_graph(fgraph) != before or tuple(fgraph.outputs) != tuple(outputs):
        raise RuntimeError("a rewritten graph could not be put back")


def take_out(fgraph: Any) -> None:
    """Put the first run in the place of every other one. Nothing is validated."""
    for runs in runs_of(fgraph.toposort()).values():
        first, *further = [node for _, node in sorted(runs.items())]
        for node in further:
            fgraph.replace_all(list(zip(node.outputs, first.outputs)), reason=REASON)


def runs_of(nodes: Sequence[Any]) -> Dict[int, Dict[int, Any]]:
    """Of each task that ran again when this was planned its runs by number. Some may be gone, even the first one, where a copy of a
    function was made without updates."""
    found: Dict[int, Dict[int, Any]] = {}
    for node in nodes:
        mark = mark_of(node)
        if mark is not None:
            found.setdefault(mark[0], {})[mark[1]] = node
    return found


def mark_of(node: Any) -> Optional[Tuple[int, int]]:
    return getattr(node.tag, MARK, None)


def unmark(fgraph: Any) -> None:
    """Forget marks of an earlier plan: a user may compile again what was compiled before."""
    for node in fgraph.apply_nodes:
        for name in (MARK, OPENED):
            node.tag.__dict__.pop(name, None)


def carry_marks(node: Any, replacement: Any) -> None:
    """Another node takes the place of this one."""
    for name in (MARK, OPENED):
        if hasattr(node.tag, name):
            setattr(replacement.tag, name, getattr(node.tag, name))


def _needed(fgraph: Any, reading: ProgramReading, plan: Recomputed) -> List[int]:
    """The runs that somebody reads. A plan may run a view and then read a later run of it alone; Theano throws such a node away."""
    last = {task: run for run, task in enumerate(plan.sequence)}
    waiting = [last[reading.nodes.index(v.owner)] for v in fgraph.outputs if v.owner is not None]
    found: Set[int] = set()
    while waiting:
        run = waiting.pop()
        if run not in found:
            found.add(run)
            waiting.extend(source for _, source in plan.instances.sources[run] if source is not None)
    return sorted(found)


# --- what must hold afterwards ---------------------------------------------------------------------------------------


def shape_of_graph(fgraph: Any) -> Dict[Any, Tuple[Any, Tuple[Any, ...]]]:
    """Every node with its op and inputs, to compare with later."""
    return {node: (node.op, tuple(node.inputs)) for node in fgraph.apply_nodes}


def check_repeats(fgraph: Any, before: GraphShape, outputs: Tuple[Any, ...], made: Rewritten) -> None:
    """Is the graph the one from before, but for clones of nodes that may run again, and copies? Raises `Rejected`."""
    left_out = [node for node in before if node not in fgraph.apply_nodes]
    if left_out:
        raise Rejected("left-out", f"{left_out[0].op} does not run any more")
    for node in fgraph.apply_nodes:
        copied = made.copies.get(node.outputs[0])
        if copied is not None and node.op == tensor.tensor_copy and node.inputs == [copied]:
            continue
        original = made.clones.get(node, node)
        if original not in before:
            raise Rejected("added", f"{node.op} is no clone of what was there")
        op, inputs = before[original]
        if node.op != op:
            raise Rejected("another-op", f"{node.op} stands where {op} was")
        if len(inputs) != len(node.inputs) or any(made.original(v) is not was for v, was in zip(node.inputs, inputs)):
            raise Rejected("other-inputs", f"{node.op} reads something else than before")
        if node is not original and why_once(node):
            raise Rejected("not-again", f"{node.op} may not run again: {why_once(node)}")
    if any(made.original(v) is not was for v, was in zip(fgraph.outputs, outputs)):
        raise Rejected("other-outputs", "the function hands out something else than before")


# --- opening ---------------------------------------------------------------------------------------------------------


def _opened_inputs(node: Any, reading: ProgramReading, plan: Recomputed) -> List[int]:
    """Inputs that the node overwrites, and by the plan shall not."""
    found = []
    for output, sources in declared(node.op, "destroy_map").items():
        if reading.number[node.outputs[output]] in plan.opened:
            found.extend(sources)
    return found


def _copy_of(variable: Any, made: Rewritten) -> Any:
    """Laid out like the original, as Theano's elementwise ops do it, so that products see the same strides."""
    copied = tensor.tensor_copy(variable)
    copied.name = variable.name
    made.copies[copied] = variable
    return copied

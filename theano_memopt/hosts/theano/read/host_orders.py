"""The orders in which Theano's own machines would run a graph.

Words
    toposort    the order of `fgraph.toposort()`, which every machine but the CVM follows
    cvm         the order of the C virtual machine, which goes depth first from the outputs
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from theano_memopt.hosts.theano.read.op_facts import always_asked, branch, is_lazy
from theano_memopt.planner.model import Graph


def host_orders(graph: Graph, nodes: Sequence[Any], outputs: Sequence[Any], demands: Mapping[Any, Sequence[Any]]) -> Dict[str, Tuple[int, ...]]:
    """Each of these orders as tasks of `graph`, which was read from `nodes`."""
    index = {node: t for t, node in enumerate(nodes)}
    toposort, cvm = graph.natural_order, tuple(index[node] for node in cvm_order(nodes, outputs, demands))
    # Where features contradict each other the CVM itself would run an order that one of them forbids; it is no candidate.
    return {"toposort": toposort, "cvm": cvm if graph.is_legal(cvm) else toposort}


def demands_of(fgraph: Any, but: type) -> Dict[Any, List[Any]]:
    """What the features of a graph want to run before what; those of type `but` are not asked."""
    found: Dict[Any, List[Any]] = {}
    for feature in fgraph._features:
        if hasattr(feature, "orderings") and not isinstance(feature, but):
            for node, before in feature.orderings(fgraph).items():
                found.setdefault(node, []).extend(before)
    return found


def cvm_order(
    nodes: Sequence[Any], outputs: Sequence[Any], demands: Mapping[Any, Sequence[Any]], outcome: Optional[Mapping[Any, bool]] = None
) -> List[Any]:
    """The order in which `lazy_rec_eval` of lazylinker_c.c runs `nodes`.

    It evaluates for each output, depth first, what a node needs and then the node. `outcome` says of each condition of a lazy op whether it
    holds; without it, every input is asked for.
    """
    needs = needs_of(nodes, demands)
    if outcome is None:
        needs = {node: [*asked, *_owners(node.inputs)] for node, asked in needs.items()}
    else:
        taken = {node: _owners(branch(node, outcome[node.inputs[0]])) for node in nodes if is_lazy(node.op)}
        needs = {node: [*asked, *taken.get(node, ())] for node, asked in needs.items()}
    done, order = set(), []
    for output in outputs:
        stack = [(output.owner, iter(needs[output.owner]))] if output.owner and output.owner not in done else []
        while stack:
            node, rest = stack[-1]
            missing = next((n for n in rest if n not in done), None)
            if missing is not None:
                stack.append((missing, iter(needs[missing])))
                continue
            stack.pop()
            if node not in done:
                done.add(node)
                order.append(node)
    return order


def needs_of(nodes: Sequence[Any], demands: Mapping[Any, Sequence[Any]]) -> Dict[Any, List[Any]]:
    """The nodes that the CVM asks for before each node, in this sequence: what the features demand, by the number of its results; then
    what computes the inputs that the node always asks for. It numbers the variables along `nodes`."""
    number: Dict[Any, int] = {}
    for node in nodes:
        for v in [*node.inputs, *node.outputs]:
            number.setdefault(v, len(number))
    needs: Dict[Any, List[Any]] = {}
    for node in nodes:
        prior = sorted((number[v], before) for before in dict.fromkeys(demands.get(node, ())) for v in before.outputs)
        needs[node] = [before for _, before in prior] + _owners(always_asked(node))
    return needs


def _owners(variables: Sequence[Any]) -> List[Any]:
    return [v.owner for v in variables if v.owner is not None]

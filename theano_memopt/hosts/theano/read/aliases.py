"""The one walk of aliases: which variables lie in the memory of which others.

    a = dot(x, w)        allocates           buffer 0
    b = a.T              view_map            lies in buffer 0
    c = tanh(b)          destroy_map         lies in buffer 0
    d = c.sum()          allocates           buffer 1

Words
    lies in    a result lies in an input if its op declares it a view of that input, or made in place of it
    root       the variable whose node allocates a buffer; every other variable in the buffer is one of its names
    rule       says of each result in which inputs it lies, and whether its node may allocate a buffer for it; readers of
               the same nodes may ask with different rules (as foreseen, with every view taken at its word, without in-place)

Lemma. Along any order in which a node comes after those that it reads, one pass finds for every variable all buffers in
which it may lie: those of the inputs in which it lies, and the one that its own node allocates.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence, Set, Tuple

from theano_memopt.hosts.theano.read.op_facts import declared

Rule = Callable[[Any], Tuple[Sequence[Any], bool]]
"""Result -> (inputs in whose memory it may lie, does its node allocate a buffer for it?)"""


class Aliases:
    """For every variable that `nodes` compute, the buffers in which it may lie."""

    def __init__(self, nodes: Sequence[Any], rule: Rule) -> None:
        self.roots: List[Any] = []
        """Buffer -> the variable whose node allocates it."""
        self.names: List[List[Any]] = []
        """Buffer -> every variable that may lie in it."""
        self.buffers: Dict[Any, Tuple[int, ...]] = {}
        """Variable -> buffers. What the nodes do not compute is not in it."""
        self.written: Dict[Any, List[int]] = {}
        """Node -> the buffers that it allocates."""
        for node in nodes:
            for result in node.outputs:
                self._enter(result, *rule(result))

    def of(self, *variables: Any) -> List[int]:
        """The buffers in which any of these variables may lie."""
        return list(dict.fromkeys(b for v in variables for b in self.buffers.get(v, ())))

    def _enter(self, result: Any, sources: Sequence[Any], allocates: bool) -> None:
        inside = self.of(*sources)
        if allocates:
            self.written.setdefault(result.owner, []).append(len(self.roots))
            inside.append(len(self.roots))
            self.roots.append(result)
            self.names.append([])
        self.buffers[result] = tuple(inside)
        for b in inside:
            self.names[b].append(result)


def as_declared(result: Any) -> Tuple[Sequence[Any], bool]:
    """The rule that believes `view_map` and `destroy_map`."""
    sources = lies_in(result)
    return sources, not sources


def without_in_place(result: Any) -> Tuple[Sequence[Any], bool]:
    """The rule for a graph in which nothing were made in place."""
    sources = viewed(result)
    return sources, not sources


def lies_in(result: Any) -> List[Any]:
    """The inputs in whose memory a result lies, as far as declared: what it overwrites before what it is a view of."""
    return [*_declared_sources(result, "destroy_map"), *viewed(result)]


def viewed(result: Any) -> List[Any]:
    """The inputs that a result is declared to be a view of."""
    return _declared_sources(result, "view_map")


def _declared_sources(result: Any, name: str) -> List[Any]:
    node = result.owner
    return [] if node is None else [node.inputs[j] for j in declared(node.op, name).get(result.index, ())]


def with_sources(variables: Sequence[Any]) -> Set[Any]:
    """These variables, and all in whose memory one of them lies, as far as declared."""
    return _closure(variables, lies_in)


def with_names(variable: Any) -> Set[Any]:
    """This variable, and all that lie in its memory, as far as declared."""
    return _closure([variable], lambda v: [result for node, _ in v.clients if node != "output" for result in node.outputs if v in lies_in(result)])


def _closure(variables: Sequence[Any], more: Callable[[Any], Sequence[Any]]) -> Set[Any]:
    found: Set[Any] = set()
    waiting = list(variables)
    while waiting:
        v = waiting.pop()
        if v not in found:
            found.add(v)
            waiting.extend(more(v))
    return found

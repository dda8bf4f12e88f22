"""With gc, what only a branch that is not taken would still read is let go when the choice was made.

The CVM empties a cell when all that read it have run. What reads it in a branch that is not taken never runs, and so it stays to the end of
the call, in Theano itself: `a` here, if c is true.

    a   f(a) if c   g(a) if not c   L = ifelse(c, f(a), g(a))   ...   ...
    +----------------------------------------------------------------->      the cell of a, without the pass
    +------------------------------->                                       with it: L lets it go

Why it is sound. The steps (read/branches.py) hold all nodes that a call may run, in the sequence in which it runs them. When an IfElse has run
that comes after every step that makes or reads a variable, nothing asks for that variable any more, whichever branches were taken. It may be
the last reader itself, if it comes at one step only.

An IfElse is always called through Python, so to look after it costs next to nothing.
"""

from __future__ import annotations

import functools
from typing import Any, Dict, List, Sequence

from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.read.op_facts import is_lazy
from theano_memopt.hosts.theano.run.machines import Cell, empty
from theano_memopt.hosts.theano.run.thunks import followed


def letting_go(annotation: Annotation, nodes: Sequence[Any], thunks: Sequence[Any], storage_map: Any) -> Sequence[Any]:
    """The thunks of a CVM with gc for the nodes in the order of this annotation, those of IfElse followed by what they let go."""
    let_go = let_go_after(annotation)
    if not any(let_go.values()):
        return thunks
    cells: Dict[Any, List[Cell]] = {node: [storage_map[v] for v in variables] for node, variables in let_go.items() if variables}
    return [followed(thunk, functools.partial(empty, cells[node])) if node in cells else thunk for node, thunk in zip(nodes, thunks)]


def let_go_after(annotation: Annotation) -> Dict[Any, List[Any]]:
    """Lazy op -> the variables that nothing asks for when it has run, and that the CVM may have kept."""
    steps, certain = annotation.steps or (), annotation.reading.certain
    first: Dict[Any, int] = {}
    last: Dict[Any, int] = {}
    for position, step in enumerate(steps):
        first.setdefault(step.node, position)
        last[step.node] = position
    choices = [node for node in first if is_lazy(node.op)]
    found: Dict[Any, List[Any]] = {node: [] for node in choices}
    for node in annotation.nodes if choices else ():
        for v in node.outputs:
            readers = [reader for reader, _ in v.clients]
            if "output" in readers or all(reader in certain for reader in readers):
                continue
            end = max(last[n] for n in (node, *readers))
            for choice in choices:
                if first[choice] >= end:
                    found[choice].append(v)
                    if choice in certain:
                        break
    return found

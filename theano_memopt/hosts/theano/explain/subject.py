"""One compiled function with its plan: what it takes, and the sizes at which it is looked at.

    function  ->  Subject  --arguments-->  Sized: its graph, with the bytes and shapes that these give

Words
    argument    an array, or the shape of one as a tuple, for each input that the caller gives; or no argument at all, for the
                sizes of the last call, and before the first one for those with which the function was compiled
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from theano import tensor
from theano.gof import Constant
from theano.scan_module.scan_op import Scan

from theano_memopt.hosts.theano.explain.repeats import Once, named
from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.feature import MemReuse, feature_of, others_demands
from theano_memopt.hosts.theano.optimize.making import copied_untold
from theano_memopt.hosts.theano.optimize.optimizer import planned_by, why_without_the_pass
from theano_memopt.hosts.theano.read.assumed_sizes import GUESS, Sizes, _known
from theano_memopt.hosts.theano.read.graph import Reading
from theano_memopt.hosts.theano.read.host_orders import host_orders
from theano_memopt.hosts.theano.read.op_facts import describe, kind_of
from theano_memopt.hosts.theano.read.scan_shapes import inner_shapes
from theano_memopt.hosts.theano.read.source_lines import short
from theano_memopt.planner.model import Graph
from theano_memopt.planner.plan import Plan
from theano_memopt.report.model import Need

Given = Dict[Any, Tuple[Tuple[Optional[int], ...], Any]]
"""Input variable -> its shape, and its value if that is a single whole number."""


@dataclass(frozen=True)
class Sized:
    """A graph at certain sizes."""

    graph: Graph
    cautious: Graph
    shapes: Tuple[str, ...]
    """For each buffer."""
    given: Tuple[Need, ...]
    """What is there before a call."""
    lengths: Sizes
    arguments: bool
    """Are they the sizes of a call, not those at compile time?"""
    inputs: Tuple[Tuple[str, str], ...]
    """What the caller gives: the name of each, and its shape in words."""
    sizes_of: str
    """Whose shapes these are."""


class BadUse(ValueError):
    """What was given cannot be explained; the message is one line."""


class NoPlan(BadUse):
    """There is no plan to explain, and `reason` says why. It is the same for all functions of which the same is true."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}".replace("\n", " "))
        self.reason = reason


def compiled(function: Any) -> Any:
    """The function itself, or the one inside a Scan (its op or node)."""
    op = getattr(function, "op", function)
    found = op.fn if isinstance(op, Scan) else function
    if not hasattr(getattr(found, "maker", None), "fgraph"):
        raise BadUse(f"only a function that Theano compiled can be explained, not {kind_of(function)}")
    return found


class Subject:
    """One compiled function with its plan."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.fgraph = function.maker.fgraph
        self.linker = function.maker.linker
        self.name = name_of(function)
        feature = feature_of(self.fgraph)
        if feature is None:
            raise NoPlan(self.name, why_without_the_pass(function))
        annotation = feature.annotation(self.fgraph)
        if annotation is None:
            why = feature.aside
            said = "nothing is planned for it" if why is None else why.reason + (f" ({why.detail})" if why.detail else "")
            raise NoPlan(self.name, f"the pass left it as it was: {said}")
        self.feature: MemReuse = feature
        self.annotation: Annotation = annotation
        self.reading: Reading = annotation.reading
        self.ahead = False
        """Is it a copy that shows what the first call will decide?"""

    @property
    def gc(self) -> bool:
        """Is allow_gc in force?"""
        return bool(getattr(self.linker, "allow_gc", True))

    def decided(self, arguments: Sequence[Any]) -> Subject:
        """As a first call with these arguments would make it. The function is left as it was."""
        if self.feature.waits is None or not arguments:
            return self
        subject = Subject(copied_untold(self.function))
        subject.function.fn.settle(subject.sizes(subject.match(arguments)).shape_of, told=False)
        found = Subject(subject.function)
        found.ahead = True
        return found

    def inside(self, node: Any, sized: Sized) -> Tuple[Subject, Sized]:
        """A Scan's inner function, at the shapes that come from outside; where these are not known, at those assumed at compile time."""
        subject = Subject(compiled(node.op))
        try:
            return subject, subject.sized(inner_shapes(node, sized.lengths.shape_of))
        except BadUse:
            return subject, subject.sized(())

    def sized(self, arguments: Sequence[Any]) -> Sized:
        """The graph at the sizes of these arguments; without any, at those of the last call, and before the first one as it was planned."""
        given = self.match(arguments) if arguments else self.last_call()
        sizes = self.sizes(given)
        shapes = (*(_shape_at(sizes, root) for root in self.reading.roots), *("" for _ in self.reading.workspaces))
        inputs = tuple(self._inputs_at(sizes, given))
        if not given:
            sizes_of = "assumed" if sizes.has_free else "known while compiling"
            return Sized(self.reading.graph, self.reading.cautious, shapes, self.given(sizes), sizes, False, inputs, sizes_of)
        rows = self.reading.sizes_at(sizes.shape_of)
        source = sizes.sources() if arguments else "the last call"
        # Of the last call only that is known on which any size rests.
        asked = (*self.reading.roots, *(v for workspace in self.reading.workspaces for v in workspace.asks))
        free = sizes.has_free if arguments else any(len(set(sizes.bytes(v))) > 1 for v in asked)
        graph, cautious = (g.resized(rows, source, free) for g in (self.reading.graph, self.reading.cautious))
        whose = ("given" if arguments else "the last call") + (", other lengths assumed" if free else "")
        return Sized(graph, cautious, shapes, self.given(sizes), sizes, True, inputs, whose)

    def last_call(self) -> Given:
        """Of each input on which the sizes rest, its shape, and its value if that is one, in the last call of a machine that follows them."""
        asked = getattr(self.function.fn, "last_sources", None)
        return {} if asked is None else asked()

    def sizes(self, given: Given) -> Sizes:
        kept = [(v.tag, dict(v.tag.__dict__)) for v in given]
        try:
            for variable, (shape, value) in given.items():
                variable.tag.mem_reuse_given = shape
                if value is not None:
                    variable.tag.test_value = value
            sizes = Sizes(self.fgraph, self.reading.nodes, self.feature.settings.default_dim)
            _refuse_contradictions(sizes, given)
            asked = [v for workspace in self.reading.workspaces for v in workspace.asks]
            asked += [v for node in self.reading.nodes if isinstance(node.op, Scan) for v in node.inputs]
            for variable in (*self.reading.roots, *self.fgraph.inputs, *asked):  # what is given must be in place while rows are computed
                sizes.bytes(variable)
            return sizes
        finally:
            for tag, attributes in kept:
                tag.__dict__.clear()
                tag.__dict__.update(attributes)

    def _inputs_at(self, sizes: Sizes, given: Given) -> Iterator[Tuple[str, str]]:
        """All where no sizes were given, else those that were."""
        for name, variable in self.inputs():
            if given and variable not in given:
                continue
            if isinstance(variable.type, tensor.TensorType) and variable.type.ndim:
                yield name, "x".join(map(str, sizes.shape_of(variable)))
            elif given.get(variable, ((), None))[1] is not None:
                yield name, f"= {given[variable][1]}"

    def given(self, sizes: Sizes) -> Tuple[Need, ...]:
        """What is there before a call: it belongs to the caller, and to the function's shared variables."""
        containers = list(zip(self.fgraph.inputs, self.function.input_storage))
        shared = [_bytes_of(c.storage[0]) for _, c in containers if c.implicit]
        inputs = [sizes.bytes(v)[GUESS] for v, c in containers if not c.implicit]
        constants = {v: _bytes_of(v.data) for node in self.reading.nodes for v in node.inputs if isinstance(v, Constant)}
        return (
            Need("parameters and other shared variables", sum(shared), len(shared)),
            Need("inputs", sum(inputs), len(inputs)),
            Need("constants", sum(constants.values()), len(constants)),
        )

    def by_position(self, arguments: Sequence[Any], named: Mapping[str, Any]) -> Tuple[Any, ...]:
        """Arguments as a call takes them: some by position, the others by the names of the inputs."""
        names = [name for name, _ in self.inputs()]
        found = list(arguments)
        for name in names[len(found) :]:
            if name not in named:
                break
            found.append(named[name])
        left = [name for name in named if name not in names[len(arguments) : len(found)]]
        if left:
            why = "given twice" if left[0] in names[: len(arguments)] else "no input" if left[0] not in names else "given without those before it"
            raise BadUse(f"{self.name}: {left[0]} is {why}; the inputs are {', '.join(names)}")
        return tuple(found)

    def match(self, arguments: Sequence[Any]) -> Given:
        """Input variable -> (shape, value of a single whole number), or `BadUse`."""
        slots = self.inputs()
        required = sum(1 for c in self.function.input_storage if not c.implicit and c.required)
        if not required <= len(arguments) <= len(slots):
            wanted = f"{len(slots)}" if required == len(slots) else f"{required} to {len(slots)}"
            names = ", ".join(name for name, _ in slots)
            took = f"{wanted} argument{'' if wanted == '1' else 's'}" + (f" ({names})" if names else "")
            raise BadUse(f"{self.name} takes {took}; {len(arguments)} {'was' if len(arguments) == 1 else 'were'} given")
        return {v: _shape_of(v, name, argument) for (name, v), argument in zip(slots, arguments)}

    def inputs(self) -> List[Tuple[str, Any]]:
        """What the caller gives: the name of each, and its variable."""
        named = [getattr(entry, "name", None) for entry in self.function.maker.inputs]
        slots = zip(named, self.fgraph.inputs, self.function.input_storage)
        return [(name or v.name or f"input {i + 1}", v) for i, (name, v, c) in enumerate(slots) if not c.implicit]

    @cached_property
    def once(self) -> Optional[Once]:
        """The function with nothing run twice; None if no goal was set that could make results run again."""
        return None if self.feature.outcome is None else Once(self.fgraph, self.feature)

    def host_orders(self) -> Tuple[Tuple[str, Tuple[int, ...]], ...]:
        """The one that this function would run comes first."""
        return named(host_orders(self.reading.graph, self.reading.nodes, self.fgraph.outputs, others_demands(self.fgraph)), self.feature.runs)

    def order_at(self, graph: Graph) -> Tuple[int, ...]:
        """What runs at these sizes."""
        asked = getattr(self.function.fn, "order_at", None)
        found: Optional[Tuple[int, ...]] = None if asked is None else asked([buffer.size for buffer in graph.buffers])
        return self.annotation.schedule.order if found is None else found

    @cached_property
    def _last_plan(self) -> Optional[Plan]:
        """A search for the least peak goes into it, so it is asked for once."""
        return planned_by(self.function.fn)

    def machine_plan(self, graph: Graph) -> Optional[Plan]:
        """What the machine planned last, if that was at these sizes."""
        plan = self._last_plan
        return plan if plan is not None and [b.size for b in plan.graph.buffers] == [b.size for b in graph.buffers] else None


def name_of(function: Any) -> str:
    """Theano names a function after the whole path of the line that compiled it, if the user does not name it."""
    name = str(getattr(function, "name", None) or "function")
    return short(name) if os.path.isabs(name) else name


def _bytes_of(value: Any) -> int:
    """Of an array, or of the three that a sparse one is made of."""
    parts = [value] if isinstance(value, np.ndarray) else [getattr(value, name, None) for name in ("data", "indices", "indptr")]
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


def _shape_at(sizes: Sizes, root: Any) -> str:
    if not isinstance(root.type, tensor.TensorType):
        return str(root.type)
    return f"{root.type.dtype} " + ("x".join(str(row[GUESS]) for row in sizes.dims(root)) or "scalar")


def _shape_of(variable: Any, where: str, argument: Any) -> Tuple[Tuple[Optional[int], ...], Any]:
    if not isinstance(variable.type, tensor.TensorType):
        return (), None  # no dense array: it counts nothing
    if isinstance(argument, tuple):
        shape = argument
        if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 0 for n in shape):
            raise BadUse(f"{where}: a shape is a tuple of whole numbers, 0 or more, not {argument!r}")
    else:
        shape = np.shape(argument)
    if len(shape) != variable.type.ndim:
        raise BadUse(f"{where}: has {variable.type.ndim} dimensions, {shape} has {len(shape)}")
    for axis, (length, flat) in enumerate(zip(shape, variable.type.broadcastable)):
        if flat and length != 1:
            raise BadUse(f"{where}: dimension {axis} is always 1 long, {shape} says {length}")
    whole = not isinstance(argument, tuple) and not shape and np.asarray(argument).dtype.kind in "iub"
    return tuple(int(n) for n in shape), np.asarray(argument) if whole else None


def _refuse_contradictions(sizes: Sizes, given: Mapping[Any, Any]) -> None:
    """Dimensions that an op makes equal must be given equal."""
    leaves = sizes._leaves
    for root in list(leaves.inside):
        found = [(leaf, known[1]) for leaf in leaves.members(root) for known in [_known(leaf)] if known is not None and known[0] <= 2]
        mine = [(leaf, length) for leaf, length in found if leaf[0] in given]
        for (variable, axis), length in mine:
            for (other, other_axis), other_length in found:
                if length != other_length:
                    raise BadUse(
                        f"the shapes do not fit: dimension {axis} of {describe(variable)} is {length}, "
                        f"and dimension {other_axis} of {describe(other)}, which must be equal, is {other_length}"
                    )

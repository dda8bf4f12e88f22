"""`mem_reuse.verify`: catches, while a function runs, a plan that corrupts. Slow, and holds a copy of everything.

    before a task   each variable that it reads must be, bit for bit, what it was when it was computed
    after a task    its results are copied; tenants of shared cells that die here are poisoned in place
    after the call  each output must be, bit for bit, what the same function gives without the pass

Poison makes a wrong end of life visible even where the next tenant would happen to write the same numbers. The error
names the variable that was overwritten and the one that was written there.
"""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np
from theano import gof
from theano.compile.function_module import infer_reuse_pattern

from theano_memopt.hosts.theano.optimize.feature import feature_of
from theano_memopt.hosts.theano.optimize.repeats import take_out
from theano_memopt.hosts.theano.read.graph import ends_for_certain
from theano_memopt.hosts.theano.read.op_facts import describe
from theano_memopt.hosts.theano.run.stand_in import Veil
from theano_memopt.planner.liveness import lives


class Corrupted(RuntimeError):
    """A variable changed while it was alive, or an output differs from the one without the pass."""


class Watch:
    """What is known of the values of one function during a call."""

    def __init__(self, binding: Any, storage_map: Any) -> None:
        self.storage_map = storage_map
        self.values: Dict[Any, np.ndarray] = {}
        self.touched: List[Tuple[int, int, Any]] = []
        """(from address, to address, variable), the latest last."""
        self.dying: Dict[Any, List[Any]] = {}
        self.views: Set[Any] = set()
        """Results that turned out to be views in this call: what they lie in dies when it dies, and not with them."""
        self.reading = binding.annotation.reading
        self.tenants = set(binding.cells) | set(binding.lying)
        self.lazy_in_order = binding.follows_steps
        self.follow(binding.annotation.schedule.order)

    def follow(self, order: Sequence[int]) -> None:
        """Where the tenants die when tasks run in this order; those that a task may read that does not run in every call are not poisoned."""
        self.dying.clear()
        spans = lives(self.reading.cautious, order)
        for b, root in enumerate(self.reading.roots):
            if root in self.tenants and ends_for_certain(self.reading, b, self.lazy_in_order):
                self.dying.setdefault(self.reading.nodes[order[spans[b][1] - 1]], []).append(root)

    def start(self) -> None:
        self.values.clear()
        self.touched.clear()
        self.views.clear()

    def around(self, node: Any, thunk: Any) -> Any:
        """Check and poison around what computes."""
        if not thunk.lazy:
            self.before(node)
        asked_for = thunk()
        if not asked_for:
            self.after(node)
        return asked_for

    def before(self, node: Any) -> None:
        for v in node.inputs:
            value = self.storage_map[v][0]
            if value is None and v in self.values:
                raise Corrupted(f"mem_reuse.verify: {describe(v)} was cleared with {describe(self._cellmate(v))} before {node.op} read it")
            if isinstance(v, gof.Constant) or not isinstance(value, np.ndarray):
                continue
            if v not in self.values:
                self.values[v] = value.copy()  # an input, at its first use
            elif not _same(self.values[v], value):
                raise Corrupted(f"mem_reuse.verify: {describe(v)} was overwritten by {describe(self._culprit(v, value))} before {node.op} read it")

    def after(self, node: Any) -> None:
        if not getattr(node.op, "destroy_map", None):
            for v in node.inputs:  # a result that was laid over an input that dies here
                if v in self.values and not _same(self.values[v], self.storage_map[v][0]):
                    raise Corrupted(f"mem_reuse.verify: {describe(v)} was overwritten by {describe(node.outputs[0])} before {node.op} was done")
        for positions in (getattr(node.op, "destroy_map", None) or {}).values():
            for j in positions:
                self.values.pop(node.inputs[j], None)
        for v in node.outputs:
            value = self.storage_map[v][0]
            if isinstance(value, np.ndarray):
                self.values[v] = value.copy()
                self.touched.append((*_range(value), v))
                arrays = (self.storage_map[i][0] for i in node.inputs)
                if any(isinstance(array, np.ndarray) and np.may_share_memory(array, value) for array in arrays):
                    self.views.add(v)
        for root in self.dying.get(node, ()):
            value = self.storage_map[root][0]
            if isinstance(value, np.ndarray) and value.flags.writeable and root not in self.views:
                _poison(value)
                self.touched.append((*_range(value), root))

    def _cellmate(self, victim: Any) -> Optional[Any]:
        """The latest other tenant of the same cell."""
        cell = self.storage_map[victim]
        return next((v for _, _, v in reversed(self.touched) if v is not victim and self.storage_map[v] is cell), None)

    def _culprit(self, victim: Any, value: np.ndarray) -> Optional[Any]:
        low, high = _range(value)
        for begin, end, v in reversed(self.touched):
            if v is not victim and begin < high and low < end:
                return v
        return None


class VerifiedVM(Veil):
    """It runs beside a machine without the pass, and compares."""

    def __init__(self, vm: Any, watch: Watch, linker: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        super().__init__(vm)
        self.__dict__.update(_watch=watch, _inputs=inputs, _outputs=outputs, _fgraph=linker.fgraph)
        self.__dict__["_twin"] = _without_the_pass(linker)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run, twin_inputs, twin_outputs = self._twin
        for container, twin in zip(self._inputs, twin_inputs):
            twin.storage[0] = copied(container.storage[0])
        error = None
        try:
            run()
        except Exception as trouble:  # the function itself may be one that raises; then both do
            error = trouble
        self._watch.start()
        result = self._vm(*args, **kwargs)
        if error is not None:
            raise Corrupted(f"mem_reuse.verify: without the pass the function raises {error!r}, with it it does not")
        values = result if result is not None else [container.storage[0] for container in self._outputs]
        wanted = kwargs.get("output_subset")
        for i, (variable, value, twin) in enumerate(zip(self._fgraph.outputs, values, twin_outputs)):
            if wanted is not None and i not in wanted:
                continue
            if not _same(value, twin.storage[0]):
                raise Corrupted(f"mem_reuse.verify: output {i}, {describe(variable)}, differs from the one without the pass")
        return result


def copied(value: Any) -> Any:
    """Laid out in memory as the original is, gaps and all: the last bit of a result can hang on it."""
    if not isinstance(value, np.ndarray) or value.dtype.hasobject or not value.size:
        return copy.deepcopy(value)
    low, high = _range(value)
    made = np.ndarray(value.shape, value.dtype, np.empty(high - low, np.uint8), value.__array_interface__["data"][0] - low, value.strides)
    made[...] = value
    return made


def _without_the_pass(linker: Any) -> Any:
    """The same function over a clone of the graph that has nothing of ours, and in which nothing runs twice."""
    fgraph = linker.fgraph
    clone, _ = fgraph.clone_get_equiv(check_integrity=False, attach_feature=False)
    feature = feature_of(fgraph)
    if feature is not None and feature.outcome is not None:
        take_out(clone)
    if any(isinstance(feature, gof.DestroyHandler) for feature in fgraph._features):
        clone.attach_feature(gof.DestroyHandler())
    plain = type(linker)(allow_gc=linker.allow_gc, use_cloop=linker.use_cloop, lazy=linker.lazy, c_thunks=linker.c_thunks)
    handed_out = [clone.outputs[i] for i, v in enumerate(fgraph.outputs) if v in linker.no_recycling]
    accepted = plain.accept(clone, no_recycling=infer_reuse_pattern(clone, handed_out))
    return accepted.make_all(input_storage=[[None] for _ in clone.inputs])[:3]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, np.random.RandomState):
        return str(one.get_state()) == str(other.get_state())
    if hasattr(one, "tocsr"):
        return type(one) is type(other) and one.shape == other.shape and (one != other).nnz == 0
    return type(one) is type(other)


def _range(value: np.ndarray) -> Tuple[int, int]:
    return np.byte_bounds(value)


def _poison(value: np.ndarray) -> None:
    kind = value.dtype.kind
    if kind in "fc":
        value.fill(np.nan)
    elif kind in "iu":
        value.fill(np.iinfo(value.dtype).max)
    elif kind == "b":
        np.logical_not(value, out=value)

"""Everything in one block: the same results, in the memory of the planned peak, whatever happens between the calls."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import subprocess
import sys
import threading
import tracemalloc
from typing import Any, Callable, List, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from hypothesis import given
from hypothesis import strategies as st
from parameterized import parameterized
from theano import gof
from theano.compile.debugmode import DebugMode
from theano.compile.mode import Mode
from theano.ifelse import ifelse
from theano.scan_module.scan_op import Scan
from theano.tensor.signal.pool import pool_2d
from theano.tensor.subtensor import IncSubtensor

import theano_memopt
import theano_memopt_ops
from tests.marks import nightly_if
from tests.theano import both
from tests.theano.both import LARGE, LINKERS, models, same, with_pass, without_pass
from theano_memopt.demo import models as demo_models
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.optimize import preallocated
from theano_memopt.hosts.theano.run import machines as orders
from theano_memopt.hosts.theano.run import worthwhile
from theano_memopt.hosts.theano.run.arena import block as memory
from theano_memopt.hosts.theano.run.arena import call, fitting, variables
from theano_memopt.hosts.theano.run.verify import Corrupted
from theano_memopt.options import PackOptions
from theano_memopt.planner.arena import Arena, Packing, check_packing, pack
from theano_memopt.planner.load import greatest_load
from theano_memopt.planner.plan import check_plan
from theano_memopt.planner.slots import Slots, StorageRejected

SMALL = 8
CALLS = 6
"""Recorded, tried, and then the plain ones."""
X = "float32"


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Whatever floatX is: the functions here take float32."""
    return both.floats(*shape, seed=seed).astype(X)


def with_arena(linker: str = "cvm_nogc", **settings: Any) -> Any:
    return with_pass(linker, storage="arena", **settings)


def machine(function: Any) -> call.ArenaVM:
    found = function.fn
    return found._vm if "_vm" in getattr(found, "__dict__", {}) else found


def lies_in_the_block(function: Any) -> List[Any]:
    """Variables whose cells hold a part of the block."""
    vm = machine(function)
    return [v for v, cell in vm.storage_map.items() if isinstance(cell[0], np.ndarray) and vm.block is not None and vm.block.has(cell[0].ctypes.data)]


def chain(x: Any, depth: int = 4) -> Any:
    """Wide intermediates that cannot be fused or done in place."""
    for _ in range(depth):
        x = tt.tanh(tt.dot(x, x.T)) if x.ndim == 2 else x
    return x


def pair(build: Callable[[], Tuple[List[Any], Any, dict]], linker: str, **settings: Any) -> Tuple[Any, Any]:
    made = []
    for mode in (with_arena(linker, **settings), without_pass(linker)):
        inputs, outputs, keywords = build()
        made.append(theano.function(inputs, outputs, mode=mode, **keywords))
    return made[0], made[1]


def square(linker: str = "cvm_nogc", **settings: Any) -> Tuple[Any, Any]:
    def build() -> Any:
        x = tt.fmatrix("x")
        return [x], [chain(x).sum(dtype=X), chain(x, 2)], {}

    return pair(build, linker, **settings)


def agree(ours: Any, stock: Any, *calls: Tuple[Any, ...]) -> None:
    """Equal bits, call by call; what the caller got is compared only after all calls."""
    kept, wanted = [], []
    for arguments in calls:
        kept.append(ours(*arguments))
        wanted.append(copy.deepcopy(stock(*arguments)))
    for a, b in zip(kept, wanted):
        same(a if isinstance(a, list) else [a], b if isinstance(b, list) else [b])


def _trained(name: str, mode: Any) -> Tuple[Any, List[Any]]:
    model = demo_models.build(name, SMALL)
    function = model.compile(mode)
    kept = [function(*model.batch) for _ in range(CALLS)]
    return function, kept + model.state()


# --- real training steps -----------------------------------------------------------------------------------------------


OFTEN = [(name, linker) for name in demo_models.MODELS for linker in LINKERS if (linker == "cvm_nogc" and name not in LARGE) or name == "mlp"]
RARELY = [(name, linker) for name in demo_models.MODELS for linker in LINKERS if (name, linker) not in OFTEN]


@functools.lru_cache(maxsize=None)
def _stock(name: str) -> List[Any]:
    """What Theano gives, whatever its linker."""
    return _trained(name, without_pass("cvm"))[1]


def _holds(name: str, linker: str, **settings: Any) -> None:
    ours, kept = _trained(name, with_arena(linker, **settings))
    same(kept, _stock(name))
    assert machine(ours).fitting.buffers
    check_plan(theano_memopt.plan_of(ours))


@pytest.mark.parametrize(("name", "linker"), OFTEN)
def test_same_bits(name: str, linker: str) -> None:
    _holds(name, linker)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "linker"), RARELY)
def test_same_bits_on_the_rest(name: str, linker: str) -> None:
    _holds(name, linker)


@pytest.mark.parametrize(
    ("name", "linker"),
    [
        nightly_if((name, linker) not in (("logreg", "cvm_nogc"), ("lenet", "cvm")), name, linker)
        for name in ("logreg", "mlp_adam", "lenet", "scan_rnn")
        for linker in ("cvm", "cvm_nogc")
    ],
)
def test_nothing_is_overwritten_while_alive(name: str, linker: str) -> None:
    _holds(name, linker, verify=True)


PRODUCTS = ("mlp_adam", "lenet")
"""Models of small C code that have most kinds of product that a BLAS has a say in; the others are for `make bench`, with SciPy's."""
OTHERS = [name for name in demo_models.MODELS if name not in PRODUCTS]


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.blas) for name in PRODUCTS), *models(*OTHERS)])
def test_the_block_is_the_planned_peak_and_all_that_is_held(name: str) -> None:
    model = demo_models.build(name, SMALL)
    ours = model.compile(with_arena())
    for _ in range(CALLS):
        ours(*model.batch)
    plan = theano_memopt.plan_of(ours)
    assert plan.storage.height == plan.storage.floor
    assert plan.reserved_bytes <= plan.schedule.peak + memory.ALIGNMENT * len(plan.may_share)
    assert probe.held_by_call(ours, *model.batch).reserved <= 1.05 * plan.schedule.peak + 1024
    assert not machine(ours).planner.variables.allocates_itself


@pytest.mark.parametrize("name", models("lenet", "lstm", "attention"))
def test_ops_that_are_not_brought_to_write_there_cost_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the one above: without the rewrite these are noticed and left out."""
    monkeypatch.setattr("theano_memopt.hosts.theano.optimize.optimizer.use_preallocated", lambda fgraph: 0)
    ours, kept = _trained(name, with_arena())
    assert machine(ours).planner.variables.allocates_itself
    assert not machine(ours).planner.variables.allocates_itself & set(machine(ours).fitting.buffers)
    same(kept, _trained(name, without_pass("cvm_nogc"))[1])


@pytest.mark.quick
@pytest.mark.blas
def test_reuse_is_real() -> None:
    """Variables overlap in the block: together they are larger than it."""
    ours, _ = _trained("mlp_adam", with_arena())
    vm = machine(ours)
    assert vm.fitting.unshared > 2 * vm.fitting.height
    assert len(lies_in_the_block(ours)) >= len(vm.fitting.buffers)


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.quick
def test_auto_is_the_arena_without_gc_and_cells_with_it(linker: str) -> None:
    model = demo_models.build("lenet", SMALL)
    function = model.compile(theano_memopt.mode(Mode(linker, "fast_run")))
    for _ in range(3):
        function(*model.batch)
    brought = any(isinstance(node.op, theano_memopt_ops._RightComparison) for node in function.maker.fgraph.apply_nodes)
    if linker.endswith("nogc"):
        assert brought and machine(function).fitting.buffers and isinstance(theano_memopt.plan_of(function).storage, Arena)
    else:
        assert not brought and not isinstance(function.fn, call.ArenaVM) and isinstance(theano_memopt.plan_of(function).storage, Slots)


@pytest.mark.nightly
def test_debug_mode_agrees_with_the_ops_that_write_where_they_are_told() -> None:
    """Against preallocated results of every kind: other strides, wrong sizes, the one before."""
    x, y = tt.ftensor3("x"), tt.fmatrix("y")
    zeros = tt.zeros_like(y)
    h = (tt.tanh(x).dimshuffle(1, 0, 2)).reshape((x.shape[1], x.shape[0] * x.shape[2]))
    outputs = [tt.dot(h, h.T), tt.inc_subtensor(zeros[:2], y[:2]) + tt.inc_subtensor(zeros[1:], y[1:]), tt.set_subtensor(y[:, 1], 0) * y, y]
    image = tt.ftensor4("image")
    with theano.configparser.change_flags(**{"DebugMode.check_preallocated_output": "initial:previous:ALL", "mem_reuse.storage": "arena"}):
        f = theano.function([x, y], outputs, mode=DebugMode(optimizer="fast_run"))
        f(floats(3, 4, 5), floats(4, 4))
        pooled = [pool_2d(tt.tanh(image), (2, 2), ignore_border=True, mode=mode) for mode in ("max", "average_inc_pad")]
        outputs = [tt.grad((p**2).sum(dtype=X), image) for p in pooled]
        # Pool's own Python code does not run with these NumPys.
        f = theano.function([image], outputs, mode=DebugMode(optimizer="fast_run", check_py_code=False))
        f(floats(3, 2, 6, 6))
    assert any(isinstance(node.op, theano_memopt_ops._RightComparison) for node in f.maker.fgraph.apply_nodes)


# --- shapes that change --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
@pytest.mark.parametrize("calls", [89, pytest.param(1000, marks=pytest.mark.nightly)])
def test_growing_call_by_call(linker: str, calls: int) -> None:
    ours, stock = square(linker)
    agree(ours, stock, *[(floats(n, 3, seed=n),) for n in range(1, calls + 1)])
    assert len(machine(ours).fittings) <= call.FITTINGS_AT_MOST


@pytest.mark.blas
class TestShapes:
    @parameterized.expand([(linker,) for linker in LINKERS])
    @pytest.mark.quick
    def test_alternating(self, linker: str) -> None:
        ours, stock = square(linker)
        agree(ours, stock, *[(floats(n, 5, seed=i),) for i, n in enumerate([9, 9, 9, 4, 9, 4, 9, 4, 9, 4, 4, 4, 9])])
        assert len(machine(ours).fittings) == 2

    def test_a_block_that_has_become_much_too_large_is_made_smaller(self) -> None:
        ours, stock = square()
        agree(ours, stock, *[(floats(64, 5),)] * 4)
        large = machine(ours).lender.block.height
        agree(ours, stock, *[(floats(6, 5),)] * (memory.SPARE + 4))
        assert machine(ours).lender.block.height < large / 4

    @pytest.mark.quick
    def test_empty_and_single(self) -> None:
        def build() -> Any:
            x = tt.fmatrix("x")
            wide = tt.exp(x).dimshuffle(0, "x", 1) * x.dimshuffle("x", 0, 1)
            return [x], [(wide.sum(axis=2, dtype=X) ** 2).sum(axis=0, dtype=X), wide.sum(dtype=X)], {}

        ours, stock = pair(build, "cvm_nogc")
        agree(ours, stock, *[(floats(*shape),) for shape in [(3, 2), (3, 2), (0, 2), (3, 0), (0, 0), (1, 1), (3, 2), (1, 1), (3, 2)]])
        assert machine(ours).fitting.buffers

    def test_shapes_of_shared_variables(self) -> None:
        w = theano.shared(floats(5, 5), name="w")
        stock_w = theano.shared(floats(5, 5), name="w")
        x = tt.fmatrix("x")
        made = [theano.function([x], chain(tt.dot(x, s)).sum(dtype=X), mode=m) for s, m in ((w, with_arena()), (stock_w, without_pass("cvm_nogc")))]
        for width in (5, 5, 5, 7, 5, 3, 3):
            for s in (w, stock_w):
                s.set_value(floats(5, width, seed=width))
            agree(*made, (floats(4, 5),))

    def test_a_shared_variable_that_grows_with_every_call(self) -> None:
        def build(mode: Any) -> Tuple[Any, Any]:
            s = theano.shared(floats(2, 3), name="s")
            return theano.function([], chain(s).sum(dtype=X), updates=[(s, tt.concatenate([s, s[:1] * 2]))], mode=mode), s

        (ours, mine), (stock, theirs) = build(with_arena()), build(without_pass("cvm_nogc"))
        for _ in range(12):
            same([ours(), mine.get_value()], [stock(), theirs.get_value()])
        assert machine(ours).fitting.buffers

    def test_lengths_that_are_numbers(self) -> None:
        def build() -> Any:
            n, x = tt.iscalar("n"), tt.fmatrix("x")
            wide = tt.alloc(x.sum(dtype=X), n, n + 1) + 1
            return [n, x], chain(wide).sum(dtype=X), {}

        ours, stock = pair(build, "cvm_nogc")
        agree(ours, stock, *[(n, floats(2, 2)) for n in (3, 3, 3, 8, 3, 5, 5, 5, 5)])
        assert machine(ours).fitting.buffers

    def test_shapes_that_depend_on_data_stay_outside(self) -> None:
        def build() -> Any:
            x = tt.fvector("x")
            some = x[(x > 0).nonzero()]
            return [x], tt.outer(some, tt.exp(some)).sum(axis=0, dtype=X) + chain(tt.outer(x, x)).sum(dtype=X), {}

        ours, stock = pair(build, "cvm_nogc")
        agree(ours, stock, *[(floats(20, seed=i),) for i in range(8)])
        vm = machine(ours)
        known = {vm.planner.reading.roots.index(v) for v in vm.planner.shapes.known}
        assert vm.fitting.buffers and set(vm.fitting.buffers) <= known and set(vm.planner.variables.candidates) - known

    def test_inputs_in_another_memory_order(self) -> None:
        ours, stock = square()
        x = floats(6, 4)
        agree(ours, stock, *[(v,) for v in (x, x, np.asfortranarray(x), x, floats(12, 8)[::2, ::2], x)])

    def test_a_formula_that_is_wrong_costs_memory_only(self, monkeypatch: Any = None) -> None:
        ours, stock = square()
        x = floats(6, 4)
        agree(ours, stock, (x,), (x,), (x,))
        vm = machine(ours)
        right = vm.planner.shapes.shapes
        vm.planner.shapes.shapes = lambda *s: tuple(tuple(d + 1 for d in shape) for shape in right(*s))
        agree(ours, stock, *[(floats(7, 4),)] * 5)


@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12), st.integers(1, 6), st.integers(1, 400)), min_size=1, max_size=12),
)
def test_stretched_offsets_are_sound(seed: int, rows: List[Tuple[int, int, int, int]]) -> None:
    spans = [(born, born + length) for _, born, length, _ in rows]
    old, new = ([memory.aligned(s * 64) for s, *_ in rows], [memory.aligned(s * 7) for *_, s in rows])
    packed = pack(Packing(old, spans, memory.ALIGNMENT), PackOptions(effort=0))
    floor = greatest_load(new, spans)
    moved = fitting.stretched(packed.offsets, old, new, floor)
    check_packing(new, spans, moved, memory.ALIGNMENT)
    if old == new:
        assert moved.offsets == packed.offsets


# --- what the caller can hold --------------------------------------------------------------------------------------------


class TestCallers:
    @parameterized.expand([(linker,) for linker in LINKERS])
    def test_outputs_never_lie_there(self, linker: str) -> None:
        """An output that is a view of an intermediate, one that is an intermediate, and one that is an input."""

        def build() -> Any:
            x = tt.fmatrix("x")
            h = chain(x, 2)
            return [x], [h.T, h, tt.dot(h, x)[::2], x, chain(h, 2).sum(dtype=X), h.reshape((-1,))], {}

        ours, stock = pair(build, linker)
        agree(ours, stock, *[(floats(5, 4, seed=i),) for i in range(CALLS)])
        outputs = set(ours.maker.fgraph.outputs)
        assert not any(v in outputs for v in lies_in_the_block(ours))

    @pytest.mark.quick
    def test_borrow_and_mutable(self) -> None:
        def build() -> Any:
            x = tt.fmatrix("x")
            return [theano.In(x, mutable=True, borrow=True)], [theano.Out(chain(x, 2), borrow=True), theano.Out((chain(x) * 2), borrow=False)], {}

        ours, stock = pair(build, "cvm_nogc")
        for i in range(CALLS):
            same(ours(floats(5, 4, seed=i)), stock(floats(5, 4, seed=i)))

    @parameterized.expand([(linker,) for linker in LINKERS])
    @pytest.mark.quick
    def test_updates(self, linker: str) -> None:
        def build(mode: Any) -> Tuple[Any, Any]:
            s = theano.shared(floats(4, 4), name="s")
            x = tt.fmatrix("x")
            return theano.function([x], chain(tt.dot(x, s)).sum(dtype=X), updates=[(s, tt.tanh(tt.dot(s, s.T)))], mode=mode), s

        (ours, mine), (stock, theirs) = build(with_arena(linker)), build(without_pass(linker))
        values = []
        for i in range(CALLS):
            same([ours(floats(3, 4, seed=i))], [stock(floats(3, 4, seed=i))])
            values.append((mine.get_value(borrow=True), mine.get_value()))
        same([mine.get_value()], [theirs.get_value()])
        for now, then in values:
            same([now], [then])

    @parameterized.expand([(linker,) for linker in LINKERS])
    def test_output_subset(self, linker: str) -> None:
        ours, stock = square(linker)
        for subset in ([0], None, [1], None, [1], [0, 1], None, [0]):
            if subset is not None and not linker.startswith("c"):
                continue  # Theano's loops cannot do it
            same(ours(floats(5, 4), output_subset=subset), stock(floats(5, 4), output_subset=subset))

    def test_an_op_that_hands_out_what_it_was_given(self) -> None:
        """Undeclared aliasing, by an op that passes for one of Theano's: noticed, and what the caller holds is safe.

        (Without gc it is not, in Theano itself.)
        """

        class Liar(gof.Op):
            def make_node(self, x: Any) -> Any:
                return gof.Apply(self, [x], [x.type()])

            def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
                outputs[0][0] = inputs[0]

            def infer_shape(self, node: Any, shapes: Any) -> Any:
                return shapes

        Liar.__module__ = "theano.tensor.basic"

        def build() -> Any:
            x = tt.fmatrix("x")
            return [x], [Liar()(chain(x, 2)), chain(x).sum(dtype=X)], {}

        ours, stock = pair(build, "cvm")
        agree(ours, stock, *[(floats(5, 4, seed=i),) for i in range(CALLS)])
        assert machine(ours).planner.variables.undeclared_alias


# --- what may happen between calls ----------------------------------------------------------------------------------------


@pytest.mark.blas
class TestLife:
    @parameterized.expand([("cvm",), ("vm",)])
    @pytest.mark.quick
    def test_with_gc_nothing_stays(self, linker: str) -> None:
        ours, _ = square(linker)
        for _ in range(CALLS):
            ours(floats(6, 4))
            vm = machine(ours)
            assert vm.lender.block is None and vm.block is None and not vm._filling
            assert [
                v for v, cell in vm.storage_map.items() if v.owner is not None and cell[0] is not None and v not in ours.maker.fgraph.outputs
            ] == []
        assert vm.fitting.buffers

    @parameterized.expand([("cvm_nogc",), ("vm_nogc",)])
    @pytest.mark.quick
    def test_without_gc_the_block_stays_until_free(self, linker: str) -> None:
        ours, stock = square(linker)
        for _ in range(CALLS):
            ours(floats(6, 4))
        block = machine(ours).lender.block
        ours(floats(6, 4))
        assert machine(ours).lender.block is block
        ours.free()
        assert machine(ours).lender.block is None and lies_in_the_block(ours) == []
        agree(ours, stock, *[(floats(6, 4),)] * 3)
        assert machine(ours).lender.block is not None

    @parameterized.expand([(linker, when) for linker in LINKERS for when in range(4)])
    @pytest.mark.quick
    def test_an_exception_in_the_middle(self, linker: str, when: int) -> None:
        """`when` ordinary calls, then one that fails in the middle, then ordinary ones."""

        def build() -> Any:
            x, y = tt.fmatrix("x"), tt.fmatrix("y")
            h = chain(x, 2)
            return [x, y], [chain(tt.dot(h, y)).sum(dtype=X), h.sum(dtype=X)], {}

        ours, stock = pair(build, linker)
        good = (floats(4, 4), floats(4, 4, seed=1))
        agree(ours, stock, *[good] * when)
        for function in (ours, stock):
            with pytest.raises(ValueError):
                function(floats(4, 4), floats(5, 4))
        agree(ours, stock, *[good] * CALLS)
        assert machine(ours).fitting.buffers

    def test_the_failing_node_is_named(self) -> None:
        ours, stock = square()
        x, y = tt.fmatrix("x"), tt.fmatrix("y")
        for mode in (with_arena(), with_arena("cvm")):
            f = theano.function([x, y], chain(tt.dot(chain(x, 2), y)).sum(dtype=X), mode=mode)
            for _ in range(4):
                f(floats(4, 4), floats(4, 4))
            with pytest.raises(ValueError, match="Apply node that caused the error"):
                f(floats(4, 4), floats(5, 4))

    @parameterized.expand([(share,) for share in (False, True)])
    def test_copies_have_cells_of_their_own(self, share: bool) -> None:
        ours, stock = square()
        agree(ours, stock, *[(floats(6, 4),)] * 4)
        twin = ours.copy(share_memory=share)
        for i in range(CALLS):
            agree(ours, stock, (floats(6, 4, seed=i),))
            agree(twin, stock, (floats(5, 4, seed=i),))
        assert machine(twin).lender is machine(ours).lender and machine(twin).fitting.buffers
        mine = {id(cell) for v, cell in machine(ours).storage_map.items() if v.owner is not None}
        assert not mine & {id(cell) for v, cell in machine(twin).storage_map.items() if v.owner is not None}

    def test_pickles_carry_no_block(self) -> None:
        ours, stock = square()
        before = len(pickle.dumps(ours, protocol=-1))
        agree(ours, stock, *[(floats(200, 40),)] * 4)
        data = pickle.dumps(ours, protocol=-1)
        assert len(data) < before + 10_000 < machine(ours).lender.block.height
        loaded = pickle.loads(data)
        assert machine(loaded).block is None
        agree(loaded, stock, *[(floats(6, 4, seed=i),) for i in range(CALLS)])
        agree(copy.deepcopy(ours), stock, *[(floats(6, 4, seed=i),) for i in range(CALLS)])

    def test_two_threads(self) -> None:
        """Copies in two threads; and one function in two threads waits for itself."""
        ours, stock = square()
        wanted = copy.deepcopy(stock(floats(40, 4)))
        functions = [ours, ours.copy()]
        wrong: List[Any] = []

        def work(function: Any) -> None:
            for _ in range(60):
                if not probe.same_bits(function(floats(40, 4)), wanted):
                    wrong.append(function)

        threads = [threading.Thread(target=work, args=(f,)) for f in functions]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert wrong == []

    def test_a_recursive_call(self) -> None:
        """An op that calls the function that it is in: the inner call has memory of its own."""
        made: List[Any] = []
        seen: List[Any] = []

        class Again(gof.Op):
            def make_node(self, x: Any) -> Any:
                return gof.Apply(self, [x], [x.type()])

            def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
                value = inputs[0].copy()
                if len(seen) % 2 == 0:
                    seen.append(None)
                    vm = machine(made[0])
                    block = vm.lender.block
                    vm()
                    assert vm.lender.block is block
                    seen.append(made[0].fn.storage_map)
                outputs[0][0] = value

            def infer_shape(self, node: Any, shapes: Any) -> Any:
                return shapes

        x = tt.fmatrix("x")
        h = chain(x, 2)
        f = theano.function([x], [chain(Again()(h)).sum(dtype=X), chain(h, 2)], mode=with_arena("vm_nogc"))
        made.append(f)
        g = theano.function([x], [chain(h).sum(dtype=X), chain(h, 2)], mode=without_pass("vm_nogc"))
        for i in range(CALLS):
            same(f(floats(5, 4, seed=i)), g(floats(5, 4, seed=i)))
        assert len(seen) == 2 * CALLS

    def test_scan_has_its_own(self) -> None:
        ours, _ = _trained("scan_rnn", with_arena())
        inner = [node.op.fn for node in ours.maker.fgraph.apply_nodes if hasattr(node.op, "fn")]
        assert inner and all(machine(f).lender is not machine(ours).lender for f in inner if isinstance(f.fn, call.ArenaVM))

    @parameterized.expand([(linker,) for linker in ("cvm", "cvm_nogc", "vm", "vm_nogc")])
    def test_lazy(self, linker: str) -> None:
        def build() -> Any:
            c, x = tt.iscalar("c"), tt.fmatrix("x")
            h = chain(x, 2)
            return [c, x], ifelse(c, chain(h, 2).sum(dtype=X), chain(tt.exp(h), 3).sum(dtype=X)) + chain(h).sum(dtype=X), {}

        ours, stock = pair(build, linker)
        agree(ours, stock, *[(i % 2, floats(5, 4, seed=i)) for i in range(10)])
        assert machine(ours).fitting.buffers

    def test_profile(self) -> None:
        def build() -> Any:
            x = tt.fmatrix("x")
            return [x], chain(x).sum(dtype=X), {"profile": True}

        with theano.configparser.change_flags(profile=False):
            ours, stock = pair(build, "cvm_nogc")
            agree(ours, stock, *[(floats(5, 4),)] * 4)
        assert ours.profile.fct_callcount == 4


class TestSharedArena:
    @pytest.mark.quick
    def test_one_block_for_two(self) -> None:
        with theano_memopt.shared_arena() as lender:
            one, stock = square()
            two, _ = square()
        apart, _ = square()
        for i in range(CALLS):
            agree(one, stock, (floats(9, 4, seed=i),))
            agree(two, stock, (floats(5, 4, seed=i),))
            agree(apart, stock, (floats(5, 4, seed=i),))
        assert machine(one).lender is machine(two).lender is lender is not machine(apart).lender
        assert lender.block.height == machine(one).fitting.height
        one.free()
        assert lender.block is None
        agree(two, stock, *[(floats(5, 4),)] * 2)

    def test_a_larger_need_replaces_the_block_for_all(self) -> None:
        with theano_memopt.shared_arena() as lender:
            one, stock = square()
            two, _ = square()
        agree(one, stock, *[(floats(5, 4),)] * 4)
        old = lender.block.room
        agree(two, stock, *[(floats(15, 4),)] * 4)
        assert not [v for v, cell in one.fn.storage_map.items() if isinstance(cell[0], np.ndarray) and np.shares_memory(cell[0], old)]
        agree(one, stock, *[(floats(5, 4),)] * 2)

    def test_who_comes_while_it_is_lent_out_allocates(self) -> None:
        with theano_memopt.shared_arena() as lender:
            one, stock = square()
            two, _ = square()
        for f in (one, two):
            agree(f, stock, *[(floats(5, 4),)] * 4)
        before = bytes(lender.block.room)
        lender.taken[memory.USER] = machine(one)
        agree(two, stock, *[(floats(5, 4, seed=i),) for i in range(4)])
        lender.taken.clear()
        assert bytes(lender.block.room) == before
        agree(two, stock, (floats(5, 4),))

    def test_scan_inside_does_not_take_it(self) -> None:
        with theano_memopt.shared_arena() as lender:
            ours, kept = _trained("scan_rnn", with_arena())
        same(kept, _trained("scan_rnn", without_pass("cvm_nogc"))[1])
        assert machine(ours).lender is lender


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.blas
def test_blocks_and_buffers_beyond_what_numpy_can_describe(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "FIELDS", 64)
    ours, stock = square(linker)
    agree(ours, stock, *[(floats(5, 4),)] * CALLS, (floats(7, 6),), (floats(5, 4),))
    assert not machine(ours).aside and (lies_in_the_block(ours) or not linker.endswith("nogc"))


def test_a_buffer_of_two_gibibytes_can_be_placed() -> None:
    block = memory.Block(2**31 + 64)  # nobody touches it, so it takes no memory
    placed = block.place(memory.whole(np.dtype(X), (2**15, 2**14)), 64)
    assert placed.shape == (2**15, 2**14) and placed.ctypes.data == block.address + 64
    with pytest.raises(ValueError, match="C int"):  # the control: NumPy itself has no dtype of it
        np.dtype((np.dtype(X), (2**15, 2**14)))


@pytest.mark.blas
def test_no_room_for_the_block_costs_that_call_alone_its_arena(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ours, stock = square()
    agree(ours, stock, *[(floats(5, 4),)] * CALLS)

    def full(height: int) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(memory, "Block", full)
        agree(ours, stock, (floats(50, 40),), (floats(60, 50),))
        assert not lies_in_the_block(ours)
    agree(ours, stock, (floats(5, 4),), (floats(50, 40),))
    assert lies_in_the_block(ours) and not machine(ours).aside and not caplog.records


def test_ops_that_cannot_be_brought_are_left_and_the_graph_with_them(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def build() -> Any:
        x = tt.fmatrix("x")
        h = pool_2d(chain(x).dimshuffle("x", "x", 0, 1), (2, 2), ignore_border=True)
        return [x], pool_2d(tt.tanh(h), (2, 2), ignore_border=True).sum(dtype=X), {}

    replacement, seen = preallocated._replacement, []

    def fails_at_the_second(*arguments: Any) -> Any:
        found = replacement(*arguments)
        seen.extend([] if found is None else [found])
        if len(seen) > 1:
            raise TypeError("no replacement")
        return found

    monkeypatch.setattr(preallocated, "_replacement", fails_at_the_second)
    ours, stock = pair(build, "cvm_nogc")
    assert len(seen) > 1 and "could not be replaced" in caplog.text
    agree(ours, stock, *[(floats(8, 8),)] * CALLS)
    assert lies_in_the_block(ours)


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.blas
def test_a_length_that_cannot_be_computed_costs_that_call_alone_its_arena(linker: str, caplog: pytest.LogCaptureFixture) -> None:
    def build() -> Any:
        x, y = tt.fmatrix("x"), tt.fvector("y")
        part = tt.exp(chain(x)[: x.shape[0] % y.shape[0] + 1])
        return [x, y], [part.sum(dtype=X), tt.nnet.sigmoid(part).sum(dtype=X)], {}

    ours, stock = pair(build, linker)
    for y in (3, 3, 3, 0, 3):
        arguments = (floats(5, 5), floats(y))
        if y:
            agree(ours, stock, arguments)
            continue
        for function in (ours, stock):
            with pytest.raises(ZeroDivisionError, match="modulo by zero"):
                function(*arguments)
        assert not lies_in_the_block(ours)
    assert lies_in_the_block(ours) or not linker.endswith("nogc")  # with gc the cells are empty between two calls
    assert not machine(ours).aside and not caplog.records


# --- plans that are wrong --------------------------------------------------------------------------------------------------


def _all_at_the_bottom(problem: Any, *rest: Any, **keywords: Any) -> Arena:
    return Arena((0,) * len(problem.sizes), max(problem.sizes, default=0), 0)


@pytest.mark.quick
def test_an_overlapping_plan_is_rejected_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "pack", _all_at_the_bottom)
    ours, stock = square()
    with theano.configparser.change_flags(on_opt_error="ignore"):
        agree(ours, stock, *[(floats(5, 4),)] * 4)
    assert "could not be planned" in machine(ours).aside
    ours, _ = square()
    with theano.configparser.change_flags(on_opt_error="raise"):
        ours(floats(5, 4))
        with pytest.raises(StorageRejected, match="overlap"):
            ours(floats(5, 4))


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.quick
@pytest.mark.blas
def test_an_overlapping_plan_that_nobody_checks_is_caught_by_verify(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "pack", _all_at_the_bottom)
    monkeypatch.setattr(fitting, "check_packing", lambda *rest: None)
    ours, _ = square(linker, verify=True)
    ours(floats(5, 4))  # recorded: Theano's own memory
    with pytest.raises(Corrupted, match="was overwritten by"):
        for _ in range(3):
            ours(floats(5, 4))


@pytest.mark.blas
def test_lives_that_end_too_early_are_caught_by_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "lives", lambda graph, order: tuple((t, t + 1) for t in (order.index(b.producer) for b in graph.buffers)))
    ours, _ = square(verify=True)
    ours(floats(5, 4))
    with pytest.raises(Corrupted):
        for _ in range(3):
            ours(floats(5, 4))


# --- ops brought to write where they are told --------------------------------------------------------------------------------


class TestTold:
    @parameterized.expand([(mode, batch) for mode in ("max", "sum", "average_inc_pad", "average_exc_pad") for batch in (3, 4)])
    def test_pool_and_its_gradient(self, mode: str, batch: int) -> None:
        def build() -> Any:
            x = tt.ftensor4("x")
            h = pool_2d(tt.tanh(x) * 2, (2, 2), ignore_border=True, mode=mode)
            return [x], [tt.grad((h**2).sum(dtype=X), x) * 2, h.sum(dtype=X)], {}

        ours, stock = pair(build, "cvm_nogc")
        agree(ours, stock, *[(floats(batch, 2, 6, 6, seed=i),) for i in range(CALLS)])
        assert any(isinstance(n.op, theano_memopt_ops._RightComparison) for n in ours.maker.fgraph.apply_nodes)
        assert not machine(ours).planner.variables.allocates_itself

    @pytest.mark.quick
    def test_inc_subtensor_of_what_others_read_too(self) -> None:
        def build() -> Any:
            x, y = tt.fmatrix("x"), tt.fmatrix("y")
            zeros = tt.zeros_like(x)
            h = tt.tanh(tt.dot(x, y))
            parts = [tt.inc_subtensor(zeros[i : i + 2], y[i : i + 2]) for i in range(3)] + [tt.set_subtensor(h[:, 1], y[:, 0]), h]
            return [x, y], [tt.dot(a, b).sum(dtype=X) for a, b in zip(parts, parts[1:])], {}

        ours, stock = pair(build, "cvm_nogc")
        agree(ours, stock, *[(floats(5, 5, seed=i), floats(5, 5, seed=i + 9)) for i in range(CALLS)])
        assert not machine(ours).planner.variables.allocates_itself

    def test_what_takes_an_ops_place_knows_the_line_of_the_user(self) -> None:
        x, y = tt.fmatrix("x"), tt.fvector("y")
        h = tt.tanh(tt.dot(x, x))
        function = theano.function([x, y], [tt.set_subtensor(h[:, 1], y).sum(), h], mode=with_pass("cvm_nogc", storage="arena"))
        copies = [n for n in function.maker.fgraph.apply_nodes if isinstance(n.op, theano_memopt_ops.Copy)]
        assert copies
        for node in copies:
            written = [client for client, _ in node.outputs[0].clients]
            for v in [*node.outputs, *(out for client in written for out in client.outputs)]:
                assert any(__file__ in frame[0] for frames in v.tag.trace for frame in frames)

    @parameterized.expand([("FAST_RUN", "K"), ("FAST_COMPILE", "C")])
    def test_copy_lays_out_as_inc_subtensor_does_in_the_same_language(self, mode: str, layout: str) -> None:
        x = tt.fmatrix("x")
        f = theano.function([x], theano_memopt_ops.Copy()(x), mode=theano.compile.mode.get_mode(mode).excluding("mem_reuse"))
        for value in (floats(3, 4), np.asfortranarray(floats(3, 4)), floats(6, 8)[::2, ::2]):
            same([f(value)], [value])
            assert f(value).strides == np.array(value, copy=True, order=layout).strides
            assert not np.shares_memory(f(value), value)

    @parameterized.expand([("FAST_RUN",), ("FAST_COMPILE",)])
    def test_a_copy_to_reshape_has_the_strides_that_reshape_would_have_found(self, mode: str) -> None:
        """Against NumPy itself, over transposed and cut arrays with lengths of 1, and over shapes with an open length."""
        x, shape = tt.ftensor3("x"), tt.lvector("shape")
        f = theano.function([x, shape], theano_memopt_ops.CopyToReshape()(x, shape), mode=theano.compile.mode.get_mode(mode).excluding("mem_reuse"))
        views = 0
        for lengths in ((2, 3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1), (1, 1, 5), (2, 2, 2)):
            base = floats(*lengths)
            for axes in ((0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1), (1, 2, 0)):
                cut = np.repeat(np.repeat(base, 2, axis=2), 2, axis=0)
                for value in (base, cut[::2, :, ::2], cut[::2, :, : lengths[2]], cut[::-2, ::-1, ::2], np.repeat(base, 2, axis=0)[::2]):
                    value = value.transpose(axes)
                    a, b, c = value.shape
                    for target in ((a * b, c), (a, b * c), (a * b * c,), (-1, c), (b, a, c), (a, -1), (c, 1, a * b)):
                        got = f(value, np.array(target))
                        wanted = value.reshape(target)
                        same([got.reshape(target)], [wanted])
                        is_view = np.shares_memory(wanted, value)
                        views += is_view and not value.flags.c_contiguous
                        assert np.shares_memory(got.reshape(target), got)
                        long = [i for i, length in enumerate(value.shape) if length > 1]
                        if is_view:
                            assert _pattern(got) == _pattern(value)
                            assert (got.flags.c_contiguous, got.flags.f_contiguous) == (value.flags.c_contiguous, value.flags.f_contiguous)
                            assert got.flags.aligned and got.flags.writeable and np.byte_bounds(got)[1] - np.byte_bounds(got)[0] <= 8 * value.nbytes
                        if not is_view or value.base is base:
                            expected = np.empty_like(value, order="K" if is_view else "C")
                            assert [got.strides[i] for i in long] == [expected.strides[i] for i in long]
        assert views > 50

    def test_reshape_of_a_transposition(self) -> None:
        def build() -> Any:
            x = tt.ftensor3("x")
            h = (tt.tanh(x).dimshuffle(1, 0, 2)).reshape((x.shape[1], x.shape[0] * x.shape[2]))
            return [x], [chain(h).sum(dtype=X), chain(h, 2)], {}

        ours, stock = pair(build, "cvm_nogc")
        agree(ours, stock, *[(floats(*s, seed=i),) for i, s in enumerate([(3, 4, 5)] * 4 + [(1, 4, 5)] * 4 + [(3, 1, 1), (3, 4, 5)])])
        assert not machine(ours).planner.variables.allocates_itself


def _pattern(array: np.ndarray) -> Any:
    """The axes from the shortest stride to the longest: their signs, and where there is a gap."""
    found, expected = [], array.itemsize
    for axis in sorted((axis for axis in range(array.ndim) if array.shape[axis] > 1), key=lambda axis: abs(array.strides[axis])):
        step = array.strides[axis]
        found.append((axis, step > 0, abs(step) > expected))
        expected = abs(step) * array.shape[axis]
    return found


def test_the_collector_finds_a_function_that_is_dropped() -> None:
    ours, _ = square()
    for _ in range(4):
        ours(floats(5, 4))
    import weakref

    gone = weakref.ref(machine(ours))
    del ours
    gc.collect()
    assert gone() is None


def test_a_scan_that_forbids_results_made_in_place_keeps_those_nodes_alone() -> None:
    x = tt.tensor3("x", X)

    def step(row: Any, before: Any) -> Any:
        return tt.set_subtensor(before[:1], tt.exp(row[:1])) * 2, tt.set_subtensor(before[1:], row[1:])

    def compiled(mode: Any) -> Any:
        (first, last), _ = theano.scan(step, sequences=x, outputs_info=[None, tt.zeros_like(x[0])], mode=mode)
        return theano.function([x], [first, last], mode=mode)

    with theano.configparser.change_flags(on_opt_error="raise", floatX=X):
        ours, stock = compiled(with_arena()), compiled(without_pass("cvm_nogc"))
    for seed in range(CALLS):
        same(ours(floats(4, 3, 5, seed=seed)), stock(floats(4, 3, 5, seed=seed)))
    (loop,) = [node.op for node in ours.maker.fgraph.apply_nodes if isinstance(node.op, Scan)]
    writes = [node.op.inplace for node in loop.fn.maker.fgraph.apply_nodes if isinstance(node.op, IncSubtensor)]
    assert sorted(writes) == [False, True]


def test_whoever_reads_our_ops_from_the_compile_cache_does_not_get_the_pass() -> None:
    """Theano pickles the ops of what it compiled into its cache, which programs without the pass read as well."""
    ours = [theano_memopt_ops.Copy(), theano_memopt_ops.CopyToReshape()]
    ours += [there.__new__(there) for there in theano_memopt_ops.POOLS.values()]
    read = "import sys, pickle; pickle.loads(bytes.fromhex(sys.argv[1])); assert 'theano' in sys.modules; print('theano_memopt' in sys.modules)"
    repaired = "import numpy.distutils.__config__ as c\nif not hasattr(c, 'blas_opt_info'): c.blas_opt_info = {}\n"
    asked = "import theano_memopt\n"
    for start, registered in ((repaired, "False"), (asked, "True")):
        program = [sys.executable, "-W", "ignore", "-c", start + read, pickle.dumps(ours).hex()]
        done = subprocess.run(program, capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, registered), done.stderr


def test_every_op_that_is_put_into_a_graph_is_of_that_module() -> None:
    image, x = tt.tensor4("image", X), tt.matrix("x", X)
    pooled = pool_2d(image, (2, 2), ignore_border=True)
    outputs = [tt.grad(pooled.sum(), image), tt.set_subtensor(x[1:], 0) + x, x.T.reshape((x.size,)) * 2]
    function = theano.function([image, x], outputs, mode=with_arena())
    modules = {type(node.op).__module__ for node in function.maker.fgraph.apply_nodes}
    assert "theano_memopt_ops" in modules
    assert not [name for name in modules if name.split(".")[0] == "theano_memopt"]


# --- shapes that do not come again -----------------------------------------------------------------------------------


def _strangers(linker: str, length: int) -> Any:
    """A function of matrices with and without the pass, and for each fitting that was made a mark."""
    x = tt.matrix("x")
    y = tt.tanh(x) * 2 + 1
    outputs = [tt.dot(y, y.T).sum(axis=0), tt.exp(y)]
    modes = (mode.excluding("fusion", "inplace") for mode in (with_pass(linker, storage="arena"), without_pass(linker)))
    ours, stock = (theano.function([x], outputs, mode=mode) for mode in modes)
    fits: List[Any] = []
    upstream = ours.fn.planner.fit
    ours.fn.planner.fit = lambda *rest: fits.append(rest) or upstream(*rest)
    for rows in range(1, length + 1):
        argument = np.array(floats(rows + 1, 5, seed=rows), order="C" if rows == 1 else "F")
        had, wanted = ours(argument), stock(argument)
        same(had, wanted)
        assert [r.strides for r in had] == [r.strides for r in wanted]
    return ours, stock, fits


@pytest.mark.parametrize("linker", ["cvm_nogc", "vm_nogc"])
def test_after_many_unlike_shapes_none_is_planned_until_one_comes_again(linker: str) -> None:
    ours, stock, fits = _strangers(linker, 3 * call.FITTINGS_AT_MOST)
    assert len(fits) <= call.FITTINGS_AT_MOST + 1
    assert ours.fn.block is None and ours.fn.wants is None
    for _ in range(call.FAMILIAR + 1):
        same(ours(floats(999, 5)), stock(floats(999, 5)))
    assert ours.fn.block is not None and len(fits) <= call.FITTINGS_AT_MOST + 3
    same(ours(floats(7, 5)), stock(floats(7, 5)))


def _growth_over_many_shapes(linker: str) -> Tuple[int, int]:
    """Of Python objects, and the bytes that it may be."""
    ours, _ = square(linker)
    heights, objects = [], []
    tracemalloc.start()
    for k in range(call.FITTINGS_AT_MOST):
        for _ in range(call.FAMILIAR + 1 if k == 0 else 1):
            ours(floats(300 - k // 4, 40 + k))
        heights.append(machine(ours).fitting.height)
        if k in (16, call.FITTINGS_AT_MOST - 1):
            objects.append(both.python_objects())
    tracemalloc.stop()
    assert len(machine(ours).fittings) <= call.FITTINGS_AT_MOST
    return objects[1] - objects[0], 2 * max(heights) // worthwhile.SHARE


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
def test_what_is_kept_of_many_shapes_is_a_small_part_of_the_block(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not arrays: Python objects that say where they lie. If as many are kept as may be, they are more than that."""
    growth, allowed = _growth_over_many_shapes(linker)
    assert growth <= allowed
    monkeypatch.setattr(call, "FITTINGS_AT_LEAST", call.FITTINGS_AT_MOST)
    growth, allowed = _growth_over_many_shapes(linker)
    assert growth > 2 * allowed


@pytest.mark.parametrize("linker", ["cvm_nogc", "vm_nogc"])
def test_what_theano_allocates_then_keeps_the_order_that_it_had(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables.Variables, "fill_with_c_order", lambda known: None)
    with pytest.raises(AssertionError):
        _strangers(linker, 2 * call.FITTINGS_AT_MOST)

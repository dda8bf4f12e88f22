"""When something is wrong: the host's own order, no sharing, one warning as on_opt_error wants it, and the reason kept."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, List, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile.mode import Mode
from theano.gof.vm import VM_Linker
from theano.tensor.signal.pool import pool_2d

import theano_memopt
from tests.theano.both import LINKERS, annotation, floats, shared_cells, with_pass, without_pass
from theano_memopt.hosts.theano.optimize import annotate, feature, optimizer
from theano_memopt.hosts.theano.read import graph as reader
from theano_memopt.hosts.theano.read import op_facts
from theano_memopt.hosts.theano.run import cells, verify
from theano_memopt.hosts.theano.run import linker as vm
from theano_memopt.planner.slots import Slots

X = floats(8, 8)


def _chain(x: Any, length: int = 6) -> Any:
    for _ in range(length):
        x = tt.dot(x, x) / np.asarray(9, theano.config.floatX) + x.T
    return x


def _compiled(mode: Any) -> Any:
    x = theano_memopt.hint(tt.matrix("x"), X.shape)
    return theano.function([x], [_chain(x), _chain(tt.exp(-x), 3)], mode=mode)


def _broken(*args: Any) -> Any:
    raise RuntimeError("out of wits")


@pytest.mark.parametrize(("module", "name"), [(annotate, "read"), (annotate, "minimise_peak"), (cells, "share_cells")])
@pytest.mark.parametrize("wish", ["warn", "ignore", "raise"])
@pytest.mark.quick
def test_a_bug_of_ours(monkeypatch: Any, caplog: Any, module: Any, name: str, wish: str) -> None:
    monkeypatch.setattr(module, name, _broken)
    with theano.configparser.change_flags(on_opt_error=wish), caplog.at_level(logging.WARNING, "theano"):
        if wish == "raise":
            with pytest.raises(RuntimeError, match="out of wits"):
                _compiled(with_pass())
            return
        function = _compiled(with_pass())
        stock = _compiled(without_pass())
    assert len([r for r in caplog.records if "mem_reuse" in r.getMessage()]) == (1 if wish == "warn" else 0)
    plan = theano_memopt.plan_of(function)
    assert not plan and "out of wits" in plan.detail
    assert [str(n) for n in function.maker.fgraph.toposort()] == [str(n) for n in stock.maker.fgraph.toposort()]
    assert shared_cells(function) == 0
    assert all(np.array_equal(a, b) for a, b in zip(function(X), stock(X)))


def test_an_op_that_turns_out_to_be_lazy(monkeypatch: Any, caplog: Any) -> None:
    """As if nothing were known about lazy ops before the thunks are there."""
    from theano.ifelse import ifelse

    for module in (vm, reader, op_facts):
        monkeypatch.setattr(module, "is_lazy", lambda op: False)
    c, x = tt.iscalar("c"), tt.matrix("x")
    function = theano.function([c, x], ifelse(c, _chain(x), _chain(tt.exp(-x))), mode=with_pass())
    plan = theano_memopt.plan_of(function)
    assert not plan and plan.reason == "if{inplace} turned out to be lazy"
    assert len([r for r in caplog.records if "mem_reuse" in r.getMessage()]) == 1
    assert shared_cells(function) == 0 and function(1, X).shape == X.shape


def test_a_linker_with_a_schedule_of_its_own() -> None:
    linker = VM_Linker(use_cloop=False, schedule=lambda fgraph: fgraph.toposort())
    plan = theano_memopt.plan_of(_compiled(theano.compile.mode.Mode(linker, "fast_run")))
    assert not plan and "schedule of its own" in plan.reason


class Liar(theano.gof.Op):
    """Hands out its input and declares nothing."""

    __props__ = ()

    def make_node(self, x: Any) -> Any:
        return theano.gof.Apply(self, [x], [x.type()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        outputs[0][0] = inputs[0]

    def infer_shape(self, node: Any, shapes: Any) -> Any:
        return shapes


def _lying(mode: Any) -> Any:
    x = theano_memopt.hint(tt.matrix("x"), X.shape)
    same = Liar()(tt.dot(x, x))
    later = _chain(x, 5)
    return theano.function([x], tt.dot(same, later) + same, mode=mode)


def test_an_op_from_elsewhere_that_breaks_its_declarations_does_no_harm() -> None:
    stock = _lying(without_pass("cvm"))(X)
    for linker in ("cvm", "cvm_nogc", "vm_nogc"):
        function = _lying(with_pass(linker))
        assert np.array_equal(function(X), stock)
        (node,) = (node for node in function.maker.fgraph.apply_nodes if isinstance(node.op, Liar))
        loose = {v for b in annotation(function).reading.loose for v in annotation(function).reading.names[b]}
        assert set(node.inputs) | set(node.outputs) <= loose


def _trusting(monkeypatch: Any) -> None:
    for module in (reader, op_facts):
        monkeypatch.setattr(module, "is_trusted", lambda op: True)


def test_verify_catches_such_an_op_where_it_is_trusted(monkeypatch: Any) -> None:
    _trusting(monkeypatch)
    with pytest.raises(verify.Corrupted, match=r"Liar\.0 was overwritten by "):
        _lying(with_pass("cvm_nogc", verify=True))(X)


def _one_cell_for_all(graph: Any, order: Any, sharing: Any = None, limit: Any = None) -> Slots:
    """A plan that lets everything of one kind share, alive or not."""
    first = {}
    cells = [first.setdefault(b.kind, i) if sharing is None or i in sharing else i for i, b in enumerate(graph.buffers)]
    return Slots(tuple(cells), tuple((b.kind, b.size) for b in graph.buffers), 0, limit is not None)


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc", "vm", "vm_nogc"])
@pytest.mark.quick
def test_verify_catches_a_broken_plan_and_names_the_two(monkeypatch: Any, linker: str) -> None:
    right = _compiled(without_pass(linker))(X)
    monkeypatch.setattr(cells, "share_cells", _one_cell_for_all)
    monkeypatch.setattr(cells, "check_slots", lambda *rest: None)  # or it would never be bound
    wrong = _compiled(with_pass(linker))  # without verify nothing is noticed but the results
    with contextlib.suppress(NotImplementedError):  # an op may be given an emptied cell
        assert not np.array_equal(wrong(X)[0], right[0])
    with pytest.raises(verify.Corrupted, match=r"(\S+) was (overwritten by|cleared with) (?!\1)\S+ before"):
        _compiled(with_pass(linker, verify=True))(X)


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc", "vm", "vm_nogc"])
def test_verify_is_content_with_a_right_plan(linker: str) -> None:
    function = _compiled(with_pass(linker, verify=True))
    stock = _compiled(without_pass(linker))
    for scale in (1, -1, 1):
        assert all(np.array_equal(a, b) for a, b in zip(function(scale * X), stock(scale * X)))


def test_verify_compares_the_outputs(monkeypatch: Any) -> None:
    monkeypatch.setattr(
        verify, "_without_the_pass", lambda linker: (lambda: None, [], [theano.gof.Container(v, [None]) for v in linker.fgraph.outputs])
    )
    with pytest.raises(verify.Corrupted, match="output 0"):
        _compiled(with_pass(verify=True))(X)


def test_verify_copies_arguments_with_their_layout() -> None:
    square = floats(6, 6)
    for array in (square, square.T, square[::2, ::-1], square[1:, 2], np.broadcast_to(square[0], (3, 6)), square[:0], np.float32(3)):
        made = verify.copied(array)
        assert np.array_equal(made, array) and not np.may_share_memory(made, array)
        assert not array.size or made.strides == array.strides


def _changed_after_printing(linker: str, storage: str) -> int:
    x = theano_memopt.hint(tt.matrix("x"), X.shape)
    kept = []
    printed = theano.printing.Print("h", global_fn=lambda op, value: kept.append((value, value.copy())))(tt.tanh(tt.dot(x, x)))
    function = theano.function(
        [x], _chain(x + printed.sum() * np.asarray(1e-9, theano.config.floatX)).sum(), mode=with_pass(linker, storage=storage).excluding("fusion")
    )
    changed = 0
    for _ in range(4):
        kept.clear()
        function(X)
        changed += sum(not np.array_equal(value, was) for value, was in kept)
    return changed


@pytest.mark.parametrize(("linker", "storage"), [("cvm", "share"), ("cvm", "arena"), ("vm_nogc", "arena")])
@pytest.mark.blas
def test_what_a_users_function_was_given_to_print_stays_as_it_was(linker: str, storage: str, monkeypatch: Any) -> None:
    assert _changed_after_printing(linker, storage) == 0
    for module in (reader, op_facts):
        monkeypatch.setattr(module, "is_trusted", lambda op: True)
    if storage == "arena":
        assert _changed_after_printing(linker, storage) > 0


def _recording(linker: str, callback: str, storage: str = "") -> Tuple[int, int]:
    """A callback keeps every array that it is shown: how many are found changed after four calls, and how many are kept."""
    kept: List[Any] = []

    def keep(array: Any) -> None:
        if isinstance(array, np.ndarray):
            kept.append((array, array.copy()))

    recorders = {
        "callback": lambda node, thunk, storage_map, compute_map: [keep(storage_map[v][0]) for v in node.outputs],
        "callback_input": lambda variable, value: keep(value),
    }
    made = VM_Linker(allow_gc="nogc" not in linker, use_cloop=linker.startswith("cvm"), **{callback: recorders[callback]})
    mode = Mode(made, "fast_run").excluding("fusion", "inplace")
    mode = theano_memopt.mode(mode, storage=storage) if storage else mode.excluding("mem_reuse")
    x, im = theano_memopt.hint(tt.matrix("x"), X.shape), tt.tensor4("im")
    y = tt.set_subtensor(_chain(x)[1:3], 1)
    pooled = pool_2d(tt.tanh(im), (2, 2), ignore_border=True)
    function = theano.function([x, im], _chain(tt.set_subtensor(tt.tanh(y)[:1], 2)).sum() + pooled.sum(), mode=mode)
    for k in range(4):
        function(floats(*X.shape, seed=k), floats(2, 2, 6, 6, seed=k))
    return sum(not np.array_equal(value, was) for value, was in kept), len(kept)


@pytest.mark.parametrize("callback", ["callback", "callback_input"])
@pytest.mark.parametrize("storage", ["share", "arena"])
@pytest.mark.parametrize("linker", LINKERS)
def test_what_a_users_callback_was_shown_stays_as_it_is_in_stock(linker: str, storage: str, callback: str, monkeypatch: Any) -> None:
    changed, shown = _recording(linker, callback, storage)
    assert (changed, shown) == _recording(linker, callback) and shown
    if callback == "callback":  # the other sees nothing that is computed
        for module in (optimizer, feature):
            monkeypatch.setattr(module, "shows_values", lambda linker: False)
        assert _recording(linker, callback, storage)[0] > changed

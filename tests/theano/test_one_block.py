"""One block for the functions of a thread: who takes it, who moves out, and how it follows the sizes down."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from typing import Any, Callable, Iterator, List, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.scan_module.scan_op import Scan

import theano_memopt
from tests.theano.both import floats, in_a_thread, same, with_pass, without_pass
from tests.theano.test_faults import Trap
from tests.theano.test_faults import _child_says as child_says
from tests.theano.test_faults import _one_block as one_block
from theano_memopt.hosts.theano.run.arena import block as memory
from theano_memopt.hosts.theano.run.arena import call, fitting
from theano_memopt.hosts.theano.run.arena.block import Lending
from theano_memopt.hosts.theano.run.arena.states import Settled

SETTLED = 6
"""Calls after which an arena has been recorded, tried and settled."""
LINKERS = ["cvm_nogc", "vm_nogc"]
X = floats(6, 6)


@pytest.fixture(autouse=True)
def a_thread_without_functions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The functions of other tests, as far as they live, are no tenants; and what this test leaves to the collector is none later."""
    monkeypatch.setattr(memory, "_context", threading.local())
    Trap.armed = None
    yield
    Trap.armed = None


def held_across(mode: Any) -> Any:
    """What `h` holds is needed before the trap and after it."""
    x = tt.matrix("x")
    h = tt.dot(x, x)
    z = Trap(8)(tt.dot(h, x).sum(axis=0))
    return theano.function([x], tt.tanh(h + 1) * z + tt.dot(h, h * z), mode=mode)


def several(count: int, linker: str = "cvm_nogc") -> Tuple[List[Any], Any]:
    """Functions in one block, settled, and the same without the pass."""
    ours = [held_across(with_pass(linker, storage="arena")) for _ in range(count)]
    for _ in range(SETTLED):
        for function in ours:
            function(X)
    return ours, held_across(without_pass())


def within_the_trap(wish: Callable[[], Any], work: Callable[[], Any]) -> Any:
    """What `work` answers, with `wish` done once at the trap."""

    def once() -> None:
        Trap.armed = None
        wish()

    Trap.armed, Trap.wish = 8, staticmethod(once)
    return work()


def height(function: Any) -> int:
    return int(function.fn.lender.height)


# --- one block -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.quick
def test_functions_of_one_thread_lie_in_one_block_unasked(linker: str) -> None:
    (one, two), stock = several(2, linker)
    assert one.fn.lender is two.fn.lender and one.fn.lender.lending is Lending.BY_THREAD
    for n in (6, 9, 9, 6, 4, 9, 4, 4):
        same([one(floats(n, n)), two(floats(n, n, seed=1))], [stock(floats(n, n)), stock(floats(n, n, seed=1))])
        assert two.fn.block is one.fn.lender.block and one.fn.block in (None, two.fn.block)


@pytest.mark.parametrize("how", ["borrow", "copy", "update"])
def test_what_the_caller_holds_is_left_alone_by_other_functions(how: str) -> None:
    """All that stock Theano without gc leaves alone between two calls of the same function."""

    def make(mode: Any) -> Tuple[Any, Callable[[Any], List[Any]]]:
        x, s = tt.matrix("x"), theano.shared(X, name="s")
        h = tt.dot(tt.tanh(tt.dot(x, s)), x)
        outputs = [theano.Out(v, borrow=how == "borrow") for v in (h, h.T, tt.dot(h, h)[::2], tt.exp(h).sum())]
        function = theano.function([x], outputs, updates=[(s, tt.tanh(tt.dot(h, s)))] if how == "update" else [], mode=mode)
        return function, lambda results: [*results, s.get_value(borrow=True)]

    (ours, seen), (stock, wanted) = make(with_pass("cvm_nogc", storage="arena")), make(without_pass("cvm_nogc"))
    (other,), _ = several(1)
    if how == "copy":
        twin = ours.copy(share_memory=True)
        assert twin.fn.lender is ours.fn.lender
        ours = twin
    for seed in range(SETTLED):
        one, two = seen(ours(floats(6, 6, seed=seed))), wanted(stock(floats(6, 6, seed=seed)))
        other(floats(9, 9))
        other(X)
        ours.fn.lender.block.room.fill(255)  # NaN in every float
        same(one, two)
        assert not any(ours.fn.lender.block.has(v.ctypes.data) for v in one if isinstance(v, np.ndarray))


def test_a_failed_call_is_reported_with_its_own_values() -> None:
    (one, two), stock = several(2)
    messages = []
    for function in (one, stock):
        with pytest.raises(ValueError) as caught:
            within_the_trap(lambda: 1 / np.zeros(0)[0:1].reshape(()), lambda function=function: function(X))
        two(X)
        messages.append([line for line in str(caught.value).splitlines() if "Inputs values" in line or "shapes" in line])
    assert messages[0] == messages[1] and messages[0]
    same([one(X), two(X)], [stock(X), stock(X)])


# --- two at the same time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linker", LINKERS)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["nested", "in a thread"])
@pytest.mark.parametrize("before", [0, 1, 2, SETTLED])
@pytest.mark.quick
def test_one_that_comes_while_another_runs_moves_out(linker: str, elsewhere: bool, before: int) -> None:
    """In whatever state it is; and what is under way in the block is not overwritten, though the other needs a larger one."""
    (one,), stock = several(1, linker)
    two = held_across(with_pass(linker, storage="arena"))
    for _ in range(before):
        two(X)
    large, got = floats(9, 9), []
    inner = lambda: got.append(in_a_thread(lambda: two(large)) if elsewhere else two(large))  # noqa: E731
    same([within_the_trap(inner, lambda: one(X))], [stock(X)])
    same(got, [stock(large)])
    assert two.fn.lender is not one.fn.lender and two.fn.lender.lending is Lending.ALONE
    for n in (6, 9, 6, 6, 6):
        same([one(floats(n, n)), two(floats(n, n))], [stock(floats(n, n))] * 2)
    assert one.fn.lender.block is not two.fn.lender.block
    assert not one.fn.lender.taken and not two.fn.lender.taken


@pytest.mark.parametrize("elsewhere", [False, True], ids=["nested", "in a thread"])
def test_it_would_overwrite_what_the_other_needs(elsewhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the one above: it stays, and takes the block that is taken."""
    monkeypatch.setattr(call.ArenaVM, "_move_out", lambda machine: machine.lender)
    (one, two), stock = several(2)
    inner = lambda: in_a_thread(lambda: two(2 * X)) if elsewhere else two(2 * X)  # noqa: E731
    found = within_the_trap(inner, lambda: one(X))
    assert not np.array_equal(found, stock(X))


def test_no_call_waits_for_another_functions_call() -> None:
    """Two threads, each in a call, and each of which waits there until the other's call has ended or begun."""
    (one, two), stock = several(2)
    right = stock(X)
    inside, done, got = threading.Event(), threading.Event(), []

    def wish() -> None:  # first in the call of `one`, whose thread waits for all of `two`
        Trap.armed = None
        inside.set()
        assert done.wait(60), "the other call waits for this one"

    Trap.armed, Trap.wish = 8, staticmethod(wish)
    thread = threading.Thread(target=lambda: got.append(one(X)), daemon=True)
    thread.start()
    assert inside.wait(60)
    got.append(two(X))
    done.set()
    thread.join(60)
    same(got, [right, right])


def test_a_call_that_moves_out_is_emptied_before_or_not_at_all() -> None:
    (one, two), stock = several(2)
    lender = two.fn.lender
    kept = [(cell, cell[0]) for cell in two.fn.planner.variables.candidate_cells]
    thread = threading.Thread(target=lender.give_back, daemon=True)  # as the call of another tenant does, in another thread
    with two.fn.emptying:
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        two.fn.lender = memory.Lender()
    thread.join(60)
    assert all(cell[0] is value for cell, value in kept) and any(value is not None for _, value in kept)
    two.fn.lender.add(two.fn)
    same([one(X), two(X)], [stock(X)] * 2)


def test_what_theano_allocated_is_no_other_functions_to_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gc Theano keeps an array, and its layout with it. One that stands aside runs as Theano does, beside others in the block."""
    (one,), stock = several(1)
    monkeypatch.setattr(fitting, "check_packing", lambda *rest: 1 / 0)
    with theano.configparser.change_flags(on_opt_error="ignore"):
        aside = held_across(with_pass("cvm_nogc", storage="arena"))
        aside(X), aside(X), aside(X)
    monkeypatch.undo()
    assert aside.fn.aside
    kept = [(cell, cell[0]) for cell in aside.fn.planner.variables.candidate_cells]
    aside.fn.lender.give_back()
    one(floats(40, 40))
    assert all(cell[0] is value for cell, value in kept) and any(value is not None for _, value in kept)
    same([aside(X), one(X)], [stock(X)] * 2)


def test_tenants_that_come_and_go_in_other_threads_disturb_no_call() -> None:
    (one,), stock = several(1)
    lender, stop = one.fn.lender, threading.Event()

    class Tenant:
        wants, lender, block = None, None, None
        emptying = threading.RLock()

    def come_and_go() -> None:
        while not stop.is_set():
            lender.add(Tenant())

    thread = threading.Thread(target=come_and_go, daemon=True)
    thread.start()
    try:
        for i in range(200):
            n = 5 + i % 3
            same([one(floats(n, n))], [stock(floats(n, n))])
    finally:
        stop.set()
        thread.join(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("asked_for", [False, True])
def test_a_forked_child_takes_the_block_that_another_thread_had(asked_for: bool) -> None:
    with one_block(asked_for):
        (one, two), stock = several(2)
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        leave.wait(60)

    Trap.armed, Trap.wish = 8, staticmethod(wait)
    thread = threading.Thread(target=lambda: one(X), daemon=True)
    thread.start()
    assert inside.wait(60)
    Trap.armed = None
    right = stock(X)
    try:
        assert child_says(lambda: all(np.array_equal(f(X), right) and f.fn.block is one.fn.lender.block is not None for f in (two, one, two)))
    finally:
        leave.set()
        thread.join(60)
    same([one(X), two(X)], [right, right])


def test_an_inner_function_has_a_block_of_its_own() -> None:
    x = tt.tensor3("x")
    mode = with_pass("cvm_nogc", storage="arena")
    scanned, _ = theano.scan(lambda row: tt.dot(tt.tanh(tt.dot(row, row)), row), sequences=x, mode=mode)
    function = theano.function([x], tt.exp(scanned).sum(axis=0), mode=mode)
    stock = theano.function([x], tt.exp(scanned).sum(axis=0), mode=without_pass("cvm_nogc"))
    (other,), _ = several(1)
    for seed in range(SETTLED):
        same([function(floats(3, 6, 6, seed=seed))], [stock(floats(3, 6, 6, seed=seed))])
        other(X)
    (loop,) = [node.op.fn.fn for node in function.maker.fgraph.apply_nodes if isinstance(node.op, Scan)]
    assert function.fn.lender is other.fn.lender is not loop.lender


# --- it follows the sizes down ----------------------------------------------------------------------------------------


def kept_by_stock(*functions: Any) -> int:
    return sum(function.fn.fitting.unshared for function in functions)


@pytest.mark.parametrize("linker", LINKERS)
def test_it_is_never_larger_than_what_theano_would_keep(linker: str) -> None:
    (one, two), stock = several(2, linker)
    shapes = [40, 40, 12, 40, 3, 3, 25, 40, 39, 1, 2, 60, 7, 7, 30]
    for i, n in enumerate(shapes * 3):
        function = (one, two)[i % 3 == 0]
        same([function(floats(n, n, seed=i))], [stock(floats(n, n, seed=i))])
        needs = [f.fn.fitting.height for f in (one, two)]
        assert max(needs) <= height(one) <= max(*needs, kept_by_stock(one, two))


def test_it_would_stay_at_its_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Lender, "follow_down", lambda lender: False)
    (one,), _ = several(1)
    one(floats(60, 60))
    one(floats(6, 6))
    assert height(one) > kept_by_stock(one)


def test_twice_too_large_it_becomes_smaller_after_a_few_calls_of_any_tenant() -> None:
    (one, two), _ = several(2)
    for function in (one, two):
        function(floats(40, 40))
    large = height(one)
    one(floats(24, 24)), two(floats(24, 24))  # two tenants: less than they would keep, and more than twice what they need
    assert height(one) == large > 2 * one.fn.fitting.height
    for i in range(memory.SPARE):
        (one, two)[i % 2](floats(24, 24))
    assert height(one) == one.fn.fitting.height
    for _ in range(SETTLED):
        one(floats(24, 24))
    assert isinstance(one.fn.state, call.Settled)


def test_two_blocks_never_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (one, two), _ = several(2)
    made, rooms = memory.Block, [weakref.ref(one.fn.lender.block.room)]

    def block(height: int) -> Any:
        assert not any(room() is not None for room in rooms)
        found = made(height)
        rooms.append(weakref.ref(found.room))
        return found

    monkeypatch.setattr(memory, "Block", block)
    for n in (300, 100, 200, 10, 10, 300):
        one(floats(n, n))
        two(X)
    assert len(rooms) > 4


def test_a_function_that_is_gone_leaves_no_more_than_the_others_need() -> None:
    (one, two), stock = several(2)
    one(floats(60, 60))
    two(X)
    large = height(two)
    gone = weakref.ref(one.fn)
    del one
    gc.collect()
    assert gone() is None and height(two) == 0
    same([two(X)], [stock(X)])
    assert 0 < height(two) < large / 4


def test_a_function_that_is_gone_while_another_runs() -> None:
    (one, two), stock = several(2)
    one(floats(60, 60))
    two(X)
    functions, large = [one], height(two)
    del one

    def drop() -> None:
        functions.clear()
        gc.collect()

    same([within_the_trap(drop, lambda: two(X))], [stock(X)])
    same([two(X)], [stock(X)])
    assert 0 < height(two) < large / 4


def test_the_lender_dies_with_its_last_tenant() -> None:
    (one, two), _ = several(2)
    lender, block = weakref.ref(one.fn.lender), weakref.ref(one.fn.lender.block)
    del one, two
    gc.collect()
    assert lender() is None and block() is None


def test_free_gives_it_back_and_the_others_make_one_anew() -> None:
    (one, two), stock = several(2)
    one(floats(60, 60))
    one.free()
    assert one.fn.lender.block is None
    same([two(X)], [stock(X)])
    assert height(two) == two.fn.fitting.height
    same([one(X), two(X)], [stock(X), stock(X)])


def test_free_forgets_nothing_that_was_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that lies in the block is in C order in every call."""
    recorded = recorded_calls(monkeypatch)
    (one,), stock = several(1)
    recorded.clear()
    for _ in range(3):
        one.free()
        same([one(X)], [stock(X)])
    assert not recorded and isinstance(one.fn.state, Settled)


def steps_that_lie_as_the_caller_wishes(mode: Any) -> Any:
    """A Scan frees its step function after each run where it has gc. In a step h has the layout of the rows, which turns the product's last bits."""
    xs = tt.tensor3("xs")

    def step(x: Any) -> Any:
        h = tt.tanh(x) * 2 + tt.exp(x)
        return tt.dot(tt.exp(h) * tt.dot(h, h.T)[0, 0], h.T)

    return theano.function([xs], theano.scan(step, sequences=xs, mode=mode)[0], mode=mode)


@pytest.mark.parametrize("linker", ["cvm", "vm"])
def test_a_scan_plans_its_step_once(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = recorded_calls(monkeypatch)
    ours, stock = (steps_that_lie_as_the_caller_wishes(mode(linker)) for mode in (lambda way: with_pass(way, storage="arena"), without_pass))
    for i in range(6):
        xs = floats(5, 90, 70, seed=i)
        for turned in (xs, np.asfortranarray(xs), xs[::-1, :, ::2], xs.transpose(0, 2, 1)):
            same([ours(turned)], [stock(turned)])
    inner = [node.op.fn for node in ours.maker.fgraph.apply_nodes if isinstance(node.op, Scan)]
    assert 1 <= recorded.count(inner[0].fn) <= 2, "once, and once more without what may lie otherwise after the first run"


def recorded_calls(monkeypatch: pytest.MonkeyPatch) -> List[Any]:
    """Fills with a machine each time that one records a call."""
    recorded: List[Any] = []
    record = call.ArenaVM._record

    def noted(vm: Any) -> Any:
        recorded.append(vm)
        return record(vm)

    monkeypatch.setattr(call.ArenaVM, "_record", noted)
    return recorded


def test_free_in_the_middle_of_a_call_gives_nothing_back() -> None:
    (one, two), stock = several(2)
    for function in (one, two):
        same([within_the_trap(function.fn.release, lambda: one(X))], [stock(X)])
    assert one.fn.lender.block is not None


def test_what_is_measured_runs_in_a_block_of_its_own() -> None:
    (one, two), _ = several(2)
    block = one.fn.lender.block
    measured = theano_memopt.profile(one, floats(40, 40)).profile
    assert measured.kept > 0 and one.fn.lender.block is block and len(one.fn.lender.tenants()) == 2


def test_a_shared_block_is_told() -> None:
    (one, two), _ = several(2)
    for _ in range(SETTLED):
        two(floats(60, 60))
    kept = next(r for r in theano_memopt.explain(one, X).reserved if r.after_call)
    assert kept.block == id(one.fn.lender) and f"{height(two):,} bytes" in kept.meaning and "1 other function" in kept.meaning
    largest = next(r for r in theano_memopt.explain(two, floats(60, 60)).reserved if r.after_call)
    assert largest.meaning.startswith(f"{height(two):,} bytes of a block shared with 1 other function for")

"""What goes wrong during a call leaves a clear error, a usable function and nothing lost.

fault        an op raises, memory runs out, Ctrl-C at any line of ours, an op that lies, poison, threads, recursion, fork
afterwards   the next call gives, bit for bit, what stock Theano gives, and the function holds no more than before
"""

from __future__ import annotations

import contextlib
import functools
import gc
import linecache
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
import tracemalloc
from typing import Any, Callable, List, Optional, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt

import theano_memopt
from tests.theano.both import floats, in_a_thread, same, with_pass, without_pass
from tests.theano.programs import poison
from theano_memopt.hosts.theano.run.arena import call

X = floats(6, 6)
X.flags.writeable = False  # a test that spoils it must not spoil the others
SETUPS = [(linker, storage) for storage in ("off", "share", "arena") for linker in ("cvm", "vm", "cvm_nogc", "vm_nogc")]
RARE = [("vm", "off"), ("cvm_nogc", "off"), ("vm_nogc", "off"), ("vm_nogc", "share"), ("vm", "arena")]
each_setup = pytest.mark.parametrize(
    ("linker", "storage"), [pytest.param(*setup, marks=pytest.mark.nightly) if setup in RARE else setup for setup in SETUPS], ids=str
)
SETTLED = 6
"""Calls after which an arena has been recorded, tried and settled."""


def chain(x: Any, length: int = 4) -> Any:
    for _ in range(length):
        x = tt.dot(x, x) / np.asarray(7, theano.config.floatX) + x.T
    return x


class Trap(theano.gof.Op):
    """A copy of its input; does what `wish` says first, when it is armed for this place."""

    __props__ = ("place",)
    armed: Optional[int] = None
    wish: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, place: int) -> None:
        self.place = place

    def make_node(self, x: Any) -> Any:
        return theano.gof.Apply(self, [x], [x.type()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        if Trap.armed == self.place:
            Trap.wish()
        outputs[0][0] = inputs[0].copy()

    def infer_shape(self, node: Any, shapes: Any) -> Any:
        return shapes


@pytest.fixture(autouse=True)
def unarmed() -> Any:
    Trap.armed = None
    yield
    Trap.armed = None


def trapped(mode: Any) -> Any:
    """A function with traps between its products, and a shared variable that each call changes."""
    x, w = tt.matrix("x"), theano.shared(X, name="w")
    y = x + w
    for place in range(3):
        y = Trap(place)(chain(y, 2))
    return theano.function([x], [y, chain(tt.exp(-abs(y)), 2)], updates=[(w, w * 0.5 + y / (1 + y * y))], mode=mode), w


def raising(error: BaseException) -> Callable[[], None]:
    def wish() -> None:
        raise error

    return wish


# --- an op raises ----------------------------------------------------------------------------------------------------


@each_setup
@pytest.mark.parametrize("error", [ValueError("the op's own words"), MemoryError(), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
@pytest.mark.quick
def test_an_error_in_the_middle(linker: str, storage: str, error: BaseException) -> None:
    ours, w = trapped(with_pass(linker, storage=storage))
    stock, v = trapped(without_pass())
    Trap.wish = staticmethod(raising(error))
    for before in (0, 1, 2, SETTLED):  # in the first call, while an arena is tried, and when it has settled
        for _ in range(before):
            same(ours(X), stock(X))
        for place in range(3):
            Trap.armed = place
            for function in (ours, stock):
                with pytest.raises(type(error)) as caught:
                    function(X)
                if isinstance(error, ValueError):
                    assert "the op's own words" in str(caught.value) and "Trap" in str(caught.value)  # Theano names the node
            Trap.armed = None
            same([w.get_value()], [v.get_value()])
            same(ours(X), stock(X))
            same([w.get_value()], [v.get_value()])


@each_setup
def test_wrong_shapes_are_reported_as_ever(linker: str, storage: str) -> None:
    def make(mode: Any) -> Any:
        x, y = tt.matrix("x"), tt.matrix("y")
        return theano.function([x, y], chain(tt.dot(chain(x), y) + x), mode=mode)

    ours, stock = make(with_pass(linker, storage=storage)), make(without_pass())
    for _ in range(SETTLED):
        same([ours(X, X)], [stock(X, X)])
        for bad in (floats(5, 5), floats(6, 5), floats(0, 6)):
            with pytest.raises(ValueError) as wanted:
                stock(X, bad)
            with pytest.raises(ValueError) as had:
                ours(X, bad)
            assert str(had.value).splitlines()[0] == str(wanted.value).splitlines()[0]
    same([ours(X, X)], [stock(X, X)])


@each_setup
def test_more_memory_than_there_is(linker: str, storage: str) -> None:
    def make(mode: Any) -> Any:
        x, n = tt.vector("x"), tt.lscalar("n")
        wide = tt.alloc(x.sum(), n)
        return theano.function([x, n], [tt.exp(-wide).sum() + tt.dot(wide, wide[::-1]), chain(tt.outer(x, x))], mode=mode)

    ours, stock = make(with_pass(linker, storage=storage)), make(without_pass())
    for _ in range(SETTLED):
        same(ours(X[0], 5), stock(X[0], 5))
        for too_long in (2**49, 2**58):
            with pytest.raises(Exception) as wanted:
                stock(X[0], too_long)
            with pytest.raises(Exception) as had:
                ours(X[0], too_long)
            assert type(had.value) is type(wanted.value)
    same(ours(X[0], 7), stock(X[0], 7))


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


_uninterrupted = re.compile(r"^\s*with |^\s*try:|\.release\(\)")
"""Python looks for signals after a call and before it goes back in a loop: not on entering and leaving a `with`, not on entering a `try`,
not before the call itself."""


def _interrupted_at(line: int, call: Callable[[], Any]) -> bool:
    """KeyboardInterrupt at the line of ours with this number, counted along the call. Did the call get that far?"""
    passed = 0

    def local(frame: Any, event: str, argument: Any) -> Any:
        nonlocal passed
        if event == "line" and not _uninterrupted.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno)):
            passed += 1
            if passed == line:
                raise KeyboardInterrupt
        return local

    def begin(frame: Any, event: str, argument: Any) -> Any:
        return local if f"theano_memopt{os.sep}hosts" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
@pytest.mark.parametrize("settled", [0, 1, SETTLED])
def test_ctrl_c_at_every_line_of_the_arena(linker: str, settled: int) -> None:
    def make(mode: Any) -> Any:
        x = tt.matrix("x")
        return theano.function([x], [chain(x, 3)], mode=mode)

    right = make(without_pass())(X)
    line, got_there = 1, True
    ours = make(with_pass(linker, storage="arena"))
    while got_there:
        if settled == 0:
            ours = ours.copy()
        for _ in range(settled):
            ours(X)
        call = functools.partial(ours, X)
        got_there = _interrupted_at(line, call)
        same([*in_a_thread(call), *ours(2 * X / 2)], [*right, *right])
        line = line + 1 if line < 40 else line * 3 // 2  # the lines of every call one by one, those of planning by samples
    assert line > 5


def _branches(mode: Any) -> Any:
    """The larger branch runs first: the order follows the sizes."""
    x, y = tt.matrix("x"), tt.matrix("y")
    outputs = []
    for v in (x, y):
        a = tt.tanh(tt.dot(v, v))
        b = tt.exp(tt.dot(a, v) / 10)
        c = tt.dot(tt.concatenate([a, tt.dot(a, b)], axis=1), tt.concatenate([b, a], axis=0))
        outputs += [c.sum(axis=0), (b * c).sum(axis=1)]
    shared = theano.shared(np.zeros((), theano.config.floatX))
    return theano.function([x, y], outputs, updates=[(shared, shared + outputs[0].sum())], mode=mode)


def _differ_after_ctrl_c(linker: str, storage: str) -> int:
    """Interrupted at each line of a call with other sizes, which has another order; then the sizes from before come again."""
    sizes = [(floats(60, 60), floats(36, 36)), (floats(36, 36), floats(60, 60))]
    ours, stock = _branches(with_pass(linker, storage=storage)), _branches(without_pass())
    right = [stock(*arguments) for arguments in sizes]
    orders = set()
    for arguments in sizes:
        for _ in range(SETTLED):
            ours(*arguments)
        orders.add(ours.fn.planner.order if storage == "share" else ours.fn.fitting.order)
    assert len(orders) == 2
    line, got_there, differ = 1, True, 0
    while got_there:
        for _ in range(2):
            ours(*sizes[0])
        got_there = _interrupted_at(line, functools.partial(ours, *sizes[1]))
        for arguments, results in zip(sizes, right):
            differ += any(a.tobytes() != b.tobytes() for a, b in zip(ours(*arguments), results))
        line += 1
    assert line > 20
    return differ


@pytest.mark.parametrize(("linker", "storage"), [("cvm", "share"), ("cvm", "arena"), ("cvm_nogc", "arena"), ("vm_nogc", "arena")])
def test_ctrl_c_between_two_orders(linker: str, storage: str) -> None:
    assert _differ_after_ctrl_c(linker, storage) == 0


def test_negative_control_old_places_with_the_new_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the state were still the one from before while the machine is already another."""
    kept = call.ArenaVM._put_in_force

    def put_in_force(vm: Any, *arguments: Any) -> Any:
        before = vm.state
        try:
            return kept(vm, *arguments)
        except KeyboardInterrupt:
            vm.state = before
            raise

    monkeypatch.setattr(call.ArenaVM, "_put_in_force", put_in_force)
    assert _differ_after_ctrl_c("cvm_nogc", "arena") > 0


@each_setup
def test_ctrl_c_by_signal(linker: str, storage: str) -> None:
    """As it really comes: between two bytecodes, wherever the call happens to be."""
    ours, w = trapped(with_pass(linker, storage=storage))
    stock, v = trapped(without_pass())
    armed = [False]

    def on_signal(*_: Any) -> None:
        if armed[0]:
            armed[0] = False
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, on_signal)
    try:
        for moment in range(40):
            armed[0] = True
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.0001 * (1 + moment % 10))  # it may come at once
                while armed[0]:
                    ours(X)
            w.set_value(X)
            v.set_value(X)
            same(ours(X), stock(X))
            same([w.get_value()], [v.get_value()])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- ops that lie ----------------------------------------------------------------------------------------------------


class Liar(theano.gof.Op):
    """Declares nothing, and hands out: a view of its input; what it was given a call ago; one array of its own, again and again."""

    __props__ = ("lie",)

    def __init__(self, lie: str) -> None:
        self.lie = lie
        self.kept: Optional[np.ndarray] = None

    def make_node(self, x: Any) -> Any:
        return theano.gof.Apply(self, [x], [x.type()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        (x,) = inputs
        if self.lie == "view":
            outputs[0][0] = x[::-1]
        elif self.lie == "late":
            outputs[0][0] = x.copy() if self.kept is None or self.kept.shape != x.shape else self.kept
            self.kept = x
        else:
            if self.kept is None or self.kept.shape != x.shape:
                self.kept = np.empty_like(x)
            self.kept[...] = x * 2
            outputs[0][0] = self.kept


@each_setup
@pytest.mark.parametrize("lie", ["view", "late", "own"])
def test_an_op_that_lies_about_its_views(linker: str, storage: str, lie: str) -> None:
    if lie == "late" and linker.endswith("nogc"):
        pytest.skip("what it keeps is overwritten by Theano's own next call")

    def make(mode: Any) -> Any:
        x = tt.matrix("x")
        y = chain(x, 2)
        told = Liar(lie)(tt.dot(y, x))
        return theano.function([x], [chain(told, 3) + told, told.sum(), chain(y, 3)], mode=mode)

    # With allow_gc=False the liar's view stays in its cell, and Theano itself goes wrong there, in the same way.
    ours, stock = make(with_pass(linker, storage=storage)), make(without_pass("cvm_nogc" if linker.endswith("nogc") else "cvm"))
    kept: List[Any] = []
    for scale in (1, 2, -1, 1, 1, 3, 1, 0.5, 1, 1):
        kept.append((ours(scale * X), stock(scale * X)))
    for results, wanted in kept:
        same(results, wanted)


@pytest.mark.parametrize("lie", ["view", "own"])
@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
def test_a_lie_to_one_who_believes_it_is_found_out(monkeypatch: Any, linker: str, lie: str) -> None:
    """The control: with trust in every op the same functions go wrong, or verify says so."""
    from theano_memopt.hosts.theano.read import graph as reader
    from theano_memopt.hosts.theano.read import op_facts
    from theano_memopt.hosts.theano.run import verify

    for module in (reader, op_facts):
        monkeypatch.setattr(module, "is_trusted", lambda op: True)
    x = theano_memopt.hint(tt.matrix("x"), X.shape)
    lied = Liar(lie)(tt.dot(x, x))
    function = theano.function([x], tt.dot(lied, chain(x, 5)) + lied, mode=with_pass(linker, storage="share", verify=True))
    if lie == "view":
        with pytest.raises(verify.Corrupted, match="Liar"):
            function(X)
    else:
        function(X)  # memory of its own is nobody else's: no harm


# --- poison ----------------------------------------------------------------------------------------------------------


@each_setup
@pytest.mark.quick
@pytest.mark.blas
def test_nothing_is_read_before_it_is_written(linker: str, storage: str) -> None:
    """Gemm with beta 0 on memory that was never written, and accumulation in place, must not see what lay there."""

    def make(mode: Any) -> Any:
        x, v = tt.matrix("x"), tt.vector("v")
        products = tt.dot(chain(x, 2), x) * 0.5 + tt.dot(tt.dot(x, x), v)
        grown = tt.inc_subtensor(tt.zeros_like(x)[1:], products[:-1])
        return theano.function([x, v], [chain(products + grown), grown.sum(), tt.dot(products, v)], mode=mode)

    ours, stock = make(with_pass(linker, storage=storage)), make(without_pass())
    kept: List[Any] = []
    for _ in range(SETTLED):
        results = ours(X, X[0])
        same(results, stock(X, X[0]))
        kept.extend(results)
        poison(ours, [X, *kept])
        block = getattr(getattr(ours.fn, "lender", None), "block", None)
        if block is not None:
            block.room.fill(255)  # NaN in every float


@pytest.mark.quick
def test_poison_reaches_what_is_kept() -> None:
    """The control: a function that does read its old cells is caught by the poison."""
    x = tt.matrix("x")
    function = theano.function([x], chain(x).sum(), mode=with_pass("cvm_nogc", storage="share"))
    function(X)
    poison(function, [])
    arrays = [cell[0] for v, cell in function.fn.storage_map.items() if v.owner is not None and v not in function.maker.fgraph.outputs]
    poisoned = [a for a in arrays if isinstance(a, np.ndarray) and a.dtype.kind == "f" and np.isnan(a).all()]
    assert len(poisoned) >= 3


# --- threads ---------------------------------------------------------------------------------------------------------


def _hammered(functions: List[Any], arguments: List[Any], rounds: int = 60) -> List[Tuple[int, Any]]:
    """Every function in a thread of its own at the same time; (which, result) of all calls."""
    seen: List[Tuple[int, Any]] = []
    start = threading.Barrier(len(functions))

    def run(k: int) -> None:
        start.wait()
        for _ in range(rounds):
            try:
                seen.append((k, functions[k](arguments[k])))
            except Exception as error:
                seen.append((k, error))

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(len(functions))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads), "threads wait for each other"
    return seen


def _product(mode: Any, length: int) -> Any:
    x = tt.matrix("x")
    return theano.function([x], chain(Trap(7)(chain(x, length)), length), mode=mode)  # Trap runs Python: threads change there


def _one_block(wanted: bool) -> Any:
    return theano_memopt.shared_arena() if wanted else contextlib.nullcontext()


@each_setup
@pytest.mark.parametrize("together", [False, True])
def test_two_functions_at_once(linker: str, storage: str, together: bool) -> None:
    with _one_block(together and storage == "arena"):
        ours = [_product(with_pass(linker, storage=storage), length) for length in (2, 4)]
    stock = [_product(without_pass(), length) for length in (2, 4)]
    values = [X, floats(6, 6, seed=1)]
    right = [function(value) for function, value in zip(stock, values)]
    for k, result in _hammered(ours, values):
        assert not isinstance(result, Exception), result
        same([result], [right[k]])
    same([f(v) for f, v in zip(ours, values)], right)


def _held_across(mode: Any) -> Any:
    """What `h` holds is needed before the trap and after it."""
    x = tt.matrix("x")
    h = tt.dot(x, x)
    z = Trap(8)(tt.dot(h, x).sum(axis=0))
    return theano.function([x], tt.tanh(h + 1) * z + tt.dot(h, h * z), mode=mode)


def _beside_one_that_gives_the_block_back(linker: str) -> Tuple[List[Any], List[Any]]:
    """The second function is in the middle of a call when the first, which has the block, ends, and then needs a larger one."""
    with theano_memopt.shared_arena():
        first, second = (_held_across(with_pass(linker, storage="arena")) for _ in range(2))
    stock = _held_across(without_pass())
    for _ in range(SETTLED):
        first(X), second(X)
    inside, go_on, found = threading.Event(), threading.Event(), []

    def call() -> None:
        try:
            found.append(second(X))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=call, daemon=True)

    def wish() -> None:
        if threading.current_thread() is thread:
            inside.set()
            go_on.wait(60)
        else:
            thread.start()
            inside.wait(60)

    Trap.armed, Trap.wish = 8, wish
    found.append(first(X))
    Trap.armed = None
    larger = floats(9, 9)
    found.append(first(larger))
    go_on.set()
    thread.join(60)
    found += [first(X), second(larger)]
    return found, [stock(X), stock(larger), stock(X), stock(X), stock(larger)]


@pytest.mark.parametrize("linker", ["cvm", "vm", "cvm_nogc", "vm_nogc"])
@pytest.mark.blas
def test_a_call_beside_keeps_its_results_when_the_block_is_given_back(linker: str) -> None:
    same(*_beside_one_that_gives_the_block_back(linker))


@pytest.mark.parametrize("linker", ["cvm_nogc", "vm_nogc"])  # with gc it has no block then, and nobody empties its cells
@pytest.mark.blas
def test_it_would_lose_them_if_nobody_knew_that_it_runs(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call.ArenaVM, "without_block", property(lambda machine: False, lambda machine, value: None), raising=False)
    found, _ = _beside_one_that_gives_the_block_back(linker)
    assert isinstance(found[2], ValueError)


@pytest.mark.parametrize("linker", ["cvm", "vm", "cvm_nogc", "vm_nogc"])
def test_one_function_in_two_threads_stays_usable(linker: str) -> None:
    """Theano promises nothing here, and can crash: the arguments of both threads lie in the same cells, and one clears what the
    other reads. With an arena one call waits for the other: it must not hang or stay broken."""
    ours = _product(with_pass(linker, storage="arena"), 2)
    right = _product(without_pass(), 2)(X)
    _hammered([ours, ours], [X, X])
    for _ in range(3):
        same([ours(X)], [right])
        same([in_a_thread(lambda: ours(X))], [right])


# --- recursion and forks ---------------------------------------------------------------------------------------------


@each_setup
@pytest.mark.parametrize("together", [False, True])
def test_a_function_that_calls_another(linker: str, storage: str, together: bool) -> None:
    with _one_block(together and storage == "arena"):
        outer, inner = (_product(with_pass(linker, storage=storage), length) for length in (3, 2))
    stock = _product(without_pass(), 3), _product(without_pass(), 2)
    other = floats(6, 6, seed=2)
    right = stock[0](X), stock[1](other)
    seen: List[Any] = []

    def call() -> None:
        Trap.armed = None
        seen.append(inner(other))
        Trap.armed = 7

    Trap.wish = staticmethod(call)
    for _ in range(SETTLED):
        Trap.armed = None
        inner(other)
        Trap.armed = 7
        same([outer(X)], [right[0]])
    Trap.armed = None
    assert len(seen) == SETTLED
    same(seen, [right[1]] * SETTLED)


@each_setup
def test_a_function_that_calls_itself_stays_usable(linker: str, storage: str) -> None:
    """Stock Theano gives what it gives there; afterwards ours must be as before."""
    ours = _product(with_pass(linker, storage=storage), 2)
    right = _product(without_pass(), 2)(X)
    for _ in range(SETTLED):
        Trap.armed = 7

        def call() -> None:
            Trap.armed = None
            ours(X)  # the same values: whatever is overwritten, is overwritten with itself

        Trap.wish = staticmethod(call)
        with contextlib.suppress(Exception):  # with gc the inner call clears what the outer one needs, in Theano too
            ours(X)
        Trap.armed = None
        same([ours(X)], [right])
        same([in_a_thread(lambda: ours(X))], [right])


def _child_says(call: Callable[[], bool]) -> bool:
    """Does the call give True in a forked child, within a minute?"""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            status = 0 if call() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


@each_setup
def test_fork_after_compile(linker: str, storage: str) -> None:
    ours, w = trapped(with_pass(linker, storage=storage))
    stock, v = trapped(without_pass())
    for _ in range(SETTLED):

        def agrees() -> bool:
            same(ours(X), stock(X))
            same([w.get_value()], [v.get_value()])
            return True

        assert _child_says(agrees)
        assert agrees()


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
@pytest.mark.parametrize("storage", ["share", "arena"])
def test_fork_while_another_thread_is_in_the_middle_of_a_call(linker: str, storage: str) -> None:
    ours = _product(with_pass(linker, storage=storage), 2)
    right = _product(without_pass(), 2)(X)
    for _ in range(SETTLED):
        ours(X)
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        leave.wait(60)

    Trap.wish = staticmethod(wait)
    Trap.armed = 7
    thread = threading.Thread(target=lambda: ours(X), daemon=True)
    thread.start()
    assert inside.wait(60)
    Trap.armed = None
    try:
        assert _child_says(lambda: np.array_equal(ours(X), right))
    finally:
        leave.set()
        thread.join(60)
    same([ours(X)], [right])


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "named"), [("mem_reuse.storage=everything", "storage"), ("mem_reuse.effort=-5", "effort"), ("mem_reuse.verify=maybe", "verify")]
)
def test_a_flag_with_a_wrong_value(flag: str, named: str) -> None:
    code = "import theano_memopt, theano, theano.tensor as tt; x = tt.vector(); theano.function([x], x + 1)([1])"
    flags = ",".join(part for part in (os.environ.get("THEANO_FLAGS", ""), flag) if part)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "THEANO_FLAGS": flags}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ValueError" in done.stderr and named in done.stderr.splitlines()[-1]


# --- memory over many calls ------------------------------------------------------------------------------------------


def _held() -> int:
    """Bytes of NumPy's arrays."""
    gc.collect()
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return sum(entry.size for entry in tracemalloc.take_snapshot().filter_traces([domain]).statistics("filename"))


@pytest.fixture
def traced() -> Any:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@each_setup
def test_as_much_is_held_after_thousands_of_calls_as_after_ten(linker: str, storage: str, traced: Any) -> None:
    x, w = tt.vector("x"), theano.shared(X[0], name="w")
    function = theano.function(
        [x], [tt.tanh(x * w) + tt.exp(x)[::-1], tt.outer(x, w).sum()], updates=[(w, w * 0.5 + x)], mode=with_pass(linker, storage=storage)
    )
    held, blocks = [], []
    for until in (10, 3000):
        for _ in range(until):
            function(X[0])
        held.append(_held())
        blocks.append(sys.getallocatedblocks())
    assert held[1] == held[0]
    assert blocks[1] < blocks[0] + 1000


@pytest.mark.parametrize("linker", ["cvm", "cvm_nogc"])
def test_shapes_that_never_come_again(linker: str, traced: Any) -> None:
    x = tt.vector("x")
    function = theano.function([x], chain(tt.outer(x, x), 3).sum(axis=0), mode=with_pass(linker, storage="arena"))
    blocks = []
    for begin in (1, 100, 200, 300):
        for n in range(begin, begin + 100):
            assert function(np.ones(n % 150 + 1, theano.config.floatX)).shape == (n % 150 + 1,)
        for _ in range(20):
            function(X[0])
        blocks.append((_held(), sys.getallocatedblocks()))
    assert blocks[3][0] <= blocks[1][0]
    assert blocks[3][1] < blocks[1][1] * 1.2


@each_setup
def test_a_function_that_is_gone_holds_nothing(linker: str, storage: str, traced: Any) -> None:
    def once() -> None:
        x = tt.matrix("x")
        function = theano.function([x], chain(x), mode=with_pass(linker, storage=storage))
        for _ in range(SETTLED):
            function(floats(40, 40))

    once()
    before = _held()
    for _ in range(3):
        once()
    assert _held() < before + 40 * 40 * 8

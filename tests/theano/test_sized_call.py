"""Functions of which no length is known while they are compiled: the order for the sizes that come."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any, Iterator, List, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.gof.vm import Stack
from theano.ifelse import ifelse
from theano.tensor.nnet import conv2d
from theano.tensor.signal.pool import pool_2d

import theano_memopt
from tests.marks import nightly_if
from tests.theano import both
from tests.theano.both import annotation, floats, same, shared_cells, with_pass, without_pass
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.read.op_facts import is_lazy
from theano_memopt.hosts.theano.run import cells, sized_call, worthwhile
from theano_memopt.hosts.theano.run.sized_call import InOrder, NoOrder, SizedVM, Small, Unseen
from theano_memopt.planner.plan import check_plan

OBJECTS = 16 * 1024
"""Python's own, which come on top of arrays."""


def weights(*shape: int) -> Any:
    return theano.shared(0.1 * floats(*shape))


def autoencoder(mode: Any) -> Any:
    """Convolutions over images of which neither the number nor the size is known."""
    x = tt.tensor4("x")
    kernels = [weights(*shape) for shape in ((8, 1, 3, 3), (16, 8, 3, 3), (8, 16, 3, 3), (1, 8, 3, 3))]
    h = pool_2d(tt.nnet.relu(conv2d(x, kernels[0], border_mode="half")), (2, 2), ignore_border=True)
    h = pool_2d(tt.nnet.relu(conv2d(h, kernels[1], border_mode="half")), (2, 2), ignore_border=True)
    h = tt.nnet.relu(conv2d(h.repeat(2, 2).repeat(2, 3), kernels[2], border_mode="half"))
    out = tt.nnet.sigmoid(conv2d(h.repeat(2, 2).repeat(2, 3), kernels[3], border_mode="half"))
    loss = tt.sqr(out - x).mean()
    return theano.function([x], loss, updates=[(w, w - 0.1 * g) for w, g in zip(kernels, tt.grad(loss, kernels))], mode=mode)


def language_model(mode: Any) -> Any:
    """A recurrent net over words: neither the length of the sentences nor their number is known."""
    words, size = tt.lmatrix("words"), 24
    embedded, inner, over, back = weights(50, size), weights(size, size), weights(size, size), weights(size, 50)

    def step(word: Any, before: Any) -> Any:
        return tt.tanh(tt.dot(word, inner) + tt.dot(before, over))

    start = tt.zeros((words.shape[1], size), theano.config.floatX)
    hidden, _ = theano.scan(step, sequences=embedded[words[:-1]], outputs_info=start, mode=mode)
    scores = tt.nnet.softmax(tt.dot(hidden, back).reshape((-1, 50)))
    loss = tt.nnet.categorical_crossentropy(scores, words[1:].flatten()).mean()
    parameters = [embedded, inner, over, back]
    return theano.function([words], loss, updates=[(w, w - 0.1 * g) for w, g in zip(parameters, tt.grad(loss, parameters))], mode=mode)


def sentences(length: int, count: int) -> np.ndarray:
    return np.random.RandomState(length).randint(0, 50, (length, count))


def two_branches(mode: Any) -> Any:
    """The larger branch should run first: which one that is depends on the lengths."""
    x, y = tt.dmatrix("x"), tt.dmatrix("y")
    return theano.function([x, y], [tt.dot(v, tt.exp(v)) for v in (x, y)], mode=mode)


def squares(x: int, y: int) -> List[np.ndarray]:
    return [np.random.RandomState(n).rand(n, n) for n in (x, y)]


CASES = (
    (autoencoder, [(floats(32, 1, 28, 28),), (floats(11, 1, 28, 28),)]),
    (language_model, [(sentences(40, 32),), (sentences(40, 7),), (sentences(9, 32),)]),
)


# --- the gain comes without a hint -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "calls", "storage"),
    [nightly_if((build, storage) != (autoencoder, "arena"), build, calls, storage) for build, calls in CASES for storage in ("share", "arena")],
    ids=lambda value: getattr(value, "__name__", value if isinstance(value, str) else ""),
)
def test_without_any_hint_every_call_runs_in_the_least_memory_for_its_sizes(build: Any, calls: Any, storage: str) -> None:
    ours, stock = build(with_pass(storage=storage)), build(without_pass())
    assert theano_memopt.plan_of(ours).sizes == "assumed"
    for arguments in calls:
        for _ in range(3):
            same([ours(*arguments)], [stock(*arguments)])
            plan = theano_memopt.plan_of(ours)
            assert plan.sizes == "given"
            assert plan.schedule.peak <= 1.02 * plan.schedule.floor
        check_plan(plan)


@pytest.mark.parametrize("build, calls", CASES, ids=[build.__name__ for build, _ in CASES])
def test_what_is_planned_without_any_hint_is_what_is_measured(build: Any, calls: Any) -> None:
    ours = build(with_pass())
    for arguments in calls:
        ours(*arguments)
        plan = theano_memopt.plan_of(ours)
        own = max(probe.workspaces(ours, *arguments).values(), default=0)
        held = probe.held_by_call(ours, *arguments).peak
        assert held <= 1.02 * (plan.schedule.floor + own) + OBJECTS
        assert 0.98 * plan.schedule.peak - OBJECTS <= held <= 1.02 * plan.schedule.peak + 3 * OBJECTS  # Scan's own workspace is not planned


def test_at_the_guessed_sizes_nothing_is_refused_and_nothing_is_advised_that_does_not_help() -> None:
    function = autoencoder(with_pass())
    for report in (theano_memopt.explain(function), theano_memopt.explain(function, (32, 1, 28, 28))):
        assert report.best is None and not any("effort" in advice.text or (advice.saves and "hint" in str(advice.paste)) for advice in report.advice)
        assert report.peak == report.floor
    function(floats(32, 1, 28, 28))
    report = theano_memopt.explain(function)
    assert report.graph.sizes_from == "the last call" and not report.graph.sizes_assumed
    assert report == theano_memopt.explain(function) and report.peak == theano_memopt.plan_of(function).schedule.peak


@pytest.mark.parametrize("linker", ["cvm", "vm"])
def test_what_explain_says_of_sizes_before_they_come_is_what_runs_when_they_come(linker: str) -> None:
    orders = set()
    for lengths in ((120, 200), (200, 120)):
        function = two_branches(with_pass(linker))
        said = theano_memopt.explain(function, *((n, n) for n in lengths))
        assert said.peak == said.floor
        nodes = [annotation(function).reading.nodes[t] for t in said.order]
        assert probe.recorded_order(function, *squares(*lengths)) == nodes
        orders.add(said.order)
    assert len(orders) == 2, "or no order had to be chosen for the sizes"


def test_where_a_linker_keeps_one_order_the_reason_is_told() -> None:
    reports = [theano_memopt.explain(two_branches(with_pass("c|py")), (m, m), (n, n)) for m, n in ((120, 200), (200, 120))]
    worse = [report for report in reports if report.best is not None]
    assert len(worse) == 1 and worse[0].peak > worse[0].best.peak
    (advice,) = [advice for advice in worse[0].advice if "runs one order" in advice.text]
    assert advice.saves == worse[0].peak - worse[0].best.peak and len(advice.paste) == 2


# --- when it is planned, and when not -----------------------------------------------------------------------------------


class Searches:
    """Counts the searches for an order."""

    def __init__(self, monkeypatch: Any) -> None:
        self.count, search = 0, sized_call.CellPlanner.searched

        def counted(planner: Any, sizes: Any) -> Any:
            self.count += 1
            return search(planner, sizes)

        monkeypatch.setattr(sized_call.CellPlanner, "searched", counted)


def test_where_no_length_is_guessed_nothing_is_done() -> None:
    x = theano_memopt.hint(tt.dmatrix("x"), (5, 5))
    known = theano.function([x], tt.dot(tt.exp(x), x).sum(), mode=with_pass())
    assert not isinstance(known.fn, SizedVM)
    assert not isinstance(two_branches(with_pass("cvm_nogc")).fn, SizedVM), "without gc every array stays, whatever the order"
    assert isinstance(two_branches(with_pass()).fn, SizedVM)


def test_sizes_that_come_again_cost_no_search_and_similar_ones_neither(monkeypatch: Any) -> None:
    searches, function, stock = Searches(monkeypatch), two_branches(with_pass()), two_branches(without_pass())
    assert isinstance(function.fn.state, Unseen)
    for lengths, wanted in (
        ((100, 60), 1),
        ((100, 60), 1),
        ((101, 61), 1),
        ((99, 60), 1),
        ((100, 60), 1),
        ((200, 120), 2),
        ((100, 60), 2),
        ((101, 60), 2),
    ):
        same(function(*squares(*lengths)), stock(*squares(*lengths)))
        assert searches.count == wanted, lengths
        assert isinstance(function.fn.state, InOrder)


def test_a_call_never_has_a_worse_order_than_the_hosts_own() -> None:
    """The sizes turn round: the order of the call before would be worse than the host's."""
    function, stock = two_branches(with_pass()), two_branches(without_pass())
    for lengths in ((200, 120), (120, 200), (200, 120), (150, 149), (20, 300), (120, 200)):
        same(function(*squares(*lengths)), stock(*squares(*lengths)))
        report = theano_memopt.explain(function)
        assert report.peak <= report.host_peak, lengths
        assert probe.held_by_call(function, *squares(*lengths)).peak <= 1.02 * report.peak + OBJECTS


def test_what_is_kept_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(sized_call, "ORDERS_AT_MOST", 8)
    monkeypatch.setattr(sized_call, "SEARCHES", 3)
    searches, function = Searches(monkeypatch), two_branches(with_pass())
    for length in range(1, 60):
        function(*squares(length, 60 - length))
        function(*squares(8 * length, 3 * length))
    machine = function.fn
    assert searches.count == 3 and len(machine._orders) == 8 and len(machine.planner._machines) <= 4 and len(machine.planner.orders) <= 4


def _growth_over_many_sizes() -> Tuple[int, int]:
    """Of Python objects, and the bytes that it may be."""
    function = two_branches(with_pass())
    objects = []
    tracemalloc.start()
    for k in range(400):
        function(*squares(100 + k // 20, 80 + k % 20))
        if k in (64, 399):
            objects.append(both.python_objects())
    tracemalloc.stop()
    return objects[1] - objects[0], 2 * theano_memopt.plan_of(function).schedule.peak // worthwhile.SHARE


@pytest.mark.nightly
def test_what_is_kept_of_many_sizes_is_a_small_part_of_what_the_function_needs(monkeypatch: Any) -> None:
    """Not arrays: Python objects. If as many are kept as may be, they are more than that."""
    growth, allowed = _growth_over_many_sizes()
    assert growth <= allowed
    monkeypatch.setattr(sized_call, "ORDERS_AT_LEAST", sized_call.ORDERS_AT_MOST)
    growth, allowed = _growth_over_many_sizes()
    assert growth > 4 * allowed


def _after_many_unlike_sizes(monkeypatch: Any) -> Tuple[Any, List[Any], List[bool]]:
    """The function, the sizes at which an order was asked for, and whether each call ran in an order that is no worse than the host's."""
    monkeypatch.setattr(sized_call, "STRANGERS", 5)
    function, stock = two_branches(with_pass()), two_branches(without_pass())
    asked: List[Any] = []
    order_for = sized_call.CellPlanner.order_for
    monkeypatch.setattr(sized_call.CellPlanner, "order_for", lambda planner, sizes: asked.append(sizes) or order_for(planner, sizes))
    no_worse = []
    for length in range(20, 34):
        same(function(*squares(length, 60 - length)), stock(*squares(length, 60 - length)))
        report = theano_memopt.explain(function)
        no_worse.append(report.peak <= report.host_peak)
    return function, asked, no_worse


def test_after_many_unlike_sizes_in_a_row_nothing_is_searched_until_one_comes_again(monkeypatch: Any) -> None:
    function, asked, no_worse = _after_many_unlike_sizes(monkeypatch)
    assert len(asked) == 5 and all(no_worse)
    function(*squares(21, 39))
    function(*squares(50, 60))
    assert len(asked) == 6, "one has come again, so it is worth looking again"
    function(*squares(33, 27))
    assert len(asked) == 7 and theano_memopt.explain(function).peak == theano_memopt.explain(function).floor, "a stranger that comes again is planned"


def test_negative_control_an_order_that_is_kept_for_unlike_sizes_becomes_worse_than_the_hosts(monkeypatch: Any) -> None:
    monkeypatch.setattr(sized_call.CellPlanner, "best_known", lambda planner, sizes: planner.order)
    _, _, no_worse = _after_many_unlike_sizes(monkeypatch)
    assert not all(no_worse)


# --- cells ---------------------------------------------------------------------------------------------------------------


def chain_and_branches(mode: Any) -> Any:
    """Two results that can lie in one cell, beside a choice that depends on the lengths."""
    x, y = tt.dmatrix("x"), tt.dmatrix("y")
    halves = [tt.dot(x, x).sum(axis=0), tt.dot(x.T, x).sum(axis=0)]
    return theano.function([x, y], [*halves, *(tt.dot(v, tt.exp(v)) for v in (x, y))], mode=mode)


@pytest.mark.parametrize("linker", ["cvm", "vm"])
@pytest.mark.parametrize("verify", [False, True])
def test_tenants_of_a_cell_keep_their_sequence_in_every_order(linker: str, verify: bool) -> None:
    function, stock = chain_and_branches(with_pass(linker, verify=verify)), chain_and_branches(without_pass(linker))
    orders = set()
    for lengths in ((60, 36), (36, 60), (30, 29), (60, 36)):
        same(function(*squares(*lengths)), stock(*squares(*lengths)))
        orders.add(theano_memopt.plan_of(function).schedule.order)
        check_plan(theano_memopt.plan_of(function))
    assert len(orders) > 1 and shared_cells(function) > 1


def test_negative_control_an_order_that_breaks_a_cell_never_runs(monkeypatch: Any) -> None:
    """Without the ties the search finds orders that let two tenants live at once: the check throws them out, and the host's own runs."""
    monkeypatch.setattr(cells, "tied", lambda graph, chains: graph)
    function, stock = chain_and_branches(with_pass()), chain_and_branches(without_pass())
    planner = function.fn.planner
    bad = _order_that_breaks(planner)
    monkeypatch.setattr(type(planner), "order_for", lambda self, sizes: bad)
    with theano.configparser.change_flags(on_opt_error="ignore"):
        for _ in range(2):
            same(function(*squares(60, 4)), stock(*squares(60, 4)))
    assert isinstance(function.fn.state, NoOrder) and function.fn.planner.order == annotation(function).stock


def test_negative_control_without_the_check_the_call_fails(monkeypatch: Any) -> None:
    """The cell is cleared when the second tenant is dead, and the reader of the first one finds nothing."""
    monkeypatch.setattr(cells, "tied", lambda graph, chains: graph)
    monkeypatch.setattr(cells, "check_slots", lambda *arguments: None)
    monkeypatch.setattr(cells, "_held_for_nothing", lambda spans: lambda before, b: True)
    function = chain_and_branches(with_pass())
    bad = _order_that_breaks(function.fn.planner)
    monkeypatch.setattr(type(function.fn.planner), "order_for", lambda self, sizes: bad)
    with pytest.raises(ValueError, match="expected an ndarray, not None"):
        function(*squares(30, 30))


def _order_that_breaks(planner: Any) -> Tuple[int, ...]:
    """A legal order of the graph without ties in which the later tenant of a chain is made before the earlier one is read last."""
    graph = planner.reading.graph
    for first, second, *_ in planner.chains:
        early, late = graph.buffers[second].producer, max(graph.buffers[first].readers)
        order: List[int] = []
        waiting = list(graph.natural_order)
        while waiting:
            ready = [t for t in waiting if set(graph.predecessors[t]) <= set(order)]
            task = next((t for t in ready if t != late), late)
            waiting.remove(task)
            order.append(task)
        if order.index(graph.buffers[first].producer) < order.index(early) < order.index(late):
            return tuple(order)
    raise AssertionError("no chain can be broken here")


# --- machines that share their nodes ---------------------------------------------------------------------------------


ORDERS_COME_AGAIN = [(60, 36)] * 3 + [(36, 60)] * 3 + [(60, 36)] * 3
"""Three calls each: an arena records, tries and settles."""
ON_THE_STACK = [("vm", "share"), ("vm", "arena"), ("vm_nogc", "arena")]


def chain_and_branches_and_choice(mode: Any) -> Any:
    """The lazy op makes it a function for the Stack machine, where the CVM does not run."""
    x, y = tt.dmatrix("x"), tt.dmatrix("y")
    halves = [tt.dot(x, x).sum(axis=0), tt.dot(x.T, x).sum(axis=0)]
    outputs = [*halves, *(tt.dot(v, tt.exp(v)) for v in (x, y)), ifelse(tt.gt(x.sum(), y.sum()), tt.exp(x[0, 0]), y[0, 0])]
    return theano.function([x, y], outputs, mode=mode)


def _planned_and_run(function: Any, monkeypatch: Any) -> Iterator[Tuple[Any, Any]]:
    """After each call the order of the plan in force, and that in which the nodes were run; without what a lazy op may not ask for."""
    run: List[Any] = []
    reading = annotation(function).reading
    certain = {node for node in reading.nodes if node in reading.certain and not is_lazy(node.op)}
    original = Stack.run_thunk_of_node
    monkeypatch.setattr(Stack, "run_thunk_of_node", lambda self, node: (run.append(node), original(self, node))[1])
    stock = chain_and_branches_and_choice(without_pass("cvm"))
    for lengths in ORDERS_COME_AGAIN:
        run.clear()
        same(function(*squares(*lengths)), stock(*squares(*lengths)))
        planned = [reading.nodes[t] for t in theano_memopt.plan_of(function).schedule.order]
        yield [node for node in planned if node in certain], [node for node in run if node in certain]


@pytest.mark.parametrize(("linker", "storage"), ON_THE_STACK)
def test_an_order_that_comes_again_on_the_stack_machine_is_the_one_that_runs(linker: str, storage: str, monkeypatch: Any) -> None:
    function = chain_and_branches_and_choice(with_pass(linker, storage=storage))
    orders = []
    for planned, run in _planned_and_run(function, monkeypatch):
        assert planned == run
        orders.append(planned)
    assert orders[-1] == orders[2] != orders[5]


@pytest.mark.parametrize(("linker", "storage"), ON_THE_STACK)
def test_negative_control_without_links_of_its_own_a_machine_runs_in_the_order_of_another(linker: str, storage: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("theano_memopt.hosts.theano.run.linker.with_own_links", lambda vm: vm)
    function = chain_and_branches_and_choice(with_pass(linker, storage=storage))
    assert any(planned != run for planned, run in _planned_and_run(function, monkeypatch))


def _updates_lost(linker: str, storage: str, monkeypatch: Any) -> int:
    """Another order comes while memory is profiled for other functions: there Theano makes the Stack machine."""
    x, y, last = tt.dmatrix("x"), tt.dmatrix("y"), theano.shared(np.zeros(()))
    products = [tt.dot(v, tt.exp(v)) for v in (x, y)]
    function = theano.function([x, y], products, updates=[(last, x[0, 0] - y[0, 0])], mode=with_pass(linker, storage=storage))
    lost = 0
    for lengths in ORDERS_COME_AGAIN:
        arguments = squares(*lengths)
        function(*arguments)
        lost += float(last.get_value()) != arguments[0][0, 0] - arguments[1][0, 0]
        for flag in ("profile", "profile_memory"):
            monkeypatch.setattr(theano.config, flag, True)
    return lost


ON_THE_CVM = [("cvm", "share"), ("cvm_nogc", "arena")]


@pytest.mark.parametrize(("linker", "storage"), ON_THE_CVM)
@pytest.mark.quick
def test_no_update_is_lost_where_flags_are_set_between_calls(linker: str, storage: str, monkeypatch: Any) -> None:
    assert _updates_lost(linker, storage, monkeypatch) == 0


@pytest.mark.parametrize(("linker", "storage"), ON_THE_CVM)
def test_negative_control_a_machine_of_another_kind_loses_updates(linker: str, storage: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("theano_memopt.hosts.theano.run.linker.flags_as_now", lambda: lambda function: function)
    assert _updates_lost(linker, storage, monkeypatch) > 0


# --- whoever follows the machine that runs ------------------------------------------------------------------------------


def test_theanos_profile_counts_in_every_order() -> None:
    x, y = tt.dmatrix("x"), tt.dmatrix("y")
    profiled = theano.function([x, y], [tt.dot(v, tt.exp(v)) for v in (x, y)], mode=with_pass(), profile=True)
    for lengths in ((60, 36), (36, 60)):
        profiled(*squares(*lengths))
    assert len(profiled.fn.planner._machines) == 2
    counts = set(profiled.profile.apply_callcount.values())
    assert counts == {2} and len(profiled.profile.apply_callcount) == len(profiled.maker.fgraph.apply_nodes)


def test_copies_and_pickles_and_free() -> None:
    function, stock = two_branches(with_pass()), two_branches(without_pass())
    wanted = stock(*squares(200, 120))
    same(function(*squares(200, 120)), wanted)
    for other in (function.copy(), function.copy(share_memory=True), pickle.loads(pickle.dumps(function))):
        assert isinstance(other.fn.state, Unseen)
        same(other(*squares(200, 120)), wanted)
        assert theano_memopt.plan_of(other).sizes == "given"
    function.free()
    same(function(*squares(120, 200)), stock(*squares(120, 200)))


def test_profile_measures_the_order_for_these_sizes() -> None:
    function = two_branches(with_pass())
    comparison = theano_memopt.profile(function, *squares(200, 120))
    assert comparison.planned_peak <= comparison.profile.peak <= 1.02 * comparison.planned_peak + OBJECTS


def test_an_input_that_is_missing_is_theanos_to_tell() -> None:
    x = tt.dmatrix("x")
    function = theano.function([x], tt.dot(tt.exp(x), x), mode=with_pass())
    with pytest.raises(TypeError):
        function()
    with pytest.raises(ValueError):
        function(np.ones((2, 3)))
    same([function(np.eye(3))], [np.exp(np.eye(3)) @ np.eye(3)])


def test_formulas_that_fail_leave_the_function_in_the_hosts_order(monkeypatch: Any, caplog: Any) -> None:
    def broken(planner: Any) -> Any:
        raise RuntimeError("no formulas today")

    monkeypatch.setattr(sized_call.CellPlanner, "read_formulas", broken)
    function, stock = two_branches(with_pass()), two_branches(without_pass())
    for _ in range(2):
        same(function(*squares(200, 120)), stock(*squares(200, 120)))
    assert isinstance(function.fn.state, NoOrder) and function.fn.planner.order == annotation(function).stock
    assert caplog.text.count("the order could not be planned") == 1


# --- inside a Scan ---------------------------------------------------------------------------------------------------------


def test_the_inner_function_of_a_scan_is_planned_at_the_true_sizes_of_its_steps() -> None:
    x, y = tt.dmatrix("x"), tt.dmatrix("y")

    def step(row: Any, other: Any) -> Any:
        return [tt.dot(tt.outer(v, v), tt.outer(tt.exp(v), v)) for v in (row, other)]

    def build(mode: Any) -> Any:
        found, _ = theano.scan(step, sequences=[x, y], mode=mode)
        return theano.function([x, y], found, mode=mode)

    with theano.configparser.change_flags(**{"scan.allow_gc": True}):
        ours, stock = build(with_pass()), build(without_pass())
        (loop,) = [node.op for node in ours.maker.fgraph.apply_nodes if hasattr(node.op, "fn")]
        for lengths in ((90, 50), (50, 90)):
            arguments = [np.random.RandomState(n).rand(3, n) for n in lengths]
            same(ours(*arguments), stock(*arguments))
            plan = theano_memopt.plan_of(loop)
            assert plan.sizes == "given" and plan.schedule.peak == plan.schedule.floor
            assert max(buffer.size for buffer in plan.graph.buffers) == 90 * 90 * 8


# --- functions that are too small ----------------------------------------------------------------------------------------


def test_a_small_function_runs_in_the_order_of_theano_itself_until_an_input_has_grown() -> None:
    ours, stock = two_branches(with_pass(storage="auto")), two_branches(without_pass())
    host = annotation(ours).stock
    agree_at(ours, stock, squares(8, 10))
    state = ours.fn.state
    assert isinstance(state, Small) and "saves more than" in ours.fn.small and ours.fn.planner.shapes is None
    assert theano_memopt.plan_of(ours).schedule.order == host
    report = theano_memopt.explain(ours)
    assert any("when an input has grown, or shrunk" in note for note in report.notes) and not report.advice
    agree_at(ours, stock, squares(11, 7))  # grown by less
    assert ours.fn.state is state
    agree_at(ours, stock, squares(150, 200))
    assert isinstance(ours.fn.state, InOrder) and not ours.fn.small
    agree_at(ours, stock, squares(8, 10))
    assert isinstance(ours.fn.state, InOrder)


def test_a_small_function_asks_again_when_a_whole_number_on_which_lengths_rest_has_grown() -> None:
    n = tt.lscalar("n")
    zeros = tt.alloc(np.float64(0), n, n)
    ours, stock = (
        theano.function([n], [tt.dot(tt.exp(zeros + i), zeros) for i in range(2)], mode=mode) for mode in (with_pass(storage="auto"), without_pass())
    )
    agree_at(ours, stock, [4])
    assert isinstance(ours.fn.state, Small)
    assert "saves more than" in ours.fn.small
    agree_at(ours, stock, [150])
    assert ours.fn.small == "no better order was found" and any("no better order" in note for note in theano_memopt.explain(ours).notes)


def _whose_host_is_best() -> Tuple[Any, Any, Tuple[int, int]]:
    """A function that was called once, at lengths at which no order is better than the host's own; stock; the lengths."""
    for lengths in ((200, 120), (120, 200)):
        ours, stock = two_branches(with_pass(storage="auto")), two_branches(without_pass())
        agree_at(ours, stock, squares(*lengths))
        if isinstance(ours.fn.state, Small):
            return ours, stock, lengths
    raise AssertionError("one of the two orders is the host's")


def test_where_no_order_is_better_than_the_hosts_nothing_is_held_until_an_input_has_grown_or_shrunk() -> None:
    ours, stock, (m, n) = _whose_host_is_best()
    states = [ours.fn.state]
    assert ours.fn.small and ours.fn.planner.shapes is None
    report = theano_memopt.explain(ours)
    assert report.order == annotation(ours).stock and report.peak == report.floor
    assert theano_memopt.explain(ours, (m - 9, m - 9), (n + 9, n + 9)).order == annotation(ours).stock
    for factor, asked in ((1.1, False), (0.9, False), (2, True), (0.5, True), (0.6, False), (1, False), (1.9, False)):
        agree_at(ours, stock, squares(int(m * factor), int(n * factor)))
        states.append(ours.fn.state)
        assert isinstance(states[-1], Small) and (states[-1] is not states[-2]) == asked, factor


@pytest.mark.parametrize("asked", [True, False])
def test_an_order_that_is_better_when_an_input_has_shrunk_is_found(asked: bool, monkeypatch: Any) -> None:
    """Negative control: it is not, if nobody asks."""
    ours, stock, (m, n) = _whose_host_is_best()
    if not asked:
        monkeypatch.setattr(worthwhile.HasShrunk, "__call__", lambda shrunk: False)
    shorter = (m // 3, n) if m > n else (m, n // 3)
    agree_at(ours, stock, squares(*shorter))
    assert isinstance(ours.fn.state, InOrder) == asked
    report = theano_memopt.explain(ours)
    assert not asked or report.floor == report.peak < report.host_peak


def test_inputs_that_take_turns_in_being_the_larger_one_are_not_asked_about_in_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def never(planner: Any, sizes: Any) -> str:
        asked.append(sizes)
        return "never worthwhile"

    monkeypatch.setattr(sized_call, "no_order_saves_enough", never)
    ours, stock = two_branches(with_pass(storage="auto")), two_branches(without_pass())
    for turn in range(6):
        agree_at(ours, stock, squares(9, 3) if turn % 2 else squares(3, 9))
    assert len(asked) == 2


def test_storage_that_was_asked_for_by_name_is_planned_however_small_the_function_is() -> None:
    ours, stock = two_branches(with_pass(storage="share")), two_branches(without_pass())
    agree_at(ours, stock, squares(8, 10))
    assert isinstance(ours.fn.state, InOrder)


def test_what_a_small_function_holds_is_what_stock_holds() -> None:
    """Objects of Python included: choosing an order for it would take more than it saves."""
    ours, stock = two_branches(with_pass(storage="auto")), two_branches(without_pass())
    held = []
    for function in (ours, stock):
        for size in (12, 13, 14):
            function(*squares(size, 9))
        tracemalloc.start()
        for size in (7, 8, 9, 10, 11, 12):  # other sizes each time, none of them grown enough
            function(*squares(9, size))
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert held[0] <= held[1] + 600


def agree_at(ours: Any, stock: Any, arguments: Any) -> None:
    same(ours(*arguments), stock(*arguments))

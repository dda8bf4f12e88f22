"""Lazy ops (IfElse): the order in which the CVM runs them, and storage that is shared without gc whichever branches are taken.

Every claim has its control: an order that is not the CVM's, lives that end too early, a chain that leaves out links through a lazy op.
"""

from __future__ import annotations

import functools
import itertools
import pickle
import random
from dataclasses import replace
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.compile.mode import Mode
from theano.gof.vm import VM_Linker
from theano.ifelse import IfElse, ifelse

import theano_memopt
from tests.marks import nightly_if
from tests.theano.both import annotation, floats, same, shared_cells, with_pass, without_pass
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.measure.twins import twin
from theano_memopt.hosts.theano.optimize import annotate as annotating
from theano_memopt.hosts.theano.optimize.feature import MemReuse, feature_of
from theano_memopt.hosts.theano.read import branches
from theano_memopt.hosts.theano.read.graph import ends_for_certain
from theano_memopt.hosts.theano.run import cells
from theano_memopt.hosts.theano.run.arena import fitting
from theano_memopt.hosts.theano.run.verify import Corrupted
from theano_memopt.planner.liveness import lives
from theano_memopt.planner.plan import check_plan
from theano_memopt.planner.slots import check_slots

X = floats(6, 6)
STORAGES = ("share", "arena")
Built = Tuple[List[Any], Any, Dict[str, Any]]


def chain(x: Any, length: int = 4) -> Any:
    """Products of one shape, none in place."""
    for _ in range(length):
        x = tt.tanh(tt.dot(x, x.T)) + x
    return x


def inputs() -> Tuple[Any, Any, Any]:
    return tt.iscalar("c"), tt.iscalar("d"), theano_memopt.hint(tt.matrix("x"), (6, 6))


# --- graphs of every kind --------------------------------------------------------------------------------------------


def one_choice() -> Built:
    c, d, x = inputs()
    before = chain(x, 3)
    return [c, d, x], [chain(ifelse(c, chain(before, 3), chain(tt.exp(-abs(before)), 3)), 2).sum(), before.sum()], {}


def nested() -> Built:
    c, d, x = inputs()
    both = chain(x, 2)
    inner = ifelse(d, chain(both, 3), chain(x * 2, 2))
    other = ifelse(d, chain(inner, 2), chain(tt.sqr(both), 3))
    return [c, d, x], [chain(ifelse(c, chain(inner, 2), other), 2).sum(), chain(x, 2).sum()], {}


def shared_between_branches() -> Built:
    """What one branch needs, another op needs later, if the branch was not taken."""
    c, d, x = inputs()
    part = chain(tt.exp(-abs(x)), 3)
    first = ifelse(c, chain(tt.dot(part, x), 2), chain(x, 2))
    second = ifelse(d, chain(first, 2), chain(tt.dot(x, part), 2))
    return [c, d, x], [chain(first + second, 2), second.sum()], {}


def a_condition_that_is_computed() -> Built:
    c, d, x = inputs()
    h = chain(x, 2)
    middle = ifelse(tt.gt(h.sum() * c, 0), chain(h, 3), chain(-h, 2))
    return [c, d, x], [chain(ifelse(tt.lt(middle.sum(), d), chain(middle, 3), middle), 2).sum()], {}


def several_results() -> Built:
    c, d, x = inputs()
    h = chain(x, 2)
    p, q = ifelse(c, (chain(h, 2), chain(h + 1, 3)), (chain(x, 3), h * 2))
    return [c, d, x], [chain(p, 2).sum(), chain(q, 2).sum() + ifelse(d, p, chain(q, 2)).sum()], {}


def handed_out() -> Built:
    """The result of a lazy op, and a view of it, are outputs."""
    c, d, x = inputs()
    h = chain(x, 2)
    out = ifelse(c, chain(h, 3), chain(tt.sqr(h), 2))
    return [c, d, x], [out, out.T, chain(ifelse(d, h, chain(h, 2)), 2)], {}


def trained() -> Built:
    """A branch reads what is updated in place, and a gradient goes through both."""
    c, d, x = inputs()
    w = theano.shared(X / 4, name="w")
    h = tt.tanh(tt.dot(x, w))
    out = ifelse(c, chain(tt.dot(h, w), 2), h)
    loss = tt.sqr(ifelse(d, chain(out, 2), tt.exp(-abs(out)))).mean()
    return [c, d, x], [loss], {"updates": [(w, w - 0.1 * tt.grad(loss, w))]}


def written_in_place() -> Built:
    c, d, x = inputs()
    h = chain(x, 2)
    one = tt.set_subtensor(chain(h, 2)[1:3], 0.5)
    two = tt.inc_subtensor(chain(h + 1, 2)[:2], h[:2])
    return [c, d, x], [chain(ifelse(c, one, two), 2).sum() + ifelse(d, tt.sqr(two), h * 2).sum()], {}


def a_loop_in_a_branch() -> Built:
    c, d, x = inputs()
    h = chain(x, 2)
    rows, _ = theano.scan(lambda row, before: tt.tanh(row + before), sequences=[h], outputs_info=[h[0]])
    return [c, d, x], [chain(ifelse(c, chain(rows, 2), chain(h, 3)), 2).sum() + ifelse(d, rows, h).sum()], {}


GRAPHS = (
    one_choice,
    nested,
    shared_between_branches,
    a_condition_that_is_computed,
    several_results,
    handed_out,
    trained,
    written_in_place,
    a_loop_in_a_branch,
)
OUTCOMES = ((1, 1), (0, 1), (0, 0), (1, 0), (1, 1), (1, 0), (0, 0), (0, 1), (1, 1), (0, 1))


def compiled(build: Callable[[], Built], mode: Any, **more: Any) -> Any:
    given, outputs, keywords = build()
    return theano.function(given, outputs, mode=mode, on_unused_input="ignore", **keywords, **more)


def story(function: Any, outcomes: Sequence[Tuple[int, int]] = OUTCOMES) -> List[Any]:
    """What every call hands out, looked at when all are done, and the shared variables."""
    kept = [v for i, outcome in enumerate(outcomes) for v in function(*outcome, X * (1 + i % 3))]
    return [*kept, *(container.storage[0] for container in function.input_storage if container.implicit)]


# --- the order -------------------------------------------------------------------------------------------------------


def without_c() -> Any:
    """The CVM over thunks in Python, which need no compiling."""
    return Mode(VM_Linker(use_cloop=True, allow_gc=False, c_thunks=False), "fast_run")


def random_graph(seed: int) -> Built:
    r = random.Random(seed)
    conditions: List[Any] = [tt.iscalar(), tt.iscalar()]
    x = theano_memopt.hint(tt.matrix("x"), (4, 4))
    pool = [x, tt.tanh(x)]

    def fresh(depth: int) -> Any:
        kind, a, b = r.random(), r.choice(pool[-8:]), r.choice(pool)
        if kind < 0.45:
            return tt.tanh(tt.dot(a, b)) if kind < 0.2 else a * b + r.choice((1, 2))
        if kind < 0.6:
            return tt.set_subtensor(a[:2], 0) if kind < 0.5 else a[::-1]
        if depth == 3:
            return tt.exp(-abs(a))
        one, other = fresh(depth + 1), fresh(depth + 1)
        c = tt.gt(a.sum(), 0) if r.random() < 0.2 else r.choice(conditions)
        if r.random() < 0.3:
            results = ifelse(c, (one, b), (a, other))
            pool.extend(results)
            return results[0]
        return ifelse(c, one, other)

    for _ in range(r.randint(4, 12)):
        pool.append(fresh(0))
    w = theano.shared(np.ones((4, 4)), name="w")
    updates = [(w, w * 0.5 + pool[-1] * 0)] if r.random() < 0.4 else []
    return [*conditions, x], list(dict.fromkeys(r.choice(pool[-6:]) for _ in range(r.randint(1, 3)))), {"updates": updates}


def runs(function: Any, outcome: Tuple[int, int], x: Any, **keywords: Any) -> Tuple[List[Any], Dict[Any, bool]]:
    """The nodes in the order in which the machine really runs them, and what each condition turned out to be."""
    ran: List[Any] = []

    def around(node: Any, thunk: Any) -> Any:
        asked_for = thunk()
        if not asked_for:
            ran.append(node)
        return asked_for

    watched = twin(function, around)
    watched(*outcome, x, **keywords)
    given = dict(zip(function.maker.fgraph.inputs, outcome))
    asked = {node.inputs[0] for node in function.maker.fgraph.apply_nodes if isinstance(node.op, IfElse)}
    return ran, {c: bool(given[c] if c in given else watched.fn.storage_map[c][0]) for c in asked}


def _steps(function: Any) -> Any:
    fgraph = function.maker.fgraph
    return branches.steps_of(list(function.fn.nodes), fgraph.outputs, fgraph.orderings())


def agreeing(steps: Any, outcome: Dict[Any, bool]) -> List[Any]:
    return list(dict.fromkeys(step.node for step in steps if step.given <= outcome.items()))


@pytest.mark.parametrize("seed", [nightly_if(seed % 2 > 0, seed) for seed in range(40)])
def test_the_steps_are_those_that_the_cvm_runs(seed: int) -> None:
    """In every outcome, with the pass and without, and a call that wants a part of the outputs runs the first ones of them."""
    for mode in (without_c().excluding("mem_reuse"), theano_memopt.mode(without_c(), storage="share")):
        given, outputs, keywords = random_graph(seed)
        function = theano.function(given, outputs, mode=mode, on_unused_input="ignore", **keywords)
        steps = _steps(function)
        if steps is None:
            conditions = {node.inputs[0] for node in function.fn.nodes if isinstance(node.op, IfElse)}
            assert not conditions or len(conditions) > branches.CONDITIONS
            continue
        for outcome in itertools.product((0, 1), repeat=2):
            ran, found = runs(function, outcome, floats(4, 4, seed=seed))
            assert ran == agreeing(steps, found)
            for i in range(len(outputs)) if feature_of(function.maker.fgraph) is not None else ():
                ran, found = runs(function, outcome, floats(4, 4, seed=seed), output_subset=[i])
                assert ran == agreeing(steps, found)[: len(ran)]  # what was not computed in this call, it did not ask for


def test_steps_of_another_order_are_refused() -> None:
    function = compiled(shared_between_branches, with_pass("cvm_nogc"))
    steps, fgraph, nodes = list(_steps(function)), function.maker.fgraph, list(function.fn.nodes)
    conditions = list({node.inputs[0] for node in nodes if isinstance(node.op, IfElse)})

    def holds(wrong: Sequence[branches.Step]) -> bool:
        try:
            branches.check(wrong, nodes, fgraph.outputs, fgraph.orderings(), conditions)
        except branches.NotKnown:
            return False
        return True

    again = [i for i, step in enumerate(steps) if step.node in {s.node for s in steps[:i]}]
    assert holds(steps) and again
    assert not holds(steps[1:]) and not holds(steps[::-1])
    assert not any(holds(steps[:i] + steps[i + 1 :]) for i in again)  # what runs later if a branch was not taken
    assert not holds([branches.Step(step.node, frozenset()) for step in steps])
    assert not holds([step for i, step in enumerate(steps) if i not in again])


def test_nothing_is_claimed_of_many_conditions_or_foreign_ops() -> None:
    x = theano_memopt.hint(tt.matrix("x"), (6, 6))
    conditions = [tt.iscalar() for _ in range(branches.CONDITIONS + 1)]
    h = x
    for c in conditions:
        h = ifelse(c, chain(h, 2), tt.sqr(h))
    function = theano.function([*conditions, x], h, mode=with_pass("cvm_nogc"))
    assert annotation(function).steps is None
    linker = function.maker.linker
    assert cells.loose_for(annotation(function), linker) == annotation(function).reading.loose


# --- the same bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "storage"),
    [nightly_if(storage != STORAGES[i % len(STORAGES)], build, storage) for i, build in enumerate(GRAPHS) for storage in STORAGES],
    ids=lambda of: getattr(of, "__name__", of),
)
def test_the_same_bits_whichever_branches_are_taken(build: Any, storage: str) -> None:
    ours, stock = (compiled(build, mode) for mode in (with_pass("cvm_nogc", storage=storage), without_pass("cvm_nogc")))
    same(story(ours), story(stock))
    assert annotation(ours).steps is not None
    plan = theano_memopt.plan_of(ours)
    check_plan(plan)
    same(story(pickle.loads(pickle.dumps(ours)), OUTCOMES[1:]), story(pickle.loads(pickle.dumps(stock)), OUTCOMES[1:]))
    for share_memory in (False, True):  # not a copy of the stock one: Theano's own copies lose the order that what is made in place demands
        same(story(ours.copy(share_memory=share_memory)), story(stock))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("build", GRAPHS)
def test_verified(build: Any, storage: str) -> None:
    story(compiled(build, with_pass("cvm_nogc", storage=storage, verify=True)))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("build", [nested, shared_between_branches, several_results, handed_out])
def test_a_part_of_the_outputs(build: Any, storage: str) -> None:
    ours, stock = (compiled(build, mode) for mode in (with_pass("cvm_nogc", storage=storage), without_pass("cvm_nogc")))
    for i, outcome in enumerate(2 * OUTCOMES):
        wanted = [[0], [1], [0, 1], None][i % 4]
        keywords = {} if wanted is None or i < 3 else {"output_subset": wanted}
        same(ours(*outcome, X * (1 + i), **keywords), stock(*outcome, X * (1 + i), **keywords))


@pytest.mark.parametrize("storage", STORAGES)
def test_an_error_in_a_branch(storage: str) -> None:
    def build() -> Built:
        c, d, x = inputs()
        h = chain(x, 2)
        bad = tt.dot(chain(h, 2), tt.zeros((d, 6)))
        return [c, d, x], [chain(ifelse(c, chain(bad, 2), chain(h, 3)), 2).sum(), h.sum()], {}

    ours, stock = (compiled(build, mode) for mode in (with_pass("cvm_nogc", storage=storage), without_pass("cvm_nogc")))
    for i, (c, d) in enumerate([(1, 6), (0, 5), (1, 6), (1, 5), (0, 5), (1, 6), (0, 6), (1, 5), (1, 6), (0, 1)]):
        if c and d != 6:
            for function in (ours, stock):
                with pytest.raises(ValueError, match="(?i)shape|dim"):
                    function(c, d, X)
        else:
            same(ours(c, d, X * (1 + i)), stock(c, d, X * (1 + i)))


# --- who shares ------------------------------------------------------------------------------------------------------


def test_what_only_one_branch_needs_shares_and_what_lies_around_it() -> None:
    function = compiled(one_choice, with_pass("cvm_nogc"))
    reading, storage_map = annotation(function).reading, function.fn.storage_map
    tenants = [v for v, cell in storage_map.items() if v.owner is not None and [id(c) for c in storage_map.values()].count(id(cell)) > 1]
    assert {v.owner in reading.certain for v in tenants} == {True, False}
    one, other = (next(n for n in reading.nodes if isinstance(n.op, IfElse)).inputs[i] for i in (1, 2))
    assert storage_map[one] is not storage_map[other]
    before, after = (
        len({id(cell) for v, cell in compiled(one_choice, with_pass(linker)).fn.storage_map.items()}) for linker in ("vm_nogc", "cvm_nogc")
    )
    assert after < before


@pytest.mark.parametrize("linker", ["cvm", "vm", "vm_nogc"])
def test_where_the_order_is_not_that_of_the_cvm_or_cells_are_emptied_nothing_of_it_shares(linker: str) -> None:
    function = compiled(one_choice, with_pass(linker))
    reading = annotation(function).reading
    assert reading.untrusted < reading.loose
    everything = [id(cell) for cell in function.fn.storage_map.values()]
    assert all(everything.count(id(function.fn.storage_map[reading.roots[b]])) == 1 for b in reading.loose)


@pytest.mark.parametrize(("linker", "in_order"), [("cvm_nogc", True), ("vm_nogc", False)])
def test_what_an_ifelse_reads_is_let_go_before_the_end_only_where_it_keeps_to_the_order(linker: str, in_order: bool) -> None:
    """On the Stack VM one may run later than planned. Its condition would be gone, which it takes for true."""
    x = theano_memopt.hint(tt.matrix("x"), (6, 6))
    condition = tt.gt(tt.tanh(x).sum(), 0)
    outputs = [ifelse(condition, chain(x, 2), tt.exp(x)).sum(), ifelse(condition, tt.exp(-x), chain(x, 3)).sum()]
    function = theano.function([x], outputs, mode=with_pass(linker, storage="arena"))
    known = function.fn.planner.variables
    reading = known.reading
    read = [b for b, root in enumerate(reading.roots) if any(type(node.op) is IfElse for node, _ in root.clients if node != "output")]
    certain = [b for b in read if ends_for_certain(reading, b, lazy_in_order=True)]
    assert certain and all(known.ends_for_certain(b) == in_order for b in certain)


@pytest.mark.parametrize("own", [True, False])
def test_under_a_profile_of_memory(own: bool) -> None:
    """Theano runs another machine than the CVM, unless the function has a profile of its own: then the pass has the CVM run all the same."""
    with theano.configparser.change_flags(profile=True, profile_memory=True):
        function = compiled(one_choice, with_pass("cvm_nogc"), profile=None if own else False)
        stock = compiled(one_choice, without_pass("cvm_nogc"), profile=False)
    everything = [id(cell) for cell in function.fn.storage_map.values()]
    reading = annotation(function).reading
    assert any(everything.count(id(function.fn.storage_map[reading.roots[b]])) > 1 for b in reading.loose) == own
    assert (type(function.fn).__name__ == "CVM") == own and theano_memopt.plan_of(function)
    same(story(function), story(stock))


# --- controls --------------------------------------------------------------------------------------------------------


def _too_short(annotated: Any, cautious: Any) -> Any:
    """As if what only a lazy op asks for ran where it stands in the order, and never read anything."""
    certain = {t for t, node in enumerate(annotated.reading.nodes) if node in annotated.reading.certain and not isinstance(node.op, IfElse)}
    buffers = tuple(replace(b, readers=tuple(t for t in b.readers if t in certain)) for b in cautious.buffers)
    tasks = tuple(replace(task, reads=tuple(b for b in task.reads if t in buffers[b].readers)) for t, task in enumerate(cautious.tasks))
    return replace(cautious, buffers=buffers, tasks=tasks), annotated.schedule.order


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("build", [one_choice, nested, shared_between_branches])
def test_lives_that_end_too_early_are_found(build: Any, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cells, fitting):
        monkeypatch.setattr(module, "as_it_runs", _too_short)
    monkeypatch.setattr(cells, "check_slots", lambda *rest: None)
    with pytest.raises(Corrupted):
        story(compiled(build, with_pass("cvm_nogc", storage=storage, verify=True)))
    ours, stock = (compiled(build, mode) for mode in (with_pass("cvm_nogc", storage=storage), without_pass("cvm_nogc")))
    with pytest.raises(AssertionError):
        same(story(ours), story(stock))


def test_the_checker_knows_the_lives_in_every_outcome() -> None:
    """Tenants that lie apart where every node runs once, in the order of the plan, may meet where a node runs later if a branch was not taken."""
    found = annotation(compiled(shared_between_branches, with_pass("cvm_nogc")))
    graph, sequence = cells.as_it_runs(found, found.reading.cautious)
    longer = lives(graph, sequence)
    position = {t: i for i, t in enumerate(found.schedule.order)}
    first = {step: i for i, step in reversed(list(enumerate(s.node for s in found.steps)))}
    shorter = lives(found.reading.cautious, found.schedule.order)
    nodes = [found.reading.nodes[t] for t in found.schedule.order]
    for b, (born, dead) in enumerate(shorter):
        if not found.reading.cautious.buffers[b].pinned:
            assert longer[b][0] <= first[nodes[born]] and first[nodes[dead - 1]] < longer[b][1]
    assert len(position) == len(nodes)
    apart = [
        (a, b)
        for a, b in itertools.combinations(range(len(found.reading.roots)), 2)
        if (shorter[a][1] <= shorter[b][0] or shorter[b][1] <= shorter[a][0]) and longer[a][0] < longer[b][1] and longer[b][0] < longer[a][1]
    ]
    assert apart


def test_a_chain_that_leaves_out_links_through_a_lazy_op_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gave wrong weights once: all inputs of a lazy op were taken for asked."""
    monkeypatch.setattr(annotating, "always_asked", lambda node: node.inputs)

    def build() -> Built:
        c, d, x = inputs()
        branch = chain(x, 4)
        first = ifelse(c, tt.zeros_like(x), branch)
        second = ifelse(c, branch, chain(first, 2))
        return [c, d, x], [chain(second, 2), chain(tt.tanh(first), 4), chain(branch, 2)], {}

    function = compiled(build, with_pass("cvm_nogc"))
    found = annotation(function)
    assert found.steps is None
    monkeypatch.undo()
    function = compiled(build, with_pass("cvm_nogc"))
    assert annotation(function).steps is not None


def test_a_machine_that_is_not_the_cvm_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs_in = MemReuse.runs_in
    monkeypatch.setattr(MemReuse, "runs_in", lambda feature, host_order, *rest: runs_in(feature, "cvm", *rest))
    function = compiled(one_choice, with_pass("vm_nogc"))
    plan = theano_memopt.plan_of(function)
    assert not plan and "another order than the CVM" in plan.reason
    assert shared_cells(function) == 0
    same(story(function), story(compiled(one_choice, without_pass("vm_nogc"))))


# --- a net as Keras makes one ----------------------------------------------------------------------------------------


def residual_net(blocks: int = 3, width: int = 32, batch: int = 64) -> Built:
    """Batch norm and dropout choose by a learning phase."""
    r = np.random.RandomState(0)
    phase, x, y = tt.bscalar("phase"), tt.matrix("x"), tt.matrix("y")
    weights: List[Any] = []
    updates: List[Any] = []

    def shared(value: Any) -> Any:
        weights.append(theano.shared(value))
        return weights[-1]

    def dense(h: Any) -> Any:
        return tt.dot(h, shared(r.normal(0, width**-0.5, (width, width))))

    def norm(h: Any) -> Any:
        scale, shift = shared(np.ones(width)), shared(np.zeros(width))
        mean, var = theano.shared(np.zeros(width)), theano.shared(np.ones(width))
        updates.append((mean, ifelse(phase, mean * 0.9 + h.mean(0) * 0.1, mean)))
        updates.append((var, ifelse(phase, var * 0.9 + h.var(0) * 0.1, var)))
        learning = (h - h.mean(0)) / tt.sqrt(h.var(0) + 1e-3) * scale + shift
        return ifelse(phase, learning, (h - mean) / tt.sqrt(var + 1e-3) * scale + shift)

    def drop(h: Any) -> Any:
        return ifelse(phase, h * tt.gt(tt.cos(1e5 * h), -0.6) / 0.8, h)

    h = x
    for _ in range(blocks):
        h = tt.nnet.relu(norm(dense(drop(tt.nnet.relu(norm(dense(h)))))) + h)
    loss = tt.sqr(h - y).mean()
    updates += [(w, w - 0.01 * g) for w, g in zip(weights, tt.grad(loss, weights))]
    return [phase, x, y], loss, {"updates": updates}


@pytest.mark.parametrize("blocks", [1, nightly_if(True, 3)])
def test_a_residual_net_with_a_learning_phase_keeps_what_its_plan_needs(blocks: int) -> None:
    build = functools.partial(residual_net, blocks)
    ours, stock = (compiled(build, mode) for mode in (with_pass("cvm_nogc", storage="arena"), without_pass("cvm_nogc")))
    x, y = floats(64, 32), floats(64, 32, seed=1)
    for phase in (1, 1, 0, 1, 0, 0, 1, 1, 1):
        same([ours(phase, x, y)], [stock(phase, x, y)])
    for phase in (1, 0):
        kept = probe.held_by_call(ours, phase, x, y).reserved
        plan = theano_memopt.plan_of(ours)
        check_plan(plan)
        assert kept <= 1.05 * ours.fn.plan().schedule.peak
        assert kept <= 0.6 * probe.held_by_call(stock, phase, x, y).reserved
    assert theano_memopt.explain(ours).peak == ours.fn.plan().schedule.peak
    slots = cells.share(annotation(ours), set(), False)
    check_slots(annotation(ours).reading.cautious, annotation(ours).schedule.order, slots)

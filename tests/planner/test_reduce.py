"""Shrinking keeps the optimum, and lifting gives back an order that holds what it promised."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Set, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.families import make_graph, small_graph
from tests.oracles import least_peak_by_all_orders, least_peak_by_memo
from tests.strategies import graphs
from theano_memopt.options import PlanOptions
from theano_memopt.planner import reduce
from theano_memopt.planner.certificate import check_certificate
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.kernel import kernel_for
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, build_graph, graph_from_json
from theano_memopt.planner.reduce import ancestor_masks, direct_predecessors, reduce_graph
from theano_memopt.planner.search import EXHAUSTED, FOUND

GRAPHS = Path(__file__).parent.parent / "graphs"


@given(graphs(most=9))
def test_the_smaller_graph_has_the_same_least_peak(graph: Graph) -> None:
    assert least_peak_by_memo(reduce_graph(graph).graph) == least_peak_by_memo(graph)


@given(graphs(most=12))
def test_a_lifted_order_is_legal_and_has_the_same_peak(graph: Graph) -> None:
    reduced = reduce_graph(graph)
    for order in (reduced.graph.natural_order, tuple(_latest_first(reduced.graph))):
        lifted = reduced.lift(order)
        assert graph.is_legal(lifted)
        assert timeline(graph, lifted).peak == timeline(reduced.graph, order).peak


@given(graphs(most=12))
def test_every_task_is_part_of_one_and_heads_are_parts(graph: Graph) -> None:
    reduced = reduce_graph(graph)
    assert sorted(t for parts in reduced.parts for t in parts) == list(range(len(graph.tasks)))
    assert all(head in parts for head, parts in zip(reduced.heads, reduced.parts))


def test_each_rule_applies_where_it_may_and_not_where_it_must_not() -> None:
    follow = build_graph({"a": 4}, [("make", (), ("a",)), ("use", ("a",), ())])
    assert len(reduce_graph(follow).graph.tasks) == 1
    prepare = build_graph({"a": 4, "b": 1}, [("make", (), ("a",)), ("use", ("a",), ("b",))], keep=("b",))
    assert reduce_graph(prepare).parts == ((0, 1),)
    frees = build_graph({"x": 9, "a": 4, "b": 1}, [("x", (), ("x",)), ("make", ("x",), ("a",)), ("other", (), ("b",)), ("use", ("a", "b"), ())])
    reduced = reduce_graph(frees)
    order = reduced.lift(reduced.graph.natural_order)
    assert order.index(1) == order.index(0) + 1  # `make` frees x: it must not wait for `use`


def test_what_is_counted_is_what_a_look_at_the_graph_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each merge what a task keeps and frees, and what it may free, is as if it were found anew."""
    join, joined = reduce.Merging._join, []

    def watched(merging: Any, p: int, v: int, head: int) -> None:
        join(merging, p, v, head)
        joined.append(head)
        for task in merging.parts:
            assert (merging.keeps[task], merging.frees[task], merging.unsure[task]) == _looked_up(merging, task)
            assert merging.before[task] == _direct(merging, task)

    monkeypatch.setattr(reduce.Merging, "_join", watched)
    for seed in range(120):
        reduce_graph(graph_with_lanes(seed))
        reduce_graph(small_graph(6 + seed % 9, seed))
        reduce_graph(small_graph(6 + seed % 9, seed), fully=False)
    assert len(joined) > 500


def _direct(merging: Any, task: int) -> Set[int]:
    """The tasks that must run before this one, and before no other of them."""
    before = {other for other in merging.parts if merging.ancestors[task] >> other & 1}
    return {p for p in before if not any(merging.ancestors[other] >> p & 1 for other in before)}


def _looked_up(merging: Any, task: int) -> Tuple[int, int, int]:
    buffers = merging.graph.buffers
    keeps = frees = unsure = 0
    for buffer in buffers:
        made_by = [t for t, parts in merging.parts.items() if buffer.producer in parts]
        readers = [t for t, parts in merging.parts.items() if set(buffer.readers) & set(parts) and t not in made_by]
        if task in made_by and (readers or buffer.pinned):
            keeps += buffer.size
        if task in readers and made_by and buffer.size and not buffer.pinned:
            if all(other == task or merging.ancestors[task] >> other & 1 for other in readers):
                frees += buffer.size
            elif not any(merging.ancestors[other] >> task & 1 for other in readers):
                unsure += 1
    return keeps, frees, unsure


@given(graphs(most=9), st.integers(0, 30))
def test_a_reduction_may_be_stopped_at_any_moment(graph: Graph, asked: int) -> None:
    answers = iter([False] * asked)
    reduced = reduce_graph(graph, stop=lambda: next(answers, True))
    assert least_peak_by_memo(reduced.graph) == least_peak_by_memo(graph)
    assert graph.is_legal(reduced.lift(reduced.graph.natural_order))


def test_a_limit_in_seconds_stops_the_reduction_too(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: List[int] = []
    join = reduce.Merging._join
    monkeypatch.setattr(reduce.Merging, "_join", lambda merging, p, v, head: (joined.append(head), join(merging, p, v, head))[1])
    graph = make_graph("fork_join", 70, 0)
    assert not minimise_peak(graph, PlanOptions(seconds=0)).proven and not joined
    minimise_peak(graph, PlanOptions(effort=2_000))
    assert joined


@pytest.mark.parametrize("fully", [False, True])
def test_rules_are_used_until_none_applies(fully: bool) -> None:
    for seed in range(300):
        for graph in (graph_with_lanes(seed), small_graph(4 + seed % 11, seed)):
            smaller = reduce_graph(graph, fully).graph
            assert len(reduce_graph(smaller, fully).graph.tasks) == len(smaller.tasks), seed


def test_the_neighbours_of_a_hub_are_not_tried_after_each_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,209 tasks, half of which wait for one: a look at all of them after each merge took minutes on larger graphs."""
    tried: List[int] = []
    follow = reduce.Merging.try_follow
    monkeypatch.setattr(reduce.Merging, "try_follow", lambda merging, v: (tried.append(v), follow(merging, v))[1])
    graph = make_graph("montage", 2000, 0)
    assert len(reduce_graph(graph).graph.tasks) == 1
    assert len(tried) < 8 * len(graph.tasks)


def test_real_graphs_shrink_to_less_than_two_thirds() -> None:
    for name in ("mlp", "mlp_adam", "lenet", "resnet", "resnet_adam", "lstm", "attention", "attn_adam", "branches", "logreg"):
        graph = graph_from_json(json.loads((GRAPHS / f"{name}.json").read_text()))
        assert len(reduce_graph(graph).graph.tasks) <= 2 * len(graph.tasks) / 3, name


def test_a_wrong_merge_would_be_noticed() -> None:
    """Negative control: merging `right` in front of `right_sum` after the numbers are there is not what the rules allow."""
    graph = build_graph(
        {"L": 6, "R": 6, "l": 1, "r": 1},
        [("left", (), ("L",)), ("right", ("L",), ("R",)), ("left_sum", ("L",), ("l",)), ("right_sum", ("R", "l"), ("r",))],
        keep=("r",),
    )
    best = least_peak_by_all_orders(graph)
    wrongly_merged = build_graph(
        {"L": 6, "l": 1, "r": 1, "workspace": 6},
        [("left", (), ("L",)), ("left_sum", ("L",), ("l",)), ("right+right_sum", ("L", "l"), ("r", "workspace"))],
        keep=("r",),
    )
    assert least_peak_by_all_orders(wrongly_merged) > best


def _latest_first(graph: Graph) -> list[int]:
    missing = [len(p) for p in graph.predecessors]
    ready = [t for t, m in enumerate(missing) if m == 0]
    order = []
    while ready:
        task = ready.pop(ready.index(max(ready)))
        order.append(task)
        for later in graph.successors[task]:
            missing[later] -= 1
            if missing[later] == 0:
                ready.append(later)
    return order


@given(graphs(most=10), st.randoms(use_true_random=False))
def test_any_order_has_a_lower_one_that_is_no_worse(graph: Graph, chance: Any) -> None:
    order: List[int] = []
    while len(order) < len(graph.tasks):
        order.append(chance.choice([t for t in range(len(graph.tasks)) if t not in order and set(graph.predecessors[t]) <= set(order)]))
    whole = reduce_graph(graph)
    assert whole.graph.is_legal(whole.lower(order))
    reduced = reduce_graph(graph, fully=False)  # the tree rule rules orders out, and this may be one of them
    lowered = reduced.lower(order)
    assert timeline(graph, reduced.lift(lowered)).peak <= timeline(graph, order).peak


@st.composite
def graphs_with_trees(draw: Any) -> Graph:
    """Every task but the last few is read by one later task alone: chains and trees, that hang in a small graph of any form."""
    count = draw(st.integers(4, 10))
    inside = draw(st.integers(2, count - 1))
    sizes = {f"b{t}": draw(st.sampled_from([0, 1, 2, 3, 5, 8, 13, 20])) for t in range(count)}
    reads: List[List[str]] = [[] for _ in range(count)]
    for t in range(count - 1):
        readers = [draw(st.integers(t + 1, count - 1))] if t < inside else draw(st.lists(st.integers(t + 1, count - 1), unique=True, max_size=3))
        for reader in readers:
            reads[reader].append(f"b{t}")
    keep = draw(st.lists(st.sampled_from(sorted(sizes)), max_size=2, unique=True))
    return build_graph(sizes, [(f"t{t}", reads[t], (f"b{t}",)) for t in range(count)], keep)


@pytest.mark.long
@settings(max_examples=300)
@given(graphs_with_trees())
def test_trees_in_the_one_best_order_keep_the_optimum(graph: Graph) -> None:
    least = least_peak_by_memo(graph)
    assert least_peak_by_memo(reduce_graph(graph).graph) == least_peak_by_memo(reduce_graph(graph, fully=False).graph) == least


def tree(tasks: int, seed: int) -> Graph:
    rng = random.Random(seed)
    reader = [rng.randint(t + 1, min(tasks - 1, t + 9)) for t in range(tasks - 1)]
    sizes = {f"b{t}": rng.choice((1, 2, 3, 5, 8, 13, 40)) for t in range(tasks)}
    return build_graph(sizes, [(f"t{t}", [f"b{c}" for c in range(t) if reader[c] == t], (f"b{t}",)) for t in range(tasks)], keep=(f"b{tasks - 1}",))


def least_of_a_tree(graph: Graph, root: int) -> int:
    """Liu's recursion in its plain form: (hill, valley) pairs of a subtree, merged by falling hill minus valley."""

    def pairs(task: int) -> List[Tuple[int, int]]:
        steps: List[Tuple[int, int, int]] = []  # (key, hill, valley), both relative to where the child began
        for child in graph.predecessors[task]:
            below = 0
            for hill, valley in pairs(child):
                steps.append((valley - hill, hill - below, valley - below))
                below = valley
        live = 0
        profile = []
        for _, hill, valley in sorted(steps, key=lambda step: step[0]):
            profile.append((live + hill, live + valley))
            live += valley
        profile.append((live + graph.allocates[task], graph.allocates[task]))
        found: List[Tuple[int, int]] = []
        while profile:
            top = max(range(len(profile)), key=lambda i: profile[i][0])
            low = min(range(top, len(profile)), key=lambda i: (profile[i][1], -i))
            found.append((profile[top][0], profile[low][1]))
            profile = profile[low + 1 :]
        return found

    return max(hill for hill, _ in pairs(root))


@pytest.mark.parametrize("tasks", [8, 11, 60, 250])
def test_a_tree_is_ordered_without_a_search(tasks: int) -> None:
    for seed in range(4):
        graph = tree(tasks, seed)
        reduced = reduce_graph(graph)
        order = reduced.lift(reduced.graph.natural_order)
        direct = direct_predecessors(reduced.graph, ancestor_masks(reduced.graph))
        assert sorted(map(len, direct)) == [0] + [1] * (len(direct) - 1), "one chain is left: there is nothing to search"
        assert timeline(graph, order).peak == least_of_a_tree(graph, tasks - 1)
        assert tasks > 11 or least_of_a_tree(graph, tasks - 1) == least_peak_by_memo(graph)


def test_states_are_fewer_on_the_fully_reduced_graph() -> None:
    """The ablation of the tree rule: the same budgets fail and hold, after fewer states."""
    states = {True: 0, False: 0}
    for seed in range(20):
        graph = small_graph(13, seed)
        least = least_peak_by_memo(graph)
        for fully in states:
            kernel = kernel_for(reduce_graph(graph, fully).graph)
            for budget, outcome in ((least, FOUND), (least - 1, EXHAUSTED)):
                search = kernel.search(budget, ())
                assert search.run(10**6) == outcome
                states[fully] += search.states
    assert states[True] < states[False]


def graph_with_lanes(seed: int) -> Graph:
    """Lanes between a fork and a join, either of which may be missing, in a small graph: what they read dies in one of them, in several, or later."""
    rng = random.Random(f"lanes {seed}")
    sizes: Dict[str, int] = {}
    rows: List[Tuple[str, List[str], List[str], List[str]]] = []

    def task(reads: Sequence[str], writes: int = 1, after: Sequence[str] = ()) -> List[str]:
        names = [f"t{len(rows)}.{i}" for i in range(writes)]
        sizes.update((name, rng.choice((0, 1, 2, 3, 5, 8, 13, 20, 40))) for name in names)
        rows.append((f"t{len(rows)}", list(dict.fromkeys(reads)), names, list(after)))
        return names

    before = task([]) if rng.random() < 0.7 else []
    lanes = rng.randint(2, 4)
    source = task(before, 1 + lanes) if rng.random() < 0.8 else []
    fork = [rows[-1][0]] if source else []
    shared, private = rng.random() < 0.6, rng.random() < 0.6
    ends, last_tasks = [], []
    for lane in range(lanes):
        here: List[str] = []
        after = fork
        for i in range(rng.randint(1, 3)):
            reads = list(here) if rng.random() < 0.85 else []
            reads += source[:1] if shared and (i == 0 or rng.random() < 0.2) else []
            reads += source[1 + lane : 2 + lane] if private and rng.random() < 0.5 else []
            reads += before if rng.random() < 0.1 else []
            here = task(reads, rng.choice((1, 1, 1, 2, 0)), after)
            after = [rows[-1][0]]
        ends += here
        last_tasks += after
        if len(rows) > 9:
            break
    if rng.random() < 0.75:
        joined = task([end for end in ends if rng.random() < 0.9] + (source[:1] if rng.random() < 0.6 else []), 1, last_tasks)
        if rng.random() < 0.5:
            task(joined + (source[:1] if rng.random() < 0.3 else []))
    for _ in range(rng.randint(0, 2)):
        task([name for name in sizes if rng.random() < 0.2][:2])
    kept = [name for name in sizes if rng.random() < 0.12]
    rng.shuffle(rows)
    return build_graph(sizes, rows, kept)


def lanes_that_lose_the_optimum(seeds: Sequence[int]) -> Iterator[int]:
    for seed in seeds:
        graph = graph_with_lanes(seed)
        if least_peak_by_memo(reduce_graph(graph).graph) != least_peak_by_memo(graph):
            yield seed


@pytest.mark.parametrize("block", range(4))
def test_lanes_in_one_order_keep_the_optimum(block: int) -> None:
    assert list(lanes_that_lose_the_optimum(range(300 * block, 300 * (block + 1)))) == []


def test_what_is_found_on_graphs_with_lanes_is_the_least_and_its_certificate_holds() -> None:
    for seed in range(150):
        graph = graph_with_lanes(seed)
        schedule = minimise_peak(graph)
        check_certificate(graph, schedule)
        assert schedule.proven and schedule.peak == least_peak_by_memo(graph), seed


def test_lanes_that_a_shared_source_dies_in_must_not_be_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of what the lemma demands: both readers of the source should run before `more`, which lanes by themselves do not tell."""
    graph = build_graph(
        {"source": 40, "x": 5, "y": 20, "z": 4, "for a": 10, "for more": 10, "for b": 10},
        [
            ("fork", (), ("source",)),
            ("a", ("source",), ("x", "for a")),
            ("more", ("x",), ("y", "for more")),
            ("b", ("source",), ("z", "for b")),
            ("join", ("x", "y", "z"), ()),
        ],
    )
    assert least_peak_by_memo(reduce_graph(graph).graph) == least_peak_by_memo(graph) == 59
    monkeypatch.setattr(reduce.Merging, "_adds_up", lambda merging, lane: True)
    assert least_peak_by_memo(reduce_graph(graph).graph) == 79


def test_lanes_that_end_apart_must_not_be_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: what waits for one lane alone sees how far it has come."""
    beside = reduce.Merging._lanes_beside

    def whatever_waits(merging: Any, chain: Sequence[int]) -> List[List[int]]:
        if not merging.before[chain[0]]:
            return beside(merging, chain)
        heads = merging.behind[min(merging.before[chain[0]])]
        return [merging._chain_from(head) for head in sorted(heads) if merging.before[head] == merging.before[chain[0]]]

    def as_it_was(merging: Any, order: Sequence[int], above: Any, below: Any) -> None:
        chain_up(merging, order, above, {t for task in order for t in merging.behind[task] if t not in order})

    chain_up = reduce.Merging._chain_up
    monkeypatch.setattr(reduce.Merging, "_lanes_beside", whatever_waits)
    monkeypatch.setattr(reduce.Merging, "_chain_up", as_it_was)
    assert any(True for _ in lanes_that_lose_the_optimum(range(600)))


def test_what_goes_down_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: by the rule for tasks that go up alone, those that free what they did not make come too late."""
    monkeypatch.setattr(reduce.Merging, "_place", lambda merging, t: (1, merging.keeps[t] - merging.frees[t] - merging.needs[t]))
    assert any(True for _ in lanes_that_lose_the_optimum(range(600)))


def test_an_out_tree_whose_outputs_have_one_reader_each_is_ordered_without_a_search() -> None:
    for seed in range(8):
        rng = random.Random(seed)
        count = rng.choice((9, 12, 80))
        made_by = [0] + [rng.randint(max(0, t - 5), t - 1) for t in range(1, count)]
        sizes = {f"b{t}": rng.choice((1, 2, 3, 5, 8, 13, 40)) for t in range(1, count)}
        rows = [(f"t{t}", [f"b{t}"] if t else [], [f"b{c}" for c in range(1, count) if made_by[c] == t]) for t in range(count)]
        graph = build_graph(sizes, rows)
        reduced = reduce_graph(graph)
        direct = direct_predecessors(reduced.graph, ancestor_masks(reduced.graph))
        assert sorted(map(len, direct)) == [0] + [1] * (len(direct) - 1), "one chain is left: there is nothing to search"
        order = reduced.lift(reduced.graph.natural_order)
        backwards = build_graph(sizes, [(name, writes, reads) for name, reads, writes in rows])  # the same heights, in reverse: an in-tree
        assert timeline(graph, order).peak == timeline(backwards, order[::-1]).peak
        assert timeline(graph, order).peak == (least_peak_by_memo(graph) if count < 13 else least_of_a_tree(backwards, 0))

"""Shrinking keeps the optimum, and lifting gives back an order that holds what it promised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List

from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import least_peak_by_all_orders, least_peak_by_memo
from tests.strategies import graphs
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, build_graph, graph_from_json
from theano_memopt.planner.reduce import reduce_graph

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
    assert (1,) in reduce_graph(frees).parts or (0, 1) in reduce_graph(frees).parts  # `make` frees x: it must not wait for `use`


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
def test_any_order_has_a_lower_one_that_is_no_worse(graph: Graph, random: Any) -> None:
    order: List[int] = []
    while len(order) < len(graph.tasks):
        order.append(random.choice([t for t in range(len(graph.tasks)) if t not in order and set(graph.predecessors[t]) <= set(order)]))
    reduced = reduce_graph(graph)
    lowered = reduced.lower(order)
    assert reduced.graph.is_legal(lowered)
    assert timeline(graph, reduced.lift(lowered)).peak <= timeline(graph, order).peak

"""Moves: every order is legal, the books are right, the goal is reached where it can be, and both twins try the same moves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.families import FAMILIES, make_graph
from tests.oracles import least_peak_by_all_orders
from tests.strategies import graphs
from theano_memopt.planner import kernel
from theano_memopt.planner.heuristics import RULES
from theano_memopt.planner.kernel import CompiledMovedOrder, moved_order
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, build_graph
from theano_memopt.planner.moves import MovedOrder

needs_compiled = pytest.mark.skipif(kernel._MOVES is None, reason="the compiled twin was not built here")


@given(graphs(most=10), st.integers(0, 1000), st.integers(0, 40))
def test_moved_orders_are_legal_and_their_books_are_right(graph: Graph, seed: int, goal: int) -> None:
    moved = MovedOrder(graph, graph.natural_order, seed)
    for _ in range(5):
        moved.run(goal, 8)
        walked = timeline(graph, moved.order)
        assert graph.is_legal(moved.order)
        assert (tuple(moved._heights), tuple(moved._resting)) == (walked.heights, walked.resting)
        assert moved._excess == sum(max(0, height - goal) for height in walked.heights)
        assert [moved.order[place] for place in moved._place] == list(range(len(graph.tasks)))


@pytest.mark.long
@settings(max_examples=200)
@given(graphs(most=7), st.integers(0, 1000))
def test_the_least_peak_is_a_goal_that_is_reached(graph: Graph, seed: int) -> None:
    least = least_peak_by_all_orders(graph)
    moved = moved_order(graph, graph.natural_order, seed)
    tried = moved.run(least, 20_000)
    assert tried < 20_000 and moved.peak == least
    assert least == 0 or moved.run(least - 1, 200) == 200


@needs_compiled
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_twins_agree_move_for_move(family: str) -> None:
    graph = make_graph(family, 70, seed=3)
    for seed, rule in enumerate(("depth first", "breadth first")):
        order = RULES[rule](graph)
        one, other = MovedOrder(graph, order, seed), moved_order(graph, order, seed)
        assert isinstance(other, CompiledMovedOrder)
        for share in (70, 50, 30):
            goal = one.peak * share // 100
            assert one.run(goal, 150) == other.run(goal, 150)
            assert (one.order, one.peak) == (other.order, other.peak)


@needs_compiled
@given(graphs(most=12), st.integers(0, 1000), st.integers(0, 60))
def test_the_twins_agree_on_odd_graphs(graph: Graph, seed: int, goal: int) -> None:
    one, other = MovedOrder(graph, graph.natural_order, seed), moved_order(graph, graph.natural_order, seed)
    for _ in range(3):
        assert one.run(goal, 40) == other.run(goal, 40)
        assert (one.order, one.peak) == (other.order, other.peak)


def test_a_group_moves_at_once() -> None:
    """Two chains that begin with everything and end with little: one whole chain has to go behind the other."""
    rows = [(f"{c}{i}", (f"{c}{i - 1}",) if i else (), (f"{c}{i}",)) for i in range(6) for c in "ab"]
    sizes = {f"{c}{i}": 1 if i == 5 else 10 for i in range(6) for c in "ab"}
    graph = build_graph(sizes, [*rows, ("end", ("a5", "b5"), ())])
    moved = moved_order(graph, graph.natural_order, seed=0)
    assert moved.peak == 30
    moved.run(21, 1000)
    assert moved.peak == 21


def test_sums_beyond_64_bits_go_to_python() -> None:
    graph = build_graph({"a": 1 << 59, "b": 1}, [("t", (), ("a",)), ("u", ("a",), ("b",))])
    assert isinstance(moved_order(graph, (0, 1), 0), MovedOrder)

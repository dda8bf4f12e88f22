"""The peer is honest: its books are right after every move, its orders are legal, and it does improve."""

from __future__ import annotations

import random

import pytest

from benchmarks import simple_rules
from benchmarks.families import make_graph, small_graph
from benchmarks.improved_rule import _Walked, best_improved, improved
from theano_memopt.planner.liveness import timeline


@pytest.mark.parametrize("seed", range(40))
def test_books_are_right_after_every_move(seed: int) -> None:
    graph = small_graph(3 + seed % 12, seed)
    rng = random.Random(seed)
    walked = _Walked(graph, graph.natural_order)
    walked.aim(walked.peak())
    for _ in range(30):
        walked.hot = range(len(walked.order))
        move = walked.propose(rng)
        if move is not None:
            walked.try_move(*move, always=True)
        again = timeline(graph, walked.order)
        assert graph.is_legal(walked.order)
        assert (tuple(walked.heights), tuple(walked.resting[:-1])) == (again.heights, again.resting)
        assert walked.excess == sum(max(0, height - walked.goal) for height in again.heights)


def test_it_improves_and_never_gets_worse() -> None:
    graph = make_graph("block_model", 70, 0)
    name, simple = simple_rules.best_of_all(graph)
    assert best_improved(graph, 0.0) == simple
    order = improved(graph, simple_rules.RULES[name](graph), seconds=600, moves=10_000)
    assert timeline(graph, order).peak < 0.95 * simple
    order = improved(graph, graph.natural_order, seconds=600, moves=1_000)
    assert graph.is_legal(order) and timeline(graph, order).peak <= timeline(graph, graph.natural_order).peak

"""The drawn graphs are what they say: legal, of the size asked for, the same under every hash seed; and the simple rules are legal orders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import simple_rules
from benchmarks.families import FAMILIES, SIZES_OF, make_graph, small_graph
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import build_graph

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(("family", "tasks"), [(family, tasks) for family in sorted(FAMILIES) for tasks in SIZES_OF.get(family, (70, 600))])
def test_size_and_shape(family: str, tasks: int) -> None:
    for seed in range(3):
        graph = make_graph(family, tasks, seed)
        assert 0.8 * tasks <= len(graph.tasks) <= 1.25 * tasks + 50
        assert any(buffer.pinned for buffer in graph.buffers)
        assert all(buffer.size > 0 and buffer.producer is not None for buffer in graph.buffers)
        assert len({buffer.size for buffer in graph.buffers}) > 3
        assert graph.natural_order != tuple(range(len(graph.tasks))), "the numbering gives the order of drawing away"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_seed_is_a_graph(family: str) -> None:
    assert make_graph(family, 70, 3) == make_graph(family, 70, 3)
    assert make_graph(family, 70, 3) != make_graph(family, 70, 4)


DIGEST = """
import hashlib, json
from benchmarks.families import FAMILIES, make_graph, small_graph
from theano_memopt.planner.model import graph_to_json
print(hashlib.sha256(json.dumps([graph_to_json(make_graph(f, 200, 5)) for f in sorted(FAMILIES)]).encode()).hexdigest())
"""


def test_the_hash_seed_has_no_say() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], cwd=str(ROOT), env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, check=True
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("rule", sorted(simple_rules.RULES))
def test_simple_rules_make_legal_orders(rule: str, family: str) -> None:
    graph = make_graph(family, 200, 0)
    assert graph.is_legal(simple_rules.RULES[rule](graph))


def test_no_simple_rule_always_wins() -> None:
    """Otherwise the comparison with the best of all would be one with a single rule."""
    winners = {simple_rules.best_of_all(make_graph(family, 200, seed))[0] for family in FAMILIES for seed in range(2)}
    assert len(winners) >= 2


def test_largest_subtree_first_is_best_on_a_tree() -> None:
    """Two parts: one needs 10 and leaves 1, the other needs 5 and leaves 4. The first must go first: 10, not 14."""
    graph = build_graph(
        {"small": 4, "big": 9, "rest": 1, "out": 1},
        [("a", (), ("small",)), ("b", (), ("big",)), ("c", ("big",), ("rest",)), ("d", ("small", "rest"), ("out",))],
        keep=("out",),
    )
    assert timeline(graph, simple_rules.largest_subtree_first(graph)).peak == 10
    assert timeline(graph, simple_rules.depth_first(graph)).peak == 14


def test_least_growth_takes_the_ready_task_that_frees() -> None:
    graph = build_graph({"a": 5, "b": 5, "c": 1, "d": 1}, [("a", (), ("a",)), ("b", (), ("b",)), ("c", ("a",), ("c",)), ("d", ("b",), ("d",))])
    assert simple_rules.least_growth_first(graph) == [0, 2, 1, 3]


def test_small_graphs_have_everything() -> None:
    graphs = [small_graph(2 + seed % 7, seed) for seed in range(200)]
    assert small_graph(5, 1) == small_graph(5, 1)
    assert [len(graph.tasks) for graph in graphs] == [2 + seed % 7 for seed in range(200)]
    tasks = [task for graph in graphs for task in graph.tasks]
    buffers = [buffer for graph in graphs for buffer in graph.buffers]
    assert any(task.after for task in tasks)
    assert any(len(task.writes) > 1 for task in tasks)
    assert any(buffer.size == 0 for buffer in buffers)
    assert any(buffer.producer is None and buffer.readers for buffer in buffers)
    assert any(buffer.pinned for buffer in buffers)
    assert any(len(buffer.readers) > 1 for buffer in buffers)
    assert any(graph.natural_order != tuple(range(len(graph.tasks))) for graph in graphs)

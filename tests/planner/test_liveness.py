"""The accounting, against an interpreter that really allocates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import peak_by_reference_counts
from tests.strategies import graphs
from theano_memopt.planner.liveness import Walk, live_bytes, lives, peaks, timeline
from theano_memopt.planner.model import Graph, build_graph, graph_from_json

GRAPHS = Path(__file__).parent.parent / "graphs"
KNOWN = json.loads((GRAPHS / "KNOWN.json").read_text())


@given(graphs(most=10))
def test_peak_is_what_an_interpreter_allocates(graph: Graph) -> None:
    assert timeline(graph, graph.natural_order).peak == peak_by_reference_counts(graph, graph.natural_order)


@given(graphs(most=10))
def test_three_ways_of_counting_agree(graph: Graph) -> None:
    order = graph.natural_order
    walked = timeline(graph, order)
    spans = lives(graph, order)
    for step in range(len(order)):
        assert walked.resting[step] == live_bytes(graph, set(order[: step + 1]))
        assert walked.heights[step] == sum(b.size for b, (born, dead) in zip(graph.buffers, spans) if born <= step < dead)


@given(graphs(most=10), st.integers(0, 3))
def test_peaks_at_other_sizes_are_those_of_the_resized_graph(graph: Graph, factor: int) -> None:
    sizes = [[b.size for b in graph.buffers], [b.size * factor + i for i, b in enumerate(graph.buffers)]]
    resized = [Graph(graph.tasks, tuple(replace(b, size=size) for b, size in zip(graph.buffers, row))) for row in sizes]
    assert peaks(graph, graph.natural_order, sizes) == tuple(timeline(other, graph.natural_order).peak for other in resized)


@given(graphs(most=7), st.data())
def test_live_bytes_are_submodular(graph: Graph, data: st.DataObject) -> None:
    """The lemma on which floors and search stand."""

    def down_set() -> frozenset[int]:
        wanted = data.draw(st.sets(st.sampled_from(range(len(graph.tasks)))))
        done = set(wanted)
        for task in reversed(graph.natural_order):
            if task in done:
                done |= set(graph.predecessors[task])
        return frozenset(done)

    x, y = down_set(), down_set()
    assert live_bytes(graph, x | y) + live_bytes(graph, x & y) <= live_bytes(graph, x) + live_bytes(graph, y)


def test_oddities_one_by_one() -> None:
    unread = build_graph({"a": 5, "b": 1}, [("t", (), ("a",)), ("u", (), ("b",))])
    assert timeline(unread, (0, 1)).resting == (0, 0)  # nobody reads it: gone at once
    kept = build_graph({"a": 5, "b": 1}, [("t", (), ("a",)), ("u", (), ("b",))], keep=("a",))
    assert timeline(kept, (0, 1)).heights == (5, 6)  # kept: never gone
    given_input = build_graph({"x": 100, "a": 5}, [("t", ("x",), ("a",))], keep=("x",))
    assert timeline(given_input, (0,)).peak == 5  # inputs belong to the caller
    twice = build_graph({"a": 5, "b": 1}, [("t", (), ("a",)), ("square", ("a",), ("b",))])
    assert Walk(twice).height(0) == 5
    assert timeline(build_graph({}, []), ()).peak == 0


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_real_graphs_have_the_peak_that_was_measured_on_the_host(name: str) -> None:
    graph = graph_from_json(json.loads((GRAPHS / f"{name}.json").read_text()))
    assert len(graph.tasks) == KNOWN[name]["tasks"]
    assert timeline(graph, graph.natural_order).peak == KNOWN[name]["host_toposort"]

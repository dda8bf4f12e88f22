"""Storage as boxes: nothing overlaps, nothing is left out, and the drawing ends at what is held."""

from __future__ import annotations

from typing import Dict, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.plans import chain_of_blocks, real_graph
from tests.strategies import graphs
from theano_memopt.options import PlanOptions
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.model import WORKSPACE, Graph, build_graph
from theano_memopt.planner.plan import make_plan
from theano_memopt.planner.slots import Slots, share_cells
from theano_memopt.report import drawing
from theano_memopt.report.comparison import occupied
from theano_memopt.report.drawing import HELD_OPEN, Drawing, drawn


def check(graph: Graph, order: Tuple[int, ...], found: Drawing, everything: bool = True) -> None:
    by_step: Dict[int, List[Tuple[int, int]]] = {}
    steps: Dict[int, List[int]] = {}
    for box in found.boxes:
        assert 0 <= box.begin < box.end <= len(order) and 0 <= box.low < box.high <= found.top
        for step in range(box.begin, box.end):
            by_step.setdefault(step, []).append((box.low, box.high))
            if box.buffer != HELD_OPEN:
                steps.setdefault(box.buffer, []).append(step)
                assert box.high - box.low == graph.buffers[box.buffer].size
    for heights in by_step.values():
        heights.sort()
        assert all(one[1] <= two[0] for one, two in zip(heights, heights[1:]))
    for b, (born, dead) in enumerate(lives(graph, order)):
        if graph.buffers[b].producer is not None and graph.buffers[b].size and everything:
            assert sorted(steps.get(b, [])) == list(range(born, dead))


@settings(max_examples=80, deadline=None)
@given(graphs(1, 9), st.sampled_from(["off", "share", "arena", "eager"]), st.booleans())
def test_boxes_are_the_lives_and_end_at_what_is_held(graph: Graph, storage: str, kept: bool) -> None:
    plan = make_plan(graph, PlanOptions(storage="share" if storage == "eager" else storage, alignment=1))
    order, lies = plan.schedule.order, plan.storage
    if storage == "eager":
        lies, kept = share_cells(graph, order, peak_limit=plan.schedule.peak), False
    found = drawn(graph, order, lies, kept)
    check(graph, order, found)
    if storage == "eager":
        assert isinstance(lies, Slots) and found.top == lies.reserved_bytes
    elif storage == "off":
        assert found.top == (sum(b.size for b in graph.buffers if b.producer is not None) if kept else timeline(graph, order).peak)
    else:
        assert found.top == plan.reserved_bytes


@pytest.mark.parametrize("name", ["lstm", "attention", "mlp_adam"])
def test_what_is_given_back_is_stacked_up_to_what_is_occupied(name: str) -> None:
    graph = real_graph(name)
    plan = make_plan(graph)
    order = plan.schedule.order
    eager = share_cells(graph, order, peak_limit=plan.schedule.peak)
    found = drawn(graph, order, eager, kept=False)
    heights = occupied(graph, order, eager, kept=False)[0]
    tops = [max((box.high for box in found.boxes if box.begin <= step < box.end), default=0) for step in range(len(order))]
    unseen = max(heights) / drawing.THIN * len(graph.buffers)
    assert found.top == max(heights) and all(height - unseen <= top <= height for top, height in zip(tops, heights))
    check(graph, order, found, everything=False)


def test_small_variables_do_not_cut_the_others_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = real_graph("mlp_adam")
    plan = make_plan(graph, PlanOptions(storage="off"))
    pieces = len(drawn(graph, plan.schedule.order, None, kept=False).boxes)
    monkeypatch.setattr(drawing, "LOW", 10**9)
    assert pieces < len(drawn(graph, plan.schedule.order, None, kept=False).boxes)


def test_a_large_graph_makes_no_more_boxes_than_can_be_drawn() -> None:
    graph = chain_of_blocks(300)
    found = drawn(graph, graph.natural_order, None, kept=False)
    assert len(graph.tasks) == 1800 and len(found.boxes) < 10 * len(graph.tasks)


def test_a_workspace_lies_above_what_is_kept() -> None:
    graph = build_graph({"a": 10, "b": 20, "w": 7}, [("one", (), ("a",)), ("two", ("a",), ("b", "w"))], keep=("b",), kinds={"w": WORKSPACE})
    found = drawn(graph, (0, 1), None, kept=True)
    check(graph, (0, 1), found)
    (workspace,) = [box for box in found.boxes if graph.buffers[box.buffer].is_workspace]
    assert (workspace.low, workspace.high, found.top) == (30, 37, 37)

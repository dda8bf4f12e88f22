"""Cutting a piece out of an order and putting it back never changes anything but its steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import graphs
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.improve import WalkedOrder
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, worked_example


@given(graphs(most=10), st.data())
def test_a_piece_has_the_heights_of_its_steps(graph: Graph, data: st.DataObject) -> None:
    order = graph.natural_order
    start = data.draw(st.integers(0, len(order) - 1))
    stop = data.draw(st.integers(start + 1, len(order)))
    piece = WalkedOrder(graph, order).cut_out(start, stop)
    inside = timeline(piece.graph, range(len(piece.graph.tasks)))
    whole = timeline(graph, order)
    assert tuple(h + piece.constant for h in inside.heights[1:]) == whole.heights[start:stop]
    assert tuple(h + piece.constant for h in inside.resting[1:]) == whole.resting[start:stop]


@given(graphs(most=10), st.data())
def test_putting_back_keeps_the_books(graph: Graph, data: st.DataObject) -> None:
    walked = WalkedOrder(graph, graph.natural_order)
    for _ in range(3):
        start = data.draw(st.integers(0, len(walked.order) - 1))
        stop = data.draw(st.integers(start + 1, len(walked.order)))
        piece = walked.cut_out(start, stop)
        best = minimise_peak(piece.graph)
        before = walked.peak
        walked.put_back(piece, best.order)
        again = timeline(graph, walked.order)
        assert graph.is_legal(walked.order)
        assert (tuple(walked.heights), tuple(walked.resting), walked.peak) == (again.heights, again.resting, again.peak)
        assert walked.peak <= before


def test_a_piece_can_lower_the_peak() -> None:
    walked = WalkedOrder(worked_example(), (0, 1, 2, 3, 4))
    piece = walked.cut_out(0, 4)
    walked.put_back(piece, minimise_peak(piece.graph).order)
    assert walked.peak == 8 and walked.peak_outside(0, 4) == 3

"""The checker takes every true certificate and no forged one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.oracles import least_peak_by_memo
from tests.strategies import graphs
from theano_memopt.planner.certificate import (
    Chains,
    Exhausted,
    Footprint,
    Open,
    Proven,
    Rejected,
    check_certificate,
    check_proof,
    schedule_from_json,
    schedule_to_json,
)
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, build_graph, worked_example


@pytest.mark.long
@given(graphs(most=9), st.data())
def test_exhaustion_is_checked_by_searching_again(graph: Graph, data: st.DataObject) -> None:
    least = least_peak_by_memo(graph)
    critical = tuple(data.draw(st.lists(st.integers(0, len(graph.tasks) - 1), max_size=3, unique=True)))
    check_proof(graph, least, Exhausted(least - 1, critical, 0))
    with pytest.raises(Rejected) as no:
        check_proof(graph, least + 1, Exhausted(least, critical, 0))
    assert no.value.reason == "not-exhausted"
    with pytest.raises(Rejected) as no:
        check_proof(graph, least + 1, Exhausted(least - 1, critical, 0))
    assert no.value.reason == "weak-proof"


@given(graphs(most=9))
def test_true_schedules_pass_and_survive_json(graph: Graph) -> None:
    schedule = minimise_peak(graph)
    check_certificate(graph, schedule)
    assert schedule_from_json(graph, json.loads(json.dumps(schedule_to_json(graph, schedule)))) == schedule


@pytest.mark.long
@settings(max_examples=200)
@given(graphs(least=2, most=9), st.data())
def test_forged_schedules_are_rejected_by_name(graph: Graph, data: st.DataObject) -> None:
    true = minimise_peak(graph)
    forgeries = {
        "illegal-order": dataclasses.replace(true, order=(true.order[0],) * len(true.order)),
        "wrong-timeline": dataclasses.replace(true, timeline=dataclasses.replace(true.timeline, peak=true.peak - 1)),
        "worse-than-baseline": dataclasses.replace(true, baseline_peak=true.peak - 1),
        "impossible-floor": dataclasses.replace(true, certificate=dataclasses.replace(true.certificate, floor=true.peak + 1)),
        "not-least": dataclasses.replace(true, certificate=Proven(true.peak - 1, true.certificate.proof)),
    }
    reason = data.draw(st.sampled_from(sorted(forgeries)))
    with pytest.raises(Rejected) as no:
        check_certificate(graph, forgeries[reason])
    assert no.value.reason == reason


@pytest.mark.long
@given(graphs(least=2, most=8))
def test_a_worse_order_cannot_be_called_least(graph: Graph) -> None:
    true = minimise_peak(graph)
    worse = max((tuple(order) for order in _some_orders(graph)), key=lambda order: timeline(graph, order).peak)
    claimed = timeline(graph, worse)
    assume(claimed.peak > true.peak)
    proof = true.certificate.proof
    if isinstance(proof, Exhausted):
        proof = dataclasses.replace(proof, budget=claimed.peak - 1)
    forged = dataclasses.replace(true, order=worse, timeline=claimed, certificate=Proven(claimed.peak, proof), baseline_peak=claimed.peak)
    with pytest.raises(Rejected):
        check_certificate(graph, forged)


BRANCHES = worked_example()


@pytest.mark.parametrize(
    "proof, reason",
    [
        (Footprint(0), "weak-proof"),
        (Footprint(99), "unknown-task"),
        (Chains((), ()), "broken-proof"),
        (Chains((2, 3), (((6, (0,)),),)), "broken-proof"),
        (Chains((2,), (((8, (0,)),),), "middle"), "broken-proof"),
        (Chains((2,), (((7, (0,)),),)), "broken-chain"),  # buffer L has only 6 bytes
        (Chains((2,), (((6, (0,)), (1, (1,))),)), "broken-chain"),  # R need not be there before left_sum
        (Chains((4,), (((1, (2,)), (1, (3,)), (6, (0,))),)), "broken-chain"),  # L can be dead before add
        (Chains((2,), (((6, (9,)),),)), "broken-chain"),
        (Chains((2,), (((-6, (0,)),),)), "broken-chain"),
        (Chains((2,), (((6, ()),),)), "broken-chain"),
        (Chains((2,), (((6, (0, 0)),),)), "broken-chain"),
        (Chains((2, 4), (((6, (0,)),), ())), "weak-proof"),
        (Chains((77,), ((),)), "unknown-task"),
        (Exhausted(7, (55,), 3), "unknown-task"),
        (Exhausted(5, (), 3), "weak-proof"),
        (Exhausted(8, (), 3), "not-exhausted"),
    ],
)
def test_broken_proofs_are_rejected_by_name(proof: Any, reason: str) -> None:
    with pytest.raises(Rejected) as no:
        check_proof(BRANCHES, 9, proof)
    assert no.value.reason == reason


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"peak_bytes": 7}, "wrong-timeline"),
        ({"floor_bytes": "8"}, "bad-form"),
        ({"status": "perhaps"}, "bad-form"),
        ({"gap_percent": 3.0}, "wrong-gap"),
        ({"order": ["left", "right"]}, "illegal-order"),
        ({"order": ["left", "nobody"]}, "unknown-name"),
        ({"order": None}, "bad-form"),
        ({"certificate": {"reason": None, "proof": {"by": "magic"}}}, "bad-form"),
        ({"certificate": {"reason": None}}, "unknown-name"),
    ],
)
def test_results_that_do_not_fit_are_rejected_by_name(change: Any, reason: str) -> None:
    data = schedule_to_json(BRANCHES, minimise_peak(BRANCHES))
    schedule_from_json(BRANCHES, data)
    with pytest.raises(Rejected) as no:
        schedule_from_json(BRANCHES, {**data, **change})
    assert no.value.reason == reason


def test_proven_and_open_are_two_types() -> None:
    proven = minimise_peak(BRANCHES)
    assert isinstance(proven.certificate, Proven) and proven.gap_percent == 0
    open_ = dataclasses.replace(proven, certificate=Open(7, Footprint(2), "the effort of 1 states was spent"))
    check_certificate(BRANCHES, open_)
    assert not open_.proven and open_.gap_percent == pytest.approx(100 / 7)
    assert schedule_from_json(BRANCHES, schedule_to_json(BRANCHES, open_)) == open_


def test_an_empty_graph_has_a_peak_of_nothing() -> None:
    empty = build_graph({}, [])
    schedule = minimise_peak(empty)
    check_certificate(empty, schedule)
    assert schedule.peak == 0 and schedule.proven


def _some_orders(graph: Graph) -> list[list[int]]:
    def extend(key: Any) -> list[int]:
        order: list[int] = []
        while len(order) < len(graph.tasks):
            order.append(min((t for t in range(len(graph.tasks)) if t not in order and all(p in order for p in graph.predecessors[t])), key=key))
        return order

    return [extend(key) for key in (lambda t: t, lambda t: -t, lambda t: -graph.allocates[t], lambda t: len(graph.predecessors[t]))]

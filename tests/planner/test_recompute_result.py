"""The JSON answer: accepted as it is, and refused by name with any one of its figures changed."""

from __future__ import annotations

import copy
import json
from typing import Any, Callable, Dict

import pytest
from hypothesis import given, settings

from tests.planner.test_evict import frozen
from tests.planner.test_openings import summed_up_in_the_weight
from tests.strategies import programs
from theano_memopt.options import PlanOptions, RecomputeOptions
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.program import Program, worked_program
from theano_memopt.planner.recompute import plan_recompute
from theano_memopt.planner.recompute_result import check_form, check_result, result_to_json

FEW = RecomputeOptions(simulations=40, order=PlanOptions(effort=500))


@settings(max_examples=60, deadline=None)
@given(programs(most=7))
def test_what_was_planned_is_accepted_after_json(program: Program) -> None:
    answer = json.loads(json.dumps(result_to_json(plan_recompute(program, budget_share=0.7, options=FEW)), allow_nan=False))
    check_form(answer)
    check_result(program, answer)


def test_the_keys_that_everyone_may_rely_on() -> None:
    answer = result_to_json(plan_recompute(worked_program(), budget_bytes=10))
    assert {key: answer[key] for key in list(answer)[:9]} == {
        "peak_bytes": 10,
        "ordered_peak_bytes": 17,
        "budget_bytes": 10,
        "status": "fits",
        "extra_seconds": 1.0,
        "extra_percent": 20.0,
        "floor_bytes": 10,
        "sequence": ["expand", "sum", "blow_up", "shrink", "expand", "join"],
        "again": [{"name": "expand", "times": 1}],
    }
    assert result_to_json(plan_recompute(worked_program(), extra_time=1))["budget_bytes"] is None
    assert result_to_json(plan_recompute(worked_program(), budget_bytes=9))["status"] == "impossible"


FORGED: Dict[str, Any] = {
    "peak": (lambda a: a.update(peak_bytes=9), "wrong-peak"),
    "a rerun is left out": (lambda a: a["sequence"].pop(4), "wrong-peak"),
    "a task is left out": (lambda a: a["sequence"].pop(1), "left-out"),
    "an unknown task": (lambda a: a["sequence"].append("nobody"), "unknown-task"),
    "cost": (lambda a: a.update(extra_seconds=0.5), "wrong-cost"),
    "percent": (lambda a: a.update(extra_percent=1), "wrong-cost"),
    "again": (lambda a: a["again"][0].update(times=2), "wrong-again"),
    "ordered peak": (lambda a: a.update(ordered_peak_bytes=11), "wrong-order"),
    "order with a repeat": (lambda a: a["order"].insert(0, "expand"), "wrong-order"),
    "floor": (lambda a: (a.update(floor_bytes=11), a.update(peak_bytes=10)), "impossible-floor"),
    "owner of the floor": (lambda a: a["floor"].update(task="sum"), "weak-floor"),
    "an unknown owner": (lambda a: a["floor"].update(task="nobody"), "unknown-task"),
    "status": (lambda a: a.update(status="over"), "wrong-status"),
    "budget": (lambda a: a.update(budget_bytes=8), "wrong-status"),
    "opened": (lambda a: a.update(opened=["x"]), "not-a-chain"),
    "opened what is not": (lambda a: a.update(opened=["nothing"]), "unknown-value"),
    "floor of the runs": (lambda a: a["runs"].update(floor_bytes=11, gap_percent=None), "impossible-floor"),
    "order of the runs": (lambda a: a["runs"]["order"].reverse(), "illegal-order"),
}


@pytest.mark.parametrize("name", sorted(FORGED))
def test_one_figure_that_is_not_true(name: str) -> None:
    spoil: Callable[[Dict[str, Any]], object] = FORGED[name][0]
    answer = copy.deepcopy(result_to_json(plan_recompute(worked_program(), budget_bytes=10)))
    spoil(answer)
    check_form(answer)
    with pytest.raises(Rejected) as caught:
        check_result(worked_program(), answer)
    assert caught.value.reason == FORGED[name][1]


def test_worse_than_without_repeats() -> None:
    program = worked_program()
    bad = result_to_json(plan_recompute(program, extra_time=0))
    good = result_to_json(plan_recompute(program, budget_bytes=10))
    bad["order"], bad["ordered_peak_bytes"] = good["sequence"], good["peak_bytes"]
    with pytest.raises(Rejected, match="wrong-order"):
        check_result(program, bad)


@pytest.mark.parametrize(
    "spoil", [{"sequence": 3}, {"again": [3]}, {"floor": {}}, {"peak_bytes": True}, {"opened": [1]}, {"runs": {}}, {"extra_seconds": 10**400}]
)
def test_what_has_another_form(spoil: Dict[str, Any]) -> None:
    answer = {**result_to_json(plan_recompute(worked_program(), budget_bytes=10)), **spoil}
    with pytest.raises(ValueError):
        check_form(answer)


def test_opened_chains_are_named_and_checked() -> None:
    program = summed_up_in_the_weight(6)
    answer = result_to_json(plan_recompute(program, budget_bytes=34))
    assert answer["opened"] == ["w5"]
    check_result(program, answer)
    answer["opened"] = []
    with pytest.raises(Rejected):
        check_result(program, answer)


def test_a_real_answer() -> None:
    program = frozen("z_attention")
    answer = json.loads(json.dumps(result_to_json(plan_recompute(program, budget_share=0.5, options=FEW))))
    check_result(program, answer)
    answer["sequence"].remove(answer["again"][-1]["name"])
    with pytest.raises(Rejected):
        check_result(program, answer)

"""A plan holds together, survives JSON, and a broken one does not pass."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import graphs
from theano_memopt.options import STORAGE, PlanOptions
from theano_memopt.planner.arena import Arena
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.model import Graph, graph_from_json, worked_example
from theano_memopt.planner.plan import check_plan, make_plan, plan_from_json, plan_to_json
from theano_memopt.planner.slots import Slots, StorageRejected

GRAPHS = Path(__file__).parent.parent / "graphs"


@pytest.mark.parametrize("storage", STORAGE)
@given(graph=graphs(most=9), data=st.data())
def test_the_chain_of_inequalities(storage: str, graph: Graph, data: st.DataObject) -> None:
    may = data.draw(st.one_of(st.none(), st.sets(st.integers(0, len(graph.buffers) - 1)))) if graph.buffers else None
    plan = make_plan(graph, PlanOptions(storage=storage, alignment=1), may_share=may)
    check_plan(plan)
    everything = sum(b.size for b in graph.buffers if b.producer is not None)
    assert plan.schedule.floor <= plan.schedule.peak
    if may is None:
        assert plan.schedule.peak <= plan.reserved_bytes <= everything
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


@pytest.mark.parametrize("name", ["mlp", "mlp_adam", "lenet", "resnet", "resnet_adam", "lstm", "attention", "attn_adam", "branches", "logreg"])
def test_real_graphs_fit_into_an_arena_as_large_as_their_peak(name: str) -> None:
    graph = graph_from_json(json.loads((GRAPHS / f"{name}.json").read_text()))
    plan = make_plan(graph, PlanOptions(storage="arena", alignment=1))
    check_plan(plan)
    assert plan.reserved_bytes == plan.schedule.peak


def test_sharing_is_real() -> None:
    plan = make_plan(worked_example())
    assert isinstance(plan.storage, Slots) and plan.storage.cell_of[0] == plan.storage.cell_of[1]
    assert plan.reserved_bytes == 9 < 15


def test_overlapping_storage_is_caught() -> None:
    plan = make_plan(worked_example())
    assert isinstance(plan.storage, Slots)
    one_cell = dataclasses.replace(plan, storage=dataclasses.replace(plan.storage, cell_of=(0, 0, 1, 1, 1)))
    with pytest.raises(StorageRejected):
        check_plan(one_cell)
    arena = make_plan(worked_example(), PlanOptions(storage="arena", alignment=1))
    assert isinstance(arena.storage, Arena)
    on_top = dataclasses.replace(arena, storage=dataclasses.replace(arena.storage, offsets=(0,) * 5))
    with pytest.raises(StorageRejected):
        check_plan(on_top)


@pytest.mark.parametrize(
    "change", [{"storage": {"by": "shelf"}}, {"storage": {"by": "cells"}}, {"options": {"haste": 1}}, {"schedule": None}, {"may_share": ["nothing"]}]
)
def test_what_is_not_a_plan_is_refused(change: Any) -> None:
    data = plan_to_json(make_plan(worked_example()))
    with pytest.raises(Rejected):
        plan_from_json({**data, **change})
    with pytest.raises(Rejected):
        plan_from_json(7)

"""Chains in given values: what opening them changes, and where it pays."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.planner.test_evict import frozen
from tests.strategies import programs
from theano_memopt.options import RecomputeOptions
from theano_memopt.planner.openings import blocking, may_be_opened, open_chains
from theano_memopt.planner.program import Program, program_from_json
from theano_memopt.planner.recompute import check_recomputed, plan_recompute
from theano_memopt.planner.replay import replay


def summed_up_in_the_weight(steps: int) -> Program:
    """A recurrent net: each state is made of the weight and needed backward, where its gradient is added into the weight."""
    values = [{"name": "w", "bytes": 10}]
    tasks = []
    for i in range(steps):
        values.append({"name": f"h{i}", "bytes": 8})
        tasks.append({"name": f"h{i}", "reads": ["w"] + ([f"h{i - 1}"] if i else []), "writes": [f"h{i}"], "seconds": 1})
    for i in reversed(range(steps)):
        before = f"w{i + 1}" if i < steps - 1 else "w"
        values.append({"name": f"w{i}", "bytes": 10, "overwrites": before, "keep": i == 0})
        tasks.append({"name": f"add{i}", "reads": [before, f"h{i}"], "writes": [f"w{i}"], "seconds": 1})
    return program_from_json({"values": values, "tasks": tasks})


def test_the_first_of_the_chain_blocks_everything() -> None:
    program = summed_up_in_the_weight(6)
    labels = [program.values[v].label for v in blocking(program, program.natural_order)]
    assert labels == ["w5"]  # the others overwrite what is no given value


def test_opening_pays_where_the_chain_blocks_more_than_it_costs() -> None:
    program = summed_up_in_the_weight(6)
    closed = plan_recompute(program, budget_bytes=34, options=RecomputeOptions(may_open=False))
    assert (closed.peak, closed.status, closed.opened) == (48, "over", ())
    plan = plan_recompute(program, budget_bytes=34)
    check_recomputed(plan)
    assert plan.status == "fits" and [program.values[v].label for v in plan.opened] == ["w5"]
    assert plan.peak <= 34 and plan.again


def test_a_chain_of_unknown_size_is_not_opened() -> None:
    assert not any(may_be_opened(frozen("mlp"), v) for v in range(len(frozen("mlp").values)))
    lstm = frozen("z_lstm")
    assert [lstm.values[v].label for v in range(len(lstm.values)) if may_be_opened(lstm, v)] == ["Gemm.209", "Gemm.313"]


@given(programs())
def test_opened_programs_run_the_same_orders_with_more_bytes_at_most(program: Program) -> None:
    opened = [v for v in range(len(program.values)) if may_be_opened(program, v)]
    other = open_chains(program, opened)
    here, there = replay(program, program.natural_order).peak, replay(other, program.natural_order).peak
    assert here <= there <= here + sum(program.values[v].size for v in opened)
    assert open_chains(program, []) is program


def test_only_a_chain_may_be_opened() -> None:
    with pytest.raises(StopIteration):
        next(v for v in range(6) if may_be_opened(frozen("branches"), v))

"""A quick look at what could run again: the peak of a real sequence, the same every time, and never more effort than it is given."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.planner.test_evict import frozen
from tests.strategies import programs
from theano_memopt.planner.glance import OPENED_AT_MOST, SIMULATIONS, TASK_RUNS, glance
from theano_memopt.planner.program import Program
from theano_memopt.planner.recompute import plan_recompute
from theano_memopt.planner.repeat_floors import largest_footprint, repeat_floor
from theano_memopt.planner.replay import replay

NAMES = ("attention", "lenet", "lstm", "mlp", "mlp_adam", "resnet", "scan_rnn", "tanh_shared")
EXTRA_TIME = 0.1


@pytest.mark.parametrize("name", NAMES)
def test_on_real_programs_it_stays_within_its_effort_and_finds_most_of_what_a_plan_saves(name: str) -> None:
    program = frozen(name)
    plan = plan_recompute(program, extra_time=EXTRA_TIME)
    found = glance(program, plan.ordered, EXTRA_TIME)
    assert found is not None and found == glance(program, plan.ordered, EXTRA_TIME)
    assert (found.simulations - 2 * (OPENED_AT_MOST + 1)) * len(program.tasks) <= TASK_RUNS
    assert plan.ordered_peak - found.peak >= 0.6 * (plan.ordered_peak - plan.peak)


@settings(max_examples=60, deadline=None)
@given(programs(most=6))
def test_no_floor_is_undercut_and_the_given_order_is_no_better(program: Program) -> None:
    for extra_time in (0.0, 0.5):
        found = glance(program, program.natural_order, extra_time)
        assert found is not None and repeat_floor(program).bytes <= found.peak <= replay(program, program.natural_order).peak
        assert largest_footprint(program) <= found.peak


def test_where_nothing_may_run_again_nothing_is_found() -> None:
    """Negative control: the same program saves something else."""
    program = frozen("mlp")
    once = replace(program, tasks=tuple(replace(task, again=False) for task in program.tasks))
    peak = replay(program, program.natural_order).peak
    found = [glance(one, one.natural_order, EXTRA_TIME) for one in (once, program)]
    assert found[0] is not None and found[1] is not None and found[0].peak == peak > found[1].peak


def test_a_larger_program_gets_fewer_simulations_and_then_none() -> None:
    program = frozen("lstm")
    least, most = SIMULATIONS
    tasks = len(program.tasks)
    full, short, none = (glance(program, program.natural_order, EXTRA_TIME, task_runs=runs * tasks) for runs in (most, least, least - 1))
    assert full is not None and full.full and short is not None and not short.full and short.simulations < full.simulations
    assert none is None

"""The programs of the benchmark: of the size that was asked for, the same every time, and worth planning."""

from __future__ import annotations

import random

import pytest

from benchmarks.program_families import FAMILIES, make_program
from benchmarks.recompute import random_program
from theano_memopt.options import RecomputeOptions
from theano_memopt.planner.recompute import check_recomputed, plan_recompute


@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_of_the_family(family: str) -> None:
    for seed in (0, 1):
        program = make_program(family, 50, seed)
        assert program == make_program(family, 50, seed)
        assert 50 <= len(program.tasks) <= 90
        assert program.seconds > 0 and any(value.keep for value in program.values)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tenth_less_memory_costs_little(family: str) -> None:
    plan = plan_recompute(make_program(family, 50, 1), budget_share=0.9, options=RecomputeOptions(simulations=100))
    check_recomputed(plan)
    assert plan.status == "fits" and 0 < plan.extra_percent < 5


def test_random_programs_have_every_oddity() -> None:
    chance = random.Random(1)
    made = [program for program in (random_program(chance) for _ in range(200)) if program is not None]
    values = [value for program in made for value in program.values]
    assert len(made) > 50
    assert any(value.view_of is not None for value in values) and any(value.overwrites is not None for value in values)
    assert any(not task.again for program in made for task in program.tasks)

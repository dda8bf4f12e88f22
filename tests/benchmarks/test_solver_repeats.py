"""Plans with repeats beside a constraint solver that keeps to one order: its sequences are legal by our accounting, it finds what brute force
finds, no floor is above them, and the planner takes about as little extra time. `make nightly` brings the solver; without it nothing here runs.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import Sequence

import pytest

from benchmarks.program_families import FAMILIES, make_program
from benchmarks.recompute import random_program
from benchmarks.solver_repeats import least_time_along, without_aliasing
from tests.oracles import all_sequences
from theano_memopt.planner.recompute import check_recomputed, plan_recompute
from theano_memopt.planner.replay import replay

pytest.importorskip("ortools")
pytestmark = pytest.mark.nightly

PATIENCE = 60.0
FAR = 1.3
"""Ours may take so many times the extra time of the best sequence along one order; mostly it takes less, since it chooses the order."""


def test_the_solver_finds_what_brute_force_finds() -> None:
    """Sequences that run a task more than twice are not among those of brute force, so the solver may be better, and must say how."""
    chance, compared = random.Random(1), 0
    while compared < 25:
        odd = random_program(chance)
        sequences = [] if odd is None else list(islice(all_sequences(without_aliasing(odd)), 2_000))
        if odd is None or not 0 < len(sequences) < 2_000:
            continue
        program = without_aliasing(odd)
        order = program.natural_order
        along = [replay(program, sequence) for sequence in sequences if _in_stages(sequence, order)]
        for budget in sorted({one.peak for one in along if one.peak})[:2]:
            best = min(one.extra_seconds for one in along if one.peak <= budget)
            judged = least_time_along(program, order, budget, PATIENCE)
            assert judged.status == "optimal" and judged.sequence is not None and judged.extra is not None
            replayed = replay(program, judged.sequence)
            assert replayed.peak <= budget and replayed.extra_seconds <= best + 1e-6
            if max(map(judged.sequence.count, judged.sequence)) <= 2:
                assert replayed.extra_seconds == pytest.approx(best, abs=1e-6)
            compared += 1


def _in_stages(sequence: Sequence[int], order: Sequence[int]) -> bool:
    """Are the first runs in this order, and what runs again between two of them in it too, each task once at most?"""
    if tuple(dict.fromkeys(sequence)) != tuple(order):
        return False
    place, seen, last = {task: i for i, task in enumerate(order)}, set(), -1
    for task in sequence:
        if place[task] <= last:
            return False
        last = place[task] if task in seen else -1
        seen.add(task)
    return True


def test_a_budget_below_every_sequence_has_none() -> None:
    """The control: a byte less than the least peak, and the solver has nothing to show."""
    program = without_aliasing(make_program("vgg", 20, 1))
    floor = plan_recompute(program, extra_time=0).floor.bytes
    judged = least_time_along(program, program.natural_order, floor - 1, PATIENCE)
    assert judged.status == "infeasible" and judged.sequence is None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tasks", [20, 40])
def test_beside_the_least_time_of_one_order(family: str, tasks: int) -> None:
    program = without_aliasing(make_program(family, tasks, 1))
    for share in (0.9, 0.75, 0.5):
        plan = plan_recompute(program, budget_share=share)
        check_recomputed(plan)
        assert plan.budget is not None
        judged = least_time_along(program, plan.ordered, plan.budget, PATIENCE)
        if judged.sequence is None or judged.extra is None:
            continue
        replayed = replay(program, judged.sequence)
        assert plan.floor.bytes <= replayed.peak <= plan.budget
        assert replayed.extra_seconds == pytest.approx(judged.extra * program.seconds, abs=1e-6 * program.seconds)
        assert plan.status == "fits" and plan.extra_seconds <= FAR * replayed.extra_seconds + 1e-9

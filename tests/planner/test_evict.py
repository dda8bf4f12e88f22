"""The simulation always makes a legal sequence, its quick accounting is that of `replay`, and the twins agree step for step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import programs
from theano_memopt.planner import evict_kernel
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.evict import TICKS, Rule, flatten
from theano_memopt.planner.evict_kernel import CompiledEviction, PythonEviction, eviction_for
from theano_memopt.planner.program import Program, program_from_json, worked_program
from theano_memopt.planner.replay import replay

FROZEN = Path(__file__).parent.parent / "programs" / "recompute"
needs_compiled = pytest.mark.skipif(evict_kernel._LIBRARY is None, reason="the compiled twin was not built here")
rules = st.builds(Rule, st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.booleans(), st.integers(0, 2))


def frozen(name: str) -> Program:
    return program_from_json(json.loads((FROZEN / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.long
@settings(max_examples=400)
@given(programs(most=9), rules, st.integers(0, 40))
def test_a_simulation_is_legal_and_its_peak_is_that_of_replay(program: Program, rule: Rule, budget: int) -> None:
    kernel = PythonEviction(flatten(program))
    sequence = kernel.evict(program.natural_order, budget, rule, [1.0] * len(program.values), 10 * TICKS)
    replayed = replay(program, sequence)
    assert replayed.peak == kernel.peak_of(sequence)
    shorter = kernel.drop_needless(sequence, max(budget, replayed.peak))
    assert replay(program, shorter).peak <= max(budget, replayed.peak)


@given(programs(), st.data())
def test_the_quick_accounting_is_that_of_replay(program: Program, data: st.DataObject) -> None:
    sequence = list(program.natural_order)
    for _ in range(3):
        again = [t for t, task in enumerate(program.tasks) if task.again]
        if again:
            sequence.insert(data.draw(st.integers(0, len(sequence))), data.draw(st.sampled_from(again)))
    try:
        peak = replay(program, sequence).peak
    except Rejected as no:
        assert no.reason == "too-early" or eviction_for(flatten(program)).peak_of(sequence) == -1
    else:
        assert eviction_for(flatten(program)).peak_of(sequence) == peak


@pytest.mark.long
@settings(max_examples=200)
@given(programs(most=9), st.integers(0, 40))
def test_nothing_needless_is_left(program: Program, budget: int) -> None:
    """No single repeat can be left out any more."""
    kernel = eviction_for(flatten(program))
    sequence = kernel.evict(program.natural_order, budget, Rule(1, 1, 2), [1.0] * len(program.values), 10 * TICKS)
    budget = max(budget, kernel.peak_of(sequence))
    kept = kernel.drop_needless(sequence, budget)
    for step, task in enumerate(kept):
        if task in kept[:step]:
            assert not 0 <= kernel.peak_of(kept[:step] + kept[step + 1 :]) <= budget


@pytest.mark.long
@needs_compiled
@settings(max_examples=300)
@given(programs(most=12), rules, st.integers(0, 40), st.integers(0, 5))
def test_the_twins_agree_on_odd_programs(program: Program, rule: Rule, budget: int, power: int) -> None:
    python, compiled = PythonEviction(flatten(program)), eviction_for(flatten(program))
    assert isinstance(compiled, CompiledEviction)
    worth = [2.0 ** (v % 3 - power) for v in range(len(program.values))]
    for limit in (10 * TICKS, 2 * TICKS):
        one, other = (kernel.evict(program.natural_order, budget, rule, worth, limit) for kernel in (python, compiled))
        assert one == other
        assert python.trial(program.natural_order, budget, rule, worth, limit) == compiled.trial(program.natural_order, budget, rule, worth, limit)
    if one:
        assert python.peak_of(one) == compiled.peak_of(one)
        assert python.drop_needless(one, budget) == compiled.drop_needless(one, budget)
        assert python.drop_needless(one, budget, TICKS // 9) == compiled.drop_needless(one, budget, TICKS // 9)


@needs_compiled
@pytest.mark.parametrize("name", ["z_attention", "z_resnet", "mlp_adam", "lstm"])
def test_the_twins_agree_run_for_run_on_real_programs(name: str) -> None:
    program = frozen(name)
    python, compiled = PythonEviction(flatten(program)), eviction_for(flatten(program))
    assert isinstance(compiled, CompiledEviction)
    peak = compiled.peak_of(program.natural_order)
    worth = [1.0] * len(program.values)
    for share, rule in ((0.8, Rule(0, 1, 2)), (0.6, Rule(1, 2, 3, True, 1)), (0.5, Rule(2, 1, 1, False, 2))):
        one, other = (kernel.evict(program.natural_order, int(peak * share), rule, worth, 3 * TICKS) for kernel in (python, compiled))
        assert one == other and len(one) > len(program.tasks)
        assert python.peak_of(one) == compiled.peak_of(one) == replay(program, one).peak


def test_it_is_given_up_when_it_costs_more_than_the_limit() -> None:
    kernel = PythonEviction(flatten(worked_program()))
    assert kernel.evict((0, 1, 2, 3, 4), 10, Rule(1, 1, 1), [1.0] * 6, 2 * TICKS) == [0, 1, 2, 3, 0, 4]
    assert kernel.evict((0, 1, 2, 3, 4), 10, Rule(1, 1, 1), [1.0] * 6, TICKS) == []


def test_what_is_worth_much_is_given_up_last() -> None:
    """Two results of equal size and cost: the one with the greater worth stays."""
    program = program_from_json(
        {
            "values": [{"name": name, "bytes": size} for name, size in (("a", 4), ("b", 4), ("c", 4))],
            "tasks": [
                {"name": "a", "writes": ["a"], "seconds": 1},
                {"name": "b", "writes": ["b"], "seconds": 1},
                {"name": "c", "writes": ["c"], "seconds": 1},
                {"name": "use", "reads": ["a", "b"], "seconds": 1},
            ],
        }
    )
    kernel = PythonEviction(flatten(program))
    assert kernel.evict((0, 1, 2, 3), 8, Rule(0, 0, 2), [4.0, 1.0, 1.0], 9 * TICKS) == [0, 1, 2, 1, 3]
    assert kernel.evict((0, 1, 2, 3), 8, Rule(0, 0, 2), [1.0, 4.0, 1.0], 9 * TICKS) == [0, 1, 2, 0, 3]


def test_sizes_beyond_64_bits_go_to_python() -> None:
    program = program_from_json({"values": [{"name": "a", "bytes": 1 << 61}], "tasks": [{"name": "t", "writes": ["a"], "seconds": 1}]})
    assert isinstance(eviction_for(flatten(program)), PythonEviction)
    assert eviction_for(flatten(program)).peak_of([0]) == 1 << 61

"""Floors under every sequence with repeats: never above what brute force reaches, and not to be forged."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import assume, given, settings

from tests.oracles import all_sequences, run_for_real
from tests.planner.test_evict import frozen
from tests.strategies import programs
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.openings import may_be_opened, open_chains
from theano_memopt.planner.program import Program, program_from_json, worked_program
from theano_memopt.planner.repeat_floors import RepeatFloor, check_repeat_floor, repeat_floor
from theano_memopt.planner.replay import replay

MOST = 1_000


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(programs(most=5))
def test_no_sequence_goes_below_the_floor(program: Program) -> None:
    sequences = list(islice(all_sequences(program), MOST))
    assume(len(sequences) < MOST)
    least = min(run_for_real(program, sequence)[0] for sequence in sequences)  # type: ignore[index]
    floor = repeat_floor(program)
    assert floor.bytes <= least
    check_repeat_floor(program, floor)
    for effort in (0, 1, 3):  # broken off, it still is a floor
        early = repeat_floor(program, effort)
        assert early.bytes <= least
        check_repeat_floor(program, early)


@pytest.mark.long
@settings(max_examples=50, deadline=None)
@given(programs(most=5))
def test_no_sequence_of_the_opened_program_goes_below_it_either(program: Program) -> None:
    other = open_chains(program, [v for v in range(len(program.values)) if may_be_opened(program, v)])
    sequences = list(islice(all_sequences(other), MOST))
    assume(len(sequences) < MOST)
    assert repeat_floor(program).bytes <= min(replay(other, sequence).peak for sequence in sequences)


@settings(max_examples=40, deadline=None)
@given(programs(most=4))
def test_a_floor_above_the_least_peak_is_refused(program: Program) -> None:
    sequences = list(islice(all_sequences(program), MOST))
    assume(len(sequences) < MOST)
    least = min(replay(program, sequence).peak for sequence in sequences)
    for owner in (None, *range(len(program.tasks))):
        with pytest.raises(Rejected, match="weak-floor"):
            check_repeat_floor(program, RepeatFloor(least + 1, owner))


def chain(steps: int) -> Program:
    """Forward f1 .. fn, backward gn .. g1, each 1 byte; g of a step reads f of that step and the g before it."""
    values = [{"name": f"f{i}", "bytes": 1} for i in range(1, steps + 1)] + [
        {"name": f"g{i}", "bytes": 1, "keep": i == 1} for i in range(1, steps + 1)
    ]
    tasks = [{"name": f"f{i}", "reads": [f"f{i - 1}"] if i > 1 else [], "writes": [f"f{i}"], "seconds": 1} for i in range(1, steps + 1)]
    tasks += [
        {"name": f"g{i}", "reads": [f"f{i}"] + ([f"g{i + 1}"] if i < steps else []), "writes": [f"g{i}"], "seconds": 1} for i in range(1, steps + 1)
    ]
    return program_from_json({"values": values, "tasks": tasks})


def test_the_way_back_is_higher_than_a_footprint() -> None:
    """Of f and g the one that is made last is made beside the other: three bytes, and a footprint has three too; with more on the way, four."""
    assert repeat_floor(chain(2)).bytes == 3
    wide = program_from_json(
        {
            "values": [
                {"name": "a", "bytes": 4},
                {"name": "b", "bytes": 4},
                {"name": "x", "bytes": 3},
                {"name": "y", "bytes": 3},
                {"name": "out", "bytes": 0},
            ],
            "tasks": [
                {"name": "a", "writes": ["a"], "seconds": 1},
                {"name": "b", "writes": ["b"], "seconds": 1},
                {"name": "x", "reads": ["a"], "writes": ["x"], "seconds": 1},
                {"name": "y", "reads": ["b"], "writes": ["y"], "seconds": 1},
                {"name": "out", "reads": ["x", "y"], "writes": ["out"], "seconds": 1},
            ],
        }
    )
    floor = repeat_floor(wide)
    assert (floor.bytes, floor.owner) == (10, 4)  # x was there while y was made of b: 3 + 4 + 3; a footprint is 7
    assert min(replay(wide, sequence).peak for sequence in islice(all_sequences(wide), MOST)) == 10


def test_what_is_kept_is_there_at_the_end() -> None:
    program = program_from_json(
        {
            "values": [{"name": f"k{i}", "bytes": 5, "keep": True} for i in range(3)],
            "tasks": [{"name": f"t{i}", "writes": [f"k{i}"], "seconds": 1} for i in range(3)],
        }
    )
    assert repeat_floor(program) == RepeatFloor(15, None, repeat_floor(program).least)


@pytest.mark.parametrize(("name", "floor"), [("z_mlp", 3_145_728), ("z_mlp_adam", 4_259_840), ("z_lenet", 7_372_800), ("branches", 9_600_000)])
def test_real_programs(name: str, floor: int) -> None:
    """Of the mlp three layers are there at once however often things run again; a footprint is two."""
    program = frozen(name)
    found = repeat_floor(program)
    assert found.bytes >= floor
    check_repeat_floor(program, found)
    with pytest.raises(Rejected):
        check_repeat_floor(program, replace(found, bytes=found.bytes + found.bytes // 8))


def test_a_floor_of_nobody_and_a_check_that_takes_too_long() -> None:
    with pytest.raises(Rejected, match="unknown-task"):
        check_repeat_floor(worked_program(), RepeatFloor(1, 77))
    found = repeat_floor(frozen("z_resnet"))
    with pytest.raises(Rejected, match="unfinished"):
        check_repeat_floor(frozen("z_resnet"), found, effort=1)

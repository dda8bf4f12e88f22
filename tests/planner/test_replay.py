"""The accounting of sequences with repeats, against an interpreter with real bytes; and what must not pass."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import run_for_real
from tests.strategies import programs
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.program import Program, program_from_json, worked_program
from theano_memopt.planner.replay import replay


@pytest.mark.long
@settings(max_examples=300)
@given(programs(), st.data())
def test_replay_says_what_running_for_real_says(program: Program, data: st.DataObject) -> None:
    """Any sequence, legal or not: the numbered order with runs put in anywhere."""
    sequence = list(program.natural_order)
    for _ in range(data.draw(st.integers(0, 4))):
        sequence.insert(data.draw(st.integers(0, len(sequence))), data.draw(st.integers(0, len(program.tasks) - 1)))
    real = run_for_real(program, sequence)
    if real is None:
        with pytest.raises(Rejected):
            replay(program, sequence)
    else:
        replayed = replay(program, sequence)
        assert replayed.peak == real[0]
        assert replayed.seconds == sum(program.tasks[t].seconds for t in sequence)
        assert real[1] == run_for_real(program, program.natural_order)[1]  # type: ignore[index]


def _program(values: List[Dict[str, Any]], tasks: List[Dict[str, Any]]) -> Program:
    return program_from_json({"values": values, "tasks": [{"seconds": 1, **task} for task in tasks]})


def in_place() -> Program:
    """`change` destroys `a`, which `late` reads; `b` is kept."""
    return _program(
        [{"name": "a", "bytes": 8}, {"name": "b", "bytes": 8, "overwrites": "a", "keep": True}, {"name": "c", "bytes": 1, "keep": True}],
        [{"name": "make", "writes": ["a"]}, {"name": "late", "reads": ["a"], "writes": ["c"]}, {"name": "change", "reads": ["a"], "writes": ["b"]}],
    )


def reason(program: Program, sequence: List[int]) -> str:
    with pytest.raises(Rejected) as caught:
        replay(program, sequence)
    return caught.value.reason


def test_a_sequence_that_leaves_out_a_rerun_reads_what_was_overwritten() -> None:
    assert replay(in_place(), [0, 2, 0, 1]).peak == 17  # `a` is made again for `late`
    assert reason(in_place(), [0, 2, 1]) == "overwritten"


def test_leaving_out_a_rerun_that_only_saves_room_raises_the_peak() -> None:
    assert replay(worked_program(), [0, 1, 2, 3, 0, 4]).peak == 10
    assert replay(worked_program(), [0, 1, 2, 3, 4]).peak == 17


def test_an_overwriter_needs_a_fresh_copy() -> None:
    assert replay(in_place(), [0, 1, 2, 0, 2]).peak == 9  # the first b is let go, since the second one is kept
    assert reason(in_place(), [0, 1, 2, 2]) == "overwritten"


def test_a_task_that_may_not_run_again_does_not() -> None:
    program = _program([{"name": "a", "bytes": 1}], [{"name": "throw dice", "writes": ["a"], "again": False}])
    assert reason(program, [0, 0]) == "not-again"


def test_every_task_runs_and_whatever_it_needs_comes_first() -> None:
    program = worked_program()
    assert reason(program, [0, 1, 2, 3]) == "left-out"
    assert reason(program, [1, 0, 2, 3, 4]) == "not-there"
    assert reason(program, [0, 1, 2, 3, 4, 9]) == "unknown-task"
    waits = _program([], [{"name": "first"}, {"name": "second", "after": ["first"]}])
    assert reason(waits, [1, 0]) == "too-early"
    assert replay(waits, [0, 1, 0]).again == ((0, 1),)


def test_what_is_kept_must_be_there_at_the_end() -> None:
    """`b` is kept, and the sequence makes a view of it and overwrites that: no program may say so, but a copy may be lost."""
    program = _program(
        [{"name": "g", "bytes": 4}, {"name": "h", "bytes": 4, "overwrites": "g"}, {"name": "k", "bytes": 2, "keep": True}],
        [{"name": "read", "reads": ["g"], "writes": ["k"]}, {"name": "update", "reads": ["g"], "writes": ["h"]}],
    )
    assert replay(program, [0, 1]).peak == 2
    assert reason(program, [1, 0]) == "overwritten"
    assert reason(program, [0, 1, 0]) == "overwritten"  # the given value is gone for good


def test_a_view_keeps_its_memory_and_dies_with_it() -> None:
    program = _program(
        [
            {"name": "a", "bytes": 8},
            {"name": "v", "bytes": 0, "view_of": "a"},
            {"name": "big", "bytes": 4},
            {"name": "out", "bytes": 1, "keep": True},
        ],
        [
            {"name": "make", "writes": ["a"]},
            {"name": "look", "reads": ["a"], "writes": ["v"]},
            {"name": "fill", "writes": ["big"]},
            {"name": "use", "reads": ["v"], "writes": ["out"]},
        ],
    )
    assert replay(program, [0, 1, 2, 3]).heights == (8, 8, 12, 9)
    assert replay(program, [2, 0, 1, 3]).heights == (4, 8, 8, 9)

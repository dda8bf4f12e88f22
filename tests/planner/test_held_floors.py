"""What is made once is held for who needs it later: never more than what brute force shows, and not to be forged."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import islice
from typing import Any, Tuple

import pytest
from hypothesis import assume, given, settings

from benchmarks.recompute import random_program
from tests.oracles import all_sequences, run_for_real
from tests.strategies import programs
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.held_floors import Chain, check_held, held_floors
from theano_memopt.planner.openings import may_be_opened, open_chains
from theano_memopt.planner.program import CostedTask, Program, program_from_json
from theano_memopt.planner.recompute import check_recomputed, plan_recompute
from theano_memopt.planner.recompute_result import check_result, result_to_json
from theano_memopt.planner.repeat_floors import check_repeat_floor, repeat_floor

MOST = 1_000


def mostly_once(program: Program, mask: int) -> Program:
    """The same tasks, of which those with a bit may run again."""
    tasks = [CostedTask(t.reads, t.writes, t.after, t.seconds, bool(mask >> i & 1), t.label) for i, t in enumerate(program.tasks)]
    return Program(program.values, tuple(tasks))


@pytest.mark.long
@pytest.mark.parametrize("mask", [0b00000, 0b00110, 0b11010])
@settings(max_examples=40, deadline=None)
@given(given_program=programs(least=3, most=5))
def test_no_sequence_goes_below_what_is_held(mask: int, given_program: Program) -> None:
    program = mostly_once(given_program, mask)
    floors = held_floors(program, 0)
    opened = open_chains(program, [v for v in range(len(program.values)) if may_be_opened(program, v)])
    for which in (program, opened):
        sequences = list(islice(all_sequences(which), MOST))
        assume(len(sequences) < MOST)
        least = min(run_for_real(which, sequence)[0] for sequence in sequences)  # type: ignore[index]
        assert all(floor.bytes <= least for floor in floors) and repeat_floor(program).bytes <= least
    check_repeat_floor(program, repeat_floor(program))


def test_it_is_the_least_peak_where_the_other_floors_are_not() -> None:
    """Of random programs beside every sequence; else the test above could pass with no chain at all."""
    chance, with_chains, better = random.Random(3), 0, 0
    while with_chains < 25:
        given_program = random_program(chance)
        if given_program is None:
            continue
        program = mostly_once(given_program, chance.getrandbits(len(given_program.tasks)))
        sequences = list(islice(all_sequences(program), MOST)) if held_floors(program, 0) else []
        if not 0 < len(sequences) < MOST:
            continue
        with_chains += 1
        floor, least = repeat_floor(program), min(run_for_real(program, sequence)[0] for sequence in sequences)  # type: ignore[index]
        check_repeat_floor(program, floor)
        assert floor.bytes <= least
        better += bool(floor.chains) and floor.bytes == least
    assert better >= 3


def dropout(layers: int, again: bool = False) -> Program:
    """Forward and backward through layers that each have a mask drawn by chance, from which the backward pass reads what is left of it."""
    values: Any = [{"name": "x0", "bytes": 4, "given": True}]
    tasks: Any = []

    def task(name: str, size: int, reads: Any, **more: Any) -> None:
        values.append({"name": name, "bytes": size, "keep": name == "d0"})
        tasks.append({"name": name, "reads": reads, "writes": [name], "seconds": 1, **more})

    for i in range(1, layers + 1):
        task(f"noise{i}", 4, [], again=again)
        task(f"mask{i}", 3, [f"noise{i}"])
        task(f"x{i}", 4, [f"x{i - 1}", f"mask{i}"])
    task("loss", 9, [f"x{layers}"])
    for i in range(layers, 0, -1):
        task(f"d{i - 1}", 4, ["loss" if i == layers else f"d{i}", f"x{i - 1}", f"mask{i}"])
    return program_from_json({"values": values, "tasks": tasks})


@pytest.mark.parametrize("layers", [2, 3, 10])
def test_every_mask_is_there_when_the_gradient_begins(layers: int) -> None:
    """The noise, or the smaller mask that was made of it; the first step back reads the loss, 9, and a result of 4, and makes 4."""
    program = dropout(layers)
    floor = repeat_floor(program)
    assert (floor.bytes, program.tasks[floor.owner or 0].label) == (3 * layers + 17, f"d{layers - 1}")
    assert repeat_floor(dropout(layers, again=True)).bytes < floor.bytes
    plan = plan_recompute(program, budget_bytes=floor.bytes)
    check_recomputed(plan)
    assert plan.floor == floor and plan.peak <= floor.bytes + 8  # near enough to say that the floor is of use
    assert plan_recompute(program, budget_bytes=floor.bytes - 1).status == "impossible"


def test_a_kept_result_that_is_made_once_is_held_to_the_end() -> None:
    values = [{"name": "kept", "bytes": 6, "keep": True}, {"name": "big", "bytes": 9}, {"name": "sum", "bytes": 1, "keep": True}]
    tasks = [
        {"name": "draw", "writes": ["kept"], "seconds": 1, "again": False},
        {"name": "big", "writes": ["big"], "after": ["draw"], "seconds": 1},
        {"name": "sum", "reads": ["big"], "writes": ["sum"], "seconds": 1},
    ]
    assert repeat_floor(program_from_json({"values": values, "tasks": tasks})).bytes == 16
    tasks[0]["again"] = True
    assert repeat_floor(program_from_json({"values": values, "tasks": tasks})).bytes < 16


def test_the_answer_carries_its_chains() -> None:
    program = dropout(3)
    answer = json.loads(json.dumps(result_to_json(plan_recompute(program, budget_bytes=26))))
    assert answer["floor"]["task"] == "d2" and len(answer["floor"]["chains"]) == 2
    check_result(program, answer)
    with pytest.raises(Rejected, match="weak-floor"):
        check_result(program, {**answer, "floor": {**answer["floor"], "chains": answer["floor"]["chains"][1:]}})


def _named(program: Program, *names: str) -> Tuple[int, ...]:
    labels = [value.label for value in program.values]
    return tuple(map(labels.index, names))


@pytest.mark.parametrize(
    ("chain", "amount", "reason"),
    [
        (("mask1",), 3, "not made once"),  # the mask can be made again
        (("noise1", "x1"), 3, "is not made from"),
        (("x0", "x1"), 3, "not made once"),  # given
        (("noise1", "mask1"), 4, "counted"),  # the mask has three bytes
        (("noise2", "mask2", "x2"), 3, "nobody needs"),  # the loss reads x2, and nobody later
        (("noise1",), 3, "nobody needs"),  # the noise itself is read by the mask alone
        ((), 3, "not contents"),
        (("noise1", "mask1"), -3, "not contents"),
    ],
)
def test_chains_that_are_none_are_refused(chain: Tuple[str, ...], amount: int, reason: str) -> None:
    program = dropout(2)
    loss = [task.label for task in program.tasks].index("loss")
    assert check_held(program, loss, ((3, _named(program, "noise1", "mask1")), (3, _named(program, "noise2", "mask2")))) == 6
    with pytest.raises(Rejected, match=reason):
        check_held(program, loss, ((amount, _named(program, *chain)),))


def test_a_content_is_not_counted_twice_nor_before_it_is_made() -> None:
    program = dropout(2)
    labels = [task.label for task in program.tasks]
    chain: Chain = (2, _named(program, "noise1", "mask1"))
    with pytest.raises(Rejected, match="counted-twice"):
        check_held(program, labels.index("loss"), (chain, chain))
    with pytest.raises(Rejected, match="no-chain"):
        check_held(program, labels.index("noise1"), (chain,))
    with pytest.raises(Rejected, match="counted-twice"):  # it reads that mask itself
        check_held(program, labels.index("x1"), (chain,))
    found = repeat_floor(program)
    with pytest.raises(Rejected, match="weak-floor"):
        check_repeat_floor(program, replace(found, bytes=found.bytes + 1))


def test_a_view_is_not_made_by_who_shows_it() -> None:
    """`show` runs once, but the memory that it shows can be made again for `late`."""
    values = [
        {"name": "a", "bytes": 5},
        {"name": "b", "bytes": 5, "view_of": "a"},
        {"name": "s", "bytes": 1},
        {"name": "big", "bytes": 9},
        {"name": "t", "bytes": 1},
        {"name": "out", "bytes": 1, "keep": True},
    ]
    tasks = [
        {"name": "make", "writes": ["a"], "seconds": 1},
        {"name": "show", "reads": ["a"], "writes": ["b"], "seconds": 1, "again": False},
        {"name": "first", "reads": ["b"], "writes": ["s"], "seconds": 1},
        {"name": "big", "reads": ["s"], "writes": ["big"], "seconds": 1},
        {"name": "small", "reads": ["big"], "writes": ["t"], "seconds": 1},
        {"name": "late", "reads": ["a", "t"], "writes": ["out"], "seconds": 1},
    ]
    program = program_from_json({"values": values, "tasks": tasks})
    assert repeat_floor(program).bytes == 10
    assert min(run_for_real(program, sequence)[0] for sequence in islice(all_sequences(program), MOST)) == 10  # type: ignore[index]

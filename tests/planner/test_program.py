"""Programs: what is read is what was written, and whatever is wrong is named with its place."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given

from tests.strategies import programs
from theano_memopt.planner.model import GraphError
from theano_memopt.planner.program import Program, program_from_json, program_to_json, worked_program


@given(programs())
def test_json_loses_nothing(program: Program) -> None:
    assert program_from_json(json.loads(json.dumps(program_to_json(program)))) == program


@given(programs())
def test_the_natural_order_is_legal(program: Program) -> None:
    assert program.is_legal(program.natural_order)
    assert not program.is_legal(program.natural_order[:-1])


GOOD = {
    "values": [
        {"name": "w", "bytes": 4},
        {"name": "a", "bytes": 8},
        {"name": "v", "bytes": 0, "view_of": "a"},
        {"name": "b", "bytes": 8, "overwrites": "a", "keep": True},
    ],
    "tasks": [
        {"name": "make", "reads": ["w"], "writes": ["a"], "seconds": 1},
        {"name": "look", "reads": ["a"], "writes": ["v"], "seconds": 0},
        {"name": "use", "reads": ["v"], "writes": [], "seconds": 0.5},
        {"name": "change", "reads": ["a"], "writes": ["b"], "seconds": 1, "again": False},
    ],
}


def test_contents_memory_and_overwriters() -> None:
    program = program_from_json(GOOD)
    assert program.content == (0, 1, 1, 3)
    assert program.memory == (0, 1, 1, 1)
    assert program.overwriter == (None, 3, 3, None)
    assert program.needs[3] == (0, 1, 2)  # whoever looks at the content comes first


def _value(i: int, **changes: Any) -> Any:
    return lambda data: data["values"][i].update(changes)


def _task(i: int, **changes: Any) -> Any:
    return lambda data: data["tasks"][i].update(changes)


BAD = {
    "cycle": (_task(0, reads=["w", "v"]), "cycle", "tasks"),
    "after makes a cycle": (_task(0, after=["change"]), "cycle", "tasks"),
    "view of an unknown value": (_value(2, view_of="nobody"), "unknown-value", "values[2].view_of"),
    "overwrites an unknown value": (_value(3, overwrites="nobody"), "unknown-value", "values[3].overwrites"),
    "view of a number": (_value(2, view_of=7), "bad-form", "values[2].view_of"),
    "two overwriters": (
        lambda data: (data["values"].append({"name": "c", "bytes": 8, "overwrites": "v"}), data["tasks"][2].update(writes=["c"])),
        "two-overwriters",
        "values[4].overwrites",
    ),
    "view and in place": (_value(3, view_of="a"), "bad-form", "values[3]"),
    "a view of itself": (lambda data: (_value(2, view_of="v")(data), _task(1, reads=["v"])(data)), "cycle", "values[2]"),
    "kept and overwritten": (_value(1, keep=True), "kept-but-overwritten", "values[1].keep"),
    "lies in what its task does not read": (_task(1, reads=["w"]), "not-read", "values[2]"),
    "given but written": (_value(1, given=True), "given-but-written", "values[1].given"),
    "a given view": (lambda data: data["values"].append({"name": "x", "bytes": 1, "view_of": "w"}), "given-in-another", "values[4]"),
    "negative seconds": (_task(0, seconds=-1), "bad-seconds", "tasks[0].seconds"),
    "missing seconds": (lambda data: data["tasks"][1].pop("seconds"), "bad-seconds", "tasks[1].seconds"),
    "seconds that are no number": (_task(1, seconds="1"), "bad-seconds", "tasks[1].seconds"),
    "seconds that are not a number": (_task(1, seconds=float("nan")), "bad-seconds", "tasks[1].seconds"),
    "seconds without end": (_task(1, seconds=float("inf")), "bad-seconds", "tasks[1].seconds"),
    "negative bytes": (_value(0, bytes=-1), "bad-size", "values[0].bytes"),
    "half a byte": (_value(0, bytes=0.5), "bad-size", "values[0].bytes"),
    "two values of one name": (_value(1, name="w"), "duplicate-name", "values[1]"),
    "two tasks of one name": (_task(1, name="make"), "duplicate-name", "tasks[1]"),
    "two producers": (_task(2, writes=["a"]), "two-producers", "tasks[2].writes"),
    "an unknown value": (_task(2, reads=["nobody"]), "unknown-value", "tasks[2].reads"),
    "after an unknown task": (_task(2, after=["nobody"]), "unknown-task", "tasks[2].after"),
    "again is no flag": (_task(2, again="no"), "bad-form", "tasks[2].again"),
    "a misspelt key": (_value(3, overwrite="a"), "unknown-key", "values[3]"),
    "values are no list": (lambda data: data.update(values={}), "bad-form", "values"),
    "a task is no object": (lambda data: data["tasks"].append(3), "bad-form", "tasks[4]"),
}


def test_the_good_one_is_good() -> None:
    assert program_from_json(copy.deepcopy(GOOD)).seconds == 2.5


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input_is_named_with_its_place(name: str) -> None:
    spoil, reason, where = BAD[name]
    data = copy.deepcopy(GOOD)
    spoil(data)
    with pytest.raises(GraphError) as caught:
        program_from_json(data)
    assert (caught.value.reason, caught.value.where) == (reason, where)
    assert "\n" not in str(caught.value)


def test_a_program_that_a_host_makes_is_checked_too() -> None:
    program = worked_program()
    with pytest.raises(GraphError, match="duplicate-name"):
        Program(program.values[:-1] + (program.values[0],), program.tasks)
    with pytest.raises(GraphError, match="inconsistent"):
        Program(program.values, program.tasks[:-1])

"""The answer of `recompute` as one JSON object, and its check, which believes nothing of it.

    peak_bytes, extra_seconds, extra_percent, again    of `sequence`, by `replay`
    ordered_peak_bytes                                 of `order`, which runs every task once
    floor_bytes, floor                                 no sequence is lower; `floor` says who shows it (repeat_floors.py)
    runs                                               the schedule of the runs as an ordinary graph, with its own floor and proof
    opened                                             in-place results that have a place of their own

>>> from theano_memopt.planner.program import worked_program
>>> from theano_memopt.planner.recompute import plan_recompute
>>> answer = result_to_json(plan_recompute(worked_program(), budget_bytes=10))
>>> answer["sequence"], answer["again"], answer["status"]
(['expand', 'sum', 'blow_up', 'shrink', 'expand', 'join'], [{'name': 'expand', 'times': 1}], 'fits')
>>> check_result(worked_program(), answer)
>>> check_result(worked_program(), {**answer, "peak_bytes": 9})
Traceback (most recent call last):
    ...
theano_memopt.planner.certificate.Rejected: wrong-peak: replaying the sequence gives a peak of 10 bytes, claimed are 9
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from theano_memopt.planner.certificate import Rejected, check_certificate, schedule_from_json, schedule_to_json
from theano_memopt.planner.held_floors import Chain
from theano_memopt.planner.instances import instances
from theano_memopt.planner.openings import may_be_opened, open_chains
from theano_memopt.planner.program import Program
from theano_memopt.planner.recompute import Recomputed, status_of
from theano_memopt.planner.repeat_floors import RepeatFloor, check_repeat_floor
from theano_memopt.planner.replay import replay

MOST_NUMBER = 1e300
CLOSE = 1e-9
"""Sums of seconds may differ by so much of the whole."""


def result_to_json(plan: Recomputed) -> Dict[str, Any]:
    tasks = plan.program.tasks
    return {
        "peak_bytes": plan.peak,
        "ordered_peak_bytes": plan.ordered_peak,
        "budget_bytes": plan.budget,
        "status": plan.status,
        "extra_seconds": plan.extra_seconds,
        "extra_percent": plan.extra_percent,
        "floor_bytes": plan.floor.bytes,
        "sequence": [tasks[task].label for task in plan.sequence],
        "again": [{"name": tasks[task].label, "times": times} for task, times in plan.again],
        "opened": [plan.program.values[v].label for v in plan.opened],
        "order": [tasks[task].label for task in plan.ordered],
        "floor": _floor_to_json(plan),
        "simulations": plan.simulations,
        "runs": schedule_to_json(plan.instances.graph, plan.schedule),
    }


def _floor_to_json(plan: Recomputed) -> Dict[str, Any]:
    floor, program = plan.floor, plan.given
    answer: Dict[str, Any] = {"task": None if floor.owner is None else program.tasks[floor.owner].label, "least": floor.least}
    if floor.chains:
        answer["chains"] = [{"bytes": amount, "values": [program.values[c].label for c in chain]} for amount, chain in floor.chains]
    return answer


FORM: Dict[str, Tuple[type, ...]] = {
    "peak_bytes": (int,),
    "ordered_peak_bytes": (int,),
    "budget_bytes": (int, type(None)),
    "status": (str,),
    "extra_seconds": (int, float),
    "extra_percent": (int, float),
    "floor_bytes": (int,),
    "sequence": (list,),
    "again": (list,),
    "opened": (list,),
    "order": (list,),
    "floor": (dict,),
    "runs": (dict,),
}


def check_form(data: Any) -> None:
    """`ValueError`, with one sentence, for what has not the form of a result at all."""
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object (top level)")
    for key, kinds in FORM.items():
        if key not in data:
            raise ValueError(f"{key!r} is missing")
        if not isinstance(data[key], kinds) or isinstance(data[key], bool) or (float in kinds and not abs(data[key]) < MOST_NUMBER):
            raise ValueError(f"{key!r} has another form")
    for key in ("sequence", "order", "opened"):
        for at, name in enumerate(data[key]):
            if not isinstance(name, str):
                raise ValueError(f"{key}[{at}] is not a name")
    if not all(isinstance(row, dict) and isinstance(row.get("name"), str) and type(row.get("times")) is int for row in data["again"]):
        raise ValueError("every entry of 'again' has a name and a number of times")
    if type(data["floor"].get("least")) is not int or not isinstance(data["floor"].get("task", 0), (str, type(None))):
        raise ValueError("'floor' names a task, or null, and the least size that counts")
    if not isinstance(data["floor"].get("chains", []), list) or not all(map(_is_chain, data["floor"].get("chains", []))):
        raise ValueError("every entry of 'chains' has a number of bytes and names of values")
    if not isinstance(data["runs"].get("certificate"), dict):
        raise ValueError("'runs' is not the result of an order")


def check_result(program: Program, data: Any) -> None:
    """Is every figure of the result true of this program? Answers nothing, or raises `Rejected`; the form is checked before."""
    opened = [_index([value.label for value in program.values], name, "value") for name in data["opened"]]
    for v in opened:
        if not may_be_opened(program, v):
            raise Rejected("not-a-chain", f"{program.values[v].label!r} is not the first of a chain in a given value")
    runs = open_chains(program, opened)
    sequence = _tasks(program, data["sequence"])
    replayed = replay(runs, sequence)
    _equal("wrong-peak", "replaying the sequence gives a peak of {} bytes, claimed are {}", replayed.peak, data["peak_bytes"])
    _equal_seconds(program, replayed.extra_seconds, data)
    again = {program.tasks[task].label: times for task, times in replayed.again}
    _equal("wrong-again", "what runs again is {}, claimed is {}", again, {row["name"]: row["times"] for row in data["again"]})
    ordered = replay(program, _tasks(program, data["order"]))
    if ordered.again:
        raise Rejected("wrong-order", "the order runs a task twice")
    _equal("wrong-order", "replaying the order gives a peak of {} bytes, claimed are {}", ordered.peak, data["ordered_peak_bytes"])
    if replayed.peak > ordered.peak:
        raise Rejected("worse-than-order", f"the peak {replayed.peak} is above the {ordered.peak} bytes of the order without repeats")
    floor = RepeatFloor(data["floor_bytes"], _owner(program, data["floor"]), data["floor"]["least"], _chains(program, data["floor"]))
    if floor.bytes > replayed.peak:
        raise Rejected("impossible-floor", f"the floor {floor.bytes} is above the peak {replayed.peak} of a legal sequence")
    check_repeat_floor(program, floor)
    status = status_of(replayed.peak, data["budget_bytes"], floor.bytes)
    _equal("wrong-status", "the status is {!r}, claimed is {!r}", status, data["status"])
    graph = instances(runs, sequence).graph
    schedule = schedule_from_json(graph, data["runs"])
    if schedule.order != tuple(range(len(sequence))):
        raise Rejected("another-order", "the schedule of the runs is not that of the sequence")
    check_certificate(graph, schedule)


def _equal(reason: str, sentence: str, found: object, claimed: object) -> None:
    if found != claimed:
        raise Rejected(reason, sentence.format(found, claimed))


def _equal_seconds(program: Program, extra: float, data: Mapping[str, Any]) -> None:
    percent = 100.0 * extra / program.seconds if program.seconds else 0.0
    for key, found, scale in (("extra_seconds", extra, program.seconds), ("extra_percent", percent, 100.0)):
        if not abs(found - data[key]) <= CLOSE * max(scale, math.fabs(found)):
            raise Rejected("wrong-cost", f"{key} is {found!r}, claimed are {data[key]!r}")


def _tasks(program: Program, names: Sequence[str]) -> List[int]:
    index = {task.label: t for t, task in enumerate(program.tasks)}
    for name in names:
        if name not in index:
            raise Rejected("unknown-task", f"there is no task named {name!r}")
    return [index[name] for name in names]


def _index(labels: Sequence[str], name: str, noun: str) -> int:
    if name not in labels:
        raise Rejected(f"unknown-{noun}", f"there is no {noun} named {name!r}")
    return labels.index(name)


def _owner(program: Program, floor: Mapping[str, Any]) -> Any:
    return None if floor.get("task") is None else _index([task.label for task in program.tasks], floor["task"], "task")


def _chains(program: Program, floor: Mapping[str, Any]) -> Tuple[Chain, ...]:
    labels = [value.label for value in program.values]
    return tuple((row["bytes"], tuple(_index(labels, name, "value") for name in row["values"])) for row in floor.get("chains", []))


def _is_chain(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and type(row.get("bytes")) is int
        and isinstance(row.get("values"), list)
        and all(isinstance(name, str) for name in row["values"])
    )

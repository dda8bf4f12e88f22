"""A program whose results may be made more than once: values with their memory, tasks with their costs.

Words
    value       what one task writes and others read
    given       a value that no task writes; it belongs to the caller and counts 0 bytes
    view        a value that lies in the memory of another one, which it leaves as it is
    in place    a value that lies in the memory of another one, which it destroys (`overwrites`)
    content     what a piece of memory holds until it is overwritten: a value and its views
    again       may this task run more than once?

A view and an in-place result add no bytes; the `size` of an in-place result is what it would take in a place of its
own. A content has one overwriter at most, which comes after everyone who reads that content. That alone does not forbid
to run the overwriter again: it then needs a fresh copy of what it destroys.

`replay` (replay.py) says what a sequence of tasks costs, `plan_recompute` (recompute.py) finds one.

The worked example: `x` is large, made at once from `seed`, and needed at the beginning and at the end.

    seed --expand(1 s)--> x(8) --sum(1 s)--> s(1) --blow_up(1 s)--> y(8) --shrink(1 s)--> z(1) --+
                           |                                                                     join(1 s)--> out(1)  (kept)
                           +---------------------------------------------------------------------+

>>> program = worked_program()
>>> [task.label for task in program.tasks]
['expand', 'sum', 'blow_up', 'shrink', 'join']
>>> program.needs[4]
(0, 3)
>>> program_from_json(program_to_json(program)) == program
True
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from theano_memopt.planner.model import GraphError, index_by_name, named_rows


@dataclass(frozen=True)
class Value:
    size: int
    producer: Optional[int] = None
    readers: Tuple[int, ...] = ()
    keep: bool = False
    view_of: Optional[int] = None
    overwrites: Optional[int] = None
    label: str = ""

    @property
    def lies_in(self) -> Optional[int]:
        """The value whose memory this one lies in, if it has none of its own."""
        return self.overwrites if self.view_of is None else self.view_of


@dataclass(frozen=True)
class CostedTask:
    reads: Tuple[int, ...] = ()
    writes: Tuple[int, ...] = ()
    after: Tuple[int, ...] = ()
    """Tasks that must have run once before."""
    seconds: float = 0.0
    again: bool = True
    label: str = ""


@dataclass(frozen=True)
class Program:
    """Values and tasks, consistent, and with an order in which every task runs once. Made by `program_from_json` or by a host."""

    values: Tuple[Value, ...]
    tasks: Tuple[CostedTask, ...]
    _order: Tuple[int, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        _check_values(self)
        _check_tasks(self)
        _check_memory(self)
        object.__setattr__(self, "_order", _natural_order(self))

    @property
    def natural_order(self) -> Tuple[int, ...]:
        """A legal order that runs every task once: always the smallest ready index."""
        return self._order

    @cached_property
    def seconds(self) -> float:
        """What running every task once costs."""
        return math.fsum(task.seconds for task in self.tasks)

    @cached_property
    def content(self) -> Tuple[int, ...]:
        """For each value the one that stands for its content: itself, unless it is a view."""
        return tuple(self._follow(v, views_only=True) for v in range(len(self.values)))

    @cached_property
    def memory(self) -> Tuple[int, ...]:
        """For each value the one that the memory was made for."""
        return tuple(self._follow(v, views_only=False) for v in range(len(self.values)))

    @cached_property
    def overwriter(self) -> Tuple[Optional[int], ...]:
        """For each value the task that destroys its content."""
        by_content = {self.content[v.overwrites]: v.producer for v in self.values if v.overwrites is not None}
        return tuple(by_content.get(self.content[v]) for v in range(len(self.values)))

    @cached_property
    def needs(self) -> Tuple[Tuple[int, ...], ...]:
        """For each task those that come before it when everything runs once."""
        found: List[Set[int]] = [set(task.after) for task in self.tasks]
        for v, value in enumerate(self.values):
            last = self.overwriter[v]
            for reader in value.readers:
                if value.producer is not None:
                    found[reader].add(value.producer)
                if last is not None and last != reader:
                    found[last].add(reader)
        return tuple(tuple(sorted(one)) for one in found)

    def is_legal(self, order: Sequence[int]) -> bool:
        """Does `order` run every task once, and none before what it needs?"""
        position = {task: step for step, task in enumerate(order)}
        if sorted(order) != list(range(len(self.tasks))):
            return False
        return all(position[p] < position[t] for t in position for p in self.needs[t])

    def _follow(self, v: int, views_only: bool) -> int:
        value = self.values[v]
        while value.view_of is not None or (value.overwrites is not None and not views_only):
            v = value.overwrites if value.view_of is None else value.view_of  # type: ignore[assignment]
            value = self.values[v]
        return v


def worked_program() -> Program:
    """The five tasks in the picture above."""
    return program_from_json(
        {
            "values": [
                {"name": name, "bytes": size, "keep": name == "out"}
                for name, size in (("seed", 4), ("x", 8), ("s", 1), ("y", 8), ("z", 1), ("out", 1))
            ],
            "tasks": [
                {"name": "expand", "reads": ["seed"], "writes": ["x"], "seconds": 1},
                {"name": "sum", "reads": ["x"], "writes": ["s"], "seconds": 1},
                {"name": "blow_up", "reads": ["s"], "writes": ["y"], "seconds": 1},
                {"name": "shrink", "reads": ["y"], "writes": ["z"], "seconds": 1},
                {"name": "join", "reads": ["x", "z"], "writes": ["out"], "seconds": 1},
            ],
        }
    )


VALUE_KEYS = ("name", "bytes", "given", "keep", "view_of", "overwrites")
TASK_KEYS = ("name", "reads", "writes", "after", "seconds", "again")


def program_from_json(data: Any) -> Program:
    """A program from parsed JSON; whatever is wrong is one `GraphError` that names the place.

        {"values": [{"name", "bytes", "given": false, "keep": false, "view_of": null, "overwrites": null}],
         "tasks":  [{"name", "reads", "writes", "after", "seconds", "again": true}]}

    >>> program_from_json({"values": [{"name": "a", "bytes": 1, "view_of": "b"}], "tasks": []})
    Traceback (most recent call last):
        ...
    theano_memopt.planner.model.GraphError: unknown-value: there is no value named 'b' (values[0].view_of)
    """
    if not isinstance(data, dict):
        raise GraphError("bad-form", "top level", "a program is a JSON object with values and tasks")
    value_rows, task_rows = _rows(data, "values", VALUE_KEYS), _rows(data, "tasks", TASK_KEYS)
    value_index, task_index = index_by_name(value_rows, "value"), index_by_name(task_rows, "task")
    producer: Dict[int, int] = {}
    readers: List[List[int]] = [[] for _ in value_rows]
    tasks = []
    for t, row in enumerate(task_rows):
        where = f"tasks[{t}]"
        reads, writes = (_names(row, word, where, value_index, "value") for word in ("reads", "writes"))
        for v in writes:
            if v in producer:
                names = (task_rows[producer[v]]["name"], row["name"])
                raise GraphError(
                    "two-producers", f"{where}.writes", f"value {value_rows[v]['name']!r} is written by both {names[0]!r} and {names[1]!r}"
                )
            producer[v] = t
        for v in reads:
            readers[v].append(t)
        after = _names(row, "after", where, task_index, "task")
        tasks.append(CostedTask(reads, writes, after, _seconds(row, where), _flag(row, "again", where, True), row["name"]))
    values = []
    for v, row in enumerate(value_rows):
        where = f"values[{v}]"
        if _flag(row, "given", where, False) and v in producer:
            raise GraphError(
                "given-but-written", f"{where}.given", f"value {row['name']!r} is given, and task {task_rows[producer[v]]['name']!r} writes it"
            )
        lies_in = [_name(row, word, where, value_index) for word in ("view_of", "overwrites")]
        keep = _flag(row, "keep", where, False)
        values.append(Value(_size(row, where), producer.get(v), tuple(readers[v]), keep, lies_in[0], lies_in[1], row["name"]))
    return Program(tuple(values), tuple(tasks))


def program_to_json(program: Program) -> Dict[str, Any]:
    """The inverse of `program_from_json`, loss-free."""
    values, tasks = program.values, program.tasks

    def name(v: Optional[int]) -> Optional[str]:
        return None if v is None else values[v].label

    return {
        "values": [
            {
                "name": v.label,
                "bytes": v.size,
                "given": v.producer is None,
                "keep": v.keep,
                "view_of": name(v.view_of),
                "overwrites": name(v.overwrites),
            }
            for v in values
        ],
        "tasks": [
            {
                "name": t.label,
                "reads": [values[v].label for v in t.reads],
                "writes": [values[v].label for v in t.writes],
                "after": [tasks[p].label for p in t.after],
                "seconds": t.seconds,
                "again": t.again,
            }
            for t in tasks
        ],
    }


# ------------------------------------------------------------------------------------------------------ what must hold


def _check_values(program: Program) -> None:
    seen: Set[str] = set()
    for v, value in enumerate(program.values):
        if isinstance(value.size, bool) or not isinstance(value.size, int) or value.size < 0:
            raise GraphError("bad-size", f"values[{v}]", f"value {value.label!r} has {value.size!r} bytes; a size is a whole number, 0 or more")
        if value.label in seen:
            raise GraphError("duplicate-name", f"values[{v}]", f"two values are named {value.label!r}")
        seen.add(value.label)
        for other in (value.view_of, value.overwrites):
            if other is not None and not 0 <= other < len(program.values):
                raise GraphError("unknown-value", f"values[{v}]", f"value {value.label!r} lies in value {other}, which does not exist")


def _check_tasks(program: Program) -> None:
    readers: List[List[int]] = [[] for _ in program.values]
    producer: Dict[int, int] = {}
    seen: Set[str] = set()
    for t, task in enumerate(program.tasks):
        if task.label in seen:
            raise GraphError("duplicate-name", f"tasks[{t}]", f"two tasks are named {task.label!r}")
        seen.add(task.label)
        if not (task.seconds >= 0 and math.isfinite(task.seconds)):
            raise GraphError(
                "bad-seconds", f"tasks[{t}].seconds", f"task {task.label!r} takes {task.seconds!r} seconds; a time is a number, 0 or more"
            )
        for word, picked, limit in (
            ("reads", task.reads, program.values),
            ("writes", task.writes, program.values),
            ("after", task.after, program.tasks),
        ):
            if len(set(picked)) != len(picked):
                raise GraphError("duplicate-name", f"tasks[{t}].{word}", f"task {task.label!r} names one thing twice in {word}")
            if any(not 0 <= i < len(limit) for i in picked):
                raise GraphError("unknown-name", f"tasks[{t}].{word}", f"task {task.label!r} names in {word} something that does not exist")
        for v in task.writes:
            if v in producer:
                raise GraphError("two-producers", f"tasks[{t}].writes", f"value {program.values[v].label!r} has two producers")
            producer[v] = t
        for v in task.reads:
            readers[v].append(t)
    for v, value in enumerate(program.values):
        if value.producer != producer.get(v) or sorted(value.readers) != readers[v]:
            raise GraphError("inconsistent", f"values[{v}]", f"value {value.label!r} and the tasks disagree about who writes or reads it")


def _check_memory(program: Program) -> None:
    """Where values lie: each in the memory of something that its task reads, and each content overwritten once at most."""
    first: Dict[int, Value] = {}
    for v, value in enumerate(program.values):
        where, base = f"values[{v}]", value.lies_in
        if base is None:
            continue
        other = program.values[base].label
        if value.view_of is not None and value.overwrites is not None:
            raise GraphError("bad-form", where, f"value {value.label!r} is a view of one value and overwrites another")
        if value.producer is None:
            raise GraphError("given-in-another", where, f"value {value.label!r} is given, so it lies in the memory of no other value")
        if base not in program.tasks[value.producer].reads:
            task = program.tasks[value.producer].label
            raise GraphError("not-read", where, f"value {value.label!r} lies in the memory of {other!r}, which its task {task!r} does not read")
    _check_no_circle(program)
    for v, value in enumerate(program.values):
        where, base = f"values[{v}]", value.overwrites
        if base is None:
            continue
        content = program.content[base]
        if content in first:
            names = (first[content].label, value.label, program.values[base].label)
            raise GraphError("two-overwriters", f"{where}.overwrites", f"{names[0]!r} and {names[1]!r} both overwrite the content of {names[2]!r}")
        first[content] = value
    for v, value in enumerate(program.values):
        last = program.overwriter[v]
        if last is not None and value.keep:
            raise GraphError(
                "kept-but-overwritten", f"values[{v}].keep", f"value {value.label!r} is kept, and task {program.tasks[last].label!r} overwrites it"
            )
        if last is not None and last == value.producer:
            raise GraphError(
                "overwrites-its-own", f"values[{v}]", f"task {program.tasks[last].label!r} writes value {value.label!r} and overwrites it"
            )


def _check_no_circle(program: Program) -> None:
    for v, value in enumerate(program.values):
        steps, base = 0, value.lies_in
        while base is not None:
            steps, base = steps + 1, program.values[base].lies_in
            if steps > len(program.values):
                raise GraphError("cycle", f"values[{v}]", f"value {value.label!r} lies, through others, in itself")


def _natural_order(program: Program) -> Tuple[int, ...]:
    missing = [len(needs) for needs in program.needs]
    later: List[List[int]] = [[] for _ in program.tasks]
    for t, needs in enumerate(program.needs):
        for p in needs:
            later[p].append(t)
    ready = [t for t, count in enumerate(missing) if count == 0]
    order: List[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for t in later[order[-1]]:
            missing[t] -= 1
            if missing[t] == 0:
                heapq.heappush(ready, t)
    if len(order) < len(program.tasks):
        circle = _find_cycle(program, {t for t, count in enumerate(missing) if count > 0})
        raise GraphError("cycle", "tasks", "each of these needs the one before it: " + " -> ".join(program.tasks[t].label for t in circle))
    return tuple(order)


def _find_cycle(program: Program, stuck: Set[int]) -> List[int]:
    """A cycle among tasks that never became ready: walk to a stuck predecessor until one comes up again."""
    path = [min(stuck)]
    while path.count(path[-1]) < 2:
        path.append(next(p for p in program.needs[path[-1]] if p in stuck))
    return path[path.index(path[-1]) :][::-1]


# ------------------------------------------------------------------------------------------------------------- parsing


def _rows(data: Mapping[str, Any], word: str, keys: Sequence[str]) -> List[Dict[str, Any]]:
    rows = named_rows(data, word)
    for i, row in enumerate(rows):
        for key in row:
            if key not in keys:  # a misspelt 'overwrites' would make a plan that destroys what is still needed
                raise GraphError("unknown-key", f"{word}[{i}]", f"{key!r} is none of {', '.join(keys)}")
    return rows


def _names(row: Mapping[str, Any], word: str, where: str, index: Mapping[str, int], noun: str) -> Tuple[int, ...]:
    names = row.get(word, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GraphError("bad-form", f"{where}.{word}", f"{word!r} must be a list of names")
    for name in names:
        if name not in index:
            raise GraphError(f"unknown-{noun}", f"{where}.{word}", f"there is no {noun} named {name!r}")
    return tuple(dict.fromkeys(index[name] for name in names))


def _name(row: Mapping[str, Any], word: str, where: str, index: Mapping[str, int]) -> Optional[int]:
    name = row.get(word)
    if name is None:
        return None
    if not isinstance(name, str):
        raise GraphError("bad-form", f"{where}.{word}", f"{word!r} must be the name of a value, or null")
    if name not in index:
        raise GraphError("unknown-value", f"{where}.{word}", f"there is no value named {name!r}")
    return index[name]


def _flag(row: Mapping[str, Any], word: str, where: str, default: bool) -> bool:
    flag = row.get(word, default)
    if not isinstance(flag, bool):
        raise GraphError("bad-form", f"{where}.{word}", f"{word!r} must be true or false")
    return flag


def _size(row: Mapping[str, Any], where: str) -> int:
    size = row.get("bytes")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise GraphError("bad-size", f"{where}.bytes", f"value {row['name']!r} has {size!r} bytes; a size is a whole number, 0 or more")
    return size


def _seconds(row: Mapping[str, Any], where: str) -> float:
    if "seconds" not in row:
        raise GraphError("bad-seconds", f"{where}.seconds", f"task {row['name']!r} has no 'seconds'")
    seconds = row["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not (0 <= seconds <= MOST_SECONDS):
        raise GraphError(
            "bad-seconds", f"{where}.seconds", f"task {row['name']!r} takes {seconds!r} seconds; a time is a number from 0 to {MOST_SECONDS:g}"
        )
    return float(seconds)


MOST_SECONDS = 1e15
"""Thirty million years: enough for any task, and sums of times stay far from what a float can hold."""

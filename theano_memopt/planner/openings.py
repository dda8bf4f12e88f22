"""Chains of in-place results in a given value, and what it gains to open them.

    weight (given) <-- add 1st gradient <-- add 2nd gradient <-- ...        each overwrites what the one before it left there

From the first of the chain on, the weight is gone, and nothing that was made from it can be made again. If the first one gets a place
of its own instead, the others follow it there and the weight stays. The price is one buffer, from then to the end of the chain.

>>> from theano_memopt.planner.program import program_from_json
>>> program = program_from_json({
...     "values": [{"name": "w", "bytes": 4}, {"name": "h", "bytes": 9}, {"name": "w1", "bytes": 4, "overwrites": "w"},
...                {"name": "out", "bytes": 1, "keep": True}],
...     "tasks": [{"name": "make", "reads": ["w"], "writes": ["h"], "seconds": 1}, {"name": "add", "reads": ["w"], "writes": ["w1"], "seconds": 1},
...               {"name": "use", "reads": ["h", "w1"], "writes": ["out"], "seconds": 1}]})
>>> blocking(program, (0, 1, 2))                     # w1 forbids to make h again
[2]
>>> open_chains(program, [2]).values[2].overwrites is None
True
"""

from __future__ import annotations

from typing import List, Sequence, Set

from theano_memopt.planner.program import Program, Value


def open_chains(program: Program, opened: Sequence[int]) -> Program:
    """The program in which these in-place results get memory of their own; what lies in them moves along."""
    if not opened:
        return program
    values = list(program.values)
    for v in opened:
        values[v] = Value(values[v].size, values[v].producer, values[v].readers, values[v].keep, None, None, values[v].label)
    return Program(tuple(values), program.tasks)


def may_be_opened(program: Program, v: int) -> bool:
    """Is it the first of a chain in a given value? One of 0 bytes is not: its true size may not be known."""
    value = program.values[v]
    return value.overwrites is not None and value.size > 0 and program.values[program.content[value.overwrites]].producer is None


def blocking(program: Program, order: Sequence[int]) -> List[int]:
    """Results that may be opened and block more bytes than they have, worst first.

    A result blocks what was made before it, is read after it, and depends on the given value that it destroys.
    """
    position = {task: step for step, task in enumerate(order)}
    last_use = [-1] * len(program.values)  # of the memory made for a value
    for v, value in enumerate(program.values):
        last_use[program.memory[v]] = max([last_use[program.memory[v]], *(position[reader] for reader in value.readers)])
    ranked = []
    for v, value in enumerate(program.values):
        if value.producer is None or value.overwrites is None or not may_be_opened(program, v):
            continue
        when = position[value.producer]
        blocked = sum(
            program.values[m].size
            for task in _tasks_that_need(program, order, program.content[value.overwrites])
            if position[task] < when
            for m in program.tasks[task].writes
            if program.values[m].lies_in is None and last_use[m] > when
        )
        if blocked > value.size:
            ranked.append((value.size - blocked, v))
    return [v for _, v in sorted(ranked)]


def _tasks_that_need(program: Program, order: Sequence[int], content: int) -> Set[int]:
    """The tasks that read this content, or what others made of it."""
    carries = {v for v in range(len(program.values)) if program.content[v] == content}
    tasks: Set[int] = set()
    for task in order:
        if carries.intersection(program.tasks[task].reads):
            tasks.add(task)
            carries.update(program.tasks[task].writes)
    return tasks

"""A sequence with repeats as an ordinary graph: each run is a task of its own, each piece of memory a buffer.

Everything that is known about graphs then holds for it unchanged: the order with a floor or a proof, cells, the arena.

    run i of the sequence           task i; the second run of `relu` is named `relu #2`
    memory that run i makes         one buffer, read by every run that reads from it or writes into it
    run j reads what run i wrote    j after i
    run j overwrites memory         j after every run that used what was in it; whoever reads the result, after j

Which copy a run reads is settled here, as in replay.py: the newest that is intact.

>>> from theano_memopt.planner.program import worked_program
>>> made = instances(worked_program(), (0, 1, 2, 3, 0, 4))
>>> [task.label for task in made.graph.tasks]
['expand', 'sum', 'blow_up', 'shrink', 'expand #2', 'join']
>>> made.sources[5]                       # `join` reads x from step 4, z from step 3
((1, 4), (4, 3))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Set, Tuple

from theano_memopt.planner.model import Buffer, Graph, Task
from theano_memopt.planner.program import Program

AGAIN = " #"


@dataclass(frozen=True)
class Instances:
    graph: Graph
    task_of: Tuple[int, ...]
    """For each run the task of the program."""
    sources: Tuple[Tuple[Tuple[int, Optional[int]], ...], ...]
    """For each run the values that it reads, each with the run that made this copy; None for a given one."""


@dataclass
class _Memory:
    value: int
    made: Optional[int]
    used: Set[int] = field(default_factory=set)
    """Runs that read from it or wrote into it."""
    holds: Dict[int, Optional[int]] = field(default_factory=dict)
    """Values of which it holds an intact copy, each with the run that made it."""
    kept: bool = False


def instances(program: Program, sequence: Sequence[int]) -> Instances:
    """The graph of a legal sequence (replay.py)."""
    values = program.values
    memories = [_Memory(v, None, holds={v: None}) for v, value in enumerate(values) if value.producer is None]
    newest: List[List[_Memory]] = [[] for _ in values]
    for memory in memories:
        newest[memory.value].append(memory)
    first_run: Dict[int, int] = {}
    after: List[Set[int]] = []
    sources = []
    for run, task in enumerate(sequence):
        here = program.tasks[task]
        places = {v: newest[v][-1] for v in here.reads}
        sources.append(tuple((v, places[v].holds[v]) for v in here.reads))
        earlier = {made for _, made in sources[-1] if made is not None} | {first_run[t] for t in here.after}
        first_run.setdefault(task, run)
        for place in places.values():
            place.used.add(run)
        homes = {v: newest[lies_in][-1] for v in here.writes for lies_in in [values[v].lies_in] if lies_in is not None}
        for v in here.writes:
            if values[v].overwrites is not None:
                earlier |= homes[v].used
                for lost in homes[v].holds:
                    newest[lost].remove(homes[v])
                homes[v].holds.clear()
        for v in here.writes:
            if v not in homes:
                homes[v] = _Memory(v, run)
                memories.append(homes[v])
            if v in homes[v].holds:
                newest[v].remove(homes[v])
            homes[v].holds[v] = run
            newest[v].append(homes[v])
        after.append(earlier - {run})
    for v, value in enumerate(values):
        if value.keep:
            newest[v][-1].kept = True
    return Instances(_graph(program, sequence, memories, after), tuple(sequence), tuple(sources))


def _graph(program: Program, sequence: Sequence[int], memories: Sequence[_Memory], after: Sequence[Set[int]]) -> Graph:
    taken: Set[str] = {task.label for task in program.tasks}
    labels = _numbered([program.tasks[t].label for t in sequence], taken)
    names = _numbered([program.values[memory.value].label for memory in memories], {value.label for value in program.values})
    reads: List[List[int]] = [[] for _ in sequence]
    writes: List[List[int]] = [[] for _ in sequence]
    buffers = []
    for b, memory in enumerate(memories):
        readers = tuple(sorted(memory.used))
        value = program.values[memory.value]
        buffers.append(Buffer(value.size, f"{value.size}B", memory.made, readers, memory.kept, names[b]))
        for run in readers:
            reads[run].append(b)
        if memory.made is not None:
            writes[memory.made].append(b)
    tasks = tuple(Task(tuple(reads[run]), tuple(writes[run]), tuple(sorted(after[run])), labels[run]) for run in range(len(sequence)))
    return Graph(tasks, tuple(buffers))


def _numbered(names: Sequence[str], taken: Set[str]) -> List[str]:
    """Each name as it is the first time, then with a number that makes it a name of its own."""
    times: Dict[str, int] = {}
    found = []
    for name in names:
        times[name] = times.get(name, 0) + 1
        label = name
        while label in taken and times[name] > 1:
            label = f"{name}{AGAIN}{times[name]}"
            times[name] += label in taken
        taken.add(label)
        found.append(label)
    return found

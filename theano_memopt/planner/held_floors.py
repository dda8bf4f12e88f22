"""What a task that may not run again has made is held for all who need it later, however often the others run.

    mask --drop--> dropped --relu--> h --...--> loss --...--> back(mask, d)        `mask` is drawn by chance, once

Look at the moment when task t begins to run for the first time.

    before      what t needs, directly or not, has run by then
    later       what needs t, directly or not, has not run yet; it will
    chain       contents c1, c2, ..., ck: c1 was made before by a task that runs once, each of the others is made by a task that reads the
                one before it, and one that comes later reads ck; or ck is kept

Lemma. At that moment some content of each chain is there, and it stays until t is done. Proof: who reads ck later reads a copy that is there
now, or is made later from a copy of the content before it, which is there now or is made later, and so on; c1 is not made later. What is
read later stays until then.

So while t runs, these are there: what it reads, what it allocates, and beside that at least as many bytes as go through chains of other contents,
if no content is counted for more bytes than it has. Most is found as a flow. In-place results count as in repeat_floors.py: a memory holds one
content at a time, and that of given values counts 0, so that nothing here rests on an update that overwrites a parameter.

Only contents in memory of their own, or made in place, are made by who writes them; a view shows what was made before.

>>> from theano_memopt.planner.program import program_from_json
>>> program = program_from_json({
...     "values": [{"name": "mask", "bytes": 5}, {"name": "x", "bytes": 7}, {"name": "loss", "bytes": 1}, {"name": "out", "bytes": 1, "keep": True}],
...     "tasks": [{"name": "draw", "writes": ["mask"], "seconds": 1, "again": False},
...               {"name": "make", "writes": ["x"], "after": ["draw"], "seconds": 1},
...               {"name": "sum", "reads": ["x"], "writes": ["loss"], "seconds": 1},
...               {"name": "back", "reads": ["loss", "mask"], "writes": ["out"], "seconds": 1}]})
>>> held_floors(program, 0)[0]                       # `sum` reads x and makes the loss beside the mask
HeldFloor(bytes=13, task=2, chains=((5, (0,)),))
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Set, Tuple

from theano_memopt.planner.bits import members_of
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.program import Program

STARTS = 48
"""Tasks that are looked at, the most promising ones first: a flow takes milliseconds where there are hundreds of tasks."""

Chain = Tuple[int, Tuple[int, ...]]
"""Bytes that are counted for it, and its contents."""


class HeldFloor(NamedTuple):
    bytes: int
    task: int
    chains: Tuple[Chain, ...]


def held_floors(program: Program, known: int) -> List[HeldFloor]:
    """Floors above `known`, ascending."""
    if all(task.again for task in program.tasks):
        return []
    held = _Held(program)
    promising = sorted(((held.at_most(t), t) for t in range(len(program.tasks))), reverse=True)
    found: List[HeldFloor] = []
    for most, t in promising[:STARTS]:
        if most <= known:
            break
        chains = held.chains(t)
        height = held.footprint(t) + sum(amount for amount, _ in chains)
        if chains and height > known:
            found.append(HeldFloor(height, t, tuple(chains)))
            known = height
    return found


def check_held(program: Program, task: int, chains: Tuple[Chain, ...]) -> int:
    """Bytes that are there beside what `task` reads and makes; `Rejected` if a chain is none, or a content counted for more than it has."""
    before, later = _before(program, task), _later(program, task)
    counted: Dict[int, int] = {}
    read = {program.content[v] for v in program.tasks[task].reads}
    for amount, chain in chains:
        if amount < 0 or not chain or not all(0 <= c < len(program.values) and program.content[c] == c for c in chain):
            raise Rejected("no-chain", f"{chain} are not contents")
        first = program.values[chain[0]].producer
        if first is None or program.tasks[first].again or first not in before:
            raise Rejected("no-chain", f"the first of {chain} is not made once, before the task")
        for c, made in zip(chain, chain[1:]):
            maker = program.values[made].producer
            if maker is None or c not in {program.content[v] for v in program.tasks[maker].reads}:
                raise Rejected("no-chain", f"content {made} is not made from {c}")
        shown = [value for v, value in enumerate(program.values) if program.content[v] == chain[-1]]
        if not any(value.keep or later.intersection(value.readers) for value in shown):
            raise Rejected("no-chain", f"nobody needs the last of {chain} later")
        for c in set(chain):
            counted[c] = counted.get(c, 0) + amount
    for c, amount in counted.items():
        home = program.values[program.memory[c]]
        if amount > (0 if home.producer is None or c in read else home.size):
            raise Rejected("counted-twice", f"content {c} is counted for {amount} bytes")
    return sum(amount for amount, _ in chains)


def _before(program: Program, task: int) -> Set[int]:
    found: Set[int] = set()
    waiting = [task]
    while waiting:
        here = program.tasks[waiting.pop()]
        for p in [*here.after, *(program.values[v].producer for v in here.reads)]:
            if p is not None and p not in found:
                found.add(p)
                waiting.append(p)
    return found


def _later(program: Program, task: int) -> Set[int]:
    found = {task}
    for t in program.natural_order:
        here = program.tasks[t]
        if found.intersection(here.after) or any(program.values[v].producer in found for v in here.reads):
            found.add(t)
    return found - {task}


# --- chains as a flow ------------------------------------------------------------------------------------------------

SOURCE, SINK = -1, -2
INFINITE = 1 << 62

Room = Dict[int, Dict[int, int]]


class _Held:
    """The contents as a net: a chain comes to content c at node 2c, and leaves it at 2c + 1. Sets of tasks are the bits of one integer;
    the bit after the last task stands for the end."""

    def __init__(self, program: Program) -> None:
        values, tasks = program.values, program.tasks
        self.program = program
        self.size = [0 if values[m].producer is None else values[m].size for m in program.memory]
        self.reads = [{program.content[v] for v in task.reads} for task in tasks]
        self.readers = [0] * len(values)  # of each content
        for t, reads in enumerate(self.reads):
            for c in reads:
                self.readers[c] |= 1 << t
        for v, value in enumerate(values):
            self.readers[program.content[v]] |= int(value.keep) << len(tasks)
        self.made = [[v for v in task.writes if program.content[v] == v and self.size[v]] for task in tasks]
        self.before, self.later = self._before_and_later()
        self.needed = self._needed()

    def footprint(self, task: int) -> int:
        values = self.program.values
        allocated = sum(values[v].size for v in self.program.tasks[task].writes if values[v].lies_in is None)
        return sum(self.size[c] for c in self.reads[task]) + allocated

    def at_most(self, task: int) -> int:
        """No chains give more."""
        return self.footprint(task) + sum(self.size[c] for c in self._starts(task))

    def chains(self, task: int) -> List[Chain]:
        room = self._net(task)
        given = {a: dict(ways) for a, ways in room.items()}
        path = _path(room)
        while path:
            pushed = min(room[a][b] for a, b in path)
            for a, b in path:
                room[a][b] -= pushed
                room[b][a] = room[b].get(a, 0) + pushed
            path = _path(room)
        flow = {a: {b: space - room[a][b] for b, space in ways.items() if space > room[a][b]} for a, ways in given.items()}
        return _taken_apart(flow)

    def _starts(self, task: int) -> List[int]:
        once = [t for t, one in enumerate(self.program.tasks) if not one.again and self.before[task] >> t & 1]
        return [c for t in once for c in self.made[t] if c not in self.reads[task] and self.needed[c] & self.later[task]]

    def _net(self, task: int) -> Room:
        """What chains may go through: contents that `task` does not read, and that somebody needs later."""
        room: Room = {SOURCE: {}, SINK: {}}
        waiting = self._starts(task)
        for c in waiting:
            room[SOURCE][2 * c] = INFINITE
        while waiting:
            c = waiting.pop()
            if 2 * c in room:
                continue
            room[2 * c], room[2 * c + 1] = {2 * c + 1: self.size[c]}, {}
            if self.readers[c] & self.later[task]:
                room[2 * c + 1][SINK] = INFINITE
                continue
            for t in members_of(self.readers[c]):
                for made in self.made[t] if t < len(self.reads) else ():
                    if made not in self.reads[task] and self.needed[made] & self.later[task]:
                        room[2 * c + 1][2 * made] = INFINITE
                        waiting.append(made)
        return room

    def _before_and_later(self) -> Tuple[List[int], List[int]]:
        """For each task, those that it needs, and those that need it, directly or not."""
        tasks, values = self.program.tasks, self.program.values
        before, later = [0] * len(tasks), [1 << len(tasks)] * len(tasks)
        needs = [{p for p in (*task.after, *(values[v].producer for v in task.reads)) if p is not None} for task in tasks]
        for t in self.program.natural_order:
            for p in needs[t]:
                before[t] |= before[p] | 1 << p
        for t in reversed(self.program.natural_order):
            for p in needs[t]:
                later[p] |= later[t] | 1 << t
        return before, later

    def _needed(self) -> List[int]:
        """For each content, who reads it or what is made from it."""
        needed = list(self.readers)
        for t in reversed(self.program.natural_order):
            of_made = 0
            for c in self.made[t]:
                of_made |= needed[c]
            for c in self.reads[t]:
                needed[c] |= of_made
        return needed


def _path(room: Room) -> List[Tuple[int, int]]:
    """A shortest way with room from source to sink; empty if there is none."""
    via = {SOURCE: SOURCE}
    queue = [SOURCE]
    for a in queue:
        for b, space in room[a].items():
            if space > 0 and b not in via:
                via[b] = a
                queue.append(b)
                if b == SINK:
                    path = []
                    while b != SOURCE:
                        path.append((via[b], b))
                        b = via[b]
                    return path
    return []


def _taken_apart(flow: Room) -> List[Chain]:
    """Contents are made from one another without circles, so every walk along the flow ends."""
    found: List[Chain] = []
    while flow[SOURCE]:
        walk = [SOURCE]
        while walk[-1] != SINK:
            walk.append(next(iter(flow[walk[-1]])))
        amount = min(flow[a][b] for a, b in zip(walk, walk[1:]))
        for a, b in zip(walk, walk[1:]):
            flow[a][b] -= amount
            if not flow[a][b]:
                del flow[a][b]
        found.append((amount, tuple(node // 2 for node in walk[1:-1:2])))
    return found

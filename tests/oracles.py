"""Deliberately naive second opinions: slow, short, and written another way than what they judge."""

from __future__ import annotations

from itertools import permutations
from typing import Any, Dict, FrozenSet, Iterator, List, Optional, Sequence, Tuple

from theano_memopt.planner.model import Graph
from theano_memopt.planner.program import Program


def peak_by_reference_counts(graph: Graph, order: Sequence[int]) -> int:
    """Run the order as an interpreter would: allocate a bytearray per buffer, drop it when its count of readers is 0."""
    held: Dict[int, bytearray] = {}
    readers_left = {b: len(buffer.readers) for b, buffer in enumerate(graph.buffers)}
    peak = 0
    for task in order:
        here = graph.tasks[task]
        assert all(b in held or graph.buffers[b].producer is None for b in here.reads), "read before it was written, or after it was freed"
        for b in here.writes:
            held[b] = bytearray(graph.buffers[b].size)
        peak = max(peak, sum(len(data) for data in held.values()))
        for b in here.reads:
            readers_left[b] -= 1
        for b in (*here.reads, *here.writes):
            if readers_left[b] == 0 and not graph.buffers[b].pinned:
                held.pop(b, None)
    return peak


def all_orders(graph: Graph) -> Iterator[Tuple[int, ...]]:
    """Every legal order, by trying every permutation."""
    for order in permutations(range(len(graph.tasks))):
        place = {task: i for i, task in enumerate(order)}
        if all(place[p] < place[t] for t in place for p in graph.predecessors[t]):
            yield order


def least_peak_by_all_orders(graph: Graph) -> int:
    """For 8 tasks or fewer. Built up prefix by prefix, so that illegal permutations are not walked."""
    best = [1 << 200]

    def extend(order: List[int]) -> None:
        if len(order) == len(graph.tasks):
            best[0] = min(best[0], peak_by_reference_counts(graph, order))
            return
        for task in range(len(graph.tasks)):
            if task not in order and all(p in order for p in graph.predecessors[task]):
                extend([*order, task])

    extend([])
    return best[0]


def least_peak_by_memo(graph: Graph) -> int:
    """For 14 tasks or fewer: the least peak to finish from each set of done tasks, remembered."""
    known: Dict[FrozenSet[int], int] = {}

    def live(done: FrozenSet[int]) -> int:
        return sum(
            b.size for b in graph.buffers if b.producer is not None and b.producer in done and (b.pinned or not all(r in done for r in b.readers))
        )

    def finish(done: FrozenSet[int]) -> int:
        if len(done) == len(graph.tasks):
            return 0
        if done not in known:
            known[done] = min(
                max(live(done) + sum(graph.buffers[b].size for b in graph.tasks[t].writes), finish(done | {t}))
                for t in range(len(graph.tasks))
                if t not in done and all(p in done for p in graph.predecessors[t])
            )
        return known[done]

    return finish(frozenset())


class Block:
    """Bytes that a run of a program made, and the texts that lie there."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.texts: Dict[int, Any] = {}


def run_for_real(program: Program, sequence: Sequence[int]) -> Optional[Tuple[int, Dict[str, Any]]]:
    """The peak and what is in the kept values at the end; None if the sequence cannot be run.

    Every result is a text: the task's name and the texts that it read. It runs twice. First nothing is ever thrown away, and each block
    notes when it was last touched; the second time it is thrown away then, and the bytes that are held are counted.
    """
    last: Dict[int, int] = {}
    peak = 0
    for counting in (False, True):
        ran, numbers, held = set(), 0, []
        found: Dict[int, List[Block]] = {v: [] for v in range(len(program.values))}
        number_of: Dict[int, int] = {}
        for v, value in enumerate(program.values):
            if value.producer is None:
                found[v].append(Block(0))
                found[v][0].texts[v] = value.label
        for step, t in enumerate(sequence):
            task = program.tasks[t]
            if (t in ran and not task.again) or any(p not in ran for p in task.after) or any(not found[v] for v in task.reads):
                return None
            ran.add(t)
            text = (task.label, tuple(found[v][-1].texts[v] for v in task.reads))
            blocks = {v: found[v][-1] for v in task.reads}
            for v in task.reads if not counting else ():
                last[number_of.get(id(blocks[v]), -1)] = step
            for v in task.writes:
                over = program.values[v].overwrites
                if over is not None:
                    for blocks_of in found.values():
                        if blocks[over] in blocks_of:
                            blocks_of.remove(blocks[over])
                    blocks[over].texts.clear()
            for v in task.writes:
                home = program.values[v].lies_in
                block = Block(program.values[v].size) if home is None else blocks[home]
                if home is None:
                    number_of[id(block)] = numbers
                    last.setdefault(numbers, step)
                    numbers += 1
                    held.append(block)
                block.texts[v] = (text, v)
                if block in found[v]:
                    found[v].remove(block)
                found[v].append(block)
            if counting:
                peak = max(peak, sum(len(block.data) for block in held))
                for block in held:
                    if last[number_of[id(block)]] <= step:
                        block.data = bytearray(0)
        if len(ran) < len(program.tasks):
            return None
        for v, value in enumerate(program.values):
            if value.keep:
                if not found[v]:
                    return None
                last[number_of.get(id(found[v][-1]), -1)] = len(sequence)
    return peak, {value.label: found[v][-1].texts[v] for v, value in enumerate(program.values) if value.keep}


def all_sequences(program: Program, times: int = 2) -> Iterator[Tuple[int, ...]]:
    """Every sequence in which each task runs once to `times` times, and that can be run."""

    def extend(sequence: List[int]) -> Iterator[Tuple[int, ...]]:
        if len(set(sequence)) == len(program.tasks) and run_for_real(program, sequence) is not None:
            yield tuple(sequence)
        for t, task in enumerate(program.tasks):
            runs = sequence.count(t)
            if runs < (times if task.again else 1) and _may_be_next(program, sequence, t):
                yield from extend([*sequence, t])

    yield from extend([])


def _may_be_next(program: Program, sequence: Sequence[int], task: int) -> bool:
    """A cheap look ahead: has everything that it reads been made at all?"""
    ran = set(sequence)
    return all(p in ran for p in program.tasks[task].after) and all(
        program.values[v].producer is None or program.values[v].producer in ran for v in program.tasks[task].reads
    )

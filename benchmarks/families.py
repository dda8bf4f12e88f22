"""Task graphs that are harder to order than real training functions: seeded, of any size, the same on every machine.

    make_graph("lstm", tasks=300, seed=1)  ->  a Graph of about 300 tasks

Words
    family     one way of drawing a graph; `FAMILIES` lists them with a sentence each
    draft      a graph being drawn: tasks that write one buffer each, or several
    gradient   of a forward graph: every step again in reverse, reading what the forward step left for it

Three rules keep the graphs honest.
    Chance comes from one `random.Random` whose seed is a text, so neither the hash seed nor the platform has a say.
    Sizes are drawn from what such graphs hold: tensor shapes (a few powers of two times a small factor), or log-normal file sizes.
    Tasks and buffers are numbered at random in the end, so the order in which they were drawn gives nothing away.

>>> graph = make_graph("fork_join", tasks=70, seed=0)
>>> graph == make_graph("fork_join", tasks=70, seed=0), graph == make_graph("fork_join", tasks=70, seed=1)
(True, False)
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from theano_memopt.planner.model import Graph, build_graph

SIZES = (70, 200, 600, 2000, 6500)
"""The numbers of tasks that the benchmark asks for; a family comes as near as its structure lets it."""

SIZES_OF = {"workflow_fans": (200, 300, 400, 500), "residual_unrolled": (2000, 2360), "dense_scales": (2000, 6000)}
"""The same for families that are drawn as large as they are found in practice; smaller ones are too easy to tell planners apart."""


class Draft:
    """Tasks by number in the order of drawing; a task reads buffers, which are numbers too."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.sizes: List[int] = []
        self.producer: List[int] = []
        self.reads: List[List[int]] = []
        self.writes: List[List[int]] = []
        self.kept: List[int] = []

    def task(self, reads: Sequence[int], *sizes: int) -> int:
        """A new task that writes buffers of these sizes; the answer is the number of the first of them."""
        first = len(self.sizes)
        for size in sizes:
            self.producer.append(len(self.reads))
            self.sizes.append(size)
        self.reads.append(list(dict.fromkeys(reads)))
        self.writes.append(list(range(first, len(self.sizes))))
        return first

    def keep_the_unread(self) -> None:
        """What nobody reads is a result, and the random structures have many: small ones, or their sum alone would be the peak."""
        read = {b for reads in self.reads for b in reads}
        for b in range(len(self.sizes)):
            if b not in read and b not in self.kept:
                self.kept.append(b)
                self.sizes[b] = min(self.sizes[b], 64)

    def graph(self, sizes_from: str) -> Graph:
        task_number = list(range(len(self.reads)))
        buffer_number = list(range(len(self.sizes)))
        self.rng.shuffle(task_number)
        self.rng.shuffle(buffer_number)
        tasks = sorted((number, t) for t, number in enumerate(task_number))
        buffers = sorted((number, b) for b, number in enumerate(buffer_number))
        name = {b: f"b{number}" for number, b in buffers}
        return build_graph(
            {name[b]: self.sizes[b] for _, b in buffers},
            [(f"t{number}", [name[b] for b in self.reads[t]], [name[b] for b in self.writes[t]]) for number, t in tasks],
            keep=[name[b] for b in sorted(self.kept)],
            sizes_from=sizes_from,
        )


def tensor_bytes(rng: random.Random) -> int:
    """4 bytes x a power of two from 2^4 to 2^18 x a small odd factor: mostly small, now and then a million."""
    return 4 * 2 ** rng.choice((4, 6, 8, 10, 12, 12, 14, 14, 16, 18)) * rng.choice((1, 1, 1, 3, 5))


def file_bytes(rng: random.Random) -> int:
    """A log-normal file size with median 1 MB, in whole blocks of 4 KB."""
    return 4096 * max(1, round(256 * math.exp(rng.gauss(0, 1.2))))


# ---------------------------------------------------------------------------------------------------- random structure


def layered(draft: Draft, tasks: int) -> None:
    """Layers as wide as they are many; a task reads one to four of the layer before, one in eight a layer further back."""
    rng = draft.rng
    width = max(2, round(math.sqrt(tasks)))
    rows: List[List[int]] = []
    left = tasks
    while left > 0:
        row = []
        for _ in range(min(left, rng.randint(max(1, width // 2), width + width // 2))):
            reads = []
            for _ in range(rng.choice((1, 2, 2, 3, 4)) if rows else 0):
                back = 1 if len(rows) == 1 or rng.random() < 0.875 else rng.randint(2, min(4, len(rows)))
                reads.append(rng.choice(rows[-back]))
            row.append(draft.task(reads, tensor_bytes(rng)))
        left -= len(row)
        rows.append(row)


def series_parallel(draft: Draft, tasks: int) -> None:
    """Parts one after the other, or side by side between a fork and a join, down to single tasks."""
    rng = draft.rng

    def part(count: int, entry: Sequence[int]) -> int:
        if count == 1:
            return draft.task(entry, tensor_bytes(rng))
        if count < 4 or rng.random() < 0.4:
            first = rng.randint(max(1, count // 4), max(1, 3 * count // 4))
            return part(count - first, [part(first, entry)])
        fork = draft.task(entry, tensor_bytes(rng))
        branches = _cut(rng, count - 2, rng.randint(2, min(5, count - 2)))
        return draft.task([part(size, [fork]) for size in branches], tensor_bytes(rng))

    part(tasks, [])


def preferential_attachment(draft: Draft, tasks: int) -> None:
    """A new task reads one to three earlier results, the often-read ones more often: a few buffers live almost for ever."""
    rng = draft.rng
    urn: List[int] = []
    for _ in range(tasks):
        reads = [rng.choice(urn) for _ in range(rng.choice((1, 2, 2, 3)))] if urn and rng.random() > 0.02 else []
        made = draft.task(reads, tensor_bytes(rng))
        urn.append(made)
        urn.extend(reads)


def block_model(draft: Draft, tasks: int) -> None:
    """Communities of about 40 tasks: nine of ten reads stay inside, the tenth goes to any earlier task."""
    rng = draft.rng
    blocks: List[List[int]] = [[] for _ in range(max(2, tasks // 40))]
    everything: List[int] = []
    for _ in range(tasks):
        block = rng.choice(blocks)
        reads = []
        for _ in range(rng.choice((1, 2, 2, 3))):
            pool = block if block and rng.random() < 0.9 else everything
            if pool:
                reads.append(rng.choice(pool[-30:] if pool is block else pool))
        made = draft.task(reads, tensor_bytes(rng))
        block.append(made)
        everything.append(made)


# ----------------------------------------------------------------------------------------------- networks with gradient


@dataclass
class Step:
    """One forward step of a network. `leaves` says what its gradient reads: the step's inputs ("in"), its result ("out") or nothing ("")."""

    reads: Tuple[int, ...]
    size: int
    weight: Optional[int]
    leaves: str


class Network:
    """Forward steps by number, and weights that steps may share.

    `draw` adds the gradient: each step in reverse, sums of partial gradients where a result was read more than once, and
    for each weight the sum of its gradients and a kept update.
    """

    def __init__(self) -> None:
        self.steps: List[Step] = []
        self.weights: List[int] = []

    def weight(self, size: int) -> int:
        self.weights.append(size)
        return len(self.weights) - 1

    def step(self, reads: Sequence[int], size: int, weight: Optional[int] = None, leaves: str = "in") -> int:
        self.steps.append(Step(tuple(dict.fromkeys(reads)), size, weight, leaves))
        return len(self.steps) - 1

    def count(self) -> int:
        """About how many tasks `draw` will make: steps, partial gradients, their sums, two for each use of a weight, and the loss."""
        edges = sum(len(step.reads) for step in self.steps)
        sources = len({source for step in self.steps for source in step.reads})
        return len(self.steps) + 2 * edges - sources + 2 * sum(step.weight is not None for step in self.steps) + 2

    def draw(self, draft: Draft) -> None:
        forward: List[int] = []
        for step in self.steps:
            forward.append(draft.task([forward[s] for s in step.reads], step.size))
        loss = draft.task([forward[-1]], 4)
        draft.kept.append(loss)
        gradient = {len(self.steps) - 1: draft.task([forward[-1], loss], self.steps[-1].size)}
        weight_gradient: Dict[int, int] = {}
        for number in reversed(range(len(self.steps))):
            if number in gradient:
                self._backward(draft, number, forward, gradient, weight_gradient)
        for weight, summed in sorted(weight_gradient.items()):
            draft.kept.append(draft.task([summed], self.weights[weight]))

    def _backward(self, draft: Draft, number: int, forward: Sequence[int], gradient: Dict[int, int], weight_gradient: Dict[int, int]) -> None:
        step = self.steps[number]
        left = {"in": [forward[s] for s in step.reads], "out": [forward[number]], "": []}[step.leaves]
        if step.weight is not None:
            _add_up(draft, weight_gradient, step.weight, [gradient[number], *left], self.weights[step.weight])
        for source in step.reads:
            if self.steps[source].reads or self.steps[source].weight is not None:  # nothing stands behind the others
                _add_up(draft, gradient, source, [gradient[number], *left], self.steps[source].size)


def _add_up(draft: Draft, summed: Dict[int, int], key: int, reads: Sequence[int], size: int) -> None:
    """A partial gradient, and its sum with those before it."""
    partial = draft.task(reads, size)
    summed[key] = draft.task([summed[key], partial], size) if key in summed else partial


def lstm(draft: Draft, tasks: int) -> None:
    """An LSTM unrolled over time, with a result at every moment, and its gradient: the states wait for the way back."""
    rng = draft.rng
    row = 4 * rng.choice((16, 32, 64)) * rng.choice((64, 100, 128, 256))
    network = Network()
    recurrent, readout = network.weight(row * rng.choice((2, 8, 16))), network.weight(row)
    state, cell = network.step([], row), network.step([], row)
    scores: List[int] = []
    while not scores or network.count() < tasks:
        gates = network.step([state], 4 * row, recurrent)
        kept, added, shown, fresh = (network.step([gates], row, leaves="out") for _ in range(4))
        old = network.step([kept, cell], row)
        new = network.step([added, fresh], row)
        cell = network.step([old, new], row, leaves="")
        bent = network.step([cell], row, leaves="out")
        state = network.step([shown, bent], row)
        scores.append(network.step([state], max(4, row // 8), readout))
    network.step(scores, 4 * len(scores))
    network.draw(draft)


def resnet(draft: Draft, tasks: int) -> None:
    """Residual blocks in four stages, each half as large as the one before, and the gradient."""
    rng = draft.rng
    size = 4 * rng.choice((16, 32)) * 32 * 32 * rng.choice((8, 16))
    filters = 4 * 9 * 16 * 16
    network = Network()
    here = network.step([], size, network.weight(filters))
    stage = 0
    while network.count() < tasks - 12:
        if stage < min(3, 4 * network.count() // tasks):
            stage, size, filters = stage + 1, max(4, size // 2), filters * 2
            here = network.step([here], size, network.weight(filters))
        entry = here
        for _ in range(2):
            here = network.step([here], size, network.weight(filters))
            here = network.step([here], size, network.weight(rng.choice((256, 512, 1024))))
            here = network.step([here], size, leaves="out")
        here = network.step([entry, here], size, leaves="")
    network.step([here], 4000, network.weight(4 * 1000 * 64))
    network.draw(draft)


def densenet(draft: Draft, tasks: int) -> None:
    """Dense blocks: a layer reads all earlier layers of its block; and the gradient, which adds into all of them again."""
    rng = draft.rng
    depth = rng.choice((4, 6, 8))
    growth = 4 * rng.choice((16, 32)) * rng.choice((12, 24, 32)) * 16 * 16
    network = Network()
    here = network.step([], 2 * growth, network.weight(4 * 9 * 3 * 24))
    while network.count() < tasks - 8:
        features = [here]
        while len(features) <= depth and network.count() < tasks - 8:
            narrow = network.step(features, growth, network.weight(4096))
            features.append(network.step([narrow], growth, network.weight(4 * 9 * 48 * 12)))
        here = network.step(features, max(4, growth * (depth + 2) // 2), network.weight(8192))
    network.step([here], 4000, network.weight(40960))
    network.draw(draft)


def residual_unrolled(draft: Draft, tasks: int) -> None:
    """A residual tower at every moment of a sequence, its blocks of different widths, with skips over several blocks; and the gradient."""
    rng = draft.rng
    unit = 4 * 16 * 16 * rng.choice((8, 16, 32))
    network = Network()
    blocks = [(unit * rng.choice((1, 1, 2, 3, 4, 8)), network.weight(4 * 9 * 16 * rng.choice((8, 16, 32, 256)))) for _ in range(rng.randint(4, 9))]
    readout = network.weight(4 * 64 * 10)
    states = [network.step([], unit * rng.choice((1, 2, 4)))]
    scores: List[int] = []
    while not scores or network.count() < tasks - 30:
        for size, weight in blocks:
            skips = {states[-1], states[-rng.randint(1, min(12, len(states)))]}
            narrow = network.step([states[-1]], max(4, size // rng.choice((2, 4, 8))), weight)
            bent = network.step([narrow], network.steps[narrow].size, leaves="out")
            wide = network.step([bent], size, weight)
            fitted = [network.step([skip], size, leaves=rng.choice(("in", ""))) for skip in sorted(skips)]
            states.append(network.step([*fitted, wide], size, leaves=rng.choice(("out", ""))))
        if rng.random() < 0.5 or not scores:
            scores.append(network.step([network.step([states[-1]], unit // 4)], 40, readout))
    network.step(scores, 4 * len(scores))
    network.draw(draft)


def dense_scales(draft: Draft, tasks: int) -> None:
    """Dense blocks at several scales side by side: a layer joins a choice of earlier features of its scale and of the next finer one."""
    rng = draft.rng
    scales = rng.randint(3, 6)
    unit = 4 * 8 * 8 * rng.choice((12, 24, 32))
    entry = [draft.task([], 4 * unit << (scales - s)) for s in range(scales)]
    while len(draft.reads) < tasks:
        rows = [[feature] for feature in entry]
        for _ in range(rng.randint(4, 16)):
            for s, row in enumerate(rows):
                if len(draft.reads) >= tasks:
                    break
                finer = rng.sample(rows[s - 1], min(len(rows[s - 1]), rng.randint(1, 2))) if s else []
                chosen = [*rng.sample(row, min(len(row), rng.randint(1, 6))), *finer]
                growth = (unit << (scales - s)) * rng.choice((1, 1, 2, 3, 6)) // 4
                joined = draft.task(chosen, growth * rng.randint(1, 4))
                row.append(draft.task([draft.task([joined], growth)], growth))
        entry = [draft.task(row[-min(len(row), 8) :], rng.choice((2, 4)) * unit << (scales - s)) for s, row in enumerate(rows)]
        draft.task([entry[-1]], 4000)
    draft.task(entry, 4000)


# ---------------------------------------------------------------------------------------------------------- workflows


def fork_join(draft: Draft, tasks: int) -> None:
    """Stages: one result is split among workers, each a chain of one to four tasks, and joined again."""
    rng = draft.rng
    joined = [draft.task([], file_bytes(rng))]
    left = tasks - 1
    while left > 2:
        ends = []
        left -= 1
        for _ in range(rng.randint(3, 24)):
            here = joined
            for _ in range(rng.randint(1, 4)):
                if left > 0:
                    here = [draft.task(here, file_bytes(rng))]
                    left -= 1
            ends.extend(here)
        joined = [draft.task(ends, file_bytes(rng))]


def map_reduce(draft: Draft, tasks: int) -> None:
    """Rounds of maps that write a piece for each reduction; every reduction reads one piece of every map."""
    rng = draft.rng
    entry: List[int] = []
    left = tasks
    while left > 0:
        maps = min(rng.randint(8, 24), max(1, left - 1))
        reductions = min(rng.randint(3, 10), max(1, left - maps))
        pieces = []
        for _ in range(maps):
            here = draft.task([rng.choice(entry)] if entry else [], file_bytes(rng))
            pieces.append(draft.task([here], *(max(4096, file_bytes(rng) // reductions) for _ in range(reductions))))
        entry = [draft.task([first + r for first in pieces], file_bytes(rng)) for r in range(reductions)]
        left -= 2 * maps + reductions


def montage(draft: Draft, tasks: int) -> None:
    """A mosaic of images: project each, compare neighbours, fit all differences at once, correct each, add them up in tiles."""
    rng = draft.rng
    side = max(3, round(math.sqrt(tasks / 6.4)))
    image = file_bytes(rng)
    size = {(x, y): max(4096, round(image * rng.uniform(0.7, 1.3) / 4096) * 4096) for x in range(side) for y in range(side)}
    raw = {place: draft.task([], size[place]) for place in size}
    projected = {place: draft.task([raw[place]], 2 * size[place]) for place in size}
    fits = []
    for x, y in size:
        for neighbour in ((x + 1, y), (x, y + 1)):
            if neighbour in size:
                difference = draft.task([projected[x, y], projected[neighbour]], size[x, y] // 4)
                fits.append(draft.task([difference], 4096))
    model = draft.task([draft.task(fits, 4096 * len(fits))], 4096 * side)
    corrected = {place: draft.task([projected[place], model], 2 * size[place]) for place in size}
    tiles = []
    for first in range(0, side, 4):
        rows = [corrected[x, y] for x in range(first, min(first + 4, side)) for y in range(side)]
        tiles.append(draft.task(rows, image * side))
    draft.task([draft.task([tile], image) for tile in tiles], image)


def workflow_fans(draft: Draft, tasks: int) -> None:
    """Scientific workflows: samples fan out into lanes that read a common file, are merged in groups, and fan out again over the merged result."""
    rng = draft.rng
    left = tasks
    common = [draft.task([], file_bytes(rng)) for _ in range(rng.randint(1, 3))]
    merged: List[int] = []
    while left > 4:
        source = draft.task(rng.sample(merged, min(len(merged), 2)), file_bytes(rng))
        lanes = min(rng.randint(6, 40), max(1, left // 3))
        length, narrowing = rng.randint(2, 5), rng.choice((1, 2, 4))
        ends, sides = [], []
        left -= 1
        for _ in range(lanes):
            size = file_bytes(rng)
            here = draft.task([source, rng.choice(common)], size)
            for _ in range(1, length):
                size = max(4096, size // narrowing)
                if rng.random() < 0.3:
                    sides.append(draft.task([here], 4096 * rng.randint(1, 64)))
                    left -= 1
                here = draft.task([here, *(rng.sample(merged, 1) if merged and rng.random() < 0.1 else [])], size)
            ends.append(here)
            left -= length
        groups = _cut(rng, lanes, rng.randint(1, min(4, lanes)))
        for group in groups:
            merged.append(draft.task([ends.pop() for _ in range(group)], file_bytes(rng)))
            left -= 1
        if sides:
            draft.task(sides, 4096)
            left -= 1
    draft.task(merged, file_bytes(rng))


def _cut(rng: random.Random, total: int, pieces: int) -> List[int]:
    """`total` as a sum of `pieces` numbers of at least 1."""
    marks = sorted(rng.sample(range(1, total), pieces - 1))
    return [high - low for low, high in zip([0, *marks], [*marks, total])]


FAMILIES: Dict[str, Callable[[Draft, int], None]] = {
    "layered": layered,
    "series_parallel": series_parallel,
    "preferential": preferential_attachment,
    "block_model": block_model,
    "lstm": lstm,
    "resnet": resnet,
    "densenet": densenet,
    "fork_join": fork_join,
    "map_reduce": map_reduce,
    "montage": montage,
    "workflow_fans": workflow_fans,
    "residual_unrolled": residual_unrolled,
    "dense_scales": dense_scales,
}


def make_graph(family: str, tasks: int, seed: int) -> Graph:
    """A graph of this family with about so many tasks."""
    draft = Draft(random.Random(f"{family} {tasks} {seed}"))
    FAMILIES[family](draft, tasks)
    draft.keep_the_unread()
    return draft.graph(f"drawn by benchmarks.families: {family}, {tasks} tasks, seed {seed}")


def small_graph(tasks: int, seed: int) -> Graph:
    """A few tasks with everything that a graph may have: inputs, sizes of 0, several results, kept buffers, and order without data."""
    rng = random.Random(f"small {tasks} {seed}")
    buffers: Dict[str, int] = {f"in{i}": rng.randint(0, 9) for i in range(rng.randint(0, 2))}
    rows: List[Tuple[str, List[str], List[str], List[str]]] = []
    for t in range(tasks):
        made = list(buffers)
        reads = rng.sample(made, min(len(made), rng.choice((0, 1, 1, 2, 2, 3))))
        writes = [f"b{t}.{i}" for i in range(rng.choice((0, 1, 1, 1, 1, 2)))]
        after = [f"t{rng.randrange(t)}"] if t and rng.random() < 0.1 else []
        buffers.update((name, rng.choice((0, 1, 2, 3, 5, 8, 13, 20))) for name in writes)
        rows.append((f"t{t}", reads, writes, after))
    keep = [name for name in buffers if rng.random() < 0.12]
    rng.shuffle(rows)
    return build_graph(buffers, rows, keep)

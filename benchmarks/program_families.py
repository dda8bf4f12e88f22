"""Programs with costs that are hard in different ways, by seed: training steps of known nets, and layered random ones.

    vgg        stages of convolutions, each stage smaller and wider: the first activations are the large ones
    unet       down and up again, with every stage joined to its mirror image: long lives
    segnet     down and up again without joins: one long chain
    resnet     blocks with an addition around each
    densenet   every layer of a block reads all before it
    layered    tasks in layers that read from the layers before, at times from far back; no gradient

A net is written forward; its gradient follows by itself, as a framework would have it: the gradient of a convolution reads its input,
that of a relu its input, gradients of one value are summed up in place, and each update overwrites its weight.

>>> program = make_program("resnet", 60, seed=1)
>>> 60 <= len(program.tasks) <= 80, any(value.overwrites is not None for value in program.values)
(True, True)
"""

from __future__ import annotations

import random
from typing import Any, Callable, Dict, List, Optional, Tuple

from theano_memopt.planner.program import Program, program_from_json

BATCH = 4
SECONDS_PER_BYTE = 1e-10
SECONDS_PER_MULTIPLY = 2e-11


class Net:
    """A net that is being written: values, tasks, and what its gradient will need."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.values: List[Dict[str, Any]] = []
        self.tasks: List[Dict[str, Any]] = []
        self.tape: List[Tuple[str, List[str], str]] = []
        self.shape: Dict[str, Tuple[int, int]] = {}  # value -> channels, side
        self.image = self.given("image", 3, 64)

    def bytes_of(self, name: str) -> int:
        channels, side = self.shape[name]
        return 4 * BATCH * channels * side * side

    def given(self, name: str, channels: int, side: int) -> str:
        self.shape[name] = (channels, side)
        self.values.append({"name": name, "bytes": self.bytes_of(name)})
        return name

    def task(self, kind: str, reads: List[str], shape: Optional[Tuple[int, int]], seconds: float = 0.0, **lies: str) -> str:
        name = f"{kind}{len(self.tasks)}"
        writes = []
        if shape is not None:
            self.shape[name] = shape
            self.values.append({"name": name, "bytes": self.bytes_of(name), **lies})
            writes = [name]
            seconds += SECONDS_PER_BYTE * sum(map(self.bytes_of, [*reads, name]))
        self.tasks.append({"name": name, "reads": list(dict.fromkeys(reads)), "writes": writes, "seconds": seconds * self.chance.uniform(0.8, 1.2)})
        return name

    # ----------------------------------------------------------------------------------------------------------- forward

    def conv(self, x: str, channels: int) -> str:
        side = self.shape[x][1]
        weight = f"weight{len(self.tasks)}"
        self.values.append({"name": weight, "bytes": 36 * channels * self.shape[x][0]})
        self.shape[weight] = (1, 1)
        y = self.task("conv", [x, weight], (channels, side), self._multiplies(x, channels))
        self.tape.append(("conv", [x, weight], y))
        return y

    def relu(self, x: str) -> str:
        return self._simple("relu", [x], self.shape[x])

    def pool(self, x: str) -> str:
        return self._simple("pool", [x], (self.shape[x][0], self.shape[x][1] // 2))

    def up(self, x: str) -> str:
        return self._simple("up", [x], (self.shape[x][0], self.shape[x][1] * 2))

    def add(self, x: str, y: str) -> str:
        return self._simple("add", [x, y], self.shape[x])

    def join(self, parts: List[str]) -> str:
        return self._simple("join", parts, (sum(self.shape[part][0] for part in parts), self.shape[parts[0]][1]))

    def block(self, x: str, channels: int) -> str:
        return self.relu(self.conv(x, channels))

    def _simple(self, kind: str, reads: List[str], shape: Tuple[int, int]) -> str:
        y = self.task(kind, reads, shape)
        self.tape.append((kind, reads, y))
        return y

    def _multiplies(self, x: str, channels: int) -> float:
        return SECONDS_PER_MULTIPLY * 9 * channels * self.shape[x][0] * BATCH * self.shape[x][1] ** 2

    # ---------------------------------------------------------------------------------------------------------- backward

    def train(self, y: str) -> None:
        """The loss, the gradient of everything on the tape, and an update in place for each weight."""
        self.values.append({"name": "loss", "bytes": 8, "keep": True})
        self.shape["loss"] = (1, 1)
        gradient: Dict[str, str] = {y: self.task("first_gradient", [y], self.shape[y])}
        self.tasks.append({"name": "loss", "reads": [y], "writes": ["loss"], "seconds": SECONDS_PER_BYTE * self.bytes_of(y)})
        for kind, reads, result in reversed(self.tape):
            if result in gradient:
                self._backward(kind, reads, gradient.pop(result), gradient)

    def _backward(self, kind: str, reads: List[str], g: str, gradient: Dict[str, str]) -> None:
        if kind == "conv":
            x, weight = reads
            seconds = self._multiplies(x, self.shape[g][0])
            if x != self.image:
                self._sum(gradient, x, self.task("conv_gradient", [g, weight], self.shape[x], seconds))
            change = self.task("weight_gradient", [x, g], (1, 1), seconds)
            self.values[-1]["bytes"] = next(value["bytes"] for value in self.values if value["name"] == weight)
            self.task("update", [weight, change], (1, 1), overwrites=weight)
            self.values[-1].update(keep=True, bytes=self.values[-2]["bytes"])
        elif kind == "relu":
            self._sum(gradient, reads[0], self.task("relu_gradient", [reads[0], g], self.shape[g], overwrites=g))
        elif kind == "add":
            first, second = reads
            self._sum(gradient, second, self.task("copy", [g], self.shape[g]))
            self._sum(gradient, first, g)
        elif kind == "join":
            for part in reads:
                self._sum(gradient, part, self.task("split", [g], self.shape[part]))
        else:
            self._sum(gradient, reads[0], self.task(f"{kind}_gradient", [reads[0], g] if kind == "pool" else [g], self.shape[reads[0]]))

    def _sum(self, gradient: Dict[str, str], x: str, part: str) -> None:
        known = gradient.get(x)
        gradient[x] = part if known is None else self.task("sum", [known, part], self.shape[x], overwrites=known)

    def program(self) -> Program:
        return program_from_json({"values": self.values, "tasks": self.tasks})


def _vgg(net: Net, depth: int) -> str:
    x, channels = net.image, 16
    for stage in range(4):
        for _ in range(max(1, depth // 4 + (stage < depth % 4))):
            x = net.block(x, channels)
        x, channels = net.pool(x), channels * 2
    return x


def _unet(net: Net, depth: int) -> str:
    x, channels, mirrors = net.image, 12, []
    for _ in range(3):
        for _ in range(max(1, depth // 7)):
            x = net.block(x, channels)
        mirrors.append(x)
        x, channels = net.pool(x), channels * 2
    for _ in range(max(1, depth - 6 * (depth // 7))):
        x = net.block(x, channels)
    for mirror in reversed(mirrors):
        channels //= 2
        x = net.join([net.up(x), mirror])
        for _ in range(max(1, depth // 7)):
            x = net.block(x, channels)
    return x


def _segnet(net: Net, depth: int) -> str:
    x, channels = net.image, 12
    for turn in (net.pool, net.pool, net.pool, net.up, net.up, net.up):
        for _ in range(max(1, depth // 6)):
            x = net.block(x, channels)
        x = turn(x)
        channels = channels * 2 if turn == net.pool else channels // 2
    for _ in range(max(1, depth % 6)):
        x = net.block(x, channels)
    return x


def _resnet(net: Net, depth: int) -> str:
    x, channels = net.block(net.image, 16), 16
    for i in range(depth):
        if i and i % max(1, depth // 3) == 0:
            x, channels = net.block(net.pool(x), channels * 2), channels * 2
        x = net.relu(net.add(x, net.conv(net.block(x, channels), channels)))
    return x


def _densenet(net: Net, depth: int) -> str:
    x = net.block(net.image, 12)
    per_block = max(2, min(8, depth // 3))
    parts = [x]
    for i in range(depth):
        parts.append(net.block(net.join(parts) if len(parts) > 1 else parts[0], 8))
        if len(parts) > per_block:
            x = net.block(net.join(parts), 16)
            parts = [net.pool(x) if i < depth // 2 and net.shape[x][1] > 8 else x]
    return net.join(parts) if len(parts) > 1 else parts[0]


NETS: Dict[str, Callable[[Net, int], str]] = {"vgg": _vgg, "unet": _unet, "segnet": _segnet, "resnet": _resnet, "densenet": _densenet}
FAMILIES = (*NETS, "layered")
SIZES = (50, 100, 250, 500, 1000)


def make_program(family: str, tasks: int, seed: int) -> Program:
    """A program of the family with at least so many tasks, and not many more."""
    if family == "layered":
        return _layered(tasks, random.Random(seed))
    depth = 1
    while True:
        net = Net(random.Random(seed))
        net.image = net.image if seed % 2 else net.given("large_image", 3, 96)
        net.train(NETS[family](net, depth))
        if len(net.tasks) >= tasks:
            return net.program()
        depth += 1 + (tasks - len(net.tasks)) // 40


def _layered(tasks: int, chance: random.Random) -> Program:
    width = max(3, round(tasks**0.5 / 2))
    values, rows = [], []
    for t in range(tasks):
        layer = t // width
        near = list(range(max(0, (layer - 1) * width), layer * width))
        reads = chance.sample(near, min(len(near), chance.randint(1, 3)))
        if layer > 1 and chance.random() < 0.3:
            reads.append(chance.randrange((layer - 1) * width))
        values.append({"name": f"v{t}", "bytes": chance.randint(1, 50) * 1000, "keep": t >= tasks - width})
        rows.append({"name": f"t{t}", "reads": [f"v{r}" for r in sorted(set(reads))], "writes": [f"v{t}"], "seconds": chance.randint(1, 50) / 1000})
    return program_from_json({"values": values, "tasks": rows})

"""Random Theano programs, as small descriptions that can be built, run, compared and made smaller.

A program is JSON: a list of nodes, each an input, a shared variable, a constant, or an operation on earlier nodes, with the
dtype and the shape that it will have; the shapes are formulas over the lengths n and m, which differ from call to call.

    nodes    0 input [n, m]     1 shared [m]     2 add (0, 1) [n, m]     3 T (2) [m, n]     4 dot (2, 3) [n, n]
    outputs  4, 0, 4            updates  1 <- 1            calls  {n: 3, m: 4}, {n: 3, m: 4, laid: F}, {n: 5, m: 0}

Words
    stock    the same program compiled without the pass, for Theano's default machine: the oracle
    setup    one way to compile with the pass: linker, storage, verify; without a compiler, or in float16, where Theano runs `perform`
    story    all that can be seen of a program: what each call returned or raised, the shared variables after it, whether what
             earlier calls returned and what the caller gave is still what it was

Every operation can be replaced by an input of its dtype and shape, so a failing program stays a program while it is made
smaller. Run this file for more seeds than the test-suite has:

    python -m tests.theano.programs FIRST LAST [all] [narrow] [lazy] [changing] [python | budgets | held]
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import sys
import time
import traceback
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

Program = Dict[str, Any]
Node = Dict[str, Any]
Story = List[Any]
Call = Dict[str, Any]


class Setup(NamedTuple):
    linker: str
    storage: str
    verify: bool = False
    world: str = "c"
    """"c" as described; "python" without a compiler; "float16" with every float in float16. The oracle is compiled in the same."""
    budget: str = ""
    """As the flag: a share of the least peak of any order, for which results run again."""


LINKERS = ("cvm", "vm", "cvm_nogc", "vm_nogc", "c|py")
STORAGES = ("off", "share", "arena")
SETUPS = [Setup(linker, storage) for storage in STORAGES for linker in LINKERS] + [
    Setup(linker, storage, True) for storage in ("share", "arena") for linker in LINKERS[:4]
]
WITH_AUTO = [*SETUPS, *(Setup(linker, "auto") for linker in LINKERS[:4])]
"""Where a function can run as Theano would have it until its inputs have grown."""
HELD = [setup for setup in SETUPS if setup.linker == "cvm_nogc" and setup.storage != "off"]
"""Where what lazy ops touch shares storage."""
IN_PYTHON = [
    Setup(linker, storage, verify, world)
    for world in ("python", "float16")
    for linker in ("vm", "vm_nogc", "cvm_nogc")[: 2 + (world == "float16")]
    for storage in ("share", "arena")
    for verify in (False, True)
]
"""Where Theano runs `perform` of most ops."""
WITHIN_BUDGETS = [setup._replace(budget=budget) for budget in ("0.7", "0.4") for setup in SETUPS if setup.storage != "off"]
"""Where results run again."""


def setups_of(seed: int, count: int = 3, among: Sequence[Setup] = SETUPS) -> List[Setup]:
    """A few setups for one program; over the seeds every one has its turn."""
    return [among[(seed * count + i * 7) % len(among)] for i in range(count)]


# --- what a program can be made of -----------------------------------------------------------------------------------

Choice = Optional[Tuple[List[int], List[Any], str, List[str]]]
"""Operands, parameters, dtype, shape; None where nothing fits."""

OPS: Dict[str, Tuple[int, Callable[..., Choice], Callable[..., Any]]] = {}


def _op(name: str, weight: int, choose: Callable[..., Choice]) -> Callable[[Any], Any]:
    """`choose(r, pool)` finds operands; the decorated `build(ctx, par, *operands)` makes the variable."""

    def keep(build: Any) -> Any:
        OPS[name] = (weight, choose, build)
        return build

    return keep


class Pool:
    """The nodes that there are, and ways to pick some."""

    def __init__(self, nodes: List[Node], r: random.Random, wide: bool) -> None:
        self.nodes, self.r, self.wide = nodes, r, wide

    def pick(self, test: Callable[[Node], bool] = lambda node: True) -> Optional[int]:
        fitting = [i for i, node in enumerate(self.nodes) if test(node)]
        if not fitting:
            return None
        return self.r.choice(fitting[-6:] if self.r.random() < 0.7 else fitting)

    def float(self, *ndims: int) -> Optional[int]:
        return self.pick(lambda node: _floats(node) and (not ndims or len(node["shape"]) in ndims))

    def whole(self, *ndims: int) -> Optional[int]:
        return self.pick(lambda node: not _floats(node) and (not ndims or len(node["shape"]) in ndims))

    def like(self, i: int) -> int:
        """Another of the same dtype and shape; the same one if there is no other."""
        node = self.nodes[i]
        found = self.pick(lambda other: other["dtype"] == node["dtype"] and other["shape"] == node["shape"])
        assert found is not None
        return found

    def beside(self, i: int) -> int:
        """Something that broadcasts against it."""
        node = self.nodes[i]
        found = self.pick(lambda other: other["dtype"] == node["dtype"] and _joined(other["shape"], node["shape"]) is not None)
        assert found is not None
        return found


def _floats(node: Node) -> bool:
    return node["dtype"].startswith("float")


def _joined(one: Sequence[str], other: Sequence[str]) -> Optional[List[str]]:
    long = max(len(one), len(other))
    pairs = zip(["1"] * (long - len(one)) + list(one), ["1"] * (long - len(other)) + list(other))
    joined = [b if a == "1" else a if b == "1" or a == b else None for a, b in pairs]
    return None if None in joined else [str(d) for d in joined]


def _short(shape: Sequence[str]) -> bool:
    return all(len(d) <= 30 for d in shape)


# elementwise

UNARY = ("tanh", "sqr", "neg", "sigmoid", "abs_", "half", "exp", "square", "log", "clip", "sign")


def _unary(r: random.Random, pool: Pool) -> Choice:
    i = pool.float()
    return None if i is None else ([i], [r.choice(UNARY)], pool.nodes[i]["dtype"], pool.nodes[i]["shape"])


@_op("unary", 16, _unary)
def _build_unary(ctx: Any, par: Any, x: Any) -> Any:
    tt = ctx.tt
    special = {
        "half": lambda: x * 0.5 + 1,
        "exp": lambda: tt.exp(-abs(x)),
        "square": lambda: x * x,
        "log": lambda: tt.log(1 + abs(x)),
        "clip": lambda: tt.clip(x, -0.5, 0.5),
        "sign": lambda: tt.sgn(x),
        "sigmoid": lambda: tt.nnet.sigmoid(x),
    }
    return special[par[0]]() if par[0] in special else getattr(tt, par[0])(x)


def _binary(r: random.Random, pool: Pool) -> Choice:
    i = pool.float() if r.random() < 0.85 else pool.pick()
    if i is None:
        return None
    j = pool.beside(i)
    a, b = (i, j) if r.random() < 0.5 else (j, i)
    shape = _joined(pool.nodes[a]["shape"], pool.nodes[b]["shape"])
    assert shape is not None
    return [a, b], [r.choice(("add", "mul", "sub", "maximum", "quotient", "average", "where"))], pool.nodes[i]["dtype"], shape


@_op("binary", 22, _binary)
def _build_binary(ctx: Any, par: Any, x: Any, y: Any) -> Any:
    tt = ctx.tt
    special = {
        "quotient": lambda: x / (1 + y * y),
        "average": lambda: x * 0.25 + y * 0.75 - x * y * 0.125,
        "where": lambda: tt.switch(tt.gt(x, y), x, y - 1),
    }
    return special[par[0]]() if par[0] in special else getattr(tt, par[0])(x, y)


def _cast(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick()
    if i is None:
        return None
    others = ["float64", "int64"] + (["float32", "int32", "int8"] if pool.wide else [])
    return [i], [], r.choice(others), pool.nodes[i]["shape"]


@_op("cast", 1, _cast)
def _build_cast(ctx: Any, par: Any, x: Any) -> Any:
    return ctx.tt.clip(x, -100, 100) * 2  # the cast itself is made for every node that needs one


# products


def _dot(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(1, 2)
    if i is None:
        return None
    a = pool.nodes[i]
    j = pool.pick(lambda b: b["dtype"] == a["dtype"] and len(b["shape"]) in (1, 2) and b["shape"][0] == a["shape"][-1])
    return None if j is None else ([i, j], [], a["dtype"], a["shape"][:-1] + pool.nodes[j]["shape"][1:])


@_op("dot", 10, _dot)
def _build_dot(ctx: Any, par: Any, x: Any, y: Any) -> Any:
    return ctx.tt.dot(x, y) * 0.3


def _gram(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(2)
    if i is None:
        return None
    side = r.choice((0, 1))
    shape = [pool.nodes[i]["shape"][side]] * 2
    j = pool.pick(lambda b: b["dtype"] == pool.nodes[i]["dtype"] and b["shape"] == shape)
    return ([i] if j is None else [i, j]), [side], pool.nodes[i]["dtype"], shape


@_op("gram", 6, _gram)
def _build_gram(ctx: Any, par: Any, x: Any, plus: Any = None) -> Any:
    product = ctx.tt.dot(x, x.T) if par[0] == 0 else ctx.tt.dot(x.T, x)
    return product * 0.3 if plus is None else plus - 0.2 * product


def _outer(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(1)
    if i is None:
        return None
    j = pool.pick(lambda b: b["dtype"] == pool.nodes[i]["dtype"] and len(b["shape"]) == 1)
    shape = [pool.nodes[i]["shape"][0], pool.nodes[j]["shape"][0]]
    k = pool.pick(lambda b: b["dtype"] == pool.nodes[i]["dtype"] and b["shape"] == shape)
    return ([i, j] if k is None else [i, j, k]), [], pool.nodes[i]["dtype"], shape


@_op("outer", 3, _outer)
def _build_outer(ctx: Any, par: Any, x: Any, y: Any, plus: Any = None) -> Any:
    return ctx.tt.outer(x, y) if plus is None else plus + 0.1 * ctx.tt.outer(x, y)


def _batched(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(3)
    if i is None:
        return None
    a, b, c = pool.nodes[i]["shape"]
    return [i], [], pool.nodes[i]["dtype"], [a, b, b]


@_op("batched", 2, _batched)
def _build_batched(ctx: Any, par: Any, x: Any) -> Any:
    return ctx.tt.batched_dot(x, x.dimshuffle(0, 2, 1)) * 0.3


# reductions and the like


def _reduction(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(1, 2, 3)
    if i is None:
        return None
    shape, axis = pool.nodes[i]["shape"], r.choice((0, -1, None))
    kind = r.choice(("sum", "sum", "mean", "max", "prod", "min", "std", "keep", "argmax", "any"))
    dtype = "int64" if kind in ("argmax", "any") else pool.nodes[i]["dtype"]
    if kind == "keep":
        left = ["1"] * len(shape) if axis is None else shape[1:] if axis == 0 else shape[:-1]
        left = left if axis is None else ["1", *left] if axis == 0 else [*left, "1"]
    else:
        left = [] if axis is None else shape[1:] if axis == 0 else shape[:-1]
    return [i], [kind, axis], dtype, left


@_op("reduction", 10, _reduction)
def _build_reduction(ctx: Any, par: Any, x: Any) -> Any:
    kind, axis = par
    if kind == "keep":
        return x.sum(axis=axis, keepdims=True)
    if kind == "any":
        return ctx.tt.any(x > 0.5, axis=axis)
    if kind == "std":
        return ctx.tt.sqrt(((x - x.mean(axis=axis, keepdims=True)) ** 2).mean(axis=axis))
    return getattr(ctx.tt, kind)(x, axis=axis)


def _row_wise(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(2)
    kind = r.choice(("softmax", "softmax", "logsoftmax", "normalise", "with_bias"))
    return None if i is None else ([i], [kind], pool.nodes[i]["dtype"], pool.nodes[i]["shape"])


@_op("row_wise", 4, _row_wise)
def _build_row_wise(ctx: Any, par: Any, x: Any) -> Any:
    tt = ctx.tt
    return {
        "softmax": lambda: tt.nnet.softmax(x),
        "logsoftmax": lambda: tt.nnet.logsoftmax(x),
        "normalise": lambda: (x - x.mean(axis=0)) / (1 + x.std(axis=0)),
        "with_bias": lambda: tt.nnet.softmax(x + x.sum(axis=0)),
    }[par[0]]()


def _crossentropy(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(2)
    if i is None:
        return None
    j = pool.pick(lambda node: not _floats(node) and node["shape"] == pool.nodes[i]["shape"][:1])
    return None if j is None else ([i, j], [], pool.nodes[i]["dtype"], pool.nodes[i]["shape"][:1])


@_op("crossentropy", 4, _crossentropy)
def _build_crossentropy(ctx: Any, par: Any, x: Any, y: Any) -> Any:
    y = ctx.tt.cast(abs(y), "int64") % ctx.tt.maximum(x.shape[1], 1)
    return ctx.tt.nnet.categorical_crossentropy(ctx.tt.nnet.softmax(x), y)


def _along(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(1, 2)
    kind = r.choice(("cumsum", "cumsum", "cumprod", "sort", "roll"))
    return None if i is None else ([i], [kind, r.randrange(len(pool.nodes[i]["shape"]))], pool.nodes[i]["dtype"], pool.nodes[i]["shape"])


@_op("along", 5, _along)
def _build_along(ctx: Any, par: Any, x: Any) -> Any:
    tt, (kind, axis) = ctx.tt, par
    if kind in ("cumsum", "cumprod"):
        return getattr(tt.extra_ops, kind)(x, axis=axis)
    return tt.sort(x, axis=axis) if kind == "sort" else tt.roll(x, 1, axis=axis)


# parts

CUTS: Dict[str, Tuple[Callable[[], Any], str]] = {
    "all": (lambda: slice(None), "{}"),
    "reverse": (lambda: slice(None, None, -1), "{}"),
    "tail": (lambda: slice(1, None), "max({}-1,0)"),
    "head": (lambda: slice(None, -1), "max({}-1,0)"),
    "step": (lambda: slice(None, None, 2), "({}+1)//2"),
    "first": (lambda: 0, ""),
    "last": (lambda: -1, ""),
    "one": (lambda: slice(0, 1), "min({},1)"),
}


def _cut_shape(shape: Sequence[str], cuts: Sequence[str]) -> List[str]:
    cut = [CUTS[c][1].format(d) for c, d in zip(cuts, shape)]
    return [d for d in cut if d] + list(shape[len(cuts) :])


def _cut(x: Any, cuts: Sequence[str]) -> Any:
    return x[tuple(CUTS[c][0]() for c in cuts)]


def _some_cuts(r: random.Random, shape: Sequence[str]) -> List[str]:
    return [r.choice(sorted(CUTS)) if d != "1" else "all" for d in shape[: r.choice((1, 1, 2))]]


def _subtensor(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: len(node["shape"]) >= 1)
    if i is None:
        return None
    cuts = _some_cuts(r, pool.nodes[i]["shape"])
    return [i], [cuts], pool.nodes[i]["dtype"], _cut_shape(pool.nodes[i]["shape"], cuts)


@_op("subtensor", 9, _subtensor)
def _build_subtensor(ctx: Any, par: Any, x: Any) -> Any:
    return _cut(x, par[0])


def _write(r: random.Random, pool: Pool) -> Choice:
    """set_subtensor or inc_subtensor of a part, by a number, by something of that shape, or by a part of something alike."""
    i = pool.pick(lambda node: len(node["shape"]) >= 1)
    if i is None:
        return None
    node = pool.nodes[i]
    cuts, how = _some_cuts(r, node["shape"]), r.choice(("set", "inc"))
    part = _cut_shape(node["shape"], cuts)
    fitting = pool.pick(lambda other: other["dtype"] == node["dtype"] and other["shape"] == part)
    if fitting is not None and r.random() < 0.7:
        return [i, fitting], [how, cuts, None], node["dtype"], node["shape"]
    if r.random() < 0.6:
        twin = {"tail": "head", "head": "tail", "all": "reverse", "reverse": "all", "first": "last", "last": "first"}
        return [i, pool.like(i)], [how, cuts, [twin.get(c, c) for c in cuts]], node["dtype"], node["shape"]
    return [i], [how, cuts, None], node["dtype"], node["shape"]


@_op("write", 10, _write)
def _build_write(ctx: Any, par: Any, x: Any, value: Any = None) -> Any:
    how, cuts, cuts_of_value = par
    value = ctx.tt.constant(2, dtype=x.dtype) if value is None else value if cuts_of_value is None else _cut(value, cuts_of_value)
    return (ctx.tt.set_subtensor if how == "set" else ctx.tt.inc_subtensor)(_cut(x, cuts), value)


def _take(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(1, 2)
    j = pool.whole(1)
    if i is None or j is None:
        return None
    a, k = pool.nodes[i], pool.nodes[j]["shape"]
    rows = k + a["shape"][1:]
    how = r.choice(("get", "get", "set", "inc", "pairs"))
    if how == "get":
        return [i, j], [how], a["dtype"], rows
    if how == "pairs":
        return ([i, j], [how], a["dtype"], k) if len(a["shape"]) == 2 else None
    value = pool.pick(lambda node: node["dtype"] == a["dtype"] and node["shape"] in (rows, rows[1:]))
    return ([i, j] if value is None else [i, j, value]), [how], a["dtype"], a["shape"]


@_op("take", 7, _take)
def _build_take(ctx: Any, par: Any, x: Any, at: Any, value: Any = None) -> Any:
    tt = ctx.tt
    at = tt.cast(abs(at), "int64")
    rows = at % tt.maximum(x.shape[0], 1)
    if par[0] == "pairs":
        return x[rows, at % tt.maximum(x.shape[1], 1)]
    if par[0] == "get":
        return x[rows]
    return (tt.set_subtensor if par[0] == "set" else tt.inc_subtensor)(x[rows], tt.constant(3, dtype=x.dtype) if value is None else value)


def _positive(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(1, 2)
    return None if i is None else ([i], [], pool.nodes[i]["dtype"], [])


@_op("positive", 2, _positive)
def _build_positive(ctx: Any, par: Any, x: Any) -> Any:
    """A shape that depends on data, with work in it."""
    chosen = x[(x > 0).nonzero()]
    return (ctx.tt.tanh(chosen) * 2 + chosen[::-1]).sum()


# shapes


def _turn(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: len(node["shape"]) in (2, 3))
    if i is None:
        return None
    order = list(range(len(pool.nodes[i]["shape"])))
    r.shuffle(order)
    return [i], [order], pool.nodes[i]["dtype"], [pool.nodes[i]["shape"][axis] for axis in order]


@_op("turn", 7, _turn)
def _build_turn(ctx: Any, par: Any, x: Any) -> Any:
    return x.dimshuffle(*par[0])


def _expand(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: len(node["shape"]) <= 2)
    if i is None:
        return None
    shape = pool.nodes[i]["shape"]
    at = r.randrange(len(shape) + 1)
    return [i], [at], pool.nodes[i]["dtype"], [*shape[:at], "1", *shape[at:]]


@_op("expand", 3, _expand)
def _build_expand(ctx: Any, par: Any, x: Any) -> Any:
    return x.dimshuffle(*range(par[0]), "x", *range(par[0], x.ndim))


def _squeeze(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: "1" in node["shape"])
    if i is None:
        return None
    shape = pool.nodes[i]["shape"]
    at = r.choice([axis for axis, d in enumerate(shape) if d == "1"])
    return [i], [at], pool.nodes[i]["dtype"], shape[:at] + shape[at + 1 :]


@_op("squeeze", 3, _squeeze)
def _build_squeeze(ctx: Any, par: Any, x: Any) -> Any:
    return x.dimshuffle(*[axis for axis in range(x.ndim) if axis != par[0]])


def _reshape(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: len(node["shape"]) in (1, 2, 3))
    if i is None:
        return None
    shape = pool.nodes[i]["shape"]
    if r.random() < 0.5 and len(shape) > 1:
        return [i], ["swap"], pool.nodes[i]["dtype"], shape[::-1]
    flat = "*".join(d if d.isalnum() else f"({d})" for d in shape)
    return [i], ["flat"], pool.nodes[i]["dtype"], [flat]


@_op("reshape", 5, _reshape)
def _build_reshape(ctx: Any, par: Any, x: Any) -> Any:
    return x.flatten() if par[0] == "flat" else x.reshape(tuple(x.shape[axis] for axis in reversed(range(x.ndim))), ndim=x.ndim)


def _join(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: len(node["shape"]) in (1, 2))
    if i is None:
        return None
    a = pool.nodes[i]
    axis = r.randrange(len(a["shape"]))

    def fits(b: Node) -> bool:
        return b["dtype"] == a["dtype"] and len(b["shape"]) == len(a["shape"]) and b["shape"][:axis] == a["shape"][:axis] and (
            b["shape"][axis + 1 :] == a["shape"][axis + 1 :]
        )  # fmt: skip

    picked = [i] + [j for j in [pool.pick(fits) for _ in range(r.choice((1, 1, 2)))] if j is not None]
    shape = list(a["shape"])
    shape[axis] = "+".join(pool.nodes[j]["shape"][axis] for j in picked)
    shape[axis] = f"({shape[axis]})"
    return picked, [axis], a["dtype"], shape


@_op("join", 5, _join)
def _build_join(ctx: Any, par: Any, *parts: Any) -> Any:
    return ctx.tt.join(par[0], *parts)


def _stack(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: len(node["shape"]) in (0, 1, 2))
    if i is None:
        return None
    j = pool.like(i)
    return [i, j, i], [], pool.nodes[i]["dtype"], ["3", *pool.nodes[i]["shape"]]


@_op("stack", 2, _stack)
def _build_stack(ctx: Any, par: Any, *parts: Any) -> Any:
    return ctx.tt.stack(parts)


def _fill(r: random.Random, pool: Pool) -> Choice:
    i, j = pool.pick(), pool.float(0)
    kind = r.choice(("alloc", "zeros", "ones", "fill"))
    return None if i is None or j is None else ([i, j], [kind], pool.nodes[j]["dtype"], pool.nodes[i]["shape"])


@_op("fill", 4, _fill)
def _build_fill(ctx: Any, par: Any, like: Any, value: Any) -> Any:
    tt = ctx.tt
    if par[0] == "alloc":
        return tt.alloc(value, *[like.shape[axis] for axis in range(like.ndim)])
    return {"zeros": lambda: tt.zeros_like(like) + value, "ones": lambda: tt.ones_like(like), "fill": lambda: tt.fill(like, value)}[par[0]]()


def _from_length(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: len(node["shape"]) >= 1 and "1" not in node["shape"])
    return None if i is None else ([i], [], "int64", pool.nodes[i]["shape"][:1])


@_op("arange", 1, _from_length)
def _build_arange(ctx: Any, par: Any, x: Any) -> Any:
    return ctx.tt.arange(x.shape[0])


def _diagonal(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick(lambda node: _floats(node) and len(node["shape"]) == 2 and node["shape"][0] == node["shape"][1])
    return None if i is None else ([i], [], pool.nodes[i]["dtype"], pool.nodes[i]["shape"][:1])


@_op("diagonal", 1, _diagonal)
def _build_diagonal(ctx: Any, par: Any, x: Any) -> Any:
    return ctx.tt.diag(x)


def _image(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(2)
    if i is None:
        return None
    kind, shape = r.choice(("conv", "pool", "pool")), pool.nodes[i]["shape"]
    if kind == "pool":
        shape = [f"({d}+1)//2" if d != "1" else d for d in shape]
    return [i], [kind], pool.nodes[i]["dtype"], shape


@_op("image", 1, _image)
def _build_image(ctx: Any, par: Any, x: Any) -> Any:
    tt = ctx.tt
    if par[0] == "pool":
        from theano.tensor.signal.pool import pool_2d

        return pool_2d(x.dimshuffle("x", "x", 0, 1), (2, 2), ignore_border=False).dimshuffle(2, 3, 0, 1).sum(axis=(2, 3))
    filters = tt.constant(np.random.RandomState(9).normal(size=(2, 1, 3, 3)).astype(x.dtype))
    return tt.nnet.conv2d(x.dimshuffle("x", "x", 0, 1), filters, border_mode="half").sum(axis=(0, 1))


# control


def _branch(r: random.Random, pool: Pool) -> Choice:
    c, i = pool.pick(lambda node: node["shape"] == []), pool.pick()
    if c is None or i is None:
        return None
    return [c, i, pool.like(i)], [r.choice((1, 2))], pool.nodes[i]["dtype"], pool.nodes[i]["shape"]


@_op("branch", 5, _branch)
def _build_branch(ctx: Any, par: Any, c: Any, x: Any, y: Any) -> Any:
    from theano.ifelse import ifelse

    c = ctx.tt.gt(c, 0)
    return ifelse(c, x, y) if par[0] == 1 else sum(ifelse(c, (x, y), (y * 2, x)))


CHOICES = ("apart", "shared", "nested", "late", "several", "written", "handed_on", "loop")


def _choice(r: random.Random, pool: Pool) -> Choice:
    numbers = [i for i, node in enumerate(pool.nodes) if node["shape"] == []]
    i = pool.float(0, 1, 2)
    if not numbers or i is None:
        return None
    c, d = (r.choice(numbers[:2] if r.random() < 0.8 else numbers) for _ in range(2))
    return [c, i, pool.like(i), d], [r.choice(CHOICES)], pool.nodes[i]["dtype"], pool.nodes[i]["shape"]


@_op("choice", 5, _choice)
def _build_choice(ctx: Any, par: Any, c: Any, x: Any, y: Any, d: Any) -> Any:
    """Branches with ops of their own, that share some with each other, with another branch, or with what runs in every call."""
    from theano.ifelse import ifelse

    tt = ctx.tt
    c, d = tt.gt(c, 0), tt.gt(d, 0.25)
    one, other, both = tt.tanh(x) * 0.5, y * y * 0.25 + 1, tt.tanh(x - y)
    first, second = tt.exp(-abs(one)), other - tt.tanh(other)
    kind = par[0] if x.ndim else "nested" if par[0] in ("written", "loop") else par[0]
    if kind == "shared":
        return ifelse(c, tt.exp(-abs(both)), both * second) + tt.tanh(both)
    if kind == "nested":
        return ifelse(c, ifelse(d, first, both), ifelse(d, second, both * one)) - both
    if kind == "late":
        before = ifelse(c, x, first)
        return ifelse(d, first, tt.tanh(before)) + before
    if kind == "several":
        p, q = ifelse(c, (first, both), (second, one))
        return p * 0.5 + ifelse(c, q, tt.tanh(q))
    if kind == "written":
        return ifelse(c, tt.set_subtensor(first[:1], 0.5), tt.inc_subtensor(second[:1], 1)) * 0.5
    if kind == "handed_on":
        return tt.tanh(ifelse(d, ifelse(c, first, both), second)) + 0 * ifelse(c, both, second)
    if kind == "loop":
        rows, _ = ctx.theano.scan(lambda row: tt.tanh(row) * 0.5, sequences=[first])
        return ifelse(c, rows + first, second)
    return ifelse(c, first, second)


SCANS = ("rows", "taps", "map", "steps", "last", "shared", "backwards", "product", "two")


def _scan(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(2)
    if i is None:
        return None
    node, kind = pool.nodes[i], r.choice(SCANS)
    if "1" in node["shape"]:
        return None
    j = pool.pick(lambda other: other["dtype"] == node["dtype"] and other["shape"] == node["shape"][1:])
    if j is None:
        return None
    shape = {"last": node["shape"][1:], "product": node["shape"][1:]}.get(kind, node["shape"])
    return [i, j], [kind], node["dtype"], shape


@_op("scan", 2, _scan)
def _build_scan(ctx: Any, par: Any, x: Any, start: Any) -> Any:
    tt, kind = ctx.tt, par[0]

    def scan(step: Any, **how: Any) -> Any:
        out, updates = ctx.theano.scan(step, mode=ctx.mode, **how)
        ctx.updates.extend(updates.items())
        return out

    def step(row: Any, s: Any) -> Any:
        return tt.tanh(row + s * 0.5) + s.sum() * 0.1

    if kind in ("rows", "backwards"):
        return scan(step, sequences=[x], outputs_info=[start], go_backwards=kind == "backwards")
    if kind == "last":
        return scan(step, sequences=[x], outputs_info=[start])[-1]
    if kind == "taps":
        first = tt.stack([start, start * 2])
        return scan(lambda row, a, b: tt.tanh(row + a * 0.5 - b), sequences=[x], outputs_info=[{"initial": first, "taps": [-2, -1]}])
    if kind == "map":
        return scan(lambda row: tt.exp(-row * row) + row[::-1], sequences=[x])
    if kind == "steps":
        return scan(lambda s: tt.tanh(s) + s.sum(axis=0) * 0.1, outputs_info=[x], n_steps=3)[-1]
    if kind == "product":
        return scan(lambda s, w: tt.tanh(tt.dot(s, tt.dot(w.T, w))), outputs_info=[start], non_sequences=[x], n_steps=4)[-1]
    if kind == "two":
        sums, rows = scan(lambda row, s: (s + row, tt.tanh(s) * row), sequences=[x], outputs_info=[start, None])
        return sums + rows
    count = ctx.extra(np.asarray(1, x.dtype))
    return scan(lambda row, s: (step(row, s) + count, {count: count + 1}), sequences=[x], outputs_info=[start])


def _grad(r: random.Random, pool: Pool) -> Choice:
    i = pool.float()
    if i is None:
        return None
    wrt = pool.pick(lambda node: _floats(node) and node["kind"] in ("input", "shared"))
    return None if wrt is None else ([i, wrt], [], pool.nodes[wrt]["dtype"], pool.nodes[wrt]["shape"])


@_op("grad", 4, _grad)
def _build_grad(ctx: Any, par: Any, y: Any, x: Any) -> Any:
    return ctx.tt.grad(y.sum(), x, disconnected_inputs="ignore", add_names=False)


def _noise(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(1, 2)
    return None if i is None else ([i], [r.choice(("old", "mrg")), r.randrange(99)], pool.nodes[i]["dtype"], pool.nodes[i]["shape"])


@_op("noise", 1, _noise)
def _build_noise(ctx: Any, par: Any, x: Any) -> Any:
    if par[0] == "old":
        from theano.tensor.shared_randomstreams import RandomStreams as Streams
    else:
        from theano.sandbox.rng_mrg import MRG_RandomStreams as Streams
    streams = Streams(par[1] + 1)
    noise = streams.uniform(size=x.shape, dtype=x.dtype)
    ctx.states.extend(update[0] for update in streams.state_updates)
    return x + noise


def _same_view(r: random.Random, pool: Pool) -> Choice:
    i = pool.pick()
    return None if i is None else ([i], [r.choice(("view", "copy", "assert"))], pool.nodes[i]["dtype"], pool.nodes[i]["shape"])


@_op("same", 3, _same_view)
def _build_same(ctx: Any, par: Any, x: Any) -> Any:
    if par[0] == "view":
        return ctx.theano.compile.ops.view_op(x)
    if par[0] == "copy":
        return ctx.theano.compile.ops.deep_copy_op(x)
    return ctx.tt.opt.assert_op(x, ctx.tt.ge(x.shape[0], 0)) if x.ndim else ctx.tt.opt.assert_op(x, ctx.tt.eq(x, x))


def _inner_graph(r: random.Random, pool: Pool) -> Choice:
    i = pool.float(2)
    return None if i is None or "1" in pool.nodes[i]["shape"] else ([i], [r.random() < 0.5], pool.nodes[i]["dtype"], pool.nodes[i]["shape"])


@_op("from_graph", 1, _inner_graph)
def _build_from_graph(ctx: Any, par: Any, x: Any) -> Any:
    from theano.compile.builders import OpFromGraph

    inner = ctx.tt.TensorType(x.dtype, x.broadcastable)()
    return OpFromGraph([inner], [ctx.tt.tanh(inner) + ctx.tt.dot(ctx.tt.dot(inner, inner.T), inner) * 0.1], inline=par[0])(x)


# --- making a program ------------------------------------------------------------------------------------------------


def generate(seed: int, wide: bool = True, lazy: bool = False, changing: bool = False) -> Program:
    """The program of this seed. Not `wide`: one dtype, matrices and vectors, seldom fused, so that few ops need compiling. `lazy`: with
    many branches. `changing`: nearly every call has other lengths than the one before, and some of them are long."""
    r = random.Random(f"{seed} {wide}")
    dtype = r.choice(("float64", "float64", "float32")) if wide else "float64"
    shapes = [["n", "m"], ["n", "m"], ["m"], ["n"], [], ["m", "n"], ["n", "n"], ["m", "m"]]
    if wide:
        shapes += [["n", "1"], ["1", "m"], ["n", "m", "2"], ["1"], ["2", "n", "m"]]
    nodes: List[Node] = []
    for _ in range(r.choice((1, 2, 2, 3))):
        nodes.append(_node("input", dtype, r.choice(shapes[:2] if not nodes else shapes)))
    for _ in range(r.choice((0, 1, 1, 2, 3))):
        fixed = [["3", "4"], ["4"], ["4", "4"]] if r.random() < 0.3 else shapes
        nodes.append(_node("shared", dtype, r.choice(fixed)))
        if r.random() < 0.3:
            nodes.append(_node("shared", dtype, nodes[-1]["shape"]))
    if r.random() < 0.5:
        nodes.append(_node("input", "int64", r.choice((["n"], ["m"], [], ["n"]))))
    if r.random() < 0.3:
        nodes.append(_node("const", dtype, r.choice(([], ["3"], ["3", "4"]))))
    pool = Pool(nodes, r, wide)
    names = sorted(OPS)
    weights = [OPS[name][0] for name in names]
    if not wide:
        rare = ("scan", "image", "from_graph", "noise", "batched")
        weights = [1 if name in rare else 5 * weight for name, weight in zip(names, weights)]
    if lazy:
        nodes.append(_node("input", "int64", []))
        common = {"branch": 200, "choice": 400, "unary": 100, "binary": 100, "dot": 60, "reduction": 60}
        weights = [common.get(name, 1) for name in names]
    operations = r.choice((3, 5, 8, 8, 12, 12, 18, 25))
    for _ in range(10 * operations):
        name = r.choices(names, weights)[0]
        choice = OPS[name][1](r, pool)
        if choice is not None and _short(choice[3]):
            inputs, par, kind, shape = choice
            nodes.append({"kind": name, "in": inputs, "par": par, "dtype": kind, "shape": list(shape)})
            operations -= 1
        if not operations:
            break
    program = {"nodes": nodes, "seed": seed, "fusion": r.random() < (0.3 if wide else 0.05)}
    program["outputs"] = _some_outputs(r, nodes)
    program["updates"] = _some_updates(r, nodes)
    program["borrow"] = [i for i in range(len(program["outputs"])) if r.random() < 0.1]
    program["mutable"] = [i for i, node in enumerate(nodes) if node["kind"] == "input" and r.random() < 0.1]
    program["hints"] = r.choice(("none", "none", "right", "wrong"))
    program["grows"] = r.random() < 0.05
    program["calls"] = _changing_calls(r) if changing else _some_calls(r)
    for call in program["calls"]:
        call["laid"] = r.choice(("C", "C", "C", "F", "gaps", "mixed"))
    return without_the_dead(program)


LAYOUTS: Dict[str, Callable[[Any], Any]] = {
    "C": lambda array: array,
    "F": lambda array: np.array(array, order="F"),
    "backwards": lambda array: array[(slice(None, None, -1),) * array.ndim].copy()[(slice(None, None, -1),) * array.ndim],
    "gaps": lambda array: np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array,
}
"""How the arrays that a caller gives can lie in memory; in a "mixed" call every one in another way."""


def _node(kind: str, dtype: str, shape: Sequence[str]) -> Node:
    return {"kind": kind, "in": [], "par": [], "dtype": dtype, "shape": list(shape)}


def _some_outputs(r: random.Random, nodes: List[Node]) -> List[int]:
    used = {i for node in nodes for i in node["in"]}
    ends = [i for i, node in enumerate(nodes) if i not in used and node["in"]]
    outputs = r.sample(ends, min(len(ends), r.choice((2, 3, 5, 9)))) or [len(nodes) - 1]
    outputs += [r.randrange(len(nodes)) for _ in range(r.choice((0, 0, 1, 2)))]
    if r.random() < 0.1:
        outputs.append(r.choice(outputs))
    return outputs


def _some_updates(r: random.Random, nodes: List[Node]) -> List[List[int]]:
    shared = [i for i, node in enumerate(nodes) if node["kind"] == "shared"]
    updates = []
    for i in shared:
        alike = [j for j, node in enumerate(nodes) if node["dtype"] == nodes[i]["dtype"] and node["shape"] == nodes[i]["shape"] and j != i]
        if alike and r.random() < 0.7:
            swapped = [j for j in alike if nodes[j]["kind"] == "shared"]
            updates.append([i, r.choice(swapped) if swapped and r.random() < 0.3 else r.choice(alike[-3:])])
    return updates


def _some_calls(r: random.Random) -> List[Call]:
    n, m = r.choice((2, 3, 4, 4)), r.choice((3, 4, 4, 5))
    usual = {"n": n, "m": m}
    other = {"n": r.choice((1, 2, 5, 7)), "m": r.choice((m, 6))}
    odd = {"n": r.choice((0, 1, 3)), "m": r.choice((1, 4, 9, 0))}
    return [dict(call) for call in (usual, usual, usual, usual, other, usual, other, other, odd, usual, odd, usual)]


def _changing_calls(r: random.Random) -> List[Call]:
    """Lengths that alternate, grow, fall, or are random, then some of those that came before once more. By twos and threes in a row, too: what
    is decided at the second call with the same lengths has its turn."""
    kind, count = r.choice(("alternating", "growing", "falling", "random")), 7
    if kind == "alternating":
        pair = [(r.randint(2, 9), r.randint(2, 9)), (r.randint(20, 90), r.randint(10, 60))]
        lengths = [pair[i % 2] for i in range(count)]
    else:
        lengths = [(r.choice((1, 2, 3, 5, 8, 13, 40, 90)), r.choice((2, 3, 4, 7, 11, 30, 60))) for _ in range(count)]
        if kind != "random":
            lengths.sort(key=lambda nm: nm[0] * nm[1], reverse=kind == "falling")
    lengths += r.sample(lengths, 3)
    return [{"n": n, "m": m} for n, m in lengths for _ in range(r.choice((1, 1, 1, 2, 3)))]


def without_the_dead(program: Program) -> Program:
    """The same program without nodes that nothing asks for."""
    nodes = program["nodes"]
    alive = {*program["outputs"], *(i for pair in program["updates"] for i in pair)}
    for i in reversed(range(len(nodes))):
        if i in alive:
            alive.update(nodes[i]["in"])
    place = {old: new for new, old in enumerate(sorted(alive))}
    return {
        **program,
        "nodes": [{**nodes[i], "in": [place[j] for j in nodes[i]["in"]]} for i in sorted(alive)],
        "outputs": [place[i] for i in program["outputs"]],
        "updates": [[place[i], place[j]] for i, j in program["updates"]],
        "mutable": [place[i] for i in program["mutable"] if i in place],
    }


# --- building and running --------------------------------------------------------------------------------------------


class Built:
    """A program in Theano's variables, with shared variables of its own."""

    def __init__(self, program: Program, mode: Any) -> None:
        import theano
        import theano.tensor as tt

        import theano_memopt

        self.theano, self.tt, self.mode, self.program = theano, tt, mode, program
        self.updates: List[Any] = []
        self.states: List[Any] = []
        """Of random streams."""
        self.shared: List[Any] = []
        self.inputs: List[Tuple[int, Any]] = []
        self.variables: List[Any] = []
        for i, node in enumerate(program["nodes"]):
            self.variables.append(self._variable(i, node))
        self.growing = self.extra(np.ones(2)) if program["grows"] else None
        if program["hints"] != "none":
            for i, v in self.inputs:
                lengths = lengths_of(program["nodes"][i]["shape"], program["calls"][0])
                theano_memopt.hint(v, [1 if b else d if program["hints"] == "right" else 17 for d, b in zip(lengths, v.broadcastable)])

    def _variable(self, i: int, node: Node) -> Any:
        tt, broadcastable = self.tt, [d == "1" for d in node["shape"]]
        kind = tt.TensorType(node["dtype"], broadcastable)
        if node["kind"] == "input":
            self.inputs.append((i, kind(f"x{i}")))
            return self.inputs[-1][1]
        if node["kind"] == "shared":
            start = value_of(node, i, self.program["calls"][0], 0)
            self.shared.append(self.theano.shared(start, name=f"w{i}", broadcastable=broadcastable))
            return self.shared[-1]
        if node["kind"] == "const":
            return tt.patternbroadcast(tt.constant(value_of(node, i, {}, 0)), broadcastable)
        made = OPS[node["kind"]][2](self, node["par"], *[self.variables[j] for j in node["in"]])
        if str(made.dtype) != node["dtype"]:
            made = tt.cast(made, node["dtype"])
        assert made.ndim == len(broadcastable), (node, made.type)
        return made if list(made.broadcastable) == broadcastable else tt.patternbroadcast(made, broadcastable)

    def extra(self, value: Any) -> Any:
        """A shared variable that an operation brings along."""
        self.shared.append(self.theano.shared(value, name=f"extra{len(self.shared)}"))
        return self.shared[-1]

    def function(self) -> Any:
        theano, tt, program, v = self.theano, self.tt, self.program, self.variables
        outputs = [theano.Out(v[i], borrow=k in program["borrow"]) for k, i in enumerate(program["outputs"])]
        updates = [(v[i], v[j]) for i, j in program["updates"]]
        if self.growing is not None:
            total = sum(v[i].sum() for i in program["outputs"])
            updates.append((self.growing, tt.concatenate([self.growing, tt.stack([tt.cast(total, "float64")])])))
            outputs.append(theano.Out(self.growing.sum()))
        merged: Dict[Any, Any] = {}
        for w, new in [*updates, *self.updates]:
            merged[w] = new
        inputs = [theano.In(x, mutable=i in program["mutable"]) for i, x in self.inputs]
        return theano.function(inputs, outputs, updates=list(merged.items()), mode=self.mode, on_unused_input="ignore")


def lengths_of(shape: Sequence[str], call: Call) -> List[int]:
    return [int(eval(d, {"__builtins__": {}, "max": max, "min": min}, dict(call))) for d in shape]


def value_of(node: Node, i: int, call: Call, number: int) -> Any:
    r = np.random.RandomState(1000 * number + 17 * i + 3)
    lengths = lengths_of(node["shape"], call)
    if not _floats(node):
        return np.asarray(r.randint(-1, 4, lengths), dtype=node["dtype"])
    return np.asarray(r.normal(0, 1, lengths), dtype=node["dtype"])


def tell(program: Program, mode: Any) -> Story:
    """Compile and call, and say all that can be seen."""
    built = Built(program, mode)
    function = built.function()
    nodes = program["nodes"]
    shared = [i for i, node in enumerate(nodes) if node["kind"] == "shared"]
    story: Story = []
    kept: List[Tuple[str, Any, Any]] = []
    extras = [(w, w.get_value()) for w in [*(w for w in built.shared if w.name.startswith("extra")), *built.states]]
    # Of the branches of a lazy op an arena does not know what Theano would keep: their layouts are not compared.
    unsure = any(node["kind"] == "branch" for node in nodes)
    before: Any = lengths_of("nm", program["calls"][0])
    for number, call in enumerate(program["calls"]):
        if lengths_of("nm", call) != before:
            for i in shared:
                built.variables[i].set_value(value_of(nodes[i], i, call, number))
            for w, value in extras:
                w.set_value(value)
            before = lengths_of("nm", call)
        arguments = [_given(nodes[i], i, call, number) for i, _ in built.inputs]
        if number % 2:
            poison(function, [value for _, value, _ in kept])
        try:
            result = function(*arguments)
        except Exception as error:
            # Which of several errors comes first depends on the order.
            told: Any = ("raised", str(error) if type(error).__name__ == "Corrupted" else "an error")
        else:
            result = result if isinstance(result, list) else [result]
            told = ("gave", [bits(r) + (() if unsure else (strides(r),)) for r in result])
            kept += [(f"output {k} of call {number}", r, bits(r)) for k, r in enumerate(result) if k not in program["borrow"]]
        kept += [
            (f"argument {k} of call {number}", a, bits(_given(nodes[i], i, call, number)))
            for k, (a, (i, _)) in enumerate(zip(arguments, built.inputs))
            if i not in program["mutable"]
        ]
        if told[0] == "raised":
            # How far in-place updates had come depends on the order, in Theano itself too: begin anew. And so does what is
            # left in cells, which later arrays take after.
            before, unsure = None, True
        story.append((told, [bits(w.get_value()) for w in built.shared] if before is not None else []))
    story.append([name for name, value, was in kept if bits(value) != was])
    return story


def _given(node: Node, i: int, call: Call, number: int) -> Any:
    """An argument of a call."""
    how = call.get("laid", "C")
    return LAYOUTS[sorted(LAYOUTS)[(i + number) % len(LAYOUTS)] if how == "mixed" else how](value_of(node, i, call, number))


def poison(function: Any, kept: Sequence[Any]) -> None:
    """Fill what the function keeps between calls with NaN: none of it may be read before it is written.

    What the caller keeps may lie in cells still (a result that is a view of an intermediate) until the next call begins.
    And a view is left alone that outlived what it was of: Theano resizes arrays in place, and makes its views anew.
    """
    storage = getattr(function.fn, "storage_map", {})
    theirs = [*kept, *(cell[0] for v, cell in storage.items() if v.owner is None or v in function.maker.fgraph.outputs)]
    for v, (value,) in storage.items():
        if v.owner is None or not isinstance(value, np.ndarray) or not value.flags.writeable or not value.size or value.dtype.kind != "f":
            continue
        if _is_alive(value) and not any(isinstance(other, np.ndarray) and np.may_share_memory(value, other) for other in theirs):
            value.fill(np.nan)


def _is_alive(value: Any) -> bool:
    """Does it lie within the array that owns the memory?"""
    owner = value
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    (first, last), (begin, end) = np.byte_bounds(value), np.byte_bounds(owner)
    return bool(begin <= first and last <= end)


def bits(value: Any) -> Any:
    array = np.asarray(value)
    return (str(array.dtype), array.shape, array.tobytes())


def strides(value: Any) -> Any:
    """Of the dimensions in which there is a step to take."""
    array = np.asarray(value)
    return [step for step, length in zip(array.strides, array.shape) if length > 1] if array.size else []


def stock_mode(program: Program, linker: str = "cvm") -> Any:
    return _mode(program, linker).excluding("mem_reuse")


def mode_of(program: Program, setup: Setup) -> Any:
    import theano_memopt

    return theano_memopt.mode(_mode(program, setup.linker), storage=setup.storage, verify=setup.verify, budget=setup.budget)


def _mode(program: Program, linker: str) -> Any:
    from theano import config
    from theano.compile.mode import Mode
    from theano.gof.vm import VM_Linker

    # Where there is no compiler Theano makes its linkers without one.
    without_compiler = not config.cxx and linker in ("vm", "vm_nogc")
    mode = Mode(VM_Linker(allow_gc=linker == "vm") if without_compiler else linker, "fast_run")
    return mode if program["fusion"] else mode.excluding("fusion")


class Invalid(Exception):
    """Theano itself does not take the program."""


def differences(program: Program, setups: Sequence[Setup]) -> List[Tuple[Setup, str]]:
    """Where a setup's story is not the stock's; [] is what is promised. Raises Invalid where stock has no story to tell."""
    stories: Dict[Tuple[str, bool, str], Story] = {}

    def anew(linker: str, never_empty: bool, world: str) -> Story:
        try:
            with compiler(world):
                return tell(_in_world(program, world, never_empty), stock_mode(program, linker))
        except Exception as error:
            raise Invalid(f"{type(error).__name__}: {error}") from error

    def stock(linker: str, never_empty: bool, world: str) -> Story:
        key = (linker, never_empty, world)
        if key not in stories:
            stories[key] = anew(*key)
        return stories[key]

    found = []
    for setup in setups:
        nogc = setup.linker.endswith("nogc")
        wanted = stock("vm" if setup.world == "python" else "cvm", nogc, setup.world)
        try:
            with compiler(setup.world):
                ours = tell(_in_world(program, setup.world, nogc), mode_of(program, setup))
        except Exception:
            found.append((setup, "did not compile: " + traceback.format_exc()[-1500:]))
            continue
        # What lies in a cell still can keep an op from raising (Dot22 of nothing), in Theano too; and c|py cannot run
        # everything that the machines can.
        alike = "cvm_nogc" if nogc else setup.linker
        if ours != wanted and not (alike != "cvm" and ours == stock(alike, nogc, setup.world)):
            found.append((setup, describe(wanted, ours)))
    if found and any(anew(*key) != story for key, story in list(stories.items()) for _ in range(3)):
        raise Invalid("stock Theano does not agree with itself: it reads memory that nobody wrote (the pool of an empty image)")
    return found


@contextlib.contextmanager
def compiler(world: str) -> Iterator[None]:
    """No compiler in the world "python"."""
    from theano import config

    before = config.cxx
    config.cxx = "" if world == "python" else before
    try:
        yield
    finally:
        config.cxx = before


def _in_world(program: Program, world: str, never_empty: bool) -> Program:
    seen = _never_empty(program) if never_empty else program
    if world != "float16":
        return seen
    return {**seen, "nodes": [{**node, "dtype": "float16"} if _floats(node) else node for node in seen["nodes"]]}


def _never_empty(program: Program) -> Program:
    """Stock Theano with allow_gc=False corrupts the heap where an array becomes empty that was not, now and then."""

    def full(call: Call) -> bool:
        return all(0 not in lengths_of(node["shape"], call) for node in program["nodes"])

    return {**program, "calls": [call for call in program["calls"] if full(call)] or [{"n": 4, "m": 5}] * 6}


def describe(stock: Story, ours: Story) -> str:
    if stock[-1] != ours[-1]:
        return f"changed afterwards: {ours[-1]} (stock: {stock[-1]})"
    for number, (wanted, had) in enumerate(zip(stock, ours)):
        if wanted == had:
            continue
        for what, one, other in (("result", wanted[0], had[0]), ("shared", wanted[1], had[1])):
            if one == other:
                continue
            if what == "result" and (one[0] == "raised" or other[0] == "raised"):
                return f"call {number}: stock {_told(one)}, ours {_told(other)}"
            pairs = zip(one[1], other[1]) if what == "result" else zip(one, other)
            return f"call {number}: " + "; ".join(f"{what} {k}: {_apart(a, b)}" for k, (a, b) in enumerate(pairs) if a != b)
    return "different"


def _told(told: Any) -> str:
    return f"raised {told[1]}" if told[0] == "raised" else "gave a result"


def _apart(one: Any, other: Any) -> str:
    if one[:2] != other[:2] or one[2] == other[2]:
        return f"{one[:2]} {one[3:]} and {other[:2]} {other[3:]}"
    a, b = (np.frombuffer(v[2], v[0]).astype("float64") for v in (one, other))
    with np.errstate(all="ignore"):
        return f"{a[:4]} and {b[:4]}, at most {np.nanmax(abs(a - b)) if a.size else 0:.3g} apart"


# --- making a program smaller ----------------------------------------------------------------------------------------


def shrink(program: Program, fails: Callable[[Program], bool], seconds: float = 120) -> Program:
    """A smaller program that still fails."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for smaller in _smaller(program):
            if time.monotonic() > end:
                break
            if _still(fails, smaller):
                program = smaller
                break
        else:
            break
    return program


def _still(fails: Callable[[Program], bool], program: Program) -> bool:
    try:
        return fails(program)
    except Invalid:
        return False


def _smaller(program: Program) -> Iterator[Program]:
    nodes = program["nodes"]
    for name in ("outputs", "updates"):
        if len(program[name]) > 1 - (name == "updates"):
            for k in range(len(program[name])):
                kept = program[name][:k] + program[name][k + 1 :]
                borrow = [b - (b > k) for b in program["borrow"] if b != k] if name == "outputs" else program["borrow"]
                yield without_the_dead({**program, name: kept, "borrow": borrow})
    for k, call in enumerate(program["calls"]):
        if call.get("laid", "C") != "C":
            yield {**program, "calls": [*program["calls"][:k], {**call, "laid": "C"}, *program["calls"][k + 1 :]]}
    for key, plain in (("borrow", []), ("mutable", []), ("hints", "none"), ("grows", False), ("fusion", False)):
        if program[key] != plain:
            yield {**program, key: plain}
    for i in reversed(range(len(nodes))):
        if not nodes[i]["in"] and nodes[i]["kind"] == "input":
            continue
        if nodes[i]["kind"] == "shared" and any(pair[0] == i for pair in program["updates"]):
            continue
        alike = [j for j in range(i) if nodes[j]["dtype"] == nodes[i]["dtype"] and nodes[j]["shape"] == nodes[i]["shape"]]
        for j in alike[:2]:
            yield without_the_dead(_redirected(program, i, j))
        yield without_the_dead({**program, "nodes": nodes[:i] + [_node("input", nodes[i]["dtype"], nodes[i]["shape"])] + nodes[i + 1 :]})
    for k in range(len(program["calls"]) if len(program["calls"]) > 1 else 0):
        yield {**program, "calls": program["calls"][:k] + program["calls"][k + 1 :]}


def _redirected(program: Program, i: int, j: int) -> Program:
    def to(k: int) -> int:
        return j if k == i else k

    return {
        **program,
        "nodes": [{**node, "in": [to(k) for k in node["in"]]} for node in program["nodes"]],
        "outputs": [to(k) for k in program["outputs"]],
        "updates": [[k, to(new)] for k, new in program["updates"]],
    }


# --- many programs ---------------------------------------------------------------------------------------------------

BATCH = 25


def main(first: int, last: int, every_setup: bool, among: Sequence[Setup], **kind: bool) -> int:
    """Run the programs of these seeds and this kind in forked processes: a crash is a failure too, and ends only one batch."""
    import theano_memopt

    assert theano_memopt.plan_of  # Theano is imported here, once for all children
    outcomes: Dict[str, int] = {}
    begin = time.monotonic()
    waiting = [list(range(seed, min(seed + BATCH, last))) for seed in range(first, last, BATCH)]
    while waiting:
        batch = waiting.pop(0)
        for said in _in_a_child(batch, every_setup, among, kind):
            outcome = said["outcome"].split()[0]
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if outcome != "same":
                print(json.dumps(said), flush=True)
            batch.remove(said["seed"])
        if batch:
            print(json.dumps({"seed": batch[0], "outcome": "crashed"}), flush=True)
            outcomes["crashed"] = outcomes.get("crashed", 0) + 1
            waiting.insert(0, batch[1:])
        print(f"# {outcomes}, {(time.monotonic() - begin) / sum(outcomes.values()):.1f} s each", flush=True)
    return 0 if set(outcomes) <= {"same", "invalid"} else 1


def _in_a_child(seeds: Sequence[int], every_setup: bool, among: Sequence[Setup], kind: Dict[str, bool]) -> Iterator[Dict[str, Any]]:
    """What becomes of each program, as far as the child gets."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as out:
            for seed in seeds:
                out.write(json.dumps(_judge(seed, every_setup, among, kind)) + "\n")
                out.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as back:
        for line in back:
            yield json.loads(line)
    os.waitpid(child, 0)


def _judge(seed: int, every_setup: bool, among: Sequence[Setup], kind: Dict[str, bool]) -> Dict[str, Any]:
    program = generate(seed, **kind)
    try:
        found = differences(program, among if every_setup else setups_of(seed, among=among))
    except Invalid as why:
        return {"seed": seed, "outcome": "invalid", "why": str(why)[:300]}
    if not found:
        return {"seed": seed, "outcome": "same"}
    small = shrink(program, lambda p: bool(differences(p, [found[0][0]])))
    rest = differences(small, [found[0][0]])
    return {
        "seed": seed,
        "outcome": "different",
        "where": [(*setup, said[:300]) for setup, said in found],
        "setup": found[0][0],
        "said": (rest or found)[0][1],
        "program": small,
    }


if __name__ == "__main__":
    gc.freeze()
    words = sys.argv[3:]
    among = WITH_AUTO if "changing" in words else SETUPS
    among = IN_PYTHON if "python" in words else WITHIN_BUDGETS if "budgets" in words else HELD if "held" in words else among
    kind = {"wide": "narrow" not in words, "lazy": "lazy" in words, "changing": "changing" in words}
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), "all" in words, among, **kind))

"""`python -m theano_memopt demo`: real models, trained with stock Theano and with the pass, side by side in one run.

For each model both functions start from the same weights and take the same steps, in turns. Then one call of each is
measured from an empty start (peak), and one of each compiled with allow_gc=False for what stays behind (reserved).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any, List, Sequence, Tuple

from theano_memopt.commands.base import BadInput, Verb, declare_blas, require_theano, take_blas
from theano_memopt.commands.inputs import place_to_write

MODELS = ("mlp_adam", "lenet", "lstm", "attention")
STEPS = 10
DIFFERENT = 1


class DemoVerb(Verb):
    name = "demo"
    says = "train real models with and without the pass, side by side, and draw where the memory goes"
    examples = ("demo", "demo --models mlp,lenet --steps 50")

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--steps", type=_steps, default=STEPS, metavar="N", help="training steps of each model (default %(default)s)")
        parser.add_argument("--models", default=",".join(MODELS), metavar="NAMES", help="which models (default %(default)s)")
        parser.add_argument("--size", type=_steps, default=1, metavar="N", help="divide batch and width by this, for a quick look")
        parser.add_argument("--html", default=os.path.join("out", "demo.html"), metavar="FILE", help="the picture (default %(default)s)")
        declare_blas(parser)

    def run(self, parsed: argparse.Namespace) -> int:
        from theano_memopt.demo import models as demo_models

        require_theano()
        names = [name for name in parsed.models.split(",") if name]
        for name in names:
            if name not in demo_models.MODELS:
                raise BadInput(f"--models: there is no model {name!r}; there are {', '.join(demo_models.MODELS)}")
        if not names:
            raise BadInput("--models: name at least one model")
        if parsed.html == os.path.join("out", "demo.html"):
            os.makedirs("out", exist_ok=True)
        place_to_write(parsed.html)
        take_blas(parsed.blas)
        return _demonstrate(names, parsed.steps, parsed.size, parsed.html)


@dataclass(frozen=True)
class Side:
    """What was measured of one model, stock or ours."""

    peak: int
    reserved: int
    milliseconds: float


@dataclass(frozen=True)
class Shown:
    name: str
    stock: Side
    ours: Side
    difference: float
    """The largest between the losses of the same step."""
    report: Any


def _demonstrate(names: Sequence[str], steps: int, size: int, html: str) -> int:
    from theano_memopt.hosts.theano.install import blas
    from theano_memopt.report import page

    start = time.monotonic()
    _say(f"{len(names)} models, {steps} steps each; a first run compiles C code, which takes minutes, and a second finds it in Theano's cache")
    shown = [_show(name, steps, size, f"{i + 1}/{len(names)} {name}") for i, name in enumerate(names)]
    table = _table(shown)
    page.write([s.report for s in shown], html, table)
    print(table)
    print(f"Every step took the same loss on both sides: {'yes' if not any(s.difference for s in shown) else 'NO'}.")
    print(f"BLAS: {blas.in_words()}.")
    if blas.offer():
        print(blas.offer())
    print(f"The picture: {os.path.abspath(html)}")
    _say(f"{time.monotonic() - start:.0f} s in all")
    return DIFFERENT if any(s.difference for s in shown) else 0


def _show(name: str, steps: int, size: int, where: str) -> Shown:
    import theano

    import theano_memopt
    from theano_memopt.hosts.theano.measure import memory

    base = "cvm" if theano.config.linker.startswith("cvm") else "vm"

    def compiled(ours: bool, linker: str = base) -> Tuple[Any, Any]:
        _say(f"{where}: compiling {'with the pass' if ours else 'stock'}, linker {linker}")
        return _compiled(name, size, theano.compile.mode.Mode(linker, "fast_run"), ours)

    (model, ours), (_, stock) = compiled(True), compiled(False)
    _say(f"{where}: training {steps} steps on each side")
    losses, seconds = _train((stock, ours), model.batch, steps)
    _say(f"{where}: measuring")
    peaks = [memory.held_by_call(function, *model.batch).peak for function in (stock, ours)]
    report = theano_memopt.explain(ours, *model.batch)
    keeping = [compiled(with_pass, f"{base}_nogc")[1] for with_pass in (False, True)]
    held = [memory.held_by_call(function, *model.batch).reserved for function in keeping]
    sides = [Side(peak, kept, 1000 * statistics.median(times)) for peak, kept, times in zip(peaks, held, seconds)]
    return Shown(name, sides[0], sides[1], max(abs(a - b) for a, b in zip(*losses)), report)


def _compiled(name: str, size: int, mode: Any, ours: bool) -> Tuple[Any, Any]:
    import theano_memopt
    from theano_memopt.demo import models as demo_models

    model = demo_models.build(name, size)
    if ours:
        for variable, data in zip(model.inputs, model.batch):
            theano_memopt.hint(variable, data.shape)
    return model, model.compile(theano_memopt.mode(mode) if ours else mode.excluding("mem_reuse"))


def _train(functions: Sequence[Any], batch: Sequence[Any], steps: int) -> Tuple[List[List[float]], List[List[float]]]:
    """Step by step in turns, so that what else the machine does falls on both."""
    losses: List[List[float]] = [[], []]
    seconds: List[List[float]] = [[], []]
    for step in range(steps):
        for side in (0, 1) if step % 2 else (1, 0):
            start = time.perf_counter()
            loss = functions[side](*batch)
            seconds[side].append(time.perf_counter() - start)
            losses[side].append(float(loss))
    return losses, seconds


def _table(shown: Sequence[Shown]) -> str:
    from rich.table import Table
    from rich.text import Text

    from theano_memopt.report.text import rendered
    from theano_memopt.report.words import in_bytes, less

    table = Table(show_edge=False, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for name in ("peak: stock", "ours", "", "floor", "reserved: stock", "ours", "", "ms: stock", "ours", "loss differs"):
        table.add_column(name, justify="right", no_wrap=True)
    for s in shown:
        least = f"{in_bytes(s.report.floor)}, {s.report.gap}"
        table.add_row(
            s.name,
            in_bytes(s.stock.peak),
            in_bytes(s.ours.peak),
            less(s.ours.peak, s.stock.peak),
            least,
            in_bytes(s.stock.reserved),
            in_bytes(s.ours.reserved),
            less(s.ours.reserved, s.stock.reserved),
            f"{s.stock.milliseconds:.1f}",
            f"{s.ours.milliseconds:.1f}",
            f"{s.difference:g}",
        )
    words = (
        "measured; peak: the most bytes held at once in one call; reserved: what stays after a call with allow_gc=False; ms: one step, the "
        "median; floor: no order needs less, and how the peak that is planned stands to it"
    )
    return rendered([table, Text(words)], width=160)


def _say(sentence: str) -> None:
    print(f"demo: {sentence}", file=sys.stderr, flush=True)


def _steps(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100000")
    return int(text)

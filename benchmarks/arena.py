"""What storage costs and saves: `python -m benchmarks.arena` trains every model under each way to keep intermediates.

    stock gc, nogc     Theano without the pass
    cells gc, nogc     storage=share
    arena gc, nogc     storage=arena
    glibc gc           stock with malloc told to keep what it has

Each in a process of its own, called in turns (turns.py, which also says what the columns are).

Further tables: what a call costs when shapes alternate, grow, or are different every time; the price of the check in front of
a function that does almost nothing; and a chain of 30 elementwise operations on 64 MB, held against memory bandwidth.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any, List, Optional, Sequence

from benchmarks import tables
from benchmarks.turns import CHAIN, Row, compiled, measure

VARIANTS = ("stock gc", "stock nogc", "cells gc", "cells nogc", "arena gc", "arena nogc", "glibc gc")


def changing_shapes(model: str, size: int) -> List[Row]:
    """Milliseconds (cpu) per call when shapes are not what they were: means over calls, what planning costs included."""
    rows = []
    for variant in ("stock gc", "stock nogc", "arena gc", "arena nogc"):
        batch, function = compiled(variant, model, size)
        n = batch[0].shape[0] if model != "lstm" else batch[0].shape[1]

        def cut(k: int, batch: Any = batch) -> Any:
            return tuple(b[:, :k].copy() if model == "lstm" and b.ndim == 3 else b[:k].copy() for b in batch)

        row: Row = {"model": model, "variant": variant}
        for name, lengths in (
            ("same", [n] * 40),
            ("alternating", [n if i % 4 else n // 2 for i in range(60)]),
            ("growing", list(range(max(1, n - 60), n))),
            ("always different", [1 + (i * 37) % n for i in range(120)]),
        ):
            batches = [cut(k) for k in lengths]
            for b in batches[:4]:
                function(*b)
            spent = []
            for b in batches[4:]:
                began = time.thread_time()
                function(*b)
                spent.append(time.thread_time() - began)
            row[name + " ms"] = round(1e3 * statistics.mean(spent), 3)
        rows.append(row)
    return rows


def price_of_the_check() -> List[Row]:
    """What stands in front of the machine: the same function, with the machine itself replaced by nothing."""
    import timeit

    rows = []
    for variant in ("arena nogc", "arena gc"):
        for model, size in (("logreg", 8), ("mlp", 8), ("lstm", 8)):
            batch, function = compiled(variant, model, size)
            for _ in range(6):
                function(*batch)
            vm = function.fn
            for container, value in zip(function.input_storage, batch):
                container.storage[0] = value
            machine, vm.vm = vm.vm, _nothing
            micro = min(timeit.repeat(vm, number=500, repeat=20)) / 500 * 1e6
            vm.vm = machine
            rows.append(
                {"variant": variant, "model": model, "cells": len(vm.places), "shapes compared": len(vm.shapes_now), "microseconds": round(micro, 2)}
            )
    return rows


def _nothing() -> None:
    return None


def main(arguments: Optional[Sequence[str]] = None) -> int:
    from theano_memopt.demo import models as demo_models

    parser = argparse.ArgumentParser(prog="python -m benchmarks.arena", description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", default=",".join([*demo_models.MODELS, CHAIN]), help="comma separated; default all")
    parser.add_argument("--rounds", type=int, default=3, help="sets of processes per model (default 3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of calls per model and round (default 6)")
    parser.add_argument("--size", type=int, default=1, help="divide the sizes of the models by this")
    parser.add_argument("--quick", action="store_true", help="small sizes, one process per model: a minute or two")
    parser.add_argument("--csv", type=Path, help="also write the rows there")
    parser.add_argument("--extra", action="store_true", help="only the tables of changing shapes and of the check")
    given = parser.parse_args(arguments)
    if given.quick:
        given.size, given.rounds, given.seconds = 8, 1, 1.0
    if not given.extra:
        _models(given)
    print("\nmilliseconds per call when shapes change (first calls of each kind apart)")
    print(tables.text([row for model in ("mlp", "lstm") for row in changing_shapes(model, max(4, given.size))]))
    print("\nin front of the machine, per call")
    print(tables.text(price_of_the_check()))
    return 0


def _models(given: Any) -> None:
    rows: List[Row] = []
    for summary in measure(given.models.split(","), VARIANTS, given.rounds, given.seconds, given.size):
        print(tables.text(summary), end="\n\n", flush=True)
        rows += summary
    if given.csv:
        tables.save(rows, given.csv)
    print(verdict(rows))


def verdict(rows: Sequence[Row]) -> str:
    """The figures that decide, over all models: the worst and the middle."""
    lines = []
    ours = [row for row in rows if row["variant"] == "arena nogc"]
    checks: Sequence[Any] = (
        ("reserved / floor", lambda row: row["reserved"] / row["floor"]),
        ("held / planned peak", lambda row: row["held"] / row["peak"]),
        ("time / stock nogc", lambda row: row["/ stock nogc"]),
        ("time / stock gc", lambda row: row["/ stock gc"]),
        ("faults per call", lambda row: row["faults"]),
    )
    for name, value in checks:
        values = [(value(row), row["model"]) for row in ours if row["floor"]]
        if values:
            lines.append(
                f"arena nogc: {name:20} middle {statistics.median(v for v, _ in values):8.3f}   worst {max(values)[0]:8.3f} ({max(values)[1]})"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""What storage costs and saves: `python -m benchmarks.arena` trains every model under each way to keep intermediates.

    stock gc, nogc     Theano without the pass
    cells gc, nogc     storage=share
    arena gc, nogc     storage=arena
    glibc gc           stock with malloc told to keep what it has: another way to the speed of nogc

Times vary from process to process by more than the differences that matter. So each process makes all functions of one
model, calls them in turns, and compares within itself; the medians are over processes. `glibc` needs variables in
the environment and so a process of its own, next to the others in every round.

Words
    held       bytes that stay allocated between two calls (tracemalloc, NumPy's arrays, shared variables apart)
    top        most bytes at once during a call, from an empty start
    rss        growth of the resident set over the calls, by /proc/self/statm
    cpu        time of the calling thread on a processor, page faults and all; the ratios are of these, since everything runs
               in one thread here and what else the machine does disturbs them least
    faults     page faults per call in the steady state
    signature  the shapes of the inputs of one call

Further tables: what a call costs when shapes alternate, grow, or are different every time; the price of the check in front of
a function that does almost nothing; and a chain of 30 elementwise operations on 64 MB, held against memory bandwidth.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

CHAIN = "elementwise"
GLIBC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "67108864"}
VARIANTS = ("stock gc", "stock nogc", "cells gc", "cells nogc", "arena gc", "arena nogc")
Row = Dict[str, Any]


# --- one process ---------------------------------------------------------------------------------------------------------


class Subject:
    """One function under one variant, with the state that its calls start from."""

    def __init__(self, variant: str, model: Any, size: int) -> None:
        import theano_memopt

        self.name = variant
        self.batch, self.function, self.restore = _compiled(variant, model, size)
        self.theano_memopt = theano_memopt
        for _ in range(6):
            self.call()

    def call(self) -> Tuple[float, float]:
        """Seconds by the clock, and of this thread on a processor."""
        began, thread = time.perf_counter(), time.thread_time()
        self.function(*self.batch)
        return time.perf_counter() - began, time.thread_time() - thread


def _compiled(variant: str, model: str, size: int) -> Any:
    from theano.compile.mode import Mode

    import theano_memopt  # first: it puts right what Theano needs

    how, gc = variant.split()
    base = Mode("cvm" if gc == "gc" else "cvm_nogc", "fast_run")
    if model == CHAIN:
        base = base.excluding("fusion", "inplace")
    plain = base.excluding("mem_reuse")
    mode = plain if how in ("stock", "glibc") else theano_memopt.mode(base, storage={"cells": "share", "arena": "arena"}[how])
    if model == CHAIN:
        return _elementwise(mode, size)
    from theano_memopt import demo_models

    made = demo_models.build(model, size)
    for variable, array in zip(made.inputs, made.batch):
        theano_memopt.hint(variable, array.shape)
    return made.batch, made.compile(mode), lambda: None


def _elementwise(mode: Any, size: int) -> Any:
    import numpy as np
    import theano
    import theano.tensor as tt

    x = tt.fvector("x")
    h = x
    for i in range(30):
        h = h * np.float32(1.01) if i % 2 else h + np.float32(0.5)
    return (np.ones(2**24 // size, "float32"),), theano.function([x], h, mode=mode), lambda: None


def child(model: str, variants: Sequence[str], size: int, seconds: float, turn: int) -> List[Row]:
    """Everything about one model in this process, the variants in turns that start elsewhere each time."""
    from theano_memopt.hosts.theano import probe

    before = _resident()
    rows = []
    subjects = []
    for variant in variants:
        started = time.perf_counter()
        subject = Subject(variant, model, size)
        rows.append({"model": model, "variant": variant, "compile s": time.perf_counter() - started})
        subjects.append(subject)
        if len(variants) == 1:
            rows[-1]["rss"] = _resident() - before
    each = max(subject.call()[0] for subject in subjects)
    rounds = max(7, min(400, int(seconds / each / len(subjects))))
    times: List[List[Tuple[float, float]]] = [[] for _ in subjects]
    faults = [0] * len(subjects)
    for i in range(rounds):
        for k in range(len(subjects)):
            s = (k + i + turn) % len(subjects)
            subjects[s].call()  # the one before may have left the caches and the heap to others
            at = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            times[s].append(subjects[s].call())
            faults[s] += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - at
    for row, subject, spent, count in zip(rows, subjects, times, faults):
        row.update(ms=1e3 * statistics.median(wall for wall, _ in spent), cpu=1e3 * statistics.median(cpu for _, cpu in spent))
        row.update(faults=count / len(spent))
        held = probe.held_by_call(subject.function, *subject.batch)
        row.update(held=held.reserved, top=held.peak, **_planned(subject))
    return rows


def _planned(subject: Subject) -> Row:
    plan = subject.theano_memopt.plan_of(subject.function)
    if not plan:
        return {}
    storage = plan.storage
    return {"peak": plan.schedule.peak, "reserved": plan.reserved_bytes, "floor": getattr(storage, "floor", "")}


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def changing_shapes(model: str, size: int) -> List[Row]:
    """Milliseconds (cpu) per call when shapes are not what they were: means over calls, what planning costs included."""
    rows = []
    for variant in ("stock gc", "stock nogc", "arena gc", "arena nogc"):
        batch, function, _ = _compiled(variant, model, size)
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
            batch, function, _ = _compiled(variant, model, size)
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


# --- all processes -------------------------------------------------------------------------------------------------------


def measure(models: Sequence[str], rounds: int, seconds: float, size: int) -> Iterator[List[Row]]:
    """For each model the rows of all processes, summed up."""
    for model in models:
        found: List[List[Row]] = []
        for turn in range(rounds):
            found.append(_spawn(["--child", model, "--turn", str(turn), "--seconds", str(seconds), "--size", str(size)], {}))
            found[-1] += _spawn(["--child", model, "--glibc", "--turn", str(turn), "--seconds", str(seconds), "--size", str(size)], GLIBC)
        yield list(_summed_up(found))


def _spawn(arguments: Sequence[str], environment: Dict[str, str]) -> List[Row]:
    threads = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.arena", *arguments]
    done = subprocess.run(command, env={**os.environ, **threads, **environment}, stdout=subprocess.PIPE, check=True)
    return list(json.loads(done.stdout.decode().splitlines()[-1]))


def _summed_up(found: List[List[Row]]) -> Iterator[Row]:
    for variant in [row["variant"] for row in found[0]]:
        rows = [next(row for row in rows if row["variant"] == variant) for rows in found]
        out: Row = {"model": rows[0]["model"], "variant": variant}
        for name in ("peak", "reserved", "floor", "held", "top"):
            out[name] = rows[0].get(name, "")
        out["ms"] = _median(row["ms"] for row in rows)
        out["cpu ms"] = _median(row["cpu"] for row in rows)
        for other in ("stock gc", "stock nogc"):
            beside = [next(row["cpu"] for row in rows if row["variant"] == other) for rows in found]
            out[f"/ {other}"] = _median(row["cpu"] / cpu for row, cpu in zip(rows, beside))
        out["faults"] = _median(row["faults"] for row in rows)
        out["compile s"] = _median(row["compile s"] for row in rows)
        yield out


def _median(values: Any) -> float:
    return round(statistics.median(values), 3)


# --- tables --------------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    columns = list(rows[0])
    cells = [[_text(row.get(c, "")) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    lines = [columns, *cells]
    return "\n".join("  ".join(text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths))) for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value < 100 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def save(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    from theano_memopt import demo_models

    parser = argparse.ArgumentParser(prog="python -m benchmarks.arena", description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", default=",".join([*demo_models.MODELS, CHAIN]), help="comma separated; default all")
    parser.add_argument("--rounds", type=int, default=3, help="processes per model and environment (default 3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of calls per process (default 6)")
    parser.add_argument("--size", type=int, default=1, help="divide the sizes of the models by this")
    parser.add_argument("--quick", action="store_true", help="small sizes, one process per model: a minute or two")
    parser.add_argument("--csv", type=Path, help="also write the rows there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--glibc", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--turn", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--extra", action="store_true", help="only the tables of changing shapes and of the check")
    given = parser.parse_args(arguments)
    if given.child:
        variants = ["glibc gc"] if given.glibc else VARIANTS
        print(json.dumps(child(given.child, variants, given.size, given.seconds, given.turn)))
        return 0
    if given.quick:
        given.size, given.rounds, given.seconds = 8, 1, 1.0
    if not given.extra:
        _models(given)
    print("\nmilliseconds per call when shapes change (first calls of each kind apart)")
    print(table([row for model in ("mlp", "lstm") for row in changing_shapes(model, max(4, given.size))]))
    print("\nin front of the machine, per call")
    print(table(price_of_the_check()))
    return 0


def _models(given: Any) -> None:
    rows: List[Row] = []
    for summary in measure(given.models.split(","), given.rounds, given.seconds, given.size):
        print(table(summary), end="\n\n", flush=True)
        rows += summary
    if given.csv:
        save(rows, given.csv)
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

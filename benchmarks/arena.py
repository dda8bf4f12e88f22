"""What storage costs and saves: `python -m benchmarks.arena` trains every model under each way to keep intermediates.

    stock gc, nogc     Theano without the pass
    cells gc, nogc     storage=share
    arena gc, nogc     storage=arena
    glibc gc           stock with malloc told to keep what it has: another way to the speed of nogc

Times vary from process to process by more than the differences that matter, and functions in one process leave their
heap to each other. So every variant has a process of its own; all processes of one model are there at the same time, and
calls are made in turns, a few here, a few there. A round is one such set of processes; the medians are over rounds.

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
VARIANTS = ("stock gc", "stock nogc", "cells gc", "cells nogc", "arena gc", "arena nogc", "glibc gc")
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


def child(model: str, variant: str, size: int) -> None:
    """Make one function; then for each line that comes in, that many calls; at its end, what the function holds."""
    from theano_memopt.hosts.theano import probe

    before = _resident()
    started = time.perf_counter()
    subject = Subject(variant, model, size)
    _say({"model": model, "variant": variant, "compile s": time.perf_counter() - started})
    for line in sys.stdin:
        at = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        spent = [subject.call() for _ in range(int(line))]
        _say({"spent": spent, "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - at})
    grown = _resident() - before
    held = probe.held_by_call(subject.function, *subject.batch)
    _say({"held": held.reserved, "top": held.peak, "rss": grown, **_planned(subject)})


def _say(row: Row) -> None:
    print(json.dumps(row), flush=True)


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
    """For each model the rows of all rounds, summed up."""
    for model in models:
        yield list(_summed_up([_round(model, turn, seconds, size) for turn in range(rounds)]))


def _round(model: str, turn: int, seconds: float, size: int) -> List[Row]:
    """All variants of one model, each in its process, called in turns; `turn` says who begins."""
    variants = [*VARIANTS[turn % len(VARIANTS) :], *VARIANTS[: turn % len(VARIANTS)]]
    children, rows = [], []
    for variant in variants:  # one after the other, so that compiling does not crowd
        children.append(_spawn(["--child", model, "--variant", variant, "--size", str(size)], GLIBC if variant == "glibc gc" else {}))
        rows.append(_hear(children[-1]))
    one = max(wall for process in children for wall, _ in _ask(process, 1)["spent"])
    at_once = max(1, min(50, int(0.05 / one)))
    times: List[List[List[Tuple[float, float]]]] = [[] for _ in children]
    faults = [0] * len(children)
    for _ in range(max(5, int(seconds / one / at_once / len(children)))):
        for k, process in enumerate(children):
            _ask(process, 1)  # the caches were others' meanwhile
            answer = _ask(process, at_once)
            times[k].append(answer["spent"])
            faults[k] += answer["faults"]
    for row, process, blocks, count in zip(rows, children, times, faults):
        spent = [pair for block in blocks for pair in block]
        row.update(ms=1e3 * statistics.median(w for w, _ in spent), cpu=1e3 * statistics.median(c for _, c in spent), faults=count / len(spent))
        assert process.stdin is not None
        process.stdin.close()
        row.update(_hear(process))
        process.wait()
    return rows


def _spawn(arguments: Sequence[str], environment: Dict[str, str]) -> Any:
    """A child that has said nothing yet."""
    threads = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.arena", *arguments]
    return subprocess.Popen(command, env={**os.environ, **threads, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(process: Any, calls: int) -> Row:
    process.stdin.write(f"{calls}\n")
    process.stdin.flush()
    return _hear(process)


def _hear(process: Any) -> Row:
    for line in process.stdout:
        if line.startswith("{"):
            return dict(json.loads(line))
    raise SystemExit(f"a child ended with status {process.wait()}")


def _summed_up(found: List[List[Row]]) -> Iterator[Row]:
    for variant in VARIANTS:
        rows = [next(row for row in rows if row["variant"] == variant) for rows in found]
        out: Row = {"model": rows[0]["model"], "variant": variant}
        for name in ("peak", "reserved", "floor", "held", "top", "rss"):
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
    parser.add_argument("--rounds", type=int, default=3, help="sets of processes per model (default 3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of calls per model and round (default 6)")
    parser.add_argument("--size", type=int, default=1, help="divide the sizes of the models by this")
    parser.add_argument("--quick", action="store_true", help="small sizes, one process per model: a minute or two")
    parser.add_argument("--csv", type=Path, help="also write the rows there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--extra", action="store_true", help="only the tables of changing shapes and of the check")
    given = parser.parse_args(arguments)
    if given.child:
        child(given.child, given.variant, given.size)
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

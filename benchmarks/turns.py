"""Compiled functions in processes of their own, called in turns: how times and bytes are compared here.

Times vary from process to process by more than the differences that matter, and functions in one process leave their
heap to each other. So every variant has a process of its own; all processes of one model are there at the same time, and
calls are made in turns, a few here, a few there. A round is one such set of processes; the medians are over rounds.

Words
    variant    storage and gc of one function: "stock gc", "cells nogc", "arena nogc", ...; "glibc gc" is stock with malloc
               told to keep what it has, another way to the speed of nogc
    held       bytes that stay allocated between two calls (tracemalloc, NumPy's arrays, shared variables apart)
    top        most bytes at once during a call, from an empty start
    rss        growth of the resident set over the calls, by /proc/self/statm
    cpu        time of the calling thread on a processor, page faults and all; the ratios are of these, since everything runs
               in one thread here and what else the machine does disturbs them least
    faults     page faults per call in the steady state
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Sequence, Tuple

CHAIN = "elementwise"
"""30 elementwise operations on 64 MB, beside the models of the demo."""
GLIBC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "67108864"}
STORAGE = {"cells": "share", "arena": "arena", "ours": "auto"}
Row = Dict[str, Any]


# --- the processes -------------------------------------------------------------------------------------------------------


def measure(models: Sequence[str], variants: Sequence[str], rounds: int, seconds: float, size: int) -> Iterator[List[Row]]:
    """For each model one row per variant, summed up over the rounds."""
    for model in models:
        found = []
        for turn in range(rounds):
            say(f"{model}: round {turn + 1} of {rounds}")
            found.append(_round(model, [*variants[turn % len(variants) :], *variants[: turn % len(variants)]], seconds, size))
        yield list(_summed_up(found, variants))


def _round(model: str, variants: Sequence[str], seconds: float, size: int) -> List[Row]:
    """All variants of one model, each in its process, called in turns."""
    children: List[Any] = []
    rows: List[Row] = []
    for first in range(0, len(variants), 2):  # two at a time, so that compiling does not crowd
        begun = [_spawn([model, variant, str(size)], GLIBC if variant == "glibc gc" else {}) for variant in variants[first : first + 2]]
        children += begun
        rows += [_hear(process) for process in begun]
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
    command = [sys.executable, "-m", "benchmarks.turns", *arguments]
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


def _summed_up(found: Sequence[List[Row]], variants: Sequence[str]) -> Iterator[Row]:
    for variant in variants:
        rows = [next(row for row in rows if row["variant"] == variant) for rows in found]
        out: Row = {"model": rows[0]["model"], "variant": variant}
        for name in ("peak", "reserved", "floor", "held", "top", "rss", "explained"):
            out[name] = rows[0].get(name, "")
        out["ms"] = _median(row["ms"] for row in rows)
        out["cpu ms"] = _median(row["cpu"] for row in rows)
        for other in ("stock gc", "stock nogc"):
            beside = [next(row["cpu"] for row in rows if row["variant"] == other) for rows in found]
            out[f"/ {other}"] = _median(row["cpu"] / cpu for row, cpu in zip(rows, beside))
        out["faults"] = _median(row["faults"] for row in rows)
        yield out


def _median(values: Any) -> float:
    return round(statistics.median(values), 3)


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


# --- one process ---------------------------------------------------------------------------------------------------------


def compiled(variant: str, model: str, size: int) -> Tuple[Any, Any]:
    """(a batch, the function) of one variant of a model."""
    from theano.compile.mode import Mode

    import theano_memopt  # first: it puts right what Theano needs

    how, gc = variant.split()
    base = Mode("cvm" if gc == "gc" else "cvm_nogc", "fast_run")
    if model == CHAIN:
        base = base.excluding("fusion", "inplace")
    mode = theano_memopt.mode(base, storage=STORAGE[how]) if how in STORAGE else base.excluding("mem_reuse")
    if model == CHAIN:
        return _elementwise(mode, size)
    from theano_memopt.demo import models as demo_models

    made = demo_models.build(model, size)
    for variable, array in zip(made.inputs, made.batch):
        theano_memopt.hint(variable, array.shape)
    return made.batch, made.compile(mode)


def _elementwise(mode: Any, size: int) -> Tuple[Any, Any]:
    import numpy as np
    import theano
    import theano.tensor as tt

    x = tt.fvector("x")
    h = x
    for i in range(30):
        h = h * np.float32(1.01) if i % 2 else h + np.float32(0.5)
    return (np.ones(2**24 // size, "float32"),), theano.function([x], h, mode=mode)


def child(model: str, variant: str, size: int) -> None:
    """Make one function; then for each line that comes in, that many calls; at its end, what the function holds."""
    import theano_memopt
    from theano_memopt.hosts.theano.measure import memory

    before = _resident()
    batch, function = compiled(variant, model, size)
    for _ in range(6):
        function(*batch)
    _answer({"model": model, "variant": variant})
    for line in sys.stdin:
        at = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        spent = [_timed(function, batch) for _ in range(int(line))]
        _answer({"spent": spent, "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - at})
    grown = _resident() - before
    held = memory.held_by_call(function, *batch)
    found = {"held": held.reserved, "top": held.peak, "rss": grown, **_planned(theano_memopt.plan_of(function))}
    if variant == "ours gc":
        found["explained"] = _explained(theano_memopt.explain(function, *batch))
    _answer(found)


def _timed(function: Any, batch: Sequence[Any]) -> Tuple[float, float]:
    """Seconds by the clock, and of this thread on a processor."""
    began, thread = time.perf_counter(), time.thread_time()
    function(*batch)
    return time.perf_counter() - began, time.thread_time() - thread


def _planned(plan: Any) -> Row:
    return {"peak": plan.schedule.peak, "reserved": plan.reserved_bytes, "floor": getattr(plan.storage, "floor", "")} if plan else {}


def _explained(report: Any) -> Row:
    """What `explain` finds at the sizes of this batch."""
    return {
        "nodes": len(report.graph.tasks),
        "toposort": report.peak_of("toposort"),
        "CVM": report.peak_of("order that the CVM really runs"),
        "ours": report.peak,
        "floor": report.floor,
    }


def _answer(row: Row) -> None:
    print(json.dumps(row), flush=True)


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""`make bench`: what users gain, on real models; prints the tables that README quotes and writes out/bench/*.csv.

    memory      peak of Theano's toposort, of its CVM, of ours, and the floor; what one call was measured to hold, and what stays
    time        per call: stock with gc and without, stock with malloc tuned, ours with gc (cells) and without (arena)
    minimum     the least peak of all orders: the planner beside upstream's exact search
    compiling   what the pass adds to theano.function, with a warm C cache
    machine     where these figures are from, and which BLAS multiplies on both sides

Words
    ours gc, ours nogc   the pass with its default storage: shared cells with allow_gc=True, the arena with False
    tuned                stock with gc, and glibc told to keep its memory
    added                how much longer compiling takes with the pass, the median over pairs
    in the pass          time in the pass's own code, and its share of stock's compile time
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple
from unittest import mock

from benchmarks import tables
from benchmarks.turns import Row, compiled, measure, say
from theano_memopt.report.words import against_floor

VARIANTS = ("stock gc", "stock nogc", "ours gc", "ours nogc", "glibc gc")
COMPILED = ("logreg", "mlp", "mlp_adam", "lenet", "lstm")
"""Models of which compiling is timed: the larger ones take many seconds each time."""
SEARCHED = ("logreg", "mlp", "lenet")
PATIENCE = 20
"""Seconds for upstream's search, which grows tenfold per layer."""
COMPILING = 8
"""Seconds of compiling per row, at least."""
PLACE = Path("out") / "bench"


# --- memory and time -----------------------------------------------------------------------------------------------------


def memory(measured: Sequence[Row], names: Sequence[str]) -> List[Row]:
    return [_memory_of(name, {row["variant"]: row for row in measured if row["model"] == name}) for name in names]


def _memory_of(name: str, by: Dict[str, Row]) -> Row:
    explained = by["ours gc"]["explained"]
    return {
        "model": name,
        "nodes": explained["nodes"],
        "toposort": kilobytes(explained["toposort"]),
        "CVM": kilobytes(explained["CVM"]),
        "ours": kilobytes(explained["ours"]),
        "floor": kilobytes(explained["floor"]),
        "": against_floor(explained["ours"], explained["floor"]),
        "measured, gc: stock": kilobytes(by["stock gc"]["top"]),
        "gc: ours": kilobytes(by["ours gc"]["top"]),
        "held, nogc: stock": kilobytes(by["stock nogc"]["held"]),
        "nogc: ours": kilobytes(by["ours nogc"]["held"]),
    }


def times(measured: Sequence[Row], names: Sequence[str]) -> List[Row]:
    found = []
    for name in names:
        by = {row["variant"]: row for row in measured if row["model"] == name}
        found.append(
            {
                "model": name,
                "stock gc, ms": by["stock gc"]["ms"],
                "stock nogc": by["stock nogc"]["ms"],
                "tuned": by["glibc gc"]["ms"],
                "ours gc": by["ours gc"]["ms"],
                "ours nogc": by["ours nogc"]["ms"],
                "ours gc / stock gc": by["ours gc"]["/ stock gc"],
                "ours nogc / stock nogc": by["ours nogc"]["/ stock nogc"],
                "ours nogc / stock gc": by["ours nogc"]["/ stock gc"],
            }
        )
    return found


def kilobytes(size: int) -> int:
    return round(size / 1024)


# --- the least peak ------------------------------------------------------------------------------------------------------


def minimum(size: int) -> List[Row]:
    return [_minimum_of(name, size) for name in SEARCHED]


def _minimum_of(name: str, size: int) -> Row:
    """Both searches on the same profile of the same function; upstream's in a process that stops itself."""
    say(f"{name}: the least peak")
    row: Row = {"model": name}
    for who in ("upstream", "ours"):
        command = [sys.executable, "-m", "benchmarks.models", "--search", name, who, "--size", str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row[f"{who}, KiB"], row[f"{who}, s"] = json.loads(done.stdout)
    return row


def search(name: str, who: str, size: int) -> None:
    """In a process of its own: print the least peak and the seconds that the search took."""
    import theano_memopt  # noqa: F401, I001 - first: it puts right what Theano needs
    import theano
    from theano.compile import profiling

    theano.config.profile = theano.config.profile_memory = theano.config.profiling.min_peak_memory = True
    from tests.theano.both import ready_for_upstream

    summary = profiling.ProfileStats.summary_memory
    stats = theano.ProfileStats(atexit_print=False, gpu_checks=False)
    batch, function = _profiled(name, stats, size)
    function(*batch)
    if who == "upstream":
        ready_for_upstream(stats)
    stream = io.StringIO()
    signal.signal(signal.SIGALRM, _out_of_patience)
    signal.alarm(PATIENCE)
    began = time.perf_counter()
    try:
        (summary if who == "ours" else summary.__wrapped__)(stats, stream, 20)
    except TimeoutError:
        print(json.dumps(["-", f"> {PATIENCE}"]))
        return
    seconds = time.perf_counter() - began
    found = re.search(r"Minimum peak from all valid apply node order is (\d+)KB", stream.getvalue())
    print(json.dumps([int(found.group(1)) if found else "-", seconds]))


def _out_of_patience(*_: Any) -> None:
    raise TimeoutError


def _profiled(name: str, stats: Any, size: int) -> Any:
    from theano.compile.mode import Mode

    from theano_memopt.demo import models as demo_models

    made = demo_models.build(name, size)
    return made.batch, made.compile(Mode("cvm", "fast_run").excluding("mem_reuse"), profile=stats)


# --- compiling -----------------------------------------------------------------------------------------------------------


def compiling(names: Sequence[str], pairs: int, size: int) -> List[Row]:
    found = []
    for name in names:
        say(f"{name}: compiling, stock and with the pass in turns")
        for gc_or_not in ("gc", "nogc"):
            variant = f"ours {gc_or_not}"
            with own_time() as own:
                spent = list(_in_turns(f"stock {gc_or_not}", variant, name, pairs, size))
            row: Row = {"model": name, "": variant, "stock, s": statistics.median(s for s, _ in spent)}
            row["with the pass, s"] = statistics.median(ours for _, ours in spent)
            row["added, %"] = 100 * statistics.median(ours / stock - 1 for stock, ours in spent)
            row["in the pass, ms"] = 1e3 * sum(own) / (len(spent) + 1)
            row["of stock, %"] = row["in the pass, ms"] / 10 / row["stock, s"]
            found.append(row)
    return found


@contextlib.contextmanager
def own_time() -> Iterator[List[float]]:
    """The seconds of every stay in the pass's own code while this is open: steadier than a difference of two long times."""
    import theano_memopt

    assert theano_memopt.plan_of  # Theano first: the host's modules are made when it is imported
    from theano_memopt.hosts.theano.optimize import feature, optimizer
    from theano_memopt.hosts.theano.run import linker as vm

    entries: List[Tuple[Any, str]] = [(feature, "annotate"), (optimizer.MemReuseOptimizer, "apply"), (feature.MemReuse, "orderings")]
    entries += [(vm, name) for name in ("_try_to_bind", "_check_fit", "_without_withheld", "with_arena")]
    spent: List[float] = []
    inside: List[str] = []

    def timed(work: Any, name: str) -> Any:
        def run(*arguments: Any, **keywords: Any) -> Any:
            if inside:
                return work(*arguments, **keywords)
            inside.append(name)
            began = time.thread_time()
            try:
                return work(*arguments, **keywords)
            finally:
                spent.append(time.thread_time() - began)
                inside.pop()

        return run

    with contextlib.ExitStack() as patches:
        for place, name in entries:
            patches.enter_context(mock.patch.object(place, name, timed(getattr(place, name), name)))
        yield spent


def _in_turns(one: str, other: str, name: str, pairs: int, size: int) -> Iterator[Tuple[float, float]]:
    """At least so many pairs, and more of what is soon compiled; each comes first in every second pair."""
    until = time.monotonic() + COMPILING
    _seconds(one, name, size), _seconds(other, name, size)
    count = 0
    while count < pairs or time.monotonic() < until:
        if count % 2:
            yield _seconds(one, name, size), _seconds(other, name, size)
        else:
            second = _seconds(other, name, size)
            yield _seconds(one, name, size), second
        count += 1


def _seconds(variant: str, name: str, size: int) -> float:
    """Of this thread on a processor, and without Python's garbage collection: either would fall on one of a pair only."""
    gc.collect()
    gc.disable()
    try:
        began = time.thread_time()
        compiled(variant, name, size)
        return time.thread_time() - began
    finally:
        gc.enable()


# --- all of it -----------------------------------------------------------------------------------------------------------


def machine() -> str:
    import numpy
    import theano

    from theano_memopt.hosts.theano.install import blas

    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else "")
    return (
        f"{model.group(1) if model else platform.processor()}, {os.cpu_count()} cores; {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}, NumPy {numpy.__version__}, Theano {theano.__version__}; "
        f"BLAS: {blas.in_words()}; {time.strftime('%Y-%m-%d')}"
    )


def main(arguments: Optional[Sequence[str]] = None) -> int:
    from theano_memopt.demo import models as demo_models

    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", default=",".join(demo_models.MODELS), help="comma separated; default all")
    parser.add_argument("--rounds", type=int, default=1, help="sets of processes per model (default 1)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of calls per model and round (default 6)")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of compilations per model (default 5)")
    parser.add_argument("--size", type=int, default=1, help="divide the sizes of the models by this")
    parser.add_argument("--blas", choices=("scipy", "theano"), default="scipy", help="SciPy's, or what Theano finds (default %(default)s)")
    parser.add_argument("--search", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.search:
        search(*given.search, given.size)
        return 0
    if given.blas == "scipy":  # for this process and for the others
        os.environ["THEANO_FLAGS"] = ",".join([*filter(None, [os.environ.get("THEANO_FLAGS")]), "mem_reuse.blas=scipy"])
    names = given.models.split(",")
    began = time.monotonic()
    measured = [row for rows in measure(names, VARIANTS, given.rounds, given.seconds, given.size) for row in rows]
    found = {
        "memory": memory(measured, names),
        "time": times(measured, names),
        "minimum": minimum(given.size),
        "compiling": compiling([name for name in COMPILED if name in names], given.pairs, given.size),
    }
    for name, rows in found.items():
        if rows:
            tables.save(rows, PLACE / f"{name}.csv")
            print(f"\n{name}\n{tables.text(rows, left=1)}")
    (PLACE / "machine.txt").write_text(machine() + "\n", encoding="utf-8")
    print(f"\n{machine()}\n{time.monotonic() - began:.0f} s in all; CSV in {PLACE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

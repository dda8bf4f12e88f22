"""Runs every client stock and with the pass, compares every bit of losses and weights, and prints one table.

Words
    client     a script and Theano flags
    side       one run of it: stock, or with the pass, by `python -m theano_memopt run` or by `import theano_memopt` alone
    in all     processor time of all steps with the pass to that of stock; of each step the quickest of several runs counts
    measured   of the fifth call of each function, by tracemalloc; the largest function counts
    planned    by the accounting of the plan, at the shapes of the first call
    peak       most bytes held at once during a call; kept: bytes of intermediates that stay after it (allow_gc=False)

A client whose sides differ is run stock once more: if stock differs from itself the row says so, and it still counts as
different.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import astuple, dataclass, fields, replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, "scripts")
SAME, DIFFERENT, MISSING, STOPPED = 0, 1, 2, 130
NEEDED = {
    "keras": ("theano", "theano_memopt", "keras", "numpy", "scipy", "rich"),
    "pymc3": ("theano", "theano_memopt", "pymc3", "numpy", "scipy", "rich"),
}
"""Environment -> what is in it. Keras and PyMC3 want different NumPys."""
TURNS = {"keras": 0, "pymc3": 3}
"""How often each side is run once more for its time, stock and ours in turns, without `run`, which takes a microsecond of each call."""
FLOAT = {"keras": "float32", "pymc3": "float64"}
UNTIMED = 5
"""Steps that are not timed: the first ones prepare, the fifth is measured."""

KERAS = ("keras_images", "keras_residual", "keras_text", "keras_lstm", "keras_gru_unrolled")
TUTORIALS = ("logistic_sgd", "mlp", "convolutional_mlp", "dA", "rbm", "lstm")
PYMC3 = ("pymc3_hierarchy", "pymc3_lkj", "pymc3_process", "pymc3_network")
KEEPING = ("keras_images", "keras_residual", "keras_lstm", "mlp", "convolutional_mlp", "rbm", "lstm", *PYMC3)
"""Those that run with allow_gc=False as well."""


@dataclass(frozen=True)
class Client:
    script: str
    gc: bool = True
    flags: Tuple[str, ...] = ()
    """Of Theano, for our side alone."""

    @property
    def name(self) -> str:
        return self.script + ("" if self.gc else " gc=False")

    @property
    def environment(self) -> str:
        return "pymc3" if self.script in PYMC3 else "keras"


CLIENTS = tuple(Client(s) for s in KERAS + TUTORIALS + PYMC3) + tuple(Client(s, gc=False) for s in KEEPING)


@dataclass(frozen=True)
class Side:
    """What one run of a client said."""

    losses: Tuple[Tuple[float, ...], ...]
    seconds: Tuple[float, ...]
    digest: str
    peak: int
    kept: int

    @property
    def timed(self) -> Tuple[float, ...]:
        return self.seconds[UNTIMED:] or self.seconds

    @property
    def milliseconds(self) -> float:
        return 1000 * statistics.median(self.timed)


@dataclass(frozen=True)
class Planned:
    """Of the function with the largest stock peak, Scan's inner functions apart."""

    stock: int
    ours: int
    floor: int
    proven: bool
    functions: int
    declined: int
    """Functions without a plan, or without a report."""


@dataclass(frozen=True)
class Row:
    client: str
    steps: int
    measured_peak_stock: int
    measured_peak_ours: int
    measured_kept_stock: int
    measured_kept_ours: int
    planned_peak_stock: int
    planned_peak_ours: int
    planned_floor: int
    proven: bool
    functions: int
    declined: int
    ms_stock: float
    ms_ours: float
    in_all: Optional[float]
    """None where each side was run once."""
    loss_differs: float
    verdict: str
    """Empty where every bit is the same."""


class Broken(Exception):
    """A side that did not come to its end; the message is its last words."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="clients", description=__doc__.splitlines()[0])
    scripts = ", ".join(KERAS + TUTORIALS + PYMC3)
    parser.add_argument("only", nargs="*", metavar="SCRIPT", help=f"of {scripts}; all of the environment if none is named")
    parser.add_argument("--of", choices=sorted(NEEDED), default="keras", help="the environment that this is (default: %(default)s)")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps of each (default: each script's own)")
    parser.add_argument("--budget", metavar="SHARE|BYTES", help="run our side within this: the flag mem_reuse.budget")
    parser.add_argument("--extra-time", metavar="SHARE", help="run our side for so much more time: the flag mem_reuse.extra_time")
    parser.add_argument("--out", default=os.path.join("out", "clients"), metavar="FOLDER", help="logs, figures and the table as CSV")
    parsed = parser.parse_args(arguments)
    trouble = missing(parsed.of) or _unknown(parsed.only)
    if trouble:
        print(f"clients: {trouble}", file=sys.stderr)
        return MISSING
    os.makedirs(parsed.out, exist_ok=True)
    wishes = (("budget", parsed.budget), ("extra_time", parsed.extra_time))
    flags = tuple(f"mem_reuse.{name}={value}" for name, value in wishes if value is not None)
    chosen = [replace(c, flags=flags) for c in CLIENTS if c.environment == parsed.of and (not parsed.only or c.script in parsed.only)]
    try:
        return _run_all(chosen, parsed.steps, os.path.abspath(parsed.out), parsed.of) if chosen else SAME
    except KeyboardInterrupt:
        print("\nclients: stopped", file=sys.stderr)
        return STOPPED


def missing(environment: str) -> str:
    """What is not here, in one line; empty if all is."""
    absent = [name for name in NEEDED[environment] if importlib.util.find_spec(name) is None]
    if absent:
        return f"{sys.executable} has no {', '.join(absent)}: `make clients` makes an environment that has"
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return "no C++ compiler (g++ or clang++) is on the path, and Theano without one takes hours here"
    return ""


def differences(stock: Side, ours: Side) -> List[str]:
    """In words; none if every bit of every loss and weight is the same.

    >>> one = Side(((0.5,),), (0.1,), "ab", 0, 0)
    >>> differences(one, one), differences(one, Side(((0.5,),), (0.1,), "ac", 0, 0))
    ([], ['weights'])
    """
    found = []
    if [list(map(float.hex, step)) for step in stock.losses] != [list(map(float.hex, step)) for step in ours.losses]:
        found.append("losses")
    if stock.digest != ours.digest:
        found.append("weights")
    return found


def loss_differs(stock: Side, ours: Side) -> float:
    """The largest difference of any step; infinite where there is none to take."""
    if [len(step) for step in stock.losses] != [len(step) for step in ours.losses]:
        return float("inf")
    pairs = [(a, b) for one, other in zip(stock.losses, ours.losses) for a, b in zip(one, other)]
    return max((0.0 if a.hex() == b.hex() else abs(a - b) if a == a and b == b else float("inf") for a, b in pairs), default=0.0)


def quickest(sides: Sequence[Side]) -> Side:
    """Of several runs of one side, each step as quick as it ever was: it is the same work each time.

    >>> quickest([Side(((0.5,),), (0.1, 0.4), "ab", 0, 0), Side(((0.5,),), (0.2, 0.3), "ab", 0, 0)]).seconds
    (0.1, 0.3)
    """
    return replace(sides[0], seconds=tuple(map(min, *[side.seconds for side in sides]))) if len(sides) > 1 else sides[0]


def _run_all(chosen: Sequence[Client], steps: Optional[int], out: str, environment: str) -> int:
    start = time.monotonic()
    rows: List[Row] = []
    broken: List[str] = []
    _say(f"{len(chosen)} clients, each stock and with the pass; a first run compiles C code, which takes many minutes")
    for number, client in enumerate(chosen, 1):
        try:
            rows.append(_compare(client, steps, out, f"{number}/{len(chosen)} {client.name}"))
        except Broken as trouble:
            broken.append(f"{client.name}: {trouble}")
            _say(broken[-1])
    text = _table(rows)
    print(text, end="")
    _write_csv(rows, os.path.join(out, "clients.csv" if environment == "keras" else f"clients_{environment}.csv"))
    for words in broken:
        print(f"broken: {words}")
    different = [row.client for row in rows if row.verdict]
    print(f"Losses and weights equal to stock, every bit: {len(rows) - len(different)} of {len(chosen)} clients.")
    _say(f"{time.monotonic() - start:.0f} s in all; logs in {out}")
    return DIFFERENT if broken or different else SAME


def _compare(client: Client, steps: Optional[int], out: str, where: str) -> Row:
    stock, ours = _run(client, "stock", steps, out, where), _run(client, "run", steps, out, where)
    planned = _planned(client, out)
    again = [[_run(client, side, steps, out, where) for side in ("stock", "pass")] for _ in range(TURNS[client.environment])]
    differ = sorted({what for other in (ours, *(side for turn in again for side in turn)) for what in differences(stock, other)})
    verdict = " and ".join(differ) + " differ" if differ else ""
    if differ:
        verdict += ", and stock differs from itself" if differences(stock, _run(client, "stock", steps, out, where)) else ""
    in_all = None
    if again:
        stock, ours = quickest([turn[0] for turn in again]), replace(quickest([turn[1] for turn in again]), peak=ours.peak, kept=ours.kept)
        in_all = sum(ours.timed) / sum(stock.timed)
    return Row(
        client.name,
        len(stock.losses),
        stock.peak,
        ours.peak,
        stock.kept,
        ours.kept,
        planned.stock,
        planned.ours,
        planned.floor,
        planned.proven,
        planned.functions,
        planned.declined,
        stock.milliseconds,
        ours.milliseconds,
        in_all,
        loss_differs(stock, ours),
        verdict,
    )


STARTERS = {"stock": ["--stock"], "pass": ["--pass"], "run": []}


def _run(client: Client, side: str, steps: Optional[int], out: str, where: str) -> Side:
    stem = _stem(client, side, out)
    measured, report = stem + ".measured.json", stem + ".report.json"
    for stale in (measured, report):
        if os.path.exists(stale):
            os.remove(stale)
    first = ["-m", "theano_memopt", "run", "--json", report] if side == "run" else []
    more = [] if steps is None else [str(steps)]
    script = os.path.join(SCRIPTS, client.script + ".py")
    command = [sys.executable, *first, os.path.join(HERE, "measured.py"), *STARTERS[side], measured, script, *more]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(client, out, side))
    with open(stem + ".log", "w", encoding="utf-8") as log:
        log.write(done.stdout + done.stderr)
    _say(f"{where}: {side}, {time.monotonic() - began:.0f} s")
    if done.returncode != 0:
        raise Broken(f"{side} ended with status {done.returncode}: {_last_words(done.stderr)} (all of it in {stem}.log)")
    said = json.loads(done.stdout.splitlines()[-1])
    calls = _read(measured)
    losses = tuple(tuple(map(float.fromhex, step)) for step in said["losses"])
    peak, kept = (max((call[name] for call in calls), default=0) for name in ("peak", "kept"))
    return Side(losses, tuple(said["seconds"]), said["digest"], peak, kept)


def _stem(client: Client, side: str, out: str) -> str:
    """Of the files that this side leaves."""
    return os.path.join(out, f"{client.name.replace(' ', '_')}.{side}")


def _planned(client: Client, out: str) -> Planned:
    return planned_of(_read(_stem(client, "run", out) + ".report.json"))


def planned_of(rows: Sequence[Dict[str, Any]]) -> Planned:
    """From what `run --json` wrote."""
    reports = [row["report"] for row in rows if row["report"] is not None and not row["inside"]]
    declined = sum(row["report"] is None for row in rows)
    if not reports:
        return Planned(0, 0, 0, False, len(rows), declined)
    largest = max(reports, key=_stock_peak)
    return Planned(_stock_peak(largest), largest["peak_bytes"], largest["floor_bytes"], largest["least_bytes"] is not None, len(rows), declined)


def _stock_peak(report: Dict[str, Any]) -> int:
    return report["host_peaks"][0]["peak_bytes"] if report["host_peaks"] else report["peak_bytes"]


def _environment(client: Client, out: str, side: str) -> Dict[str, str]:
    flags = [flag for flag in os.environ.get("THEANO_FLAGS", "").split(",") if flag]
    flags += [f"floatX={FLOAT[client.environment]}", f"allow_gc={client.gc}", *(client.flags if side != "stock" else ())]
    here = os.path.dirname(HERE)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    # Keras writes a file of settings into its home when it is imported: not into the user's.
    return {**os.environ, "THEANO_FLAGS": ",".join(flags), "KERAS_HOME": os.path.join(out, "keras"), "PYTHONPATH": path}


def _table(rows: Sequence[Row]) -> str:
    from rich.table import Table
    from rich.text import Text

    from theano_memopt.report.text import rendered
    from theano_memopt.report.words import less

    table = Table(show_edge=False, pad_edge=False)
    table.add_column("client", no_wrap=True)
    heads = (
        "steps",
        "peak: stock",
        "ours",
        "",
        "kept: stock",
        "ours",
        "plan's peak: stock",
        "ours",
        "least",
        "",
        "ms: stock",
        "ours",
        "in all",
        "differs",
    )
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for r in rows:
        kept = (_kb(r.measured_kept_stock), _kb(r.measured_kept_ours)) if "gc=False" in r.client else ("", "")
        table.add_row(
            r.client,
            str(r.steps),
            _kb(r.measured_peak_stock),
            _kb(r.measured_peak_ours),
            less(r.measured_peak_ours, r.measured_peak_stock),
            *kept,
            _kb(r.planned_peak_stock),
            _kb(r.planned_peak_ours),
            _kb(r.planned_floor),
            "proven" if r.proven else "or less: a floor",
            f"{r.ms_stock:.1f}",
            f"{r.ms_ours:.1f}",
            "" if r.in_all is None else f"{r.in_all:.3f}",
            Text(f"{r.loss_differs:g}" + (f" ({r.verdict})" if r.verdict else "")),
        )
    words = [
        "kB = 1000 bytes. peak, kept: measured in the fifth call of the largest function.",
        "plan's peak, least: by the plan's accounting at the sizes of the first call, which were not all known when the order was planned.",
        "ms: the median step; of Keras and the tutorials one run of each side, of PyMC3 the processor time of three runs in turns.",
        "in all: the processor time of all steps, ours to stock.",
        "differs: the largest difference of a loss; the weights, or samples, too are compared, bit by bit.",
    ]
    return rendered([table, *map(Text, words)], width=240)


def _write_csv(rows: Sequence[Row], path: str) -> None:
    from theano_memopt import files

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([f.name for f in fields(Row)])
    writer.writerows(astuple(row) for row in rows)
    files.write_whole(path, text.getvalue())


def _kb(count: int) -> str:
    return f"{count / 1000:,.1f}"


def _read(path: str) -> Any:
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and "│" not in line]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["it said nothing"])[-1].strip()[:200]


def _unknown(names: Sequence[str]) -> str:
    there = KERAS + TUTORIALS + PYMC3
    wrong = [name for name in names if name not in there]
    return f"there is no client {wrong[0]!r}; there are {', '.join(there)}" if wrong else ""


def _say(sentence: str) -> None:
    print(f"clients: {sentence}", file=sys.stderr, flush=True)

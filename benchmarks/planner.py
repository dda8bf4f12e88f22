"""How good the planner is: `make bench-planner`, or `python -m benchmarks.planner`.

    real      ten training functions of Theano: ours beside the host's orders and the best orders known
    random    small graphs against every order, or against a plain memo over done sets: mismatches must be 0
    families  harder graphs (families.py) beside the best of the simple rules, at each time budget
    packing   offsets in one arena (packing.py)

Words
    verdict   "proven": no order is lower; "open": the floor and the peak do not meet, and the gap is named
    checked   the certificate was replayed by the independent checker; "unfinished" where that took longer than our patience
    above     how much the peak is above the floor
    improved  the best simple order after as many seconds of moving single tasks about (improved_rule.py): the peer to beat
    no worse  graphs on which the peak is at most that of the best simple rule and of the improved one; it must be all of them

Everything goes into one CSV too, a row per graph, written again after each row: an interrupted run keeps what it has.
Times are wall-clock seconds of this machine and decide nothing. What must not be is listed at the end, and the exit status is
then 1: a peak above a known or a simple order, a mismatch with an oracle, a certificate that the checker refuses.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import improved_rule, simple_rules
from benchmarks import packing as packs
from benchmarks.families import FAMILIES, SIZES, SIZES_OF, make_graph, small_graph
from benchmarks.tables import save
from tests import oracles
from theano_memopt.options import PlanOptions
from theano_memopt.planner.arena import check_arena, pack_graph
from theano_memopt.planner.certificate import Exhausted, Proven, Rejected, Schedule, check_certificate
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, graph_from_json

ROOT = Path(__file__).resolve().parent.parent
GRAPHS = ROOT / "tests" / "graphs"
NO_LIMIT = 10**12
"""States that a run with a time budget may visit: the clock ends it."""

SECTIONS = ("real", "random", "families", "packing")


@dataclass(frozen=True)
class Scope:
    """How much to do."""

    budgets: Sequence[float]
    families: Sequence[str]
    sizes: Optional[Sequence[int]]
    """Of all families; None for those that each family is asked for."""
    seeds: Sequence[int]
    small: int
    """Small graphs per number of tasks."""
    quick: bool
    patience: float
    """Seconds after which a check is given up."""


class Book:
    """All rows, in the CSV and for the tables; and what went wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: List[Dict[str, Any]] = []
        self.wrong: List[str] = []

    def add(self, table: str, row: Dict[str, Any]) -> None:
        self.rows.append({"table": table, **row})
        save(self.rows, self.path)

    def of(self, table: str) -> List[Dict[str, Any]]:
        return [row for row in self.rows if row["table"] == table]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parsed = _parser().parse_args(arguments)
    scope = _scope(parsed)
    book = Book(Path(parsed.csv))
    console = Console(width=None if sys.stdout.isatty() else 170)
    for section in parsed.only:
        {"real": real, "random": random_graphs, "families": families, "packing": packing}[section](scope, book, console)
    console.print(f"Every row: {book.path}")
    for line in book.wrong:
        console.print(f"[bold red]WRONG[/] {line}", highlight=False)
    return 1 if book.wrong else 0


# ------------------------------------------------------------------------------------------------------- real graphs


def real(scope: Scope, book: Book, console: Console) -> None:
    known = json.loads((GRAPHS / "KNOWN.json").read_text(encoding="utf-8"))
    for name in _progress("real graphs", list(known)):
        graph = graph_from_json(json.loads((GRAPHS / f"{name}.json").read_text(encoding="utf-8")))
        was = known[name]
        row = {"graph": name, "tasks": len(graph.tasks), "host_toposort": was["host_toposort"], "host_cvm": was["host_cvm"]}
        schedule, figures = solve(graph, PlanOptions(), scope.patience)
        arena = pack_graph(graph, schedule.order, alignment=1)
        check_arena(graph, schedule.order, arena, alignment=1)
        row.update(best_known=was["best_found"], **figures, arena=arena.height)
        book.add("real", row)
        if arena.height != schedule.peak:
            book.wrong.append(f"{name}: an arena of {arena.height} bytes for a peak of {schedule.peak}")
        if row["peak"] > was["best_found"]:
            book.wrong.append(f"{name}: {row['peak']} bytes, but an order with {was['best_found']} is known")
        _note_refusal(book, row)
    _print_real(book, console)


def _note_refusal(book: Book, row: Dict[str, Any]) -> None:
    if row["refused"]:
        book.wrong.append(f"{row['graph']}: the certificate does not hold: {row['refused']}")


def _print_real(book: Book, console: Console) -> None:
    table = _table(
        "Real training functions: peak in bytes",
        "graph|tasks> |toposort> |CVM> |best known> |ours> |floor> |arena> |verdict|above> |states> |s> |checked, s> |method",
    )
    for row in book.of("real"):
        bytes_ = [f"{row[key]:,}" for key in ("host_toposort", "host_cvm", "best_known", "peak", "floor", "arena")]
        table.add_row(row["graph"], str(row["tasks"]), *bytes_, *_verdict_cells(row))
    console.print(table)


def _verdict_cells(row: Dict[str, Any]) -> List[str]:
    shown = {"yes": f"{row['check_seconds']:.2f}", "no": "[bold red]NO[/]", "unfinished": f"> {row['check_seconds']:.0f}"}[row["checked"]]
    return [row["verdict"], f"{row['gap_percent']:.3g} %", f"{row['states']:,}", f"{row['seconds']:.2f}", shown, row["method"]]


def solve(graph: Graph, options: PlanOptions, patience: float) -> Tuple[Schedule, Dict[str, Any]]:
    """Order the graph and have the certificate checked; the figures as a row."""
    began = time.perf_counter()
    schedule = minimise_peak(graph, options)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    checked, refused = _check_within(patience, graph, schedule)
    return schedule, {
        "peak": schedule.peak,
        "floor": schedule.floor,
        "verdict": "proven" if schedule.proven else "open",
        "gap_percent": schedule.gap_percent,
        "method": schedule.method,
        "states": schedule.states,
        "seconds": round(seconds, 3),
        "checked": checked,
        "refused": refused,
        "check_seconds": round(time.perf_counter() - began, 3),
    }


def _check_within(seconds: float, graph: Graph, schedule: Schedule) -> Tuple[str, str]:
    """The check in a process of its own, given up after so long: "yes", "no" or "unfinished", and why it refuses."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, (refusal(graph, schedule) or "accepted").encode()[:4096])
        except BaseException as error:  # whatever goes wrong in there is no acceptance
            os.write(writing, repr(error).encode()[:4096])
        finally:
            os._exit(0)
    os.close(writing)
    answered = bool(select.select([reading], [], [], seconds)[0])
    said = os.read(reading, 4096).decode() if answered else ""
    if not answered:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    if not answered:
        return "unfinished", ""
    return ("yes", "") if said == "accepted" else ("no", said or "the check died")


def refusal(graph: Graph, schedule: Schedule) -> str:
    """Why the independent checker refuses the certificate; empty where it accepts it."""
    try:
        check_certificate(graph, schedule)
    except Rejected as no:
        return str(no)
    return ""


# ----------------------------------------------------------------------------------------------------- random graphs


def random_graphs(scope: Scope, book: Book, console: Console) -> None:
    for tasks in _progress("random graphs", range(2, 15), lambda tasks: f"{tasks} tasks"):
        oracle = oracles.least_peak_by_all_orders if tasks <= 8 else oracles.least_peak_by_memo
        count = scope.small if tasks <= 7 else max(10, scope.small // (5 if tasks < 12 else 20))
        row = {"tasks": tasks, "graphs": count, "oracle": "every order" if tasks <= 8 else "memo over done sets"}
        row.update(mismatches=0, proven=0, proofs_accepted=0, forged=0, forged_rejected=0)
        for seed in range(count):
            _random_graph(small_graph(tasks, seed), oracle, f"random graph of {tasks} tasks, seed {seed}", row, book)
        book.add("random", row)
    keys = ("tasks", "graphs", "oracle", "mismatches", "proven", "proofs_accepted", "forged", "forged_rejected")
    table = _table(
        "Random graphs against an oracle", "tasks> |graphs> |oracle|mismatches> |proven> |proofs accepted> |forged results> |of them rejected> "
    )
    for row in book.of("random"):
        table.add_row(*(f"{row[key]:,}" if isinstance(row[key], int) else row[key] for key in keys))
    console.print(table)


def _random_graph(graph: Graph, oracle: Callable[[Graph], int], name: str, row: Dict[str, Any], book: Book) -> None:
    schedule = minimise_peak(graph, PlanOptions())
    refused = refusal(graph, schedule)
    row["proven"] += schedule.proven
    row["proofs_accepted"] += not refused
    if refused:
        book.wrong.append(f"{name}: the certificate does not hold: {refused}")
    least = oracle(graph)
    if schedule.peak != least:
        row["mismatches"] += 1
        book.wrong.append(f"{name}: {schedule.peak} bytes, the least is {least}")
    for forged in forgeries(graph, schedule):
        row["forged"] += 1
        if refusal(graph, forged):
            row["forged_rejected"] += 1
        else:
            book.wrong.append(f"{name}: the checker accepts a peak of {forged.peak} as proven, the least is {least}")


def forgeries(graph: Graph, schedule: Schedule) -> Iterator[Schedule]:
    """Orders with a higher peak, called proven: once with the true proof, once with a made-up search."""
    for order in {tuple(rule(graph)) for rule in simple_rules.RULES.values()}:
        replayed = timeline(graph, order)
        if replayed.peak > schedule.peak:
            for proof in (schedule.certificate.proof, Exhausted(replayed.peak - 1, tuple(range(len(graph.tasks))), 10**6)):
                claim = Proven(replayed.peak, proof)
                yield replace(schedule, order=order, timeline=replayed, certificate=claim, baseline_peak=replayed.peak)


# ---------------------------------------------------------------------------------------------------------- families


def families(scope: Scope, book: Book, console: Console) -> None:
    wanted = [(f, n, seed) for f in scope.families for n in _sizes(scope, f) for seed in scope.seeds]
    for family, tasks, seed in _progress("families", wanted, lambda one: f"{one[0]} {one[1]} tasks"):
        graph = make_graph(family, tasks, seed)
        simple = simple_rules.peaks(graph)
        best = min(simple.values())
        for budget in scope.budgets:
            row: Dict[str, Any] = {"graph": f"{family}-{tasks}-{seed}", "family": family, "tasks": len(graph.tasks), "budget": budget}
            row.update({name.replace(" ", "_"): peak for name, peak in simple.items()}, best_simple=best)
            row.update(solve(graph, PlanOptions(effort=NO_LIMIT, seconds=budget), scope.patience)[1])
            row["improved"] = improved_rule.best_improved(graph, budget)
            row["no_worse"] = row["peak"] <= min(best, row["improved"])
            book.add("families", row)
            if not row["no_worse"]:
                book.wrong.append(f"{row['graph']} at {budget:g} s: {row['peak']} bytes, a simple rule has {best}, improved {row['improved']}")
            _note_refusal(book, row)
            if row["verdict"] == "proven":
                _repeat_for_longer_budgets(scope, book, row, budget)
                break
    _print_graphs(book, console)
    _print_families(scope, book, console)


def _sizes(scope: Scope, family: str) -> Sequence[int]:
    sizes = scope.sizes or SIZES_OF.get(family, SIZES)
    return sizes[:3] if scope.quick and not scope.sizes else sizes


def _repeat_for_longer_budgets(scope: Scope, book: Book, row: Dict[str, Any], budget: float) -> None:
    """What is proven stays proven with more time; so the longer budgets take the row as it is."""
    for longer in scope.budgets:
        if longer > budget:
            book.add("families", {**row, "budget": longer})


def _print_graphs(book: Book, console: Console) -> None:
    titles = "graph|tasks> |time> |depth> |breadth> |growth> |subtree> |simple> |improved> |ours> |floor, bytes> |verdict|s> |checked|no worse"
    table = _table("Families: peak over floor of the simple rules, of the best of them, and ours", titles)
    for row in book.of("families"):
        floor = row["floor"] or 1
        keys = [*(name.replace(" ", "_") for name in simple_rules.RULES), "best_simple", "improved", "peak"]
        ratios = [f"{row[key] / floor:.3f}" for key in keys]
        yes = "yes" if row["no_worse"] else "[bold red]NO[/]"
        table.add_row(
            row["graph"],
            str(row["tasks"]),
            f"{row['budget']:g} s",
            *ratios,
            f"{row['floor']:,}",
            row["verdict"],
            f"{row['seconds']:.1f}",
            row["checked"],
            yes,
        )
    console.print(table)


def _print_families(scope: Scope, book: Book, console: Console) -> None:
    titles = (
        "family|budget> |graphs> |proven> |checked> |mean ours/floor> |mean simple/floor> |mean ours/improved> |most> |no worse> |mean s> |most s> "
    )
    table = _table("Families: at each budget", titles)
    groups: Dict[Tuple[str, float], List[Dict[str, Any]]] = defaultdict(list)
    for row in book.of("families"):
        groups[row["family"], row["budget"]].append(row)
        groups["all", row["budget"]].append(row)
    for family in [*scope.families, "all"]:
        for budget in scope.budgets:
            rows = groups[family, budget]
            if not rows:
                continue
            summary = _summary(rows)
            book.add("families by budget", {"family": family, "budget": budget, **summary})
            table.add_row(
                family,
                f"{budget:g} s",
                str(summary["graphs"]),
                f"{summary['proven']}",
                f"{summary['checked']}",
                *(f"{summary[key]:.4f}" for key in ("mean_over_floor", "mean_simple_over_floor", "mean_over_improved", "most_over_improved")),
                f"{summary['no_worse']} of {summary['graphs']}",
                f"{summary['mean_seconds']:.1f}",
                f"{summary['most_seconds']:.1f}",
                style="bold" if family == "all" else "",
            )
    console.print(table)


def _summary(rows: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    return {
        "graphs": len(rows),
        "proven": sum(row["verdict"] == "proven" for row in rows),
        "checked": sum(row["checked"] == "yes" for row in rows),
        "mean_over_floor": _mean(row["peak"] / (row["floor"] or 1) for row in rows),
        "mean_simple_over_floor": _mean(row["best_simple"] / (row["floor"] or 1) for row in rows),
        "mean_over_improved": _mean(row["peak"] / (row["improved"] or 1) for row in rows),
        "most_over_improved": round(max(row["peak"] / (row["improved"] or 1) for row in rows), 4),
        "no_worse": sum(row["no_worse"] for row in rows),
        "mean_seconds": _mean(row["seconds"] for row in rows),
        "most_seconds": max(row["seconds"] for row in rows),
    }


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return round(sum(listed) / len(listed), 4)


# ----------------------------------------------------------------------------------------------------------- packing


def packing(scope: Scope, book: Book, console: Console) -> None:
    """The tables of packing.py."""
    for row in packs.measure_graphs():
        book.add("packing of real graphs", row)
        if row["height"] > row["load"] or row["aligned height"] > row["aligned load"]:
            book.wrong.append(f"{row['graph']}: the arena is higher than the greatest load")
    packs.print_table("Arenas of the real training functions: bytes", _without_table(book.of("packing of real graphs")))
    limits = {"seconds": 8.0} if scope.quick else {}
    for row in _progress("hard packing files", packs.measure_files(**limits), lambda row: f"file {row['file']}", total=11):
        book.add("packing files", row)
        if 10 * row["height"] > 11 * row["load"]:
            book.wrong.append(f"packing file {row['file']}: {row['height']} bytes, more than a tenth above the load of {row['load']}")
    packs.print_table("Hard packing files: bytes", _without_table(book.of("packing files")))


def _without_table(rows: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "table"} for row in rows]


# ------------------------------------------------------------------------------------------------------------- shown


def _progress(what: str, items: Iterable[Any], name: Callable[[Any], str] = str, total: int = 0) -> Iterator[Any]:
    """The items one by one, with a bar on standard error."""
    total = total or len(list(items))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task(what, total=total, now="")
        began = said = time.monotonic()
        for number, item in enumerate(items):
            bar.update(shown, completed=number, now=name(item))
            if not sys.stderr.isatty() and time.monotonic() - said > 20:
                said = time.monotonic()
                print(f"{what}: {number} of {total} after {said - began:.0f} s, now {name(item)}", file=sys.stderr, flush=True)
            yield item


def _table(title: str, columns: str) -> Table:
    """Columns by their titles, `|` between them; a title that ends in `> ` is set right."""
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for column in columns.split("|"):
        table.add_column(column.replace("> ", ""), justify="right" if column.endswith("> ") else "left", no_wrap=not column.endswith("method"))
    return table


def _scope(parsed: argparse.Namespace) -> Scope:
    quick = parsed.quick
    return Scope(
        budgets=sorted(parsed.budget or ([1.0] if quick else [10.0, 60.0])),
        families=parsed.families or list(FAMILIES),
        sizes=parsed.sizes,
        seeds=range(parsed.seeds or (1 if quick else 2)),
        small=100 if quick else 1000,
        quick=quick,
        patience=parsed.patience or (3.0 if quick else 60.0),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description="How good the planner is.")
    parser.add_argument("--quick", action="store_true", help="about three minutes")
    parser.add_argument("--budget", type=float, nargs="+", metavar="SECONDS", help="time budgets for the families (default 10 60, quick 1)")
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), metavar="FAMILY", help="only these: " + " ".join(FAMILIES))
    parser.add_argument("--sizes", type=int, nargs="+", metavar="TASKS", help="numbers of tasks (default: each family's own)")
    parser.add_argument("--seeds", type=int, metavar="COUNT", help="graphs of each family and size (default 2, quick 1)")
    parser.add_argument("--patience", type=float, metavar="SECONDS", help="give the check of one certificate up after so long (default 60, quick 3)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="only these tables")
    parser.add_argument("--csv", default=str(ROOT / "out" / "planner.csv"), metavar="PATH")
    return parser


if __name__ == "__main__":
    sys.exit(main())

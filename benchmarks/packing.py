"""How low the arenas are: `python -m benchmarks.packing`.

    hard files   the eleven public packing problems of google/minimalloc, which are to fit into 1048576
    real graphs  ten training functions of Theano in their natural order, with and without alignment

Words
    load       the most that is live at one time: no arena is lower
    height     what the arena takes
    aligned    sizes rounded up to 64 bytes, as the host asks for

Every arena goes through the independent checker, which raises where two buffers overlap. The effort is counted in choice
points and the same on every machine; `--seconds` is a cap for slow ones. Seconds are of this machine and decide nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from benchmarks.tables import save
from theano_memopt.options import PackOptions
from theano_memopt.planner import placing
from theano_memopt.planner.arena import Packing, check_arena, check_packing, pack, pack_graph
from theano_memopt.planner.lives_csv import read_lives
from theano_memopt.planner.model import graph_from_json

TESTS = Path(__file__).resolve().parent.parent / "tests"
CAPACITY = 1048576
EFFORT = 10_000_000
SECONDS = 30.0

Row = Dict[str, Any]


def measure_files(effort: int = EFFORT, seconds: Optional[float] = SECONDS, only: str = "") -> Iterator[Row]:
    """A row for each hard file: pressed as low as the effort allows, and beside it the time to come under the capacity."""
    for path in sorted((TESTS / "data" / "minimalloc").glob("*.csv")):
        if only and path.name[0] not in only:
            continue
        lives = read_lives(path)
        began = time.perf_counter()
        fitting = pack(Packing(lives.sizes, lives.spans), PackOptions(effort, seconds, enough=CAPACITY))
        fitted = time.perf_counter() - began
        check_packing(lives.sizes, lives.spans, fitting)
        began = time.perf_counter()
        arena = pack(Packing(lives.sizes, lives.spans), PackOptions(effort, seconds))
        took = time.perf_counter() - began
        check_packing(lives.sizes, lives.spans, arena)
        yield {
            "file": path.name[0],
            "buffers": len(lives.sizes),
            "load": arena.floor,
            "height": arena.height,
            "height/load": round(arena.height / arena.floor, 4),
            "seconds": round(took, 2),
            f"fits {CAPACITY}": "yes" if min(arena.height, fitting.height) <= CAPACITY else "no",
            "seconds to fit": round(fitted, 2) if fitting.height <= CAPACITY else "",
        }


def measure_graphs() -> Iterator[Row]:
    """A row for each real graph."""
    for path in sorted((TESTS / "graphs").glob("*.json")):
        if path.name == "KNOWN.json":
            continue
        graph = graph_from_json(json.loads(path.read_text(encoding="utf-8")))
        row: Row = {"graph": path.stem, "buffers": len(graph.buffers)}
        began = time.perf_counter()
        for alignment, prefix in ((1, ""), (64, "aligned ")):
            arena = pack_graph(graph, graph.natural_order, alignment)
            check_arena(graph, graph.natural_order, arena, alignment)
            row[prefix + "load"], row[prefix + "height"] = arena.floor, arena.height
        row["milliseconds"] = round(1000 * (time.perf_counter() - began), 1)
        yield row


def print_table(title: str, rows: Sequence[Row]) -> None:
    """With `rich` where it is there, plain columns where it is not."""
    if not rows:
        return
    shown = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()] for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(len(cell) for cell in column) for column in zip(list(rows[0]), *shown)]
        print(title)
        for line in [list(rows[0])] + shown:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths)))
        return
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for at, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if at else "left", no_wrap=True)
    for cells in shown:
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def write_csv(path: Path, tables: Dict[str, List[Row]]) -> None:
    save([{"table": name, **row} for name, table in tables.items() for row in table], path)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description="How low the arenas are.")
    parser.add_argument("--effort", type=int, default=EFFORT, metavar="NODES", help=f"choice points for each file (default {EFFORT})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"cap for each file (default {SECONDS:g})")
    parser.add_argument("--files", default="", metavar="LETTERS", help="only these files, as in AEK")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write all rows there too")
    parsed = parser.parse_args(arguments)
    print("dives:", "compiled" if placing.dive_compiled else "Python (the compiled part is not built)")
    tables = {"graphs": list(measure_graphs()), "files": []}
    print_table("Real training functions: bytes", tables["graphs"])
    for row in measure_files(parsed.effort, parsed.seconds, parsed.files):
        tables["files"].append(row)
        print(f"{row['file']}: {row['height']:,} of {row['load']:,} in {row['seconds']} s", file=sys.stderr, flush=True)
    print_table("Hard packing files", tables["files"])
    if parsed.csv:
        write_csv(parsed.csv, tables)
    missed = [row["file"] for row in tables["files"] if 10 * row["height"] > 11 * row["load"]]
    missed += [row["graph"] for row in tables["graphs"] if row["height"] > row["load"] or row["aligned height"] > row["aligned load"]]
    if missed:
        print("MISSED: more than a tenth above the load (files) or above it at all (graphs):", ", ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

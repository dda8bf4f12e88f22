"""Put the tables of the last `make bench`, `make bench-scale` and `make results` into README and docs/benchmarks.md: `make readme-tables`.

A page holds each table between two comments, <!-- table memory --> and <!-- end -->; what stands between is replaced by the rows of
out/bench/memory.csv, or of a file in benchmarks/ (`KEPT`). Where the comment goes on, as in <!-- table time: model; ours gc -->, only those
columns are taken. ARGS="--only program_families costs" fills these alone; tables of other benchmarks (FOLDERS) are filled in no other way.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List, Match, Optional, Sequence, Tuple

from benchmarks import family_results, tables
from theano_memopt import files

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
PLACE = ROOT / "out" / "bench"
FOLDERS = {"program_families": "recompute", "solver_summary": "recompute", "goals": "repeats", "costs": "repeats", "costs_by_kind": "repeats"}
"""Beside out/bench: tables of `make bench-recompute-planner` and of `make bench-recompute`."""
RESULTS, KNOWN = ROOT / "benchmarks" / "results.json", ROOT / "tests" / "graphs" / "KNOWN.json"
BLOCK = re.compile(r"(<!-- table (\w+)(?:: ([^>]*?))? -->\n).*?(<!-- end -->)", re.S)


def filled(page: str, place: Path, names: Optional[Collection[str]] = None) -> str:
    """The page with its tables filled: those of these names, or all but those in FOLDERS."""

    def table(found: Match[str]) -> str:
        wanted = found[2] not in FOLDERS if names is None else found[2] in names
        return found[1] + _contents(place, found[2], found[3]) + found[4] if wanted else found[0]

    return BLOCK.sub(table, page)


def _contents(place: Path, name: str, columns: Optional[str]) -> str:
    if name == "machine":
        return (place / "machine.txt").read_text(encoding="utf-8")
    folder = place.parent / FOLDERS[name] if name in FOLDERS else place
    rows = _kept(*KEPT[name]) if name in KEPT else _measured(folder / f"{name}.csv")
    wanted = [c.strip() for c in columns.split(";")] if columns else list(rows[0])
    return tables.markdown([{c: row[c] for c in wanted} for row in rows])


def _kept(path: Path, rows_of: Callable[[Dict[str, Any]], List[tables.Row]]) -> List[tables.Row]:
    return rows_of(json.loads(path.read_text(encoding="utf-8")))


def _measured(path: Path) -> List[tables.Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{column: _shown(value) for column, value in row.items()} for row in csv.DictReader(file)]


def _graphs(results: Dict[str, Dict[str, Any]]) -> List[tables.Row]:
    """What the planner finds on the kept graphs, beside Theano's own orders."""
    hosts = json.loads(KNOWN.read_text(encoding="utf-8"))
    return [
        {
            "graph": f"graphs/{name}",
            "tasks": row["tasks"],
            "Theano's toposort": hosts[name]["host_toposort"],
            "Theano's CVM": hosts[name]["host_cvm"],
            "ours": row["peak"],
            "floor": row["floor"],
            "": row["status"],
            "states": row["states"],
            "reserved: cells": row["cells_reserved"],
            "reserved: arena": row["arena_height"],
        }
        for name, row in results["graphs"].items()
    ]


def _programs(results: Dict[str, Dict[str, Any]]) -> List[tables.Row]:
    return [
        {
            "program": f"programs/{name}",
            "tasks": row["tasks"],
            "least peak by order": row["least_peak_by_order"],
            "budget": row["budget"],
            "peak": row["peak"],
            "floor under every sequence": row["floor"],
            "": row["status"],
            "extra time, %": f"{row['extra_percent']:.2f}",
            "runs again": row["runs_again"],
        }
        for name, row in results["programs"].items()
    ]


KEPT: Dict[str, Tuple[Path, Callable[[Dict[str, Any]], List[tables.Row]]]] = {
    "graphs": (RESULTS, _graphs),
    "programs": (RESULTS, _programs),
    "families": (family_results.RESULTS, family_results.by_family),
    "open": (family_results.RESULTS, family_results.still_open),
}
"""Tables that come from files in the repository."""


def _shown(value: str) -> str:
    """A number as people write it; anything else as it is."""
    if re.fullmatch(r"-?\d+", value):
        return f"{int(value):,}"
    if re.fullmatch(r"-?\d+\.\d+", value):
        return f"{float(value):.2f}"
    return value


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=str(__doc__).splitlines()[0])
    parser.add_argument("--kept", action="store_true", help="only the tables of `make results` and `make family-results`")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="only these tables")
    given = parser.parse_args(arguments)
    names = KEPT if given.kept else given.only
    try:
        texts = {page: filled(page.read_text(encoding="utf-8"), PLACE, names) for page in PAGES}
    except FileNotFoundError as missing:
        print(f"readme-tables: {missing.filename} is not there: run the benchmark that writes it first", file=sys.stderr)
        return 2
    for page, text in texts.items():
        files.write_whole(str(page), text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

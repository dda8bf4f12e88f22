"""What the planner finds on the harder families (families.py), beside what it found before and beside the peer: `make family-results`.

    python -m benchmarks.family_results now             the planner as it is
    python -m benchmarks.family_results before          the same figures under another name, to be run where an older planner is installed
    python -m benchmarks.family_results peer            the best simple rule, improved for as many seconds (improved_rule.py)

Each writes its column of benchmarks/family_results.json, a line per graph, after each graph: what is interrupted keeps what it has.
`make readme-tables` sums the lines up by family for docs/benchmarks.md.

Seconds are those of the processor, so that others on the machine take nothing away; they end a search, and how far it has come by then
depends on the machine. So unlike results.json no test compares these figures; one holds what must be so on every machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple
from unittest import mock

from benchmarks import improved_rule
from benchmarks.families import FAMILIES, SIZES, SIZES_OF, make_graph
from theano_memopt import files
from theano_memopt.options import PlanOptions
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.model import Graph

RESULTS = Path(__file__).resolve().parent / "family_results.json"
NO_LIMIT = 10**12
"""States: the processor's clock ends the search."""
SEEDS, SEEDS_OF = (0,), dict.fromkeys(SIZES_OF, (0, 1))
"""More of the families that are drawn in few sizes."""
COLUMNS = {"before", "now", "peer"}
"""What a graph must have to be in a table."""

Row = Dict[str, Any]


def graphs(families: Sequence[str]) -> Iterator[Tuple[str, str, Graph]]:
    """Family, name and graph."""
    for family in families:
        for size in SIZES_OF.get(family, SIZES):
            for seed in SEEDS_OF.get(family, SEEDS):
                yield family, f"{family} {size}/{seed}", make_graph(family, size, seed)


def measured(column: str, graph: Graph, seconds: float) -> Any:
    """The figures of one graph; every clock that is asked on the way is that of the processor."""
    with mock.patch("time.monotonic", time.process_time):
        if column == "peer":
            return improved_rule.best_improved(graph, seconds)
        schedule = minimise_peak(graph, PlanOptions(effort=NO_LIMIT, seconds=seconds))
    return {"peak": schedule.peak, "floor": schedule.floor}


def load() -> Dict[str, Row]:
    found: Dict[str, Row] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return found


def by_family(rows: Dict[str, Row]) -> List[Row]:
    """A line for each family: how many are proven, how far the peaks are above the floors, and above the peer's."""
    lines = []
    for family in [*FAMILIES, "all"]:
        of = [row for row in rows.values() if family in ("all", row["family"]) and set(row) >= COLUMNS]
        if not of:
            continue
        beside = [row["now"]["peak"] / row["peer"] for row in of]
        least = [max(row[when]["floor"] for when in ("before", "now")) / row["peer"] for row in of]
        lines.append(
            {
                "family": f"families/{family}" if family != "all" else "all",
                **{f"proven {when}": f"{sum(is_proven(row[when]) for row in of)} of {len(of)}" for when in ("before", "now")},
                **{f"peak/floor {when}": _mean([row[when]["peak"] / row[when]["floor"] for row in of]) for when in ("before", "now")},
                "ours/peer": _mean(beside),
                "most": f"{max(beside):.4f}",
                "floor/peer": _mean(least),
            }
        )
    return lines


def still_open(rows: Dict[str, Row]) -> List[Row]:
    """A line for each graph whose least peak is not known."""
    return [
        {
            "graph": f"families/{name}",
            "tasks": row["tasks"],
            **{f"peak/floor {when}": f"{row[when]['peak'] / row[when]['floor']:.4f}" for when in ("before", "now")},
            "now/before": f"{row['now']['peak'] / row['before']['peak']:.4f}",
            "ours/peer": f"{row['now']['peak'] / row['peer']:.4f}",
        }
        for name, row in rows.items()
        if set(row) >= COLUMNS and not is_proven(row["now"])
    ]


def is_proven(found: Dict[str, int]) -> bool:
    return found["peak"] == found["floor"]


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4f}"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.family_results", description=str(__doc__).splitlines()[0])
    parser.add_argument("column", choices=("now", "before", "peer"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of the processor, for each graph")
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=list(FAMILIES), metavar="FAMILY")
    parsed = parser.parse_args(arguments)
    for family, name, graph in graphs(parsed.families):
        found = measured(parsed.column, graph, parsed.seconds)
        rows = load()
        rows.setdefault(name, {"family": family, "tasks": len(graph.tasks)})[parsed.column] = found
        files.write_json(str(RESULTS), rows)
        print(name, found, file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

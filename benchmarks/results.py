"""What the planner finds on the graphs and programs that are kept in tests/: `make results` writes it to benchmarks/results.json.

All of it is deterministic: peaks, floors, reserved bytes, states that the search has opened, and no times. The file lies in the
repository, and tests/benchmarks/test_results.py compares it with what the planner finds now. A change that makes a plan worse,
or a search longer, therefore shows in the difference that a reviewer reads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict

from theano_memopt import files
from theano_memopt.options import PlanOptions
from theano_memopt.planner.certificate import Proven
from theano_memopt.planner.model import Graph, graph_from_json
from theano_memopt.planner.plan import make_plan
from theano_memopt.planner.program import Program, program_from_json
from theano_memopt.planner.recompute import plan_recompute

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
GRAPHS = {path.stem: path for path in sorted((ROOT / "tests" / "graphs").glob("*.json")) if path.stem != "KNOWN"}
PROGRAMS = {path.stem: path for path in sorted((ROOT / "tests" / "programs" / "recompute").glob("*.json"))}
BUDGET = 0.7
"""Of the least peak of any order: the budget for programs whose tasks may run again."""


def graph_of(name: str) -> Graph:
    return graph_from_json(json.loads(GRAPHS[name].read_text(encoding="utf-8")))


def program_of(name: str) -> Program:
    return program_from_json(json.loads(PROGRAMS[name].read_text(encoding="utf-8")))


def planned(graph: Graph) -> Dict[str, Any]:
    """Order, floor and both kinds of storage."""
    cells, arena = (make_plan(graph, PlanOptions(storage=storage)) for storage in ("share", "arena"))
    schedule = cells.schedule
    return {
        "tasks": len(graph.tasks),
        "given_order_peak": schedule.baseline_peak,
        "peak": schedule.peak,
        "floor": schedule.floor,
        "status": "proven" if isinstance(schedule.certificate, Proven) else "open",
        "states": schedule.states,
        "cells_reserved": cells.reserved_bytes,
        "arena_height": arena.reserved_bytes,
    }


def recomputed(program: Program) -> Dict[str, Any]:
    """The least extra time that was found within the budget."""
    plan = plan_recompute(program, None, BUDGET, None)
    return {
        "tasks": len(program.tasks),
        "least_peak_by_order": plan.ordered_peak,
        "budget": plan.budget,
        "peak": plan.peak,
        "floor": plan.floor.bytes,
        "status": plan.status,
        "extra_percent": round(plan.extra_percent, 6),
        "runs_again": sum(times for _, times in plan.again),
    }


def main() -> int:
    files.write_json(
        str(RESULTS),
        {
            "graphs": {name: planned(graph_of(name)) for name in GRAPHS},
            "programs": {name: recomputed(program_of(name)) for name in PROGRAMS},
        },
    )
    print(f"results: {len(GRAPHS)} graphs and {len(PROGRAMS)} programs in {RESULTS.relative_to(ROOT)}; `git diff` shows what has changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

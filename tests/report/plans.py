"""Plans and reports that the tests of this folder draw and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from theano_memopt.options import PlanOptions
from theano_memopt.planner.model import Graph, build_graph, graph_from_json
from theano_memopt.planner.plan import make_plan
from theano_memopt.report.printable import PrintableReport, report_of

GRAPHS = Path(__file__).resolve().parent.parent / "graphs"


def real_graph(name: str) -> Graph:
    return graph_from_json(json.loads((GRAPHS / f"{name}.json").read_text()))


def real_report(name: str, **options: Any) -> PrintableReport:
    return report_of(make_plan(real_graph(name), PlanOptions(**options)), name)


def chain_of_blocks(blocks: int) -> Graph:
    """Blocks of six tasks in a row, each with a wide middle: 600 tasks for 100 blocks."""
    buffers, tasks, before = {}, [], ()
    for i in range(blocks):
        names = [f"{kind}{i}" for kind in ("in", "wide", "left", "right", "sum", "out")]
        buffers.update(zip(names, (8192, 65536 + 512 * (i % 7), 16384, 16384, 4096, 8192)))
        into, wide, left, right, total, out = names
        tasks += [
            (f"read {into}", before, (into,)),
            (f"widen {wide}", (into,), (wide,)),
            (f"left {left}", (wide,), (left,)),
            (f"right {right}", (wide,), (right,)),
            (f"sum {total}", (left, right), (total,)),
            (f"write {out}", (total, into), (out,)),
        ]
        before = (out,)
    return build_graph(buffers, tasks, keep=before)

"""A report as one HTML file: data, style and drawing inside it, no network. The drawing itself is in page.js."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any, Dict, Sequence

from theano_memopt import files
from theano_memopt.planner.arena import Arena
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.plan import Storage
from theano_memopt.planner.slots import Slots
from theano_memopt.report import repeats_page
from theano_memopt.report.model import Order, Report

HERE = Path(__file__).parent


def write(reports: Sequence[Report], path: str, summary: str = "") -> str:
    """Write the page. Several reports get one page with a choice between them; `summary` is a text above the picture."""
    return files.write_whole(path, page(reports, summary))


def page(reports: Sequence[Report], summary: str = "") -> str:
    parts = {
        "TITLE": html.escape(reports[0].name if len(reports) == 1 else f"{len(reports)} functions"),
        "SUMMARY": f"<pre>{html.escape(summary)}</pre>" if summary else "",
        "UPLOT_CSS": _asset("uplot.min.css"),
        "CSS": _asset("page.css"),
        "UPLOT_JS": _asset("uplot.min.js"),
        "DATA": _embedded([page_data(report) for report in reports]),
        "JS": _asset("page.js"),
    }
    # In one pass, so that nothing that a part holds is taken for a place to fill.
    return re.sub(r"{{(\w+)}}", lambda place: parts[place.group(1)], _asset("page.html"))


def page_data(report: Report) -> Dict[str, Any]:
    """What the page needs: like the JSON, flat and short, with the lives under every order."""
    graph = report.graph
    given = ("given order", graph.natural_order)
    host_name, host_order = report.host_orders[0] if report.host_orders and report.stock is None else given
    return {
        "name": report.name,
        "tasks": [task.label for task in graph.tasks],
        "buffers": [_page_buffer(report, b) for b in range(len(graph.buffers))],
        "orders": [
            {"name": f"host: {host_name}", "order": list(host_order), **_heights(report, host_order)},
            {"name": "in force", "order": list(report.order), **_heights(report, report.order)},
        ],
        "storages": [{"name": r.setting, "bytes": r.bytes, "without": r.without, "meaning": r.meaning, **_boxes(r.storage)} for r in report.reserved],
        "hostPeaks": [[name, along.peak] for name, along in report.host_timelines],
        "peak": report.peak,
        "hostPeak": report.host_peak,
        "floor": report.floor,
        "atSizes": report.at_sizes,
        "verdict": report.verdict,
        "sizesFrom": graph.sizes_from,
        "repeats": repeats_page.of_repeats(report.repeats, report.peak),
        "owners": list(report.owners),
        "notes": list(report.notes),
        "measured": None
        if report.measured is None
        else {"peak": report.measured.peak, "heights": [max(s.after, s.highest) for s in report.measured.steps]},
    }


def _page_buffer(report: Report, b: int) -> Dict[str, Any]:
    buffer, known = report.graph.buffers[b], report.known_of(b)
    return {
        "name": report.name_of(b),
        "bytes": buffer.size,
        "type": known.type or ("" if buffer.kind == f"{buffer.size}B" else buffer.kind),
        "at": known.made_at or ("" if buffer.producer is None else report.graph.tasks[buffer.producer].label),
        "alone": known.alone,
        "kept": buffer.pinned,
        "input": buffer.producer is None,
        "shares": [report.name_of(o) for o in report.companions(b, 8)],
    }


def _heights(report: Report, order: Order) -> Dict[str, Any]:
    return {"heights": list(timeline(report.graph, order).heights), "lives": [list(span) for span in lives(report.graph, order)]}


def _boxes(storage: Storage) -> Dict[str, Any]:
    if isinstance(storage, Arena):
        return {"by": "arena", "offsets": list(storage.offsets), "height": storage.height}
    if isinstance(storage, Slots):
        return {"by": "cells", "cellOf": list(storage.cell_of), "cells": [size for _, size in storage.cells]}
    return {"by": "none"}


def _embedded(data: object) -> str:
    """JSON that can stand inside <script>: names may hold anything, `</script>` as well."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")

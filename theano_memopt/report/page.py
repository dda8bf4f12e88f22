"""A report as one HTML file: data, style and drawing inside it, no network. The drawing itself is in page.js."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from theano_memopt import files
from theano_memopt.planner.arena import Arena
from theano_memopt.planner.liveness import lives
from theano_memopt.report import repeats_page
from theano_memopt.report.drawing import drawn
from theano_memopt.report.model import Order, Report, Reserved
from theano_memopt.report.text import ACTIONS

HERE = Path(__file__).parent
Tables = List[Tuple[str, List[Tuple[str, Optional[int], Optional[int]]]]]
"""Each with its title, and lines of what is compared, before and after."""


def write(reports: Sequence[Report], path: str, summary: str = "", together: Optional[Tables] = None) -> str:
    """Write the page. Several reports get one page with a choice between them; `summary` is a text that can be unfolded above the picture;
    `together` are tables of two reports that stand side by side, below what `summary` says of both."""
    return files.write_whole(path, page(reports, summary, together))


def page(reports: Sequence[Report], summary: str = "", together: Optional[Tables] = None) -> str:
    parts = {
        "TITLE": html.escape(reports[0].name if len(reports) == 1 else f"{len(reports)} functions"),
        "SUMMARY": _summary(summary, unfolded=together is not None),
        "UPLOT_CSS": _asset("uplot.min.css"),
        "CSS": _asset("page.css"),
        "UPLOT_JS": _asset("uplot.min.js"),
        "DATA": _embedded({"reports": [page_data(report) for report in reports], "together": together}),
        "JS": _asset("page.js"),
    }
    # In one pass, so that nothing that a part holds is taken for a place to fill.
    return re.sub(r"{{(\w+)}}", lambda place: parts[place.group(1)], _asset("page.html"))


def _summary(said: str, unfolded: bool) -> str:
    if not said:
        return ""
    return f"<p>{html.escape(said)}</p>" if unfolded else f"<details><summary>The report as text</summary><pre>{html.escape(said)}</pre></details>"


def page_data(report: Report) -> Dict[str, Any]:
    """What the page needs: like the JSON, flat and short, with the lives under every order; the order in force comes last."""
    graph = report.graph
    return {
        "name": report.name,
        "at": report.at,
        "tasks": [task.label for task in graph.tasks],
        "buffers": [_page_buffer(report, b) for b in range(len(graph.buffers))],
        "orders": _orders(report),
        "storages": [_page_storage(report, reserved) for reserved in report.reserved],
        "hostPeaks": [[name, along.peak] for name, along in report.host_timelines],
        "peak": report.peak,
        "hostPeak": report.host_peak,
        "floor": report.floor,
        "gap": report.gap,
        "kept": report.kept,
        "hostKept": report.host_kept,
        "atSizes": report.at_sizes,
        "verdict": report.verdict,
        "nothingToDo": report.nothing_to_do,
        "advice": [{"text": a.text, "saves": a.saves, "provided": a.provided, "paste": list(a.paste)} for a in report.advice[:ACTIONS]],
        "needs": [[need.what, need.bytes, need.count] for need in report.needs],
        "byLine": [[line.where, line.bytes] for line in report.by_line()],
        "sizesFrom": graph.sizes_from,
        "repeats": repeats_page.of_repeats(report.repeats, report.peak),
        "owners": list(report.owners),
        "notes": list(report.notes),
        "measured": None
        if report.measured is None
        else {"peak": report.measured.peak, "kept": report.measured.kept, "heights": [max(s.after, s.highest) for s in report.measured.steps]},
    }


def _page_buffer(report: Report, b: int) -> Dict[str, Any]:
    buffer, known = report.graph.buffers[b], report.known_of(b)
    return {
        "name": report.name_of(b),
        "bytes": buffer.size,
        "type": known.type or ("" if buffer.kind == f"{buffer.size}B" else buffer.kind),
        "at": known.made_at or ("" if buffer.producer is None else report.graph.tasks[buffer.producer].label),
        "near": known.near,
        "alone": known.alone,
        "kept": buffer.pinned,
        "input": buffer.producer is None,
        "shares": [report.name_of(o) for o in report.companions(b, 8)],
    }


def _orders(report: Report) -> List[Dict[str, Any]]:
    """A curve for each order that the text names; what is alive is known for orders of the graph that runs."""
    found = [{"name": f"host: {name}", "heights": list(along.heights)} for name, along in report.host_timelines]
    if report.stock is None:
        found = [{**curve, **_lives(report, order)} for curve, (_, order) in zip(found, report.host_orders)]
    for name, schedule in (("best order known", report.best), ("in force", report.plan.schedule)):
        if schedule is not None:
            found.append({"name": name, "heights": list(schedule.timeline.heights), **_lives(report, schedule.order)})
    return found


def _lives(report: Report, order: Order) -> Dict[str, Any]:
    return {"order": list(order), "lives": [list(span) for span in lives(report.graph, order)]}


def _page_storage(report: Report, reserved: Reserved) -> Dict[str, Any]:
    drawing = drawn(report.graph, report.order, reserved.storage, reserved.kept)
    return {
        "name": reserved.setting,
        "bytes": reserved.bytes,
        "without": reserved.without,
        "meaning": reserved.meaning,
        "by": "arena" if isinstance(reserved.storage, Arena) else "kept" if reserved.kept else "given back",
        "top": drawing.top,
        "boxes": [[box.buffer, box.begin, box.end, box.low, box.high] for box in drawing.boxes],
    }


def _embedded(data: object) -> str:
    """JSON that can stand inside <script>: names may hold anything, `</script>` as well."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")

"""Reports as JSON, and the writing of files: all of a file or nothing, and one clear line for a path that cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from typing import Any, Dict, List

from theano_memopt.planner.liveness import lives
from theano_memopt.planner.plan import plan_to_json
from theano_memopt.report.model import Comparison, Profile, Report


class CannotWrite(ValueError):
    """A path that cannot be written; the message is one line that names it."""


def report_to_json(report: Report) -> Dict[str, Any]:
    """Every figure of the report; `plan` is the plan itself, as `plan_from_json` reads it."""
    graph = report.graph
    return {
        "name": report.name,
        "tasks": len(graph.tasks),
        "sizes_from": graph.sizes_from,
        "peak_bytes": report.peak,
        "host_peaks": [{"name": name, "peak_bytes": along.peak} for name, along in report.host_timelines],
        "floor_bytes": report.floor,
        "least_bytes": report.least,
        "best_known_peak_bytes": report.peak if report.best is None else report.best.peak,
        "verdict": report.verdict,
        "reserved": [{"setting": r.setting, "bytes": r.bytes, "without_plan_bytes": r.without, "meaning": r.meaning} for r in report.reserved],
        "peak_task": graph.tasks[report.order[report.peak_step]].label if report.order else None,
        "alive_at_peak": [_variable(report, b) for b in report.alive_at_peak],
        "largest": [{**_variable(report, b), "shares_with": [graph.buffers[o].label for o in report.companions(b, 50)]} for b in report.largest[:20]],
        "owners": list(report.owners),
        "notes": list(report.notes),
        "measured": None if report.measured is None else profile_to_json(report.measured),
        "plan": plan_to_json(report.plan),
    }


def _variable(report: Report, b: int) -> Dict[str, Any]:
    known = report.known_of(b)
    return {
        "name": report.graph.buffers[b].label,
        "bytes": report.graph.buffers[b].size,
        "type": known.type,
        "made_at": known.made_at,
        "alone": known.alone,
    }


def profile_to_json(profile: Profile) -> Dict[str, Any]:
    return {
        "peak_bytes": profile.peak,
        "reserved_bytes": profile.reserved,
        "seconds": profile.seconds,
        "steps": [
            {"task": s.task, "before": s.before, "after": s.after, "resting": s.resting, "highest": s.highest, "made": s.made} for s in profile.steps
        ],
    }


def comparison_to_json(comparison: Comparison) -> Dict[str, Any]:
    graph = comparison.report.graph
    return {
        "report": report_to_json(comparison.report),
        "profile": profile_to_json(comparison.profile),
        "planned": [{"task": graph.tasks[step.task].label, "height": height, "resting": rest} for step, height, rest in comparison.rows],
        "planned_peak_bytes": comparison.planned_peak,
        "explained_peak_bytes": comparison.explained_peak,
        "differences": [{"step": d.step, "bytes": d.bytes, "why": d.why} for d in comparison.differences],
    }


def page_data(report: Report) -> Dict[str, Any]:
    """What the page needs: like the JSON, flat and short, with the lives under every order."""
    graph = report.graph
    host_name, host_order = report.host_orders[0] if report.host_orders else ("given order", graph.natural_order)
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
        "proven": report.least is not None,
        "verdict": report.verdict,
        "sizesFrom": graph.sizes_from,
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


def _heights(report: Report, order: Any) -> Dict[str, Any]:
    from theano_memopt.planner.liveness import timeline

    return {"heights": list(timeline(report.graph, order).heights), "lives": [list(span) for span in lives(report.graph, order)]}


def _boxes(storage: Any) -> Dict[str, Any]:
    if storage is None:
        return {"by": "none"}
    if hasattr(storage, "offsets"):
        return {"by": "arena", "offsets": list(storage.offsets), "height": storage.height}
    return {"by": "cells", "cellOf": list(storage.cell_of), "cells": [size for _, size in storage.cells]}


def write_json(data: Any, path: str) -> str:
    return write_whole(path, json.dumps(data, allow_nan=False, indent=1) + "\n")


def reports_to_json(reports: List[Report]) -> List[Dict[str, Any]]:
    return [report_to_json(report) for report in reports]


def check_writable(path: str) -> None:
    """Raise before the work begins, so that an hour of training does not end in a wrong path."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise CannotWrite(f"{path}: cannot be written: it is a directory")
    if os.path.exists(target) and not os.path.isfile(target):
        raise CannotWrite(f"{path}: cannot be written: it is not a regular file")
    if not os.path.isdir(folder):
        raise CannotWrite(f"{path}: cannot be written: there is no directory {folder}")
    if not os.access(folder, os.W_OK):
        raise CannotWrite(f"{path}: cannot be written: no permission in {folder}")


def write_whole(path: str, text: str) -> str:
    """All of `text` or nothing. Answers the path."""
    check_writable(path)
    target = os.path.realpath(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=".unfinished-", dir=os.path.dirname(target))
        with open(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes it private
        os.replace(temporary, target)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise CannotWrite(f"{path}: cannot be written: {error.strerror or error}") from None
        raise
    return path

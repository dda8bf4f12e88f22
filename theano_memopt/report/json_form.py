"""A report, a profile and a comparison as plain data for JSON: every figure, and the plan as `plan_from_json` reads it."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from theano_memopt.planner.plan import plan_to_json
from theano_memopt.report import repeats
from theano_memopt.report.comparison import Comparison
from theano_memopt.report.model import Line, Profile, Report
from theano_memopt.report.together import Together


def report_to_json(report: Report) -> Dict[str, Any]:
    """Every figure of the report; `plan` is the plan itself, as `plan_from_json` reads it."""
    graph = report.graph
    return {
        "name": report.name,
        "tasks": len(graph.tasks),
        "sizes_from": graph.sizes_from,
        "sizes_of": report.sizes_of,
        "inputs": dict(report.inputs),
        "peak_bytes": report.peak,
        "host_peaks": [{"name": name, "peak_bytes": along.peak} for name, along in report.host_timelines],
        "floor_bytes": report.floor,
        "least_bytes": report.least,
        "best_known_peak_bytes": report.peak if report.best is None else report.best.peak,
        "kept_bytes": report.kept,
        "verdict": report.verdict,
        "advice": [
            {"text": advice.text, "saves_bytes": advice.saves, "provided": advice.provided, "paste": list(advice.paste)} for advice in report.advice
        ],
        "needs": [{"what": need.what, "bytes": need.bytes, "arrays": need.count} for need in report.needs],
        "by_line": lines_to_json(report.by_line()),
        "sizes": report.plan.sizes,
        "reserved": [{"setting": r.setting, "bytes": r.bytes, "without_plan_bytes": r.without, "meaning": r.meaning} for r in report.reserved],
        "peak_task": graph.tasks[report.order[report.peak_step]].label if report.order else None,
        "alive_at_peak": [_variable(report, b) for b in report.alive_at_peak],
        "largest": [{**_variable(report, b), "shares_with": [graph.buffers[o].label for o in report.companions(b, 50)]} for b in report.largest[:20]],
        "repeats": repeats.to_json(report.repeats, report.measured_extra),
        "owners": list(report.owners),
        "notes": list(report.notes),
        "measured": None if report.measured is None else profile_to_json(report.measured),
        "plan": plan_to_json(report.plan),
    }


def lines_to_json(lines: Sequence[Line]) -> List[Dict[str, Any]]:
    """Bytes at the peak by line of code; an empty line stands for variables of which none is known."""
    return [{"line": line.where, "bytes": line.bytes, "variables": line.variables} for line in lines]


def _variable(report: Report, b: int) -> Dict[str, Any]:
    known = report.known_of(b)
    return {
        "name": report.graph.buffers[b].label,
        "bytes": report.graph.buffers[b].size,
        "type": known.type,
        "made_at": known.made_at,
        "near": known.near,
        "alone": known.alone,
    }


def profile_to_json(profile: Profile) -> Dict[str, Any]:
    return {
        "peak_bytes": profile.peak,
        "kept_bytes": profile.kept,
        "seconds": profile.seconds,
        "steps": [
            {"task": s.task, "before": s.before, "after": s.after, "resting": s.resting, "highest": s.highest, "made": s.made} for s in profile.steps
        ],
    }


def together_to_json(both: Together) -> Dict[str, Any]:
    """What changed, and both reports."""
    return {
        "before": report_to_json(both.before),
        "after": report_to_json(both.after),
        "unlike": both.unlike or None,
        "tables": {title: [{"what": what, "before": one, "after": two} for what, one, two in rows] for title, rows in both.tables},
    }


def comparison_to_json(comparison: Comparison) -> Dict[str, Any]:
    graph = comparison.report.graph
    return {
        "report": report_to_json(comparison.report),
        "profile": profile_to_json(comparison.profile),
        "planned": [{"task": graph.tasks[step.task].label, "height": height, "resting": rest} for step, height, rest in comparison.rows],
        "by_line": lines_to_json(comparison.by_line()),
        "planned_peak_bytes": comparison.planned_peak,
        "explained_peak_bytes": comparison.explained_peak,
        "differences": [{"step": d.step, "bytes": d.bytes, "why": d.why} for d in comparison.differences],
    }

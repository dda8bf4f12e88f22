"""A report in the Chrome trace format, as ui.perfetto.dev and chrome://tracing open it.

    one process per function; in it
        a counter per order    live bytes over the steps
        a track of tasks       the order in force; a click shows what is alive
        a track per cell       which variable lies in it, from its birth to its death

One byte is one unit of a counter. A step is ten microseconds long: a plan has steps and no seconds.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, Sequence

from theano_memopt import files
from theano_memopt.planner.slots import Slots
from theano_memopt.report.model import Report

STEP = 10
"""Microseconds that one step is drawn long; Perfetto hides what is shorter than a few."""
TASKS, CELLS = 1, 10


def events(report: Report, process: int = 1) -> List[Dict[str, Any]]:
    return [*_names(report, process), *_counters(report, process), *_tasks(report, process), *_tenants(report, process)]


def write(reports: Sequence[Report], path: str) -> str:
    found = [event for i, report in enumerate(reports) for event in events(report, i + 1)]
    return files.write_json(path, {"traceEvents": found, "displayTimeUnit": "ns"})


def _names(report: Report, process: int) -> Iterator[Dict[str, Any]]:
    yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": report.name}}
    yield {"ph": "M", "pid": process, "tid": TASKS, "name": "thread_name", "args": {"name": "tasks, in the order in force"}}
    if isinstance(report.plan.storage, Slots):
        for cell, (_, size) in enumerate(report.plan.storage.cells):
            yield {"ph": "M", "pid": process, "tid": CELLS + cell, "name": "thread_name", "args": {"name": f"cell {cell}: {size:,} bytes"}}


def _counters(report: Report, process: int) -> Iterator[Dict[str, Any]]:
    curves = [("live bytes, in force", report.plan.schedule.timeline.heights)]
    curves += [(f"live bytes, host: {name}", along.heights) for name, along in report.host_timelines]
    for name, heights in curves:
        yield from _counter(process, name, heights)
    if report.measured is not None:
        yield from _counter(process, "live bytes, measured", [max(step.after, step.highest) for step in report.measured.steps])


def _counter(process: int, name: str, heights: Iterable[int]) -> Iterator[Dict[str, Any]]:
    step = -1
    for step, height in enumerate(heights):
        yield {"ph": "C", "pid": process, "ts": step * STEP, "name": name, "args": {"bytes": height}}
    yield {"ph": "C", "pid": process, "ts": (step + 1) * STEP, "name": name, "args": {"bytes": 0}}


def _tasks(report: Report, process: int) -> Iterator[Dict[str, Any]]:
    for step, task in enumerate(report.order):
        alive = report.alive(step)
        yield {
            "ph": "X",
            "pid": process,
            "tid": TASKS,
            "ts": step * STEP,
            "dur": STEP,
            "name": report.graph.tasks[task].label,
            "args": {
                "live bytes": report.plan.schedule.timeline.heights[step],
                "alive": {report.graph.buffers[b].label: report.graph.buffers[b].size for b in alive[:50]},
            },
        }


def _tenants(report: Report, process: int) -> Iterator[Dict[str, Any]]:
    storage = report.plan.storage
    if not isinstance(storage, Slots):
        return
    for b, cell in enumerate(storage.cell_of):
        if cell is None:
            continue
        born, dead = report.spans[b]
        known = report.known_of(b)
        yield {
            "ph": "X",
            "pid": process,
            "tid": CELLS + cell,
            "ts": born * STEP,
            "dur": (dead - born) * STEP,
            "name": report.graph.buffers[b].label,
            "args": {"bytes": report.graph.buffers[b].size, "type": known.type, "made at": known.made_at},
        }

"""A report for the terminal. Bytes live (peak) and bytes reserved (storage) never share a column."""

from __future__ import annotations

import io
from typing import List, Optional, Set

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from theano_memopt.report.comparison import Comparison
from theano_memopt.report.model import Report, saved, total
from theano_memopt.report.words import against_floor, in_bytes, percent

ALIVE = 12
"""Variables that are listed at the peak; the rest is told as a sum."""
LONELY = 8
"""Large variables without a companion that are listed with the reason."""
NAME, MADE_BY = 32, 62
"""Characters of a name and of a line of code that are shown."""
LARGE = 0.02
"""A variable is large if it takes this share of all bytes."""


def of_report(report: Report) -> str:
    graph = report.graph
    parts: List[RenderableType] = [
        Text(f"{report.name}: {len(graph.tasks)} tasks, {len(graph.buffers)} variables of {in_bytes(total(graph))} in all"),
        Text(f"sizes{', some of them assumed' if graph.sizes_assumed else ''}: {graph.sizes_from}"),
        Text(""),
        _peaks(report),
        Text(f"\n{_sentence(report.verdict)}"),
    ]
    if report.reserved:
        parts += [Text(""), _reserved(report)]
    if report.order:
        parts += [Text(""), _alive(report)]
    sharing = _sharing(report)
    if sharing is not None:
        parts += [Text(""), sharing]
    lonely = _lonely(report)
    if lonely is not None:
        parts += [Text(""), lonely]
    parts += [Text(f"\n{sentence}") for sentence in (*report.owners, *report.notes)]
    return rendered(parts)


def _peaks(report: Report) -> Table:
    table = _table()
    table.add_column("peak: bytes live at once")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("against the floor", justify="right", no_wrap=True)
    for name, along in report.host_timelines:
        table.add_row(Text(f"host: {name}"), f"{along.peak:,}", in_bytes(along.peak), against_floor(along.peak, report.floor))
    method = report.plan.schedule.method
    table.add_row(Text(f"in force: {method}"), f"{report.peak:,}", in_bytes(report.peak), against_floor(report.peak, report.floor), style="bold")
    if report.best is not None:
        best = report.best.peak
        table.add_row(Text(f"best order known: {report.best.method}"), f"{best:,}", in_bytes(best), against_floor(best, report.floor))
    table.add_row(f"floor: no order needs less{report.at_sizes}", f"{report.floor:,}", in_bytes(report.floor), "")
    return table


def _reserved(report: Report) -> Table:
    table = _table()
    table.add_column("reserved: bytes set aside for storage")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("without the plan", justify="right", no_wrap=True)
    table.add_column("meaning")
    for i, r in enumerate(report.reserved):
        table.add_row(r.setting + (" (in force)" if not i else ""), f"{r.bytes:,}", in_bytes(r.bytes), f"{r.without:,}", Text(r.meaning))
    return table


def _alive(report: Report) -> Group:
    step, graph = report.peak_step, report.graph
    title = f"Live at the peak: step {step + 1} of {len(report.order)}, task {graph.tasks[report.order[step]].label!r}"
    table = _table()
    table.add_column("variable", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("of the peak", justify="right", no_wrap=True)
    table.add_column("type", no_wrap=True)
    table.add_column("made by", no_wrap=True)
    alive = report.alive_at_peak
    for b in alive[:ALIVE]:
        buffer, known = graph.buffers[b], report.known_of(b)
        assert buffer.producer is not None
        table.add_row(
            Text(_clipped(report.name_of(b), NAME)),
            f"{buffer.size:,}",
            percent(buffer.size, report.peak),
            Text(known.type or buffer.kind),
            Text(_clipped(known.made_at or graph.tasks[buffer.producer].label, MADE_BY)),
        )
    rest = sum(graph.buffers[b].size for b in alive[ALIVE:])
    if rest:
        table.add_row(f"{len(alive) - ALIVE} more", f"{rest:,}", percent(rest, report.peak), "", "")
    return _titled(title, table)


def _sharing(report: Report) -> Optional[Group]:
    groups = report.groups()
    if not groups:
        return None
    sizes = [buffer.size for buffer in report.graph.buffers]
    table = _table()
    table.add_column("bytes saved", justify="right", no_wrap=True)
    table.add_column("variables")
    for group in groups[:LONELY]:
        names = [report.name_of(o) for o in group[:6]]
        table.add_row(f"{saved(sizes, group):,}", Text(", ".join(names) + (f" and {len(group) - 6} more" if len(group) > 6 else "")))
    return _titled("Share storage, one after the other", table)


def _lonely(report: Report) -> Optional[Group]:
    graph = report.graph
    limit = LARGE * total(graph)
    found = [
        b
        for b in report.largest
        if graph.buffers[b].size >= limit and graph.buffers[b].size and not report.companions(b, 1) and report.known_of(b).alone
    ]
    if not found:
        return None
    title = "Large, and alone in its storage"
    table = _table()
    table.add_column("variable", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("why")
    for b in found[:LONELY]:
        table.add_row(Text(report.name_of(b)), f"{graph.buffers[b].size:,}", Text(report.known_of(b).alone))
    if len(found) > LONELY:
        table.add_row(f"{len(found) - LONELY} more", "", "")
    return _titled(title, table)


STEPS = 40
"""Steps of a measured call that are listed: all, or the ones around the peak and those that differ."""


def of_comparison(comparison: Comparison) -> str:
    graph, profile = comparison.report.graph, comparison.profile
    title = f"{comparison.report.name}: one measured call, {len(profile.steps)} tasks, {profile.seconds * 1000:.3g} ms while measured"
    table = _table()
    for name in ("task", "measured: allocates", "frees", "live before", "live while", "planned live while", "live after", "planned live after"):
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=name == "task")
    why = {d.step: d for d in comparison.differences}
    shown = _shown(comparison, set(why))
    for i in shown:
        step, height, rest = comparison.rows[i]
        numbers = (step.allocated, step.freed, step.before, max(step.after, step.highest), height, step.resting, rest)
        table.add_row(Text(graph.tasks[step.task].label), *(f"{n:,}" for n in numbers))
    parts: List[RenderableType] = [_titled(title, table)]
    if len(shown) < len(profile.steps):
        parts.append(Text(f"{len(profile.steps) - len(shown)} more steps are not listed; to_json has them all."))
    parts.append(
        Text(
            f"\nmeasured peak {profile.peak:,} bytes; planned {comparison.planned_peak:,}, "
            f"with the measured workspaces {comparison.explained_peak:,}; "
            f"reserved after the call: measured {profile.reserved:,}, planned {comparison.planned_reserved:,}"
        )
    )
    if not comparison.reserves_as_planned:
        more = profile.reserved - comparison.planned_reserved
        parts.append(
            Text(
                f"Reserved differs from the plan by {percent(more, comparison.planned_reserved) if comparison.planned_reserved else in_bytes(more)}."
            )
        )
    if not comparison.differences:
        parts.append(Text("Measured and planned agree at every step, but for Python's own objects."))
    else:
        parts.append(Text("\nWhere they differ:"))
        for d in sorted(comparison.differences, key=lambda d: -abs(d.bytes))[:STEPS]:
            parts.append(Text(f"  {graph.tasks[comparison.rows[d.step][0].task].label}: {d.bytes:+,} bytes: {d.why}"))
    parts += [Text(f"\n{note}") for note in comparison.report.notes]
    return rendered(parts)


def _shown(comparison: Comparison, differing: Set[int]) -> List[int]:
    count = len(comparison.rows)
    if count <= STEPS:
        return list(range(count))
    top = max(range(count), key=lambda i: comparison.rows[i][0].after)
    near = set(range(max(0, top - STEPS // 4), min(count, top + STEPS // 4)))
    return sorted(near | set(sorted(differing)[: STEPS // 2]))


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def _clipped(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "…"


def _titled(title: str, table: Table) -> Group:
    return Group(Text(title), table)


def _table() -> Table:
    return Table(show_edge=False, pad_edge=False)


WIDTH = 140


def rendered(parts: List[RenderableType], width: int = WIDTH) -> str:
    """What rich would print, as plain text of one width on every machine."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, soft_wrap=False, force_terminal=False, color_system=None)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"

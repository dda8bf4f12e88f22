"""A report for the terminal. Bytes live (peak) and bytes reserved (storage) never share a column."""

from __future__ import annotations

import io
from typing import List, Optional, Sequence, Set, Tuple

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from theano_memopt.report.comparison import Comparison
from theano_memopt.report.model import Advice, Line, Report, saved, total
from theano_memopt.report.repeats_text import of_repeats
from theano_memopt.report.together import Together
from theano_memopt.report.words import against_floor, in_bytes, percent

ALIVE = 12
"""Variables that are listed at the peak; the rest is told as a sum."""
LONELY = 8
"""Large variables without a companion that are listed with the reason."""
LINES = 8
"""Lines of code that are listed with what they hold at the peak."""
TELLING = 0.001
"""A variable is listed at the peak if it is at least this share of it."""
ACTIONS = 2
"""Pieces of advice that are told; the JSON has all."""
LARGE = 0.02
"""A variable is large if it takes this share of all bytes."""


def of_report(report: Report) -> str:
    graph = report.graph
    parts: List[RenderableType] = [
        Text(f"{report.title}: {len(graph.tasks)} tasks, {len(graph.buffers)} variables; all results together are {in_bytes(total(graph))}"),
        Text(""),
        *map(Text, advice_in_words(report.advice[:ACTIONS], f"{report.nothing_to_do}; the peak is {report.gap}")),
        Text(""),
        _peaks(report),
        Text(f"\n{_sentence(report.verdict)}"),
    ]
    if report.repeats is not None:
        parts += [Text(""), *of_repeats(report.repeats, report.peak, report.at_sizes, report.measured_extra)]
    if report.reserved:
        parts += [Text(""), _reserved(report)]
    if report.given:
        parts += [Text(""), _needs(report)]
    if report.order:
        parts += [Text(""), _alive(report)]
    if any(line.where for line in report.by_line()):
        parts += [Text(""), _titled("By the line of code that made it", lines_table([(report.name, report.peak, report.by_line())]))]
    sharing = _sharing(report)
    if sharing is not None:
        parts += [Text(""), sharing]
    lonely = _lonely(report)
    if lonely is not None:
        parts += [Text(""), lonely]
    told = " ".join(advice.text for advice in report.advice[:ACTIONS])
    parts += [Text(f"\n{sentence}") for sentence in (*report.owners, *report.notes) if sentence not in told]
    parts.append(Text(f"\nsizes{', some of them assumed' if graph.sizes_assumed else ''}: {graph.sizes_from}"))
    return rendered(parts)


def _peaks(report: Report) -> Table:
    table = _table()
    table.add_column("peak: bytes live at once")
    _numbers(table, "bytes", "", "against the floor")
    for name, along in report.host_timelines:
        table.add_row(Text(f"host: {name}"), f"{along.peak:,}", in_bytes(along.peak), against_floor(along.peak, report.floor))
    method = report.plan.schedule.method
    table.add_row(Text(f"in force: {method}"), f"{report.peak:,}", in_bytes(report.peak), against_floor(report.peak, report.floor), style="bold")
    if report.best is not None:
        best = report.best.peak
        table.add_row(Text(f"best order known: {report.best.method}"), f"{best:,}", in_bytes(best), against_floor(best, report.floor))
    what = "order of these runs" if report.repeats is not None and report.repeats.again else "order"
    table.add_row(f"floor: no {what} needs less{report.at_sizes}", f"{report.floor:,}", in_bytes(report.floor), "")
    return table


def _reserved(report: Report) -> Table:
    table = _table()
    table.add_column("reserved: bytes set aside for storage")
    _numbers(table, "bytes", "", "without the plan")
    table.add_column("meaning")
    for i, r in enumerate(report.reserved):
        table.add_row(r.setting + (" (in force)" if not i else ""), f"{r.bytes:,}", in_bytes(r.bytes), f"{r.without:,}", Text(r.meaning))
    return table


def advice_in_words(found: Sequence[Advice], if_none: str) -> List[str]:
    """What to do, one line each with what it saves, and the lines to paste; `if_none` is said where there is nothing to do."""
    if not found:
        return [f"What to do: {if_none}."]
    said = []
    for i, advice in enumerate(found):
        rounded = f"{in_bytes(advice.saves)}, " if advice.saves is not None and advice.saves >= 1024 else ""
        saves = "" if advice.saves is None else f" saves {rounded}{advice.saves:,} bytes"
        saves += f", {advice.provided}" if advice.provided else ""
        said.append(f"What to do{f', {i + 1}' if len(found) > 1 else ''}: {advice.text}{saves}")
        said += [f"    {line}" for line in advice.paste]
    return said


def _needs(report: Report) -> Group:
    table = _table()
    table.add_column("all that a call needs at its peak")
    _numbers(table, "arrays", "bytes", "", "share")
    everything = sum(need.bytes for need in report.needs)
    for need in report.needs:
        count = f"{need.count:,}" if need.count else "-"
        table.add_row(need.what, count, f"{need.bytes:,}", in_bytes(need.bytes), percent(need.bytes, everything))
    table.add_row("in all", "", f"{everything:,}", in_bytes(everything), "", style="bold")
    words = f"Kept from call to call, beside parameters and inputs: {report.kept:,} bytes."
    unknown = " Not for every op a formula knows what it takes for itself; theano_memopt.profile measures it." if report.measured is None else ""
    return Group(table, Text(words + unknown))


def lines_table(found: Sequence[Tuple[str, int, Sequence[Line]]], named: bool = False) -> Table:
    """Of each function its name, its peak, and its lines of code with what they hold then, the largest `LINES`; `named`: the names are shown,
    and the rest, which else is the last row, is not."""
    table = _table()
    if named:
        table.add_column("function", overflow="fold")
    _numbers(table, "bytes", "of the peak")
    table.add_column("line", overflow="fold")
    for function, peak, lines in found:
        told = [line for line in lines[:LINES] if line.bytes >= TELLING * peak]
        for line in told:
            name = [Text(function)] if named else []
            where = line.where or f"no line is known ({line.variables} variables)"
            table.add_row(*name, f"{line.bytes:,}", percent(line.bytes, peak), Text(where))
        rest = sum(line.bytes for line in lines) - sum(line.bytes for line in told)
        if rest and not named:
            table.add_row(f"{rest:,}", percent(rest, peak), f"the rest, of {len(lines) - len(told)} lines")
    return table


def _alive(report: Report) -> Group:
    step, graph = report.peak_step, report.graph
    title = f"Live at the peak: step {step + 1} of {len(report.order)}, task {graph.tasks[report.order[step]].label!r}"
    table = _table()
    table.add_column("variable", overflow="fold")
    _numbers(table, "bytes", "of the peak")
    table.add_column("type", no_wrap=True)
    table.add_column("made by", overflow="fold")
    alive = report.alive_at_peak
    told = [b for b in alive[:ALIVE] if graph.buffers[b].size >= TELLING * report.peak]
    for b in told:
        buffer, known = graph.buffers[b], report.known_of(b)
        assert buffer.producer is not None
        table.add_row(
            Text(report.name_of(b)),
            f"{buffer.size:,}",
            percent(buffer.size, report.peak),
            Text(known.type or buffer.kind),
            Text(("near " if known.near else "") + (known.made_at.split("  ")[0] or f"task {graph.tasks[buffer.producer].label!r}")),
        )
    rest = sum(graph.buffers[b].size for b in alive[len(told) :])
    if rest:
        table.add_row(f"{len(alive) - len(told)} more", f"{rest:,}", percent(rest, report.peak), "", "")
    near = any(report.known_of(b).near for b in told)
    return Group(Text(title), table, *([Text(NEAR)] if near else []))


NEAR = "near: a rewrite of Theano's made this variable, and the line is that of the nearest one that it is computed from."


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
    title = f"{comparison.report.title}: one measured call, {len(profile.steps)} tasks, {profile.seconds * 1000:.3g} ms while measured"
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
            f"kept after the call: measured {comparison.kept:,}, planned {comparison.report.kept:,}"
        )
    )
    if not comparison.keeps_as_planned:
        more = comparison.kept - comparison.report.kept
        by = percent(more, comparison.report.kept) if comparison.report.kept else in_bytes(more)
        parts.append(Text(f"What is kept differs from the plan by {by}."))
    if any(line.where for line in comparison.by_line()):
        parts.append(Text("\nLive at the measured peak, by the line of code that made it"))
        parts.append(lines_table([(comparison.report.name, comparison.report.peak, comparison.by_line())]))
    if comparison.report.given:
        parts += [Text(""), _needs(comparison.report)]
    if not comparison.differences:
        parts.append(Text("Measured and planned agree at every step, but for Python's own objects."))
    else:
        parts.append(Text("\nWhere they differ:"))
        for d in sorted(comparison.differences, key=lambda d: -abs(d.bytes))[:STEPS]:
            parts.append(Text(f"  {graph.tasks[comparison.rows[d.step][0].task].label}: {d.bytes:+,} bytes: {d.why}"))
    parts += [Text(f"\n{note}") for note in comparison.report.notes]
    return rendered(parts)


def of_together(both: Together) -> str:
    parts: List[RenderableType] = [Text(f"before: {both.before.title}\nafter:  {both.after.title}")]
    if both.unlike:
        parts.append(Text(f"\n{both.unlike}"))
    for title, rows in both.tables:
        table = _table()
        table.add_column(title, overflow="fold")
        _numbers(table, "before", "after", "change")
        for what, one, two in rows[:CHANGES]:
            change = "" if one is None or two is None else f"{two - one:+,}" if two != one else "the same"
            table.add_row(Text(what), *("not known" if n is None else f"{n:,}" for n in (one, two)), change)
        parts += [Text(""), table]
    return rendered(parts)


CHANGES = 12
"""Lines of a table of two reports; the page and the JSON have all."""


def _shown(comparison: Comparison, differing: Set[int]) -> List[int]:
    count = len(comparison.rows)
    if count <= STEPS:
        return list(range(count))
    top = max(range(count), key=lambda i: comparison.rows[i][0].after)
    near = set(range(max(0, top - STEPS // 4), min(count, top + STEPS // 4)))
    return sorted(near | set(sorted(differing)[: STEPS // 2]))


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."


def _titled(title: str, table: Table) -> Group:
    return Group(Text(title), table)


def _table() -> Table:
    return Table(show_edge=False, pad_edge=False)


def _numbers(table: Table, *heads: str) -> None:
    """Columns of figures, which are never broken."""
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)


WIDTH = 140


def rendered(parts: List[RenderableType], width: int = WIDTH, whole: bool = False) -> str:
    """What rich would print, as plain text of one width on every machine; `whole`: wider than that where text would be cut otherwise."""
    stream = io.StringIO()
    if whole:
        measure = Console(file=stream, width=1000)
        width = max(width, *(Measurement.get(measure, measure.options, part).minimum for part in parts))
    console = Console(file=stream, width=width, highlight=False, soft_wrap=False, force_terminal=False, color_system=None)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"

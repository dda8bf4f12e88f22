"""The part of a report, as text, that says what runs again."""

from __future__ import annotations

from typing import List, Optional

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from theano_memopt.report.repeats import Repeats, largest
from theano_memopt.report.words import in_bytes

ROWS, POINTS = 12, 7
"""Results that are listed, and points of the curve."""


def of_repeats(repeats: Repeats, peak: int, at_sizes: str, measured: Optional[float]) -> List[RenderableType]:
    """`peak` is that of the order in force, `measured` the share of a profiled call that went into running again."""
    title = f"Results that run again, for {repeats.asked}, planned at {repeats.planned_at}: {repeats.verdict}."
    peaks = _table("peak, results that run again counted", "bytes", "")
    for words, size in (
        (f"least by order, nothing run twice{at_sizes}", repeats.ordered_peak),
        (f"in force, for {100 * repeats.extra_share:.3g} % more time{_measured(repeats.times_from, measured)}", peak),
        (f"floor of all schedules, however often they repeat{at_sizes}: {repeats.owner_in_words}", repeats.floor),
    ):
        peaks.add_row(Text(words), f"{size:,}", in_bytes(size))
    parts: List[RenderableType] = [Text(title), peaks]
    if repeats.again:
        parts += [Text(""), _again(repeats)]
    if repeats.opened:
        parts.append(Text(f"Not updated in place, so that what needs them can run again: {', '.join(repeats.opened)}."))
    if len(repeats.curve) > 1:
        parts += [Text(""), _curve(repeats)]
    return parts


def _measured(times_from: str, share: Optional[float]) -> str:
    return f" ({times_from})" if share is None else f" ({times_from}; {100 * share:.3g} % in the measured call)"


def _again(repeats: Repeats) -> Table:
    table = _table("runs again", "bytes", "times", "of the time", "made by")
    shown, rest = largest(repeats.again, ROWS)
    for row in shown:
        share = f"{100 * row.seconds / repeats.seconds:.2f} %" if repeats.seconds else ""
        table.add_row(Text(row.operation), f"{row.bytes:,}", f"{row.times}", share, Text(row.made_at, overflow="fold"))
    if rest:
        share = f"{100 * sum(row.seconds for row in rest) / repeats.seconds:.2f} %" if repeats.seconds else ""
        table.add_row(f"{len(rest)} more", f"{sum(row.bytes for row in rest):,}", f"{sum(row.times for row in rest)}", share, "")
    return table


def _curve(repeats: Repeats) -> Table:
    table = _table("peak that can be had", "", "of the least by order", f"for so much more time, {repeats.times_from}")
    for peak, share in repeats.thinned(POINTS):
        of_all = f"{100 * peak / repeats.ordered_peak:.0f} %" if repeats.ordered_peak else ""
        table.add_row(f"{peak:,}", in_bytes(peak), of_all, f"{100 * share:.3g} %")
    return table


def _table(*columns: str) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if not i or name == "made by" else "right", overflow="fold")
    return table

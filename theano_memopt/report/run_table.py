"""One line per compiled function of a whole program, and a total; the same as JSON."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Protocol, Sequence

from rich.table import Table
from rich.text import Text

from theano_memopt.report import json_form
from theano_memopt.report.model import Report
from theano_memopt.report.text import rendered


class Row(Protocol):
    """One compiled function, as a host has watched it."""

    @property
    def name(self) -> str: ...

    @property
    def inside(self) -> str:
        """Where it runs, if the program does not call it itself."""

    @property
    def calls(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def report(self) -> Optional[Report]: ...

    @property
    def why(self) -> str:
        """Why there is no report."""


def of_rows(rows: Sequence[Row], children: int = 0) -> str:
    """Peaks are bytes live at once, at the shapes of the first call; reserved are bytes of storage. `children`: processes that the
    program started, which compile and call functions of their own."""
    left_out = f"{children} child processes were started; what they compiled and called is not counted here." if children else ""
    if not rows:
        return "theano_memopt: no function was compiled\n" + (f"{left_out}\n" if left_out else "")
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("function", no_wrap=True, overflow="ellipsis", max_width=34)
    for head in ("stock peak", "peak", "floor", "", "reserved", "calls", "time"):
        table.add_column(head, justify="left" if not head else "right", no_wrap=True)
    for row in rows:
        name = Text(row.name + (f" ({row.inside})" if row.inside else ""))
        not_here = row.inside or (children and not row.calls)
        calls = "not here" if not_here else f"{row.calls:,}"
        seconds = "not here" if not_here else f"{row.seconds:.2f} s"
        r = row.report
        if r is None:
            table.add_row(name, "", "", "", Text(row.why[:40]), "", calls, seconds)
        else:
            reserved = f"{r.reserved[0].bytes:,}" if r.reserved else ""
            table.add_row(name, f"{r.host_peak:,}", f"{r.peak:,}", f"{r.floor:,}", Text(r.gap), reserved, calls, seconds)
    table.add_section()
    table.add_row(Text(f"total: {len(rows)} functions"), *_total(rows))
    told = [f"{row.name}: {row.why}" for row in rows if row.why and len(row.why) > 40]
    return rendered(
        [
            Text("theano_memopt: bytes live at once (peak) and of storage (reserved); in the total the largest of each"),
            table,
            *map(Text, told),
            *([Text(left_out)] if left_out else []),
        ]
    )


def _total(rows: Sequence[Row]) -> List[str]:
    reports = [row.report for row in rows if row.report is not None]
    peaks = [max((getattr(r, name) for r in reports), default=0) for name in ("host_peak", "peak", "floor")]
    reached = [r for r in reports if r.peak <= r.floor]
    reserved = max((r.reserved[0].bytes for r in reports if r.reserved), default=0)
    outer = [row for row in rows if not row.inside]
    assumed = sum(r.graph.sizes_assumed for r in reached)
    words = f"{len(reached)} of {len(reports)} at the floor" + (f", {assumed} at assumed sizes" if assumed else "")
    return [*(f"{peak:,}" for peak in peaks), words, f"{reserved:,}", f"{sum(r.calls for r in outer):,}", f"{sum(r.seconds for r in outer):.2f} s"]


def rows_to_json(rows: Sequence[Row]) -> List[Dict[str, Any]]:
    return [
        {
            "name": row.name,
            "inside": row.inside,
            "calls": row.calls,
            "seconds": row.seconds,
            "why_no_report": row.why,
            "report": None if row.report is None else json_form.report_to_json(row.report),
        }
        for row in rows
    ]

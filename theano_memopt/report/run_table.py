"""What a whole program needs: one line per compiled function, stock's figures beside ours, and what to do; the same as JSON.

    rows -> of_rows -> what to do | functions with a plan | their largest lines of code | functions that took no part, and why

Every figure is planned, at the shapes of the first call ("true" sizes) or, for a function that was never called, at assumed ones; what is
measured stands in columns of its own. Peaks are bytes live at once, kept are bytes of storage that stay after a call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Optional, Protocol, Sequence, Tuple

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from theano_memopt.report import json_form
from theano_memopt.report.model import Advice, Line, Report
from theano_memopt.report.text import ACTIONS, advice_in_words, lines_table, rendered
from theano_memopt.report.words import against_floor, in_bytes

WIDTH = 160
TELLING = 0.1
"""The lines of a function are listed if its peak is at least this share of the largest."""
LINES = 3
"""Lines of code that are listed of a function."""


class Row(Protocol):
    """One compiled function, as a host has watched it."""

    @property
    def name(self) -> str:
        """No two rows have the same."""

    @property
    def inside(self) -> bool:
        """Does a loop of another function run it, and not the program itself?"""

    @property
    def calls(self) -> int: ...

    @property
    def seconds(self) -> float:
        """Of the calls, without planning."""

    @property
    def planning(self) -> float:
        """Seconds inside calls that went into planning for them."""

    @property
    def report(self) -> Optional[Report]: ...

    @property
    def why(self) -> str:
        """Why there is no report; the same for all functions of which the same is true."""


def of_rows(rows: Sequence[Row], children: int = 0) -> str:
    """`children`: processes that the program started, which compile and call functions of their own."""
    count = f"{_so_many(len(rows), 'function')} compiled" if rows else "no function was compiled"
    parts: List[RenderableType] = [Text(f"theano_memopt: {count}{' in this process' if children else ''}")]
    reports = [row.report for row in rows if row.report is not None]
    if reports:
        reached = all(ours <= floor for *_, ours, floor in (_peaks(report, _ran_again(rows)) for report in reports))
        largest = max(reports, key=lambda report: report.peak)
        said = f"{largest.nothing_to_do}; {'all peaks are' if reached else 'not all peaks are'} at the floor"
        parts += [*map(Text, advice_in_words(advice_of(rows), said)), Text(_title(_ran_again(rows))), _planned(rows, children)]
        parts += [Text(INSIDE_IN_WORDS)] if any(row.inside for row in rows) else []
        parts += map(Text, _on_top(rows))
        lines = _largest_lines(rows)
        if lines:
            parts += [Text("\nThe largest lines of code: bytes that are live at the peak"), lines_table(lines, named=True)]
    if any(row.report is None for row in rows):
        parts += [Text("\nTook no part, and run as in stock"), _without(rows, children)]
    parts += [Text(note) for note in dict.fromkeys(f"{r.name}: {note}" for r in reports for note in r.notes if note.startswith("Not measured"))]
    if children:
        started = _so_many(children, "child process", "child processes")
        parts.append(Text(f"{started} started. What they compile and call is not counted here."))
    return rendered(parts, WIDTH, whole=True)


def _so_many(count: int, one: str, many: str = "") -> str:
    return f"1 {one} was" if count == 1 else f"{count} {many or one + 's'} were"


def _title(again: bool) -> str:
    """What the columns say; `again`: were results to run again?"""
    floor = "floor: no order needs less"
    if again:
        floor = "least by order: nothing run twice; floor: no schedule needs less, however often it repeats;\nextra: time for results that run again"
    return (
        f"\nPlanned bytes. peak: live at once in a call; kept: storage that stays after it; stock: without the pass; {floor}.\n"
        "seconds: of the calls; planning: seconds inside them, mostly in the first, in which orders are looked for and machines made.\n"
        "sizes: true are those of the first call, assumed where a length is not known. In all: the largest peak, and everything that is kept."
    )


def advice_of(rows: Sequence[Row]) -> List[Advice]:
    """What would help the program, the action that saves most first. Hints for sizes that no call has shown help nobody here.

    The largest peak counts, for functions run one after the other: to lower it helps down to the next one. All that is kept counts, and what
    helps several functions is said once.
    """
    outer = sorted((row for row in rows if row.report is not None and not row.inside), key=lambda row: -_peak(row))
    found: Dict[Tuple[str, bool], Advice] = {}
    names: Dict[Tuple[str, bool], List[str]] = {}
    for row in outer:
        rival = next((other for other in outer if other is not row), None)
        lowest = _peak(row) - (0 if rival is None else _peak(rival))
        for advice in row.report.advice if row.report is not None else ():
            saves = (advice.saves or 0) if advice.kept else min(advice.saves or 0, lowest)
            if saves > 0:
                if rival is not None and saves < (advice.saves or 0) and not advice.kept:
                    of_its_own = f"{in_bytes(advice.saves or 0)} of its own peak"
                    of_all = f"of the largest peak of all ({of_its_own}{', ' + advice.provided if advice.provided else ''})"
                    advice = replace(advice, provided=f"{of_all}: then {rival.name} needs most, {_peak(rival):,} bytes")
                key = (advice.text, advice.kept)
                before = found[key].saves if key in found else 0
                found[key] = replace(advice, saves=saves + (before or 0))
                names.setdefault(key, []).append(row.name)
    told = [
        replace(advice, text=f"{', '.join(names[key])}: {advice.text}", saves=min(advice.saves or 0, _kept(rows)) if advice.kept else advice.saves)
        for key, advice in found.items()
    ]
    return sorted([*told, *_one_block(rows)], key=lambda advice: -(advice.saves or 0))[:ACTIONS]


def _peak(row: Row) -> int:
    return 0 if row.report is None else row.report.peak


def _one_block(rows: Sequence[Row]) -> List[Advice]:
    """Functions that each keep a block of their own could lie in one."""
    blocks = _blocks(rows)
    if len(blocks) < 2:
        return []
    heights = [max(report.kept for _, report in tenants) for tenants in blocks.values()]
    names = ", ".join(name for tenants in blocks.values() for name, _ in tenants)
    words = f"functions that do not run at the same time can lie in one block: compile {names} inside `with theano_memopt.shared_arena():`, which"
    return [Advice(words, sum(heights) - max(heights), kept=True)]


def _kept(rows: Sequence[Row]) -> int:
    """Bytes that all functions keep together: a block that several lie in is there once."""
    in_blocks = [[report.kept for _, report in tenants] for tenants in _blocks(rows).values()]
    return sum(row.report.kept for row in rows if row.report is not None) - sum(sum(kept) - max(kept) for kept in in_blocks)


def _blocks(rows: Sequence[Row]) -> Dict[int, List[Tuple[str, Report]]]:
    """Block -> the functions that lie in it."""
    found: Dict[int, List[Tuple[str, Report]]] = {}
    for row in rows:
        if row.report is not None and row.report.reserved and row.report.reserved[0].block is not None:
            found.setdefault(row.report.reserved[0].block, []).append((row.name, row.report))
    return found


# --- tables ----------------------------------------------------------------------------------------------------------


def _planned(rows: Sequence[Row], children: int) -> Table:
    measured = any(row.report is not None and row.report.measured is not None for row in rows)
    again = _ran_again(rows)
    heads = ["function", "calls", "seconds", "planning", "sizes", "peak: stock", *(["least by order"] if again else []), "ours", "floor", "ours is"]
    heads += ["extra: estimated", *(["measured"] if measured else [])] if again else []
    heads += ["kept: stock", "ours", *(["measured: peak", "kept"] if measured else [])]
    lines = [_cells(row, row.report, measured, again, children) for row in rows if row.report is not None]
    lines.append(_total(rows, measured, again, children))
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(heads[0], overflow="fold", min_width=16)
    for head, column in list(zip(heads, zip(heads, *lines)))[1:]:
        side = "left" if head in ("sizes", "ours is") else "right"
        table.add_column(head, justify=side, no_wrap=True, min_width=max(map(len, column)))  # type: ignore[arg-type]
    for line in lines[:-1]:
        table.add_row(*map(Text, line))
    table.add_section()
    table.add_row(*map(Text, lines[-1]))
    return table


def _ran_again(rows: Sequence[Row]) -> bool:
    """Was that asked of any function?"""
    return any(row.report is not None and row.report.repeats is not None for row in rows)


def _peaks(report: Report, again: bool) -> List[int]:
    """Of stock, of the least order where results may run again, ours, and the floor: under every order, or under every schedule that repeats."""
    if not again:
        return [report.host_peak, report.peak, report.floor]
    if report.repeats is None:
        return [report.host_peak, report.peak if report.best is None else report.best.peak, report.peak, report.floor]
    return [report.host_peak, report.repeats.ordered_peak, report.peak, report.repeats.floor]


def _cells(row: Row, report: Report, measured: bool, again: bool, children: int) -> List[str]:
    sizes = "assumed" if report.graph.sizes_assumed else "true"
    peaks = _peaks(report, again)
    kept = [f"{report.host_kept:,}", f"{report.kept:,}"]
    missing = INSIDE if row.inside else "not measured"
    seen = [] if not measured else [missing] * 2 if report.measured is None else [f"{report.measured.peak:,}", f"{report.measured.kept:,}"]
    figures = [*(f"{n:,}" for n in peaks), against_floor(report.peak, peaks[-1]), *_extra(report, measured, again)]
    return [row.name, *_times([row], children), sizes, *figures, *kept, *seen]


def _extra(report: Report, measured: bool, again: bool) -> List[str]:
    """Time that results take that run again, as a share of the rest."""
    if not again:
        return []
    planned = "0 %" if report.repeats is None else f"{100 * report.repeats.extra_share:.3g} %"
    seen = report.measured_extra
    return [planned, *([INSIDE if seen is None else f"{100 * seen:.3g} %"] if measured else [])]


INSIDE = "-"
INSIDE_IN_WORDS = f"{INSIDE}: an op of another function runs it, as a Scan does its step; its calls, time and measured bytes are among that one's."


def _times(rows: Sequence[Row], children: int) -> List[str]:
    """Calls, seconds and planning; what an op calls has none of its own."""
    return [INSIDE] * 3 if all(row.inside for row in rows) else _summed(rows, children)


def _on_top(rows: Sequence[Row]) -> List[str]:
    """A sentence for each function in which ops run functions of their own: what these need is no part of its planned peak."""
    found = []
    for row in rows:
        most = 0 if row.report is None else max((work.own_peak for work in row.report.work), default=0)
        if not row.inside and most > ON_TOP * _peak(row):
            found.append(f"{row.name}: the function inside it, as the step of a Scan, needs up to {most:,} bytes on top of that peak while it runs.")
    return found


ON_TOP = 0.02
"""The share of a peak from which that is told."""


def _summed(rows: Sequence[Row], children: int) -> List[str]:
    outer = [row for row in rows if not row.inside]
    calls, *times = (sum(getattr(row, name) for row in outer) for name in ("calls", "seconds", "planning"))
    return ["not here"] * 3 if children and not calls else [f"{calls:,}", *(f"{seconds:.3g}" for seconds in times)]


def _total(rows: Sequence[Row], measured: bool, again: bool, children: int) -> List[str]:
    """Of peaks the largest, for functions run one after the other; of what is kept the sum, for all is there at once."""
    reports = [row.report for row in rows if row.report is not None]
    of_each = [_peaks(report, again) for report in reports]
    peaks = [f"{max(column):,}" for column in zip(*of_each)]
    reached = sum(found[-2] <= found[-1] for found in of_each)  # ours and the floor
    extra = [] if not again else [""] * (2 if measured else 1)
    kept = [f"{sum(report.host_kept for report in reports):,}", f"{_kept(rows):,}"]
    profiles = [report.measured for report in reports if report.measured is not None]
    seen = [f"{max(p.peak for p in profiles):,}", f"{sum(p.kept for p in profiles):,}"] if measured else []
    times = _summed([row for row in rows if row.report is not None], children)
    assumed = sum(report.graph.sizes_assumed for report in reports)
    sizes = f"{len(reports) - assumed} true" if assumed else "true"
    return ["in all", *times, sizes, *peaks, f"{reached} of {len(reports)} at the floor", *extra, *kept, *seen]


def _largest_lines(rows: Sequence[Row]) -> List[Tuple[str, int, Sequence[Line]]]:
    """Of functions whose peak is large: the name, the peak, and the lines that hold most of it."""
    largest = max(map(_peak, rows))
    telling = sorted((row for row in rows if _peak(row) and _peak(row) >= TELLING * largest), key=lambda row: -_peak(row))
    by_line = {row.name: [line for line in row.report.by_line() if line.where][:LINES] for row in telling if row.report is not None}
    return [(row.name, _peak(row), by_line[row.name]) for row in telling if by_line[row.name]]


def _without(rows: Sequence[Row], children: int) -> Table:
    """One line per reason."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("functions", overflow="fold", min_width=16)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for why in dict.fromkeys(row.why for row in rows if row.report is None):
        those = [row for row in rows if row.report is None and row.why == why]
        table.add_row(Text(", ".join(row.name for row in those)), *_times(those, children)[:2], Text(why))
    return table


def rows_to_json(rows: Sequence[Row]) -> List[Dict[str, Any]]:
    return [
        {
            "name": row.name,
            "inside": row.inside,
            "calls": row.calls,
            "seconds": row.seconds,
            "planning_seconds": row.planning,
            "why_no_report": row.why,
            "report": None if row.report is None else json_form.report_to_json(row.report),
        }
        for row in rows
    ]

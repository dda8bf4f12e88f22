"""The part of the page that says what runs again: a curve of peak against extra time, and tables. HTML and SVG, made here and not in page.js."""

from __future__ import annotations

from html import escape
from typing import Optional, Sequence, Tuple

from theano_memopt.report.repeats import Repeats, largest
from theano_memopt.report.words import in_bytes

WIDTH, HEIGHT, LEFT, BELOW = 640, 220, 80, 30
ROWS = 40


def of_repeats(repeats: Optional[Repeats], peak: int) -> str:
    if repeats is None:
        return ""
    title = f"For {repeats.asked}, planned at {repeats.planned_at}: {repeats.verdict}."
    floor = f"No schedule is below {in_bytes(repeats.floor)}, however often it repeats: {repeats.owner_in_words}."
    parts = ["<h2>Results that run again</h2>", f'<p class="hint">{escape(title)} {escape(floor)}</p>', _curve(repeats, peak), _again(repeats)]
    return "".join(parts)


def _curve(repeats: Repeats, peak: int) -> str:
    """Each point is a plan that was found; the one in force is filled."""
    points = [*((p, s) for p, s in repeats.curve), (peak, repeats.extra_share)]
    highest, most = max(p for p, _ in points) or 1, max(s for _, s in points) or 1.0

    def place(point: Tuple[int, float]) -> Tuple[float, float]:
        return LEFT + (WIDTH - LEFT - 10) * point[1] / most, 10 + (HEIGHT - BELOW - 10) * (1 - point[0] / highest)

    steps = _steps([place(point) for point in repeats.curve])
    circles = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="none" stroke="currentColor">'
        f"<title>{in_bytes(p)} for {100 * s:.3g} % more time</title></circle>"
        for p, s in repeats.curve
        for x, y in [place((p, s))]
    )
    x, y = place((peak, repeats.extra_share))
    here = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="currentColor"><title>in force: {in_bytes(peak)}</title></circle>'
    _, floor = place((repeats.floor, 0.0))
    lines = f'<line x1="{LEFT}" x2="{WIDTH}" y1="{floor:.1f}" y2="{floor:.1f}" stroke="currentColor" stroke-dasharray="4 4"/>'
    words = "".join(
        f'<text x="{x}" y="{y:.1f}" font-size="11" fill="currentColor" text-anchor="{anchor}">{escape(word)}</text>'
        for x, y, anchor, word in (
            (LEFT - 6, 14, "end", in_bytes(highest)),
            (LEFT - 6, floor + 4, "end", in_bytes(repeats.floor)),
            (LEFT, HEIGHT - 8, "start", "0 % more time"),
            (WIDTH - 4, HEIGHT - 8, "end", f"{100 * most:.3g} % more time, {repeats.times_from}"),
        )
    )
    opening = f'<svg role="img" aria-label="peak against extra time" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    return f"{opening}{lines}{steps}{circles}{here}{words}</svg>"


def _steps(places: Sequence[Tuple[float, float]]) -> str:
    """Between two points the peak is that of the one with less time."""
    path = ""
    for x, y in sorted(places):
        path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f},{y:.1f}"
    return f'<path d="{path}" fill="none" stroke="currentColor"/>' if path else ""


def _again(repeats: Repeats) -> str:
    shown, rest = largest(repeats.again, ROWS)
    if not shown:
        return ""
    head = "<tr><th>runs again</th><th class='number'>bytes</th><th class='number'>times</th><th class='number'>of the time</th><th>made by</th></tr>"
    rows = [
        f"<tr><td>{escape(row.operation)}</td><td class='number'>{row.bytes:,}</td><td class='number'>{row.times}</td>"
        f"<td class='number'>{100 * row.seconds / repeats.seconds if repeats.seconds else 0:.2f} %</td><td>{escape(row.made_at)}</td></tr>"
        for row in shown
    ]
    more = f"<p class='hint'>{len(rest)} more.</p>" if rest else ""
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>{more}"

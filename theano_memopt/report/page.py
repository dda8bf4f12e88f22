"""A report as one HTML file: data, style and drawing inside it, no network. The drawing itself is in page.js."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Sequence

from theano_memopt.report import files
from theano_memopt.report.model import Report

HERE = Path(__file__).parent


def write(reports: Sequence[Report], path: str, summary: str = "") -> str:
    """Write the page. Several reports get one page with a choice between them; `summary` is a text above the picture."""
    return files.write_whole(path, page(reports, summary))


def page(reports: Sequence[Report], summary: str = "") -> str:
    parts = {
        "TITLE": html.escape(reports[0].name if len(reports) == 1 else f"{len(reports)} functions"),
        "SUMMARY": f"<pre>{html.escape(summary)}</pre>" if summary else "",
        "UPLOT_CSS": _asset("uplot.min.css"),
        "CSS": _asset("page.css"),
        "UPLOT_JS": _asset("uplot.min.js"),
        "DATA": _embedded([files.page_data(report) for report in reports]),
        "JS": _asset("page.js"),
    }
    # In one pass, so that nothing that a part holds is taken for a place to fill.
    return re.sub(r"{{(\w+)}}", lambda place: parts[place.group(1)], _asset("page.html"))


def _embedded(data: object) -> str:
    """JSON that can stand inside <script>: names may hold anything, `</script>` as well."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")

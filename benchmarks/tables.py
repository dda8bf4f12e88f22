"""Rows of results as text for the terminal, as Markdown for README, and as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Dict, List, Sequence

from theano_memopt import files

Row = Dict[str, Any]


def text(rows: Sequence[Row], left: int = 2) -> str:
    """Aligned columns; the first `left` of them begin at the left."""
    columns = list(rows[0])
    lines = [columns, *([shown(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))) for line in lines)


def markdown(rows: Sequence[Row]) -> str:
    columns = list(rows[0])
    lines: List[Sequence[str]] = [columns, ["---"] * len(columns), *([shown(row.get(c, "")) for c in columns] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def save(rows: Sequence[Row], path: Path) -> None:
    """As CSV, the whole file or nothing. A row need not have every column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(dict.fromkeys(column for row in rows for column in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_whole(str(path), stream.getvalue())

"""Rows of results as text for the terminal, as Markdown for README, and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Dict, List, Sequence

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
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

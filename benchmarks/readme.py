"""Put the tables of the last `make bench` and `make bench-scale` into README: `make readme-tables`.

README holds each table between two comments, <!-- table memory --> and <!-- end -->; what stands between is replaced by the rows of
out/bench/memory.csv. Where the comment goes on, as in <!-- table time: model; ours gc -->, only those columns are taken.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import Optional

from benchmarks import tables

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table (\w+)(?:: ([^>]*?))? -->\n).*?(<!-- end -->)", re.S)


def filled(readme: str, place: Path) -> str:
    return BLOCK.sub(lambda found: found[1] + _contents(place, found[2], found[3]) + found[4], readme)


def _contents(place: Path, name: str, columns: Optional[str]) -> str:
    if name == "machine":
        return (place / "machine.txt").read_text(encoding="utf-8")
    with (place / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = [c.strip() for c in columns.split(";")] if columns else list(rows[0])
    return tables.markdown([{c: _shown(row[c]) for c in wanted} for row in rows])


def _shown(value: str) -> str:
    """A number as people write it; anything else as it is."""
    if re.fullmatch(r"-?\d+", value):
        return f"{int(value):,}"
    if re.fullmatch(r"-?\d+\.\d+", value):
        return f"{float(value):.2f}"
    return value


def main() -> int:
    readme, place = ROOT / "README.md", ROOT / "out" / "bench"
    try:
        text = filled(readme.read_text(encoding="utf-8"), place)
    except FileNotFoundError as missing:
        print(f"readme-tables: {missing.filename} is not there: run `make bench` and `make bench-scale` first", file=sys.stderr)
        return 2
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Lives and placements as CSV, in the form of google/minimalloc.

    id,lower,upper,size          a life: live in the half-open interval [lower, upper)
    id,lower,upper,size,offset   a placed one

Columns may stand in any order. Whatever is wrong is said in one line with file, line and column.

>>> read_lives_text("id,lower,upper,size\\na,0,2,-4\\n", "x.csv")
Traceback (most recent call last):
    ...
theano_memopt.planner.lives_csv.LivesError: x.csv, line 2, column 'size': '-4' is not a whole number, 0 or more
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple, Union

from theano_memopt import files

Path = Union[str, "os.PathLike[str]"]
COLUMNS = ("id", "lower", "upper", "size")


class LivesError(ValueError):
    """A file of lives that cannot be used; the message names file, line and column."""

    def __init__(self, source: str, line: Optional[int], column: Optional[str], message: str) -> None:
        place = source + (f", line {line}" if line is not None else "") + (f", column {column!r}" if column is not None else "")
        super().__init__(f"{place}: {message}")
        self.source, self.line, self.column = source, line, column


@dataclass(frozen=True)
class Lives:
    ids: Tuple[str, ...]
    spans: Tuple[Tuple[int, int], ...]
    sizes: Tuple[int, ...]
    offsets: Optional[Tuple[int, ...]] = None
    """Only in a placed file."""


def read_lives(path: Path, placed: bool = False) -> Lives:
    """Read a file; `placed` asks for the column 'offset', which is otherwise read only if it is there."""
    source = os.fspath(path)
    try:
        with open(source, encoding="utf-8-sig", newline="") as stream:
            text = stream.read()
    except UnicodeDecodeError as error:
        raise LivesError(source, None, None, f"is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise LivesError(source, None, None, f"cannot be read: {error.strerror or error}") from None
    return read_lives_text(text, source, placed)


def read_lives_text(text: str, source: str = "<text>", placed: bool = False) -> Lives:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    ids: Dict[str, int] = {}
    spans: List[Tuple[int, int]] = []
    sizes: List[int] = []
    offsets: List[int] = []
    try:
        columns = _columns(next(rows, []), source, placed)
        for row in rows:
            if not row:
                continue
            if len(row) != len(columns):
                raise LivesError(source, rows.line_num, None, f"has {len(row)} fields, the first line {len(columns)}")
            fields = dict(zip(columns, row))
            name = fields["id"].strip()
            if name in ids:
                raise LivesError(source, rows.line_num, "id", f"{name!r} was there before, on line {ids[name]}")
            ids[name] = rows.line_num
            number = {c: _number(fields[c], source, rows.line_num, c) for c in columns if c != "id"}
            if number["upper"] < number["lower"]:
                raise LivesError(source, rows.line_num, "upper", f"{number['upper']} lies before lower {number['lower']}")
            spans.append((number["lower"], number["upper"]))
            sizes.append(number["size"])
            offsets.append(number.get("offset", 0))
    except csv.Error as error:
        raise LivesError(source, rows.line_num, None, f"is not CSV: {error}") from None
    return Lives(tuple(ids), tuple(spans), tuple(sizes), tuple(offsets) if "offset" in columns else None)


def write_placed(path: Path, lives: Lives, offsets: Sequence[int]) -> None:
    """Write lives with their offsets. On failure nothing is left behind, and a file that was there stays as it was."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS + ("offset",))
    for name, (lower, upper), size, offset in zip(lives.ids, lives.spans, lives.sizes, offsets):
        writer.writerow((name, lower, upper, size, offset))
    target = os.fspath(path)
    try:
        files.write_whole(target, text.getvalue())
    except files.CannotWrite as no:
        raise LivesError(target, None, None, f"cannot be written: {no.reason}") from None


def _columns(header: Sequence[str], source: str, placed: bool) -> List[str]:
    columns = [name.strip() for name in header]
    needed = COLUMNS + (("offset",) if placed else ())
    for name in needed:
        if columns.count(name) != 1:
            raise LivesError(source, 1, name, "is not there" if name not in columns else "is there more than once")
    for name in columns:
        if name not in COLUMNS + ("offset",) or columns.count(name) != 1:
            raise LivesError(source, 1, name, f"is not known; there are {', '.join(COLUMNS)} and offset")
    return columns


def _number(text: str, source: str, line: int, column: str) -> int:
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit()) or len(stripped) > 18:  # 18 digits fit into 64 bits
        raise LivesError(source, line, column, f"{text!r} is not a whole number, 0 or more" + (", or it is too long" if len(stripped) > 18 else ""))
    return int(stripped)

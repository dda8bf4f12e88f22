"""Which line of the user's code made a variable.

Theano notes where a variable was made as `tag.trace`: a few frames of Python's stack, the innermost last. The line that is meant is the
innermost one that the user wrote; where none is, the innermost one of a library above Theano.

    near    a rewrite of Theano's made the variable and noted nothing: the line is that of the nearest variable that it is computed from
    cell    of a notebook; its source is known as long as the notebook's kernel runs
    exec    code that is no file; its source is known where linecache has it, and else the line that called `exec` is said
"""

from __future__ import annotations

import functools
import os
import re
import sys
from types import FrameType
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import theano

import theano_memopt

NEAR = 50
"""Variables that are looked at, backwards, for a line of the user's code."""
THEANO = os.path.dirname(theano.__file__)
COMPILES = os.path.join(THEANO, "compile") + os.sep
"""Frames of Theano's that every function is made by."""
FOR_CALLERS = (os.path.join(THEANO, "gof", "graph.py"),)
"""What the program asks to compile in another way than by theano.function: Variable.eval."""
_OURS = os.path.dirname(os.path.abspath(theano_memopt.__file__))
_RUNNING = tuple(os.path.join(_OURS, name) for name in ("commands", "program.py", "__main__.py", "hosts"))
"""Of this package: what stands in the stack of a program under `run`."""

Frame = Tuple[str, int, str, Any]
"""File, line, function, source."""


def made_at(root: Any, names: Sequence[Any]) -> Tuple[str, bool]:
    """The line that made a variable or one of its other names, and whether it is only near; an empty line if there is none."""
    for variable in (root, *names):
        line = _user_line(variable)
        if line:
            return line, False
    seen, waiting = {root}, [root]
    for variable in waiting:
        for source in [] if variable.owner is None or len(seen) > NEAR else variable.owner.inputs:
            line = "" if source in seen or source.owner is None else _user_line(source)
            if line:
                return line, True
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return "", False


def frames(innermost: Optional[FrameType] = None) -> Iterator[Tuple[str, int]]:
    """File and line of what runs in this thread, from this frame or the present one outwards, without this package's."""
    frame = innermost or sys._getframe(1)
    while frame is not None:
        file = os.path.abspath(frame.f_code.co_filename)
        if not file.startswith(_OURS + os.sep):
            yield file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]


def asked_by_theano(stack: Sequence[Tuple[str, int]]) -> bool:
    """A function is being made: does Theano make it for itself? To draw random numbers it makes one that multiplies matrices."""
    nearest = next((file for file, _ in stack if not file.startswith(COMPILES)), "")
    return nearest.startswith(THEANO + os.sep) and nearest not in FOR_CALLERS


def line_of_program(stack: Sequence[Tuple[str, int]]) -> str:
    """The innermost line outside Theano, or nothing."""
    return next((f"{short(file)}:{line}" for file, line in stack if not file.startswith(THEANO + os.sep)), "")


def short(file: str) -> str:
    """A file as a person names it: relative where it lies below the present folder, else with the folder that it lies in."""
    inside = os.path.relpath(file) if os.path.isabs(file) else file
    theirs = inside.startswith("..") or _is_library(inside)
    return inside if not theirs else os.path.join(os.path.basename(os.path.dirname(file)), os.path.basename(file))


def _user_line(variable: Any) -> str:
    for trace in reversed(getattr(variable.tag, "trace", None) or []):
        outside = [frame for frame in trace if _is_outside(frame[0])]
        written = [frame for frame in outside if not _is_library(frame[0])] or outside
        if written:
            return _in_words(written[-1], outside)
    return ""


def _in_words(frame: Frame, outside: List[Frame]) -> str:
    file, line, _, source = frame
    said = f"{_named(file)}:{line}"
    if source:
        return f"{said}  {source.strip()}"
    caller = next(_files_before(frame, outside), None) if file.startswith("<") else None
    return said if caller is None else f"{said}  (code without a file, run at {short(caller[0])}:{caller[1]})"


def _files_before(frame: Frame, outside: List[Frame]) -> Iterator[Frame]:
    """Frames further out that lie in a file, the nearest first."""
    return (other for other in reversed(outside[: outside.index(frame)]) if not other[0].startswith("<"))


def _named(file: str) -> str:
    cell = re.match(r"<ipython-input-(\d+)-", file)
    if cell is not None:
        return f"cell {cell.group(1)}"
    if re.search(r"[/\\]ipykernel_\d+[/\\]", file):
        return _numbered_cell(file)
    return short(file)


def _numbered_cell(file: str) -> str:
    """A kernel gives each cell a file name of its own, and knows which cell that was."""
    try:
        return f"cell {sys.modules['IPython'].get_ipython().compile._filename_map[file]}"
    except Exception:  # an IPython that keeps it elsewhere
        return "a cell"


@functools.lru_cache(maxsize=1024)
def _is_outside(file: str) -> bool:
    """Of Theano and of what runs the program?"""
    path = os.path.abspath(file)
    return not path.startswith((THEANO + os.sep, *_RUNNING)) and not file.startswith("<frozen ")


def _is_library(file: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(file.split(os.sep))

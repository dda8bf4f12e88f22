"""Files that the verbs read, and places to write: each is usable, or `BadInput` names the file and the place in it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Dict, List, NoReturn, Optional, Tuple

from theano_memopt import files
from theano_memopt.commands.base import BadInput, in_words
from theano_memopt.planner.model import Graph, GraphError, graph_from_json

if TYPE_CHECKING:
    from theano_memopt.planner.lives_csv import Lives
    from theano_memopt.planner.program import Program

MOST_BYTES = 2**62  # all sizes together must stay below: the search counts in 64 bits, and no machine holds as much


def read_graph(path: str) -> Graph:
    """The graph in a JSON file, or `BadInput`."""
    data = read_json(path)
    try:
        graph = graph_from_json(data)
    except GraphError as error:
        raise BadInput(f"{path}: {in_words(error)}") from None
    total = sum(buffer.size for buffer in graph.buffers)
    if total >= MOST_BYTES:
        raise BadInput(f"{path}: bad-size: the buffers have 2**62 bytes or more together, which no machine holds (buffers)")
    return graph


def read_program(path: str) -> Program:
    """The program in a JSON file, or `BadInput`."""
    from theano_memopt.planner.program import program_from_json

    data = read_json(path)
    try:
        program = program_from_json(data)
    except GraphError as error:
        raise BadInput(f"{path}: {in_words(error)}") from None
    if sum(value.size for value in program.values) >= MOST_BYTES:
        raise BadInput(f"{path}: bad-size: the values have 2**62 bytes or more together, which no machine holds (values)")
    return program


def read_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            return json.load(stream, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}, line {error.lineno}, column {error.colno}: is not JSON: {error.msg}") from None
    except RecursionError:
        raise BadInput(f"{path}: is nested too deeply to be a graph or a result") from None
    except ValueError as error:  # a key twice, NaN, a number with thousands of digits
        raise BadInput(f"{path}: is not usable JSON: {in_words(error)}") from None


def _no_key_twice(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number that can be used")


def read_lives(path: str, placed: bool = False) -> Lives:
    from theano_memopt.planner import lives_csv

    try:
        lives = lives_csv.read_lives(path, placed=placed)
    except lives_csv.LivesError as error:
        raise BadInput(in_words(error)) from None
    if sum(lives.sizes) >= MOST_BYTES:
        raise BadInput(f"{path}, column 'size': the buffers have 2**62 bytes or more together, which no machine holds")
    return lives


def place_to_write(path: Optional[str], read_from: str = "") -> Optional[str]:
    """The target of a file to write, links followed: checked before the work begins, so that an hour of search does not end in a wrong path."""
    if path is None:
        return None
    try:
        files.check_writable(path)
    except files.CannotWrite as no:
        raise BadInput(str(no)) from None
    target = os.path.realpath(path)
    if os.path.exists(target) and os.path.exists(read_from) and os.path.samefile(target, read_from):
        raise BadInput(f"{path}: cannot be written: it is the file that is read")
    return target


def write_out(path: str, text: str) -> None:
    try:
        files.write_whole(path, text)
    except files.CannotWrite as no:
        raise BadInput(str(no)) from None

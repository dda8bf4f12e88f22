"""`python -m theano_memopt check`: a result of `order` or `recompute`, or a placed file of `pack`, checked without trusting the program that made it.

A result that has another form is bad input (status 2). A result that has the form and is not true is rejected (status 1).
"""

from __future__ import annotations

import argparse
import functools
from typing import Any, Dict, Iterable, Optional

from theano_memopt.commands.base import DONE, REJECTED, BadInput, Verb, in_words, whole
from theano_memopt.commands.inputs import read_graph, read_json, read_lives, read_program
from theano_memopt.planner import certificate
from theano_memopt.planner.model import Graph
from theano_memopt.planner.program import Program
from theano_memopt.planner.slots import StorageRejected
from theano_memopt.progress import complain, progress_of


class CheckVerb(Verb):
    name = "check"
    says = "check a result of `order` or `recompute`, or a placed file of `pack`, without trusting who made it"
    examples = ("check graph.json result.json", "check program.json result.json", "check --placed placed.csv")

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("graph", metavar="GRAPH.json", nargs="?")
        parser.add_argument("result", metavar="RESULT.json", nargs="?")
        parser.add_argument("--placed", metavar="PLACED.csv", help="check this placement instead")
        parser.add_argument("--capacity", type=whole, metavar="N", help="with --placed: it must fit into so many bytes")

    def run(self, parsed: argparse.Namespace) -> int:
        if parsed.placed is not None:
            if parsed.graph is not None:
                raise BadInput("check takes either GRAPH.json RESULT.json or --placed PLACED.csv, not both")
            return _check_placed(parsed.placed, parsed.capacity)
        if parsed.result is None or parsed.capacity is not None:
            raise BadInput("check takes either GRAPH.json RESULT.json or --placed PLACED.csv [--capacity N]")
        return _check_result(parsed.graph, parsed.result)


def _check_result(problem_path: str, result_path: str) -> int:
    """A program has values, a graph has none: that says which verb the result is of."""
    if "values" in _keys(read_json(problem_path)):
        verb, true_of = "recompute", functools.partial(_true_of_recompute, read_program(problem_path))
    else:
        verb, true_of = "order", functools.partial(_true_of_order, read_graph(problem_path))
    data = read_json(result_path)
    try:
        with progress_of("checking"):
            truth = true_of(data)
    except ValueError as no:
        if isinstance(no, certificate.Rejected) and no.reason != "bad-form":
            return _reject(result_path, no)
        raise BadInput(f"{result_path}: is not a result of `{verb}`: {in_words(no)}") from None
    _accept(result_path, truth)
    return DONE


def _keys(data: Any) -> Iterable[str]:
    return data if isinstance(data, dict) else ()


def _true_of_order(graph: Graph, data: Any) -> str:
    """In words. `Rejected` for a result that is not true, another `ValueError` for what has not the form of one."""
    _require_form_of_order(data)
    schedule = certificate.schedule_from_json(graph, data)
    certificate.check_certificate(graph, schedule)
    at = " at assumed sizes" if graph.sizes_assumed else ""
    return f"peak {schedule.peak:,} bytes, " + (f"proven least{at}" if schedule.proven else f"open{at}, floor {schedule.floor:,}")


def _true_of_recompute(program: Program, data: Any) -> str:
    """Likewise."""
    from theano_memopt.planner import recompute_result

    recompute_result.check_form(data)
    recompute_result.check_result(program, data)
    return f"peak {data['peak_bytes']:,} bytes, {data['extra_percent']:.2f} % more time, no sequence below {data['floor_bytes']:,}"


RESULT_FORM: Dict[str, type] = {
    "peak_bytes": int,
    "floor_bytes": int,
    "status": str,
    "method": str,
    "states": int,
    "baseline_peak_bytes": int,
    "order": list,
    "certificate": dict,
}


def _require_form_of_order(data: Any) -> None:
    """`ValueError`, with one sentence, for what has not the form of a result at all."""
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object (top level)")
    for key, kind in RESULT_FORM.items():
        if key not in data:
            raise ValueError(f"{key!r} is missing")
        if not isinstance(data[key], kind) or isinstance(data[key], bool):
            words = {int: "a whole number", str: "a text", list: "a list", dict: "an object"}[kind]
            raise ValueError(f"{key!r} must be {words}")
    for at, name in enumerate(data["order"]):
        if not isinstance(name, str):
            raise ValueError(f"order[{at}] is not the name of a task")
    if not isinstance(data["certificate"].get("proof"), dict):
        raise ValueError("'certificate' has no 'proof'")


def _check_placed(path: str, capacity: Optional[int]) -> int:
    from theano_memopt.planner import arena as arenas

    lives = read_lives(path, placed=True)
    assert lives.offsets is not None
    placed = [(born, dead, size, offset) for (born, dead), size, offset in zip(lives.spans, lives.sizes, lives.offsets) if born < dead and size]
    height = max((offset + size for _, _, size, offset in placed), default=0)
    floor = max((sum(size for b, d, size, _ in placed if b <= moment < d) for moment in {born for born, _, _, _ in placed}), default=0)
    try:
        arenas.check_packing(lives.sizes, lives.spans, arenas.Arena(lives.offsets, height, floor), labels=lives.ids)
    except StorageRejected as no:
        return _reject(path, no)
    if capacity is not None and height > capacity:
        return _reject(path, f"over-capacity: the height is {height}, the capacity {capacity}")
    _accept(path, f"{len(lives.ids)} buffers, height {height:,} bytes, greatest load {floor:,}")
    return DONE


def _accept(path: str, what: str) -> None:
    print(f"{path}: accepted: {what}")


def _reject(path: str, why: object) -> int:
    complain(f"{path}: rejected: {in_words(why)}")
    return REJECTED

"""The command line: one function per verb.

    python -m theano_memopt demo                real models, trained with and without the pass: see commands/demo.py
    python -m theano_memopt run SCRIPT [ARGS]   a script with the pass on, and a report at the end: see commands/run.py
    python -m theano_memopt order GRAPH.json    the least-memory order of a graph, with a floor or a proof
    python -m theano_memopt recompute PROGRAM.json --budget 0.5 | --extra-time 0.02
                                                less memory than any order needs, by running cheap tasks again
    python -m theano_memopt check GRAPH.json RESULT.json | PROGRAM.json RESULT.json | --placed PLACED.csv
    python -m theano_memopt pack LIVES.csv      offsets for buffers with given lives

Words
    verb      the first argument; `VERBS` lists them all, and adding one means adding one class there
    stdout    tables for people, or with --json one JSON object and nothing else
    stderr    progress on what takes longer than a second, and one line for whatever is wrong
    status    0 done or accepted, 1 rejected, 2 bad input, 130 stopped by Ctrl-C, 141 the reader of our output went away

A file is written under a temporary name and renamed, so it is all there or not at all.

What only some verbs need, or only tables (`rich`, the packer and NumPy with it), is imported where it is needed: `order` begins at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
from typing import Any, Dict, Iterable, List, NoReturn, Optional, Sequence, Tuple

from theano_memopt.commands.base import BadInput, Verb, complain, progress_of
from theano_memopt.commands.demo import DemoVerb
from theano_memopt.commands.run import RunVerb
from theano_memopt.options import PackOptions, PlanOptions, RecomputeOptions
from theano_memopt.planner import certificate, exact, lives_csv
from theano_memopt.planner.budget import Budget, parse_budget
from theano_memopt.planner.model import Graph, GraphError, graph_from_json
from theano_memopt.planner.program import Program, program_from_json
from theano_memopt.planner.slots import StorageRejected

DONE, REJECTED, BAD_INPUT, STOPPED, NO_READER = 0, 1, 2, 130, 141
MOST_BYTES = 2**62  # all sizes together must stay below: the search counts in 64 bits, and no machine holds as much
PACK_EFFORT = 10_000_000  # some tens of seconds on the hardest files; whoever packs by hand waits longer than a compiler may


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command; the answer is the exit status."""
    try:
        status = _run(_parser().parse_args(arguments))
        sys.stdout.flush()
        return status
    except BadInput as trouble:
        complain(str(trouble))
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("stopped; nothing was written")
        return STOPPED
    except BrokenPipeError:
        # Nobody reads on. Python would complain once more when it closes standard output, so that goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return NO_READER


def _run(parsed: argparse.Namespace) -> int:
    verb: Verb = parsed.verb
    return verb.run(parsed)


# ------------------------------------------------------------------------------------------------------------- verbs


class OrderVerb(Verb):
    name = "order"
    says = "find the order of a task graph that needs the least memory, and prove how low it can go"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("graph", metavar="GRAPH.json")
        parser.add_argument("--effort", type=_whole, metavar="STATES", help="states that the search may visit (default %(default)s)")
        parser.add_argument(
            "--time", type=_seconds, metavar="SECONDS", help="end the search after so long; the answer may then differ from run to run"
        )
        parser.add_argument("--out", metavar="RESULT.json", help="write the result here, for `check`")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        parser.set_defaults(effort=PlanOptions().effort)

    def run(self, parsed: argparse.Namespace) -> int:
        out = _place_to_write(parsed.out, parsed.graph)
        graph = read_graph(parsed.graph)
        with progress_of(f"ordering {len(graph.tasks)} tasks") as progress:
            schedule = exact.minimise_peak(graph, PlanOptions(effort=parsed.effort, seconds=parsed.time, progress=progress))
        result = certificate.schedule_to_json(graph, schedule)
        text = json.dumps(result, allow_nan=False) + "\n"
        if out is not None:
            _write_whole(out, text)
        if parsed.json:
            sys.stdout.write(text)
        else:
            _print_schedule(parsed.graph, graph, schedule)
        return DONE


class RecomputeVerb(Verb):
    name = "recompute"
    says = "run cheap tasks of a program again, for less memory than any order needs"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("program", metavar="PROGRAM.json")
        goal = parser.add_mutually_exclusive_group(required=True)
        goal.add_argument(
            "--budget", type=_budget, metavar="SHARE|BYTES", help="least extra time within 0.5 of the least peak of any order, or 500MB, or 800000"
        )
        goal.add_argument("--extra-time", type=_share_of_time, metavar="SHARE", help="least peak within so much extra time: 0.02 is 2 %%")
        parser.add_argument("--effort", type=_whole, metavar="N", help="simulations that the search may make (default: by the size of the program)")
        parser.add_argument(
            "--time", type=_seconds, metavar="SECONDS", help="end the search after so long; the answer may then differ from run to run"
        )
        parser.add_argument("--out", metavar="RESULT.json", help="write the result here, for `check`")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    def run(self, parsed: argparse.Namespace) -> int:
        out = _place_to_write(parsed.out, parsed.program)
        from theano_memopt.planner.recompute import plan_recompute
        from theano_memopt.planner.recompute_result import result_to_json

        program = read_program(parsed.program)
        budget: Budget = parsed.budget or Budget(None, None)
        with progress_of(f"planning {len(program.tasks)} tasks") as progress:
            options = RecomputeOptions(simulations=parsed.effort, seconds=parsed.time, progress=progress)
            plan = plan_recompute(program, budget.bytes, budget.share, parsed.extra_time, options)
        text = json.dumps(result_to_json(plan), allow_nan=False) + "\n"
        if out is not None:
            _write_whole(out, text)
        if parsed.json:
            sys.stdout.write(text)
        else:
            from theano_memopt.commands.recompute_tables import print_recomputed

            print_recomputed(parsed.program, plan)
        return DONE


class CheckVerb(Verb):
    name = "check"
    says = "check a result of `order` or `recompute`, or a placed file of `pack`, without trusting who made it"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("graph", metavar="GRAPH.json", nargs="?")
        parser.add_argument("result", metavar="RESULT.json", nargs="?")
        parser.add_argument("--placed", metavar="PLACED.csv", help="check this placement instead")
        parser.add_argument("--capacity", type=_whole, metavar="N", help="with --placed: it must fit into so many bytes")

    def run(self, parsed: argparse.Namespace) -> int:
        if parsed.placed is not None:
            if parsed.graph is not None:
                raise BadInput("check takes either GRAPH.json RESULT.json or --placed PLACED.csv, not both")
            return _check_placed(parsed.placed, parsed.capacity)
        if parsed.result is None or parsed.capacity is not None:
            raise BadInput("check takes either GRAPH.json RESULT.json or --placed PLACED.csv [--capacity N]")
        return _check_result(parsed.graph, parsed.result)


class PackVerb(Verb):
    name = "pack"
    says = "lay buffers with given lives into one arena, as low as possible"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("lives", metavar="LIVES.csv", help="columns id, lower, upper, size; a life is half-open")
        parser.add_argument("--capacity", type=_whole, metavar="N", help="say whether it fits into so many bytes")
        parser.add_argument(
            "--effort", type=_whole, default=PACK_EFFORT, metavar="CHOICES", help="choices that the search may make (default %(default)s)"
        )
        parser.add_argument(
            "--time", type=_seconds, metavar="SECONDS", help="end the search after so long; the answer may then differ from run to run"
        )
        parser.add_argument("--out", metavar="PLACED.csv", help="write the lives with their offsets here")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    def run(self, parsed: argparse.Namespace) -> int:
        from theano_memopt.planner import arena as arenas

        out = _place_to_write(parsed.out, parsed.lives)
        lives = _read_lives(parsed.lives)
        with progress_of(f"packing {len(lives.ids)} buffers") as progress:
            options = PackOptions(parsed.effort, parsed.time, parsed.capacity or 0, progress=progress)
            arena = arenas.pack(arenas.Packing(lives.sizes, lives.spans), options)
        if out is not None:
            _write_placed(out, lives, arena.offsets)
        answer: Dict[str, Any] = {"height": arena.height, "floor": arena.floor, "buffers": len(lives.ids)}
        if parsed.capacity is not None:
            answer.update(capacity=parsed.capacity, fits=arena.height <= parsed.capacity)
        if parsed.json:
            sys.stdout.write(json.dumps(answer) + "\n")
        else:
            _print_arena(parsed.lives, answer)
        return DONE


VERBS: Tuple[Verb, ...] = (DemoVerb(), RunVerb(), OrderVerb(), RecomputeVerb(), CheckVerb(), PackVerb())


# ------------------------------------------------------------------------------------------------------------ tables


def _print_schedule(source: str, graph: Graph, schedule: certificate.Schedule) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"{source}: {len(graph.tasks)} tasks, {len(graph.buffers)} buffers, sizes {graph.sizes_from}"))
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("order")
    table.add_column("peak, bytes", justify="right", no_wrap=True)
    table.add_column("above the floor", justify="right", no_wrap=True)
    rows = sorted(schedule.competing, key=lambda row: (-row[1], row[0]))
    for name, peak in [*rows, (f"chosen: {schedule.method}", schedule.peak)]:
        table.add_row(Text(name), f"{peak:,}", _above(peak, schedule.floor), style="bold" if name.startswith("chosen: ") else "")
    table.add_row("floor: no order needs less", f"{schedule.floor:,}", "")
    console.print(table)
    verdict = schedule.certificate
    if isinstance(verdict, certificate.Proven):
        console.print(Text(f"Proven: no order of these tasks has a lower peak. {verdict.proof.describe()}"))
    else:
        console.print(
            Text(f"Open: at most {_above(schedule.peak, verdict.floor)} above the least possible. {verdict.reason}. {verdict.proof.describe()}")
        )
    step = schedule.timeline.peak_step
    if schedule.order:
        console.print(Text(f"The peak is reached at step {step + 1} of {len(schedule.order)}, task {graph.tasks[schedule.order[step]].label!r}."))
    console.print(Text(f"{schedule.states:,} states visited."))


def _print_arena(source: str, answer: Dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(Text(f"{source}: {answer['buffers']} buffers"))
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("above the floor", justify="right", no_wrap=True)
    table.add_row("height: bytes reserved", f"{answer['height']:,}", _above(answer["height"], answer["floor"]), style="bold")
    table.add_row("floor: the greatest load", f"{answer['floor']:,}", "")
    if "capacity" in answer:
        table.add_row("capacity", f"{answer['capacity']:,}", "")
    console.print(table)
    if answer.get("fits") is True:
        console.print("It fits.")
    elif answer.get("fits") is False and answer["floor"] > answer["capacity"]:
        console.print("It cannot fit: the buffers alive at one moment alone need more.")
    elif answer.get("fits") is False:
        console.print("It does not fit as placed; the floor leaves open whether another placement would.")


def _above(peak: int, floor: int) -> str:
    if peak <= floor:
        return "0 %"
    return f"{100 * (peak - floor) / floor:.3g} %" if floor else "unbounded"


# ------------------------------------------------------------------------------------------------------------ checks


def _check_result(graph_path: str, result_path: str) -> int:
    if "values" in _keys(_read_json(graph_path)):
        return _check_recomputed(graph_path, result_path)
    graph = read_graph(graph_path)
    data = _read_json(result_path)
    _require_form_of_result(result_path, data)
    try:
        schedule = certificate.schedule_from_json(graph, data)
        with progress_of("checking"):
            certificate.check_certificate(graph, schedule)
    except certificate.Rejected as no:
        if no.reason == "bad-form":
            raise BadInput(f"{result_path}: is not a result of `order`: {_in_words(no)}") from None
        return _reject(result_path, no)
    proven = isinstance(schedule.certificate, certificate.Proven)
    _accept(result_path, f"peak {schedule.peak:,} bytes, " + ("proven least" if proven else f"open, floor {schedule.floor:,}"))
    return DONE


def _keys(data: Any) -> Iterable[str]:
    return data if isinstance(data, dict) else ()


def _check_recomputed(program_path: str, result_path: str) -> int:
    from theano_memopt.planner import recompute_result

    program = read_program(program_path)
    data = _read_json(result_path)
    try:
        recompute_result.check_form(data)
        with progress_of("checking"):
            recompute_result.check_result(program, data)
    except certificate.Rejected as no:
        if no.reason == "bad-form":
            raise BadInput(f"{result_path}: is not a result of `recompute`: {_in_words(no)}") from None
        return _reject(result_path, no)
    except ValueError as no:
        raise BadInput(f"{result_path}: is not a result of `recompute`: {_in_words(no)}") from None
    _accept(result_path, f"peak {data['peak_bytes']:,} bytes, {data['extra_percent']:.2f} % more time, no sequence below {data['floor_bytes']:,}")
    return DONE


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


def _require_form_of_result(path: str, data: Any) -> None:
    """What has another form is no result at all (status 2); what has the form and is not true is rejected (status 1)."""
    if not isinstance(data, dict):
        raise BadInput(f"{path}: is not a result of `order`: it is not a JSON object (top level)")
    for key, kind in RESULT_FORM.items():
        if key not in data:
            raise BadInput(f"{path}: is not a result of `order`: {key!r} is missing")
        if not isinstance(data[key], kind) or isinstance(data[key], bool):
            words = {int: "a whole number", str: "a text", list: "a list", dict: "an object"}[kind]
            raise BadInput(f"{path}: is not a result of `order`: {key!r} must be {words}")
    for at, name in enumerate(data["order"]):
        if not isinstance(name, str):
            raise BadInput(f"{path}: is not a result of `order`: order[{at}] is not the name of a task")
    if not isinstance(data["certificate"].get("proof"), dict):
        raise BadInput(f"{path}: is not a result of `order`: 'certificate' has no 'proof'")


def _check_placed(path: str, capacity: Optional[int]) -> int:
    from theano_memopt.planner import arena as arenas

    lives = _read_lives(path, placed=True)
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
    complain(f"{path}: rejected: {_in_words(why)}")
    return REJECTED


# ----------------------------------------------------------------------------------------------------------- reading


def read_graph(path: str) -> Graph:
    """The graph in a JSON file, or `BadInput`."""
    data = _read_json(path)
    try:
        graph = graph_from_json(data)
    except GraphError as error:
        raise BadInput(f"{path}: {_in_words(error)}") from None
    total = sum(buffer.size for buffer in graph.buffers)
    if total >= MOST_BYTES:
        raise BadInput(f"{path}: bad-size: the buffers have 2**62 bytes or more together, which no machine holds (buffers)")
    return graph


def read_program(path: str) -> Program:
    """The program in a JSON file, or `BadInput`."""
    data = _read_json(path)
    try:
        program = program_from_json(data)
    except GraphError as error:
        raise BadInput(f"{path}: {_in_words(error)}") from None
    if sum(value.size for value in program.values) >= MOST_BYTES:
        raise BadInput(f"{path}: bad-size: the values have 2**62 bytes or more together, which no machine holds (values)")
    return program


def _read_json(path: str) -> Any:
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
        raise BadInput(f"{path}: is not usable JSON: {_in_words(error)}") from None


def _no_key_twice(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number that can be used")


def _read_lives(path: str, placed: bool = False) -> lives_csv.Lives:
    try:
        lives = lives_csv.read_lives(path, placed=placed)
    except lives_csv.LivesError as error:
        raise BadInput(_in_words(error)) from None
    if sum(lives.sizes) >= MOST_BYTES:
        raise BadInput(f"{path}, column 'size': the buffers have 2**62 bytes or more together, which no machine holds")
    return lives


# ----------------------------------------------------------------------------------------------------------- writing


def _place_to_write(path: Optional[str], read_from: str) -> Optional[str]:
    """Where to write: checked before the work begins, so that an hour of search does not end in a wrong path."""
    if path is None:
        return None
    target = os.path.realpath(path)  # a symbolic link stays a link, its target is replaced
    if os.path.isdir(target):
        raise BadInput(f"{path}: cannot be written: it is a directory")
    if os.path.exists(target) and not os.path.isfile(target):
        raise BadInput(f"{path}: cannot be written: it is not a regular file")  # a renamed file would take the place of a device
    if os.path.exists(target) and os.path.exists(read_from) and os.path.samefile(target, read_from):
        raise BadInput(f"{path}: cannot be written: it is the file that is read")
    if not os.path.isdir(os.path.dirname(target)):
        raise BadInput(f"{path}: cannot be written: there is no directory {os.path.dirname(target)}")
    if not os.access(os.path.dirname(target), os.W_OK):
        raise BadInput(f"{path}: cannot be written: no permission in {os.path.dirname(target)}")
    return target


def _write_whole(target: str, text: str) -> None:
    """All of `text` or nothing: a file that was there stays as it was until the new one is complete."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=".unfinished-", dir=os.path.dirname(target))
    except OSError as error:
        raise BadInput(f"{target}: cannot be written: {error.strerror or error}") from None
    try:
        with open(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes it private
        os.replace(temporary, target)
    except BaseException as error:  # Ctrl-C leaves nothing behind either
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise BadInput(f"{target}: cannot be written: {error.strerror or error}") from None
        raise


def _write_placed(target: str, lives: lives_csv.Lives, offsets: Sequence[Optional[int]]) -> None:
    try:
        lives_csv.write_placed(target, lives, [offset or 0 for offset in offsets])
    except lives_csv.LivesError as error:
        raise BadInput(_in_words(error)) from None


# ------------------------------------------------------------------------------------------------------------- words


def _in_words(error: object) -> str:
    return str(error) or type(error).__name__


# ----------------------------------------------------------------------------------------------------------- parsing


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m theano_memopt", description="Run Theano functions in less memory, and plan the memory of task graphs.")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    for verb in VERBS:
        one = verbs.add_parser(verb.name, help=verb.says, description=verb.says[0].upper() + verb.says[1:] + ".")
        verb.declare(one)
        one.set_defaults(verb=verb)
    return parser


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _budget(text: str) -> Budget:
    try:
        return parse_budget(text)
    except ValueError as no:
        raise argparse.ArgumentTypeError(str(no)) from None


def _share_of_time(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not (math.isfinite(share) and share >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share of the time, 0 or more")
    return share


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds

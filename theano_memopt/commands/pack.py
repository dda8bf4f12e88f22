"""`python -m theano_memopt pack LIVES.csv`: offsets in one arena for buffers with given lives."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Dict, Optional, Sequence

from theano_memopt.commands.base import DONE, BadInput, Verb, above, in_words, seconds, whole
from theano_memopt.commands.inputs import place_to_write, read_lives
from theano_memopt.options import PackOptions
from theano_memopt.planner import lives_csv
from theano_memopt.progress import progress_of

PACK_EFFORT = 10_000_000  # some tens of seconds on the hardest files; whoever packs by hand waits longer than a compiler may


class PackVerb(Verb):
    name = "pack"
    says = "lay buffers with given lives into one arena, as low as possible"
    examples = ("pack lives.csv", "pack --json lives.csv")

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("lives", metavar="LIVES.csv", help="columns id, lower, upper, size; a life is half-open")
        parser.add_argument("--capacity", type=whole, metavar="N", help="say whether it fits into so many bytes")
        parser.add_argument(
            "--effort", type=whole, default=PACK_EFFORT, metavar="CHOICES", help="choices that the search may make (default %(default)s)"
        )
        parser.add_argument(
            "--time", type=seconds, metavar="SECONDS", help="end the search after so long; the answer may then differ from run to run"
        )
        parser.add_argument("--out", metavar="PLACED.csv", help="write the lives with their offsets here")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    def run(self, parsed: argparse.Namespace) -> int:
        from theano_memopt.planner import arena as arenas

        out = place_to_write(parsed.out, parsed.lives)
        lives = read_lives(parsed.lives)
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


def _print_arena(source: str, answer: Dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(Text(f"{source}: {answer['buffers']} buffers"))
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("above the floor", justify="right", no_wrap=True)
    table.add_row("height: bytes reserved", f"{answer['height']:,}", above(answer["height"], answer["floor"]), style="bold")
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


def _write_placed(path: str, lives: lives_csv.Lives, offsets: Sequence[Optional[int]]) -> None:
    try:
        lives_csv.write_placed(path, lives, [offset or 0 for offset in offsets])
    except lives_csv.LivesError as error:
        raise BadInput(in_words(error)) from None

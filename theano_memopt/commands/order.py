"""`python -m theano_memopt order GRAPH.json`: the least-memory order of a graph, with a floor or a proof."""

from __future__ import annotations

import argparse
import json
import sys
from typing import List, Sequence

from theano_memopt.commands.base import DONE, Verb, above, seconds, whole
from theano_memopt.commands.inputs import place_to_write, read_graph, write_out
from theano_memopt.options import PlanOptions
from theano_memopt.planner import certificate, exact
from theano_memopt.planner.model import Graph
from theano_memopt.progress import printable, progress_of


class OrderVerb(Verb):
    name = "order"
    says = "find the order of a task graph that needs the least memory, and prove how low it can go"
    examples = ("order graph.json", "order --effort 100000 --out result.json graph.json")

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("graph", metavar="GRAPH.json")
        parser.add_argument("--effort", type=whole, metavar="STATES", help="states that the search may visit (default %(default)s)")
        parser.add_argument(
            "--time", type=seconds, metavar="SECONDS", help="end the search after so long; the answer may then differ from run to run"
        )
        parser.add_argument("--out", metavar="RESULT.json", help="write the result here, for `check`")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
        parser.set_defaults(effort=PlanOptions().effort)

    def run(self, parsed: argparse.Namespace) -> int:
        out = place_to_write(parsed.out, parsed.graph)
        graph = read_graph(parsed.graph)
        with progress_of(f"ordering {len(graph.tasks)} tasks") as progress:
            schedule = exact.minimise_peak(graph, PlanOptions(effort=parsed.effort, seconds=parsed.time, progress=progress))
        result = certificate.schedule_to_json(graph, schedule)
        text = json.dumps(result, allow_nan=False) + "\n"
        if out is not None:
            write_out(out, text)
        if parsed.json:
            sys.stdout.write(text)
        else:
            print_schedule(parsed.graph, graph, schedule)
        return DONE


def print_schedule(source: str, graph: Graph, schedule: certificate.Schedule) -> None:
    """In plain text, for a library of tables takes longer to import than a small graph to plan."""
    from theano_memopt.report.words import against_floor

    print(printable(f"{source}: {len(graph.tasks)} tasks, {len(graph.buffers)} buffers, sizes {graph.sizes_from}"))
    orders = sorted(schedule.competing, key=lambda row: (-row[1], row[0]))
    rows = [(printable(name), f"{peak:,}", above(peak, schedule.floor)) for name, peak in [*orders, (f"chosen: {schedule.method}", schedule.peak)]]
    for line in columns(("order", "peak, bytes", "above the floor"), [*rows, ("floor: no order needs less", f"{schedule.floor:,}", "")]):
        print(line)
    verdict, at = schedule.certificate, " at assumed sizes" if graph.sizes_assumed else ""
    if isinstance(verdict, certificate.Proven):
        print(f"Proven{at}: no order of these tasks has a lower peak. {verdict.proof.describe()}")
    else:
        print(
            f"Open{at}: {against_floor(schedule.peak, verdict.floor)}, and whether an order lies between is not known. "
            f"{verdict.reason}. The floor is proven: {verdict.proof.describe()}"
        )
    step = schedule.timeline.peak_step
    if schedule.order:
        print(f"The peak is reached at step {step + 1} of {len(schedule.order)}, task {printable(repr(graph.tasks[schedule.order[step]].label))}.")
    print(f"{schedule.states:,} states visited.")


def columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> List[str]:
    """Lines of a table under its titles: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows)]
    lines = [titles, ["-" * width for width in widths], *rows]
    return ["  ".join(f"{cell:{'>' if i else '<'}{widths[i]}}" for i, cell in enumerate(line)).rstrip() for line in lines]

"""A plan with repeats, as tables for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from theano_memopt.planner.budget import in_words
from theano_memopt.planner.recompute import Recomputed

SHOWN = 12
"""Tasks that run again: the dearest are named."""


def print_recomputed(source: str, plan: Recomputed) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"{source}: {len(plan.given.tasks)} tasks, {len(plan.given.values)} values, {plan.given.seconds:.6g} s"))
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("peak")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("extra time", justify="right", no_wrap=True)
    table.add_row("least found by order alone", f"{plan.ordered_peak:,}", "0 %")
    if plan.budget is not None:
        table.add_row("budget", f"{plan.budget:,}", "")
    table.add_row("with results made again", f"{plan.peak:,}", f"{plan.extra_percent:.2f} %", style="bold")
    table.add_row("floor under every sequence", f"{plan.floor.bytes:,}", "")
    console.print(table)
    tasks = plan.program.tasks
    dearest = sorted(plan.again, key=lambda row: -tasks[row[0]].seconds * row[1])
    if dearest:
        again = Table(show_edge=False, pad_edge=False)
        again.add_column(f"runs again ({len(dearest)} tasks)")
        again.add_column("times", justify="right")
        again.add_column("seconds", justify="right", no_wrap=True)
        for task, times in dearest[:SHOWN]:
            again.add_row(Text(tasks[task].label), str(times), f"{tasks[task].seconds * times:.3g}")
        if len(dearest) > SHOWN:
            again.add_row(f"{len(dearest) - SHOWN} more", "", "")
        console.print(again)
    for v in plan.opened:
        console.print(Text(f"{plan.program.values[v].label!r} has a place of its own, so that what it would overwrite stays."))
    console.print(Text(_verdict(plan)))


def _verdict(plan: Recomputed) -> str:
    owner = "the end, where all that is kept is there" if plan.floor.owner is None else f"task {plan.given.tasks[plan.floor.owner].label!r}"
    if plan.status == "fits" and plan.budget is not None and plan.budget >= plan.ordered_peak:
        return "Nothing to do: an order fits into the budget, and nothing runs again."
    if plan.status == "fits":
        return "It fits." if plan.budget is not None else "No lower peak was found within the extra time."
    assert plan.budget is not None
    below = f"no sequence at all goes below {in_words(plan.floor.bytes)} ({owner})"
    return f"It does not fit: asked {in_words(plan.budget)}, lowest found {in_words(plan.peak)}, {below}."

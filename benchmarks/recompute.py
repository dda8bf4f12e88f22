"""How good plans with repeats are: `make bench-recompute-planner`, or `python -m benchmarks.recompute`.

    real      eleven training functions: peaks within 2 % and 10 % more time, least time within 0.75, 0.5 and 0.35 of the least peak of any order
    small     random programs against every sequence with at most two runs a task: floors never above, and how far from the least time
    families  harder programs (program_families.py) at 0.9, 0.75 and 0.5
    solver    the same, smaller, beside a constraint solver that keeps to the least-peak order (solver_repeats.py)

Words
    extra     the time that runs beyond the first take, as a share of running everything once
    floor     no sequence is lower, however often it repeats; as a share of the least peak of any order
    cpu s     seconds of this machine's processor for one plan; they decide nothing

Every plan is checked, of the largest ones the sequence alone. What must not be is listed at the end, and the exit status is then 1: a plan that
the checker refuses, a floor above what brute force reaches.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from benchmarks import tables
from benchmarks.program_families import FAMILIES, SIZES, make_program
from benchmarks.solver_repeats import INSTALLED, least_time_along, without_aliasing
from tests.oracles import all_sequences
from theano_memopt.options import RecomputeOptions
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.model import GraphError
from theano_memopt.planner.program import Program, program_from_json
from theano_memopt.planner.recompute import Recomputed, check_recomputed, plan_recompute
from theano_memopt.planner.replay import replay

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT / "tests" / "programs" / "recompute"
REAL = ("z_mlp", "z_mlp_adam", "z_lenet", "z_resnet", "z_attention", "z_lstm", "resnet", "attention", "attn_adam", "lstm", "scan_rnn")
MOST_SEQUENCES = 2_000
CHECKED_UP_TO = 250
"""Tasks of a program whose whole plan is checked; of larger ones the sequence alone, since the proof of their order can take minutes."""
SECTIONS = ("real", "small", "families", "solver")

Row = Dict[str, Any]


class Book:
    """Rows of a section as they come, and what went wrong."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.wrong: List[str] = []

    def show(self, title: str, rows: Sequence[Row]) -> None:
        if rows:
            print(f"\n{title}\n{tables.text(rows)}", flush=True)
            tables.save(rows, self.out / f"{title.split(':')[0].replace(' ', '_')}.csv")

    def checked(self, name: str, plan: Recomputed) -> Recomputed:
        try:
            check_recomputed(plan)
        except Rejected as no:
            self.wrong.append(f"{name}: {no}")
        return plan


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parsed = _parser().parse_args(arguments)
    book = Book(Path(parsed.out))
    for section in parsed.only:
        {"real": real, "small": small, "families": families, "solver": solver}[section](parsed, book)
    for line in book.wrong:
        print(f"WRONG {line}")
    return 1 if book.wrong else 0


def frozen(name: str) -> Program:
    return program_from_json(json.loads((FROZEN / f"{name}.json").read_text(encoding="utf-8")))


def real(parsed: argparse.Namespace, book: Book) -> None:
    rows = []
    for name in REAL[:4] if parsed.quick else REAL:
        program = frozen(name)
        row: Row = {"program": name, "tasks": len(program.tasks)}
        for extra_time in (0.02, 0.10):
            plan, seconds = _timed(program, extra_time=extra_time)
            book.checked(name, plan)
            row.update(
                {
                    "ordered KiB": plan.ordered_peak // 1024,
                    f"within {extra_time:.0%}": plan.peak // 1024,
                    f"cpu s {extra_time:.0%}": round(seconds, 1),
                }
            )
        for share in (0.75, 0.5, 0.35):
            plan, seconds = _timed(program, budget_share=share)
            row.update({f"{share}": _outcome(book.checked(name, plan)), f"cpu s {share}": round(seconds, 1)})
        row["floor KiB"] = plan.floor.bytes // 1024
        rows.append(row)
    book.show("real programs: KiB within an extra time, extra time within a budget", rows)


def small(parsed: argparse.Namespace, book: Book) -> None:
    """Random programs of up to five tasks: the floor, the plan, and the best of all sequences."""
    chance, programs, budgets, tight, optimal = random.Random(1), 0, 0, 0, 0
    far: List[float] = []
    options = RecomputeOptions(simulations=60, may_open=False)
    while programs < (100 if parsed.quick else parsed.small):
        program = random_program(chance)
        sequences = [] if program is None else list(islice(all_sequences(program), MOST_SEQUENCES))
        if program is None or len(sequences) == MOST_SEQUENCES:
            continue
        programs += 1
        points = [(one.peak, one.extra_seconds) for one in (replay(program, sequence) for sequence in sequences)]
        least = min(peak for peak, _ in points)
        for budget in sorted({peak for peak, _ in points if peak})[:3]:
            plan = book.checked(f"small program {programs}", plan_recompute(program, budget_bytes=budget, options=options))
            best = min(extra for peak, extra in points if peak <= budget)
            budgets += 1
            optimal += plan.status == "fits" and plan.extra_seconds <= best + 1e-9
            far.append((plan.extra_seconds - best) / program.seconds if plan.status == "fits" and program.seconds else 0.0)
            if plan.floor.bytes > least:
                book.wrong.append(f"small program {programs}: the floor {plan.floor.bytes} is above the least peak {least}")
            if plan.status != "fits":
                book.wrong.append(f"small program {programs}: nothing found within {budget} bytes, which a sequence of two runs a task fits")
        tight += bool(points) and plan_floor_is(program, least)
    row = {"programs": programs, "floor is least peak": tight, "budgets": budgets, "least time found": optimal}
    book.show("small programs: beside every sequence", [{**row, "mean extra beyond": sum(far) / len(far), "worst": max(far)}])


def plan_floor_is(program: Program, least: int) -> bool:
    return plan_recompute(program, extra_time=0).floor.bytes == least


def families(parsed: argparse.Namespace, book: Book) -> None:
    rows = []
    for family in FAMILIES:
        for tasks in parsed.sizes or (SIZES[:2] if parsed.quick else SIZES):
            for seed in range(parsed.seeds):
                program = make_program(family, tasks, seed)
                row: Row = {"family": family, "seed": seed, "tasks": len(program.tasks)}
                for share in (0.9, 0.75, 0.5):
                    plan, seconds = _timed(program, budget_share=share)
                    if tasks <= CHECKED_UP_TO:
                        book.checked(f"{family} {tasks} {seed}", plan)
                    elif replay(plan.program, plan.sequence) != plan.replayed:
                        book.wrong.append(f"{family} {tasks} {seed}: the sequence is not what the plan says")
                    row.update({"floor": plan.floor.bytes / plan.ordered_peak, f"{share}": _outcome(plan), f"cpu s {share}": round(seconds, 1)})
                rows.append(row)
                print(" ".join(f"{key} {tables.shown(value)}" for key, value in row.items()), file=sys.stderr, flush=True)
    book.show("program families: extra time within a share of the least peak of any order", rows)


def solver(parsed: argparse.Namespace, book: Book) -> None:
    """Ratios are of extra times, ours and the solver's, where it proves its own the least: never 0, since the order itself needs more room."""
    if not INSTALLED:
        print("\nsolver: left out; `make solver` installs OR-Tools")
        return
    rows = []
    ratios: List[float] = []
    missed = 0
    for family in FAMILIES:
        asked = [make_program(family, tasks, 1) for tasks in ((20,) if parsed.quick else (20, 30, 40, 60))]
        programs = {len(program.tasks): without_aliasing(program) for program in asked}  # some families have a least size
        for tasks, program in programs.items():
            for share in (0.9, 0.75, 0.5):
                plan, seconds = _timed(program, budget_share=share)
                book.checked(f"{family} {tasks}", plan)
                assert plan.budget is not None
                judged = least_time_along(program, plan.ordered, plan.budget, parsed.patience)
                ratio = None
                if judged.sequence is not None:
                    replayed = replay(program, judged.sequence)
                    if replayed.peak > plan.budget or plan.floor.bytes > plan.budget:
                        book.wrong.append(f"{family} {tasks} {share}: the solver's peak is {replayed.peak}, the floor {plan.floor.bytes}")
                missed += judged.extra is not None and plan.status != "fits"
                if judged.extra and plan.status == "fits":
                    ratio = plan.extra_percent / 100 / judged.extra
                    ratios += [ratio] if judged.status == "optimal" else []
                rows.append(
                    {
                        "family": family,
                        "tasks": tasks,
                        "budget": share,
                        "ours": _outcome(plan),
                        "cpu s": round(seconds, 1),
                        "solver, one order": "none found" if judged.extra is None else f"{100 * judged.extra:.2f} %",
                        "status": judged.status,
                        "its s": round(judged.seconds, 1),
                        "ours / solver": ratio,
                    }
                )
                print(" ".join(map(str, rows[-1].values())), file=sys.stderr, flush=True)
    book.show("solver: beside a constraint solver, which keeps to one order", rows)
    if ratios:
        summary = {"proven optimal": len(ratios), "not above": sum(ratio <= 1 + 1e-6 for ratio in ratios), "missed by ours": missed}
        book.show("solver summary: ours / solver", [{**summary, "mean": sum(ratios) / len(ratios), "worst": max(ratios), "best": min(ratios)}])


def random_program(chance: random.Random) -> Optional[Program]:
    """Up to five tasks with every oddity: views, in-place results of given and of made values, kept values, tasks that run once only."""
    values: List[Row] = [{"name": "in", "bytes": 5}]
    tasks: List[Row] = []
    for t in range(chance.randint(3, 5)):
        reads = chance.sample([value["name"] for value in values], min(len(values), chance.randint(0, 3)))
        value: Row = {"name": f"v{t}", "bytes": chance.choice([0, 1, 2, 3, 5, 8]), "keep": chance.random() < 0.2}
        lies = chance.choice(["own", "own", "own", "view_of", "overwrites"])
        if reads and lies != "own":
            value[lies] = reads[0]
        values.append(value)
        tasks.append({"name": f"t{t}", "reads": reads, "writes": [f"v{t}"], "seconds": chance.choice([0, 1, 2, 5]), "again": chance.random() < 0.85})
    try:
        return program_from_json({"values": values, "tasks": tasks})
    except GraphError:  # it reads what it overwrote, say
        return None


def _timed(program: Program, **goal: Any) -> Tuple[Recomputed, float]:
    began = time.process_time()
    plan = plan_recompute(program, **goal)
    return plan, time.process_time() - began


def _outcome(plan: Recomputed) -> str:
    if plan.status == "fits":
        return f"{plan.extra_percent:.2f} %"
    return f"{plan.status}, least {plan.peak / plan.ordered_peak:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recompute", description="How good plans with repeats are.")
    parser.add_argument("--quick", action="store_true", help="a few minutes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="only these tables")
    parser.add_argument("--small", type=int, default=1000, metavar="COUNT", help="small programs (default %(default)s)")
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="TASKS", help="numbers of tasks of the families (default " + " ".join(map(str, SIZES)) + ")"
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="COUNT", help="programs of each family and size (default %(default)s)")
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="for each problem of the solver (default %(default)s)")
    parser.add_argument("--out", default=str(ROOT / "out" / "recompute"), metavar="FOLDER")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`python -m theano_memopt recompute PROGRAM.json`: less memory than any order needs, by running cheap tasks again."""

from __future__ import annotations

import argparse
import json
import sys

from theano_memopt.commands.base import DONE, Verb, budget, seconds, share_of_time, whole
from theano_memopt.commands.inputs import place_to_write, read_program, write_out
from theano_memopt.options import RecomputeOptions
from theano_memopt.planner.budget import Budget
from theano_memopt.progress import progress_of


class RecomputeVerb(Verb):
    name = "recompute"
    says = "run cheap tasks of a program again, for less memory than any order needs"
    examples = ("recompute program.json --budget 0.5", "recompute program.json --extra-time 0.02 --out result.json")

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("program", metavar="PROGRAM.json")
        goal = parser.add_mutually_exclusive_group(required=True)
        goal.add_argument(
            "--budget", type=budget, metavar="SHARE|BYTES", help="least extra time within 0.5, or 50%%, of the least peak of any order, or 500MB"
        )
        goal.add_argument("--extra-time", type=share_of_time, metavar="SHARE", help="least peak within so much extra time: 0.02, or 2%%")
        parser.add_argument("--effort", type=whole, metavar="N", help="simulations that the search may make (default: by the size of the program)")
        parser.add_argument(
            "--time", type=seconds, metavar="SECONDS", help="end the search after so long; the answer may then differ from run to run"
        )
        parser.add_argument("--out", metavar="RESULT.json", help="write the result here, for `check`")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")

    def run(self, parsed: argparse.Namespace) -> int:
        out = place_to_write(parsed.out, parsed.program)
        from theano_memopt.planner.recompute import plan_recompute
        from theano_memopt.planner.recompute_result import result_to_json

        program = read_program(parsed.program)
        wanted: Budget = parsed.budget or Budget(None, None)
        with progress_of(f"planning {len(program.tasks)} tasks") as progress:
            options = RecomputeOptions(simulations=parsed.effort, seconds=parsed.time, progress=progress)
            plan = plan_recompute(program, wanted.bytes, wanted.share, parsed.extra_time, options)
        text = json.dumps(result_to_json(plan), allow_nan=False) + "\n"
        if out is not None:
            write_out(out, text)
        if parsed.json:
            sys.stdout.write(text)
        else:
            from theano_memopt.commands.recompute_tables import print_recomputed

            print_recomputed(parsed.program, plan)
        return DONE

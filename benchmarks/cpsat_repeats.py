"""An outside judge for small programs: least extra time for ONE fixed order, by the constraint solver of OR-Tools.

Run by another Python, which has `ortools`; the package itself never needs it. A problem comes as JSON on standard input, the answer goes as
JSON to standard output.

    {"sizes": [...], "ticks": [...], "reads": [[...], ...], "keep": [...], "budget": B, "seconds": S}      task i writes value i

The model is the one of Checkmate (Jain et al., 2020). Stage t ends with the first run of task t; within a stage tasks run in their order.

    run[t, i]     task i runs in stage t                 run[t, t] = 1
    has[t, i]     value i is there when stage t begins   needs run or has in the stage before
    live[t, k, i] value i is there while task k runs     if it is there and somebody after k in this stage, or the next stage, has it
"""

from __future__ import annotations

import json
import sys
from typing import Any, Dict


def solve(problem: Dict[str, Any]) -> Dict[str, Any]:
    from ortools.sat.python import cp_model

    sizes, ticks, reads, budget = problem["sizes"], problem["ticks"], problem["reads"], problem["budget"]
    n = len(sizes)
    model = cp_model.CpModel()
    run = {(t, i): model.NewBoolVar(f"run {t} {i}") for t in range(n) for i in range(t + 1)}
    has = {(t, i): model.NewBoolVar(f"has {t} {i}") for t in range(1, n + 1) for i in range(t)}
    readers = [[j for j in range(n) if i in reads[j]] for i in range(n)]
    for t in range(n):
        model.Add(run[t, t] == 1)
        there = {}
        for i in range(t + 1):
            there[i] = model.NewBoolVar("")
            model.AddImplication(run[t, i], there[i])
            if (t, i) in has:
                model.AddImplication(has[t, i], there[i])
                model.AddBoolOr([there[i].Not(), run[t, i], has[t, i]])
            else:
                model.AddImplication(there[i], run[t, i])
            model.AddImplication(has[t + 1, i], there[i])
        for j in range(t + 1):
            for i in reads[j]:
                model.AddImplication(run[t, j], there[i])
        for k in range(t + 1):
            load = []
            for i in range(t + 1):
                present = there[i] if i <= k else has.get((t, i))
                if present is None:
                    continue
                live = model.NewBoolVar("")
                model.AddBoolOr([present.Not(), has[t + 1, i].Not(), live])
                for j in readers[i]:
                    if k <= j <= t:
                        model.AddBoolOr([present.Not(), run[t, j].Not(), live])
                if i == k:
                    model.AddImplication(run[t, k], live)
                load.append(sizes[i] * live)
            model.Add(sum(load) <= budget)
    for i in problem["keep"]:
        model.Add(has[n, i] == 1)
    model.Minimize(sum(ticks[i] * var for (_, i), var in run.items()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = problem["seconds"]
    solver.parameters.num_workers = 1
    status = solver.Solve(model)
    known = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return {
        "status": solver.StatusName(status).lower(),
        "ticks": round(solver.ObjectiveValue()) - sum(ticks) if known else None,
        "least": round(solver.BestObjectiveBound()) - sum(ticks) if known else None,
        "seconds": solver.WallTime(),
    }


if __name__ == "__main__":
    json.dump(solve(json.load(sys.stdin)), sys.stdout)

"""An outside judge of plans with repeats: the least extra time for ONE fixed order, by the constraint solver of OR-Tools.

A tool of tests and benchmarks alone; `make solver` installs it, and without it they leave the judge out. Nothing of the planner is used but its
words: the model below counts bytes by itself, and whoever asks can replay the sequence that it answers.

The model is the one of Checkmate (Jain et al., 2020). Stage t ends with the first run of task t of the order, and one more stage comes after the
last; within a stage each task runs once at most, and they run in order.

    run[t, i]     task i runs in stage t                 run[t, t] = 1
    has[t, i]     value i is there when stage t begins   needs run or has in the stage before
    live[t, k, i] value i is there while task k runs     if it is there and somebody after k in this stage, or the next stage, has it

So views and in-place results are not in it: `without_aliasing` gives every value memory of its own first.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple, Optional, Sequence, Tuple

from theano_memopt.planner.evict import TICKS, flatten
from theano_memopt.planner.program import Program, program_from_json

INSTALLED = find_spec("ortools") is not None


class Judged(NamedTuple):
    status: str
    """`optimal`, `feasible` (no proof in time), `infeasible`, `unknown`."""
    sequence: Optional[Tuple[int, ...]]
    """Tasks with repeats; none if none was found."""
    extra: Optional[float]
    """The time beyond running everything once, as a share of that."""
    least: Optional[float]
    """No sequence along this order takes less."""
    seconds: float


def least_time_along(program: Program, order: Sequence[int], budget: int, patience: float) -> Judged:
    """The least extra time within `budget` bytes, for sequences in stages along `order`."""
    from ortools.sat.python import cp_model

    place = {task: i for i, task in enumerate(order)}
    made_by = {v: place[value.producer] for v, value in enumerate(program.values) if value.producer is not None}
    tasks = [program.tasks[task] for task in order]
    sizes = [sum(program.values[v].size for v in task.writes) for task in tasks]
    reads = [sorted({made_by[v] for v in task.reads if v in made_by}) for task in tasks]
    keep = sorted({made_by[v] for v in made_by if program.values[v].keep})
    ticks = [flatten(program).ticks[task] for task in order]
    n = len(order)
    model = cp_model.CpModel()
    run = {(t, i): model.NewBoolVar(f"run {t} {i}") for t in range(n + 1) for i in range(min(t + 1, n))}
    has = {(t, i): model.NewBoolVar(f"has {t} {i}") for t in range(1, n + 2) for i in range(min(t, n))}
    readers = [[j for j in range(n) if i in reads[j]] for i in range(n)]
    for t in range(n + 1):
        here = range(min(t + 1, n))
        if t < n:
            model.Add(run[t, t] == 1)
        there = {}
        for i in here:
            there[i] = model.NewBoolVar("")
            model.AddImplication(run[t, i], there[i])
            if (t, i) in has:
                model.AddImplication(has[t, i], there[i])
                model.AddBoolOr([there[i].Not(), run[t, i], has[t, i]])
            else:
                model.AddImplication(there[i], run[t, i])
            model.AddImplication(has[t + 1, i], there[i])
        for j in here:
            for i in reads[j]:
                model.AddImplication(run[t, j], there[i])
        for k in here:
            load = []
            for i in here:
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
    for i in keep:
        model.Add(has[n + 1, i] == 1)
    model.Minimize(sum(ticks[i] * var for (_, i), var in run.items()))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = patience
    solver.parameters.num_workers = 1
    status = solver.Solve(model)
    known = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return Judged(
        solver.StatusName(status).lower(),
        tuple(order[i] for (_, i), var in run.items() if solver.Value(var)) if known else None,
        (solver.ObjectiveValue() - sum(ticks)) / TICKS if known else None,
        (solver.BestObjectiveBound() - sum(ticks)) / TICKS if known else None,
        solver.WallTime(),
    )


def without_aliasing(program: Program) -> Program:
    """Every value in memory of its own, and every task may run again."""
    return program_from_json(
        {
            "values": [{"name": v.label, "bytes": v.size, "keep": v.keep} for v in program.values],
            "tasks": [
                {
                    "name": t.label,
                    "reads": [program.values[v].label for v in t.reads],
                    "writes": [program.values[v].label for v in t.writes],
                    "seconds": t.seconds,
                }
                for t in program.tasks
            ],
        }
    )

"""`make bench-recompute`: results that run again on Theano's machine, on the models of the demo; prints tables, writes out/repeats/*.csv.

    goals    every model at an extra time of 2 % and at budgets of 0.75, 0.5 and 0.35 of the least peak of any order: planned and measured
             peak, estimated and measured time, bits
    costs    the coefficients of read/costs.py beside measured times of the tasks: how well they rank, and how far they are off; once by
             model and once by kind of op, elementwise ones by the dearest operation in them

Words
    ordered      the pass alone, with nothing run twice; stock is Theano without the pass; all with allow_gc=True on the CVM
    measured     the most bytes that one call holds, by tracemalloc
    workspace    what ops take for themselves on top of the plan, as `profile` measures it: explained = plan + workspace
    beside       processor time of a call over that of another function, in turns in one process, the median over the turns
    same         losses and all weights are equal in every bit to stock's over five steps
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from benchmarks import tables
from benchmarks.turns import GLIBC

Row = Dict[str, Any]
GOALS: Tuple[Tuple[str, Dict[str, Any]], ...] = (
    ("2 % time", {"extra_time": 0.02}),
    ("0.75", {"budget": "0.75"}),
    ("0.5", {"budget": "0.5"}),
    ("0.35", {"budget": "0.35"}),
)
SECTIONS = ("goals", "costs")
TABLES = ("goals", "costs", "costs_by_kind")
STEPS = 5
CALLS = 20
"""For the times of tasks."""
LONG = 20e-6
"""Seconds. Of shorter tasks it is the clock that is measured: they count for sums alone."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Times are of the calling thread."""
PLACE = Path("out") / "repeats"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repeats", description="Results that run again, on Theano.")
    parser.add_argument("--models", help="comma separated; default all")
    parser.add_argument("--size", type=int, default=1, help="divide the sizes of the models by this")
    parser.add_argument("--seconds", type=float, default=6.0, help="of calls per model and goal (default %(default)s)")
    parser.add_argument("--blas", choices=("scipy", "theano"), default="scipy", help="SciPy's, or what Theano finds (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="only these tables")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.blas == "scipy":  # for this process and for the others
        os.environ["THEANO_FLAGS"] = ",".join([*filter(None, [os.environ.get("THEANO_FLAGS")]), "mem_reuse.blas=scipy"])
    if given.child:
        print(json.dumps(measure(given.child, given.size, given.seconds, given.only[0])))
        return 0
    from theano_memopt.demo import models

    found: Dict[str, List[Any]] = {"goals": [], "costs": [], "tasks": []}
    for name in given.models.split(",") if given.models else list(models.MODELS):
        for section in given.only:
            command = [sys.executable, "-m", "benchmarks.repeats", "--child", name, "--only", section]
            command += ["--size", str(given.size), "--seconds", str(given.seconds), "--blas", given.blas]
            environment = {**os.environ, **ONE_THREAD, **(GLIBC if section == "costs" else {})}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            of_model = json.loads(done.stdout.splitlines()[-1])
            print(tables.text(of_model[section], left=1 + (section == "goals")), end="\n\n", flush=True)
            for table, rows in of_model.items():
                found[table] += rows
            if found["tasks"]:
                found["costs_by_kind"] = by_kind(found["tasks"])
            for table in (table for table in TABLES if found.get(table)):
                tables.save(found[table], PLACE / f"{table}.csv")
    for table in (table for table in TABLES if found.get(table)):
        print(tables.markdown(found[table]))
    return 0


# --- one model, in a process of its own ----------------------------------------------------------------------------------


def measure(name: str, size: int, seconds: float, section: str) -> Dict[str, List[Any]]:
    """The rows of some tables."""
    if section == "goals":
        return {"goals": goals(name, size, seconds)}
    ordered, made = compiled(name, size, {})
    tasks = task_times(ordered, made.batch)
    return {"tasks": tasks, "costs": [summary({"model": name}, tasks)]}


def goals(name: str, size: int, seconds: float) -> List[Row]:
    import theano_memopt
    from theano_memopt.hosts.theano.measure import memory

    stock, wanted = compiled(name, size, None)
    bits = story(stock, wanted)
    ordered, made = compiled(name, size, {})
    story(ordered, made)
    least = theano_memopt.plan_of(ordered).schedule.peak
    rows = []
    for goal, chosen in GOALS:
        function, made = compiled(name, size, chosen)
        same = story(function, made) == bits
        comparison = theano_memopt.profile(function, *made.batch)
        repeats = comparison.report.repeats
        times = in_turns([stock, ordered, function], made.batch, seconds)
        rows.append(
            {
                "model": name,
                "goal": goal,
                "least by order, KB": kilobytes(least),
                "planned, KB": kilobytes(comparison.report.peak),
                "measured, KB": kilobytes(memory.held_by_call(function, *made.batch).peak),
                "explained, KB": kilobytes(comparison.explained_peak),
                "floor, KB": kilobytes(repeats.floor),
                "run again": sum(row.times for row in repeats.again),
                "estimated, %": 100 * repeats.extra_share,
                "beside ordered, %": 100 * (times[2] / times[1] - 1),
                "beside stock, %": 100 * (times[2] / times[0] - 1),
                "same": "yes" if same else "NO",
            }
        )
    return rows


def compiled(name: str, size: int, chosen: Optional[Dict[str, Any]]) -> Tuple[Any, Any]:
    """The training step of a model; None: without the pass."""
    from theano.compile.mode import Mode

    import theano_memopt
    from theano_memopt.demo import models

    base = Mode("cvm", "fast_run")
    made = models.build(name, size)
    for variable, array in zip(made.inputs, made.batch):
        theano_memopt.hint(variable, array.shape)
    mode = base.excluding("mem_reuse", "mem_recompute") if chosen is None else theano_memopt.mode(base, **{"extra_time": 0.0, **chosen})
    return made.compile(mode), made


def story(function: Any, made: Any) -> List[bytes]:
    """Five losses, and the weights after them."""
    losses = [np.asarray(function(*made.batch)).tobytes() for _ in range(STEPS)]
    return losses + [np.asarray(weight.get_value()).tobytes() for weight, _ in made.updates]


def in_turns(functions: Sequence[Any], batch: Sequence[Any], seconds: float) -> List[float]:
    """Processor seconds of a call of each."""
    spent: List[List[float]] = [[] for _ in functions]
    until = time.process_time() + seconds
    gc.collect()
    gc.disable()
    try:
        while time.process_time() < until or len(spent[0]) < 5:
            for function, times in zip(functions, spent):
                function(*batch)  # the caches were others' meanwhile
                began = time.thread_time()
                function(*batch)
                times.append(time.thread_time() - began)
    finally:
        gc.enable()
    first = spent[0]
    ratios = [statistics.median(time / other for time, other in zip(times, first)) for times in spent]
    return [ratio * statistics.median(first) for ratio in ratios]


def kilobytes(size: int) -> int:
    return round(size / 1024)


# --- costs ---------------------------------------------------------------------------------------------------------------


def task_times(function: Any, batch: Sequence[Any]) -> List[Tuple[str, float, float]]:
    """Of each task its kind, the estimate, and its processor time in the quickest quarter of some calls, since others may use the machine. The
    process keeps its memory (GLIBC): what the kernel takes to hand out pages is no matter of a task."""
    from theano_memopt.hosts.theano.measure.twins import twin
    from theano_memopt.hosts.theano.read.assumed_sizes import Sizes
    from theano_memopt.hosts.theano.read.program import read_program

    fgraph = function.maker.fgraph
    nodes = fgraph.toposort()
    sizes = Sizes(fgraph, nodes, 128)
    program = read_program(fgraph, nodes, {}, sizes.shape_of).program
    taken: Dict[Any, List[float]] = {}

    def around(node: Any, thunk: Any) -> Any:
        began = time.thread_time()
        asked_for = thunk()
        taken.setdefault(node, []).append(time.thread_time() - began)
        return asked_for

    timed = twin(function, around, copies_of_shared=True)
    for _ in range(CALLS):
        timed(*batch)
    return [(kind_of(node.op), task.seconds, sorted(taken[node])[len(taken[node]) // 4]) for task, node in zip(program.tasks, nodes) if node in taken]


def kind_of(op: Any) -> str:
    from theano import tensor

    from theano_memopt.hosts.theano.read import costs

    if not isinstance(op, tensor.Elemwise):
        return costs.stock_name(op)
    inner = getattr(op.scalar_op, "fgraph", None)
    dearest = max(map(costs.of_one_number, [op.scalar_op] if inner is None else [node.op for node in inner.apply_nodes]))
    kinds = {costs.TANH: "like tanh", costs.EXP: "like exp", costs.SLOW: "quotients and roots", 0.0: "plain"}
    return "Elemwise, " + next(kind for cost, kind in kinds.items() if dearest >= cost)


def by_kind(tasks: Sequence[Tuple[str, float, float]]) -> List[Row]:
    """Those that take the most time first."""
    kinds: Dict[str, List[Tuple[str, float, float]]] = {}
    for task in tasks:
        kinds.setdefault(task[0], []).append(task)
    in_all = sum(measured for _, _, measured in tasks)
    rows = [{**summary({"kind": kind}, found), "share of time, %": 100 * sum(task[2] for task in found) / in_all} for kind, found in kinds.items()]
    return sorted(rows, key=lambda row: -float(row["share of time, %"]))


def summary(head: Row, tasks: Sequence[Tuple[str, float, float]]) -> Row:
    long = [(estimate, measured) for _, estimate, measured in tasks if measured > LONG]
    ratios = sorted(estimate / measured for estimate, measured in long)
    return {
        **head,
        "tasks": len(tasks),
        "over 20 us": len(long),
        "rank correlation": rank_correlation(long),
        "estimate / measured, 10 %": quantile(ratios, 0.1),
        "median": quantile(ratios, 0.5),
        "90 %": quantile(ratios, 0.9),
        "in all": sum(task[1] for task in tasks) / sum(task[2] for task in tasks),
    }


def rank_correlation(pairs: Sequence[Tuple[float, float]]) -> Any:
    """Spearman's; ties get their mean rank."""
    if len(pairs) < 3:
        return "-"
    ranks = [_ranks([pair[side] for pair in pairs]) for side in (0, 1)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Sequence[float]) -> List[float]:
    return [sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2 for value in values]


def quantile(values: Sequence[float], share: float) -> Any:
    return values[min(len(values) - 1, int(share * len(values)))] if values else "-"


if __name__ == "__main__":
    sys.exit(main())

"""What the pass costs and gains as graphs grow: `make bench-scale`, or `python -m benchmarks.scale`.

    lstm      unrolled, with its gradient: long and narrow
    residual  a deep residual network of dense layers, with its gradient: every block adds to one long sum

Words
    nodes     of the optimized graph
    added     seconds that theano.function takes longer with the pass, in this process, with a warm C cache
    / floor   how far a peak can be above the floor; "proven" where ours is not
    slope     the exponent e in added ~ nodes^e, between the smallest graph and the largest

Theano's own rewrites take minutes on thousands of nodes and say nothing about the pass, so graphs are compiled in FAST_COMPILE's
way here (a few rewrites, Python thunks); `--mode FAST_RUN` compiles in full. Theano's gradient and its cloning recurse once per
node, so all of this runs on a deep stack; the pass itself is held to Python's usual limit.
"""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Tuple
from unittest import mock

from benchmarks import tables
from benchmarks.turns import Row, say

SIZES = (1_000, 5_000, 19_500, 22_000)
"""The last is beyond the cap, `mem_reuse.max_nodes`."""
PLACE = Path("out") / "bench" / "scale.csv"
USUAL_LIMIT = 1_000
Graph = Tuple[List[Any], List[Any]]


def lstm(steps: int) -> Graph:
    import theano.tensor as tt

    width = 16
    x, into, again = tt.ftensor3("x"), tt.fmatrix("into"), tt.fmatrix("again")
    h = c = tt.zeros((x.shape[1], width), "float32")
    for step in range(steps):
        gates = tt.dot(x[step], into) + tt.dot(h, again)
        i, f, o = (tt.nnet.sigmoid(gates[:, k * width : (k + 1) * width]) for k in range(3))
        c = f * c + i * tt.tanh(gates[:, 3 * width :])
        h = o * tt.tanh(c)
    loss = (h**2).sum()
    return [x, into, again], [loss, *tt.grad(loss, [into, again])]


def residual(blocks: int) -> Graph:
    import theano.tensor as tt

    x = h = tt.fmatrix("x")
    weights = [tt.fmatrix(f"w{i}") for i in range(blocks)]
    for w in weights:
        h = h + tt.tanh(tt.dot(tt.nnet.relu(h), w))
    loss = (h**2).sum()
    return [x, *weights], [loss, *tt.grad(loss, weights)]


FAMILIES: Dict[str, Callable[[int], Graph]] = {"long_lstm": lstm, "deep_residual": residual}


def measure(family: str, wanted: int, mode: str, per_step: float) -> Row:
    import theano

    import theano_memopt

    inputs, outputs = FAMILIES[family](max(2, round(wanted / per_step)))
    say(f"{family}, about {wanted:,} nodes: stock")
    _, stock = _timed(lambda: theano.function(inputs, outputs, mode=theano.compile.mode.get_mode(mode).excluding("mem_reuse")))
    say(f"{family}, about {wanted:,} nodes: with the pass (stock took {stock:.1f} s)")
    with planning_on_a_usual_stack():
        function, ours = _timed(lambda: theano.function(inputs, outputs, mode=theano_memopt.mode(mode)))
    nodes = len(function.maker.fgraph.apply_nodes)
    row: Row = {"family": family, "nodes": nodes, "stock, s": stock, "added, s": ours - stock, "added, %": 100 * (ours / stock - 1)}
    plan = theano_memopt.plan_of(function)
    if not plan:
        row.update({"added, s": "", "added, %": ""})  # nothing was planned: the difference is noise
        return {**row, "toposort / floor": "", "CVM / floor": "", "ours / floor": "", "": plan.reason if plan is not None else "off"}
    schedule, competing = plan.schedule, dict(plan.schedule.competing)
    for name, peak in (("toposort", competing["toposort"]), ("CVM", competing["cvm"]), ("ours", schedule.peak)):
        row[f"{name} / floor"] = peak / schedule.floor
    return {**row, "": ("proven" if schedule.proven else "open") + (" at assumed sizes" if plan.sizes == "assumed" else "")}


def planning_on_a_usual_stack() -> ContextManager[Any]:
    from theano_memopt.hosts.theano.optimize import feature

    annotate = feature.annotate

    def limited(*arguments: Any) -> Any:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(USUAL_LIMIT)
        try:
            return annotate(*arguments)
        finally:
            sys.setrecursionlimit(limit)

    return mock.patch.object(feature, "annotate", limited)


def on_a_deep_stack(work: Callable[[], Any]) -> Any:
    answers: List[Any] = []
    limit, size = sys.getrecursionlimit(), threading.stack_size(1 << 30)
    sys.setrecursionlimit(1_000_000)
    try:
        thread = threading.Thread(target=lambda: answers.append(work()))
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(size)
    return answers[0] if answers else 1  # the thread has shown its traceback


def _timed(work: Callable[[], Any]) -> Tuple[Any, float]:
    began = time.perf_counter()
    made = work()
    return made, time.perf_counter() - began


def nodes_per_step(family: str, mode: str) -> float:
    import theano

    sizes = []
    for steps in (4, 8):
        inputs, outputs = FAMILIES[family](steps)
        function = theano.function(inputs, outputs, mode=theano.compile.mode.get_mode(mode).excluding("mem_reuse"))
        sizes.append(len(function.maker.fgraph.apply_nodes))
    return (sizes[1] - sizes[0]) / 4


def slope(rows: Sequence[Row]) -> float:
    first, last = rows[0], rows[-1]
    return math.log(last["added, s"] / first["added, s"]) / math.log(last["nodes"] / first["nodes"])


def main(arguments: Optional[Sequence[str]] = None) -> int:
    import theano_memopt  # noqa: F401 - first: it puts right what Theano needs

    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=str(__doc__).splitlines()[0])
    parser.add_argument("--nodes", default=",".join(map(str, SIZES)), help="sizes of the graphs, about (default %(default)s)")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--mode", default="FAST_COMPILE")
    given = parser.parse_args(arguments)
    rows: List[Row] = []
    for family in given.families.split(","):
        per_step = nodes_per_step(family, given.mode)
        mine = []
        for wanted in map(int, given.nodes.split(",")):
            mine.append(measure(family, wanted, given.mode, per_step))
            print(tables.text(mine[-1:], left=1), flush=True)
        planned = [row for row in mine if row["added, s"] != "" and row["added, s"] > 0]
        if len(planned) > 1:
            print(f"{family}: added time grows as nodes^{slope(planned):.2f}", flush=True)
        rows += mine
    tables.save(rows, PLACE)
    print("\n" + tables.text(rows, left=1))
    return 0


if __name__ == "__main__":
    sys.exit(on_a_deep_stack(main))

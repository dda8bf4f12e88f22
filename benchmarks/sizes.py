"""How far an order carries: the peak at other sizes of the order that is the best at one, beside the best there.

    python -m benchmarks.sizes

Each model is planned for a batch, then asked what its order needs for a batch so many times as large or as small. From these rows comes
SIZES_ALIKE in hosts/theano/run/sized_call.py: the factor up to which a function keeps its order without looking for another.
"""

from __future__ import annotations

from typing import Any, Dict, List

import theano_memopt
from benchmarks import tables
from theano_memopt.demo import models

FACTORS = (1.25, 1.5, 2, 3, 4, 8)
SMALLER = 4
"""The models' own sizes are divided by this: orders are looked for, and nothing runs."""


def order_and_graph(function: Any, model: Any, factor: float) -> Any:
    """What would run for a batch of this factor, and the graph at its sizes."""
    batch = model.batch[0].shape[0]
    shapes = [(max(1, int(n * factor)) if axis == 0 and n == batch else n for axis, n in enumerate(data.shape)) for data in model.batch]
    return theano_memopt.explain(function, *map(tuple, shapes))


def loss(at_base: Any, there: Any) -> float:
    """How much more the order of the one needs at the sizes of the other than the best order known there."""
    from theano_memopt.planner.liveness import timeline

    return timeline(there.graph, at_base.order).peak / there.peak


def main() -> None:
    worst: Dict[float, List[float]] = {factor: [] for factor in FACTORS}
    for name in models.MODELS:
        model = models.build(name, SMALLER)
        function = model.compile(theano_memopt.mode("FAST_RUN", storage="share"))
        base = order_and_graph(function, model, 1)
        for factor in FACTORS:
            found = [loss(base, order_and_graph(function, model, f)) for f in (factor, 1 / factor)]
            worst[factor].append(max(found))
    rows = [{"factor": factor, "models": len(ratios), "mean": sum(ratios) / len(ratios), "most": max(ratios)} for factor, ratios in worst.items()]
    print(tables.text(rows, left=1))


if __name__ == "__main__":
    main()

"""Shapes that never come again, without gc: what a function with the pass costs beside stock, in turns.

    python -m benchmarks.changing_shapes [CALLS]

Both functions are called with the same arrays, one after the other, who is first changing with each call; the figure is the
processor time of all calls of one divided by that of the other. The first calls, which the pass still plans for, are in it.
"""

from __future__ import annotations

import sys
import time
from typing import Any, List

import numpy as np

import theano_memopt

LONGEST = 100
"""Of either side: more calls than LONGEST * LONGEST come to shapes that were there before."""


def compiled(mode: Any, layers: int = 6) -> Any:
    """Some layers of products and elementwise operations on an array whose sides are both free, and the gradient."""
    import theano
    import theano.tensor as tt

    x = tt.matrix("x")
    y = x
    for _ in range(layers):
        y = tt.tanh(tt.dot(y, y.T).dot(x) * 1e-3)
    return theano.function([x], [y.sum(), tt.grad((y**2).sum(), x)], mode=mode)


def main(calls: int) -> None:
    assert theano_memopt.plan_of  # it prepares what Theano needs, before that is imported
    from theano import config
    from theano.compile.mode import Mode

    stock = compiled(Mode("cvm_nogc", "fast_run").excluding("mem_reuse"))
    ours = compiled(theano_memopt.mode(Mode("cvm_nogc", "fast_run"), storage="arena"))
    spent: List[float] = [0.0, 0.0]
    random = np.random.RandomState(0)
    for number in range(calls):
        rows, columns = number % LONGEST, number // LONGEST % LONGEST
        x = random.normal(0, 1, (20 + rows, 20 + columns)).astype(config.floatX)
        for which in (0, 1) if number % 2 else (1, 0):
            begin = time.process_time()
            (stock, ours)[which](x)
            spent[which] += time.process_time() - begin
    print(f"{calls} calls: stock {spent[0]:.2f} s, with the pass {spent[1]:.2f} s, ratio {spent[1] / spent[0]:.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)

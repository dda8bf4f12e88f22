"""Hypothesis strategies: graphs with every oddity that the model allows."""

from __future__ import annotations

from typing import Any, List

from hypothesis import strategies as st

from theano_memopt.planner.model import Graph, build_graph


@st.composite
def graphs(draw: Any, least: int = 1, most: int = 8) -> Graph:
    """Random graphs: zero sizes, inputs, shared readers, tasks that write nothing or several buffers, kept buffers, bare edges."""
    count = draw(st.integers(least, most))
    buffers = {}
    inputs = [f"in{i}" for i in range(draw(st.integers(0, 2)))]
    for name in inputs:
        buffers[name] = draw(st.integers(0, 20))
    tasks: List[Any] = []
    written: List[str] = []
    for t in range(count):
        reads = draw(st.lists(st.sampled_from(inputs + written), max_size=3, unique=True)) if inputs + written else []
        writes = []
        for k in range(draw(st.sampled_from([1, 1, 1, 1, 0, 2]))):
            name = f"b{t}_{k}"
            buffers[name] = draw(st.sampled_from([0, 1, 1, 2, 3, 5, 8, 13, 20]))
            writes.append(name)
        after = draw(st.lists(st.integers(0, t - 1), max_size=1)) if t else []
        tasks.append((f"t{t}", reads, writes, [f"t{i}" for i in after]))
        written += writes
    keep = draw(st.lists(st.sampled_from(written), max_size=2, unique=True)) if written else []
    return build_graph(buffers, tasks, keep)

"""Hypothesis strategies: graphs and programs with every oddity that the models allow."""

from __future__ import annotations

from typing import Any, Dict, List

from hypothesis import strategies as st

from theano_memopt.planner.model import Graph, build_graph
from theano_memopt.planner.program import Program, program_from_json


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


@st.composite
def programs(draw: Any, least: int = 1, most: int = 6) -> Program:
    """Random programs: views, in-place results of given and of made values, chains of them, kept values, tasks that run once only."""
    values: List[Dict[str, Any]] = [{"name": f"in{i}", "bytes": draw(st.integers(0, 9))} for i in range(draw(st.integers(0, 2)))]
    intact = [[value["name"]] for value in values]  # contents that are there in the numbered order: a value and its views
    tasks: List[Any] = []
    for t in range(draw(st.integers(least, most))):
        names = [name for content in intact for name in content]
        reads = draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else []
        writes = []
        for k in range(draw(st.sampled_from([1, 1, 1, 1, 2, 0]))):
            name = f"v{t}_{k}"
            free = [c for c in intact if set(c) & set(reads) and not set(c) & set(writes)]
            home = draw(st.sampled_from(["own", "own", "own", "view", "in place"])) if free else "own"
            content = draw(st.sampled_from(free)) if free else []
            value = {"name": name, "bytes": draw(st.sampled_from([0, 1, 1, 2, 3, 5, 8, 13]))}
            if home == "view":
                value["view_of"] = next(read for read in reads if read in content)
                content.append(name)
            else:
                if home == "in place":
                    value["overwrites"] = next(read for read in reads if read in content)
                    intact.remove(content)
                intact.append([name])
            values.append(value)
            writes.append(name)
        after = [f"t{i}" for i in draw(st.lists(st.integers(0, t - 1), max_size=1))] if t else []
        seconds = draw(st.sampled_from([0, 0.5, 1, 1, 2, 5]))
        again = draw(st.sampled_from([True, True, True, True, True, False]))
        tasks.append({"name": f"t{t}", "reads": reads, "writes": writes, "after": after, "seconds": seconds, "again": again})
    written = {name for task in tasks for name in task["writes"]}
    may_keep = sorted(name for content in intact for name in content if name in written)
    kept = draw(st.lists(st.sampled_from(may_keep), max_size=2, unique=True)) if may_keep else []
    for value in values:
        value["keep"] = value["name"] in kept
    return program_from_json({"values": values, "tasks": tasks})

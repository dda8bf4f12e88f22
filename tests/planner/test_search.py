"""The budget search: right on small graphs, and the same in both its twins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.families import FAMILIES, make_graph, small_graph
from tests.oracles import least_peak_by_memo
from tests.strategies import graphs
from theano_memopt.options import Prunings
from theano_memopt.planner import kernel
from theano_memopt.planner.kernel import CompiledKernel, PythonKernel, kernel_for
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, build_graph, worked_example
from theano_memopt.planner.reduce import reduce_graph
from theano_memopt.planner.search import EXHAUSTED, FARTHEST, FOUND, LEAST_LIVE, RUNNING

GRAPHS = Path(__file__).parent.parent / "graphs"
needs_compiled = pytest.mark.skipif(kernel._LIBRARY is None, reason="the compiled twin was not built here")


def _critical(graph: Graph) -> list[int]:
    floors = PythonKernel(graph)
    return sorted(range(len(graph.tasks)), key=lambda t: (-floors.flow_floor(t), t))[:4]


@pytest.mark.long
@settings(max_examples=300)
@given(graphs(most=9), st.sampled_from([LEAST_LIVE, FARTHEST, 7]), st.booleans())
def test_the_search_finds_what_there_is_and_exhausts_what_there_is_not(graph: Graph, rule: int, with_cuts: bool) -> None:
    least = least_peak_by_memo(graph)
    critical = _critical(graph) if with_cuts else []
    found = PythonKernel(graph).search(least, critical)
    assert found.run(10**6, rule) == FOUND
    assert graph.is_legal(found.trail)
    assert timeline(graph, found.trail).peak == least
    if least:
        below = PythonKernel(graph).search(least - 1, critical)
        assert below.run(10**6, rule) == EXHAUSTED
        assert least - 1 < below.next_budget <= least


@given(graphs(most=9))
def test_climbing_from_budget_to_budget_ends_at_the_least_peak(graph: Graph) -> None:
    budget = 0
    while True:
        search = kernel_for(graph).search(budget, ())
        if search.run(10**6) == FOUND:
            break
        assert search.next_budget > budget
        budget = search.next_budget
    assert budget == least_peak_by_memo(graph) or (budget == 0 and least_peak_by_memo(graph) == 0)


@given(graphs(most=9))
def test_a_restart_forgets_nothing_that_matters(graph: Graph) -> None:
    least = least_peak_by_memo(graph)
    search = PythonKernel(graph).search(least, _critical(graph))
    outcome = RUNNING
    until = 0
    while outcome == RUNNING:
        until += 1
        outcome = search.run(until, until % 3)
        if until < 50:
            search.restart()
    assert outcome == FOUND and timeline(graph, search.trail).peak == least


PRUNINGS = ("settle", "commit", "cut", "memory")


@pytest.mark.parametrize("name", PRUNINGS)
def test_without_a_pruning_the_answer_is_the_same_and_the_states_are_more(name: str) -> None:
    """Under the least peak there is an order, below it there is none, with the pruning and without it."""
    states = {True: 0, False: 0}
    for seed in range(40):
        graph = small_graph(12, seed)
        least = least_peak_by_memo(graph)
        for on, prunings in ((True, Prunings()), (False, Prunings().all_but(name))):
            for budget, outcome in ((least, FOUND), (least - 1, EXHAUSTED)):
                search = kernel_for(graph).search(budget, _critical(graph), prunings)
                assert search.run(10**6) == outcome
                states[on] += search.states
    assert states[False] > states[True]


@needs_compiled
@settings(max_examples=60)
@given(graphs(most=8), st.sampled_from(PRUNINGS), st.integers(0, 2))
def test_the_twins_agree_without_a_pruning(graph: Graph, name: str, below: int) -> None:
    budget, prunings = least_peak_by_memo(graph) - below, Prunings().all_but(name)
    one, other = (kernel.search(budget, _critical(graph), prunings) for kernel in (PythonKernel(graph), kernel_for(graph)))
    outcome = one.run(500)
    assert (outcome, one.states) == (other.run(500), other.states)
    assert outcome != EXHAUSTED or one.next_budget == other.next_budget


@needs_compiled
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_twins_agree_state_for_state(family: str) -> None:
    graph = reduce_graph(make_graph(family, 70, seed=3)).graph
    python, compiled = PythonKernel(graph), kernel_for(graph)
    assert isinstance(compiled, CompiledKernel)
    tasks = range(len(graph.tasks))
    floors = [python.flow_floor(t) for t in tasks]
    assert floors == [compiled.flow_floor(t) for t in tasks]
    some = [t for t in tasks if t % 7 == 0]
    for t in some:
        others = [o for o in some if o != t]
        assert python.flow_floor(t, done=others) == compiled.flow_floor(t, done=others)
        assert python.flow_floor(t, undone=others) == compiled.flow_floor(t, undone=others)
    critical = sorted(tasks, key=lambda t: (-floors[t], t))[:6]
    for budget in (max(floors), max(floors) * 11 // 10, max(floors) * 3 // 2):
        for rule in (LEAST_LIVE, FARTHEST, 5):
            one, other = python.search(budget, critical), compiled.search(budget, critical)
            outcomes = []
            for search in (one, other):
                outcome = search.run(60, rule)
                if outcome == RUNNING:
                    search.restart()
                    outcome = search.run(120, FARTHEST)
                outcomes.append((outcome, search.states, search.trail if outcome == FOUND else None))
            assert outcomes[0] == outcomes[1]
            if outcomes[0][0] == EXHAUSTED:
                assert one.next_budget == other.next_budget


@needs_compiled
@given(graphs(most=12))
def test_the_twins_agree_on_odd_graphs(graph: Graph) -> None:
    least = max(PythonKernel(graph).flow_floor(t) for t in range(len(graph.tasks)))
    one, other = PythonKernel(graph).search(least, _critical(graph)), kernel_for(graph).search(least, _critical(graph))
    assert one.run(200) == other.run(200)
    assert one.states == other.states


def test_sizes_beyond_64_bits_go_to_python() -> None:
    graph = build_graph({"a": 1 << 61, "b": 1}, [("t", (), ("a",)), ("u", ("a",), ("b",))])
    assert isinstance(kernel_for(graph), PythonKernel)
    assert kernel_for(graph).flow_floor(1) == (1 << 61) + 1


PLANS = """
import json, sys
from benchmarks.families import make_graph
from theano_memopt.options import PlanOptions
from theano_memopt.options import Prunings
from theano_memopt.planner import kernel
from theano_memopt.planner.certificate import schedule_to_json
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.milestones import MilestoneSearch
from theano_memopt.planner.model import graph_from_json
graphs = [make_graph(family, 70, 5) for family in ('layered', 'preferential', 'fork_join', 'map_reduce')]
graphs.append(graph_from_json(json.load(open(sys.argv[1]))))
print(kernel._LIBRARY is None)
plans = [schedule_to_json(g, minimise_peak(g, PlanOptions(effort=3000))) for g in graphs]
graph = make_graph('workflow_fans', 70, 1)
search = MilestoneSearch(kernel.kernel_for(graph))
search.groups = [search.may_be_last(max(graph.buffers, key=lambda buffer: len(buffer.readers)).readers)]
ways = []
for _ in range(3):
    way = search.lowest_way(1 << 60, 10**6)
    order = search.order_along(way)
    ways.append([way.floor, order, [step.task for step in way.steps]])
    search.add(way, timeline(graph, order).heights)
print(json.dumps([plans, ways], sort_keys=True))
"""


@pytest.mark.long
def test_the_same_plan_under_every_hash_seed_and_by_either_twin() -> None:
    seen = set()
    for hash_seed, twin in (("0", ""), ("1", ""), ("2", "python")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "THEANO_MEMOPT_KERNEL": twin}
        command = [sys.executable, "-c", PLANS, str(GRAPHS / "mlp_adam.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=GRAPHS.parent.parent)
        python, plans = done.stdout.splitlines()
        assert twin != "python" or python == "True"
        seen.add(plans)
    assert len(seen) == 1


def test_the_worked_example() -> None:
    search = kernel_for(worked_example()).search(8, ())
    assert search.run(10) == FOUND and search.trail == [0, 2, 1, 3, 4]

"""Every floor is one: below every order, in a chain of its own, and shown by a witness that the checker takes."""

from __future__ import annotations

from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import all_orders, least_peak_by_memo
from tests.strategies import graphs
from theano_memopt.planner.certificate import Rejected, check_proof
from theano_memopt.planner.floors import best_footprint, best_of_sets, floor_of_a_set, witness
from theano_memopt.planner.flow import INFINITE, Cut, Network
from theano_memopt.planner.kernel import IMPOSSIBLE, kernel_for
from theano_memopt.planner.liveness import live_bytes, timeline
from theano_memopt.planner.model import Graph, build_graph


def _down_sets(graph: Graph) -> List[frozenset[int]]:
    found: List[frozenset[int]] = [frozenset()]
    for done in found:
        for task in range(len(graph.tasks)):
            if task not in done and all(p in done for p in graph.predecessors[task]) and done | {task} not in found:
                found.append(done | {task})
    return found


def _ancestors(graph: Graph, task: int) -> frozenset[int]:
    return frozenset(graph.predecessors[task]).union(*[_ancestors(graph, p) for p in graph.predecessors[task]])


@given(graphs(most=6), st.data())
def test_the_cut_is_the_least_live_memory_by_enumeration(graph: Graph, data: st.DataObject) -> None:
    task = data.draw(st.integers(0, len(graph.tasks) - 1))
    done = data.draw(st.lists(st.integers(0, len(graph.tasks) - 1), max_size=2, unique=True))
    undone = data.draw(st.lists(st.integers(0, len(graph.tasks) - 1), max_size=2, unique=True))
    sets = [s for s in _down_sets(graph) if task not in s and _ancestors(graph, task) <= s and set(done) <= s and not set(undone) & s]
    expected = min((live_bytes(graph, s) for s in sets), default=None)
    found = kernel_for(graph).flow_floor(task, done=done, undone=undone)
    assert found == (IMPOSSIBLE if expected is None else expected + graph.allocates[task])


@given(graphs(most=8), st.data())
def test_forcing_and_undoing_leave_no_trace(graph: Graph, data: st.DataObject) -> None:
    task = data.draw(st.integers(0, len(graph.tasks) - 1))
    forced = data.draw(st.lists(st.integers(0, len(graph.tasks) - 1), max_size=4))
    network = Network(graph)
    cut, fresh = Cut(network, task), Cut(network, task)
    mark = cut.mark()
    for other in forced:
        cut.force(other, INFINITE - 1)
    cut.undo(mark)
    for other in forced[::-1]:
        cut.force(other, INFINITE - 1)
        fresh.force(other, INFINITE - 1)
    assert min(cut.value, INFINITE) == min(fresh.value, INFINITE)


@given(graphs(most=8))
def test_the_chain_of_floors_ends_below_the_least_peak(graph: Graph) -> None:
    kernel = kernel_for(graph)
    tasks = list(range(len(graph.tasks)))
    foot, _ = best_footprint(graph)
    flow = max(kernel.flow_floor(t) for t in tasks)
    assert foot <= flow <= least_peak_by_memo(graph)
    for which in ("last", "first"):
        best, chosen = best_of_sets(kernel, tasks, which)
        assert flow <= best <= least_peak_by_memo(graph)
        assert not best or min(floor_of_a_set(kernel, chosen, which)) == best


@given(graphs(most=6), st.data())
def test_a_floor_of_a_task_holds_in_every_order(graph: Graph, data: st.DataObject) -> None:
    task = data.draw(st.integers(0, len(graph.tasks) - 1))
    floor = kernel_for(graph).flow_floor(task)
    heights = [timeline(graph, order).heights[order.index(task)] for order in all_orders(graph)]
    assert floor == min(heights)


@pytest.mark.parametrize("which", ["last", "first"])
@given(graph=graphs(most=8), data=st.data())
def test_witnesses_are_accepted_and_forged_ones_rejected(which: str, graph: Graph, data: st.DataObject) -> None:
    tasks = data.draw(st.lists(st.integers(0, len(graph.tasks) - 1), min_size=1, max_size=3, unique=True))
    shown, proof = witness(graph, tasks, which)
    assert shown == min((f for f in floor_of_a_set(kernel_for(graph), tasks, which) if f < IMPOSSIBLE), default=0)
    if shown:
        check_proof(graph, shown, proof)
    with pytest.raises(Rejected):
        check_proof(graph, shown + 1, proof)


def test_sets_see_what_single_tasks_cannot() -> None:
    """Four branches, each large and then small: the last of the large ones has three small results beside it."""
    names = "abcd"
    branches = build_graph(
        {**{f"large_{n}": 100 for n in names}, **{f"small_{n}": 10 for n in names}, "sum": 10},
        [(f"make_{n}", (), (f"large_{n}",)) for n in names]
        + [(f"use_{n}", (f"large_{n}",), (f"small_{n}",)) for n in names]
        + [("add", [f"small_{n}" for n in names], ("sum",))],
        keep=("sum",),
    )
    kernel = kernel_for(branches)
    assert max(kernel.flow_floor(t) for t in range(9)) == 110
    assert best_of_sets(kernel, range(9), "last")[0] == 140 == least_peak_by_memo(branches)


def test_the_first_of_a_set_sees_a_shuffle() -> None:
    """Every mapper writes a part for every reducer: before the first reducer all parts are there."""
    parts = [(m, r) for m in range(3) for r in range(3)]
    shuffle = build_graph(
        {**{f"p{m}{r}": 10 for m, r in parts}, **{f"o{r}": 1 for r in range(3)}},
        [(f"map{m}", (), [f"p{m}{r}" for r in range(3)]) for m in range(3)]
        + [(f"reduce{r}", [f"p{m}{r}" for m in range(3)], (f"o{r}",)) for r in range(3)],
        keep=[f"o{r}" for r in range(3)],
    )
    kernel = kernel_for(shuffle)
    assert max(kernel.flow_floor(t) for t in range(6)) < 91
    assert best_of_sets(kernel, range(6), "first")[0] == 91 == least_peak_by_memo(shuffle)

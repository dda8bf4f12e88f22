"""The floor over milestones lies below every order, sees what floors over one task cannot, and is shown by a proof that the checker takes."""

from __future__ import annotations

import random
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.families import make_graph, small_graph
from tests.oracles import least_peak_by_memo
from tests.strategies import graphs
from theano_memopt.options import PlanOptions, Prunings
from theano_memopt.planner import milestones
from theano_memopt.planner.certificate import Milestones, Rejected, check_certificate, check_proof, schedule_from_json, schedule_to_json
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.floors import best_of_sets, floor_of_a_set
from theano_memopt.planner.kernel import IMPOSSIBLE, CompiledKernel, PythonKernel, kernel_for
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.milestones import MilestoneSearch, Way
from theano_memopt.planner.model import Graph, build_graph

PLENTY = 1 << 30
ABOVE_ALL = 1 << 100


def way_of(graph: Graph, tasks: List[int], cuts: int = PLENTY) -> Tuple[MilestoneSearch, Way]:
    search = MilestoneSearch(kernel_for(graph))
    search.tasks = list(tasks)
    return search, search.lowest_way(ABOVE_ALL, cuts)


def some_tasks(graph: Graph, data: st.DataObject, most: int) -> List[int]:
    return data.draw(st.lists(st.integers(0, len(graph.tasks) - 1), max_size=most, unique=True))


@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_no_order_is_lower(first: int) -> None:
    for seed in range(first, first + 100):
        rng = random.Random(seed)
        graph = small_graph(rng.randint(2, 9), seed)
        tasks = rng.sample(range(len(graph.tasks)), rng.randint(1, min(5, len(graph.tasks))))
        least = least_peak_by_memo(graph)
        search, way = way_of(graph, tasks)
        assert way.floor <= least <= timeline(graph, search.order_along(way)).peak
        for cuts in (0, 1, 3, 7):  # an end that comes early
            assert way_of(graph, tasks, cuts)[1].floor <= way.floor
        assert not way.floor or search.lowest_way(way.floor, PLENTY) == Way(way.floor, None)


def random_case(seed: int, most: int) -> Tuple[Graph, MilestoneSearch]:
    """A small graph, tasks, and groups that may overlap, hold one task alone, or hold tasks that wait for each other."""
    rng = random.Random(f"groups {seed}")
    graph = small_graph(rng.randint(2, most), seed)
    every = range(len(graph.tasks))
    search = MilestoneSearch(kernel_for(graph))
    search.tasks = rng.sample(every, rng.randint(0, min(3, len(every))))
    groups = [tuple(rng.sample(every, rng.randint(1, min(4, len(every))))) for _ in range(rng.randint(1, 3))]
    read = [buffer.readers for buffer in graph.buffers if len(buffer.readers) > 1]
    groups += [search.may_be_last(rng.choice(read))] if read else []
    search.groups = list(dict.fromkeys(groups))
    return graph, search


@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_no_order_is_lower_than_the_floor_with_groups(first: int) -> None:
    for seed in range(first, first + 100):
        graph, search = random_case(seed, 8)
        least = least_peak_by_memo(graph)
        way = search.lowest_way(ABOVE_ALL, PLENTY)
        order = search.order_along(way)
        assert graph.is_legal(order) and way.floor <= least <= timeline(graph, order).peak, seed
        groups, search.groups = search.groups, []
        assert search.lowest_way(ABOVE_ALL, PLENTY).floor <= way.floor, seed
        search.groups = groups
        search.drop_useless(way, PLENTY)
        assert search.lowest_way(ABOVE_ALL, PLENTY).floor == way.floor, seed


@pytest.mark.long
@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.nightly) for first in range(100, 600, 100))])
def test_proofs_with_groups_are_accepted_and_forged_ones_rejected(first: int) -> None:
    for seed in range(first, first + 100):
        graph, search = random_case(seed, 8)
        floor = search.lowest_way(ABOVE_ALL, PLENTY).floor
        proof = Milestones(tuple(search.tasks), tuple(search.groups))
        check_proof(graph, floor, proof)
        with pytest.raises(Rejected) as no:
            check_proof(graph, floor + 1, proof)
        assert no.value.reason == "weak-proof"


def test_a_group_needs_tasks_that_exist() -> None:
    """A group that can never be done would prove anything."""
    for group, reason in (((), "broken-proof"), ((0, 99), "unknown-task")):
        with pytest.raises(Rejected, match=reason):
            check_proof(small_graph(5, 0), 1, Milestones((0,), (group,)))


def lanes_on_one_source(count: int) -> Graph:
    """Each lane makes 9 bytes of the source of 20, 5 of these 9, and nothing of these 5."""
    lanes = [row for i in range(count) for row in ((f"a{i}", ("source",), (f"a{i}",)), (f"b{i}", (f"a{i}",), (f"b{i}",)), (f"c{i}", (f"b{i}",), ()))]
    sizes = {"source": 20, **{f"{name}{i}": size for i in range(count) for name, size in (("a", 9), ("b", 5))}}
    return build_graph(sizes, [("source", (), ("source",)), *lanes])


def test_the_death_of_a_source_is_one_milestone_for_all_its_lanes() -> None:
    """Of two lanes one goes on beside the source, or both have begun when it dies: 34 bytes at least, and few cuts for each lane."""
    graph = lanes_on_one_source(12)
    heads, second = graph.buffers[0].readers, [2, 5]
    assert [graph.tasks[t].label for t in second] == ["b0", "b1"]
    search = MilestoneSearch(kernel_for(graph))
    search.tasks, search.groups = list(second), [heads]
    assert search.lowest_way(ABOVE_ALL, PLENTY).floor == 34 == minimise_peak(graph).peak
    assert search.cuts < 8 * 12
    check_proof(graph, 34, Milestones(tuple(second), (heads,)))
    search.groups = []
    assert search.lowest_way(ABOVE_ALL, PLENTY).floor < 34


def test_equal_lanes_on_one_source_are_proven() -> None:
    graph = make_graph("workflow_fans", 300, 1)
    schedule = minimise_peak(graph, PlanOptions(effort=100_000))
    assert schedule.proven and isinstance(schedule.certificate.proof, Milestones) and schedule.certificate.proof.groups
    check_certificate(graph, schedule)
    check_certificate(graph, schedule_from_json(graph, schedule_to_json(graph, schedule)))


@given(graphs(most=8))
def test_with_all_tasks_the_floor_is_the_least_peak(graph: Graph) -> None:
    search, way = way_of(graph, list(range(len(graph.tasks))))
    order = search.order_along(way)
    assert way.floor == least_peak_by_memo(graph) == timeline(graph, order).peak
    assert way.steps is not None and tuple(step.task for step in way.steps) == order


@given(graphs(most=8), st.data())
def test_it_is_no_lower_than_the_floors_of_the_last_and_the_first(graph: Graph, data: st.DataObject) -> None:
    tasks = some_tasks(graph, data, 4)
    _, way = way_of(graph, tasks)
    for which in ("last", "first"):
        floors = [floor for floor in floor_of_a_set(kernel_for(graph), tasks, which) if floor < IMPOSSIBLE]
        assert way.floor >= min(floors, default=0)


@given(graphs(most=8), st.data())
def test_the_least_sets_of_a_way_grow_and_the_order_goes_that_way(graph: Graph, data: st.DataObject) -> None:
    search, way = way_of(graph, some_tasks(graph, data, 4))
    assert way.steps is not None
    order = search.order_along(way)
    assert graph.is_legal(order)
    done = set()
    for step in way.steps:
        least_set = {task for task, inside in enumerate(step.least_set) if inside}
        assert done <= least_set and step.task not in least_set
        assert set(order[: order.index(step.task)]) == least_set
        done = least_set | {step.task}


@given(graphs(most=8), st.data())
def test_what_is_known_changes_no_answer(graph: Graph, data: st.DataObject) -> None:
    """Milestones come and go, and what is remembered gives what a new search finds."""
    search = MilestoneSearch(kernel_for(graph))
    for _ in range(4):
        search.tasks = some_tasks(graph, data, 4)
        floor = way_of(graph, search.tasks)[1].floor
        assert search.lowest_way(floor, PLENTY).floor == search.lowest_way(ABOVE_ALL, PLENTY).floor == floor
        assert search.lowest_way(ABOVE_ALL, PLENTY, known=floor + 1).floor == floor + 1


@given(graphs(most=9))
def test_the_twins_agree(graph: Graph) -> None:
    kernel = kernel_for(graph)
    if not isinstance(kernel, CompiledKernel):
        pytest.skip("the kernel was not built here")
    searches = [MilestoneSearch(kernel), MilestoneSearch(PythonKernel(graph))]
    for _ in range(4):
        ways = [search.lowest_way(ABOVE_ALL, PLENTY) for search in searches]
        assert ways[0] == ways[1]
        for search, way in zip(searches, ways):
            search.add(way, timeline(graph, search.order_along(way)).heights)
        assert searches[0].tasks == searches[1].tasks and searches[0].cuts == searches[1].cuts


def test_the_twins_agree_on_groups() -> None:
    for seed in range(100):
        graph, search = random_case(seed, 9)
        if not isinstance(search._kernel, CompiledKernel):
            pytest.skip("the kernel was not built here")
        twin = MilestoneSearch(PythonKernel(graph))
        twin.tasks, twin.groups = list(search.tasks), list(search.groups)
        assert twin.lowest_way(ABOVE_ALL, PLENTY) == search.lowest_way(ABOVE_ALL, PLENTY) and twin.cuts == search.cuts


@pytest.mark.long
@given(graphs(most=8), st.data())
def test_proofs_are_accepted_and_forged_ones_rejected(graph: Graph, data: st.DataObject) -> None:
    tasks = some_tasks(graph, data, 5)
    floor = way_of(graph, tasks)[1].floor
    check_proof(graph, floor, Milestones(tuple(tasks)))
    with pytest.raises(Rejected) as no:
        check_proof(graph, floor + 1, Milestones(tuple(tasks)))
    assert no.value.reason == "weak-proof"
    with pytest.raises(Rejected):  # a task named twice is no other task
        check_proof(graph, floor + 1, Milestones((*tasks, *tasks)))


@pytest.mark.long
@given(graphs(most=8), st.data())
def test_proofs_of_sizes_that_32_bits_do_not_hold(graph: Graph, data: st.DataObject) -> None:
    """SciPy's flows are of 32 bits; the checker is exact nevertheless."""
    large = graph.resized([(buffer.size << 34) + data.draw(st.integers(0, 1 << 20)) for buffer in graph.buffers])
    tasks = some_tasks(large, data, 5)
    floor = way_of(large, tasks)[1].floor
    check_proof(large, floor, Milestones(tuple(tasks)))
    with pytest.raises(Rejected):
        check_proof(large, floor + 1, Milestones(tuple(tasks)))


def test_an_unknown_milestone_is_rejected() -> None:
    with pytest.raises(Rejected, match="unknown-task"):
        check_proof(small_graph(5, 0), 1, Milestones((0, 99)))


def test_the_floor_over_several_tasks_closes_what_floors_over_sets_leave_open() -> None:
    graph = make_graph("series_parallel", 200, 1)
    kernel = kernel_for(graph)
    ranked = sorted(range(len(graph.tasks)), key=lambda t: (-kernel.flow_floor(t), t))[:24]
    over_sets = max(best_of_sets(kernel, ranked, which)[0] for which in ("last", "first"))
    without = minimise_peak(graph, PlanOptions(effort=20_000, prunings=Prunings().all_but("milestones")))
    schedule = minimise_peak(graph, PlanOptions(effort=20_000))
    assert over_sets <= without.floor < without.peak
    assert schedule.proven and isinstance(schedule.certificate.proof, Milestones) and schedule.floor > over_sets
    check_certificate(graph, schedule)


def test_few_cuts_are_made_twice() -> None:
    """What is known of fewer milestones saves about half of the cuts for more of them."""
    graph = make_graph("layered", 70, 0)
    search = MilestoneSearch(kernel_for(graph))
    asked = set()
    least_set = search._kernel.least_set
    for task in range(0, 70, 10):
        search.tasks.append(task)
        search.lowest_way(ABOVE_ALL, PLENTY)
        asked |= set(search._known)
    assert search.cuts < 0.75 * len(asked)
    for task, done, undone in sorted(asked):
        known = search._known[task, done, undone]
        assert known == least_set(task, [t for t in range(70) if done >> t & 1], [t for t in range(70) if undone >> t & 1])


@given(graphs(most=8), st.data())
def test_forgetting_changes_no_answer(graph: Graph, data: st.DataObject) -> None:
    tasks = some_tasks(graph, data, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(milestones, "REMEMBERED", 3 * len(graph.tasks))
        search, way = way_of(graph, tasks)
        assert len(search._known) <= 3
    assert way == way_of(graph, tasks)[1]


def test_effort_is_kept_where_no_cut_is_needed() -> None:
    """Equal branches side by side: nearly all of the 2 ** 16 stages are known from fewer milestones, and must not be gone through for nothing."""
    count = 16
    graph = build_graph(
        {f"b{i}": 8 for i in range(count)}, [(f"make{i}", (), (f"b{i}",)) for i in range(count)], keep=[f"b{i}" for i in range(count)]
    )
    search = MilestoneSearch(kernel_for(graph))
    search.tasks = list(range(count))
    search.lowest_way(limit=8 * count, cuts=100)
    assert search.cuts <= 100 and len(search._known) < 100 * (milestones.TAKEN_OVER + 2)


def test_useless_milestones_are_dropped() -> None:
    graph = make_graph("block_model", 200, 1)
    search = MilestoneSearch(kernel_for(graph))
    search.tasks = [t for t in range(len(graph.tasks)) if graph.predecessors[t]][:6]
    way = search.lowest_way(ABOVE_ALL, PLENTY)
    search.drop_useless(way, PLENTY, known=way.floor)
    assert len(search.tasks) == 6  # nothing is dropped while the floor has not risen
    search.drop_useless(way, PLENTY)
    assert len(search.tasks) < 6 and search.lowest_way(ABOVE_ALL, PLENTY).floor == way.floor
    left = list(search.tasks)
    for task in left:
        search.tasks = [other for other in left if other != task]
        assert search.lowest_way(ABOVE_ALL, PLENTY).floor < way.floor

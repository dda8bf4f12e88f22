"""The least peak: against all orders on small graphs, and on the real ones against the best that was known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.families import FAMILIES, make_graph, small_graph
from benchmarks.simple_rules import best_of_all
from tests.oracles import least_peak_by_all_orders, least_peak_by_memo, peak_by_reference_counts
from tests.strategies import graphs
from theano_memopt.options import PlanOptions, Prunings
from theano_memopt.planner import exact
from theano_memopt.planner.certificate import Open, Proven, check_certificate
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.heuristics import RULES
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, build_graph, graph_from_json, worked_example

GRAPHS = Path(__file__).parent.parent / "graphs"
KNOWN: Dict[str, Dict[str, int]] = json.loads((GRAPHS / "KNOWN.json").read_text())


def real(name: str) -> Graph:
    return graph_from_json(json.loads((GRAPHS / f"{name}.json").read_text()))


@pytest.mark.long
@settings(max_examples=400)
@given(graphs(most=7))
def test_the_least_peak_over_all_orders(graph: Graph) -> None:
    schedule = minimise_peak(graph)
    assert schedule.proven
    assert schedule.peak == least_peak_by_all_orders(graph) == peak_by_reference_counts(graph, schedule.order)


@pytest.mark.long
@settings(max_examples=150)
@given(graphs(least=9, most=12))
def test_the_least_peak_by_a_memo_over_done_sets(graph: Graph) -> None:
    schedule = minimise_peak(graph)
    assert schedule.proven and schedule.peak == least_peak_by_memo(graph)


@pytest.mark.parametrize("seed", range(60))
def test_the_least_peak_of_crowded_graphs(seed: int) -> None:
    """Drawn so that the floor alone seldom settles it."""
    graph = small_graph(9 + seed % 6, seed)
    schedule = minimise_peak(graph)
    check_certificate(graph, schedule)
    assert schedule.proven and schedule.peak == least_peak_by_memo(graph)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_real_graphs_are_proven_and_never_above_the_best_known(name: str) -> None:
    graph = real(name)
    schedule = minimise_peak(graph)
    check_certificate(graph, schedule)
    assert isinstance(schedule.certificate, Proven)
    assert KNOWN[name]["flow_bound"] <= schedule.peak <= KNOWN[name]["best_found"]
    assert schedule.states < 10_000


@pytest.mark.parametrize("name", ["merge", "flow_floor", "set_floor", "milestones"])
def test_without_a_pruning_the_answer_is_the_same_and_the_states_are_more(name: str) -> None:
    """On graphs that the footprints alone leave open: crowded small ones, and wide ones, which need the floor of a set."""
    states = {True: 0, False: 0}
    wide = [make_graph("map_reduce", 12, 5), *(make_graph("layered", 40, seed) for seed in range(4))]
    for graph in [*wide, *(small_graph(14, seed) for seed in range(20))]:
        schedules = {on: minimise_peak(graph, PlanOptions(prunings=p)) for on, p in ((True, Prunings()), (False, Prunings().all_but(name)))}
        assert schedules[True].proven and schedules[False].proven
        assert schedules[True].peak == schedules[False].peak
        for on, schedule in schedules.items():
            states[on] += schedule.states
    assert states[False] > states[True]


def test_milestones_leave_effort_for_moves() -> None:
    """In the last round they could take all that is left, and graphs that moves alone bring down stayed where they were."""
    work = exact._Minimiser(make_graph("layered", 200, 0), PlanOptions(effort=2_000))
    work.compete([("given order", work.graph.natural_order)])
    work.compete_shrunk_rules()
    work.raise_floor_by_flow()
    work.pass_milestones(work.milestones, 1_000_000)
    assert work.milestones.tasks and 500 < work.states < 1_500


def test_the_attention_graphs_reach_their_flow_floor() -> None:
    """256 bytes below the best order that was known."""
    assert minimise_peak(real("attention")).peak == KNOWN["attention"]["flow_bound"] == KNOWN["attention"]["best_found"] - 256


@given(graphs(most=8), st.randoms(use_true_random=False))
def test_never_worse_than_a_competing_order(graph: Graph, random) -> None:  # type: ignore[no-untyped-def]
    order: List[int] = []
    while len(order) < len(graph.tasks):
        ready = [t for t in range(len(graph.tasks)) if t not in order and all(p in order for p in graph.predecessors[t])]
        order.append(random.choice(ready))
    schedule = minimise_peak(graph, PlanOptions(effort=0), [("drawn", order)])
    assert schedule.peak <= schedule.baseline_peak <= timeline(graph, order).peak
    assert ("drawn", timeline(graph, order).peak) in schedule.competing
    check_certificate(graph, schedule)


@given(graphs(most=9), st.randoms(use_true_random=False))
def test_new_names_and_numbers_change_nothing(graph: Graph, random) -> None:  # type: ignore[no-untyped-def]
    tasks = list(range(len(graph.tasks)))
    random.shuffle(tasks)
    renamed = build_graph(
        {f"x{b.label}": 3 * b.size for b in reversed(graph.buffers)},
        [
            (
                f"x{graph.tasks[t].label}",
                [f"x{graph.buffers[b].label}" for b in graph.tasks[t].reads],
                [f"x{graph.buffers[b].label}" for b in graph.tasks[t].writes],
                [f"x{graph.tasks[a].label}" for a in graph.tasks[t].after],
            )
            for t in tasks
        ],
        keep=[f"x{b.label}" for b in graph.buffers if b.pinned],
    )
    assert minimise_peak(renamed).peak == 3 * minimise_peak(graph).peak


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_never_above_the_best_simple_rule(family: str) -> None:
    for tasks in (70, 200):
        graph = make_graph(family, tasks, seed=2)
        schedule = minimise_peak(graph, PlanOptions(effort=3000))
        check_certificate(graph, schedule) if schedule.proven else None
        assert schedule.floor <= schedule.peak <= best_of_all(graph)[1]


def test_effort_is_kept_and_open_says_why() -> None:
    graph = make_graph("preferential", 200, seed=1)
    schedule = minimise_peak(graph, PlanOptions(effort=500))
    assert isinstance(schedule.certificate, Open)
    assert schedule.states <= 500
    assert "500 states" in schedule.certificate.reason
    assert 0 < schedule.gap_percent < 100


def test_lined_up_orders_compete() -> None:
    schedule = minimise_peak(make_graph("map_reduce", 600, 0), PlanOptions(effort=600))
    by_name = dict(schedule.competing)
    assert min(peak for name, peak in by_name.items() if "lined up" in name) < min(peak for name, peak in by_name.items() if "lined up" not in name)


def test_a_time_limit_ends_with_open() -> None:
    schedule = minimise_peak(make_graph("preferential", 200, seed=1), PlanOptions(effort=10**9, seconds=0.0))
    assert isinstance(schedule.certificate, Open) and "time limit" in schedule.certificate.reason


def test_progress_is_told() -> None:
    told: List[str] = []
    minimise_peak(make_graph("preferential", 200, seed=1), PlanOptions(effort=2000, progress=told.append))
    assert told and all("\n" not in sentence for sentence in told)


def test_an_illegal_competing_order_is_refused() -> None:
    with pytest.raises(ValueError, match="'mine' is not a legal order"):
        minimise_peak(worked_example(), competing_orders=[("mine", (4, 3, 2, 1, 0))])


@given(graphs(most=10))
def test_every_cheap_rule_gives_a_legal_order(graph: Graph) -> None:
    for rule in RULES.values():
        assert graph.is_legal(rule(graph))


@pytest.mark.parametrize("wrong", [{"effort": -1}, {"seconds": -1.0}, {"storage": "shelf"}, {"alignment": 0}])
def test_options_that_make_no_sense_are_refused(wrong: Dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PlanOptions(**wrong)  # type: ignore[arg-type]

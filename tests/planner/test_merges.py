"""The checker follows every merge that is true, and none that could lose the least order."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Iterator, List, Sequence

import pytest

from benchmarks.families import make_graph, small_graph
from tests.oracles import least_peak_by_memo
from tests.planner.test_reduce import graph_with_lanes
from theano_memopt.commands.menu import main
from theano_memopt.options import ALL_PRUNINGS, PlanOptions
from theano_memopt.planner.certificate import (
    Chains,
    Exhausted,
    Footprint,
    Merged,
    Milestones,
    Open,
    Proof,
    Proven,
    Rejected,
    check_certificate,
    check_proof,
    schedule_from_json,
    schedule_to_json,
)
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.floors import witness
from theano_memopt.planner.merges import FOLLOW, LANES, PREPARE, Merge, WrongMerge, _Replay, after_merges
from theano_memopt.planner.model import Graph, build_graph, graph_to_json, worked_example
from theano_memopt.planner.reduce import reduce_graph

RULES = (FOLLOW, PREPARE, LANES)


def some_graphs(seeds: Sequence[int]) -> Iterator[Graph]:
    for seed in seeds:
        yield small_graph(4 + seed % 4, seed)
        yield graph_with_lanes(seed)


# ------------------------------------------------------------------------------------------------------- what is accepted


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.nightly) for first in range(300, 1500, 300))])
def test_the_merges_of_a_reduction_are_followed_and_keep_the_optimum(first: int) -> None:
    done = dict.fromkeys(RULES, 0)
    for graph in some_graphs(range(first, first + 300)):
        reduced = reduce_graph(graph)
        left = after_merges(graph, reduced.merges)
        assert sorted(left.task_number) == sorted(reduced.heads)
        assert least_peak_by_memo(left.graph) == least_peak_by_memo(graph)
        for merge in reduced.merges:
            done[merge.rule] += 1
    assert min(done.values()) > 30, done


def merges_by_chance(graph: Graph, seed: int, rules: Sequence[str] = RULES) -> List[Merge]:
    """Merges that nobody has reasons for, as far as the checker accepts them."""
    rng = random.Random(seed)
    merges: List[Merge] = []
    for _ in range(30):
        rule = rng.choice(rules)
        tasks = rng.sample(range(len(graph.tasks)), min(len(graph.tasks), rng.randint(2, 4) if rule == LANES else 2))
        try:
            after_merges(graph, [*merges, Merge(rule, tuple(tasks))])
        except WrongMerge:
            continue
        merges.append(Merge(rule, tuple(tasks)))
    return merges


def that_lose_the_optimum(seeds: Sequence[int], rules: Sequence[str] = RULES) -> Iterator[int]:
    """Graphs about which the checker believes a floor above the optimum."""
    for seed in seeds:
        for graph in some_graphs([seed]):
            least = least_peak_by_memo(graph)
            try:
                check_proof(graph, least + 1, Merged(tuple(merges_by_chance(graph, seed, rules)), Exhausted(least, (), 0)))
            except Rejected as no:
                assert no.reason == "not-exhausted"
            else:
                yield seed


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.nightly) for first in range(400, 4000, 400))])
def test_no_floor_above_the_optimum_is_accepted(first: int) -> None:
    assert list(that_lose_the_optimum(range(first, first + 400))) == []


def test_chance_finds_merges_of_each_rule() -> None:
    found = [merge.rule for seed, graph in enumerate(some_graphs(range(200))) for merge in merges_by_chance(graph, seed)]
    assert min(found.count(rule) for rule in RULES) > 20


@pytest.mark.parametrize(
    "rule, condition, weakened",
    [
        (FOLLOW, "_surely_frees", _Replay._may_free),
        (FOLLOW, "_surely_frees", lambda replay, task: 1000),
        (PREPARE, "_may_free", _Replay._surely_frees),
        (LANES, "_surely_frees", _Replay._may_free),
        (LANES, "_place", lambda replay, task: 0),
    ],
)
def test_without_a_condition_a_floor_above_the_optimum_is_accepted(monkeypatch: pytest.MonkeyPatch, rule: str, condition: str, weakened: Any) -> None:
    """The negative control, for each lemma."""
    monkeypatch.setattr(_Replay, condition, weakened)
    assert any(True for _ in that_lose_the_optimum(range(1500), [rule]))


# -------------------------------------------------------------------------------------------------------- what is refused

ROWS = worked_example()
SHARED = build_graph(
    {"source": 5, "x": 1, "y": 2},
    [("fork", (), ("source",)), ("a", ("source",), ("x",)), ("b", ("source",), ("y",)), ("join", ("x", "y"), ())],
)
APART = build_graph(
    {"x": 9, "y": 7, "small": 1, "less": 2},
    [("a", (), ("x",)), ("to a", ("x",), ("small",)), ("b", (), ("y",)), ("to b", ("y",), ("less",)), ("join", ("small", "less"), ())],
)
FREES = build_graph({"x": 9, "a": 4, "b": 5}, [("x", (), ("x",)), ("p", ("x",), ("a",)), ("v", ("a",), ("b",))], keep=("b",))
BRIEF = build_graph({"big": 50, "a": 1}, [("p", (), ("a", "big")), ("v", ("a",), ())])
KEEPS = build_graph(
    {"x": 100, "z": 200, "b": 10, "c": 100},
    [("x", (), ("x", "z")), ("p", ("x",), ("b",)), ("v", ("b", "z"), ("c",)), ("end", ("b", "c"), ())],
)


@pytest.mark.parametrize(
    "graph, merges, reason",
    [
        (ROWS, [(FOLLOW, 0, 99)], "unknown-task"),
        (ROWS, [(FOLLOW, -1, 0)], "unknown-task"),
        (ROWS, [("swap", 0, 1)], "broken-merge"),
        (ROWS, [(FOLLOW, 0)], "broken-merge"),
        (ROWS, [(FOLLOW, 0, 2, 4)], "broken-merge"),
        (ROWS, [(PREPARE, 0, 0)], "broken-merge"),
        (ROWS, [(LANES, 0)], "broken-merge"),
        (ROWS, [(PREPARE, 0, 2), (FOLLOW, 0, 2)], "merged-before"),
        (ROWS, [(FOLLOW, 2, 4)], "not-neighbours"),  # `add` waits for the other sum too
        (ROWS, [(FOLLOW, 2, 0)], "not-neighbours"),
        (SHARED, [(PREPARE, 0, 1)], "not-neighbours"),  # b waits for the fork too
        (SHARED, [(PREPARE, 1, 0)], "not-neighbours"),
        (ROWS, [(FOLLOW, 0, 2)], "too-high"),  # the sum needs a byte more than its array
        (FREES, [(FOLLOW, 1, 2)], "too-high"),  # v adds a byte
        (FREES, [(PREPARE, 1, 2)], "too-high"),  # p gives back five bytes, and must not wait
        (BRIEF, [(PREPARE, 0, 1)], "too-high"),  # p needs 50 bytes for itself, and v may run where more is live
        (KEEPS, [(FOLLOW, 1, 2)], "too-much-kept"),
        (ROWS, [(LANES, 0, 1)], "not-beside"),
        (SHARED, [(LANES, 1, 2)], "unsure"),  # the last of them frees the source
        (ROWS, [(LANES, 2, 0, 3, 1)], "wrong-order"),  # sums before their arrays
        (ROWS, [(LANES, 0, 1, 2, 3)], "wrong-order"),  # what goes up before what goes down
        (APART, [(PREPARE, 0, 1), (PREPARE, 2, 3), (LANES, 3, 1)], "wrong-order"),  # 9 falls to 2, 10 to 1: the deeper fall comes first
    ],
)
def test_forged_merges_are_refused_by_name(graph: Graph, merges: Any, reason: str) -> None:
    forged = Merged(tuple(Merge(rule, tasks) for rule, *tasks in merges), Footprint(0))
    with pytest.raises(Rejected) as no:
        check_proof(graph, 1, forged)
    assert no.value.reason == reason


def test_what_stands_beside_the_forged_ones_is_accepted() -> None:
    for graph, merges in (
        (ROWS, [Merge(PREPARE, (0, 2)), Merge(PREPARE, (1, 3)), Merge(LANES, (2, 3)), Merge(PREPARE, (2, 3)), Merge(FOLLOW, (3, 4))]),
        (APART, [Merge(PREPARE, (0, 1)), Merge(PREPARE, (2, 3)), Merge(LANES, (1, 3))]),
        (BRIEF, [Merge(FOLLOW, (0, 1))]),
    ):
        assert least_peak_by_memo(after_merges(graph, merges).graph) == least_peak_by_memo(graph)


TO_THE_SUMS = (Merge(PREPARE, (0, 2)), Merge(PREPARE, (1, 3)))


@pytest.mark.parametrize(
    "proof, reason",
    [
        (Footprint(0), "unknown-task"),  # it is part of task 2
        (Exhausted(8, (1,), 3), "unknown-task"),
        (Milestones((0, 2)), "unknown-task"),
        (Chains((2,), (((6, (0,)),),)), "broken-chain"),  # L lives inside a task
        (Chains((2,), (((6, (99,)),),)), "broken-chain"),
        (Merged(TO_THE_SUMS, Footprint(4)), "broken-proof"),
        (Footprint(2), "weak-proof"),
        (Milestones((2, 3)), "weak-proof"),
        (Exhausted(5, (), 3), "weak-proof"),
        (Exhausted(8, (2, 3), 3), "not-exhausted"),
    ],
)
def test_broken_proofs_of_what_is_left_are_refused_by_name(proof: Any, reason: str) -> None:
    with pytest.raises(Rejected) as no:
        check_proof(ROWS, 9, Merged(TO_THE_SUMS, proof))
    assert no.value.reason == reason


# -------------------------------------------------------------------------------------------------------------- proofs


def proofs_after_merges() -> Iterator[Proof]:
    left = after_merges(ROWS, TO_THE_SUMS)
    name = {number: task for task, number in left.task_number.items()}
    buffer = {number: b for b, number in left.buffer_number.items()}
    shown, chains = witness(left.graph, (left.task_number[2], left.task_number[3]))
    assert shown == 8
    families = tuple(tuple((amount, tuple(buffer[b] for b in chain)) for amount, chain in family) for family in chains.chains)
    yield Chains(tuple(name[t] for t in chains.tasks), families)
    yield Milestones((2, 3))
    yield Exhausted(7, (2, 3), 5)


def test_every_kind_of_proof_may_follow_merges_and_survives_json() -> None:
    schedule = minimise_peak(ROWS)
    for proof in proofs_after_merges():
        merged = Merged(TO_THE_SUMS, proof)
        check_proof(ROWS, 8, merged)
        for certificate in (Proven(8, merged), Open(7, merged, "the effort was spent")):
            written = type(schedule)(schedule.order, schedule.timeline, certificate, schedule.baseline_peak, schedule.method, schedule.states)
            assert schedule_from_json(ROWS, json.loads(json.dumps(schedule_to_json(ROWS, written)))) == written
            check_certificate(ROWS, written)
        assert "2 merges" in merged.describe()


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"merges": [["follow", "left", "nobody"]]}, "unknown-name"),
        ({"merges": [[]]}, "bad-form"),
        ({"merges": 3}, "bad-form"),
        ({"proof": {"by": "magic"}}, "bad-form"),
        ({"proof": {"by": "merges", "merges": [], "proof": {"by": "footprint", "task": "add"}}}, "bad-form"),
    ],
)
def test_merges_that_do_not_fit_are_rejected_by_name(change: Any, reason: str) -> None:
    data = schedule_to_json(ROWS, minimise_peak(ROWS))
    proof = {"by": "merges", "merges": [["prepare", "left", "left_sum"]], "proof": {"by": "exhausted", "budget": 7, "critical": [], "states": 1}}
    data["certificate"]["proof"] = proof
    check_certificate(ROWS, schedule_from_json(ROWS, data))
    data["certificate"]["proof"] = {**proof, **change}
    with pytest.raises(Rejected) as no:
        schedule_from_json(ROWS, data)
    assert no.value.reason == reason


def test_the_command_line_checks_merges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = make_graph("map_reduce", 70, 0)
    (tmp_path / "graph.json").write_text(json.dumps(graph_to_json(graph)))
    result = tmp_path / "result.json"
    assert main(["order", str(tmp_path / "graph.json"), "--effort", "10000", "--out", str(result)]) == 0
    assert main(["check", str(tmp_path / "graph.json"), str(result)]) == 0
    assert "proven least" in capsys.readouterr().out
    data = json.loads(result.read_text())
    assert data["certificate"]["proof"]["by"] == "merges"
    merges = data["certificate"]["proof"]["merges"]
    merges.append(next(merge for merge in merges if merge[0] == PREPARE))
    result.write_text(json.dumps(data))
    assert main(["check", str(tmp_path / "graph.json"), str(result)]) == 1
    assert "merged-before" in capsys.readouterr().err


def test_a_graph_that_merges_to_one_task_is_proven_without_a_search() -> None:
    """2,209 tasks, and floors that are too low: the merges are the proof."""
    graph = make_graph("montage", 2000, 0)
    schedule = minimise_peak(graph, PlanOptions(effort=2_000))
    proof = schedule.certificate.proof
    assert schedule.proven and isinstance(proof, Merged)
    check_certificate(graph, schedule)
    assert not minimise_peak(graph, PlanOptions(effort=2_000, prunings=ALL_PRUNINGS.all_but("tree"))).proven
    with pytest.raises(Rejected) as no:
        check_proof(graph, schedule.floor + 1, Merged(proof.merges, Exhausted(schedule.floor, (), 0)))
    assert no.value.reason == "not-exhausted"
    with pytest.raises(Rejected):  # each is true where it stands
        check_proof(graph, schedule.floor, Merged(proof.merges[::-1], proof.proof))


def test_merges_are_listed_only_where_the_floor_is_not_met_without_them() -> None:
    for size in (200, 300, 600):
        graph = make_graph("montage", size, 0)
        schedule = minimise_peak(graph, PlanOptions(effort=10_000))
        assert schedule.proven and isinstance(schedule.certificate.proof, Chains)
        check_certificate(graph, schedule)

"""Offsets: no two that live together overlap, the height is as good as it must be, and broken arenas are caught."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theano_memopt.options import ALL_PRUNINGS, PackOptions, Prunings
from theano_memopt.planner import placing
from theano_memopt.planner.arena import Arena, Packing, check_arena, check_packing, pack, pack_graph
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.lives_csv import read_lives
from theano_memopt.planner.model import build_graph, graph_from_json, worked_example
from theano_memopt.planner.slots import StorageRejected

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
GRAPHS = sorted(path for path in (TESTS / "graphs").glob("*.json") if path.name != "KNOWN.json")
HARD = {path.name[0]: path for path in (TESTS / "data" / "minimalloc").glob("*.csv")}

Problem = Tuple[List[int], List[Tuple[int, int]]]


@st.composite
def problems(draw: st.DrawFn, most: int = 12, sizes: Sequence[int] = (0, 1, 2, 3, 5, 8)) -> Problem:
    """Sizes and spans, empty ones among them."""
    count = draw(st.integers(0, most))
    births = [draw(st.integers(0, 6)) for _ in range(count)]
    return [draw(st.sampled_from(sizes)) for _ in births], [(born, born + draw(st.integers(0, 5))) for born in births]


def lowest_height(sizes: Sequence[int], spans: Sequence[Tuple[int, int]]) -> int:
    """The optimum by brute force: in an optimum whose buffers have sunk, placing them by offset puts each as low as it goes."""
    best = sum(sizes)
    for order in itertools.permutations(range(len(sizes))):
        offsets = {}
        for b in order:
            near = [o for o in offsets if spans[o][0] < spans[b][1] and spans[b][0] < spans[o][1]]
            offsets[b] = min(
                spot
                for spot in [0] + [offsets[o] + sizes[o] for o in near]
                if all(spot + sizes[b] <= offsets[o] or offsets[o] + sizes[o] <= spot for o in near)
            )
        best = min(best, max((offsets[b] + sizes[b] for b in order), default=0))
    return best


# ------------------------------------------------------------------------------------------------------------ always


@settings(deadline=None)
@given(problems(), st.sampled_from([1, 2, 4, 64]))
def test_floor_height_and_sum(problem: Problem, alignment: int) -> None:
    sizes, spans = problem
    arena = pack(Packing(sizes, spans, alignment), PackOptions(effort=2_000))
    check_packing(sizes, spans, arena, alignment)
    assert arena.floor <= arena.height <= sum(-(-size // alignment) * alignment for size in sizes)


@settings(deadline=None)
@given(problems(), st.integers(2, 10**6))
def test_larger_units_change_nothing(problem: Problem, unit: int) -> None:
    sizes, spans = problem
    small, large = (pack(Packing(these, spans), PackOptions(effort=2_000)) for these in (sizes, [size * unit for size in sizes]))
    assert large == Arena(tuple(offset * unit for offset in small.offsets), small.height * unit, small.floor * unit)


@settings(deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_other_names_for_the_buffers(problem: Problem, chance: random.Random) -> None:
    sizes, spans = problem
    names = list(range(len(sizes)))
    chance.shuffle(names)
    renamed = [sizes[b] for b in names], [spans[b] for b in names]
    arena = pack(Packing(*renamed), PackOptions(effort=2_000))
    check_packing(*renamed, arena)
    assert arena.floor == pack(Packing(sizes, spans), PackOptions(effort=2_000)).floor


@settings(deadline=None)
@given(problems(most=6, sizes=(1, 2, 3, 5, 8)))
def test_small_arenas_are_as_low_as_possible(problem: Problem) -> None:
    sizes, spans = problem
    spans = [(born, max(dead, born + 1)) for born, dead in spans]
    assert pack(Packing(sizes, spans), PackOptions(effort=5_000)).height == lowest_height(sizes, spans)


def test_no_buffers_and_no_lives() -> None:
    assert pack(Packing([], [])) == Arena((), 0, 0)
    assert pack(Packing([3, 0], [(1, 1), (0, 5)])) == Arena((0, 0), 0, 0)


def test_sizes_beyond_64_bits_are_placed_by_the_rules() -> None:
    huge = 2**70
    sizes, spans = [huge, 1, huge + 1], [(0, 2), (1, 3), (2, 4)]
    arena = pack(Packing(sizes, spans))
    check_packing(sizes, spans, arena)
    assert arena.height == huge + 2


@pytest.mark.parametrize(("sizes", "spans", "alignment"), [([-1], [(0, 1)], 1), ([1], [(2, 1)], 1), ([1], [], 1), ([1], [(0, 1)], 0)])
def test_senseless_problems_are_refused(sizes: List[int], spans: List[Tuple[int, int]], alignment: int) -> None:
    with pytest.raises(ValueError):
        Packing(sizes, spans, alignment)


# ------------------------------------------------------------------------------------------------------- how good it is


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("alignment", [1, 64])
def test_real_graphs_reserve_no_more_than_they_need(path: Path, alignment: int) -> None:
    graph = graph_from_json(json.loads(path.read_text(encoding="utf-8")))
    arena = pack_graph(graph, graph.natural_order, alignment)
    check_arena(graph, graph.natural_order, arena, alignment)
    assert arena.height == arena.floor
    if alignment == 1:
        assert arena.floor == timeline(graph, graph.natural_order).peak


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_hard_files_that_meet_their_load_soon(name: str) -> None:
    lives = read_lives(HARD[name])
    arena = pack(Packing(lives.sizes, lives.spans), PackOptions(effort=5_000))
    check_packing(lives.sizes, lives.spans, arena)
    assert arena.height == arena.floor


@pytest.mark.parametrize("name", ["E", "F", "I"])
def test_hard_files_within_a_tenth_of_their_load(name: str) -> None:
    lives = read_lives(HARD[name])
    arena = pack(Packing(lives.sizes, lives.spans), PackOptions(effort=15_000))
    check_packing(lives.sizes, lives.spans, arena)
    assert 10 * arena.height <= 11 * arena.floor


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(HARD))
def test_every_hard_file_fits_its_capacity(name: str) -> None:
    lives = read_lives(HARD[name])
    arena = pack(Packing(lives.sizes, lives.spans), PackOptions(effort=5_000_000, enough=1048576))
    check_packing(lives.sizes, lives.spans, arena)
    assert arena.height <= 1048576


def test_more_effort_is_never_worse() -> None:
    lives = read_lives(HARD["E"])
    heights = [pack(Packing(lives.sizes, lives.spans), PackOptions(effort=effort)).height for effort in (1, 1_000, 4_000, 8_000)]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < heights[0]


def test_a_height_that_is_enough_ends_the_search() -> None:
    lives = read_lives(HARD["J"])
    heights: List[str] = []
    arena = pack(Packing(lives.sizes, lives.spans), PackOptions(effort=20_000, progress=heights.append, enough=1048576))
    check_packing(lives.sizes, lives.spans, arena)
    assert arena.floor < arena.height <= 1048576
    assert len(heights) == 1  # the first dive aims at what is enough, and finds it


def test_enough_is_kept_where_it_lies_between_two_units() -> None:
    lives = read_lives(HARD["D"])
    enough = 11 * 986112 // 10  # no multiple of 1024, as all sizes of the file are
    assert enough % 1024
    assert pack(Packing(lives.sizes, lives.spans), PackOptions(effort=50_000, enough=enough)).height <= enough


def test_no_seconds_left_still_gives_an_arena() -> None:
    lives = read_lives(HARD["E"])
    arena = pack(Packing(lives.sizes, lives.spans), PackOptions(effort=10**9, seconds=0.0))
    check_packing(lives.sizes, lives.spans, arena)


# ---------------------------------------------------------------------------------------------------- the same everywhere

TELL = """
from theano_memopt.options import PackOptions
from theano_memopt.planner import placing
from theano_memopt.planner.arena import Packing, pack
from theano_memopt.planner.lives_csv import read_lives
lives = read_lives({path!r})
print(placing.dive is placing.dive_python, pack(Packing(lives.sizes, lives.spans), PackOptions(effort=6_000)).offsets)
"""


def tell(blocked: bool, seed: str) -> List[str]:
    """What a fresh interpreter answers, with the compiled dive or without it."""
    block = "import sys; sys.modules['theano_memopt.planner._packing'] = None\n" if blocked else ""
    code = block + TELL.format(path=str(HARD["E"]))
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.split(" ", 1)


def test_the_same_arena_under_every_hash_seed_and_without_a_compiler() -> None:
    (_, first), (_, second), (pure, third) = tell(False, "1"), tell(False, "2"), tell(True, "3")
    assert pure == "True"
    assert first == second == third


PRUNINGS = [field.name for field in dataclasses.fields(Prunings) if field.name.startswith("pack_")]

Columns = Tuple[List[int], List[int], List[int], List[int]]
needs_compiled = pytest.mark.skipif(placing.dive_compiled is None, reason="the compiled dive is not built")


def run_dive(
    dive: object, columns: Columns, sections: int, capacity: int, limit: int, prunings: Prunings = ALL_PRUNINGS
) -> Tuple[placing.Dive, List[int]]:
    births, deaths, sizes, ranks = columns
    memory = placing.new_memory(10)
    result = dive(placing.Crowd(births, deaths, sizes, sections, prunings), placing.Aim(capacity, ranks, limit), memory)  # type: ignore[operator]
    return result, list(memory)


@st.composite
def dives(draw: st.DrawFn, most: int = 10) -> Tuple[Columns, int]:
    sections = draw(st.integers(1, 6))
    births = draw(st.lists(st.integers(0, sections - 1), max_size=most))
    deaths = [draw(st.integers(born + 1, sections)) for born in births]
    sizes = [draw(st.integers(1, 5)) for _ in births]
    return (births, deaths, sizes, draw(st.permutations(range(len(births))))), sections


@needs_compiled
@settings(deadline=None)
@given(dives(), st.integers(0, 4), st.integers(1, 200), st.sampled_from([Prunings(), *map(Prunings().all_but, PRUNINGS)]))
def test_the_compiled_dive_is_the_python_one_node_for_node(case: Tuple[Columns, int], room: int, limit: int, prunings: Prunings) -> None:
    columns, sections = case
    births, deaths, sizes, _ = columns
    load = max(sum(z for b, d, z in zip(births, deaths, sizes) if b <= s < d) for s in range(sections))
    twins = [run_dive(dive, columns, sections, load + room, limit, prunings) for dive in (placing.dive_python, placing.dive_compiled)]
    assert twins[0] == twins[1]


@settings(deadline=None)
@given(dives(most=6), st.integers(0, 20), st.sampled_from([Prunings(), *map(Prunings().all_but, PRUNINGS)]))
def test_a_dive_finds_what_there_is_and_exhausts_what_is_not(case: Tuple[Columns, int], capacity: int, prunings: Prunings) -> None:
    columns, sections = case
    births, deaths, sizes, _ = columns
    least = lowest_height(sizes, list(zip(births, deaths)))
    for dive in (placing.dive_python, placing.dive_compiled):
        if dive is not None:
            result, _ = run_dive(dive, columns, sections, capacity, 100_000, prunings)
            assert result.status == (placing.FOUND if least <= capacity else placing.EXHAUSTED)


def cut_rectangle(rng: random.Random, pieces: int, sections: int, height: int) -> Columns:
    """A full rectangle cut into pieces, one of them made a byte smaller: a packing that leaves almost nothing to choose, and is hard to find."""
    whole = [(0, sections, height)]
    while len(whole) < pieces:
        born, dead, size = whole.pop(rng.randrange(len(whole)))
        if rng.random() < 0.5 and dead - born > 1:
            between = rng.randint(born + 1, dead - 1)
            whole += [(born, between, size), (between, dead, size)]
        elif size > 1:
            low = rng.randint(1, size - 1)
            whole += [(born, dead, low), (born, dead, size - low)]
        else:
            whole.append((born, dead, size))
    rng.shuffle(whole)
    sizes = [max(1, size - (b == 0)) for b, (_, _, size) in enumerate(whole)]
    return [born for born, _, _ in whole], [dead for _, dead, _ in whole], sizes, list(range(pieces))


@pytest.mark.parametrize("name", PRUNINGS)
def test_without_a_pruning_the_answer_is_the_same_and_the_nodes_are_more(name: str) -> None:
    nodes = {True: 0, False: 0}
    for seed in range(80):
        columns = cut_rectangle(random.Random(seed), 24, 12, 40)
        for on, prunings in ((True, Prunings()), (False, Prunings().all_but(name))):
            result, _ = run_dive(placing.dive, columns, 12, 40, 10**6, prunings)
            assert result.status == placing.FOUND
            nodes[on] += result.nodes
    assert nodes[False] > nodes[True]


def test_a_dive_stops_at_its_limit_and_at_its_seconds() -> None:
    columns: Columns = ([0] * 12, [1, 2] * 6, [3, 4, 5, 6, 7, 8] * 2, list(range(12)))
    for dive in (placing.dive_python, placing.dive_compiled):
        if dive is not None:
            result, _ = run_dive(dive, columns, 2, 66, 5)
            assert result == (placing.CUT, 6, None)


@needs_compiled
@pytest.mark.parametrize(
    ("columns", "sections"),
    [
        (([0], [2], [1], [0]), 1),
        (([-1], [1], [1], [0]), 1),
        (([1], [1], [1], [0]), 2),
        (([0], [1], [0], [0]), 1),
        (([0], [1], [2**62], [0]), 1),
        (([0, 0], [1], [1], [0]), 1),
        (([0], [1], [1], [0]), -1),
    ],
)
def test_the_compiled_dive_refuses_what_would_crash_it(columns: Columns, sections: int) -> None:
    with pytest.raises(ValueError):
        run_dive(placing.dive_compiled, columns, sections, 10, 10)


# -------------------------------------------------------------------------------------------------- negative controls

SIZES, SPANS = [6, 3, 3], [(0, 2), (1, 4), (2, 4)]
GOOD = Arena((0, 6, 0), 9, 9)


def forged(**changes: object) -> Arena:
    return dataclasses.replace(GOOD, **changes)


def test_the_good_one_passes() -> None:
    check_packing(SIZES, SPANS, GOOD)


@pytest.mark.parametrize(
    ("reason", "arena", "alignment"),
    [
        ("overlap", forged(offsets=(0, 5, 0), height=8), 1),
        ("overlap", forged(offsets=(0, 6, 4)), 1),
        ("overlap", forged(offsets=(0, 0, 3), height=6), 1),
        ("wrong-length", forged(offsets=(0, 6)), 1),
        ("bad-offset", forged(offsets=(0, -3, 0)), 1),
        ("bad-offset", forged(offsets=(0, None, 0)), 1),
        ("bad-offset", forged(offsets=(0, 6.0, 0)), 1),
        ("misaligned", forged(), 4),
        ("overlap", forged(offsets=(0, 8, 8), height=16, floor=16), 8),
        ("wrong-height", forged(height=8), 1),
        ("wrong-height", forged(height=10), 1),
        ("wrong-floor", forged(floor=8), 1),
    ],
)
def test_forged_arenas_are_rejected(reason: str, arena: Arena, alignment: int) -> None:
    with pytest.raises(StorageRejected) as caught:
        check_packing(SIZES, SPANS, arena, alignment)
    assert caught.value.reason == reason


@settings(deadline=None)
@given(problems(most=5), st.lists(st.integers(0, 9), min_size=5, max_size=5))
def test_random_offsets_pass_only_if_no_byte_is_taken_twice(problem: Problem, chosen: List[int]) -> None:
    """The checker against another way of looking: bytes painted step by step."""
    sizes, spans = problem
    offsets = chosen[: len(sizes)]
    taken = [(step, byte) for o, z, span in zip(offsets, sizes, spans) for step in range(*span) for byte in range(o, o + z)]
    floor = max((sum(z for z, (b, d) in zip(sizes, spans) if b <= step < d) for step in range(12)), default=0)
    arena = Arena(tuple(offsets), max((byte + 1 for _, byte in taken), default=0), floor)
    if len(set(taken)) == len(taken):
        check_packing(sizes, spans, arena)
    else:
        with pytest.raises(StorageRejected, match="overlap"):
            check_packing(sizes, spans, arena)


ORDER = (0, 2, 1, 3, 4)


def test_the_arena_of_the_worked_example() -> None:
    arena = pack_graph(worked_example(), ORDER, alignment=1)
    check_arena(worked_example(), ORDER, arena, alignment=1)
    assert arena.height == arena.floor == 8


@pytest.mark.parametrize("may_lie", [None, (0, 1), ()])
def test_only_those_that_may_lie_in_the_arena(may_lie: Optional[Tuple[int, ...]]) -> None:
    arena = pack_graph(worked_example(), ORDER, may_lie=may_lie)
    check_arena(worked_example(), ORDER, arena, may_lie=may_lie)
    expected = range(5) if may_lie is None else may_lie
    assert [b for b, offset in enumerate(arena.offsets) if offset is not None] == list(expected)


def test_an_input_or_a_stranger_in_the_arena_is_rejected() -> None:
    arena = pack_graph(worked_example(), ORDER)
    with pytest.raises(StorageRejected, match="not-ours: 'L' may not lie"):
        check_arena(worked_example(), ORDER, arena, may_lie=(1, 2, 3, 4))
    graph = build_graph({"in": 4, "a": 4}, [("make", ("in",), ("a",))])
    with pytest.raises(StorageRejected, match="not-ours: 'in'"):
        check_arena(graph, (0,), Arena((0, 0), 64, 64))
    with pytest.raises(StorageRejected, match="wrong-length"):
        check_arena(graph, (0,), Arena((0,), 64, 64))


def test_the_same_arena_overlaps_in_another_order() -> None:
    arena = pack_graph(worked_example(), ORDER, alignment=1)
    with pytest.raises(StorageRejected, match="overlap: .* both live at step 1"):
        check_arena(worked_example(), (0, 1, 2, 3, 4), arena, alignment=1)

"""The press: nothing overlaps in the end, it is never higher than before, and lower where there is room; the compiled one takes the same turns."""

from __future__ import annotations

from random import Random
from typing import List, Sequence, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planner.test_arena import HARD, lowest_height
from theano_memopt.options import PackOptions
from theano_memopt.planner import arena as arenas
from theano_memopt.planner import pressing
from theano_memopt.planner.arena import Arena, Packing, check_packing, pack
from theano_memopt.planner.lives_csv import read_lives
from theano_memopt.planner.load import greatest_load
from theano_memopt.planner.pressing import Lives, Press, Pressed, press_compiled, press_python
from theano_memopt.planner.slots import StorageRejected

needs_compiled = pytest.mark.skipif(press_compiled is None, reason="the compiled press is not built")
PRESSES = [press_python] + ([press_compiled] if press_compiled is not None else [])


@st.composite
def placed(draw: st.DrawFn, most: int = 12, largest: int = 12) -> Tuple[Lives, List[int]]:
    """Lives, and a placement: one upon the other."""
    sections = draw(st.integers(1, 8))
    births = draw(st.lists(st.integers(0, sections - 1), max_size=most))
    deaths = [draw(st.integers(born + 1, sections)) for born in births]
    sizes = [draw(st.integers(1, largest)) for _ in births]
    return Lives(births, deaths, sizes), stacked(sizes)


def stacked(sizes: Sequence[int]) -> List[int]:
    return [sum(sizes[:b]) for b in range(len(sizes))]


def spans(lives: Lives) -> List[Tuple[int, int]]:
    return list(zip(lives.births, lives.deaths))


def height(lives: Lives, offsets: Sequence[int]) -> int:
    return max((offset + size for offset, size in zip(offsets, lives.sizes)), default=0)


def check(lives: Lives, pressed: Pressed) -> None:
    check_packing(lives.sizes, spans(lives), Arena(tuple(pressed.offsets), height(lives, pressed.offsets), greatest_load(lives.sizes, spans(lives))))


@settings(deadline=None)
@given(placed(), st.integers(0, 5), st.integers(0, 200))
def test_what_is_pressed_is_sound_and_no_higher(case: Tuple[Lives, List[int]], room: int, limit: int) -> None:
    lives, offsets = case
    goal = greatest_load(lives.sizes, spans(lives)) + room
    pressed = press_python(lives, offsets, goal, limit)
    check(lives, pressed)
    assert pressed.turns <= limit
    assert height(lives, pressed.offsets) <= height(lives, offsets)
    if height(lives, pressed.offsets) > goal:
        assert pressed.turns == limit


def test_most_small_arenas_are_pressed_as_low_as_possible() -> None:
    """Most: two lives that want each other's place can go back and forth for ever. None is lower than the least."""
    found = 0
    for seed in range(150):
        random = Random(seed)
        births = [random.randrange(4) for _ in range(6)]
        lives = Lives(births, [random.randrange(born + 1, 5) for born in births], [random.randint(1, 5) for _ in births])
        least = lowest_height(lives.sizes, spans(lives))
        reached = height(lives, press_python(lives, stacked(lives.sizes), least, 2_000).offsets)
        assert reached >= least, seed
        found += reached == least
    assert found >= 140


@needs_compiled
@settings(deadline=None)
@given(placed(most=16), st.integers(0, 5), st.integers(0, 300))
def test_the_compiled_press_is_the_python_one_turn_for_turn(case: Tuple[Lives, List[int]], room: int, limit: int) -> None:
    lives, offsets = case
    goal = max([0, greatest_load(lives.sizes, spans(lives)) - 1 + room, *lives.sizes])
    assert press_compiled is not None
    assert press_compiled(lives, offsets, goal, limit) == press_python(lives, offsets, goal, limit)


@pytest.mark.parametrize("press", PRESSES)
def test_a_goal_that_is_met_takes_no_turn(press: Press) -> None:
    assert press(Lives([0, 0], [1, 1], [2, 3]), [3, 0], 5, 100) == Pressed(0, [3, 0])
    assert press(Lives([], [], []), [], 0, 100) == Pressed(0, [])


@pytest.mark.parametrize("press", PRESSES)
def test_a_goal_that_cannot_be_met_takes_all_turns(press: Press) -> None:
    assert press(Lives([0, 0], [1, 1], [2, 3]), [3, 0], 4, 1_000) == Pressed(1_000, [3, 0])


@pytest.mark.parametrize("press", PRESSES)
def test_no_seconds_left_still_gives_a_placement(press: Press) -> None:
    assert press(Lives([0, 0], [1, 1], [2, 3]), [3, 0], 4, 10**9, 0.0) == Pressed(0, [3, 0])


@needs_compiled
def test_a_hard_file_comes_down_in_few_turns() -> None:
    """From the arena of one rule that is a fifth too high to one within a twelfth of the load, in half a second."""
    lives = hard("J")
    order = sorted(range(len(lives.sizes)), key=lambda b: (-lives.sizes[b], b))
    offsets = arenas._fit(lives.sizes, spans(lives), order, False)
    load = greatest_load(lives.sizes, spans(lives))
    pressed = pressing.press(lives, offsets, load, 300_000)
    check(lives, pressed)
    assert 5 * height(lives, offsets) > 6 * load
    assert 12 * height(lives, pressed.offsets) < 13 * load


def hard(name: str) -> Lives:
    read = read_lives(HARD[name])
    return Lives([born for born, _ in read.spans], [dead for _, dead in read.spans], [size // 1024 for size in read.sizes])


@needs_compiled
def test_the_press_takes_over_where_the_dives_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "DIVING", 5_000)
    read = read_lives(HARD["J"])
    called, press = [], pressing.press
    monkeypatch.setattr(pressing, "press", lambda *given: called.append(True) or press(*given))
    heights = {}
    for can in (pressing.can_press, lambda *given: False):
        monkeypatch.setattr(pressing, "can_press", can)
        arena = pack(Packing(read.sizes, read.spans), PackOptions(effort=5_000 if heights else 150_000))
        check_packing(read.sizes, read.spans, arena)
        heights[not heights] = arena.height
    assert heights[True] < heights[False]
    assert called == [True]


def test_what_is_too_large_to_press_is_left_to_the_dives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "DIVING", 10)
    monkeypatch.setattr(pressing, "press", lambda *given: pytest.fail("pressed"))
    sizes, lives = [3, 3, 4, 5, 4, 3, 2**20], [(0, 2), (1, 4), (2, 5), (0, 1), (3, 6), (4, 6), (6, 7)]
    assert not pressing.can_press(len(sizes), 2**20)
    check_packing(sizes, lives, pack(Packing(sizes, lives), PackOptions(effort=1_000)))


@needs_compiled
@pytest.mark.parametrize(
    ("births", "deaths", "sizes", "offsets", "goal"),
    [
        ([0], [0], [1], [0], 5),
        ([0], [1], [0], [0], 5),
        ([], [], [], [], -1),
        ([0], [1], [6], [0], 5),
        ([0], [1], [1], [-1], 5),
        ([0], [1], [1], [2**16], 5),
        ([0], [1], [2**16 + 1], [0], 2**17),
        ([0, 0], [1, 1], [3, 3], [0, 2], 5),
        ([0, 0], [1], [1], [0], 5),
        ([0] * 2049, [1] * 2049, [1] * 2049, list(range(2049)), 2049),
    ],
)
def test_the_compiled_press_refuses_what_would_crash_it(
    births: List[int], deaths: List[int], sizes: List[int], offsets: List[int], goal: int
) -> None:
    assert press_compiled is not None
    with pytest.raises(ValueError):
        press_compiled(Lives(births, deaths, sizes), offsets, goal, 10)


def test_an_overlap_would_be_seen() -> None:
    """The negative control of `check`."""
    with pytest.raises(StorageRejected, match="overlap"):
        check(Lives([0, 0], [1, 1], [2, 3]), Pressed(0, [0, 1]))

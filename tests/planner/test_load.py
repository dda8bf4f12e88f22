"""Loads against a plain count of who is alive."""

from __future__ import annotations

from typing import List, Tuple

from hypothesis import given
from hypothesis import strategies as st

from theano_memopt.planner.load import greatest_load, loads

LIVES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 8), st.integers(0, 8)), max_size=12)


@given(LIVES)
def test_a_load_is_the_sum_of_the_living(rows: List[Tuple[int, int, int]]) -> None:
    sizes, spans = [size for size, _, _ in rows], [(min(a, b), max(a, b)) for _, a, b in rows]
    alive = [sum(size for size, (born, dead) in zip(sizes, spans) if born <= step < dead) for step in range(8)]
    assert loads(sizes, spans, 8) == alive
    assert greatest_load(sizes, spans) == max(alive)


@given(LIVES, st.integers(-(10**12), 10**12))
def test_moments_may_be_anywhere(rows: List[Tuple[int, int, int]], moved: int) -> None:
    sizes, spans = [size for size, _, _ in rows], [(min(a, b), max(a, b)) for _, a, b in rows]
    assert greatest_load(sizes, [(1000 * born + moved, 1000 * dead + moved) for born, dead in spans]) == greatest_load(sizes, spans)


def test_nothing_has_no_load() -> None:
    assert loads([], [], 0) == [] and greatest_load([], []) == 0

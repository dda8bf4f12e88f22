"""Cells: never two tenants at a time, never more cells than needed, and a checker that catches what is broken on purpose."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from pathlib import Path
from typing import List, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.model import Graph, build_graph, graph_from_json, worked_example
from theano_memopt.planner.slots import Slots, StorageRejected, check_slots, share_cells

GRAPHS = sorted(path for path in (Path(__file__).parent.parent / "graphs").glob("*.json") if path.name != "KNOWN.json")


@st.composite
def graphs(draw: st.DrawFn, most: int = 9) -> Graph:
    """Small graphs with zero sizes, shared readers, kept and unread buffers, several kinds; sizes differ within a kind."""
    count = draw(st.integers(1, most))
    sizes, tasks, kinds, keep = {"input": 5}, [], {"input": "x"}, []
    for t in range(count):
        reads = draw(st.lists(st.sampled_from(sorted(sizes)), max_size=3, unique=True))
        writes = [f"b{t}.{i}" for i in range(draw(st.integers(0, 2)))]
        for name in writes:
            kinds[name] = draw(st.sampled_from(["x", "y"]))
            sizes[name] = draw(st.sampled_from([0, 1, 2, 7]))
            if draw(st.booleans()) and draw(st.booleans()):
                keep.append(name)
        tasks.append((f"t{t}", reads, writes))
    return build_graph(sizes, tasks, keep, kinds)


def alive_at_once(graph: Graph, kind: str, picked: Optional[set] = None) -> int:
    spans = lives(graph, graph.natural_order)
    inside = [b for b, x in enumerate(graph.buffers) if x.producer is not None and x.kind == kind and (picked is None or b in picked)]
    return max((sum(spans[b][0] <= step < spans[b][1] for b in inside) for step in range(len(graph.tasks))), default=0)


def brute_colours(spans: List[Tuple[int, int]]) -> int:
    """The least number of colours, by trying all of them: only for a handful of spans."""
    for colours in range(len(spans) + 1):
        for chosen in itertools.product(range(colours), repeat=len(spans)):
            if not any(
                chosen[i] == chosen[j] and spans[i][0] < spans[j][1] and spans[j][0] < spans[i][1] for i in range(len(spans)) for j in range(i)
            ):
                return colours
    raise AssertionError("as many colours as spans are always enough")


# --------------------------------------------------------------------------------------------------- the fewest cells


@settings(deadline=None)
@given(graphs())
def test_cells_of_a_kind_are_as_many_as_alive_at_once(graph: Graph) -> None:
    slots = share_cells(graph, graph.natural_order)
    check_slots(graph, graph.natural_order, slots)
    for kind in ("x", "y"):
        assert sum(k == kind for k, _ in slots.cells) == alive_at_once(graph, kind)


@settings(max_examples=40, deadline=None)
@given(graphs(most=4))
def test_no_colouring_has_fewer_cells(graph: Graph) -> None:
    spans = lives(graph, graph.natural_order)
    slots = share_cells(graph, graph.natural_order)
    for kind in ("x", "y"):
        inside = [spans[b] for b, x in enumerate(graph.buffers) if x.producer is not None and x.kind == kind]
        assert sum(k == kind for k, _ in slots.cells) == brute_colours(inside)


@settings(deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_those_that_may_not_share_live_alone(graph: Graph, chance: random.Random) -> None:
    sharing = {b for b in range(len(graph.buffers)) if chance.random() < 0.5}
    slots = share_cells(graph, graph.natural_order, may_share=sharing)
    check_slots(graph, graph.natural_order, slots, may_share=sharing)
    alone = sum(1 for b, x in enumerate(graph.buffers) if x.producer is not None and b not in sharing)
    assert len(slots.cells) == alone + sum(alive_at_once(graph, kind, sharing) for kind in ("x", "y"))


@settings(deadline=None)
@given(graphs())
def test_reserved_lies_between_peak_and_all_sizes(graph: Graph) -> None:
    slots = share_cells(graph, graph.natural_order)
    made = sum(x.size for x in graph.buffers if x.producer is not None)
    assert timeline(graph, graph.natural_order).peak <= slots.reserved_bytes <= made


def test_a_chain_needs_two_cells_however_long() -> None:
    graph = chain(50)
    slots = share_cells(graph, graph.natural_order)
    assert len(slots.cells) == 2
    assert slots.reserved_bytes == 8


def test_a_large_newcomer_grows_the_largest_free_cell() -> None:
    """Free are cells of 1 and 6 bytes when 7 bytes come: growing the one of 6 reserves 8, growing the one of 1 would 13."""
    graph = build_graph(
        {"small": 1, "large": 6, "larger": 7},
        [("make", (), ("small", "large")), ("use", ("small", "large"), ()), ("next", (), ("larger",), ("use",))],
        kinds={"small": "k", "large": "k", "larger": "k"},
    )
    assert share_cells(graph, graph.natural_order).reserved_bytes == 8


def test_twenty_thousand_buffers() -> None:
    graph = chain(20_000)
    slots = share_cells(graph, graph.natural_order)
    eager = share_cells(graph, graph.natural_order, peak_limit=8)
    check_slots(graph, graph.natural_order, slots)
    check_slots(graph, graph.natural_order, eager, peak_limit=8)
    assert len(slots.cells) == len(eager.cells) == 2


def chain(length: int) -> Graph:
    tasks = [(f"t{i}", (f"b{i - 1}",) if i else (), (f"b{i}",)) for i in range(length)]
    return build_graph({f"b{i}": 4 for i in range(length)}, tasks)


# ------------------------------------------------------------------------------------------------------- eager cells


@settings(deadline=None)
@given(graphs(), st.integers(0, 12))
def test_held_cells_never_go_over_the_limit(graph: Graph, room: int) -> None:
    order = graph.natural_order
    limit = timeline(graph, order).peak + room
    slots = share_cells(graph, order, peak_limit=limit)
    check_slots(graph, order, slots, peak_limit=limit)
    assert timeline(graph, order).peak <= slots.reserved_bytes <= limit


@settings(deadline=None)
@given(graphs())
def test_with_room_for_all_equal_sizes_share_like_without_a_limit(graph: Graph) -> None:
    limit = 2 * sum(x.size for x in graph.buffers) + 1
    order = graph.natural_order
    even = Graph(graph.tasks, tuple(dataclasses.replace(x, size=3) for x in graph.buffers))
    assert len(share_cells(even, order, peak_limit=limit + 100).cells) == len(share_cells(even, order).cells)


def held_example() -> Graph:
    """`a` dies, then a peak of 10 bytes passes, then `c` wants a cell of the kind of `a`: holding it open costs 4."""
    return build_graph(
        {"a": 4, "big": 10, "c": 4},
        [("make a", (), ("a",)), ("use a", ("a",), ()), ("peak", (), ("big",), ("use a",)), ("make c", (), ("c",), ("peak",))],
        keep=("c",),
    )


def test_a_cell_is_not_held_through_the_peak() -> None:
    graph = held_example()
    tight = share_cells(graph, graph.natural_order, peak_limit=10)
    roomy = share_cells(graph, graph.natural_order, peak_limit=14)
    assert (len(tight.cells), tight.reserved_bytes) == (3, 10)
    assert (len(roomy.cells), roomy.reserved_bytes) == (2, 14)


def test_the_checker_sees_a_cell_held_through_the_peak() -> None:
    graph = held_example()
    roomy = share_cells(graph, graph.natural_order, peak_limit=14)
    with pytest.raises(StorageRejected, match="over-limit: 'peak' runs with 14 bytes"):
        check_slots(graph, graph.natural_order, roomy, peak_limit=10)


def test_a_limit_below_the_peak_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 8 bytes, more than the limit of 7"):
        share_cells(worked_example(), (0, 2, 1, 3, 4), peak_limit=7)


def test_sizes_beyond_64_bits() -> None:
    huge = 2**70
    graph = build_graph({"a": huge, "b": huge}, [("one", (), ("a",)), ("two", (), ("b",), ("one",))])
    slots = share_cells(graph, graph.natural_order, peak_limit=huge)
    check_slots(graph, graph.natural_order, slots, peak_limit=huge)
    assert slots.reserved_bytes == huge


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_real_graphs_share_without_raising_their_peak(path: Path) -> None:
    graph = graph_from_json(json.loads(path.read_text(encoding="utf-8")))
    order = graph.natural_order
    peak = timeline(graph, order).peak
    slots = share_cells(graph, order)
    eager = share_cells(graph, order, peak_limit=peak)
    check_slots(graph, order, slots)
    check_slots(graph, order, eager, peak_limit=peak)
    produced = sum(x.producer is not None for x in graph.buffers)
    assert eager.reserved_bytes == peak
    assert len(slots.cells) == sum(alive_at_once(graph, kind) for kind in {x.kind for x in graph.buffers})
    assert len(slots.cells) <= len(eager.cells) <= produced


# -------------------------------------------------------------------------------------------------- negative controls

ORDER = (0, 2, 1, 3, 4)  # of the worked example: L and R do not live together, l and r do
GOOD = Slots((0, 0, 1, 2, 3), (("6B", 6), ("1B", 1), ("1B", 1), ("1B", 1)), 9)


def forged(**changes: object) -> Slots:
    return dataclasses.replace(GOOD, **changes)


def test_the_good_one_passes() -> None:
    check_slots(worked_example(), ORDER, GOOD)


@pytest.mark.parametrize(
    ("reason", "slots"),
    [
        ("overlap", forged(cell_of=(0, 0, 1, 1, 2), cells=GOOD.cells[:3], reserved_bytes=8)),
        ("wrong-length", forged(cell_of=(0, 0, 1, 2))),
        ("no-cell", forged(cell_of=(0, 0, 1, 2, None))),
        ("unknown-cell", forged(cell_of=(0, 0, 1, 2, 4))),
        ("unknown-cell", forged(cell_of=(0, 0, 1, 2, -1))),
        ("unknown-cell", forged(cell_of=(0, 0, 1, 2, True))),
        ("wrong-kind", forged(cell_of=(0, 0, 1, 2, 0))),
        ("too-small", forged(cells=(("6B", 5),) + GOOD.cells[1:], reserved_bytes=8)),
        ("wrong-size", forged(cells=(("6B", 7),) + GOOD.cells[1:], reserved_bytes=10)),
        ("empty-cell", forged(cells=GOOD.cells + (("1B", 1),), reserved_bytes=10)),
        ("wrong-total", forged(reserved_bytes=8)),
        ("wrong-total", forged(eager=True)),
    ],
)
def test_forged_cells_are_rejected(reason: str, slots: Slots) -> None:
    with pytest.raises(StorageRejected) as caught:
        check_slots(worked_example(), ORDER, slots)
    assert caught.value.reason == reason


def test_the_same_cells_overlap_in_another_order() -> None:
    with pytest.raises(StorageRejected, match="overlap: 'L' and 'R' share cell 0 and both live at step 1"):
        check_slots(worked_example(), (0, 1, 2, 3, 4), GOOD)


def test_sharing_by_one_that_may_not_is_rejected() -> None:
    with pytest.raises(StorageRejected, match="may-not-share: 'L' and 'R'"):
        check_slots(worked_example(), ORDER, GOOD, may_share={0, 2, 3, 4})


def test_permanent_cells_are_no_eager_ones() -> None:
    with pytest.raises(StorageRejected, match="not-eager"):
        check_slots(worked_example(), ORDER, GOOD, peak_limit=100)


def test_an_input_in_a_cell_is_rejected() -> None:
    graph = build_graph({"in": 4, "a": 4}, [("make", ("in",), ("a",))])
    with pytest.raises(StorageRejected, match="input-in-cell: 'in'"):
        check_slots(graph, (0,), Slots((0, 0), (("4B", 4),), 4))


@settings(deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_a_random_colouring_passes_only_if_nobody_meets(graph: Graph, chance: random.Random) -> None:
    """The checker against another way of looking: bytes of a cell painted step by step."""
    spans = lives(graph, graph.natural_order)
    produced = [b for b, x in enumerate(graph.buffers) if x.producer is not None]
    groups = {b: (graph.buffers[b].kind, chance.randrange(3)) for b in produced}
    names = sorted(set(groups.values()))
    cell_of = tuple(names.index(groups[b]) if b in groups else None for b in range(len(graph.buffers)))
    cells = tuple((kind, max(graph.buffers[b].size for b in produced if groups[b] == (kind, i))) for kind, i in names)
    slots = Slots(cell_of, cells, sum(size for _, size in cells))
    painted = [(cell_of[b], step) for b in produced for step in range(*spans[b])]
    if len(set(painted)) == len(painted):
        check_slots(graph, graph.natural_order, slots)
    else:
        with pytest.raises(StorageRejected, match="overlap"):
            check_slots(graph, graph.natural_order, slots)

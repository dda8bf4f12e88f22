"""A graph is sound or refused, with the reason by name."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import graphs
from theano_memopt.planner.model import Buffer, Graph, GraphError, Task, build_graph, graph_from_json, graph_to_json, worked_example


def _json(**changes: Any) -> Dict[str, Any]:
    sound: Dict[str, Any] = {
        "buffers": [{"name": "a", "bytes": 4}, {"name": "b", "bytes": 2}],
        "tasks": [{"name": "make", "reads": [], "writes": ["a"], "after": []}, {"name": "use", "reads": ["a"], "writes": ["b"], "after": []}],
        "keep": ["b"],
    }
    sound.update(changes)
    return sound


def _task(name: str, **words: Any) -> Dict[str, Any]:
    return {"name": name, "reads": [], "writes": [], "after": [], **words}


REFUSED = [
    ("cycle", _json(tasks=[_task("make", writes=["a"], reads=["b"]), _task("use", reads=["a"], writes=["b"])]), "make -> use -> make"),
    ("cycle", _json(tasks=[_task("make", reads=["a"], writes=["a"])]), "make -> make"),
    ("cycle", _json(tasks=[_task("x", after=["y"]), _task("y", after=["x"])], keep=[]), "x"),
    ("two-producers", _json(tasks=[_task("make", writes=["a"]), _task("again", writes=["a"])], keep=[]), "'make' and 'again'"),
    ("unknown-buffer", _json(tasks=[_task("use", reads=["nowhere"])]), "nowhere"),
    ("unknown-buffer", _json(keep=["nowhere"]), "keep"),
    ("unknown-task", _json(tasks=[_task("use", after=["nobody"])]), "nobody"),
    ("bad-size", _json(buffers=[{"name": "a", "bytes": -1}, {"name": "b", "bytes": 2}]), "buffers[0].bytes"),
    ("bad-size", _json(buffers=[{"name": "a", "bytes": 1.0}, {"name": "b", "bytes": 2}]), "1.0"),
    ("bad-size", _json(buffers=[{"name": "a", "bytes": True}, {"name": "b", "bytes": 2}]), "True"),
    ("bad-size", _json(buffers=[{"name": "a"}, {"name": "b", "bytes": 2}]), "None"),
    ("duplicate-name", _json(buffers=[{"name": "a", "bytes": 1}, {"name": "a", "bytes": 2}], keep=[]), "'a'"),
    ("duplicate-name", _json(tasks=[_task("make", writes=["a"]), _task("make", writes=["b"])]), "'make'"),
    ("bad-form", _json(tasks={}), "tasks"),
    ("bad-form", _json(tasks=[7]), "tasks[0]"),
    ("bad-form", _json(tasks=[_task("make", reads="a")]), "reads"),
    ("bad-form", _json(buffers=[{"name": "a", "bytes": 1, "kind": 3}, {"name": "b", "bytes": 2}]), "kind"),
    ("bad-form", [], "top level"),
]


@pytest.mark.parametrize("reason, data, place", REFUSED, ids=[f"{reason}-{i}" for i, (reason, _, _) in enumerate(REFUSED)])
def test_an_unsound_graph_is_refused_by_name(reason: str, data: Any, place: str) -> None:
    with pytest.raises(GraphError) as refusal:
        graph_from_json(data)
    assert refusal.value.reason == reason
    assert place in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_sound_one_is_accepted() -> None:
    graph = graph_from_json(_json())
    assert [b.readers for b in graph.buffers] == [(1,), ()]
    assert graph.predecessors == ((), (0,))


@pytest.mark.parametrize(
    "reason, tasks, buffers",
    [
        ("inconsistent", (Task(reads=(0,), label="t"),), (Buffer(1, label="b"),)),
        ("inconsistent", (Task(label="t"),), (Buffer(1, producer=0, label="b"),)),
        ("unknown-buffer", (Task(reads=(5,), label="t"),), (Buffer(1, label="b"),)),
        ("duplicate-name", (Task(label="t"), Task(label="t")), ()),
        ("two-producers", (Task(writes=(0,), label="s"), Task(writes=(0,), label="t")), (Buffer(1, producer=0, label="b"),)),
        ("bad-size", (), (Buffer(-1, label="b"),)),
    ],
)
def test_a_graph_built_in_code_is_checked_too(reason: str, tasks: Any, buffers: Any) -> None:
    with pytest.raises(GraphError) as refusal:
        Graph(tasks, buffers)
    assert refusal.value.reason == reason


@given(graphs())
def test_json_round_trip_loses_nothing(graph: Graph) -> None:
    assert graph_from_json(json.loads(json.dumps(graph_to_json(graph)))) == graph


def test_equal_sizes_are_one_kind_unless_said_otherwise() -> None:
    assert [b.kind for b in worked_example().buffers] == ["6B", "6B", "1B", "1B", "1B"]
    assert build_graph({"a": 4}, [("t", (), ("a",))], kinds={"a": "float32 matrix"}).buffers[0].kind == "float32 matrix"


def test_a_graph_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        worked_example().tasks = ()  # type: ignore[misc]


@given(graphs())
def test_the_natural_order_is_legal_and_nothing_else_is(graph: Graph) -> None:
    order = list(graph.natural_order)
    assert graph.is_legal(order)
    assert not graph.is_legal(order[:-1])
    assert not graph.is_legal([*order[:-1], len(order)])
    assert not graph.is_legal([order[0]] * len(order)) or len(order) == 1
    for task in range(len(order)):
        if graph.predecessors[task]:
            assert not graph.is_legal([task] + [t for t in order if t != task])


def test_large_sizes_are_whole_numbers_of_any_length() -> None:
    graph = build_graph({"a": 10**30}, [("t", (), ("a",))])
    assert graph.allocates == (10**30,)


@given(graphs(), st.integers(0, 5))
def test_a_resized_graph_is_the_one_built_with_those_sizes(graph: Graph, factor: int) -> None:
    sizes = [factor * buffer.size + b for b, buffer in enumerate(graph.buffers)]
    built = Graph(graph.tasks, tuple(dataclasses.replace(buffer, size=size) for buffer, size in zip(graph.buffers, sizes)), "elsewhere")
    resized = graph.resized(sizes, "elsewhere")
    assert resized == built
    for found in ("natural_order", "predecessors", "successors", "allocates"):
        assert getattr(resized, found) == getattr(built, found)
    assert graph.resized([buffer.size for buffer in graph.buffers]) == graph


@pytest.mark.parametrize("sizes", [[1, 2, 3], [1, 1, 1, -1, 1]])
def test_a_graph_takes_no_sizes_that_do_not_fit(sizes: Any) -> None:
    with pytest.raises(ValueError, match="0 bytes or more"):
        worked_example().resized(sizes)


def test_assumed_sizes_are_said_in_the_json_and_go_with_the_words_about_them() -> None:
    graph = dataclasses.replace(worked_example(), sizes_from="guessed", sizes_assumed=True)
    data = graph_to_json(graph)
    assert data["sizes_assumed"] is True and graph_from_json(data) == graph and "sizes_assumed" not in graph_to_json(worked_example())
    sizes = [b.size for b in graph.buffers]
    assert graph.resized(sizes).sizes_assumed and not graph.resized(sizes, "the last call").sizes_assumed
    with pytest.raises(GraphError, match="sizes_assumed"):
        graph_from_json({**data, "sizes_assumed": "no"})

"""The graph that is planned: tasks, the buffers they read and write, and nothing of any framework.

Words
    task      one step of the program; it runs once, and not before everything that it needs has run
    buffer    bytes that one task writes and others read; views and in-place results are names of one buffer
    input     a buffer that no task writes; it belongs to the caller and counts 0 bytes
    kind      the class of storage a buffer asks for (dtype, shape class, device): only equal kinds share a cell
    pinned    kept to the end (an output), never freed

A task or a buffer *is* its index. Everything here is frozen and checked at birth, so no later stage has to ask
whether a graph is sound.

The worked example of this package, used from here to the README: two large arrays, each reduced to a number.

    left ---L(6)--- left_sum ---l(1)---+
                                       add ---out(1)  (kept)
    right --R(6)--- right_sum --r(1)---+

>>> graph = worked_example()
>>> [task.label for task in graph.tasks]
['left', 'right', 'left_sum', 'right_sum', 'add']
>>> graph.predecessors[4]
(2, 3)
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

WORKSPACE = "workspace"
"""The kind of a buffer that a task takes for itself."""


class GraphError(ValueError):
    """A graph that cannot be planned. `reason` is a fixed word, `where` the place, the message a sentence."""

    def __init__(self, reason: str, where: str, message: str) -> None:
        super().__init__(f"{reason}: {message}" + (f" ({where})" if where else ""))
        self.reason = reason
        self.where = where


@dataclass(frozen=True)
class Buffer:
    size: int
    kind: str = ""
    producer: Optional[int] = None
    readers: Tuple[int, ...] = ()
    pinned: bool = False
    label: str = ""

    @property
    def is_workspace(self) -> bool:
        """Does its own task alone use it, and give it back before it is done? Then no storage is planned for it."""
        return self.kind == WORKSPACE


@dataclass(frozen=True)
class Task:
    reads: Tuple[int, ...] = ()
    writes: Tuple[int, ...] = ()
    after: Tuple[int, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Graph:
    """Tasks and buffers, acyclic and consistent. Build it with `build_graph` or `graph_from_json`."""

    tasks: Tuple[Task, ...]
    buffers: Tuple[Buffer, ...]
    sizes_from: str = "given"
    """Where the sizes came from, in words."""
    sizes_assumed: bool = False
    """Is any of them a mere assumption? Then a proof about this graph holds at the assumed sizes only."""
    _order: Tuple[int, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        _check_buffers(self)
        _check_tasks(self)
        object.__setattr__(self, "_order", _natural_order(self))

    @property
    def sizes(self) -> str:
        """In one word, for results that are written down: `assumed` or `given`."""
        return "assumed" if self.sizes_assumed else "given"

    @cached_property
    def predecessors(self) -> Tuple[Tuple[int, ...], ...]:
        """For each task the tasks that must be done first: producers of what it reads, and its `after`."""
        return tuple(
            tuple(sorted({p for p in (self.buffers[b].producer for b in task.reads) if p is not None} | set(task.after))) for task in self.tasks
        )

    @cached_property
    def successors(self) -> Tuple[Tuple[int, ...], ...]:
        found: List[List[int]] = [[] for _ in self.tasks]
        for task, needs in enumerate(self.predecessors):
            for needed in needs:
                found[needed].append(task)
        return tuple(tuple(s) for s in found)

    @property
    def natural_order(self) -> Tuple[int, ...]:
        """A legal order that stays as close to the given numbering as it can: always the smallest ready index."""
        return self._order

    @cached_property
    def allocates(self) -> Tuple[int, ...]:
        """For each task the bytes that it allocates."""
        return tuple(sum(self.buffers[b].size for b in task.writes) for task in self.tasks)

    def resized(self, sizes: Sequence[int], sizes_from: Optional[str] = None, sizes_assumed: bool = False) -> Graph:
        """The same graph with other sizes, one per buffer. What does not depend on sizes is not found or checked anew.

        Without `sizes_from` nothing is said of the new sizes: the words of the old ones stay.
        """
        if any(size < 0 for size in sizes) or len(sizes) != len(self.buffers):
            raise ValueError(f"a graph of {len(self.buffers)} buffers needs as many sizes of 0 bytes or more, not {list(sizes)}")
        other = object.__new__(Graph)
        for name in ("tasks", "sizes_from", "sizes_assumed", "_order", "predecessors", "successors"):
            object.__setattr__(other, name, getattr(self, name))
        buffers = [b if b.size == size else Buffer(size, b.kind, b.producer, b.readers, b.pinned, b.label) for b, size in zip(self.buffers, sizes)]
        object.__setattr__(other, "buffers", tuple(buffers))
        if sizes_from is not None:
            object.__setattr__(other, "sizes_from", sizes_from)
            object.__setattr__(other, "sizes_assumed", sizes_assumed)
        return other

    def with_workspaces(self, rows: Sequence[Tuple[int, int]]) -> Graph:
        """The same graph, and for each (task, bytes) a buffer that lives while the task runs. They come after all other buffers.

        >>> graph = worked_example().with_workspaces([(4, 9)])
        >>> graph.allocates
        (6, 6, 1, 1, 10)
        """
        tasks, buffers = list(self.tasks), list(self.buffers)
        for t, size in rows:
            tasks[t] = replace(tasks[t], writes=(*tasks[t].writes, len(buffers)))
            buffers.append(Buffer(size, WORKSPACE, t, (), False, f"workspace of {tasks[t].label}"))
        return replace(self, tasks=tuple(tasks), buffers=tuple(buffers)) if rows else self

    def is_legal(self, order: Sequence[int]) -> bool:
        """Is `order` a permutation of the tasks in which nothing runs before what it needs?"""
        position = {task: step for step, task in enumerate(order)}
        if len(position) != len(self.tasks) or len(order) != len(self.tasks) or any(t not in position for t in range(len(order))):
            return False
        return all(position[p] < position[t] for t in position for p in self.predecessors[t])


def build_graph(
    buffers: Mapping[str, int],
    tasks: Iterable[Sequence[Any]],
    keep: Iterable[str] = (),
    kinds: Optional[Mapping[str, str]] = None,
    sizes_from: str = "given",
) -> Graph:
    """A graph from names: `buffers` maps name to bytes; a task is (name, reads, writes) or (name, reads, writes, after).

    >>> build_graph({"a": 4}, [("make", (), ("a",)), ("use", ("a",), ())]).allocates
    (4, 0)
    """
    rows = [tuple(task) + ((),) * (4 - len(task)) for task in tasks]
    return graph_from_json(
        {
            "buffers": [
                {"name": name, "bytes": size, **({"kind": kinds[name]} if kinds and name in kinds else {})} for name, size in buffers.items()
            ],
            "tasks": [{"name": n, "reads": list(r), "writes": list(w), "after": list(a)} for n, r, w, a in rows],
            "keep": list(keep),
        },
        sizes_from=sizes_from,
    )


def worked_example() -> Graph:
    """The five tasks in the picture above, in breadth-first numbering."""
    return build_graph(
        {"L": 6, "R": 6, "l": 1, "r": 1, "out": 1},
        [
            ("left", (), ("L",)),
            ("right", (), ("R",)),
            ("left_sum", ("L",), ("l",)),
            ("right_sum", ("R",), ("r",)),
            ("add", ("l", "r"), ("out",)),
        ],
        keep=("out",),
    )


def graph_from_json(data: Any, sizes_from: str = "given") -> Graph:
    """A graph from parsed JSON: {"buffers": [{"name", "bytes", "kind"?}], "tasks": [{"name", "reads", "writes", "after"}], "keep": [...]}.

    >>> graph_from_json({"buffers": [{"name": "a", "bytes": -1}], "tasks": [], "keep": []})
    Traceback (most recent call last):
        ...
    theano_memopt.planner.model.GraphError: bad-size: buffer 'a' has -1 bytes; a size is a whole number, 0 or more (buffers[0].bytes)
    """
    if not isinstance(data, dict):
        raise GraphError("bad-form", "top level", "a graph is a JSON object with buffers, tasks and keep")
    rows = named_rows(data, "buffers")
    sizes = [_size(row, f"buffers[{i}].bytes") for i, row in enumerate(rows)]
    buffer_index = index_by_name(rows, "buffer")
    task_rows = named_rows(data, "tasks")
    task_index = index_by_name(task_rows, "task")

    reads = [_lookup(row, "reads", i, buffer_index, "buffer") for i, row in enumerate(task_rows)]
    writes = [_lookup(row, "writes", i, buffer_index, "buffer") for i, row in enumerate(task_rows)]
    after = [_lookup(row, "after", i, task_index, "task") for i, row in enumerate(task_rows)]
    producer: Dict[int, int] = {}
    readers: List[List[int]] = [[] for _ in rows]
    for t, row in enumerate(task_rows):
        for b in writes[t]:
            if b in producer:
                raise GraphError(
                    "two-producers",
                    f"tasks[{t}].writes",
                    f"buffer {rows[b]['name']!r} is written by both {task_rows[producer[b]]['name']!r} and {row['name']!r}",
                )
            producer[b] = t
        for b in reads[t]:
            readers[b].append(t)
    kept = set(_lookup(data, "keep", None, buffer_index, "buffer"))
    buffers = tuple(Buffer(sizes[b], _kind(row, b), producer.get(b), tuple(readers[b]), b in kept, row["name"]) for b, row in enumerate(rows))
    tasks = tuple(Task(reads[t], writes[t], after[t], row["name"]) for t, row in enumerate(task_rows))
    assumed = data.get("sizes_assumed", False)
    if not isinstance(assumed, bool):
        raise GraphError("bad-form", "sizes_assumed", "sizes_assumed is true or false")
    return Graph(tasks, buffers, str(data.get("sizes_from", sizes_from)), assumed)


def graph_to_json(graph: Graph) -> Dict[str, Any]:
    """The inverse of `graph_from_json`, loss-free."""

    def names(items: Sequence[Any], picked: Iterable[int]) -> List[str]:
        return [items[i].label for i in picked]

    return {
        "sizes_from": graph.sizes_from,
        **({"sizes_assumed": True} if graph.sizes_assumed else {}),
        "buffers": [{"name": b.label, "bytes": b.size, "kind": b.kind} for b in graph.buffers],
        "tasks": [
            {
                "name": t.label,
                "reads": names(graph.buffers, t.reads),
                "writes": names(graph.buffers, t.writes),
                "after": names(graph.tasks, t.after),
            }
            for t in graph.tasks
        ],
        "keep": [b.label for b in graph.buffers if b.pinned],
    }


def _check_buffers(graph: Graph) -> None:
    seen: Dict[str, int] = {}
    for b, buffer in enumerate(graph.buffers):
        if isinstance(buffer.size, bool) or not isinstance(buffer.size, int) or buffer.size < 0:
            raise GraphError("bad-size", f"buffers[{b}]", f"buffer {buffer.label!r} has {buffer.size!r} bytes; a size is a whole number, 0 or more")
        if buffer.label in seen:
            raise GraphError("duplicate-name", f"buffers[{b}]", f"two buffers are named {buffer.label!r}")
        seen[buffer.label] = b


def _check_tasks(graph: Graph) -> None:
    readers: List[List[int]] = [[] for _ in graph.buffers]
    producer: Dict[int, int] = {}
    seen: Dict[str, int] = {}
    for t, task in enumerate(graph.tasks):
        if task.label in seen:
            raise GraphError("duplicate-name", f"tasks[{t}]", f"two tasks are named {task.label!r}")
        seen[task.label] = t
        for word, picked, limit in (("reads", task.reads, graph.buffers), ("writes", task.writes, graph.buffers), ("after", task.after, graph.tasks)):
            if len(set(picked)) != len(picked):
                raise GraphError("duplicate-name", f"tasks[{t}].{word}", f"task {task.label!r} names one thing twice in {word}")
            for i in picked:
                if not 0 <= i < len(limit):
                    raise GraphError(
                        f"unknown-{'task' if word == 'after' else 'buffer'}",
                        f"tasks[{t}].{word}",
                        f"task {task.label!r} names index {i}, which does not exist",
                    )
        for b in task.writes:
            if b in producer:
                raise GraphError("two-producers", f"tasks[{t}].writes", f"buffer {graph.buffers[b].label!r} has two producers")
            producer[b] = t
        for b in task.reads:
            readers[b].append(t)
    for b, buffer in enumerate(graph.buffers):
        if buffer.producer != producer.get(b) or tuple(sorted(buffer.readers)) != tuple(readers[b]):
            raise GraphError("inconsistent", f"buffers[{b}]", f"buffer {buffer.label!r} and the tasks disagree about who writes or reads it")


def _natural_order(graph: Graph) -> Tuple[int, ...]:
    missing = [len(p) for p in graph.predecessors]
    ready = [t for t, count in enumerate(missing) if count == 0]
    order: List[int] = []
    while ready:
        task = heapq.heappop(ready)
        order.append(task)
        for later in graph.successors[task]:
            missing[later] -= 1
            if missing[later] == 0:
                heapq.heappush(ready, later)
    if len(order) < len(graph.tasks):
        circle = _find_cycle(graph, [t for t in range(len(graph.tasks)) if missing[t] > 0])
        raise GraphError("cycle", "tasks", "each of these needs the one before it: " + " -> ".join(graph.tasks[t].label for t in circle))
    return tuple(order)


def _find_cycle(graph: Graph, stuck: Sequence[int]) -> List[int]:
    """A cycle among tasks that never became ready: walk to a stuck predecessor until one comes up again."""
    inside = set(stuck)
    path: List[int] = [stuck[0]]
    while path.count(path[-1]) < 2:
        path.append(next(p for p in graph.predecessors[path[-1]] if p in inside))
    return path[path.index(path[-1]) :][::-1]


def named_rows(data: Mapping[str, Any], word: str) -> List[Dict[str, Any]]:
    """The list under this word, every entry of it an object with a name."""
    rows = data.get(word)
    if not isinstance(rows, list):
        raise GraphError("bad-form", word, f"{word!r} must be a list")
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise GraphError("bad-form", f"{word}[{i}]", "every entry is an object with a text 'name'")
    return rows


def index_by_name(rows: Sequence[Mapping[str, Any]], noun: str) -> Dict[str, int]:
    """The place of each name; no two rows may have the same."""
    found: Dict[str, int] = {}
    for i, row in enumerate(rows):
        if row["name"] in found:
            raise GraphError("duplicate-name", f"{noun}s[{i}]", f"two {noun}s are named {row['name']!r}")
        found[row["name"]] = i
    return found


def _lookup(row: Mapping[str, Any], word: str, i: Optional[int], index: Mapping[str, int], noun: str) -> Tuple[int, ...]:
    where = word if i is None else f"tasks[{i}].{word}"
    names = row.get(word, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GraphError("bad-form", where, f"{word!r} must be a list of names")
    for name in names:
        if name not in index:
            raise GraphError(f"unknown-{noun}", where, f"there is no {noun} named {name!r}")
    return tuple(dict.fromkeys(index[name] for name in names))


def _size(row: Mapping[str, Any], where: str) -> int:
    size = row.get("bytes")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise GraphError("bad-size", where, f"buffer {row['name']!r} has {size!r} bytes; a size is a whole number, 0 or more")
    return size


def _kind(row: Mapping[str, Any], b: int) -> str:
    kind = row.get("kind", f"{row['bytes']}B")  # without a kind, equal sizes are one kind
    if not isinstance(kind, str):
        raise GraphError("bad-form", f"buffers[{b}].kind", "a kind is a text")
    return kind

"""Which twin does the work: the compiled one where it was built and the sizes fit into 64 bits, else the Python one.

Both give the same answers after the same number of states, so the choice changes the time and nothing else.
`THEANO_MEMOPT_KERNEL=python` chooses the Python one.
"""

from __future__ import annotations

import ctypes
import glob
import os
from array import array
from typing import Any, List, Optional, Sequence, Tuple, Union

from theano_memopt.options import ALL_PRUNINGS, Prunings
from theano_memopt.planner.flow import INFINITE, Cut, Network
from theano_memopt.planner.model import Graph
from theano_memopt.planner.moves import MovedOrder
from theano_memopt.planner.numbers_for_c import ByAddress, in_rows, int64s, ints, room_for_ints
from theano_memopt.planner.search import EXHAUSTED, FOUND, RUNNING, BudgetSearch

_LARGEST_SUM = 1 << 60
IMPOSSIBLE = INFINITE
"""The height of a task that cannot run in the situation that was asked about."""
_STATUS = (RUNNING, FOUND, EXHAUSTED)


class PythonKernel:
    """Cuts and searches on one graph, in Python."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._network: Optional[Network] = None

    def flow_floor(self, task: int, done: Sequence[int] = (), undone: Sequence[int] = ()) -> int:
        """No order runs `task`, the tasks in `done` being done and those in `undone` not, at a lower height."""
        self._network = self._network or Network(self.graph)
        if any(self._network.ancestors[task] >> other & 1 for other in undone):
            return IMPOSSIBLE
        cut = Cut(self._network, task, undone)
        possible = all(cut.force(other, INFINITE - 1) for other in done)
        return cut.value + self.graph.allocates[task] if possible else IMPOSSIBLE

    def flows(self, task: int, done: Sequence[int] = (), undone: Sequence[int] = ()) -> List[int]:
        """The flow behind such a floor, arc by arc of `Network`; the situation must be a possible one."""
        self._network = self._network or Network(self.graph)
        cut = Cut(self._network, task, undone)
        for other in done:
            cut.force(other, INFINITE - 1)
        return cut.flows()

    def least_set(self, task: int, done: Sequence[int] = (), undone: Sequence[int] = ()) -> Tuple[int, bytes]:
        """Such a floor, and for each task whether it is done in the least set that shows it; the situation must be a possible one."""
        self._network = self._network or Network(self.graph)
        cut = Cut(self._network, task, undone)
        for other in done:
            cut.force(other, INFINITE - 1)
        return cut.value + self.graph.allocates[task], cut.least_set()

    def search(self, budget: int, critical: Sequence[int], prunings: Prunings = ALL_PRUNINGS) -> BudgetSearch:
        return BudgetSearch(self.graph, budget, critical, prunings)


class CompiledSearch:
    """BudgetSearch, compiled."""

    def __init__(self, kernel: CompiledKernel, budget: int, critical: Sequence[int], prunings: Prunings) -> None:
        self._kernel = kernel  # keeps the graph alive
        self._library = kernel.library
        critical = critical if prunings.cut else ()
        switches = prunings.settle | prunings.commit << 1 | prunings.memory << 2
        self._handle = self._library.memopt_search(kernel.handle, budget, ints(critical), len(critical), switches)

    def run(self, until: int, rule: int = 0) -> str:
        return _STATUS[self._library.memopt_search_run(self._handle, until, rule)]

    def restart(self) -> None:
        self._library.memopt_search_restart(self._handle)

    @property
    def states(self) -> int:
        return int(self._library.memopt_search_states(self._handle))

    @property
    def next_budget(self) -> int:
        return int(self._library.memopt_search_next_budget(self._handle))

    @property
    def trail(self) -> List[int]:
        out = room_for_ints(len(self._kernel.graph.tasks))
        self._library.memopt_search_trail(self._handle, out)
        return list(out)

    def __del__(self) -> None:
        self._library.memopt_search_free(self._handle)


class CompiledKernel:
    """Cuts and searches on one graph, compiled."""

    def __init__(self, graph: Graph, library: Any) -> None:
        self.graph = graph
        self.library = library
        self.handle = library.memopt_kernel(*_flat(graph))

    def flow_floor(self, task: int, done: Sequence[int] = (), undone: Sequence[int] = ()) -> int:
        value = self._cut(task, done, undone, None)
        return value + self.graph.allocates[task] if value <= _LARGEST_SUM else IMPOSSIBLE

    def flows(self, task: int, done: Sequence[int] = (), undone: Sequence[int] = ()) -> List[int]:
        found = int64s([0] * self.library.memopt_arcs(self.handle))
        self._cut(task, done, undone, found)
        return list(found)

    def least_set(self, task: int, done: Sequence[int] = (), undone: Sequence[int] = ()) -> Tuple[int, bytes]:
        found = array("b", bytes(len(self.graph.tasks)))
        value = self._cut(task, done, undone, None, found)
        return value + self.graph.allocates[task], found.tobytes()

    def _cut(self, task: int, done: Sequence[int], undone: Sequence[int], flows: Any, least_set: Any = None) -> int:
        where = (ints(done), len(done), ints(undone), len(undone))
        return int(self.library.memopt_cut(self.handle, task, *where, _LARGEST_SUM, flows, least_set))

    def search(self, budget: int, critical: Sequence[int], prunings: Prunings = ALL_PRUNINGS) -> CompiledSearch:
        return CompiledSearch(self, budget, critical, prunings)

    def __del__(self) -> None:
        self.library.memopt_kernel_free(self.handle)


class CompiledMovedOrder:
    """MovedOrder, compiled."""

    def __init__(self, graph: Graph, order: Sequence[int], seed: int, library: Any) -> None:
        self.graph = graph
        self._library = library
        self._handle = library.memopt_moved(*_flat(graph), ints(order), seed)

    def run(self, goal: int, moves: int) -> int:
        return int(self._library.memopt_moved_run(self._handle, goal, moves))

    @property
    def peak(self) -> int:
        return int(self._library.memopt_moved_peak(self._handle))

    @property
    def order(self) -> List[int]:
        out = room_for_ints(len(self.graph.tasks))
        self._library.memopt_moved_order(self._handle, out)
        return list(out)

    def __del__(self) -> None:
        self._library.memopt_moved_free(self._handle)


Kernel = Union[PythonKernel, CompiledKernel]
Search = Union[BudgetSearch, CompiledSearch]
Moved = Union[MovedOrder, CompiledMovedOrder]


def kernel_for(graph: Graph) -> Kernel:
    if _LIBRARY is None or sum(buffer.size for buffer in graph.buffers) >= _LARGEST_SUM:
        return PythonKernel(graph)
    return CompiledKernel(graph, _LIBRARY)


def moved_order(graph: Graph, order: Sequence[int], seed: int) -> Moved:
    """An order to be improved by moves. Its excess is a sum over all steps, so it must fit into 64 bits as well."""
    if _MOVES is None or sum(buffer.size for buffer in graph.buffers) * len(graph.tasks) >= _LARGEST_SUM:
        return MovedOrder(graph, order, seed)
    return CompiledMovedOrder(graph, order, seed, _MOVES)


def _flat(graph: Graph) -> List[Any]:
    """A graph as the compiled twins read it."""
    return [
        len(graph.tasks),
        len(graph.buffers),
        int64s([buffer.size for buffer in graph.buffers]),
        bytes(buffer.pinned for buffer in graph.buffers),
        ints([-1 if buffer.producer is None else buffer.producer for buffer in graph.buffers]),
        *in_rows([buffer.readers for buffer in graph.buffers]),
        *in_rows(graph.predecessors),
    ]


def _load(stem: str, functions: Sequence[Tuple[str, Any, List[Any]]]) -> Optional[Any]:
    """The compiled twin in the file `stem` beside this one, its functions declared; None where there is none."""
    if os.environ.get("THEANO_MEMOPT_KERNEL") == "python":
        return None
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{stem}.*"))):
        if path.endswith((".so", ".pyd", ".dylib")):
            try:
                return _declare(ctypes.CDLL(path), functions)
            except (OSError, AttributeError):  # built for another machine, or by another version: the Python twin serves
                continue
    return None


def _declare(library: Any, functions: Sequence[Tuple[str, Any, List[Any]]]) -> Any:
    for name, result, arguments in functions:
        function = getattr(library, f"memopt_{name}")
        function.restype, function.argtypes = result, arguments
    return library


_handle, _number, _size, _seed = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_uint64
_numbers = _sizes = _flags = ByAddress
_graph = [_number, _number, _sizes, ctypes.c_char_p, _numbers, _numbers, _numbers, _numbers, _numbers]

_LIBRARY = _load(
    "_search",
    (
        ("kernel", _handle, _graph),
        ("kernel_free", None, [_handle]),
        ("cut", _size, [_handle, _number, _numbers, _number, _numbers, _number, _size, _sizes, _flags]),
        ("arcs", _number, [_handle]),
        ("search", _handle, [_handle, _size, _numbers, _number, _number]),
        ("search_free", None, [_handle]),
        ("search_run", _number, [_handle, _size, _number]),
        ("search_restart", None, [_handle]),
        ("search_states", _size, [_handle]),
        ("search_next_budget", _size, [_handle]),
        ("search_trail", None, [_handle, _numbers]),
    ),
)
_MOVES = _load(
    "_moves",
    (
        ("moved", _handle, [*_graph, _numbers, _seed]),
        ("moved_free", None, [_handle]),
        ("moved_run", _size, [_handle, _size, _size]),
        ("moved_peak", _size, [_handle]),
        ("moved_order", None, [_handle, _numbers]),
    ),
)

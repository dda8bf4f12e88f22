"""Which twin does the work: the compiled one where it was built and the sizes fit into 64 bits, else the Python one.

Both give the same answers after the same number of states, so the choice changes the time and nothing else.
`THEANO_MEMOPT_KERNEL=python` chooses the Python one.
"""

from __future__ import annotations

import ctypes
import glob
import os
from array import array
from typing import Any, List, Optional, Sequence, Union

from theano_memopt.options import ALL_PRUNINGS, Prunings
from theano_memopt.planner.flow import INFINITE, Cut, Network
from theano_memopt.planner.model import Graph
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

    def search(self, budget: int, critical: Sequence[int], prunings: Prunings = ALL_PRUNINGS) -> BudgetSearch:
        return BudgetSearch(self.graph, budget, critical, prunings)


class CompiledSearch:
    """BudgetSearch, compiled."""

    def __init__(self, kernel: CompiledKernel, budget: int, critical: Sequence[int], prunings: Prunings) -> None:
        self._kernel = kernel  # keeps the graph alive
        self._library = kernel.library
        critical = critical if prunings.cut else ()
        switches = prunings.settle | prunings.commit << 1 | prunings.memory << 2
        self._handle = self._library.memopt_search(kernel.handle, budget, _ints(critical), len(critical), switches)

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
        out = (ctypes.c_int * len(self._kernel.graph.tasks))()
        self._library.memopt_search_trail(self._handle, out)
        return list(out)

    def __del__(self) -> None:
        self._library.memopt_search_free(self._handle)


class CompiledKernel:
    """Cuts and searches on one graph, compiled."""

    def __init__(self, graph: Graph, library: Any) -> None:
        self.graph = graph
        self.library = library
        producers = [-1 if buffer.producer is None else buffer.producer for buffer in graph.buffers]
        self.handle = library.memopt_kernel(
            len(graph.tasks),
            len(graph.buffers),
            _bytes64([buffer.size for buffer in graph.buffers]),
            bytes(buffer.pinned for buffer in graph.buffers),
            _ints(producers),
            *_lists([buffer.readers for buffer in graph.buffers]),
            *_lists(graph.predecessors),
        )

    def flow_floor(self, task: int, done: Sequence[int] = (), undone: Sequence[int] = ()) -> int:
        value = self._cut(task, done, undone, None)
        return value + self.graph.allocates[task] if value <= _LARGEST_SUM else IMPOSSIBLE

    def flows(self, task: int, done: Sequence[int] = (), undone: Sequence[int] = ()) -> List[int]:
        found = (ctypes.c_int64 * self.library.memopt_arcs(self.handle))()
        self._cut(task, done, undone, found)
        return list(found)

    def _cut(self, task: int, done: Sequence[int], undone: Sequence[int], flows: Any) -> int:
        return int(self.library.memopt_cut(self.handle, task, _ints(done), len(done), _ints(undone), len(undone), _LARGEST_SUM, flows))

    def search(self, budget: int, critical: Sequence[int], prunings: Prunings = ALL_PRUNINGS) -> CompiledSearch:
        return CompiledSearch(self, budget, critical, prunings)

    def __del__(self) -> None:
        self.library.memopt_kernel_free(self.handle)


Kernel = Union[PythonKernel, CompiledKernel]
Search = Union[BudgetSearch, CompiledSearch]


def kernel_for(graph: Graph) -> Kernel:
    if _LIBRARY is None or sum(buffer.size for buffer in graph.buffers) >= _LARGEST_SUM:
        return PythonKernel(graph)
    return CompiledKernel(graph, _LIBRARY)


def _ints(items: Sequence[int]) -> Any:
    return (ctypes.c_int * len(items))(*items)


def _bytes64(items: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(items))(*items)


def _lists(lists: Sequence[Sequence[int]]) -> List[Any]:
    """A list of lists as two arrays: where each begins, and all items in a row."""
    starts = array("i", [0])
    items = array("i")
    for row in lists:
        items.extend(row)
        starts.append(len(items))
    return [_ints(starts), _ints(items)]


def _load() -> Optional[Any]:
    if os.environ.get("THEANO_MEMOPT_KERNEL") == "python":
        return None
    for path in sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "_search.*"))):
        if path.endswith((".so", ".pyd", ".dylib")):
            try:
                return _declare(ctypes.CDLL(path))
            except (OSError, AttributeError):  # built for another machine, or by another version: the Python twin serves
                continue
    return None


def _declare(library: Any) -> Any:
    handle, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    ints = ctypes.POINTER(number)
    for name, result, arguments in (
        ("kernel", handle, [number, number, ctypes.POINTER(size), ctypes.c_char_p, ints, ints, ints, ints, ints]),
        ("kernel_free", None, [handle]),
        ("cut", size, [handle, number, ints, number, ints, number, size, ctypes.POINTER(size)]),
        ("arcs", number, [handle]),
        ("search", handle, [handle, size, ints, number, number]),
        ("search_free", None, [handle]),
        ("search_run", number, [handle, size, number]),
        ("search_restart", None, [handle]),
        ("search_states", size, [handle]),
        ("search_next_budget", size, [handle]),
        ("search_trail", None, [handle, ints]),
    ):
        function = getattr(library, f"memopt_{name}")
        function.restype, function.argtypes = result, arguments
    return library


_LIBRARY = _load()

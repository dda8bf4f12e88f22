"""The oracle of the host's tests: the same function compiled without the pass, compared bit for bit."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from typing import Any, Callable, List, Sequence

import numpy as np
import pytest
import theano
from theano.compile.mode import Mode

import theano_memopt
from theano_memopt.demo import models as demo_models
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.optimize.feature import feature_of, others_demands

LINKERS = ("cvm", "cvm_nogc", "vm", "vm_nogc")
LARGE = ("resnet", "resnet_adam", "lstm", "attention", "attn_adam")
"""Models whose C code takes minutes to compile when the cache is empty; tests of all models run them nightly."""


def with_pass(linker: str = "cvm", **settings: Any) -> Any:
    """Cells unless something else is asked for: the tests of the arena ask for it."""
    settings.setdefault("storage", "share")
    return theano_memopt.mode(Mode(linker, "fast_run"), **settings)


def without_pass(linker: str = "cvm") -> Any:
    return Mode(linker, "fast_run").excluding("mem_reuse")


def same(one: Sequence[Any], other: Sequence[Any]) -> None:
    assert len(one) == len(other)
    for i, (a, b) in enumerate(zip(one, other)):
        assert probe.same_bits([a], [b]), f"result {i} differs: {a} and {b}"


def results(make: Callable[[Any], Callable[[], List[Any]]], linker: str) -> Any:
    """`make(mode)` builds everything anew and answers a function that computes; its results with the pass equal those without."""
    ours, stock = make(with_pass(linker)), make(without_pass(linker))
    kept, wanted = [], []
    for _ in range(3):
        kept.append(ours())
        wanted.append([np.array(v, copy=True) for v in stock()])
    for a, b in zip(kept, wanted):  # only now: what the caller keeps must survive later calls
        same(a, b)
    return ours


def annotation(function: Any) -> Any:
    fgraph = function.maker.fgraph
    return feature_of(fgraph).annotation(fgraph)


def shared_cells(function: Any) -> int:
    """How many variables lie in a cell together with another, as the machine has it."""
    cells = [id(cell) for v, cell in function.fn.storage_map.items() if v.owner is not None]
    return sum(cells.count(cell) > 1 for cell in cells)


def models(*names: str) -> List[Any]:
    """Parameters for `pytest.mark.parametrize`: the models, the large ones marked nightly."""
    return [pytest.param(name, marks=pytest.mark.nightly) if name in LARGE else name for name in names or demo_models.MODELS]


def ready_for_upstream(stats: Any) -> None:
    """Give a profile what upstream's own machine would have left there, so that upstream's own summary can read it."""
    for node in stats.apply_callcount:
        node.destroy_dependencies = [v for before in others_demands(node.fgraph).get(node, ()) for v in before.outputs]


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).normal(0, 1, shape).astype(theano.config.floatX)


def python_objects() -> int:
    """Bytes that tracemalloc sees, but for those of arrays."""
    gc.collect()
    domain = tracemalloc.DomainFilter(False, np.lib.tracemalloc_domain)
    return sum(found.size for found in tracemalloc.take_snapshot().filter_traces([domain]).statistics("filename"))


def in_a_thread(call: Callable[[], Any]) -> Any:
    """What the call gives in another thread; a lock that was left behind shows as no answer."""
    answer: List[Any] = []
    thread = threading.Thread(target=lambda: answer.append(call()), daemon=True)
    thread.start()
    thread.join(30)
    assert answer, "the other thread waits for ever"
    return answer[0]

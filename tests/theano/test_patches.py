"""What is wrapped in Theano is what the table says, each place once; and what one thread does stays in that thread."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import tracemalloc
from typing import Any, Callable, List

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano import gof
from theano.compile.mode import Mode

import theano_memopt
import theano_memopt_ops as ops
from tests.theano.both import with_pass, without_pass
from theano_memopt.hosts.theano.install import patches
from theano_memopt.hosts.theano.measure import peaks
from theano_memopt.hosts.theano.optimize.feature import feature_of

TABLE = (*patches.ALWAYS, *patches.OBSERVED)

# --- the table -------------------------------------------------------------------------------------------------------

CHANGED = """
import numpy.distutils.__config__ as build
if not hasattr(build, "blas_opt_info"): build.blas_opt_info = {}
import inspect, sys
import theano, theano.compile.profiling, theano.tensor as tt, theano.tensor.nnet, theano.sparse, theano.scan_module

def everything():
    found = {}
    for name, module in list(sys.modules.items()):
        if module is None or not (name == "theano" or name.startswith("theano.")):
            continue
        for attribute, value in vars(module).items():
            found[f"{name}:{attribute}"] = value
            if inspect.isclass(value) and value.__module__ == name:
                found.update({f"{name}:{attribute}.{inner}": v for inner, v in vars(value).items()})
    return found

before = everything()
import theano_memopt
x = tt.matrix()
theano_memopt.profile(theano.function([x], tt.exp(tt.dot(x, x)).sum()), [[1.0]])
%s
from theano_memopt.hosts.theano.install import patches
changed = {
    place for place, value in everything().items()  # what a module brings that Theano imports later is no change
    if before.get(place) is not value
    and (callable(before[place]) if place in before else callable(value) and place.rpartition(".")[0] in before)
}
print(sorted(changed - {patch.place for patch in patches.ALWAYS}))
print(sorted({patch.place for patch in patches.ALWAYS} - changed))
"""


def _changed(also: str = "") -> List[str]:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHANGED % also], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:2]


def test_what_is_wrapped_is_in_the_table_and_nothing_else() -> None:
    """Every function and class of Theano, and every method, before and after the import of this package and a measured call."""
    assert _changed() == ["[]", "[]"]


def test_a_change_beside_the_table_is_seen() -> None:
    """The negative control."""
    beside, _ = _changed("theano.gof.link.gc_helper = lambda *_: None")
    assert beside == "['theano.gof.link:gc_helper']"


def test_each_place_is_there_once_and_wrapped_once() -> None:
    assert len({patch.place for patch in TABLE}) == len(TABLE)
    for patch in patches.ALWAYS:
        function = _at(patch.place)
        assert function.mem_reuse_patch == patch
        assert not hasattr(function.__wrapped__, "mem_reuse_patch")
    patches.wrap(patches.ALWAYS)
    assert not any(hasattr(_at(patch.place).__wrapped__, "mem_reuse_patch") for patch in patches.ALWAYS)


@pytest.mark.parametrize("patch", TABLE, ids=lambda patch: patch.place.split(":")[1])
def test_the_function_that_it_names_is_there(patch: patches.Patch) -> None:
    module, name = patch.by.split(":")
    assert callable(getattr(importlib.import_module(f"theano_memopt.hosts.theano.{module}"), name))
    assert patch.why and patch.without


def _at(place: str) -> Any:
    module, attribute = place.split(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


# --- threads ---------------------------------------------------------------------------------------------------------


class Pause:
    """Called in one thread it waits until another thread has done `work`."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work, self.found = work, []  # type: ignore[var-annotated]

    def __call__(self) -> None:
        if not self.found and threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=lambda: self.found.append(self.work()))
            thread.start()
            thread.join()


def _pausing(function: Any, pause: Pause) -> None:
    """Whenever a machine was made for this function, or for a copy of it, `pause` is called before the function is there."""
    build = function.maker.function_builder

    def builder(*args: Any, **kwargs: Any) -> Any:
        pause()
        return build(*args, **kwargs)

    function.maker.function_builder = builder


def _compiled(mode: Any) -> Any:
    x = tt.dmatrix()
    return theano.function([x], tt.exp(tt.dot(x, x)).sum(), mode=mode)


def test_a_copy_hands_its_settings_to_no_function_of_another_thread() -> None:
    ours, stock = _compiled(with_pass(effort=17)), _compiled(without_pass())
    pause = Pause(stock.copy)
    _pausing(ours, pause)
    copied = ours.copy()
    assert feature_of(copied.maker.fgraph).settings.effort == 17
    assert feature_of(pause.found[0].maker.fgraph) is None


class Calling(gof.Optimizer):
    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self.call = call

    def apply(self, fgraph: Any) -> None:
        self.call()


def test_an_optimization_is_told_the_linker_of_its_own_thread() -> None:
    """A linker with a callback shows the user every array, so products are not replaced for it. In another thread one is made for it."""
    products = tuple(ops.PRODUCTS.values())
    meanwhile, done = threading.Event(), threading.Event()
    other = Mode(gof.vm.VM_Linker(callback=lambda *_: None), theano.compile.mode.OPT_FAST_RUN)
    seen: List[Any] = []

    def compile_other() -> None:
        def stay() -> None:
            meanwhile.set()
            done.wait(60)

        seen.append(_compiled(other.register((Calling(stay), 999.0))))

    thread = threading.Thread(target=compile_other)

    def wait() -> None:
        thread.start()
        meanwhile.wait(60)

    # While Theano optimizes it notes no lines of source. The other thread begins in that state, and at its end it would set it for all.
    lines_noted = theano.config.traceback.limit
    try:
        mine = _compiled(with_pass().register((Calling(wait), 998.0)))
    finally:
        done.set()
        thread.join()
        theano.config.traceback.limit = lines_noted
    assert any(isinstance(node.op, products) for node in mine.maker.fgraph.apply_nodes)
    assert not any(isinstance(node.op, products) for node in seen[0].maker.fgraph.apply_nodes)


@pytest.mark.parametrize("linker", ["cvm", "c|py"])
def test_profile_watches_no_function_that_another_thread_compiles(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _compiled(with_pass())
    pause = Pause(lambda: _compiled(without_pass(linker)))
    _pausing(ours, pause)
    watched: List[Any] = []
    count_anew = peaks.count_anew
    monkeypatch.setattr(peaks, "count_anew", lambda: (watched.append(1), count_anew())[1])
    theano_memopt.profile(ours, np.ones((3, 3)))
    assert watched  # it measures each task so
    watched.clear()
    tracemalloc.start()
    try:
        pause.found[0](np.ones((3, 3)))
    finally:
        tracemalloc.stop()
    assert watched == []

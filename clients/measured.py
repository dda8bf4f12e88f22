"""`python measured.py [--stock | --pass] FILE SCRIPT [ARGS]`: runs a script, and writes what its functions really held to FILE.

    with the pass   python -m theano_memopt run measured.py FILE SCRIPT
                    python measured.py --pass FILE SCRIPT       `import theano_memopt` and no more: no call is counted and timed
    stock           python measured.py --stock FILE SCRIPT      only the repairs that Theano needs to run on this Python at
                                                                all; the package is never imported, and that is checked

Measured is the fifth call of each function, by tracemalloc, to which NumPy reports every array: the first ones may still
prepare. Intermediates that an earlier call left are dropped first, so that with allow_gc=False too the peak counts all.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import json
import os
import runpy
import sys
import tracemalloc
import types

import numpy as np

PACKAGE = "theano_memopt"
MEASURED = 5
"""Which call: in the first ones an arena is recorded, tried and settled."""


def main():
    stock = sys.argv[1] == "--stock"
    file, script, *arguments = sys.argv[1 + sys.argv[1].startswith("--") :]
    if stock:
        environment, patches = _repairs()
        environment.prepare()
    else:
        importlib.import_module(PACKAGE)
    import theano

    if stock:
        patches.wrap(patches.REPAIRS)
    measured = []
    _watch(theano.compile.function_module.Function, measured)
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")
    if (PACKAGE in sys.modules) == stock:
        sys.exit(f"{script} was to run {'without' if stock else 'with'} the pass, and did not")
    with open(file, "w", encoding="utf-8") as stream:
        json.dump(measured, stream)


def _repairs():
    """The modules that make Theano run here, from their folder alone: their package would register the pass."""
    found = importlib.util.find_spec(PACKAGE)
    host = sys.modules["stock"] = types.ModuleType("stock")
    host.__path__ = [os.path.join(found.submodule_search_locations[0], "hosts", "theano")]
    return importlib.import_module("stock.install.environment"), importlib.import_module("stock.install.patches")


def _watch(function_class, measured):
    call = function_class.__call__

    @functools.wraps(call)
    def called(function, *args, **kwargs):
        function.calls_so_far = getattr(function, "calls_so_far", 0) + 1
        if function.calls_so_far != MEASURED or tracemalloc.is_tracing():
            return call(function, *args, **kwargs)
        _drop_what_is_left(function)
        old = {id(cell.storage[0]) for cell in function.input_storage}
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            result = call(function, *args, **kwargs)
            peak = tracemalloc.get_traced_memory()[1] - before
            kept = _bytes_of_arrays() - _bytes_of_new(function, old) - _bytes_of_results(result)
        finally:
            tracemalloc.stop()
        measured.append({"name": str(function.name), "peak": peak, "kept": max(0, kept)})
        return result

    function_class.__call__ = called


def _drop_what_is_left(function):
    for variable, cell in getattr(function.fn, "storage_map", {}).items():
        if variable.owner is not None:
            cell[0] = None
    release = getattr(function.fn, "release", None)
    if release is not None:
        release()
    gc.collect()


def _bytes_of_arrays():
    gc.collect()
    domain = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return sum(entry.size for entry in tracemalloc.take_snapshot().filter_traces([domain]).statistics("filename"))


def _bytes_of_new(function, old):
    """Of new values of shared variables."""
    new = {id(cell.storage[0]): cell.storage[0] for cell in function.input_storage if id(cell.storage[0]) not in old}
    return sum(value.nbytes for value in new.values() if isinstance(value, np.ndarray) and value.base is None)


def _bytes_of_results(result):
    values = result if isinstance(result, (list, tuple)) else [result]
    return sum(value.nbytes for value in {id(v): v for v in values}.values() if isinstance(value, np.ndarray) and value.base is None)


if __name__ == "__main__":
    main()

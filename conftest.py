"""Where Theano is not installed, everything but the host's side is still collected and tested.

The marker `quick` is put on all tests outside the host's but those marked `long`; of the host's, those have it that say so.
Test workers that run side by side compile into caches of their own: Theano locks a cache while it compiles.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from typing import Any, List

import pytest

HOSTS = ("theano_memopt/hosts", "tests/theano", "tests/ops")
collect_ignore_glob = ["setup.py", "build/*", "dist/*"]
if importlib.util.find_spec("theano") is None:
    collect_ignore_glob += [*HOSTS, *(f"{folder}/*" for folder in HOSTS)]  # the folders too, for the sake of their conftest.py

if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    # Time limits belong to benchmarks: a busy machine fails no test. A build server tries the same examples for the same source.
    settings.register_profile("steady", deadline=None, derandomize=bool(os.environ.get("CI")))
    settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what -m does not name
def pytest_collection_modifyitems(items: List[Any]) -> None:
    for item in items:
        if not item.nodeid.startswith((*HOSTS, "tests/test_run.py", "tests/test_demo.py")) and item.get_closest_marker("long") is None:
            item.add_marker("quick")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """A worker runs a whole file, for the tests of one file share C code; but each child with tests of its own may go to either worker."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if "test_both_machines.py" in nodeid else str(super()._split_scope(nodeid))

    return ByFile(config, log)


def _own_cache(flags: str, worker: str) -> str:
    return ",".join(os.path.join(flag, worker) if flag.startswith("base_compiledir=") else flag for flag in flags.split(","))


if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["THEANO_FLAGS"] = _own_cache(os.environ.get("THEANO_FLAGS", ""), os.environ["PYTEST_XDIST_WORKER"])

if importlib.util.find_spec("theano") is not None:
    import theano_memopt

    # Before any module of the host: the one that is the first to import Theano would be half made when the pass is registered.
    assert theano_memopt.plan_of


@pytest.fixture(autouse=True, scope="module")
def _what_is_there_stays() -> None:
    """Tests collect garbage before they measure: that need not look through all of Theano, and what the files before have left, each time."""
    gc.collect()
    gc.freeze()

"""Where Theano is not installed, everything but the host's side is still collected and tested."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = ["setup.py", "build/*", "dist/*"]
if importlib.util.find_spec("theano") is None:
    collect_ignore_glob += ["theano_memopt/hosts/*", "tests/theano/*"]

if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    settings.register_profile("steady", deadline=None)  # time limits belong to benchmarks; a busy machine fails no test
    settings.load_profile("steady")

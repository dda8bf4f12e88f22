"""Measuring calls: bytes, order, and Theano's own profiler completed."""

import theano  # noqa: F401 - first, so that the pass is registered before a module of this folder is half made

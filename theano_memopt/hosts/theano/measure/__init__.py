"""Measuring calls: bytes, order, and Theano's own profiler completed."""

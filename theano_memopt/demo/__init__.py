"""What `python -m theano_memopt demo`, the benchmarks and the tests train."""

import theano_memopt  # noqa: F401 - before anything imports Theano, so that it imports at all with these versions of numpy

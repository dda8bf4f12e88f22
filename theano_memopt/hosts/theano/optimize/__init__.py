"""While Theano optimizes: the optimization `mem_reuse`, its feature, and the ops that it replaces."""

"""While Theano optimizes: the optimization `mem_reuse`, its feature, and the ops that it replaces."""

import theano  # noqa: F401 - first, so that the pass is registered before a module of this folder is half made

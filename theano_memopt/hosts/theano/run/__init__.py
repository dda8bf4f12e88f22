"""While a function is linked and called: cells, machines over several orders, the arena, and the verifying machine."""

import theano  # noqa: F401 - first, so that the pass is registered before a module of this folder is half made

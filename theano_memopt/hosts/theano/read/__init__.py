"""Reading a FunctionGraph: tasks, buffers, aliases, sizes, and how results lie in memory. Changes nothing."""

import theano  # noqa: F401 - first, so that the pass is registered before a module of this folder is half made

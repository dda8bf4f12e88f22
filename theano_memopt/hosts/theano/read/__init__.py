"""Reading a FunctionGraph: tasks, buffers, aliases, sizes, and how results lie in memory. Changes nothing."""

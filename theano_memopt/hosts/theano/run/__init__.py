"""While a function is linked and called: cells, machines over several orders, the arena, and the verifying machine."""

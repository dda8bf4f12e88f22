"""Orders and places for the buffers of any task graph, with proofs. Knows no framework.

model, bits, load -> liveness -> reduce, flow, floors, heuristics -> search (compiled twin: _search.cpp) -> exact -> certificate <- merges
                        -> lined_up; moves (compiled twin: _moves.cpp) -> descent; improve; milestones -> exact
                        -> slots, arena (placing, pressing; compiled twins: _packing.c, _pressing.c) -> plan

program -> replay (the accounting of sequences with repeats)
        -> instances (a sequence as a graph), evict (compiled twin: _evict.cpp), repeat_floors <- held_floors, base_orders, openings
        -> eviction_search -> recompute -> recompute_result; glance

numbers_for_c: how the Python side hands rows of numbers to the compiled twins
"""

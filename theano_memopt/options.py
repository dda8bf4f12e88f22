"""Every switch of the planner with its default and its reason.

>>> PlanOptions().storage
'share'
>>> Prunings().all_but("memory").memory
False
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Callable, Optional

STORAGE = ("off", "share", "arena")


@dataclass(frozen=True)
class Prunings:
    """What the searches leave out, because nothing better can lie there.

    Each may be switched off: the answer stays the same and more states are opened. That is how the tests show that a pruning
    is sound, and that it is worth its code. The proofs stand in the files that are named.
    """

    merge: bool = True
    """Tasks that some best order runs back to back become one task (reduce.py)."""
    tree: bool = True
    """Orders, and proofs that take longer, are looked for on a graph that is reduced fully: trees in it have one order, the best (reduce.py)."""
    flow_floor: bool = True
    """The least live memory before one task is a floor, and tells the search which tasks are critical (flow.py)."""
    set_floor: bool = True
    """The last, or first, task of a set has a higher floor than it has by itself (floors.py)."""
    milestones: bool = True
    """No order goes lower than the lowest way through the stages of a few tasks (milestones.py)."""
    settle: bool = True
    """A ready task that fits and frees at least what it allocates is run at once (search.py)."""
    commit: bool = True
    """Where a step comes back to the live bytes it began with, no other step is tried (search.py)."""
    cut: bool = True
    """A set from which a critical task cannot run under the budget is given up (search.py)."""
    memory: bool = True
    """A set that has failed is not searched again (search.py)."""
    pack_apart: bool = True
    """Parts of time that no unplaced buffer joins are packed one after the other (placing.py)."""
    pack_lift: bool = True
    """A floor rises to where the lowest buffer over it can begin (placing.py)."""
    pack_waste: bool = True
    """Above a spot left empty nothing is tried before the next offset at which something can rest (placing.py)."""
    pack_twins: bool = True
    """Of buffers with equal life and size only the first is tried (placing.py)."""
    pack_memory: bool = True
    """A part of time that could not be packed is not packed again (placing.py)."""

    def all_but(self, name: str) -> Prunings:
        """The same with one of them off."""
        if name not in {field.name for field in fields(self)}:
            raise ValueError(f"there is no pruning named {name!r}")
        return replace(self, **{name: False})


ALL_PRUNINGS = Prunings()


@dataclass(frozen=True)
class PlanOptions:
    effort: int = 100_000
    """How many states the search may open in all. States, not seconds, so that every machine makes the same plan.
    Real training graphs need less than a hundred; the rest is for irregular ones, a few seconds at the default."""
    seconds: Optional[float] = None
    """Stop after this time, with the best so far and the answer `Open`. None, the default, keeps plans reproducible."""
    storage: str = "share"
    """`off` plans the order alone, `share` lets buffers of one kind share cells, `arena` gives each an offset in one block."""
    alignment: int = 64
    """Offsets in the arena are multiples of this: a cache line, and what vector instructions want."""
    prunings: Prunings = ALL_PRUNINGS
    """All on: off, they only cost time."""
    progress: Optional[Callable[[str], None]] = None
    """Called with a short sentence now and then while planning takes long."""

    def __post_init__(self) -> None:
        if self.effort < 0:
            raise ValueError(f"effort is a number of states, 0 or more, not {self.effort}")
        if self.seconds is not None and not self.seconds >= 0:
            raise ValueError(f"seconds is a time of 0 or more, not {self.seconds}")
        if self.storage not in STORAGE:
            raise ValueError(f"storage is one of {', '.join(STORAGE)}, not {self.storage!r}")
        if self.alignment < 1:
            raise ValueError(f"alignment is a number of bytes, 1 or more, not {self.alignment}")


@dataclass(frozen=True)
class PackOptions:
    effort: int = 100_000
    """Buffers placed by the rules and choice points of the search (see CROWDED in arena.py); the same effort gives the same arena on
    every machine. The default takes under a second with the compiled dive; arenas of real training graphs meet their floor in the rules."""
    seconds: Optional[float] = None
    """Only a cap, after which the best so far is given."""
    enough: int = 0
    """A height of so many bytes is not improved on."""
    prunings: Prunings = ALL_PRUNINGS
    progress: Optional[Callable[[str], None]] = None


PACKING = PackOptions()


@dataclass(frozen=True)
class RecomputeOptions:
    simulations: Optional[int] = None
    """How many simulations the search may make; the same number gives the same plan on every machine. None: as many as a program of this
    size gets in a second or two (recompute.py)."""
    seconds: Optional[float] = None
    """Stop after this time, with the best so far. None, the default, keeps plans reproducible."""
    order: PlanOptions = PlanOptions(effort=10_000)
    """For the orders: of the tasks alone, and of the runs in the end. Real training graphs need less; the full effort on an irregular
    graph would take longer than all the simulations."""
    may_open: bool = True
    """May the first of a chain of in-place results in a given value get a place of its own?"""
    progress: Optional[Callable[[str], None]] = None

    def __post_init__(self) -> None:
        if self.simulations is not None and self.simulations < 0:
            raise ValueError(f"simulations are a number, 0 or more, not {self.simulations}")
        if self.seconds is not None and not self.seconds >= 0:
            raise ValueError(f"seconds is a time of 0 or more, not {self.seconds}")

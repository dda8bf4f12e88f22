"""Every switch of the planner with its default and its reason.

>>> PlanOptions().storage
'share'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

STORAGE = ("off", "share", "arena")


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

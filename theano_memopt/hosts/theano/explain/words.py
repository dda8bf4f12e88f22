"""What is known of each variable and each task beyond the plan: its line of the user's code, why it shares with nobody, what would help."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Dict, Optional, Sequence, Set, Tuple

from theano.gof import vm as host
from theano.scan_module.scan_op import Scan
from theano.tensor.subtensor import AdvancedIncSubtensor, AdvancedIncSubtensor1

from theano_memopt.hosts.theano.explain.subject import NoPlan, Sized, Subject
from theano_memopt.hosts.theano.optimize.preallocated import writes_into_preallocated
from theano_memopt.hosts.theano.read.op_facts import op_name
from theano_memopt.hosts.theano.read.source_lines import made_at
from theano_memopt.hosts.theano.run import cells
from theano_memopt.planner.arena import Arena
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.slots import Slots
from theano_memopt.report.model import Known, Work, total

LARGE = 0.01
"""Words about why a variable is alone are looked for if it takes this share of all bytes."""
SCAN_RELIEF = (
    "It would help to keep fewer steps (a Scan over parts of the sequence, x.reshape((parts, steps, ...)), whose step scans one part and hands out "
    "its last state: the gradient computes the steps of a part again; truncate_gradient looks back less far), to scan a shorter sequence at once, "
    "or to take a smaller batch."
)
"""Not theano.scan_checkpoints, which does the same: it divides the length of a sequence by `/`, so that on Python 3 it fails for every one."""
INDEX_RELIEF = (
    "It is the gradient of what was read by an index, and as large as all of that, whatever the batch. It would help to take the gradient with "
    "respect to the rows that are read, and to update these alone (theano.tensor.inc_subtensor)."
)


class Words:
    """On one function at these sizes."""

    def __init__(self, subject: Subject, sized: Sized) -> None:
        self.subject, self.sized = subject, sized

    def known(self, storage: Any, spans: Sequence[Tuple[int, int]]) -> Tuple[Known, ...]:
        graph, everything = self.sized.graph, total(self.sized.graph)
        crowded = _crowded(storage)
        found = []
        for b, root in enumerate(self.subject.reading.roots):
            large = graph.buffers[b].size >= LARGE * everything and b not in crowded
            why = self._why_alone(b, storage, spans) if large else ""
            line, near = made_at(root, self.subject.reading.names[b])
            found.append(Known(_name_of(graph.buffers[b].label, root), self.sized.shapes[b], line, why, near, self._is_returned(b)))
        for workspace in self.subject.reading.workspaces:
            line, near = made_at(workspace.node.outputs[0], ())
            found.append(Known(f"workspace of {op_name(workspace.node.op)}", "", line, "", near))
        return tuple(found)

    def work(self, task: int) -> Work:
        node = self.subject.reading.nodes[task]
        if isinstance(node.op, Scan):
            return Work(str(node), f"It is a Scan, and keeps what every step hands out. {SCAN_RELIEF}", self._peak_inside(node))
        if isinstance(node.op, (AdvancedIncSubtensor, AdvancedIncSubtensor1)):
            return Work(str(node), INDEX_RELIEF)
        for b in self.subject.reading.graph.tasks[task].writes:
            scan = next((v.owner for v in self.subject.reading.names[b] if v.owner is not None and isinstance(v.owner.op, Scan)), None)
            if scan is not None:
                label = self.subject.reading.graph.tasks[self.subject.reading.nodes.index(scan)].label
                return Work(str(node), f"The Scan {label!r} writes what every step hands out into what it makes. {SCAN_RELIEF}")
        return Work(str(node))

    def _why_alone(self, b: int, storage: Any, spans: Sequence[Tuple[int, int]]) -> str:
        graph, cautious = self.sized.graph, self.sized.cautious
        root, gc = self.subject.reading.roots[b], self.subject.gc
        if not isinstance(self.subject.linker, host.VM_Linker):
            return "this linker keeps storage of its own"
        if storage is None:
            return "storage is shared by nobody: storage=off"
        if self._is_returned(b):
            return "it is handed to the caller, or becomes a new value of a shared variable"
        if cautious.buffers[b].pinned:
            return "nobody reads it, so Theano clears it only at the end of the call"
        if b in cells.loose_for(self.subject.annotation, self.subject.linker):
            return "a lazy op, or an op that may keep its array, has to do with it, so its end is not certain"
        if not isinstance(storage, Arena):
            if not self.subject.linker.c_thunks:
                return "without C code each op puts an array of its own into the storage"
            if not writes_into_preallocated(root.owner):
                return f"{type(root.owner.op).__name__} puts an array of its own into its storage, so nothing would be saved"
        if isinstance(storage, Arena) and storage.offsets[b] is None:
            return f"{type(root.owner.op).__name__} allocates its result for itself, outside the block; it is let go after its last reader"
        if gc and b in self.subject.reading.doubtful:
            return "a reshape may copy it or not, so its end is not certain"
        mates = [o for o in self.subject.feature.sharing or () if o != b and graph.buffers[o].kind == graph.buffers[b].kind]
        if not mates:
            return "no other variable that may share has its type and shape"
        if all(spans[o][0] < spans[b][1] and spans[b][0] < spans[o][1] for o in mates):
            return "every other variable of its type and shape is live at the same time"
        if gc:
            return "held open between two lives it could raise the peak"
        return "others of its type and shape fill each other's storage already"

    def _is_returned(self, b: int) -> bool:
        """Is it handed to the caller, or does it become the value of a shared variable?"""
        return not self._returned.isdisjoint(self.subject.reading.names[b])

    @cached_property
    def _returned(self) -> Set[Any]:
        return {*getattr(self.subject.linker, "no_recycling", ()), *self.subject.fgraph.outputs}

    def _peak_inside(self, node: Any) -> int:
        """The peak of a Scan's inner function, at the shapes that come from outside."""
        try:
            subject, inner = self.subject.inside(node, self.sized)
        except NoPlan:
            return 0
        return timeline(inner.graph, subject.annotation.schedule.order).peak


def _name_of(label: str, root: Any) -> str:
    return label if root.name else f"{label} {op_name(root.owner.op)}"


def _crowded(storage: Any) -> Set[int]:
    """Buffers that share their cell."""
    if not isinstance(storage, Slots):
        return set()
    count: Dict[Optional[int], int] = {}
    for cell in storage.cell_of:
        count[cell] = count.get(cell, 0) + 1
    return {b for b, cell in enumerate(storage.cell_of) if cell is not None and count[cell] > 1}

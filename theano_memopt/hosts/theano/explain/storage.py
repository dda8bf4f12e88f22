"""Bytes of storage that a function sets aside, at certain sizes: with allow_gc False and True, the one that is in force and the other one."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, List, Optional, Sequence, Set, Tuple

from theano.gof import vm as host

from theano_memopt.hosts.theano.explain.subject import Sized, Subject
from theano_memopt.hosts.theano.install.flags import storage_for
from theano_memopt.hosts.theano.optimize.preallocated import would_write_into_preallocated
from theano_memopt.hosts.theano.run import cells
from theano_memopt.hosts.theano.run.arena.block import Lending
from theano_memopt.hosts.theano.run.arena.variables import candidates
from theano_memopt.hosts.theano.run.sized_call import SizedVM
from theano_memopt.hosts.theano.run.stand_in import unveiled
from theano_memopt.planner.arena import Arena, pack_graph
from theano_memopt.planner.certificate import Schedule
from theano_memopt.planner.liveness import lives, timeline
from theano_memopt.planner.load import loads
from theano_memopt.planner.model import Graph
from theano_memopt.planner.slots import Slots, share_cells
from theano_memopt.report.comparison import occupied
from theano_memopt.report.model import Reserved, total


class Storage:
    """Of one function at these sizes, in this order."""

    def __init__(self, subject: Subject, sized: Sized, schedule: Schedule) -> None:
        self.subject, self.sized, self.schedule = subject, sized, schedule

    def reserved(self) -> Tuple[Reserved, ...]:
        """Bytes of storage with allow_gc False and True; the setting in force first."""
        return tuple(self._reserved(gc, gc == self.subject.gc) for gc in (self.subject.gc, not self.subject.gc))

    def kept_with_a_block(self) -> int:
        """At most so much: while storage is off, ops that could write into a block have not been brought to do it."""
        arena = self._arena(gc=False)
        return arena.height + sum(b.size for b, offset in zip(self.sized.graph.buffers, arena.offsets) if offset is None and not b.is_workspace)

    def _reserved(self, gc: bool, in_force: bool) -> Reserved:
        graph = self.sized.graph
        once = self.subject.once
        stock = graph if once is None else once.graph_at(self.sized.lengths)
        orders = self.subject.host_orders() if once is None else once.named(self.subject.feature.runs)
        without = timeline(stock, orders[0][1]).peak if gc else total(stock)
        if isinstance(self.subject.linker, host.VM_Linker) and storage_for(self.subject.feature.settings, gc) == "arena":
            if in_force and getattr(self.subject.function.fn, "planner", self) is None:  # a small function runs as stock does
                why = self.subject.function.fn.aside or "until the first call has shown whether an arena saves more than it takes"
                words = f"every variable in storage of its own, kept from call to call, as without the pass: {why}"
                return Reserved("allow_gc=False", None, total(graph), without, words, kept=True, after_call=True)
            found = self._with_a_block(gc, without)
            return self._in_its_block(found) if in_force and not gc else found
        storage = self._cells_in_force() if in_force else self._cells(gc)
        if gc:
            held = storage.reserved_bytes if isinstance(storage, Slots) else self.schedule.peak
            return Reserved("allow_gc=True", storage, held, without, "the most bytes live or held open at one step; given back after the call")
        held = storage.reserved_bytes if isinstance(storage, Slots) else total(graph)
        return Reserved("allow_gc=False", storage, held, without, "bytes of all storage, kept from call to call", kept=True, after_call=True)

    def _with_a_block(self, gc: bool, without: int) -> Reserved:
        arena = self._arena(gc)
        highest = max(occupied(self.sized.graph, self.schedule.order, arena, kept=False)[0], default=0)
        if gc:
            words = "one block for the intermediates, and at most so much at once with the arrays outside it; given back after the call"
            return Reserved("allow_gc=True", arena, highest, without, words)
        outside = sum(self.sized.graph.buffers[b].size for b in self._kept_outside(arena))
        words = f"{self._block_in_words(arena.height)} for the intermediates, kept from call to call"
        if outside:
            words += f", and {outside:,} bytes of arrays outside it that stay: results of the function, and arrays that ops fill again"
        if highest > arena.height + outside:
            words += f". With the arrays that ops allocate for themselves while a call runs, it is {highest:,} bytes in all at most at one step"
        if self._made_arena(gc) is None:
            words += ". Estimated: the first calls show which ops write where they are told"
        return Reserved("allow_gc=False", arena, arena.height + outside, without, words, after_call=True)

    def _block_in_words(self, height: int) -> str:
        """For these sizes, beside what is there at present: that is for the last calls of all functions that lie in it."""
        lender = getattr(self.subject.function.fn, "lender", None)
        if lender is None:
            return f"one block of {height:,} bytes"
        others = [vm for vm in lender.tenants() if vm.wants is not None and vm.storage_map is not self.subject.function.fn.storage_map]
        shared = f"{height:,} bytes of a block shared with {len(others)} other function{'s' if len(others) > 1 else ''}"
        words = shared if others else f"one block of {height:,} bytes"
        if lender.height in (0, height):
            return words
        larger = f", for {'the largest call of them all' if others else 'a larger call before'}" if lender.height > height else ""
        return f"{words} (at present it has {lender.height:,} bytes{larger})"

    def _in_its_block(self, planned: Reserved) -> Reserved:
        """With the number of its block, where that is one that functions share."""
        lender = getattr(self.subject.function.fn, "lender", None)
        return planned if lender is None or lender.lending is Lending.ALONE else replace(planned, block=id(lender))

    def _kept_outside(self, arena: Arena) -> Set[int]:
        """Buffers outside the block that stay after a call: what is returned, and what the machine says."""
        updates = set(self.subject.fgraph.update_mapping or ())
        returned = {v for i, v in enumerate(self.subject.fgraph.outputs) if i not in updates}
        outside = [b for b, offset in enumerate(arena.offsets) if offset is None]
        kept = set(getattr(self.subject.function.fn, "kept_outside", lambda: ())())
        return {b for b in outside if b in kept or returned.intersection(self.subject.reading.names[b])}

    def _arena(self, gc: bool) -> Arena:
        """Where everything lies at these sizes: as the machine has it, or as it will be once calls of these sizes alone come."""
        made = self._made_arena(gc)
        if made is None:
            found = candidates(self.subject.annotation, self._linker_with(gc))
            inside = [b for b in found if would_write_into_preallocated(self.subject.reading.roots[b].owner)]
            return pack_graph(*self._as_it_runs(), self.subject.annotation.options.alignment, inside)
        if made.height == made.floor:
            return made
        inside = [b for b, offset in enumerate(made.offsets) if offset is not None]
        packed = pack_graph(*self._as_it_runs(), self.subject.annotation.options.alignment, inside)
        return min(made, packed, key=lambda arena: arena.height)  # for sizes that came once or twice it has the offsets of larger ones

    def _made_arena(self, gc: bool) -> Optional[Arena]:
        """The one that the machine has planned for these sizes, if it has."""
        plan = self.subject.machine_plan(self.sized.graph) if gc == self.subject.gc else None
        if plan is None or not isinstance(plan.storage, Arena) or plan.schedule.order != self.schedule.order:
            return None
        return plan.storage

    def _as_it_runs(self) -> Tuple[Graph, Sequence[int]]:
        return cells.as_it_runs(self.subject.feature.reordered(self.subject.annotation, self.schedule.order), self.sized.cautious)

    def _linker_with(self, gc: bool) -> Any:
        linker = copy.copy(self.subject.linker)
        linker.allow_gc = gc
        return linker

    def _cells_in_force(self) -> Optional[Slots]:
        graph, order, machine = self.sized.graph, self.schedule.order, unveiled(self.subject.function.fn)
        if isinstance(machine, SizedVM):
            return machine.planner.storage(order, [buffer.size for buffer in graph.buffers])
        slots: Optional[Slots] = self.subject.feature.storage
        return slots if slots is None else resized_slots(graph, order, slots)

    def _cells(self, gc: bool) -> Optional[Slots]:
        """The cells that the same linker would bind under the other setting, had it been compiled for these sizes."""
        if not isinstance(self.subject.linker, host.VM_Linker) or self.subject.feature.settings.storage == "off":
            return None
        sharing = cells.may_share(self.subject.annotation, self._linker_with(gc))
        if not gc:
            return share_cells(*self._as_it_runs(), sharing)
        return share_cells(self.sized.graph, self.schedule.order, sharing, self.schedule.peak)


def resized_slots(graph: Graph, order: Sequence[int], slots: Slots) -> Slots:
    """The same tenants at the sizes of `graph`."""
    inside: List[List[int]] = [[] for _ in slots.cells]
    for b, cell in enumerate(slots.cell_of):
        if cell is not None:
            inside[cell].append(b)
    sizes = [max((graph.buffers[b].size for b in tenants), default=0) for tenants in inside]
    reserved = sum(sizes)
    if slots.eager:
        spans = lives(graph, order)
        held = [(min(spans[b][0] for b in tenants), max(spans[b][1] for b in tenants)) for tenants in inside]
        workspaces = [b for b, buffer in enumerate(graph.buffers) if buffer.is_workspace]
        taken = [graph.buffers[b].size for b in workspaces]
        reserved = max(loads([*sizes, *taken], [*held, *(spans[b] for b in workspaces)], len(order)), default=0)
    return Slots(slots.cell_of, tuple((kind, size) for (kind, _), size in zip(slots.cells, sizes)), reserved, slots.eager)

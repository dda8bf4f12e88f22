"""A plan: the order of a graph, and where its buffers live. Made once, checked apart, kept as JSON.

    Graph --minimise_peak--> Schedule --storage_of--> Slots | Arena | None --put_together--> Plan

`make_plan` is the whole pipeline. A host joins it where its own work begins: it runs another order (`along`), or it has bound the
storage already, on a graph of its own that is more cautious. Every plan, of a host or not, is made by `put_together`.

>>> from theano_memopt.planner.model import worked_example
>>> plan = make_plan(worked_example())
>>> plan.schedule.peak, plan.reserved_bytes
(8, 9)
>>> check_plan(plan)
>>> plan_from_json(plan_to_json(plan)) == plan
True
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from theano_memopt.options import PlanOptions
from theano_memopt.planner.arena import Arena, check_arena, pack_graph
from theano_memopt.planner.certificate import Open, Rejected, Schedule, check_certificate, schedule_from_json, schedule_to_json
from theano_memopt.planner.exact import NamedOrder, minimise_peak
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph, graph_from_json, graph_to_json
from theano_memopt.planner.slots import Slots, check_slots, share_cells

Storage = Union[Slots, Arena, None]


@dataclass(frozen=True, repr=False)
class Plan:
    graph: Graph
    schedule: Schedule
    storage: Storage
    options: PlanOptions
    may_share: Optional[Tuple[int, ...]] = None
    """The buffers that were allowed to share storage or to lie in the arena; None means all."""

    def __repr__(self) -> str:
        """A few lines: the fields hold thousands of numbers.

        >>> from theano_memopt.planner.model import worked_example
        >>> make_plan(worked_example())
        Plan of 5 tasks and 5 buffers, sizes given
          peak 8 bytes, floor 8 bytes: no order needs less
          storage: 9 bytes in 4 cells
        """
        peak, floor = self.schedule.peak, self.schedule.floor
        proven = "no order needs less" if peak == floor else "whether an order lies between is open"
        where = "each buffer by itself"
        if isinstance(self.storage, Slots):
            where = f"in {len(self.storage.cells)} cells"
        elif isinstance(self.storage, Arena):
            where = "in one block"
        return (
            f"Plan of {len(self.graph.tasks)} tasks and {len(self.graph.buffers)} buffers, sizes {self.sizes}\n"
            f"  peak {peak:,} bytes, floor {floor:,} bytes: {proven}\n"
            f"  storage: {self.reserved_bytes:,} bytes {where}"
        )

    @property
    def sizes(self) -> str:
        """`assumed` if any size is a mere assumption: peak, floor and proof then hold at the assumed sizes. Else `given`."""
        return self.graph.sizes

    @property
    def reserved_bytes(self) -> int:
        """Bytes of storage set aside for buffers: of all cells, or of the arena; without either, of every buffer."""
        if isinstance(self.storage, Slots):
            return self.storage.reserved_bytes
        if isinstance(self.storage, Arena):
            return self.storage.height
        return sum(buffer.size for buffer in self.graph.buffers if buffer.producer is not None and not buffer.is_workspace)


def tenants_outside(graph: Graph, storage: Storage) -> Tuple[Tuple[int, ...], ...]:
    """The buffers that are made outside any block: those of one cell together, each other one by itself.

    >>> from theano_memopt.planner.model import worked_example
    >>> graph = worked_example()
    >>> tenants_outside(graph, share_cells(graph, (0, 2, 1, 3, 4))), tenants_outside(graph, None)
    (((0, 1), (2,), (3,), (4,)), ((0,), (1,), (2,), (3,), (4,)))
    """
    offsets = storage.offsets if isinstance(storage, Arena) else [None] * len(graph.buffers)
    found: Dict[Tuple[bool, int], List[int]] = {}
    for b, buffer in enumerate(graph.buffers):
        if buffer.producer is not None and offsets[b] is None:
            cell = storage.cell_of[b] if isinstance(storage, Slots) else None
            found.setdefault((True, b) if cell is None else (False, cell), []).append(b)
    return tuple(map(tuple, found.values()))


def make_plan(
    graph: Graph,
    options: Optional[PlanOptions] = None,
    competing_orders: Sequence[NamedOrder] = (),
    may_share: Optional[Collection[int]] = None,
) -> Plan:
    """Order first, then storage for that order."""
    options = options or PlanOptions()
    schedule = minimise_peak(graph, options, competing_orders)
    return put_together(graph, schedule, storage_of(graph, schedule, options, may_share), options, may_share)


def storage_of(graph: Graph, schedule: Schedule, options: PlanOptions, may_share: Optional[Collection[int]] = None) -> Storage:
    """The storage that the options ask for, for the order of this schedule."""
    if options.storage == "share":
        return share_cells(graph, schedule.order, may_share)
    if options.storage == "arena":
        return pack_graph(graph, schedule.order, options.alignment, may_share)
    return None


def put_together(graph: Graph, schedule: Schedule, storage: Storage, options: PlanOptions, may_share: Optional[Collection[int]] = None) -> Plan:
    """The one way to a Plan. Its options name the storage that it has, which can be less than was asked for."""
    kind = "share" if isinstance(storage, Slots) else "arena" if isinstance(storage, Arena) else "off"
    sharing = None if may_share is None else tuple(sorted(may_share))
    return Plan(graph, schedule, storage, replace(options, storage=kind, progress=None), sharing)


def along(schedule: Schedule, graph: Graph, order: Sequence[int], method: str = "", reason: str = "") -> Schedule:
    """The same findings, about another order of the same graph. `reason` says why its peak was left above the floor, if it was."""
    path = timeline(graph, order)
    certificate = schedule.certificate
    if path.peak > schedule.floor:
        certificate = Open(schedule.floor, certificate.proof, reason or getattr(certificate, "reason", ""))
    # It was chosen for another reason than its peak at these sizes, so nothing is claimed of it beside the other orders.
    baseline = max(schedule.baseline_peak, path.peak)
    method = method or schedule.method
    return replace(schedule, order=tuple(order), timeline=path, certificate=certificate, baseline_peak=baseline, method=method)


def check_plan(plan: Plan) -> None:
    """Check order, proof and storage without trusting what made them. Raises `Rejected` or `StorageRejected`."""
    check_certificate(plan.graph, plan.schedule)
    if isinstance(plan.storage, Slots):
        check_slots(plan.graph, plan.schedule.order, plan.storage, plan.may_share)
    elif isinstance(plan.storage, Arena):
        check_arena(plan.graph, plan.schedule.order, plan.storage, plan.options.alignment, plan.may_share)


def plan_to_json(plan: Plan) -> Dict[str, Any]:
    return {
        "sizes": plan.sizes,
        "graph": graph_to_json(plan.graph),
        "schedule": schedule_to_json(plan.graph, plan.schedule),
        "storage": _storage_to_json(plan.storage),
        "may_share": None if plan.may_share is None else [plan.graph.buffers[b].label for b in plan.may_share],
        "options": {
            "effort": plan.options.effort,
            "seconds": plan.options.seconds,
            "storage": plan.options.storage,
            "alignment": plan.options.alignment,
        },
    }


def plan_from_json(data: Any) -> Plan:
    """The inverse of `plan_to_json`. What does not have the form of a plan raises `GraphError` or `Rejected`."""
    try:
        graph = graph_from_json(data["graph"])
        schedule = schedule_from_json(graph, data["schedule"])
        names = {buffer.label: b for b, buffer in enumerate(graph.buffers)}
        sharing = None if data["may_share"] is None else tuple(names[name] for name in data["may_share"])
        plan = Plan(graph, schedule, _storage_from_json(data["storage"]), PlanOptions(**data["options"]), sharing)
        said = data.get("sizes", plan.sizes)
    except KeyError as missing:
        raise Rejected("bad-form", f"{missing} is missing from the plan, or names nothing in its graph") from None
    except (TypeError, AttributeError) as wrong:
        raise Rejected("bad-form", f"this is not a plan: {wrong}") from None
    if said != plan.sizes:
        raise Rejected("bad-form", f"the plan says that its sizes are {said!r}, its graph that they are {plan.sizes}")
    return plan


def _storage_to_json(storage: Storage) -> Optional[Dict[str, Any]]:
    if isinstance(storage, Slots):
        return {
            "by": "cells",
            "cell_of": list(storage.cell_of),
            "cells": [{"kind": kind, "bytes": size} for kind, size in storage.cells],
            "reserved_bytes": storage.reserved_bytes,
            "eager": storage.eager,
        }
    if isinstance(storage, Arena):
        return {"by": "arena", "offsets": list(storage.offsets), "height": storage.height, "floor": storage.floor}
    return None


def _storage_from_json(data: Optional[Mapping[str, Any]]) -> Storage:
    if data is None:
        return None
    if data["by"] == "cells":
        cells = tuple((cell["kind"], cell["bytes"]) for cell in data["cells"])
        return Slots(tuple(data["cell_of"]), cells, data["reserved_bytes"], data["eager"])
    if data["by"] == "arena":
        return Arena(tuple(data["offsets"]), data["height"], data["floor"])
    raise Rejected("bad-form", f"storage is by cells or arena, not {data['by']!r}")

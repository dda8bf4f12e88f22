"""Cells and withheld clears in Theano's virtual machines: hooks into its linkers, which install/patches.py puts there.

    cell        a one-element list in which Theano keeps the value of a variable; several variables may be given the same
    tenant      a variable whose values lie in a shared cell, one after the other
    withheld    the clear that the VM would do after the last use of a tenant, when another is still to come

Picture, with allow_gc=True; `a` and `b` are tenants of one cell:

    step            0        1        2          3          4
    a               born     last use
    b                                 born       last use
    the cell        [A]      [A]      [B in A]   [B]        [None]
                             ^ withheld                     ^ cleared as ever

make_all keeps what it finds in the storage map, so cells that are bound before it makes the thunks are what thunks and
VMs use. A clear is withheld by telling the VM that `a` is also needed for `b`: it clears `a` only after one of its
readers, when all that need it are computed, and `b` is not. After the call every computed cell is cleared anyway.

Outputs and whatever may be a view of them never share: Theano empties their cells before each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Set

import theano
from theano.gof import link
from theano.gof import vm as host

from theano_memopt.hosts.theano.install.flags import storage_for
from theano_memopt.hosts.theano.optimize.annotate import Annotation
from theano_memopt.hosts.theano.optimize.feature import MemReuse, StoodAside, feature_of, shows_values
from theano_memopt.hosts.theano.read.op_facts import is_lazy
from theano_memopt.hosts.theano.run import cells
from theano_memopt.hosts.theano.run.arena.block import lent_by, making
from theano_memopt.hosts.theano.run.arena.call import with_arena
from theano_memopt.hosts.theano.run.arena.variables import candidates
from theano_memopt.hosts.theano.run.first_call import FirstCallVM
from theano_memopt.hosts.theano.run.left_out import letting_go
from theano_memopt.hosts.theano.run.same_kind import flags_as_now
from theano_memopt.hosts.theano.run.sized_call import CellPlanner, SizedVM
from theano_memopt.hosts.theano.run.stack import with_own_links
from theano_memopt.hosts.theano.run.thunks import watched_now, wrapped_all
from theano_memopt.hosts.theano.run.verify import VerifiedVM, Watch
from theano_memopt.planner.slots import Slots


class Trouble(Exception):
    """What was planned does not fit the machine that was made."""


@dataclass
class Binding:
    """What one linker does for one function."""

    annotation: Annotation
    cells: Dict[Any, List[Any]]
    """Tenant -> its cell; only cells with several tenants."""
    next_tenant: Dict[Any, Any]
    """Tenant -> the one that comes after it in the cell."""
    verify: bool
    watch: Optional[Watch] = None
    arena: bool = False
    """Do variables lie in a block, in place of shared cells?"""
    lying: Sequence[Any] = ()
    """Variables that may lie there."""
    follows_steps: bool = False
    """Was storage planned for the order in which the CVM runs lazy ops?"""


# --- hooks -----------------------------------------------------------------------------------------------------------


@making()
def make_all(original: Any, linker: Any, profiler: Any = None, input_storage: Any = None, output_storage: Any = None, storage_map: Any = None) -> Any:
    """Let Theano make thunks and machine, over the planned cells; once more at the first call, if that decides what runs again."""
    made = _made(original, linker, profiler, input_storage, output_storage, storage_map)
    feature = feature_of(linker.fgraph)
    if feature is None or feature.waits is None:
        return made
    vm, inputs, outputs, thunks, order = made
    lender, watching_again = getattr(vm, "lender", None), watched_now()

    def link_again() -> Any:
        with making(), lent_by(lender), watching_again():
            return _made(original, linker, profiler, [c.storage for c in inputs], [c.storage for c in outputs], None)[0]

    return (FirstCallVM(vm, linker, feature, link_again), inputs, outputs, thunks, order)


def _made(original: Any, linker: Any, profiler: Any, input_storage: Any, output_storage: Any, storage_map: Any) -> Any:
    """Bind the cells, then let Theano make thunks and VM; without cells again if they turn out not to fit."""
    fgraph = linker.fgraph
    given = _one_variable_per_cell(fgraph, storage_map)
    feature = feature_of(fgraph)
    linker.mem_reuse_binding = None
    if feature is not None:
        binding = _try_to_bind(feature, linker, given)
        if binding is not None:
            linker.mem_reuse_binding = binding
            # A block of one function is nothing to another: with an arena a copy has cells of its own.
            kept = {v: cell for v, cell in (given or {}).items() if v not in binding.cells and not (binding.arena and v.owner)}
            try:
                made = original(linker, profiler, input_storage, output_storage, {**kept, **binding.cells})
            except Trouble as why:
                linker.mem_reuse_binding = None
                feature.stand_aside(str(why), why)
            else:
                return made if binding.watch is None else _verified(linker, binding.watch, made)
    return original(linker, profiler, input_storage, output_storage, None if given is None else dict(given))


def make_vm(
    original: Any,
    linker: Any,
    nodes: Any,
    thunks: Any,
    input_storage: Any,
    output_storage: Any,
    storage_map: Any,
    post_thunk_clear: Any,
    *rest: Any,
) -> Any:
    binding = getattr(linker, "mem_reuse_binding", None)
    if binding is None:
        return original(linker, nodes, thunks, input_storage, output_storage, storage_map, post_thunk_clear, *rest)
    _check_fit(binding, nodes, thunks, storage_map)
    if binding.verify:
        binding.watch = Watch(binding, storage_map)
        thunks = wrapped_all(nodes, thunks, binding.watch.around)

    feature = feature_of(linker.fgraph)
    assert feature is not None  # it gave the binding

    @flags_as_now()
    def make(nodes: Any, thunks: Any, clears: Any) -> Any:
        if clears is not None:
            clears = _without_withheld(binding, nodes, clears, storage_map)
        annotation = feature.annotation(linker.fgraph)
        lets_go = annotation is not None and linker.allow_gc and cells.in_steps(annotation, linker)
        if lets_go:
            thunks = letting_go(annotation, nodes, thunks, storage_map)
        made = original(linker, nodes, thunks, input_storage, output_storage, storage_map, clears, *rest)
        if (binding.follows_steps or lets_go) and type(made).__name__ != "CVM":
            raise Trouble("the machine runs lazy ops in another order than the CVM")
        return with_own_links(made)

    made = make(nodes, thunks, post_thunk_clear)
    follow = binding.watch.follow if binding.watch is not None else None
    if binding.arena:
        return with_arena(made, make, feature, binding.annotation, linker, thunks, storage_map, follow)
    if feature.replans and binding.annotation.reading.scenarios:
        sparing = feature.settings.storage == "auto"
        return SizedVM(CellPlanner(make, feature, linker, thunks, storage_map, binding), made, linker, storage_map, follow, sparing)
    return made


def _verified(linker: Any, watch: Watch, made: Any) -> Any:
    vm, inputs, outputs, thunks, order = made
    return (VerifiedVM(vm, watch, linker, inputs, outputs), inputs, outputs, thunks, order)


def compute_gc_dependencies(original: Any, linker: Any, variables: Any) -> Any:
    needed_for = original(linker, variables)
    binding = getattr(linker, "mem_reuse_binding", None)
    if binding is not None:
        for tenant, following in binding.next_tenant.items():
            needed_for[tenant] = [*needed_for[tenant], following]
    return needed_for


def calculate_reallocate_info(original: Any, order: Any, fgraph: Any, *rest: Any) -> Any:
    """Upstream's own reuse pairs outputs with intermediates and then clears the wrong cell: off where ours is on."""
    return {} if feature_of(fgraph) is not None else original(order, fgraph, *rest)


def schedule(original: Any, linker: Any, fgraph: Any) -> Any:
    """The planned order itself; asking toposort for it is right as well, and slow on long chains."""
    feature = feature_of(fgraph)
    if feature is not None and not isinstance(linker, host.VM_Linker):
        feature.runs_in("toposort")
    found = None if feature is None else feature.annotation(fgraph)
    return original(linker, fgraph) if found is None else list(found.nodes)


def function_free(original: Any, function: Any) -> Any:
    """What a function keeps between calls, and its block with it. What the caller gave is not the function's to let go: upstream
    empties the cells of shared variables too, and whoever uses one of them next fails."""
    given = [(container.storage, container.storage[0]) for container in function.input_storage]
    answer = original(function)
    if feature_of(function.maker.fgraph) is not None:
        for cell, value in given:
            cell[0] = value
    after_free = getattr(function.fn, "after_free", None)
    if after_free is not None:
        after_free()
    return answer


# --- binding ---------------------------------------------------------------------------------------------------------


def _try_to_bind(feature: MemReuse, linker: Any, given: Optional[Dict[Any, List[Any]]]) -> Optional[Binding]:
    if getattr(linker.schedule, "__func__", None) is not link.LocalLinker.schedule:
        feature.forget()
        feature.aside = StoodAside("the linker was given a schedule of its own")
        return None
    cloop = linker.use_cloop and linker.callback is None and linker.callback_input is None
    feature.runs_in("cvm" if cloop else "toposort", linker.c_thunks is not False and bool(theano.config.cxx), _replans(feature, linker))
    uses = feature.links_with(linker)
    annotation = feature.annotation(linker.fgraph)
    if annotation is None:
        return None
    try:
        sharing = cells.may_share(annotation, linker) if feature.compiled else set()
        slots = None if uses != "share" else cells.share(annotation, sharing, linker.allow_gc)
        feature.storage, feature.sharing = slots, tuple(sorted(sharing))
        binding = _bind(annotation, slots, given or {}, feature.settings.verify)
        binding.follows_steps = cells.follows_steps(annotation, linker)
        if uses == "arena":
            binding.arena = True
            binding.lying = [annotation.reading.roots[b] for b in candidates(annotation, linker)]
        return binding
    except Exception as trouble:
        feature.stand_aside("the cells could not be planned", trouble)
        return None


def _replans(feature: MemReuse, linker: Any) -> bool:
    """Does the machine plan anew at the true sizes of a call?"""
    return not shows_values(linker) and (bool(linker.allow_gc) or storage_for(feature.settings, False) == "arena")


def _bind(annotation: Annotation, slots: Optional[Slots], given: Dict[Any, List[Any]], verify: bool) -> Binding:
    if slots is None:
        return Binding(annotation, {}, {}, verify)
    bound: Dict[Any, List[Any]] = {}
    reading, order = annotation.reading, annotation.schedule.order
    for chain in cells.chains(reading.graph, order, slots):
        variables = [reading.roots[b] for b in chain]
        # A copy that shares memory with its original is given the original's cells: take one of them.
        cell = next((given[v] for v in variables if v in given), [None])
        bound.update((v, cell) for v in variables)
    return Binding(annotation, bound, cells.following(reading, reading.graph, order, slots), verify)


def _without_withheld(binding: Binding, nodes: Any, post_thunk_clear: Any, storage_map: Any) -> Any:
    """LoopGC's list of cells to clear after each step. A cell is cleared there for a tenant that this node reads last,
    and lives do not touch, so a shared cell in the list belongs to one tenant: the one among the node's inputs."""
    remaining = []
    for node, cleared in zip(nodes, post_thunk_clear):
        held = {id(binding.cells[v]) for v in node.inputs if v in binding.next_tenant}
        # LoopGC never clears what nobody reads, and keeps it beyond the call.
        unread = [storage_map[v] for v in node.outputs if not v.clients]
        remaining.append([cell for cell in cleared if id(cell) not in held] + unread)
    return remaining


def _check_fit(binding: Binding, nodes: Any, thunks: Any, storage_map: Any) -> None:
    """Hold what the plan assumed against what Theano made."""
    if list(nodes) != list(binding.annotation.nodes):
        raise Trouble("the linker runs another order than the planned one")
    for node, thunk in zip(nodes, thunks):
        if thunk.lazy and not is_lazy(node.op):
            raise Trouble(f"{node.op} turned out to be lazy")
    for tenant, cell in binding.cells.items():
        if storage_map[tenant] is not cell:
            raise Trouble(f"{tenant} was given another cell than the planned one")


def _one_variable_per_cell(fgraph: Any, storage_map: Any) -> Optional[Dict[Any, List[Any]]]:
    """Function.copy(share_memory=True) hands over the original's cells. Those that were shared there were shared for the
    original's order; in the copy one variable keeps the cell and the others get their own, until the copy is planned."""
    if storage_map is None:
        return None
    seen: Set[int] = set()
    kept = {}
    for variable, cell in storage_map.items():
        if id(cell) not in seen or variable.owner is None:
            kept[variable] = cell
        seen.add(id(cell))
    return kept

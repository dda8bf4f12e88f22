"""Theano's own profiler, completed.

    THEANO_FLAGS=profile=True,profile_memory=True   ->   f.profile.summary(), and the report at exit

What changes when this package is imported
    machine     memory is profiled on the machine that the user really runs, the CVM included; upstream swaps it for another
                one with another order
    current     figures of the order in force, with those of the order without mem_reuse in brackets
    minimum     the least peak of all valid orders comes from the planner, with its proof, instead of a search that grows
                tenfold per layer

The accounting is Theano's: a result that is declared a view or in-place is no new memory, inputs count nothing, and an
output or a result that nobody reads is never freed.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import theano

from theano_memopt.hosts.theano.install.flags import storage_for
from theano_memopt.hosts.theano.optimize.feature import MemReuse, feature_of, others_demands
from theano_memopt.hosts.theano.read.aliases import Aliases, as_declared, without_in_place
from theano_memopt.hosts.theano.read.graph import graph_of, label_of
from theano_memopt.hosts.theano.read.host_orders import cvm_order
from theano_memopt.hosts.theano.run import linker as vm
from theano_memopt.hosts.theano.run.thunks import watched, wrapped_all
from theano_memopt.options import PlanOptions
from theano_memopt.planner.arena import pack_graph
from theano_memopt.planner.certificate import Schedule
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.model import Graph
from theano_memopt.planner.slots import share_cells

EFFORT = 20_000
"""States that the search for the minimum may open: training graphs need some dozens; a few seconds at worst."""


# --- hooks, which install/patches.py puts around upstream's functions --------------------------------------------------


def summary_memory(original: Any, stats: Any, file: Any, N: Optional[int] = None) -> None:  # noqa: N803 - upstream's name
    print_memory(stats, file, theano.config.profiling.n_apply if N is None else N)


def summary(original: Any, stats: Any, file: Any = None, n_ops_to_print: Optional[int] = None, n_apply_to_print: Optional[int] = None) -> None:
    ops = theano.config.profiling.n_ops if n_ops_to_print is None else n_ops_to_print
    applies = theano.config.profiling.n_apply if n_apply_to_print is None else n_apply_to_print
    if file is not None:
        original(stats, file, ops, applies)
        return
    destination = theano.config.profiling.destination
    if destination in ("stderr", "stdout"):
        original(stats, getattr(sys, destination), ops, applies)
        return
    with open(destination, "a") as stream:
        original(stats, stream, ops, applies)


def make_vm(original: Any, linker: Any, nodes: Any, thunks: Any, *rest: Any) -> Any:
    """The machine that runs the plan (run/linker.py), over thunks that tell a twin's caller and the profile what they did."""
    thunks = watched(linker.fgraph, nodes, thunks)
    if not (linker.profile and theano.config.profile_memory) or linker.callback is not None or linker.callback_input is not None:
        return vm.make_vm(original, linker, nodes, thunks, *rest)
    recorder = Recorder(linker, nodes, thunks, storage_map=rest[2])
    with _flag("profile_memory", False):
        machine = vm.make_vm(original, linker, nodes, recorder.thunks, *rest)
    recorder.follow(machine)
    return machine


# --- recording -------------------------------------------------------------------------------------------------------


class _flag:  # noqa: N801 - used like a function
    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value

    def __enter__(self) -> None:
        self.before = getattr(theano.config, self.name)
        setattr(theano.config, self.name, self.value)

    def __exit__(self, *error: Any) -> None:
        setattr(theano.config, self.name, self.before)


class Recorder:
    """What ran, in which order, what was cleared after it, and the shapes: under the names that upstream's own machine has."""

    def __init__(self, linker: Any, nodes: Sequence[Any], thunks: Sequence[Any], storage_map: Mapping[Any, List[Any]]) -> None:
        self.fgraph = linker.fgraph
        self.runs = "cvm" if linker.use_cloop else "toposort"
        self.storage_map = storage_map
        self.native = {node: hasattr(thunk, "cthunk") for node, thunk in zip(nodes, thunks)}
        self.thunks = wrapped_all(nodes, thunks, self._around)
        self.dependencies = {v: [o for client, _ in v.clients if client != "output" for o in client.outputs] for v in storage_map}
        self.variable_shape: Dict[Any, Any] = {}
        self.variable_strides: Dict[Any, Any] = {}
        self.variable_offset: Dict[Any, Any] = {}
        self._begin()

    def _begin(self) -> None:
        self.executed: List[Any] = []
        self.cleared: List[List[Any]] = []
        self.seen: Set[Any] = set()
        self.gone: Set[Any] = set()
        self.finished = False

    def follow(self, machine: Any) -> None:
        """Have the machine hand the record to the profile when Theano asks it to."""
        upstream = machine.update_profile

        def update_profile(profile: Any) -> None:
            self._finish()
            for name in ("variable_shape", "variable_strides", "variable_offset", "dependencies"):
                setattr(machine, name, getattr(self, name))
            machine.node_executed_order, machine.node_cleared_order = list(self.executed), list(self.cleared)
            upstream(profile)
            profile.apply_cimpl.update(self.native)
            profile.mem_reuse_runs = self.runs

        machine.update_profile = update_profile

    def _around(self, node: Any, thunk: Any) -> Any:
        if self.finished or node in self.seen:  # nothing runs twice in a call: another one has begun
            self._begin()
        if not self.executed:
            for v, cell in self.storage_map.items():
                if v.owner is None:
                    self._note(v, cell[0])
        self._note_cleared()
        asked_for = thunk()
        if not asked_for:
            self.executed.append(node)
            self.seen.add(node)
            for v, cell in zip(node.outputs, thunk.outputs):
                self._note(v, cell[0])
        return asked_for

    def _note_cleared(self) -> None:
        """Which inputs of the node that ran last are empty now: the machine clears nothing else between two nodes."""
        if len(self.cleared) < len(self.executed):
            last = self.executed[-1]
            places = [i for i, v in enumerate(last.inputs) if v.owner and v not in self.gone and self.storage_map[v][0] is None]
            first = [i for i in places if last.inputs.index(last.inputs[i]) == i]
            self.gone.update(last.inputs[i] for i in first)
            self.cleared.append(first)

    def _finish(self) -> None:
        if self.finished or not self.executed:
            return
        self._note_cleared()
        outputs = set(self.fgraph.outputs)
        self.cleared.append([v for v in self.storage_map if v.owner and v not in outputs and v not in self.gone and self.storage_map[v][0] is None])
        self.finished = True

    def _note(self, variable: Any, value: Any) -> None:
        if value is None:
            return
        of_type = variable.type
        self.variable_shape[variable] = of_type.get_shape_info(value) if hasattr(of_type, "get_shape_info") else "no shape"
        contiguous = bool(getattr(value, "flags", False)) and value.flags.c_contiguous
        self.variable_strides[variable] = "c" if contiguous else getattr(value, "strides", "no strides")
        self.variable_offset[variable] = getattr(value, "offset", "")


# --- figures ---------------------------------------------------------------------------------------------------------

Pair = Tuple[int, int]
"""(current, previous)"""


@dataclass(frozen=True)
class Figures:
    """Bytes of one function under every setting, current and previous."""

    setting: Pair
    without_inplace: Pair
    cvm: Pair
    cvm_without_inplace: Pair
    c_py: Pair
    c_py_without_inplace: Pair
    no_gc: Pair
    no_gc_without_inplace: Pair
    minimum: Optional[Schedule]
    seconds: float


def figures(fgraph: Any, sizes: Mapping[Any, int], kinds: Mapping[Any, str], executed: Sequence[Any], runs: str, minimum: bool) -> Figures:
    """`sizes`: bytes of every variable. `executed`: the order of the last call, which need not hold every node."""
    feature = feature_of(fgraph)
    found = None if feature is None else feature.annotation(fgraph)
    everything = list(found.reading.nodes) if found is not None else fgraph.toposort()
    demands = others_demands(fgraph)
    ran = set(executed) or set(everything)
    nodes = [node for node in everything if node in ran]
    orders = {"toposort": nodes, "cvm": [node for node in cvm_order(everything, fgraph.outputs, demands) if node in ran]}
    previous = orders[feature.runs if feature is not None else runs]
    current = list(executed) if executed else previous
    planned = found is not None
    graphs = {inplace: declared_graph(nodes, fgraph.outputs, demands, sizes, kinds, inplace) for inplace in (True, False)}
    index = {node: t for t, node in enumerate(nodes)}

    def peak(order: Sequence[Any], inplace: bool) -> int:
        return timeline(graphs[inplace], [index[node] for node in order]).peak

    def pair(before: Sequence[Any], inplace: bool) -> Pair:
        return (peak(current if planned else before, inplace), peak(before, inplace))

    def no_gc(inplace: bool) -> Pair:
        total = sum(b.size for b in graphs[inplace].buffers)
        return (_reserved(graphs[inplace], [index[node] for node in current], feature, found) if planned else total, total)

    schedule, start = None, time.time()
    if minimum:
        rivals = [(name, [index[node] for node in order]) for name, order in (("current", current), *orders.items())]
        rivals = [(name, order) for name, order in rivals if graphs[True].is_legal(order)]
        schedule = minimise_peak(graphs[True], PlanOptions(effort=EFFORT), rivals)
    return Figures(
        (peak(current, True), peak(previous, True) if planned else peak(current, True)),
        (peak(current, False), peak(previous, False) if planned else peak(current, False)),
        pair(orders["cvm"], True),
        pair(orders["cvm"], False),
        pair(orders["toposort"], True),
        pair(orders["toposort"], False),
        no_gc(True),
        no_gc(False),
        schedule,
        time.time() - start,
    )


def declared_graph(
    nodes: Sequence[Any],
    outputs: Sequence[Any],
    demands: Mapping[Any, Sequence[Any]],
    sizes: Mapping[Any, int],
    kinds: Mapping[Any, str],
    inplace: bool,
) -> Graph:
    """The graph in Theano's own accounting: what is declared a view, or with `inplace` in-place, is no new memory."""
    inside = set(nodes)
    outputs_of_graph = set(outputs)

    def is_kept(variable: Any) -> bool:
        return variable in outputs_of_graph or not any(client in inside for client, _ in variable.clients)

    aliases = Aliases(nodes, as_declared if inplace else without_in_place)
    rows = [sizes.get(root, 0) for root in aliases.roots]
    return graph_of(nodes, aliases, demands, rows, [kinds.get(root, "") for root in aliases.roots], is_kept, "one call")


def _reserved(graph: Graph, order: Sequence[int], feature: MemReuse, found: Any) -> int:
    """Bytes of storage without gc, when those variables share that may share in the plan."""
    uses = storage_for(feature.settings, False)
    if uses == "off" or found is None:
        return sum(b.size for b in graph.buffers)
    if uses == "arena":
        inside = [i for i, b in enumerate(graph.buffers) if not b.pinned]
        return pack_graph(graph, order, 1, inside).height + sum(b.size for b in graph.buffers if b.pinned)
    sharing = {v for b in feature.sharing or () for v in found.reading.names[b]}
    place = {label_of(t, v): v for t, node in enumerate(found.reading.nodes) for v in node.outputs}
    may = [b for b, buffer in enumerate(graph.buffers) if not buffer.pinned and place.get(buffer.label) in sharing]
    return share_cells(graph, order, may).reserved_bytes


# --- printing --------------------------------------------------------------------------------------------------------


def print_memory(stats: Any, file: Any, n_apply: int) -> None:
    """Upstream's `summary_memory`, in its style and order."""
    by_graph: Dict[Any, List[Any]] = {}
    for node in stats.apply_callcount:
        by_graph.setdefault(node.fgraph, []).append(node)
    sizes = {v: _bytes_of(v, stats.variable_shape) for node in stats.apply_callcount for v in node.outputs}
    kinds = {v: f"{getattr(v, 'dtype', v.type)} {stats.variable_shape.get(v)}" for v in sizes}
    on_gpu = {v for v in sizes if type(v.type).__name__.startswith("GpuArray")}
    minimum = theano.config.profiling.min_peak_memory

    def largest(where: Callable[[Any], bool], search: bool) -> List[Figures]:
        found = []
        for fgraph in by_graph:
            profile = getattr(fgraph, "profile", None) or stats
            masked = {v: size if where(v) else 0 for v, size in sizes.items()}
            executed = [node for node in getattr(profile, "node_executed_order", None) or [] if node.fgraph is fgraph]
            found.append(figures(fgraph, masked, kinds, executed, getattr(profile, "mem_reuse_runs", "toposort"), search))
        return found

    both = largest(lambda v: True, minimum)
    cpu = largest(lambda v: v not in on_gpu, False) if on_gpu else both
    gpu = largest(lambda v: v in on_gpu, False) if on_gpu else []
    _print_head(file, len(by_graph))
    _print_figures(file, cpu, gpu, both)
    _print_minimum(file, both)
    _print_applies(stats, file, sizes, len(by_graph), n_apply)


def _bytes_of(variable: Any, shapes: Mapping[Any, Any]) -> int:
    shape = shapes.get(variable)
    if shape is None or not hasattr(variable.type, "get_size"):
        return 0  # not created, or of a type that does not tell, as sparse ones
    return int(variable.type.get_size(shape))


def _print_head(file: Any, graphs: int) -> None:
    print("Memory Profile" + (" (the max between all functions in that profile)" if graphs > 1 else ""), file=file)
    print("(Sparse variables are ignored)", file=file)
    print("(Current figures are for the order in force; for values in brackets, it's for the order without mem_reuse)", file=file)


def _print_figures(file: Any, cpu: Sequence[Figures], gpu: Sequence[Figures], both: Sequence[Figures]) -> None:
    inplace = " and Theano flag optimizer_excluding=inplace"
    blocks = (
        ("Max peak memory with current setting", "setting"),
        (f"Max peak memory with current setting{inplace}", "without_inplace"),
        ("Max peak memory with linker=cvm", "cvm"),
        (f"Max peak memory with linker=cvm{inplace}", "cvm_without_inplace"),
        ("Max peak memory with linker=c|py", "c_py"),
        (f"Max peak memory with linker=c|py{inplace}", "c_py_without_inplace"),
        ("Max peak memory if allow_gc=False (linker don't make a difference)", "no_gc"),
        (f"Max peak memory if allow_gc=False{inplace}", "no_gc_without_inplace"),
    )
    print("---", file=file)
    for title, name in blocks:
        print(f"    {title}", file=file)
        for where, found in (("CPU", cpu), ("GPU", gpu), ("CPU + GPU", both)):
            current = max((getattr(f, name)[0] for f in found), default=0)
            previous = max((getattr(f, name)[1] for f in found), default=0)
            print(f"        {where}: {_kilobytes(current)}KB ({_kilobytes(previous)}KB)", file=file)
    print("---", file=file)


def _print_minimum(file: Any, found: Sequence[Figures]) -> None:
    schedules = [f.minimum for f in found if f.minimum is not None]
    if not schedules:
        return
    worst = max(schedules, key=lambda schedule: schedule.peak)
    seconds = sum(f.seconds for f in found)
    floor = max(schedule.floor for schedule in schedules)
    head = f"    Minimum peak from all valid apply node order is {_kilobytes(worst.peak)}KB(took {seconds:.3f}s to compute)"
    if floor >= worst.peak:
        print(f"{head}, proven: {worst.certificate.proof.describe()}", file=file)
    else:
        print(f"{head}, not proven: at least {_kilobytes(floor)}KB", file=file)
    print("---", file=file)


def _kilobytes(size: int) -> int:
    return int(round(size / 1024.0))


def _print_applies(stats: Any, file: Any, sizes: Mapping[Any, int], graphs: int, n_apply: int) -> None:
    least = theano.config.profiling.min_memory_size
    rows = sorted(((sum(sizes[v] for v in node.outputs), node) for node in stats.apply_callcount), key=lambda row: -row[0])
    print("", file=file)
    if graphs > 1:
        print("    This list is based on all functions in the profile", file=file)
    print("    <Sum apply outputs (bytes)> <Apply outputs shape> <created/inplace/view> <Apply node>", file=file)
    print("", file=file)
    shown = 0
    for size, node in rows[:n_apply]:
        known = all(hasattr(v.type, "get_size") for v in node.outputs)
        if known and size < least:
            break
        shown += 1
        code = ["c"] * len(node.outputs)
        for letter, name in (("i", "destroy_map"), ("v", "view_map")):
            for i in getattr(node.op, name, None) or {}:
                code[i] = letter
        shapes = [stats.variable_shape.get(v, "no shape") for v in node.outputs]
        print(f"     {f'{size:9d}B' if known else '   Unknown'}  {shapes} {' '.join(code)} {node}", file=file)
    rest, everything = sum(size for size, _ in rows[shown:]), sum(size for size, _ in rows)
    share = f"({100.0 * rest / everything:.2f}%)" if everything else "0%"
    print(
        f"   ... (remaining {max(0, len(rows) - shown)} Apply account for {rest:4d}B/{everything}B ({share}) of the Apply with dense outputs sizes)",
        file=file,
    )
    print("", file=file)
    if not shown:
        print(f"    All Apply nodes have output sizes that take less than {least}B.", file=file)
    print("    <created/inplace/view> is taken from the Op's declaration.", file=file)
    print(
        "    Apply nodes marked 'inplace' or 'view' may actually allocate memory, this is not reported here."
        " If you use DebugMode, warnings will be emitted in those cases.",
        file=file,
    )
    print("", file=file)

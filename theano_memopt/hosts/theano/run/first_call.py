"""What runs again is decided at the first call, where lengths were unknown while compiling and a budget or an extra time was set.

    first call    shapes of the arguments -> recompute (optimize/recompute.py) -> other FunctionGraph -> linked anew, over the same inputs and outputs
    later calls   the machine that came of it, whatever sizes come

Linking anew makes thunks from C code that is in Theano's cache. Inputs, shared variables and outputs keep their containers, so the Function
that holds them need not know. If anything goes wrong, or is interrupted, the graph is put back as it was linked, and the machine of compile
time runs, which is right and merely larger.

Several machines may have been made for one graph (`maker.create`). The first one that is called decides; each other one finds at its next call
that the graph is not the one that it was linked for, and is linked anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Optional, Sequence

from theano.compile.function_module import infer_reuse_pattern

from theano_memopt.hosts.theano.optimize.feature import MemReuse, StoodAside, complain
from theano_memopt.hosts.theano.optimize.recompute import BudgetNotMet, Outcome, Waiting, recompute
from theano_memopt.hosts.theano.optimize.repeats import put_back, shape_of_graph
from theano_memopt.hosts.theano.read.assumed_sizes import Sizes
from theano_memopt.hosts.theano.read.graph import ShapeOf
from theano_memopt.hosts.theano.read.true_sizes import shapes_now
from theano_memopt.hosts.theano.run.stand_in import Veil
from theano_memopt.planner.recompute import status_of
from theano_memopt.progress import planning


class FirstCallVM(Veil):
    """It decides before the first call for which all inputs are there, and then only hands calls on."""

    def __init__(self, vm: Any, linker: Any, feature: MemReuse, link_again: Callable[[], Any]) -> None:
        super().__init__(vm)
        self.__dict__.update(_linker=linker, _fgraph=linker.fgraph, _feature=feature, _link_again=link_again)
        self.__dict__.update(_linked_for=set(linker.fgraph.apply_nodes), _settled=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._settled and self._all_are_given():
            self.settle(self._shapes())
        return self._vm(*args, **kwargs)

    def settle(self, shape_of: ShapeOf, told: bool = True) -> None:
        """Run what is decided for these shapes, or was decided by another machine of this graph. `told`: say it where a budget is not met."""
        if self._feature.waits is not None:
            self._decide(self._feature.waits, shape_of, self._feature.waits.asker if told else None)
        elif set(self._fgraph.apply_nodes) != self._linked_for:
            self._link()
        self.__dict__["_settled"] = True

    def _all_are_given(self) -> bool:
        return all(self._value_of(v) is not None for v in self._fgraph.inputs)

    def _value_of(self, variable: Any) -> Any:
        return self._vm.storage_map[variable][0]

    @planning("deciding for the first call what runs again, and linking anew")
    def _decide(self, waiting: Waiting, shape_of: ShapeOf, asker: Optional[str]) -> None:
        fgraph, feature = self._fgraph, self._feature
        as_linked = _AsLinked(self._linker, feature)
        feature.waits = None
        try:
            with feature.silent():
                feature.outcome = recompute(fgraph, feature.settings, shape_of, waiting.costs, asker)
            if set(fgraph.apply_nodes) != self._linked_for:
                outputs_were(self._linker, as_linked.outputs)
                self._link()
        except Exception as trouble:
            as_linked.put_back()
            if isinstance(trouble, BudgetNotMet):
                feature.waits = waiting  # on_opt_error=raise: the next call says it again
                raise
            feature.outcome = None if feature.outcome is None else _not_done(feature.outcome, trouble)
            complain(StoodAside("nothing runs again in it", repr(trouble)), trouble)
        except BaseException:  # Ctrl-C: the next call decides
            as_linked.put_back()
            feature.outcome, feature.waits = None, waiting
            raise

    def _link(self) -> None:
        machine = self._link_again()
        machine.time_thunks = self._vm.time_thunks
        self.__dict__["_vm"] = machine

    def _shapes(self) -> ShapeOf:
        nodes = self._fgraph.toposort()
        known = shapes_now(self._fgraph, nodes, self._value_of)
        guessed = Sizes(self._fgraph, nodes, self._feature.settings.default_dim)

        return lambda variable: known[variable] if variable in known else guessed.shape_of(variable)


class _AsLinked:
    """What graph, feature and linker were when the machine of compile time was made."""

    def __init__(self, linker: Any, feature: MemReuse) -> None:
        self.linker, self.feature = linker, feature
        self.nodes, self.outputs = shape_of_graph(linker.fgraph), list(linker.fgraph.outputs)
        self.planned = feature.planned
        self.known = {name: getattr(linker, name, None) for name in ("no_recycling", "updated_vars", "mem_reuse_binding")}

    def put_back(self) -> None:
        with self.feature.silent():
            put_back(self.linker.fgraph, self.nodes, self.outputs)
        self.feature.planned = self.planned
        self.linker.__dict__.update(self.known)


def outputs_were(linker: Any, before: Sequence[Any]) -> None:
    """Tell the linker which variables it hands out now: the last run of what runs again. It does not fill again what the caller may still hold,
    and takes new values of shared variables from there."""
    fgraph = linker.fgraph
    handed_out = [now for was, now in zip(before, fgraph.outputs) if was in linker.no_recycling]
    linker.no_recycling = infer_reuse_pattern(fgraph, handed_out)
    now = dict(zip(before, fgraph.outputs))
    linker.updated_vars = {variable: now[new] for variable, new in linker.updated_vars.items()}


def _not_done(outcome: Outcome, trouble: Exception) -> Outcome:
    """What was found does not run."""
    status = status_of(outcome.ordered_peak, outcome.budget, outcome.floor)
    return replace(outcome, peak=outcome.ordered_peak, status=status, note=f"what was found to run again could not be linked: {trouble!r}")

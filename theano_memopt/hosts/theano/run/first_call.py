"""What runs again is decided at the first call, where lengths were unknown while compiling and a budget or an extra time was set.

    first call    shapes of the arguments -> recompute (optimize/recompute.py) -> other FunctionGraph -> linked anew, over the same inputs and outputs
    later calls   the machine that came of it, whatever sizes come

Linking anew makes thunks from C code that is in Theano's cache. Inputs, shared variables and outputs keep their containers, so the Function
that holds them need not know. If anything goes wrong, the machine of compile time runs, which is right and merely larger.
"""

from __future__ import annotations

from typing import Any, Callable, Tuple

from theano_memopt.hosts.theano.optimize.feature import MemReuse, StoodAside, complain
from theano_memopt.hosts.theano.optimize.recompute import BudgetNotMet, Waiting, recompute
from theano_memopt.hosts.theano.read.assumed_sizes import Sizes
from theano_memopt.hosts.theano.read.true_sizes import shapes_now
from theano_memopt.hosts.theano.run.stand_in import Veil
from theano_memopt.progress import planning


class FirstCallVM(Veil):
    """It decides before the first call for which all inputs are there, and then only hands calls on."""

    def __init__(self, vm: Any, linker: Any, feature: MemReuse, link_again: Callable[[], Any]) -> None:
        super().__init__(vm)
        self.__dict__.update(_fgraph=linker.fgraph, _feature=feature, _link_again=link_again)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._feature.waits is not None and self._all_are_given():
            self._decide(self._feature.waits)
        return self._vm(*args, **kwargs)

    def _all_are_given(self) -> bool:
        return all(self._value_of(v) is not None for v in self._fgraph.inputs)

    def _value_of(self, variable: Any) -> Any:
        return self._vm.storage_map[variable][0]

    @planning("deciding for the first call what runs again, and linking anew")
    def _decide(self, waiting: Waiting) -> None:
        fgraph, feature = self._fgraph, self._feature
        feature.waits = None
        before = set(fgraph.apply_nodes)
        try:
            with feature.silent():
                feature.outcome = recompute(fgraph, feature.settings, self._shapes(), waiting.costs)
            if set(fgraph.apply_nodes) != before:
                machine = self._link_again()
                machine.time_thunks = self._vm.time_thunks
                self.__dict__["_vm"] = machine
        except BudgetNotMet:
            feature.waits = waiting  # on_opt_error=raise: the next call says it again
            raise
        except Exception as trouble:
            complain(StoodAside("nothing runs again in it", repr(trouble)), trouble)

    def _shapes(self) -> Callable[[Any], Tuple[int, ...]]:
        nodes = self._fgraph.toposort()
        known = shapes_now(self._fgraph, nodes, self._value_of)
        guessed = Sizes(self._fgraph, nodes, self._feature.settings.default_dim)

        return lambda variable: known[variable] if variable in known else guessed.shape_of(variable)

"""The one builder of twins. A twin is the same function over the same graph, with thunks, a machine and a block of its own.

Measuring calls a twin: the function itself is left as it was. What a twin does is its caller's choice:

    around             called in place of each of its thunks, with the node and the thunk
    copies_of_shared   it trains copies of the shared variables, not the shared variables
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Dict, Optional

from theano_memopt.hosts.theano.optimize.feature import feature_of
from theano_memopt.hosts.theano.optimize.making import copied_untold, untold
from theano_memopt.hosts.theano.run.arena.block import Lender, lent_by
from theano_memopt.hosts.theano.run.thunks import Around, watching


def twin(function: Any, around: Optional[Around] = None, copies_of_shared: bool = False) -> Any:
    """Another compiled function, made by the same maker; by that of a copy where its first call would change the graph."""
    feature = feature_of(function.maker.fgraph)
    with lent_by(Lender()):
        if feature is not None and feature.waits is not None:
            function = copied_untold(function)
        return _made(function, around, copies_of_shared)


def _made(function: Any, around: Optional[Around], copies_of_shared: bool) -> Any:
    known: Dict[int, Any] = {}

    def value(container: Any) -> Any:
        if not container.implicit:
            return container.storage[0]
        return copy.deepcopy(container.storage[0], known) if copies_of_shared else container

    with untold(), contextlib.nullcontext() if around is None else watching(function.maker.fgraph, around):
        return function.maker.create([value(container) for container in function.input_storage])

"""The feature that carries order and storage on a FunctionGraph, through clones and pickles.

It plans when it is first asked for an order, which is when the linker starts, and plans again when the graph has changed
since: FunctionMaker inserts copies after the optimizers, and clones and pickles have new nodes. So the plan is always one of
the graph that runs.

    toposort and the virtual machines ask `orderings`  ->  a chain: every node after the one before it in the order (annotate.py)

Words
    runs      the name of the host order that the linker at hand would run: toposort, or cvm
    uses      the kind of storage: off, share or arena
    aside     the pass leaves a function as the host would have it, and says why
"""

from __future__ import annotations

import contextlib
import logging
import pdb
import sys
import traceback
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import theano
from theano.gof import toolbox

from theano_memopt.hosts.theano.install.flags import Settings, storage_for
from theano_memopt.hosts.theano.optimize.annotate import Annotation, Declined, annotate, reordered
from theano_memopt.hosts.theano.optimize.recompute import Outcome, Waiting
from theano_memopt.hosts.theano.read.host_orders import demands_of
from theano_memopt.planner.plan import Plan, put_together

_logger = logging.getLogger("theano.mem_reuse")


@dataclass(frozen=True)
class StoodAside:
    """The pass was on and left the function as it was."""

    reason: str
    detail: str = ""

    def __bool__(self) -> bool:
        return False


class MemReuse(toolbox.Feature):
    """Order and storage of one FunctionGraph."""

    def __init__(self, chosen: Settings, outcome: Optional[Outcome] = None, waits: Optional[Waiting] = None) -> None:
        self.settings = chosen
        self.outcome = outcome
        """What runs again in this graph, and why; None if nothing was asked for."""
        self.waits = waits
        """Set, if it is decided at the first call, for its sizes, what runs again."""
        self._start()

    def for_a_copy(self) -> MemReuse:
        """The same for a copy of the graph."""
        return MemReuse(self.settings, self.outcome, self.waits)

    def _start(self) -> None:
        self.fgraph: Any = None
        self.runs = "cvm" if theano.config.linker.startswith("cvm") else "toposort"
        self.compiled = bool(theano.config.cxx)
        self.replans = False
        """Does the machine plan anew when the sizes of a call are known?"""
        self.aside: Optional[StoodAside] = None
        self.uses = storage_for(self.settings, theano.config.allow_gc)
        """The kind of storage, as soon as the linker is known."""
        self.storage: Any = None
        """The cells that the linker has bound (Slots), or None."""
        self.sharing: Optional[Tuple[int, ...]] = None
        """The buffers that were allowed to share."""
        self._annotation: Optional[Annotation] = None
        self._planning = False

    # --- life on a FunctionGraph ---------------------------------------------------------------------------------

    def on_attach(self, fgraph: Any) -> None:
        if self.fgraph is not None and self.fgraph is not fgraph:
            # clone_get_equiv hands the features of one graph to its clone: the clone gets one of its own.
            fgraph.attach_feature(self.for_a_copy())
            raise toolbox.AlreadyThere()
        if any(isinstance(feature, MemReuse) for feature in fgraph._features):
            raise toolbox.AlreadyThere()
        self.fgraph = fgraph

    def on_detach(self, fgraph: Any) -> None:
        self._start()

    def unpickle(self, fgraph: Any) -> None:
        self.fgraph = fgraph

    def __getstate__(self) -> Dict[str, Any]:
        return {"settings": self.settings, "outcome": self.outcome, "waits": self.waits}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.settings = state["settings"]
        self.outcome = state.get("outcome")
        self.waits = state.get("waits")
        self._start()

    def on_import(self, fgraph: Any, node: Any, reason: Any) -> None:
        self.forget()

    def on_prune(self, fgraph: Any, node: Any, reason: Any) -> None:
        self.forget()

    def on_change_input(self, fgraph: Any, node: Any, i: Any, old: Any, new: Any, reason: Any = None) -> None:
        self.forget()

    def forget(self) -> None:
        """The graph has changed: its plan was for another graph."""
        self._annotation = None
        self.aside = None
        self.storage = None

    # --- what the host asks --------------------------------------------------------------------------------------

    def orderings(self, fgraph: Any) -> OrderedDict[Any, List[Any]]:
        found = self.annotation(fgraph)
        return OrderedDict() if found is None else OrderedDict((node, list(before)) for node, before in found.links.items())

    # --- what the linker asks ------------------------------------------------------------------------------------

    def annotation(self, fgraph: Any) -> Optional[Annotation]:
        """The plan for the graph as it is now; None while planning and after standing aside."""
        if self._planning or self.aside is not None or fgraph is not self.fgraph:
            return None
        if self._annotation is None:
            self._planning = True
            try:
                self._annotation = annotate(fgraph, self.settings, self.runs, self.uses, self.compiled, self.replans)
            except Declined as why:
                self.aside = StoodAside(str(why))
            except Exception as trouble:
                self.stand_aside("the planner failed", trouble)
            finally:
                self._planning = False
        return self._annotation

    def reordered(self, annotation: Annotation, order: Tuple[int, ...]) -> Annotation:
        """The annotation with another legal order of the same nodes."""
        return annotation if order == annotation.schedule.order else reordered(annotation, order, others_demands(self.fgraph))

    @property
    def planned(self) -> Tuple[Any, ...]:
        """All that is known of the graph as it was linked, to be given back when the graph is that one again."""
        return (self._annotation, self.aside, self.storage, self.sharing, self.runs, self.compiled, self.replans, self.uses)

    @planned.setter
    def planned(self, before: Tuple[Any, ...]) -> None:
        (self._annotation, self.aside, self.storage, self.sharing, self.runs, self.compiled, self.replans, self.uses) = before

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """While the graph is rewritten, nothing is demanded of it."""
        self._planning = True
        try:
            yield
        finally:
            self._planning = False

    def adopt(self, annotation: Optional[Annotation]) -> Optional[Annotation]:
        """Another order of the same graph; answers the one until now."""
        before, self._annotation = self._annotation, annotation
        return before

    def links_with(self, linker: Any) -> str:
        """Settle which storage is used, now that the linker is known."""
        self.uses = "off" if shows_values(linker) else storage_for(self.settings, linker.allow_gc)
        if self._annotation is not None:
            self._annotation = replace(self._annotation, options=replace(self._annotation.options, storage=self.uses))
        return self.uses

    def runs_in(self, host_order: str, compiled: bool = True, replans: bool = False) -> None:
        """Say which of its own orders the linker would run, whether it asks for C code, and whether its machine plans anew for true sizes."""
        if (host_order, compiled, replans) != (self.runs, self.compiled, self.replans):
            self.runs, self.compiled, self.replans = host_order, compiled, replans
            self._annotation = None

    def stand_aside(self, reason: str, trouble: Optional[BaseException] = None) -> None:
        """Leave this graph to the host, warn once, and keep the reason."""
        self._annotation = None
        self.storage = None
        self.aside = StoodAside(reason, "" if trouble is None else f"{type(trouble).__name__}: {trouble}")
        complain(self.aside, trouble)

    def plan(self, fgraph: Any) -> Union[Plan, StoodAside, None]:
        """The plan of compile time."""
        found = self.annotation(fgraph)
        if found is None:
            return self.aside
        return put_together(found.reading.graph, found.schedule, self.storage, found.options, self.sharing)


def feature_of(fgraph: Any) -> Optional[MemReuse]:
    for feature in getattr(fgraph, "_features", ()):
        if isinstance(feature, MemReuse):
            return feature
    return None


def others_demands(fgraph: Any) -> Mapping[Any, Sequence[Any]]:
    """What features other than ours want to run before what."""
    return demands_of(fgraph, but=MemReuse)


def shows_values(linker: Any) -> bool:
    """Was it given a function of the user's that sees every array? That one may keep what it sees: nothing of it is overwritten
    that stock Theano would not overwrite."""
    return getattr(linker, "callback", None) is not None or getattr(linker, "callback_input", None) is not None


def complain(aside: StoodAside, trouble: Optional[BaseException]) -> None:
    """One warning, as `on_opt_error` wants it."""
    wish = theano.config.on_opt_error
    if wish == "raise" and trouble is not None:
        raise trouble
    if wish != "ignore":
        how = "".join(traceback.format_exception(type(trouble), trouble, trouble.__traceback__)) if trouble is not None else ""
        _logger.warning(
            "mem_reuse left a function as it was: %s%s%s", aside.reason, f" ({aside.detail})" if aside.detail else "", "\n" + how if how else ""
        )
    if wish == "pdb" and trouble is not None:
        pdb.post_mortem(sys.exc_info()[2])

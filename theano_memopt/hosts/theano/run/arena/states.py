"""The states of an arena's machine. A call begins in one of them and leaves the machine in another.

    state      what a call does                                                        the state after it
    -------    --------------------------------------------------------------------    --------------------------------------------
    Small      Theano's machine runs: an arena would take more than it saves           New, once an input has grown enough
    New        Theano's machine runs with gc, and each result is looked at             Recorded; Aside if the shapes have no formulas, or
                                                                                       no variable may lie in a block
    Recorded   looks for places for the shapes of the call; if there are some,         Fitted; Recorded if there are none for this call;
               as Fitted                                                               Aside if no op writes where it is told
    Fitted     fills the cells with their places; the first call of each               Settled, when every place was tried and the order
               place is tried: does the op write there?                                searched; Recorded, when an op did not; Aside,
                                                                                       when one handed out memory that it was given
    Settled    compares the shapes of the inputs, fills the cells, runs                Settled; what Fitted gives, if the shapes differ
    Aside      Theano's machine runs                                                   Aside

A function that is called while another has the block moves out, or runs without one (block.py), in whatever state, and that leaves the state
alone. A call that fails leaves it as well. While the block is too large for the last calls Fitted does not become Settled: each call
asks whether it is to be made smaller (`Lender.follow_down`). Trouble of any kind while places are looked for leads to Aside, with one
warning; want of memory to Recorded. `Function.free` leads from every state but Small and Aside to New, where layouts may change by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Union

from theano_memopt.hosts.theano.read.true_sizes import Signature
from theano_memopt.hosts.theano.run.arena.fitting import Fitting
from theano_memopt.hosts.theano.run.machines import ComesAgain, Sources


@dataclass(frozen=True)
class Small:
    reason: str = ""
    """Empty before the first call: nothing was asked yet."""
    sources: Optional[Sources] = None
    """Of the call at which it was asked."""


@dataclass(frozen=True)
class New:
    pass


@dataclass(frozen=True)
class Recorded:
    pass


@dataclass(frozen=True)
class Fitted:
    signature: Signature
    fitting: Fitting
    calls: int
    """With this signature, in a row."""


@dataclass(frozen=True)
class Settled(Fitted):
    comes_again: ComesAgain


@dataclass(frozen=True)
class Aside:
    reason: str


State = Union[Small, New, Recorded, Fitted, Settled, Aside]

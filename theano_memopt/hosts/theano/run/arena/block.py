"""A block of memory, views of it, and the lender that owns it.

    block      aligned bytes that all places of a function lie in
    place      the view of the block that a variable's cell is filled with
    lender     owns a block and lends it to one call at a time
    tenant     a machine that fills cells with places of a lender's block

A block is given back before another one is taken, so that two never exist at once.

Functions without gc that one thread has made share a lender unasked, for most programs run them one after the other. What stock Theano lets a
caller see between two calls never lies in a block: results, updates, and all that an op which is not Theano's own may have kept. So another
function may overwrite the block between two calls of this one, as this one's own next call does. One that finds the block taken moves out:

    call comes     block taken by     lender asked for     what the call does
    ----------     --------------     ----------------     ------------------------------------------------------
    any            nobody                                  takes it
    nested         itself                                  allocates as Theano does
    any            another            no                   moves out: a lender of its own, now and from then on
    any            another            yes                  allocates as Theano does
    other thread   itself                                  waits for its own call, whose cells are the same
"""

from __future__ import annotations

import contextlib
import enum
import functools
import math
import os
import threading
import weakref
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import numpy as np

ALIGNMENT = 64
"""A cache line, and what vector instructions want."""
FIELDS = 2**31
"""NumPy describes parts of an element only below this size."""


class Block:
    """Aligned bytes, and views of them."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.room = room = np.empty(height + ALIGNMENT, np.uint8)
        address = room.__array_interface__["data"][0]
        self.start = -address % ALIGNMENT
        self.address = address + self.start
        # As one element of raw data: getfield makes a view in half the time of the constructor.
        self.field = np.ndarray((), _raw(height), room, self.start).getfield if 0 < height < FIELDS else None

    def place(self, kind: Any, offset: int) -> np.ndarray:
        """The array of this kind (from `whole`) that begins so many bytes into the block."""
        if self.field is not None:
            return self.field(kind, offset)
        return np.ndarray(kind.shape, kind.base, self.room, self.start + offset)

    def has(self, address: int) -> bool:
        return self.address <= address < self.address + self.height


class Large(NamedTuple):
    """A shape and a dtype that NumPy cannot make one dtype of, for their bytes are too many."""

    base: Any
    shape: Tuple[int, ...]


def whole(dtype: Any, shape: Tuple[int, ...]) -> Any:
    """One dtype for a whole array."""
    return np.dtype((dtype, shape)) if math.prod(shape) * dtype.itemsize < FIELDS else Large(dtype, shape)


@functools.lru_cache(maxsize=8)
def _raw(size: int) -> Any:
    return np.dtype((np.void, size))


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


USER = "user"
"""The key in `Lender.taken`."""
SPARE = 8
"""Calls with a block more than twice too large after which it is made smaller."""


class Lending(enum.Enum):
    """Who takes a lender's block, and what a call does that finds another tenant in one."""

    ALONE = "one machine: an inner function of a Scan, a function with gc, or one that has moved out"
    BY_THREAD = "the functions without gc that one thread has made: it moves out, to a lender of its own"
    ASKED_FOR = "those made inside one `shared_arena`: it allocates as Theano does, and stays a tenant"


class Lender:
    """Owns a block and lends it to one call at a time. Nobody ever waits for it.

    taken      a tenant takes the block for a call by `taken.setdefault(USER, tenant)`: one step of the interpreter, between whose asking and
               taking no other thread can come. Whoever has taken it may empty the cells of the other tenants, and does that under
               their `emptying`; a tenant that runs without the block says so under the same lock before it begins.
    wants      what a tenant needed in its last call. The block is never larger than all arrays together that Theano without gc would
               keep of those calls, and not for long twice as large as the greatest need.
    """

    def __init__(self, lending: Lending = Lending.ALONE) -> None:
        self.lending = lending
        self.block: Optional[Block] = None
        self.taken: Dict[str, Any] = {}
        self._tenants: Set[Any] = set()
        """Weak references."""
        self._calls_too_large = 0
        _lenders.add(self)

    # --- tenants -----------------------------------------------------------------------------------------------------

    def tenants(self) -> List[Any]:
        found = (reference() for reference in list(self._tenants))  # other threads may come and go: list() copies in one step
        return [tenant for tenant in found if tenant is not None]

    def add(self, tenant: Any) -> None:
        self._tenants.add(weakref.ref(tenant, functools.partial(_has_died, weakref.ref(self))))

    def leave(self, tenant: Any) -> None:
        for reference in list(self._tenants):
            if reference() is tenant:
                self.has_left(reference)

    def has_left(self, reference: Any) -> None:
        """The others may need less. A call that is under way keeps what it has; the next one looks for a block anew."""
        self._tenants.discard(reference)
        if self.height > self._needs()[0]:
            self.block = None
            self.give_back_if_idle(object())

    # --- the block ---------------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        block = self.block
        return 0 if block is None else block.height

    # --- only for whoever has taken it ----------------------------------------------------------------------

    def of(self, height: int) -> Block:
        """A block of at least this height."""
        block = self.block
        if block is None or block.height < height:
            del block  # the last reference is to go before the larger one comes
            self.give_back()
            self.block = block = Block(height)
        return block

    def follow_down(self) -> bool:
        """Make the block smaller if it is too large for the last calls of all tenants. True if it is, and later calls will tell."""
        height, (need, most) = self.height, self._needs()
        if height <= min(2 * need, most):
            self._calls_too_large = 0
            return False
        self._calls_too_large += 1
        if height <= most and self._calls_too_large <= SPARE:
            return True
        self._calls_too_large = 0
        self.give_back()
        if need:
            self.block = Block(need)
        return False

    def _needs(self) -> Tuple[int, int]:
        """For the last calls of all tenants: the greatest height, and the most that the block may have."""
        wants = [fitting for fitting in [tenant.wants for tenant in self.tenants()] if fitting is not None]
        need = max((fitting.height for fitting in wants), default=0)
        return need, max(need, sum(fitting.unshared for fitting in wants))

    def give_back(self) -> None:
        """No cell of any tenant refers to the block any more."""
        for tenant in self.tenants():
            with tenant.emptying:
                if tenant.lender is self and tenant.block is not None:  # else it has left, or its cells hold what Theano allocated
                    tenant.let_go()
        self.block = None

    def give_back_if_idle(self, user: Any) -> None:
        """For those who have not taken it: nothing happens while a call has it."""
        if self.taken.setdefault(USER, user) is user:
            try:
                self.give_back()
            finally:
                self.taken.clear()


_lenders: weakref.WeakSet[Lender] = weakref.WeakSet()


def _has_died(lender: Any, reference: Any) -> None:
    there = lender()
    if there is not None:
        there.has_left(reference)


def _after_fork() -> None:
    """A forked child has none of the other threads. A lock that one of them held would be held for ever, and a block taken."""
    for lender in list(_lenders):
        for tenant in lender.tenants():
            if not tenant.lock._is_owned():
                tenant.lock, tenant.without_block = threading.RLock(), False
            if not tenant.emptying._is_owned():
                tenant.emptying = threading.RLock()
        user = lender.taken.get(USER)
        if user is not None and not getattr(user, "lock", _NO_LOCK)._is_owned():
            lender.taken.clear()


_NO_LOCK: Any = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- one lender for several functions ------------------------------------------------------------------------------------

_context = threading.local()


@contextlib.contextmanager
def shared_arena() -> Iterator[Lender]:
    """Functions compiled inside share one block, as large as the largest of them needs, whatever runs beside: one that runs while
    another has the block allocates as Theano would. Without it the functions of one thread with allow_gc=False share a block until two of them
    run at the same time; the second has one of its own from then on.
    It does nothing for functions without a block: those with allow_gc=True have none, unless storage="arena" is asked for.

    >>> import theano_memopt, theano, theano.tensor as tt
    >>> x, mode = tt.dmatrix("x"), theano_memopt.mode("FAST_RUN", storage="arena")
    >>> with theano_memopt.shared_arena() as lender:
    ...     train = theano.function([x], tt.dot(x, x).sum(), mode=mode)
    ...     validate = theano.function([x], tt.exp(x).sum(), mode=mode)
    >>> len(lender.tenants())  # without the mode and with allow_gc=True it is 0
    2
    """
    lender = Lender(Lending.ASKED_FOR)
    with lent_by(lender):
        yield lender


@contextlib.contextmanager
def lent_by(lender: Optional[Lender]) -> Iterator[None]:
    """Machines that are made inside take their block from this lender; with None from the one that `lender_for` finds."""
    before = getattr(_context, "lender", None)
    _context.lender = lender
    try:
        yield
    finally:
        _context.lender = before


@contextlib.contextmanager
def making() -> Iterator[None]:
    """Around the making of a machine. Machines made meanwhile are for inner functions (of Scan), which run inside it."""
    _context.depth = getattr(_context, "depth", 0) + 1
    try:
        yield
    finally:
        _context.depth -= 1


def lender_for(allow_gc: bool) -> Lender:
    """What the machine that is being made takes its block from. With gc nothing stays after a call, so there is nothing to share."""
    if getattr(_context, "depth", 0) > 1:
        return Lender()
    return getattr(_context, "lender", None) or (Lender() if allow_gc else _of_this_thread())


def _of_this_thread() -> Lender:
    """It lives as long as one of its tenants."""
    reference = getattr(_context, "of_this_thread", None)
    lender = None if reference is None else reference()
    if lender is None:
        lender = Lender(Lending.BY_THREAD)
        _context.of_this_thread = weakref.ref(lender)
    return lender

"""A block of memory, views of it, and the lender that owns it.

    block      aligned bytes that all places of a function lie in
    place      the view of the block that a variable's cell is filled with
    lender     owns a block and lends it to one call at a time
    tenant     a machine that fills cells with places of a lender's block

A block is given back before a larger one is taken, so that two never exist at once.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import weakref
from typing import Any, Iterator, NamedTuple, Optional, Tuple

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


@functools.lru_cache(maxsize=256)
def _raw(size: int) -> Any:
    return np.dtype((np.void, size))


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class Lender:
    """Owns a block and lends it to one call at a time: to the call that holds the lock."""

    def __init__(self) -> None:
        self.lock: Any = threading.RLock()
        self.block: Optional[Block] = None
        self.user: Any = None
        """The machine that has the lock, or had it last."""
        self.running = False
        self.tenants: weakref.WeakSet[Any] = weakref.WeakSet()
        _lenders.add(self)

    def of(self, height: int) -> Block:
        """A block of at least this height. Only with the lock held."""
        if self.block is None or self.block.height < height:
            self.give_back()
            self.block = Block(height)
        return self.block

    def give_back(self) -> None:
        for tenant in list(self.tenants):
            tenant.let_go()
        self.block = None


_lenders: weakref.WeakSet[Lender] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child has none of the other threads. A lock that one of them held would be held for ever."""
    for lender in list(_lenders):
        if not lender.lock._is_owned():
            lender.lock, lender.running = threading.RLock(), False
        for tenant in list(lender.tenants):
            tenant.without_block = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- one lender for several functions ------------------------------------------------------------------------------------

_context = threading.local()


@contextlib.contextmanager
def shared_arena() -> Iterator[Lender]:
    """Functions compiled inside share one block, as large as the largest of them needs: right for functions that run one
    after the other, as train and validate do. One that runs while another has the block allocates as Theano would.
    It does nothing for functions without a block: those with allow_gc=True have none, unless storage="arena" is asked for.

    >>> import theano_memopt, theano, theano.tensor as tt
    >>> x, mode = tt.dmatrix("x"), theano_memopt.mode("FAST_RUN", storage="arena")
    >>> with theano_memopt.shared_arena() as lender:
    ...     train = theano.function([x], tt.dot(x, x).sum(), mode=mode)
    ...     validate = theano.function([x], tt.exp(x).sum(), mode=mode)
    >>> len(lender.tenants)  # without the mode and with allow_gc=True it is 0
    2
    """
    lender = Lender()
    with lent_by(lender):
        yield lender


@contextlib.contextmanager
def lent_by(lender: Optional[Lender]) -> Iterator[None]:
    """Machines that are made inside take their block from this lender; without one each has its own."""
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


def shared_lender() -> Optional[Lender]:
    """The one that `shared_arena` has made for the machine that is being made, if any."""
    return None if getattr(_context, "depth", 0) > 1 else getattr(_context, "lender", None)

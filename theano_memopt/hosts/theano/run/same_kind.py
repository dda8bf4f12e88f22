"""Machines that are made in a later call are of the kind that the first one was.

Theano asks its flags which machine it makes: where memory is profiled the Stack machine takes the place of the CVM, say. A program may set
them between two calls, for another function. A machine of another kind would run another order where there are lazy ops, and leave
updates to a Function that does not know of it: the new values of shared variables would be lost.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Dict

import theano

FLAGS = ("profile", "profile_memory", "print_global_stats", "vm.lazy")
"""All that Theano's VM_Linker.make_vm asks."""


def flags_as_now() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: each call finds these flags as they are now."""
    now = _flags()

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            before = _flags()
            try:
                _set(now)
                return function(*args, **kwargs)
            finally:
                _set(before)

        return called

    return decorated


def _flags() -> Dict[str, Any]:
    return {name: functools.reduce(getattr, name.split("."), theano.config) for name in FLAGS}


def _set(flags: Dict[str, Any]) -> None:
    for name, value in flags.items():
        *groups, last = name.split(".")
        group = functools.reduce(getattr, groups, theano.config)
        if getattr(group, last) is not value:
            setattr(group, last, value)

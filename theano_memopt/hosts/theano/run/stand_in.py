"""A machine of ours in the place of Theano's: it decides before each call, and one of Theano's machines runs the call.

    Function --calls--> stand-in --decides, then calls--> Theano's machine `vm`
                                                          (another one over the same thunks, when the order has changed)

In everything but the call it is the machine that it stands for.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from theano_memopt.hosts.theano.run.machines import Machines, Order

RECORDED = {"variable_shape", "variable_strides", "variable_offset", "dependencies", "node_executed_order", "node_cleared_order"}
"""What a machine has for Theano's profile beside counts and times, if memory is profiled."""


class StandIn:
    """What Theano reads of a machine, answered for whichever machine runs."""

    def __init__(self, vm: Any, linker: Any, storage_map: Any, follow: Optional[Callable[[Order], None]]) -> None:
        self.vm = vm
        self.planner: Optional[Machines] = None
        """None while no other machine than `vm` can come."""
        self.storage_map, self.compute_map = storage_map, None
        self.allow_gc = linker.allow_gc
        self.need_update_inputs = getattr(vm, "need_update_inputs", True)
        self.follow = follow
        """Is told the order of every machine that is about to run."""

    def __getattr__(self, name: str) -> Any:
        if name in ("vm", "planner"):
            raise AttributeError(name)
        return getattr(self.vm, name)

    @property
    def time_thunks(self) -> Any:
        return self.vm.time_thunks if self.planner is None else self.planner.time_thunks

    @time_thunks.setter
    def time_thunks(self, wanted: Any) -> None:
        if self.planner is None:
            self.vm.time_thunks = wanted
        else:
            self.planner.time(wanted)

    def update_profile(self, profile: Any) -> None:
        (self.vm if self.planner is None else self.planner).update_profile(profile)
        for name in self.__dict__.keys() & RECORDED:
            setattr(profile, name, self.__dict__[name])


class Veil:
    """Over a machine: it does something before or after a call. In everything else it is the machine that it covers."""

    def __init__(self, vm: Any) -> None:
        self.__dict__["_vm"] = vm

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_vm"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._vm, name, value)


def unveiled(machine: Any) -> Any:
    """The machine under all veils."""
    while isinstance(machine, Veil):
        machine = machine.__dict__["_vm"]
    return machine

"""Theano's Stack machine, one of several over the same nodes.

The Stack machine asks for what a node depends on, and finds that in the node itself: inputs, and `destroy_dependencies`, into which
the constructor writes the links that the graph demands just then. So the machine that was made last decides the order of all that were made
for these nodes, while each of them has lives that were counted in an order of its own.

    machine for order A is made      nodes carry the links of A
    machine for order B is made      nodes carry the links of B
    A is called again                without this file it would run in the order of B, and find arrays overwritten
"""

from __future__ import annotations

from typing import Any

from theano.gof.vm import Stack

from theano_memopt.hosts.theano.run.stand_in import Veil


class OwnLinks(Veil):
    """It puts the links with which the machine was made back into the nodes before each call."""

    def __init__(self, vm: Stack) -> None:
        super().__init__(vm)
        self.__dict__["_links"] = tuple((node, node.destroy_dependencies) for node in vm.nodes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for node, links in self._links:
            node.destroy_dependencies = links
        return self._vm(*args, **kwargs)


def with_own_links(vm: Any) -> Any:
    """A machine that runs in the order for which it was made, whatever machines are made after it."""
    return OwnLinks(vm) if isinstance(vm, Stack) else vm

"""What ops take for themselves while they run: by formula, and measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import theano
import theano.tensor as tt
from theano.tensor.nnet import conv2d, conv3d

import theano_memopt
import theano_memopt.planner.exact
from tests.marks import nightly_if
from tests.theano.both import annotation, floats, with_pass
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.read.workspaces import without_blas
from theano_memopt.planner.model import build_graph, worked_example
from theano_memopt.planner.slots import Slots, StorageRejected, check_slots, share_cells

SMALL = 4096
"""Bytes: objects of Python's, and descriptions of arrays."""


def convolution(groups: int = 1) -> Any:
    x, kernels = tt.ftensor4("x"), theano.shared(floats(8, 4 // groups, 3, 3).astype("float32"))
    loss = tt.sqr(conv2d(x, kernels, border_mode="half", num_groups=groups)).sum()
    return theano.function([x], [loss, *tt.grad(loss, [x, kernels])], mode=with_pass()), [floats(5, 4, 24, 20).astype("float32")]


def convolution_of_large_kernels(flipped: bool) -> Any:
    x, kernels = tt.ftensor4("x"), theano.shared(floats(50, 20, 5, 5).astype("float32"))
    loss = tt.sqr(conv2d(tt.tanh(x), kernels, filter_flip=flipped)).sum()
    return theano.function([x], [loss, *tt.grad(loss, [x, kernels])], mode=with_pass()), [floats(5, 20, 12, 12).astype("float32")]


def convolution_of_turned_images() -> Any:
    """Sentences as Keras gives them, with the channels last: the ops copy what does not lie in C order, the second kernels turned around."""
    x, kernels = tt.ftensor3("x"), theano.shared(floats(8, 6, 5, 1).astype("float32"))
    made = conv2d(tt.tanh(x).dimshuffle(0, 2, 1, "x"), kernels, filter_flip=False)
    again = conv2d(tt.tanh(made.dimshuffle(0, 2, 3, 1)).dimshuffle(0, 3, 1, 2), theano.shared(floats(7, 8, 3, 1).astype("float32"))[:, :, ::-1])
    loss = tt.sqr(again.dimshuffle(0, 2, 3, 1)).sum()
    return theano.function([x], [loss, *tt.grad(loss, [x, kernels])], mode=with_pass()), [floats(5, 90, 6).astype("float32")]


def convolution_in_space() -> Any:
    x, kernels = tt.TensorType("float32", (False,) * 5)("x"), theano.shared(floats(4, 3, 3, 3, 3).astype("float32"))
    loss = tt.sqr(conv3d(x, kernels)).sum()
    return theano.function([x], [loss, *tt.grad(loss, [x, kernels])], mode=with_pass()), [floats(2, 3, 10, 9, 8).astype("float32")]


def sums() -> Any:
    x = tt.ftensor3("x")
    return theano.function([x], [x.sum(axis=axis) for axis in (0, 1, 2, (0, 2))], mode=with_pass()), [floats(40, 30, 50).astype("float32")]


def product_to_add() -> Any:
    x, y, z = tt.fmatrices("xyz")
    return theano.function([x, y, z], tt.dot(x, y) + z, mode=with_pass()), [floats(60, 60).astype("float32") for _ in range(3)]


@pytest.mark.quick
@pytest.mark.blas
@pytest.mark.parametrize(
    "build",
    [
        convolution,
        lambda: convolution(2),
        lambda: convolution_of_large_kernels(True),
        lambda: convolution_of_large_kernels(False),
        convolution_of_turned_images,
        nightly_if(True, convolution_in_space),
        sums,
        product_to_add,
    ],
)
def test_what_is_planned_is_measured(build: Any) -> None:
    """A product to add needs no array of its own where there is a BLAS."""
    function, arguments = build()
    function(*arguments)
    measured, reading = probe.workspaces(function, *arguments), annotation(function).reading
    graph = theano_memopt.explain(function, *arguments).graph
    planned = {reading.nodes[b.producer]: b.size for b in graph.buffers if b.is_workspace}
    assert (planned and max(measured.values()) > SMALL) or (build is product_to_add and not without_blas())
    for node in reading.nodes:
        assert abs(measured.get(node, 0) - planned.get(node, 0)) <= 0.02 * measured.get(node, 0) + SMALL, node


def test_guessed_lengths_below_0_take_nothing() -> None:
    """Of an image that is smaller than the kernel, as a guess can have it, nothing is left."""
    x, kernels = tt.ftensor4("x"), theano.shared(floats(2, 1, 3, 200).astype("float32"))
    loss = tt.sqr(conv2d(x, kernels)).sum()
    function = theano.function([x], tt.grad(loss, kernels), mode=with_pass(default_dim=128))
    graph = annotation(function).reading.graph
    assert [b.size for b in graph.buffers if b.is_workspace] and all(b.size >= 0 for b in graph.buffers)
    function(floats(2, 1, 5, 210).astype("float32"))
    assert theano_memopt.plan_of(function).sizes == "given"


@pytest.mark.quick
def test_the_order_is_chosen_with_them() -> None:
    """Two branches that end in small results; the one with the large workspace had better run before anything is kept."""
    graph = build_graph({"a": 5, "b": 5}, [("first", (), ("a",)), ("second", (), ("b",))], keep=("a", "b"))
    both = [theano_memopt.planner.exact.minimise_peak(g).peak for g in (graph, graph.with_workspaces([(1, 20)]))]
    assert both == [10, 25]


@pytest.mark.quick
def test_a_workspace_has_no_cell() -> None:
    graph = worked_example().with_workspaces([(2, 9)])
    order = (0, 2, 1, 3, 4)
    slots = share_cells(graph, order)
    check_slots(graph, order, slots)
    assert slots.cell_of[-1] is None and slots.reserved_bytes == share_cells(worked_example(), order).reserved_bytes
    with pytest.raises(StorageRejected, match="workspace-in-cell"):
        check_slots(graph, order, Slots((*slots.cell_of[:-1], 0), slots.cells, slots.reserved_bytes))
    eager = share_cells(graph, order, peak_limit=16)
    check_slots(graph, order, eager, peak_limit=16)
    assert eager.reserved_bytes == 16  # L, l, and the workspace of the task between them
    with pytest.raises(StorageRejected, match="wrong-total"):
        check_slots(worked_example(), order, Slots(eager.cell_of[:-1], eager.cells, 16, eager=True))


def test_a_workspace_is_nothing_that_is_kept() -> None:
    x, y, z = tt.fmatrices("xyz")
    function = theano.function([x, y, z], tt.exp(tt.dot(x, y) + z), mode=with_pass("cvm_nogc"))
    arguments = [np.ones((200, 200), "float32")] * 3
    report = theano_memopt.explain(function, *arguments)
    kept = probe.held_by_call(function, *arguments).reserved
    assert abs(report.kept - kept) <= 0.02 * kept + SMALL

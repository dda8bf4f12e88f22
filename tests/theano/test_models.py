"""Real training steps: the same bits with and without the pass, in the planned order, on every linker."""

from __future__ import annotations

import functools
from typing import Any, List, Tuple

import pytest

import theano_memopt
from tests.marks import nightly_if
from tests.theano.both import LARGE, annotation, same, shared_cells, with_pass, without_pass
from theano_memopt.demo import models as demo_models
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.planner.plan import check_plan

SMALL = 8
OTHER_LINKERS = ("cvm_nogc", "vm", "vm_nogc", "c|py")


@functools.lru_cache(maxsize=None)
def _stock(name: str) -> List[Any]:
    model = demo_models.build(name, SMALL)
    return _train(model, model.compile(without_pass()))


def _train(model: Any, function: Any) -> List[Any]:
    kept = [function(*model.batch) for _ in range(3)]
    return kept + model.state()


def _compile(name: str, linker: str) -> Tuple[Any, Any]:
    model = demo_models.build(name, SMALL)
    return model, model.compile(with_pass(linker))


def _holds(name: str, linker: str) -> None:
    model, function = _compile(name, linker)
    same(_train(model, function), _stock(name))
    plan = theano_memopt.plan_of(function)
    check_plan(plan)
    report = theano_memopt.explain(function, *model.batch)
    assert probe.recorded_order(function, *model.batch) == [annotation(function).reading.nodes[t] for t in report.order]
    if linker.endswith("nogc") and name != "logreg":
        assert shared_cells(function) >= 2


@pytest.mark.parametrize("name", [nightly_if(name in (*LARGE, "scan_rnn"), name) for name in demo_models.MODELS])
def test_default_linker(name: str) -> None:
    _holds(name, "cvm")


@pytest.mark.parametrize(
    ("name", "linker"),
    [
        nightly_if(name in LARGE or (linker != ("vm_nogc", "c|py")[i % 2] and name != "mlp"), name, linker)
        for i, name in enumerate(demo_models.MODELS)
        for linker in OTHER_LINKERS
    ],
)
def test_other_linkers(name: str, linker: str) -> None:
    _holds(name, linker)


def _named(nodes: Any) -> List[str]:
    """By the ops, those that write a product where they are told under the name of the op whose place they take."""
    return [str(node.op).replace("InPlace", "") for node in nodes]


@pytest.mark.quick
def test_the_machine_runs_the_planned_order_and_not_its_own() -> None:
    """The negative control: without the pass the recorded order is another one."""
    model = demo_models.build("mlp", SMALL)
    ours, stock = model.compile(with_pass()), model.compile(without_pass())
    planned = _named(annotation(ours).nodes)
    ran = _named(probe.recorded_order(stock, *model.batch))
    assert sorted(ran) == sorted(planned)
    assert ran != planned


@pytest.mark.parametrize("linker", ["cvm", "vm"])
def test_order_host_is_the_order_that_this_linker_runs_anyway(linker: str) -> None:
    model = demo_models.build("mlp", SMALL)
    ours = model.compile(with_pass(linker, order="host"))
    stock = model.compile(without_pass(linker))
    ran = _named(probe.recorded_order(stock, *model.batch))
    assert _named(probe.recorded_order(ours, *model.batch)) == ran
    plan = theano_memopt.plan_of(ours)
    assert plan.schedule.method == "host"
    check_plan(plan)

"""Switches: flags, modes, and turning the pass on and off."""

from __future__ import annotations

from typing import Any

import pytest
import theano
import theano.tensor as tt
from theano.compile.mode import Mode

import theano_memopt
from tests.theano.both import floats, shared_cells, with_pass, without_pass
from theano_memopt.hosts.theano.optimize.feature import feature_of


def _compiled(mode: Any) -> Any:
    x = theano_memopt.hint(tt.matrix("x"), (4, 4))
    y = x
    for _ in range(4):
        y = tt.dot(y, y) + x.T
    return theano.function([x], y, mode=mode)


@pytest.mark.parametrize(
    ("mode", "on"),
    [
        (lambda: "FAST_RUN", True),
        (lambda: theano.compile.mode.get_mode("FAST_RUN").excluding("mem_reuse"), False),
        (lambda: "FAST_COMPILE", False),
        (lambda: theano.compile.mode.get_mode("FAST_COMPILE").including("mem_reuse"), True),
        (lambda: theano_memopt.mode("FAST_COMPILE"), True),
        (lambda: theano_memopt.mode(), True),
        (lambda: Mode("vm", None), False),
        (lambda: theano_memopt.mode(Mode("vm", None)), True),
        (lambda: theano_memopt.mode(Mode("cvm", theano.gof.opt.SeqOptimizer([]))), True),
    ],
)
@pytest.mark.quick
def test_on_in_fast_run_and_where_it_is_asked_for(mode: Any, on: bool) -> None:
    function = _compiled(mode())
    assert (theano_memopt.plan_of(function) is not None) == on
    assert function(floats(4, 4)).shape == (4, 4)


@pytest.mark.quick
def test_a_mode_overrides_the_flags_for_one_function_alone() -> None:
    first = _compiled(with_pass("cvm_nogc", storage="off", effort=3))
    second = _compiled(with_pass("cvm_nogc"))
    assert shared_cells(first) == 0 < shared_cells(second)
    assert theano_memopt.plan_of(first).options.effort == 3
    assert theano_memopt.plan_of(second).options.effort == theano.config.mem_reuse.effort
    with theano.configparser.change_flags(**{"mem_reuse.storage": "off"}):
        assert shared_cells(_compiled(Mode("cvm_nogc", "fast_run"))) == 0
        assert shared_cells(_compiled(with_pass("cvm_nogc", storage="share"))) > 0


@pytest.mark.parametrize(("name", "value"), [("order", "best"), ("storage", "everywhere"), ("effort", -1), ("default_dim", 0)])
@pytest.mark.quick
def test_wrong_values(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"mem_reuse.{name}"):
        theano_memopt.mode(**{name: value})
    with pytest.raises(ValueError, match=f"mem_reuse.{name}"):
        setattr(theano.config.mem_reuse, name, value)


@pytest.mark.quick
def test_a_setting_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="no setting 'speed'"):
        theano_memopt.mode(speed=3)


@pytest.mark.quick
def test_plan_of() -> None:
    assert theano_memopt.plan_of(_compiled(without_pass())) is None
    with pytest.raises(TypeError, match="a function that Theano compiled"):
        theano_memopt.plan_of(len)
    aside = theano_memopt.plan_of(_compiled(with_pass(max_nodes=2)))
    assert not aside and "max_nodes=2" in aside.reason


def test_plan_of_scans_inner_function() -> None:
    x = tt.matrix("x")
    out, _ = theano.scan(lambda s: tt.tanh(tt.dot(s, s)) + tt.dot(s, s.T), outputs_info=[x], n_steps=3, mode=with_pass())
    function = theano.function([x], out[-1], mode=with_pass())
    (node,) = (node for node in function.maker.fgraph.apply_nodes if hasattr(node.op, "fn"))
    plan = theano_memopt.plan_of(node)
    assert plan == theano_memopt.plan_of(node.op) == theano_memopt.plan_of(node.op.fn)
    assert len(plan.graph.tasks) == len(feature_of(node.op.fn.maker.fgraph).annotation(node.op.fn.maker.fgraph).nodes)


@pytest.mark.quick
def test_a_misspelt_flag_is_refused_when_it_is_set() -> None:
    with pytest.raises(AttributeError, match="there is no flag mem_reuse.storge; there are mem_reuse.order, mem_reuse.storage"):
        theano.config.mem_reuse.storge = "off"
    assert not hasattr(theano.config.mem_reuse, "storge")
    before = theano.config.mem_reuse.effort
    theano.config.mem_reuse.effort = before + 1  # what is a flag is set as ever
    try:
        assert theano.config.mem_reuse.effort == before + 1
    finally:
        theano.config.mem_reuse.effort = before

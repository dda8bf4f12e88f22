"""With gc on the CVM: what only a branch that is not taken would still read is let go, and nothing that somebody reads."""

from __future__ import annotations

import itertools
import pickle
from typing import Any, Dict, List

import numpy as np
import pytest
import theano

import theano_memopt
from tests.marks import nightly_if
from tests.theano.both import annotation, floats, same, with_pass, without_pass
from tests.theano.test_lazy import (
    GRAPHS,
    OUTCOMES,
    X,
    compiled,
    handed_out,
    nested,
    one_choice,
    random_graph,
    residual_net,
    runs,
    shared_between_branches,
    story,
    trained,
    written_in_place,
)
from theano_memopt.hosts.theano.measure import memory as probe
from theano_memopt.hosts.theano.read.op_facts import is_lazy
from theano_memopt.hosts.theano.run import left_out
from theano_memopt.hosts.theano.run.verify import Corrupted

OUTCOMES_OF_TWO = tuple(itertools.product((0, 1), repeat=2))
STORAGES = ("off", "share", "arena", "auto")


def test_a_residual_net_with_a_learning_phase_needs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside stock, and beside itself with nothing let go."""

    def build() -> Any:
        return residual_net(blocks=1, batch=512)

    ours, stock = compiled(build, with_pass("cvm")), compiled(build, without_pass("cvm"))
    monkeypatch.setattr(left_out, "let_go_after", lambda annotated: {})
    control = compiled(build, with_pass("cvm"))
    x, y = floats(512, 32), floats(512, 32, seed=1)
    for phase in (1, 1, 0, 1, 0, 0):
        same([ours(phase, x, y)], [stock(phase, x, y)])
    in_training = [probe.held_by_call(function, 1, x, y).peak for function in (ours, control, stock)]
    assert in_training[0] <= 0.95 * in_training[1] and in_training[0] <= 0.9 * in_training[2]
    assert probe.held_by_call(ours, 0, x, y).peak <= 1.02 * probe.held_by_call(stock, 0, x, y).peak


@pytest.mark.parametrize(
    ("build", "storage"),
    [nightly_if(storage != ("share", "auto")[i % 2], build, storage) for i, build in enumerate(GRAPHS) for storage in STORAGES],
    ids=lambda of: getattr(of, "__name__", of),
)
def test_the_same_bits_whichever_branches_are_taken(build: Any, storage: str) -> None:
    ours, stock = (compiled(build, mode) for mode in (with_pass("cvm", storage=storage), without_pass("cvm")))
    same(story(ours), story(stock))
    same(story(pickle.loads(pickle.dumps(ours)), OUTCOMES[1:]), story(pickle.loads(pickle.dumps(stock)), OUTCOMES[1:]))
    for share_memory in (False, True):
        same(story(ours.copy(share_memory=share_memory)), story(stock))
    story(compiled(build, with_pass("cvm", storage=storage, verify=True)))


@pytest.mark.parametrize("build", [nested, shared_between_branches])
def test_a_part_of_the_outputs(build: Any) -> None:
    ours, stock = (compiled(build, mode) for mode in (with_pass("cvm"), without_pass("cvm")))
    outputs = len(stock.maker.outputs)
    for i, outcome in enumerate(2 * OUTCOMES):
        wanted = [[0], [outputs - 1], list(range(outputs))][i % 3]
        same(ours(*outcome, X * (1 + i), output_subset=wanted), stock(*outcome, X * (1 + i), output_subset=wanted))


@pytest.mark.parametrize("seed", [nightly_if(seed % 3 > 0, seed) for seed in range(30)])
def test_nothing_reads_or_makes_afterwards_what_was_let_go(seed: int) -> None:
    """In the order in which the CVM really ran, for all outputs and for each alone."""
    mode = with_pass("cvm", storage="off")
    given, outputs, keywords = random_graph(seed)
    function = theano.function(given, outputs, mode=mode, on_unused_input="ignore", **keywords)
    if not annotation(function):
        pytest.skip("the pass stood aside")
    let_go: Dict[Any, List[Any]] = left_out.let_go_after(annotation(function))
    subsets: List[Any] = [{}, *({"output_subset": [i]} for i in range(len(outputs)) if len(outputs) > 1)]
    for outcome, keywords in itertools.product(OUTCOMES_OF_TWO, subsets):
        ran, _ = runs(function, outcome, np.full((4, 4), 0.5 if seed % 2 else -0.5), **keywords)
        for i, node in enumerate(ran):
            gone = set(let_go.get(node, ()))
            assert not gone.intersection(v for later in ran[i + 1 :] for v in [*later.inputs, *later.outputs])


def _at_the_first_choice(annotated: Any) -> Dict[Any, List[Any]]:
    choice = next(step.node for step in annotated.steps if is_lazy(step.node.op))
    return {choice: [v for node in annotated.nodes for v in node.outputs if v not in choice.outputs and v not in annotated.outputs]}


@pytest.mark.parametrize("build", [shared_between_branches, handed_out, trained, written_in_place])
def test_what_is_let_go_too_early_is_found(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_out, "let_go_after", _at_the_first_choice)
    with pytest.raises(Corrupted, match="was cleared"):
        story(compiled(build, with_pass("cvm", verify=True)))


@pytest.mark.parametrize("linker", ["vm", "cvm_nogc"])
def test_other_machines_and_those_without_gc_let_nothing_go(linker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Stack machine runs lazy ops in another order; without gc arrays are kept for the next call."""
    monkeypatch.setattr(left_out, "let_go_after", _at_the_first_choice)
    same(story(compiled(one_choice, with_pass(linker, storage="share"))), story(compiled(one_choice, without_pass(linker))))


def test_a_chain_without_choices_lets_nothing_go() -> None:
    x = theano.tensor.matrix("x")
    function = theano.function([x], theano.tensor.tanh(theano.tensor.dot(x, x)).sum(), mode=with_pass("cvm"))
    assert theano_memopt.plan_of(function)
    assert left_out.let_go_after(annotation(function)) == {}

"""Random programs under every machine, gc setting and storage, against stock Theano, bit for bit; and the programs that once failed.

The judge itself is judged: a plan that lets everything share must make programs differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List

import pytest

from tests.marks import nightly_if
from tests.theano.programs import HELD, IN_PYTHON, SETUPS, WITH_AUTO, Invalid, Program, Setup, differences, generate, lengths_of, setups_of, shrink

KEPT = json.loads(Path(__file__).with_name("kept_programs.json").read_text())
SEEDS = [nightly_if(seed % 24 > 0 and seed != 51, seed) for seed in range(100)]
WITH_BRANCHES = 5
NIGHTLY = 2000


def _judged(program: Program, setups: List[Setup]) -> None:
    try:
        found = differences(program, setups)
    except Invalid as why:
        pytest.skip(f"Theano itself does not take it: {why}")
    assert not found, json.dumps({"where": found, "program": program})


@pytest.mark.parametrize("seed", SEEDS)
def test_a_program(seed: int) -> None:
    _judged(generate(seed, wide=False), setups_of(seed))


@pytest.mark.parametrize("seed", SEEDS[::2])
def test_a_program_where_ops_run_in_python(seed: int) -> None:
    _judged(generate(seed, wide=False), setups_of(seed // 2, count=1, among=IN_PYTHON))


@pytest.mark.parametrize("seed", [nightly_if(True, seed) for seed in range(WITH_BRANCHES)])
def test_a_program_with_many_branches(seed: int) -> None:
    _judged(generate(seed, wide=False, lazy=True), HELD)


@pytest.mark.parametrize("seed", SEEDS[::6])
def test_a_program_of_changing_shapes(seed: int) -> None:
    _judged(generate(seed, wide=False, changing=True), setups_of(seed, among=WITH_AUTO))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(NIGHTLY))
def test_a_program_of_changing_shapes_nightly(seed: int) -> None:
    _judged(generate(seed, changing=True), WITH_AUTO)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(WITH_BRANCHES, NIGHTLY))
def test_a_program_with_many_branches_nightly(seed: int) -> None:
    _judged(generate(seed, lazy=True), setups_of(seed, among=[*HELD, *SETUPS]))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(NIGHTLY))
def test_a_program_in_every_setup(seed: int) -> None:
    _judged(generate(seed), SETUPS)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(NIGHTLY))
def test_a_program_in_python_in_every_setup(seed: int) -> None:
    _judged(generate(seed), IN_PYTHON)


@pytest.mark.parametrize("kept", KEPT, ids=[kept["name"] for kept in KEPT])
def test_a_program_that_once_failed(kept: Any) -> None:
    _judged(kept["program"], [Setup(*setup) for setup in kept["setups"]])


def test_programs_are_what_their_seed_says() -> None:
    for seed in range(50):
        assert generate(seed) == generate(seed) == json.loads(json.dumps(generate(seed)))
    assert len({json.dumps(generate(seed)) for seed in range(50)}) == 50


def test_where_shapes_change_they_do_so_in_most_calls_by_more_than_twice_and_come_again() -> None:
    for seed in range(30):
        calls = [tuple(lengths_of("nm", call)) for call in generate(seed, changing=True)["calls"]]
        changes = [(a, b) for a, b in zip(calls, calls[1:]) if a != b]
        assert len(changes) >= 5 and len(set(calls)) >= 2
        assert any(a in calls[i + 2 :] for i, (a, b) in enumerate(zip(calls, calls[1:])) if a != b), "none comes again"
        assert any(max(a[0] * a[1], b[0] * b[1]) > 2 * min(a[0] * a[1], b[0] * b[1]) for a, b in changes)


def test_every_operation_occurs() -> None:
    from tests.theano.programs import OPS

    seen = {node["kind"] for seed in range(300) for node in generate(seed)["nodes"]}
    assert seen >= set(OPS)


def _one_cell_for_all(graph: Any, order: Any, sharing: Any = None, limit: Any = None) -> Any:
    from theano_memopt.planner.slots import Slots

    first: Any = {}
    cells = [first.setdefault(b.kind, i) if sharing is None or i in sharing else i for i, b in enumerate(graph.buffers)]
    return Slots(tuple(cells), tuple((b.kind, b.size) for b in graph.buffers), 0, limit is not None)


def test_a_plan_that_corrupts_is_found_and_its_program_made_smaller(monkeypatch: Any) -> None:
    from theano_memopt.hosts.theano.run import cells

    setup = Setup("cvm_nogc", "share")

    def fails(program: Program) -> bool:
        return bool(differences(program, [setup]))

    failing = None
    for seed in range(100):
        program = generate(seed, wide=False)
        monkeypatch.setattr(cells, "share_cells", _one_cell_for_all)
        monkeypatch.setattr(cells, "check_slots", lambda *rest: None)
        if len(program["nodes"]) > 8 and not program["fusion"] and fails(program):
            failing = program
            break
    assert failing is not None, "a plan in which everything shares goes unnoticed"
    small = shrink(failing, fails, seconds=5)
    assert fails(small) and len(small["nodes"]) < len(failing["nodes"])
    monkeypatch.undo()
    assert not fails(small)

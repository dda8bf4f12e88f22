"""The graph of runs has the bytes of the sequence, and its orders are sequences again."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.oracles import run_for_real
from tests.strategies import programs
from theano_memopt.planner.certificate import Rejected
from theano_memopt.planner.exact import minimise_peak
from theano_memopt.planner.instances import instances
from theano_memopt.planner.liveness import timeline
from theano_memopt.planner.program import Program, program_from_json, worked_program
from theano_memopt.planner.replay import replay


def _with_repeats(program: Program, data: st.DataObject) -> list[int]:
    sequence = list(program.natural_order)
    for _ in range(data.draw(st.integers(0, 4))):
        trial = list(sequence)
        trial.insert(data.draw(st.integers(0, len(sequence))), data.draw(st.integers(0, len(program.tasks) - 1)))
        sequence = trial if run_for_real(program, trial) is not None else sequence
    return sequence


@given(programs(), st.data())
def test_the_graph_of_runs_has_the_heights_of_the_sequence(program: Program, data: st.DataObject) -> None:
    sequence = _with_repeats(program, data)
    graph = instances(program, sequence).graph
    assert timeline(graph, range(len(sequence))).heights == replay(program, sequence).heights


@given(programs(), st.data())
def test_an_order_of_the_runs_is_a_sequence_of_at_most_its_peak(program: Program, data: st.DataObject) -> None:
    """Unless another copy has become the newest; then replay says so, or it is no worse."""
    sequence = _with_repeats(program, data)
    graph = instances(program, sequence).graph
    schedule = minimise_peak(graph)
    try:
        replayed = replay(program, [sequence[run] for run in schedule.order])
    except Rejected:
        assume(False)
    else:
        assert replayed.peak <= replay(program, sequence).peak


@given(programs(), st.data())
def test_each_run_reads_the_copies_that_its_sources_name(program: Program, data: st.DataObject) -> None:
    sequence = _with_repeats(program, data)
    made = instances(program, sequence)
    assert made.task_of == tuple(sequence)
    for run, sources in enumerate(made.sources):
        assert [v for v, _ in sources] == list(program.tasks[sequence[run]].reads)
        for v, source in sources:
            assert (source is None) == (program.values[v].producer is None)
            if source is not None:
                assert sequence[source] == program.values[v].producer and source < run
                assert source in made.graph.predecessors[run]


def test_runs_and_memory_have_names_of_their_own() -> None:
    graph = instances(worked_program(), (0, 1, 2, 3, 0, 0, 4)).graph
    assert [task.label for task in graph.tasks] == ["expand", "sum", "blow_up", "shrink", "expand #2", "expand #3", "join"]
    program = program_from_json(
        {
            "values": [{"name": "a", "bytes": 1}, {"name": "a #2", "bytes": 1}],
            "tasks": [{"name": "t", "writes": ["a"], "seconds": 1}, {"name": "t #2", "writes": ["a #2"], "seconds": 1}],
        }
    )
    graph = instances(program, (0, 0, 1)).graph
    assert [task.label for task in graph.tasks] == ["t", "t #3", "t #2"]
    assert [buffer.label for buffer in graph.buffers] == ["a", "a #3", "a #2"]

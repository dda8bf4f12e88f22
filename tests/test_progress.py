"""What takes long is told, and time that goes into planning is counted once, for each thread."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from theano_memopt import progress


@progress.planning("thinking")
def think(seconds: float, deeper: int = 0) -> float:
    end = time.perf_counter() + seconds
    if deeper:
        think(seconds, deeper - 1)
    while time.perf_counter() < end:
        pass
    return seconds


@pytest.mark.quick
def test_planning_inside_planning_counts_once_and_each_thread_for_itself() -> None:
    before, start = progress.planned_for(), time.perf_counter()
    assert think(0.05, deeper=2) == 0.05
    assert 0.05 <= progress.planned_for() - before <= time.perf_counter() - start
    seen = []
    thread = threading.Thread(target=lambda: (think(0.01), seen.append(progress.planned_for())))  # type: ignore[func-returns-value]
    now = progress.planned_for()
    thread.start()
    thread.join()
    assert progress.planned_for() == now and 0.01 <= seen[0] < now


def test_planning_that_fails_is_counted_and_over() -> None:
    @progress.planning("failing")
    def fail() -> None:
        raise ValueError

    before = progress.planned_for()
    with pytest.raises(ValueError):
        fail()
    between = progress.planned_for()
    think(0.01)
    assert before < between and progress.planned_for() - between >= 0.01


def test_it_is_told_under_run_alone_and_only_after_a_second(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(progress, "_told", False)
    think(1.3)
    assert capsys.readouterr().err == ""
    progress.tell()
    think(0.1)
    assert capsys.readouterr().err == ""
    think(1.3)
    assert capsys.readouterr().err == "theano_memopt: thinking ...\n"

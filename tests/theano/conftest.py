"""No test of the host depends on what others have left: functions of theirs that are still there would share a block with its own."""

from __future__ import annotations

import threading

import pytest

from theano_memopt.hosts.theano.run.arena import block


@pytest.fixture(autouse=True)
def a_block_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "_context", threading.local())

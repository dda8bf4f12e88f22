"""What is left for `make nightly`: parameters of a test that show the same once more, and take long."""

from __future__ import annotations

from typing import Any

import pytest


def nightly_if(late: bool, *values: object) -> Any:
    """A row for `pytest.mark.parametrize`."""
    return pytest.param(*values, marks=[pytest.mark.nightly] if late else [])

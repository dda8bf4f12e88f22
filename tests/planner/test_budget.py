"""Budgets as people write them."""

from __future__ import annotations

import pytest

from theano_memopt.planner.budget import Budget, in_words, parse_budget


@pytest.mark.parametrize(
    ("text", "share", "size"),
    [
        ("0.5", 0.5, None),
        ("1.0", 1.0, None),
        ("800000", None, 800_000),
        ("500MB", None, 500_000_000),
        ("1.5GiB", None, 1_610_612_736),
        (" 2 kib ", None, 2_048),
        ("0.5KB", None, 500),
        ("7b", None, 7),
    ],
)
def test_what_is_a_budget(text: str, share: float, size: int) -> None:
    assert parse_budget(text) == Budget(share, size)


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "-0.5", "half", "5 parsecs", "1.5", "", ".", "1e3", "nan", "inf", "50%", "0.2B", "1,000", "٣"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no budget"):
        parse_budget(text)


def test_bytes_in_words() -> None:
    assert [in_words(size) for size in (0, 1023, 1024, 4_194_304, 3 * 1024**3)] == ["0 bytes", "1023 bytes", "1.0 KiB", "4.0 MiB", "3.0 GiB"]

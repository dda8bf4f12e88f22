"""Budgets as people write them."""

from __future__ import annotations

import pytest

from theano_memopt.planner.budget import Budget, in_words, parse_budget, parse_extra_time


@pytest.mark.parametrize(
    ("text", "share", "size"),
    [
        ("0.5", 0.5, None),
        ("1.0", 1.0, None),
        (".5", 0.5, None),
        ("50%", 0.5, None),
        (" 12.5 % ", 0.125, None),
        ("100%", 1.0, None),
        ("800000B", None, 800_000),
        ("1.5kB", None, 1_500),
        ("500MB", None, 500_000_000),
        ("1.5GiB", None, 1_610_612_736),
        (" 2 kib ", None, 2_048),
        ("0.5KB", None, 500),
        ("7b", None, 7),
    ],
)
def test_what_is_a_budget(text: str, share: float, size: int) -> None:
    assert parse_budget(text) == Budget(share, size)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0.0",
        "-1",
        "-0.5",
        "half",
        "5 parsecs",
        "1.5",
        "",
        ".",
        "1e3",
        "nan",
        "inf",
        "101%",
        "0%",
        "%",
        "2",
        "800000",
        "2.0",
        "0.2B",
        "1,000",
        "٣",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no budget"):
        parse_budget(text)


def test_bytes_in_words() -> None:
    assert [in_words(size) for size in (0, 1023, 1024, 4_194_304, 3 * 1024**3)] == ["0 bytes", "1023 bytes", "1.0 KiB", "4.0 MiB", "3.0 GiB"]


def test_a_whole_number_alone_is_refused_with_both_ways_of_writing_it() -> None:
    with pytest.raises(ValueError, match="a share like 0.5 or 50%, or bytes with a unit like 500MB"):
        parse_budget("2")


@pytest.mark.parametrize(("text", "share"), [("0.02", 0.02), ("2%", 0.02), (" 2 % ", 0.02), ("0", 0.0), ("1", 1.0), (".5", 0.5), ("250%", 2.5)])
def test_what_is_an_extra_time(text: str, share: float) -> None:
    assert parse_extra_time(text) == share


@pytest.mark.parametrize("text", ["-1", "-2%", "half", "nan", "inf", "", "%", "2 percent", "2%%"])
def test_what_is_no_extra_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no extra time; write a share of the time, 0 or more"):
        parse_extra_time(text)

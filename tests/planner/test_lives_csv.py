"""Lives as CSV: what is read is what was written, and whatever is wrong is said with file, line and column."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theano_memopt.planner.lives_csv import Lives, LivesError, read_lives, read_lives_text, write_placed

DATA = Path(__file__).parent.parent / "data" / "minimalloc"


@pytest.mark.parametrize("path", sorted(DATA.glob("*.csv")), ids=lambda path: path.name[0])
def test_the_public_files_are_read(path: Path) -> None:
    lives = read_lives(path)
    assert len(lives.ids) == len(path.read_text(encoding="utf-8").splitlines()) - 1
    assert all(size > 0 for size in lives.sizes)
    assert lives.offsets is None


@st.composite
def any_lives(draw: st.DrawFn) -> Lives:
    name = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1)
    ids = draw(st.lists(name, unique=True, max_size=6))
    number = st.integers(0, 10**18 - 1)
    spans = tuple(tuple(sorted((draw(number), draw(number)))) for _ in ids)
    return Lives(tuple(ids), spans, tuple(draw(number) for _ in ids), tuple(draw(number) for _ in ids))


@settings(deadline=None)
@given(any_lives())
def test_a_placed_file_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, lives: Lives) -> None:
    path = tmp_path_factory.mktemp("round") / "placed.csv"
    write_placed(path, lives, lives.offsets or ())
    assert read_lives(path, placed=True) == lives


def test_columns_in_any_order_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "lives.csv"
    path.write_bytes("\ufeffsize, upper ,lower,id\r\n5,2,1,first\r\n\r\n6,4,3,second\r\n".encode())
    assert read_lives(path) == Lives(("first", "second"), ((1, 2), (3, 4)), (5, 6))


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 1, "id", "is not there"),
        ("id,lower,upper\n", 1, "size", "is not there"),
        ("id,lower,upper,size,size\n", 1, "size", "more than once"),
        ("id,lower,upper,size,colour\n", 1, "colour", "is not known"),
        ("id,lower,upper,size\na,1,2,3\nb,1,2\n", 3, None, "has 3 fields, the first line 4"),
        ("id,lower,upper,size\na,1,2,3,4\n", 2, None, "has 5 fields"),
        ("id,lower,upper,size\na,1,2,x\n", 2, "size", "'x' is not a whole number"),
        ("id,lower,upper,size\na,1,2,1.5\n", 2, "size", "'1.5' is not a whole number"),
        ("id,lower,upper,size\na,-1,2,3\n", 2, "lower", "'-1' is not a whole number"),
        ("id,lower,upper,size\na,1,,3\n", 2, "upper", "'' is not a whole number"),
        ("id,lower,upper,size\na,1,²,3\n", 2, "upper", "'²' is not a whole number"),
        ("id,lower,upper,size\na,1,2,9999999999999999999\n", 2, "size", "too long"),
        ("id,lower,upper,size\na,5,2,3\n", 2, "upper", "lies before lower"),
        ("id,lower,upper,size\na,1,2,3\na,1,2,3\n", 3, "id", "was there before, on line 2"),
        ('id,lower,upper,size\n"a,1,2,3\n', 2, None, "is not CSV"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, line: int, column: str, words: str) -> None:
    with pytest.raises(LivesError) as caught:
        read_lives_text(text, "here.csv")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"here.csv, line {line}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_placed_file_needs_offsets() -> None:
    with pytest.raises(LivesError, match="column 'offset': is not there"):
        read_lives_text("id,lower,upper,size\n", "here.csv", placed=True)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LivesError, match="absent.csv: cannot be read: No such file"):
        read_lives(tmp_path / "absent.csv")
    with pytest.raises(LivesError, match="cannot be read"):
        read_lives(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"id,lower\xff\xfe")
    with pytest.raises(LivesError, match="is not UTF-8 text \\(byte 8\\)"):
        read_lives(tmp_path / "binary.csv")


ONE = Lives(("a",), ((0, 1),), (4,))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LivesError, match="placed.csv: cannot be written: there is no directory"):
        write_placed(tmp_path / "absent" / "placed.csv", ONE, [0])


def test_nothing_is_left_behind_when_the_name_cannot_be_taken(tmp_path: Path) -> None:
    taken = tmp_path / "placed.csv"
    taken.mkdir()
    with pytest.raises(LivesError, match="cannot be written"):
        write_placed(taken, ONE, [0])
    assert os.listdir(tmp_path) == ["placed.csv"]


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "placed.csv"
    path.write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LivesError, match="No space left on device"):
        write_placed(path, ONE, [0])
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["placed.csv"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_placed(tmp_path / "placed.csv", ONE, [0])
    (tmp_path / "other").write_text("", encoding="utf-8")
    assert (tmp_path / "placed.csv").stat().st_mode == (tmp_path / "other").stat().st_mode

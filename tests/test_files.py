"""Whole files: all of a file or nothing, whatever happens meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from theano_memopt import files


def test_a_file_is_written_with_the_rights_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    path = tmp_path / "whole"
    assert files.write_whole(str(path), "line\r\nend\n") == str(path)
    assert path.read_bytes() == b"line\r\nend\n"
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(os.listdir(str(tmp_path))) == ["plain", "whole"]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), OSError(28, "No space left on device"), MemoryError()])
def test_nothing_is_left_where_writing_ends_half_way(trouble: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def broken(*arguments: object) -> None:
        raise trouble

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(files.CannotWrite if isinstance(trouble, OSError) else type(trouble)):
        files.write_whole(str(path), "after")
    assert path.read_text() == "before" and os.listdir(str(tmp_path)) == ["file"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write_json(str(tmp_path / "link"), {"a": 1})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == '{\n "a": 1\n}\n'


@pytest.mark.parametrize(
    ("name", "reason"), [("", "it is a directory"), ("no/file", "there is no directory"), ("/dev/null", "it is not a regular file")]
)
def test_a_wrong_path_is_told_before_the_work_begins(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(files.CannotWrite, match=reason) as caught:
        files.check_writable(os.path.join(str(tmp_path), name))
    assert caught.value.reason.startswith(reason) and "\n" not in str(caught.value)

"""What stands in for g++ under `make test` compiles the same source once, and never gives one library for another."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import List

import pytest

STAND_IN = Path(__file__).resolve().parents[1] / "tools" / "once" / "g++"
COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo "a compiler, ${VERSION:-1}"; exit; }
echo "$@" >> "$CALLS"
while [ $# -gt 2 ] && [ "$1" != -o ]; do shift; done
[ "$3" != wrong.cpp ] || { echo "wrong.cpp:1: error" >&2; exit 3; }
[ "$1" != -o ] || echo "made of $(cat "$3")" > "$2"
"""


class Workshop:
    """A folder with a compiler that counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "bin" / "g++").write_text(COMPILER)
        (folder / "bin" / "g++").chmod(0o755)

    def compile(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "COMPILED": "compiled", "CALLS": "calls", **environment}
        return subprocess.run([str(STAND_IN), *arguments], cwd=str(self.folder), env=given, capture_output=True, text=True, check=False)

    def source(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name

    @property
    def calls(self) -> List[str]:
        return (self.folder / "calls").read_text().splitlines()

    def made(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_the_same_source_is_compiled_once(shop: Workshop) -> None:
    one, other = shop.source("one.cpp", "a sum"), shop.source("other.cpp", "a sum")
    for out, source in (("one.so", one), ("other.so", other)):
        done = shop.compile("-shared", "-g", "-O0", "-o", out, source, "-lpython")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and shop.made(out) == "made of a sum\n"
    assert shop.calls == ["-shared -g -O0 -o one.so one.cpp -lpython"]


def test_whatever_differs_is_compiled(shop: Workshop) -> None:
    one, other = shop.source("one.cpp", "a sum"), shop.source("other.cpp", "a product")
    shop.compile("-shared", "-O0", "-o", "one.so", one)
    shop.compile("-shared", "-O0", "-o", "other.so", other)
    assert shop.made("other.so") == "made of a product\n"
    shop.compile("-shared", "-O3", "-o", "one.so", one)
    shop.compile("-shared", "-O0", "-o", "one.so", one, VERSION="2")
    assert len(shop.calls) == 4


def test_what_fails_fails_and_is_not_kept(shop: Workshop) -> None:
    shop.source("wrong.cpp", "no C")
    for _ in range(2):
        done = shop.compile("-shared", "-o", "wrong.so", "wrong.cpp")
        assert (done.returncode, done.stderr) == (3, "wrong.cpp:1: error\n")
    assert len(shop.calls) == 2 and not (shop.folder / "compiled").exists()


@pytest.mark.parametrize(
    "arguments", ["-o one one.cpp", "-shared -o one -", "-shared -o one one.cpp other.cpp", "-shared -o one one.cpp -", "-shared one.cpp"]
)
def test_anything_else_goes_straight_to_the_compiler(shop: Workshop, arguments: str) -> None:
    """What it reads is not one file that was named, or what it makes is no library."""
    shop.source("one.cpp", "a sum")
    for _ in range(2):
        shop.compile(*arguments.split())
    assert shop.calls == [arguments] * 2 and not (shop.folder / "compiled").exists()
    assert shop.compile("--version").stdout == "a compiler, 1\n"

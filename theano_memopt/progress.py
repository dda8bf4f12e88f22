"""What takes longer than a second says so on standard error.

with progress_of("ordering 300 tasks") as progress:
    progress("the search begins")
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any, Iterator, Optional


@contextlib.contextmanager
def progress_of(doing: str) -> Iterator[Progress]:
    progress = Progress(doing)
    progress.start()
    try:
        yield progress
    finally:
        progress.stop()


def complain(message: str) -> None:
    """One line on standard error."""
    with contextlib.suppress(OSError):
        print(f"theano_memopt: {printable(message)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """One harmless line: names from a file may hold line ends and terminal codes."""
    return "".join(c if c.isprintable() else " " for c in text)


class Progress:
    """What is being done, on standard error, once it has taken longer than a second.

    On a terminal one line that changes; otherwise a line of its own every ten seconds at most.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._shown = False
        self._last_line = 0.0
        self._status: Optional[Any] = None
        self._timer = threading.Timer(1.0, self._show)
        self._timer.daemon = True

    def __call__(self, message: str) -> None:
        self._doing = message
        if self._shown:
            self._say()

    def start(self) -> None:
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()
        self._timer.join()  # it may just be starting the line that is ended here
        if self._status is not None and self._shown:
            self._status.stop()

    def _show(self) -> None:
        self._shown = True
        if sys.stderr.isatty():
            from rich.console import Console  # here, for whoever is done within a second does without

            self._status = Console(stderr=True).status("")
            self._status.start()
        self._say()

    def _say(self) -> None:
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(self._doing))
        elif time.monotonic() - self._last_line >= 10:
            self._last_line = time.monotonic()
            complain(self._doing + " ...")

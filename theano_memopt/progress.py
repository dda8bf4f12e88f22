"""What takes longer than a second says so on standard error.

    with progress_of("ordering 300 tasks") as progress:
        progress("the search begins")

Functions that plan inside somebody's call are `planning`: their time is counted for each thread, so that `run` can tell it apart from that of the
call, and they too say what takes longer than a second if `tell` was called. A program of its own hears nothing from them.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from typing import Any, Callable, Iterator, Optional, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


class _Planning(threading.local):
    seconds = 0.0
    busy = False


_planning = _Planning()
_told = False


def tell() -> None:
    """From now on planning inside calls says so when it takes longer than a second."""
    global _told
    _told = True


def planned_for() -> float:
    """Seconds that this thread has spent planning so far."""
    return _planning.seconds


def planning(doing: str) -> Callable[[Function], Function]:
    """The time of the function counts as planning; `doing` says what it does. One inside another counts once."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if _planning.busy:
                return function(*args, **kwargs)
            start, _planning.busy = time.perf_counter(), True
            try:
                with progress_of(doing) if _told else contextlib.nullcontext():
                    return function(*args, **kwargs)
            finally:
                _planning.busy = False
                _planning.seconds += time.perf_counter() - start

        return cast(Function, counted)

    return decorate


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

"""The one writer of whole files: a file is all there or it is as it was, and a path that cannot be written gets one clear line.

The text goes into a temporary file in the same folder, which is then renamed. A symbolic link stays a link: its target is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any


class CannotWrite(ValueError):
    """A path that cannot be written; the message is one line that names it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: cannot be written: {reason}")
        self.reason = reason


def check_writable(path: str) -> None:
    """Raise before the work begins, so that an hour of training or of search does not end in a wrong path."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise CannotWrite(path, "it is a directory")
    if os.path.exists(target) and not os.path.isfile(target):
        raise CannotWrite(path, "it is not a regular file")  # a renamed file would take the place of a device
    if not os.path.isdir(folder):
        raise CannotWrite(path, f"there is no directory {folder}")
    if not os.access(folder, os.W_OK):
        raise CannotWrite(path, f"no permission in {folder}")


def write_whole(path: str, text: str) -> str:
    """Write all of `text` or nothing, Ctrl-C included. Answers the path."""
    import tempfile  # here, for whoever writes no file begins sooner without

    check_writable(path)
    target = os.path.realpath(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=".unfinished-", dir=os.path.dirname(target))
        with open(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes it private
        os.replace(temporary, target)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise CannotWrite(path, error.strerror or str(error)) from None
        raise
    return path


def write_json(path: str, data: Any) -> str:
    return write_whole(path, json.dumps(data, allow_nan=False, indent=1) + "\n")

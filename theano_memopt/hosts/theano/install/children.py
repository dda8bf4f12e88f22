"""Child processes of a program under `run` begin as the program did: with the pass, what Theano needs here, and the chosen flags.

    fork                 a child is a copy of its parent: it has all of that already
    spawn, forkserver    a child is a new Python. It is sent a dict, `multiprocessing.spawn.get_preparation_data`, reads it, and only
                         then imports the program, and Theano with it. One more entry of that dict runs `begin` while it is read

Without that a child imports Theano as it is, which fails on these versions; multiprocessing.Pool then starts children without end, and its
parent waits for them for ever. So nothing that goes wrong in `begin` ends a child: it says so in one line, and the child goes on without the pass.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping, Tuple

import theano_memopt
from theano_memopt.hosts.theano.install import blas, import_hook
from theano_memopt.progress import complain

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(theano_memopt.__file__)))
"""That the package lies in: a child that is read its first entries knows nothing yet of its parent's sys.path."""
BEGIN = """
import sys
try:
    sys.path.append({folder!r})
    try:
        from theano_memopt.hosts.theano.install import children
    finally:
        sys.path.remove({folder!r})
    children.begin({flags!r}, {scipy_blas!r})
except Exception as trouble:
    print("theano_memopt: a child process goes on without the pass:", repr(trouble), file=sys.stderr)
"""


class _WhenRead:
    """Runs these lines of Python where it is unpickled. They need nothing that a new Python has not."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> Tuple[Callable[..., Any], Tuple[str, Dict[str, Any]]]:
        return exec, (self.source, {})


class Children:
    """The child processes of this one: counted, and started with the pass."""

    def __init__(self) -> None:
        self.started = 0
        self.is_child = False
        """Is this process itself one, by fork?"""

    def follow(self, flags: Mapping[str, Any], scipy_blas: bool = False) -> None:
        """From now on: set these flags of the pass in each child, and link with SciPy's BLAS if that is wanted."""
        from multiprocessing import forkserver, spawn

        prepare, preload = spawn.get_preparation_data, forkserver.set_forkserver_preload
        source = BEGIN.format(folder=FOLDER, flags=dict(flags), scipy_blas=scipy_blas)

        def get_preparation_data(name: str) -> Dict[str, Any]:
            if name != "ignore":  # the name by which a fork server asks for itself
                self.started += 1
            return {**prepare(name), "theano_memopt": _WhenRead(source)}  # an entry that Python does not know is left alone

        def set_forkserver_preload(modules: Any) -> None:
            """A fork server may be told to import Theano: then it imports this package before."""
            preload(["theano_memopt", *modules])

        spawn.get_preparation_data = get_preparation_data
        forkserver.set_forkserver_preload = set_forkserver_preload
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_parent=self._another, after_in_child=self._is_forked)

    def _another(self) -> None:
        self.started += 1

    def _is_forked(self) -> None:
        self.is_child = True


def begin(flags: Mapping[str, Any], scipy_blas: bool = False) -> None:
    """Before the program imports Theano, in this process as in its children: what `run` was asked for holds from then on."""
    import_hook.when_registered(lambda: _set(flags))
    if scipy_blas:
        import_hook.when_registered(blas.take_or_complain)


def _set(flags: Mapping[str, Any]) -> None:
    """A value that a flag does not take is told in one line, and leaves the flag as it is."""
    import theano

    for name, value in flags.items():
        try:
            setattr(theano.config.mem_reuse, name, value)
        except ValueError as trouble:
            complain(f"{name}={value}: {trouble}")

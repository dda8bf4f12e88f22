"""`python -m theano_memopt run script.py [args]`: a script, unchanged, with the pass on; at the end what it saved.

Like `python -m cProfile`. The script's arguments, output and exit status are its own; the report goes to standard error,
and a script that fails still gets one. Theano is not imported before the script does so itself, since a script may set
THEANO_FLAGS first.
"""

from __future__ import annotations

import argparse
import builtins
import io
import os
import sys
import types
from typing import Any, List, Optional, Sequence

from theano_memopt import files
from theano_memopt.commands.base import STOPPED, BadInput, Verb, declare_blas, require_theano, take_blas
from theano_memopt.commands.inputs import place_to_write
from theano_memopt.progress import complain

FAILED = 1
"""The status of a Python program that an exception ended."""


class RunVerb(Verb):
    name = "run"
    says = "run a Python script with the pass on, and report what each compiled function needs"

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--html", metavar="FILE", help="draw the memory of every function into this page")
        parser.add_argument("--json", metavar="FILE", help="write every figure here")
        parser.add_argument("--trace", metavar="FILE", help="write a Chrome trace, which ui.perfetto.dev opens")
        parser.add_argument("--order", choices=("auto", "host"), help="host: keep the order that Theano would run anyway")
        parser.add_argument("--storage", choices=("auto", "share", "arena", "off"), help="off: no variable shares storage with another")
        declare_blas(parser)
        parser.add_argument("script", metavar="SCRIPT", help="a Python file")
        parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="its arguments")

    def run(self, parsed: argparse.Namespace) -> int:
        from theano_memopt.hosts.theano.install import blas, import_hook

        require_theano()
        code = _read_script(parsed.script)
        for path in (parsed.html, parsed.json, parsed.trace):
            place_to_write(path)
        watched: List[Any] = []

        def begin() -> None:
            from theano_memopt.hosts.theano.measure import observer

            try:
                observer.choose(parsed.order, parsed.storage)
            except ValueError as trouble:
                raise BadInput(f"--order {parsed.order} --storage {parsed.storage}: {trouble}") from None
            watched.append(observer.Observer())
            watched[0].start()

        take_blas(parsed.blas)
        import_hook.when_registered(begin)
        status = run_script(parsed.script, code, parsed.arguments)
        sys.stdout.flush()
        report(watched[0].finish() if watched else [], parsed.html, parsed.json, parsed.trace)
        if blas.offer():
            complain(blas.offer())
        return status


def run_script(path: str, code: bytes, arguments: Sequence[str]) -> int:
    """Run it as Python would, and answer the exit status that Python would give it."""
    module = types.ModuleType("__main__")
    module.__file__ = path
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    try:
        exec(compile(code, path, "exec"), module.__dict__)
    except SystemExit as stop:
        return _status(stop.code)
    except BadInput:
        raise
    except BaseException as trouble:
        frames = trouble.__traceback__.tb_next if trouble.__traceback__ is not None else None  # without ours
        sys.excepthook(type(trouble), trouble.with_traceback(frames), frames)
        return STOPPED if isinstance(trouble, KeyboardInterrupt) else FAILED
    return 0


def report(rows: Sequence[Any], html: Optional[str], json: Optional[str], trace: Optional[str]) -> None:
    """One line per function on standard error, and the files."""
    from theano_memopt.report import page, run_table
    from theano_memopt.report import trace as traces

    table = run_table.of_rows(rows)
    print(f"\n{table}", file=sys.stderr, end="", flush=True)
    reports = [row.report for row in rows if row.report is not None]
    if not reports and (html or trace):
        complain("there is nothing to draw: no function was compiled with a plan")
    try:
        if json is not None:
            files.write_json(json, run_table.rows_to_json(rows))
        if html is not None and reports:
            page.write(reports, html, table)
            print(f"picture: {html}", file=sys.stderr)
        if trace is not None and reports:
            traces.write(reports, trace)
    except files.CannotWrite as trouble:  # it was writable when the script began; the script's own status still counts
        complain(str(trouble))


def _read_script(path: str) -> bytes:
    try:
        with io.open_code(os.path.abspath(path)) as stream:
            return stream.read()
    except OSError as trouble:
        raise BadInput(f"{path}: cannot be read: {trouble.strerror or trouble}") from None


def _status(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return FAILED

"""`python -m theano_memopt run script.py [args]`: a program, unchanged, with the pass on; at the end what it saved.

Like `python -m cProfile`, and it takes what Python takes: a file, `-m module`, a folder, `-` (program.py). The program's arguments,
output and exit status are its own; the report goes to standard error, and a program that fails still gets one. Theano is not imported before
the program does so itself, since it may set THEANO_FLAGS first. Child processes of multiprocessing run with the pass as well.
"""

from __future__ import annotations

import argparse
import atexit
import sys
from typing import Any, List, Optional, Sequence

from theano_memopt import files, program
from theano_memopt.commands.base import BadInput, Verb, budget_as_written, declare_blas, require_theano, share_of_time, whole
from theano_memopt.commands.inputs import place_to_write
from theano_memopt.progress import complain

FLAGS = ("order", "storage", "effort", "budget", "extra_time")
"""Flags of the pass that have an option here."""


class RunVerb(Verb):
    name = "run"
    says = "run a Python program with the pass on, and report what each compiled function needs"
    examples = ("run train.py --epochs 3", "run --html memory.html --measure train.py", "run -m package.train", "run --storage off - < train.py")

    def declare(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--html", metavar="FILE", help="draw the memory of every function into this page")
        parser.add_argument("--json", metavar="FILE", help="write every figure here")
        parser.add_argument("--trace", metavar="FILE", help="write a Chrome trace, which ui.perfetto.dev opens")
        parser.add_argument("--order", choices=("auto", "host"), help="host: keep the order that Theano would run anyway")
        parser.add_argument("--storage", choices=("auto", "share", "arena", "off"), help="off: no variable shares storage with another")
        parser.add_argument("--effort", metavar="STATES", type=whole, help="how long to search for an order (2000)")
        parser.add_argument(
            "--budget", metavar="SHARE|BYTES", type=budget_as_written, help="run results again: 0.5 of the least peak, 50%%, or 500MB"
        )
        parser.add_argument("--extra-time", metavar="SHARE", type=share_of_time, help="the lowest peak for so much more time: 0.1, or 10%%")
        parser.add_argument("--measure", action="store_true", help="measure one more call of each function on copies: the first call takes longer")
        declare_blas(parser)
        parser.add_argument("-m", dest="module", action="store_true", help="PROGRAM is a module, as for `python -m`")
        parser.add_argument("program", metavar="PROGRAM", help="a Python file, a folder with a __main__.py, or - for standard input")
        arguments = parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="its arguments")
        arguments.required = False  # or argparse, where PROGRAM is missing, asks for these too

    def run(self, parsed: argparse.Namespace) -> int:
        from theano_memopt.hosts.theano.install import children, import_hook

        require_theano()
        wanted = program.Program(parsed.program, parsed.module)
        try:
            wanted.check()
        except program.NotThere as trouble:
            raise BadInput(str(trouble)) from None
        for path in (parsed.html, parsed.json, parsed.trace):
            place_to_write(path)
        flags = {name: getattr(parsed, name) for name in FLAGS if getattr(parsed, name) is not None}
        family, watched = children.Children(), _Watched(parsed.measure)

        def tell() -> None:
            if not family.is_child:
                report(watched.rows(), family.started, parsed)

        atexit.register(tell)  # before the program and multiprocessing register theirs: it comes last, when threads and children are done
        family.follow(flags, parsed.blas is not None)
        children.begin(flags, parsed.blas is not None)
        import_hook.when_registered(watched.begin)
        try:
            return program.run(wanted, parsed.arguments)
        except program.NotThere as trouble:
            atexit.unregister(tell)
            raise BadInput(str(trouble)) from None


class _Watched:
    """The observer, once Theano is there."""

    def __init__(self, measured: bool) -> None:
        self._measured = measured
        self._observer: Optional[Any] = None

    def begin(self) -> None:
        from theano_memopt.hosts.theano.measure import observer

        self._observer = observer.Observer(self._measured)
        self._observer.start()

    def rows(self) -> List[Any]:
        return [] if self._observer is None else self._observer.finish()


def report(rows: Sequence[Any], children: int, parsed: argparse.Namespace) -> None:
    """One line per function on standard error, and the files, each of which is named."""
    from theano_memopt.hosts.theano.install import blas
    from theano_memopt.report import page, run_table
    from theano_memopt.report import trace as traces

    table = run_table.of_rows(rows, children)
    print(f"\n{table}", file=sys.stderr, end="", flush=True)
    reports = [row.report for row in rows if row.report is not None]
    if not reports and (parsed.html or parsed.trace):
        complain("there is nothing to draw: no function was compiled with a plan")
    try:
        if parsed.json is not None:
            _written("figures", files.write_json(parsed.json, run_table.rows_to_json(rows)))
        if parsed.html is not None and reports:
            largest_first = sorted(reports, key=lambda report: -report.peak)  # the page opens at the first
            _written("picture", page.write(largest_first, parsed.html, table))
        if parsed.trace is not None and reports:
            _written("trace", traces.write(reports, parsed.trace))
    except files.CannotWrite as trouble:  # it was writable when the program began; the program's own status still counts
        complain(str(trouble))
    if rows and blas.offer():
        complain(blas.offer())


def _written(what: str, path: str) -> None:
    print(f"{what}: {path}", file=sys.stderr)

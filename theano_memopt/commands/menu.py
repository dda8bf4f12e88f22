"""The command line: the menu of verbs, each of which has a file of its own.

    python -m theano_memopt demo                real models, trained with and without the pass
    python -m theano_memopt run SCRIPT [ARGS]   a program with the pass on, and a report at the end; also -m MODULE, a folder, or -
    python -m theano_memopt order GRAPH.json    the least-memory order of a graph, with a floor or a proof
    python -m theano_memopt recompute PROGRAM.json --budget 0.5 | --extra-time 0.02
                                                less memory than any order needs, by running cheap tasks again
    python -m theano_memopt check GRAPH.json RESULT.json | PROGRAM.json RESULT.json | --placed PLACED.csv
    python -m theano_memopt pack LIVES.csv      offsets for buffers with given lives

Words
    verb      the first argument; `VERBS` lists them all, and a new one is a class in a file of this folder and its entry there
    stdout    tables for people, or with --json one JSON object and nothing else
    stderr    progress on what takes longer than a second, and one line for whatever is wrong
    status    0 done or accepted, 1 rejected, 2 bad input, 130 stopped by Ctrl-C, 141 the reader of our output went away

A file is written as a whole or not at all (theano_memopt/files.py).

What only some verbs need, or only tables (`rich`, the packer and NumPy with it), is imported where it is needed: `order` begins at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn, Optional, Sequence, Tuple

from theano_memopt import __version__
from theano_memopt.commands.base import BAD_INPUT, NO_READER, STOPPED, BadInput, Verb
from theano_memopt.commands.check import CheckVerb
from theano_memopt.commands.demo import DemoVerb
from theano_memopt.commands.order import OrderVerb
from theano_memopt.commands.pack import PackVerb
from theano_memopt.commands.recompute import RecomputeVerb
from theano_memopt.commands.run import RunVerb
from theano_memopt.progress import complain

VERBS: Tuple[Verb, ...] = (DemoVerb(), RunVerb(), OrderVerb(), RecomputeVerb(), CheckVerb(), PackVerb())


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command; the answer is the exit status."""
    try:
        status = _run(_parser().parse_args(arguments))
        sys.stdout.flush()
        return status
    except BadInput as trouble:
        complain(str(trouble))
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("stopped; nothing was written")
        return STOPPED
    except BrokenPipeError:
        # Nobody reads on. Python would complain once more when it closes standard output, so that goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return NO_READER


def _run(parsed: argparse.Namespace) -> int:
    verb: Verb = parsed.verb
    return verb.run(parsed)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m theano_memopt", description="Run Theano functions in less memory, and plan the memory of task graphs.")
    parser.epilog = "Examples of a verb: python -m theano_memopt VERB --help"
    parser.add_argument("--version", action="version", version=f"theano_memopt {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    for verb in VERBS:
        one = verbs.add_parser(
            verb.name,
            help=verb.says,
            description=verb.says[0].upper() + verb.says[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  python -m theano_memopt {example}" for example in verb.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.declare(one)
        one.set_defaults(verb=verb)
    return parser

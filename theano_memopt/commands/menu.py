"""The command line: the menu of verbs, each of which has a file of its own.

    python -m theano_memopt demo                real models, trained with and without the pass
    python -m theano_memopt run SCRIPT [ARGS]   a program with the pass on, and a report at the end; also -m MODULE, a folder, or -
    python -m theano_memopt order GRAPH.json    the least-memory order of a graph, with a floor or a proof
    python -m theano_memopt recompute PROGRAM.json --budget 0.5 | --extra-time 0.02
                                                less memory than any order needs, by running cheap tasks again
    python -m theano_memopt check GRAPH.json RESULT.json | PROGRAM.json RESULT.json | --placed PLACED.csv
    python -m theano_memopt pack LIVES.csv      offsets for buffers with given lives

Words
    verb      the first argument; `VERBS` lists them all, and a new one is a class in a file of this folder and its entry there.
              The file of a verb is imported when the verb is named, or when all of them are to be listed
    stdout    tables for people, or with --json one JSON object and nothing else
    stderr    progress on what takes longer than a second, and one line for whatever is wrong
    status    0 done or accepted, 1 rejected, 2 bad input, 130 stopped by Ctrl-C, 141 the reader of our output went away

A file is written as a whole or not at all (theano_memopt/files.py).

What only some verbs need (`rich`, the packer and NumPy with it) is imported where it is needed: `order` begins at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Iterable, NoReturn, Optional, Sequence

from theano_memopt import __version__
from theano_memopt.commands.base import BAD_INPUT, NO_READER, STOPPED, BadInput, Verb
from theano_memopt.progress import complain

VERBS = ("demo", "run", "order", "recompute", "check", "pack")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one command; the answer is the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = _run(_parser([name for name in VERBS if name in arguments[:1]] or VERBS).parse_args(arguments))
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


def verb_named(name: str) -> Verb:
    """From the file that has its name: `order` is `OrderVerb` in order.py."""
    verb: Verb = getattr(importlib.import_module(f"theano_memopt.commands.{name}"), f"{name.title()}Verb")()
    return verb


def _run(parsed: argparse.Namespace) -> int:
    verb: Verb = parsed.verb
    return verb.run(parsed)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def _parser(names: Iterable[str] = VERBS) -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m theano_memopt", description="Run Theano functions in less memory, and plan the memory of task graphs.")
    parser.epilog = "Examples of a verb: python -m theano_memopt VERB --help"
    parser.add_argument("--version", action="version", version=f"theano_memopt {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    for verb in map(verb_named, names):
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

"""The switches, by Theano's own convention: THEANO_FLAGS, .theanorc, `theano.config.mem_reuse.*`, or per function by `mode`."""

from __future__ import annotations

import numbers
import operator
import warnings
from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, Mapping

from theano_memopt.planner.budget import NO_BUDGET, parse_budget, parse_extra_time

_PARAMETERS: Dict[str, Any] = {}

# Why `auto` is what it is (benchmarks/arena.py; processor time of a call, held bytes after it):
#
#                                 30 operations on 64 MiB       MLP trained by Adam
#     stock, allow_gc=False       146 ms, 1920 MiB              136.3 ms, 32 MiB
#     share, allow_gc=False       143 ms,  192 MiB              128.1 ms, 11 MiB
#     arena, allow_gc=False       139 ms,  192 MiB              132.9 ms,  8 MiB, its planned peak
#     stock, allow_gc=True        322 ms, at most 128 MiB       147.9 ms, at most 15 MiB
#     share, allow_gc=True        158 ms, at most 128 MiB       136.1 ms, at most  8 MiB
#     arena, allow_gc=True        154 ms, at most 192 MiB       132.8 ms, at most  8 MiB
#
# With allow_gc=False the arena is as fast as stock and holds the least. With allow_gc=True it is faster where blocks are large,
# but a block made for each call costs some 15 microseconds, which small functions feel, and what is returned comes on
# top of a block that is there to the end of the call: whoever asked for the least memory is better served by cells.


@dataclass(frozen=True)
class Settings:
    """What one function is compiled with."""

    order: str
    storage: str
    effort: int
    default_dim: int
    max_nodes: int
    verify: bool
    extra_time: float = 0.0
    """The last two have defaults for pickles that are older than they."""
    budget: str = ""


def settings(overrides: Mapping[str, Any]) -> Settings:
    """The flags in force, and what `mode` said on top of them."""
    from theano import config

    given = {name: check(name, value) for name, value in overrides.items()}
    chosen = {f.name: given[f.name] if f.name in given else getattr(config.mem_reuse, f.name) for f in fields(Settings)}
    return Settings(**chosen)


def storage_for(chosen: Settings, allow_gc: bool) -> str:
    """What `auto` means for a linker."""
    return chosen.storage if chosen.storage != "auto" else "share" if allow_gc else "arena"


def check(name: str, value: Any) -> Any:
    """The value as the flag of this name takes it; Theano's own error for one that it does not take."""
    names = sorted(f.name for f in fields(Settings))
    if name not in names:
        raise TypeError(f"mem_reuse has no setting {name!r}; it has {', '.join(names)}")
    return _PARAMETERS[name].filter(value)


def declare() -> None:
    """Add the flags to Theano. `in_c_key=False`: none of them changes any C code, so the compile cache stays valid."""
    from theano.configparser import THEANO_FLAGS_DICT, AddConfigVar, ConfigParam, EnumStr

    def flag(default: Any, read: Callable[[Any], Any]) -> Any:
        """`read` answers the value, or raises `ValueError` with what is allowed."""

        def value_of(given: Any) -> Any:
            try:
                return read(given)
            except (TypeError, ValueError) as no:
                raise ValueError(f'Invalid value ("{given}") for configuration variable "{parameter.fullname}". {no}') from None

        parameter = ConfigParam(default, value_of)
        return parameter

    for name, doc, parameter in (
        ("order", "auto: the order with the least peak; host: the order that the linker would run anyway", EnumStr("auto", "host")),
        (
            "storage",
            "share: variables of one shape whose lives do not touch share a storage cell; arena: all lie at planned places of one block,"
            " as large as the true shapes of the last calls need, and without gc shared by the functions of a thread;"
            " off: neither; auto: arena with allow_gc=False, share with allow_gc=True",
            EnumStr("auto", "share", "arena", "off"),
        ),
        (
            "effort",
            "how many states the search for an order may visit before it answers with the best found",
            flag(2000, _whole("a number of states, 0 or more")),
        ),
        ("default_dim", "the length assumed for a dimension of which nothing is known at compile time", flag(128, _whole("a length, 1 or more", 1))),
        ("max_nodes", "a graph with more nodes keeps Theano's own order and storage", flag(20000, _whole("a number of nodes, 0 or more"))),
        (
            "blas",
            "scipy: link with the OpenBLAS inside SciPy's wheel; read once, when Theano is imported, and the same for all functions",
            EnumStr("off", "scipy", allow_override=False),
        ),
        (
            "extra_time",
            "the lowest peak for at most this share more time, by running cheap results again: 0.02, or 2%; 0 never runs anything twice",
            flag(0.0, _extra_time),
        ),
        (
            "budget",
            "the least extra time within this peak, by running cheap results again: a share of the least peak of any order (0.5, 50%), or"
            " bytes (500MB, 1.5GiB); none: no budget. Where it is given, extra_time does not count",
            flag("", _budget),
        ),
        ("verify", "check at run time that no variable is overwritten while alive, and compare with a run without the pass", flag(False, _truth)),
    ):
        if name not in _PARAMETERS:
            _PARAMETERS[name] = parameter
            AddConfigVar(f"mem_reuse.{name}", doc, parameter, in_c_key=False)
    _refuse_other_names()
    for name in THEANO_FLAGS_DICT:  # Theano takes out those that are declared
        if name.startswith("mem_reuse."):
            warnings.warn(_no_flag(name), stacklevel=2)


def _refuse_other_names() -> None:
    """Theano takes `theano.config.mem_reuse.storge = "off"` without a word, for each of its groups of flags is a class like any other.
    This one, which is ours, refuses what is no flag."""
    from theano import config

    def set_flag(group: Any, name: str, value: Any) -> None:
        if name not in _PARAMETERS:
            raise AttributeError(_no_flag(f"mem_reuse.{name}"))
        object.__setattr__(group, name, value)

    type(config.mem_reuse).__setattr__ = set_flag


def _no_flag(name: str) -> str:
    return f"there is no flag {name}; there are {', '.join(f'mem_reuse.{known}' for known in _PARAMETERS)}"


# --- values: as they are written in a flag, or given in Python -------------------------------------------------------


def _whole(allowed: str, least: int = 0) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        try:
            number = int(value, 10) if isinstance(value, str) else operator.index(value)
        except (TypeError, ValueError):
            number = least - 1
        if number < least or isinstance(value, bool):
            raise ValueError(f"It is {allowed}")
        return number

    return read


def _truth(value: Any) -> bool:
    if str(value) not in ("True", "true", "1", "False", "false", "0"):
        raise ValueError("It is True or False")
    return str(value) in ("True", "true", "1")


def _extra_time(value: Any) -> float:
    return parse_extra_time(str(value))


def _budget(value: Any) -> str:
    """A budget as it was written, empty for none. In Python a whole number is bytes, and a float is a share."""
    if value is None or str(value).strip().lower() in ("", NO_BUDGET):
        return ""
    text = str(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        text += "B"
    parse_budget(text)
    return text

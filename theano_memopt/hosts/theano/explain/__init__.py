"""Where the memory of a compiled function goes: subject (the function, at certain sizes) <- storage, words, advice, repeats <- report."""

from theano_memopt.hosts.theano.explain.report import arguments_by_position, decided, explain, with_scans
from theano_memopt.hosts.theano.explain.subject import BadUse, NoPlan, compiled, name_of

__all__ = ["BadUse", "NoPlan", "arguments_by_position", "compiled", "decided", "explain", "name_of", "with_scans"]

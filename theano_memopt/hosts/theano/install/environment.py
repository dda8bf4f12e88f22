"""What Theano 1.0.5 needs on Python 3.8 to 3.11 with numpy 1.22 and 1.23. Each line says what breaks without it.

Nothing is touched where nothing is wrong, and this file imports Theano only in `repair`, when it is there already.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import warnings
from typing import Any, Iterator, List

NO_THEANO = 'Theano 1.0.5 is not installed here; on Python 3.8 to 3.11 `pip install "theano-memopt[theano]"` brings it'


def theano_is_there() -> bool:
    return "theano" in sys.modules or importlib.util.find_spec("theano") is not None


def prepare() -> None:
    """Before `import theano`."""
    _own_flags_are_known_later()
    _blas_opt_info()
    _scan_in_python()


def repair() -> None:
    """Right after `import theano`."""
    _batched_dot_without_blas()
    _variables_are_let_go()


def _own_flags_are_known_later() -> None:
    # The flags mem_reuse.* are declared once Theano is there, and until then it would warn of each that the user gives.
    warnings.filterwarnings("ignore", r"Theano does not recognise this flag: mem_reuse\.", UserWarning)


def _blas_opt_info() -> None:
    # numpy 1.22 dropped this name; Theano reads it while it looks for a BLAS and dies with AttributeError. An empty
    # answer makes it go on and try the libraries itself.
    try:
        import numpy.distutils.__config__ as build
    except ImportError:
        return
    if not hasattr(build, "blas_opt_info"):
        build.blas_opt_info = {}


def _scan_in_python() -> None:
    # Scan's C file was generated for older Pythons and does not compile on 3.11 (longintrepr.h and more). The attempt
    # costs half a minute and ends in a CompileError at the first Scan. None here means ImportError, which Scan takes
    # as "use the Python path".
    if sys.version_info >= (3, 11):
        sys.modules.setdefault("theano.scan_module.scan_perform_ext", None)  # type: ignore[arg-type]


def _batched_dot_without_blas() -> None:
    # Without a BLAS to link with, the C code of BatchedDot compiles and then fails to load (undefined symbol dgemm_).
    # MethodNotDefined makes Theano take its Python implementation, which calls numpy.dot.
    from theano.gof.utils import MethodNotDefined
    from theano.tensor import blas

    original = blas.BatchedDot.c_code
    if getattr(original, "needs_blas", False):
        return

    def c_code(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not blas.ldflags():
            raise MethodNotDefined("BatchedDot has no C code without a BLAS")
        return original(self, *args, **kwargs)

    c_code.needs_blas = True  # type: ignore[attr-defined]
    blas.BatchedDot.c_code = c_code


def _variables_are_let_go() -> None:
    # Where a rewrite gives up half way (an in-place Gemm whose arguments overlap, for one), upstream forgets to stop
    # listening for new variables. From then on every variable of the process is kept for ever, with the shared values
    # and functions that hang on it.
    from theano.gof import graph

    if getattr(graph.nodes_constructed, "always_stops", False):
        return

    @contextlib.contextmanager
    def nodes_constructed() -> Iterator[List[Any]]:
        new_nodes: List[Any] = []
        graph.Variable.append_construction_observer(new_nodes.append)
        try:
            yield new_nodes
        finally:
            graph.Variable.remove_construction_observer(new_nodes.append)

    nodes_constructed.always_stops = True  # type: ignore[attr-defined]
    graph.nodes_constructed = nodes_constructed

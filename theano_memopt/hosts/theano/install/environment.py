"""What Theano 1.0.5 needs on Python 3.8 to 3.11 with numpy 1.22 and 1.23. Each function says what breaks without it.

    before `import theano`   `prepare`
    after it                 two repairs of its functions, which install/patches.py puts there and gives reasons for

Nothing is touched where nothing is wrong, and no module of Theano is imported before a repair is called.
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


def _own_flags_are_known_later() -> None:
    # The flags mem_reuse.* are declared after Theano's import. During the import it would warn of each one that the user gives.
    warnings.filterwarnings("ignore", r"Theano does not recognise this flag: mem_reuse\.", UserWarning)


def _blas_opt_info() -> None:
    # numpy 1.22 dropped this name. Theano reads it while it looks for a BLAS, and its import ends with AttributeError. With an
    # empty dict it goes on and tries the libraries itself.
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


def batched_dot_c_code(original: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
    """MethodNotDefined makes Theano take the Python implementation, which calls numpy.dot."""
    from theano.gof.utils import MethodNotDefined
    from theano.tensor import blas

    if not blas.ldflags():
        raise MethodNotDefined("BatchedDot has no C code without a BLAS")
    return original(op, *args, **kwargs)


@contextlib.contextmanager
def nodes_constructed(original: Any) -> Iterator[List[Any]]:
    """As upstream's, and it stops listening whatever happens inside."""
    from theano.gof import graph

    new_nodes: List[Any] = []
    graph.Variable.append_construction_observer(new_nodes.append)
    try:
        yield new_nodes
    finally:
        graph.Variable.remove_construction_observer(new_nodes.append)

"""Shapes of what a Scan hands to the function inside it: what it slices loses its first dimension, the rest comes in as it is.

outer    sequences | arrays of states, of which each step takes one or several rows (taps) | shared | what does not change
inner    one row of each, in the same order
"""

from __future__ import annotations

from typing import Any, Callable, List, Tuple

from theano import tensor
from theano.scan_module.scan_utils import scan_args

Shape = Tuple[int, ...]


def inner_shapes(node: Any, dims: Callable[[Any], Shape]) -> List[Shape]:
    """For each input of the inner function its shape; `dims` knows those of the Scan's own inputs."""
    args = scan_args(node.inputs, node.outputs, node.op.inputs, node.op.outputs, node.op.info)
    with_taps = [
        *((outer, 1) for outer in args.outer_in_seqs),
        *((outer, len(taps)) for outer, taps in zip(args.outer_in_mit_mot, args.inner_in_mit_mot)),
        *((outer, len(taps)) for outer, taps in zip(args.outer_in_mit_sot, args.inner_in_mit_sot)),
        *((outer, 1) for outer in args.outer_in_sit_sot),
    ]
    sliced = [dims(outer)[1:] for outer, taps in with_taps for _ in range(taps)]
    whole = [dims(outer) if isinstance(outer.type, tensor.TensorType) else () for outer in [*args.outer_in_shared, *args.outer_in_non_seqs]]
    return [*sliced, *whole]

"""Keras 2.3.1 on Theano, where collections no longer has the abstract classes that Keras looks for there (Python 3.10)."""

from __future__ import annotations

import collections
import collections.abc
import os
import warnings

for name in ("Callable", "Iterable", "Mapping", "MutableMapping", "Sequence"):
    if not hasattr(collections, name):
        setattr(collections, name, getattr(collections.abc, name))
os.environ["KERAS_BACKEND"] = "theano"
warnings.filterwarnings("ignore", category=DeprecationWarning)

import keras  # noqa: E402

__all__ = ["keras"]

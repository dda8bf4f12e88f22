"""Small models that are trained for real: for the demo, the benchmarks and the tests.

Each one is a training step: a loss, updates of the weights, and a batch of random data. `size` is 1 for the sizes of
the demo, or a divisor of batch and width for tests that only need the shape of the graph.

Importing this module imports no Theano; building a model does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np


@dataclass(frozen=True)
class Model:
    """A training step before it is compiled."""

    name: str
    inputs: Tuple[Any, ...]
    loss: Any
    updates: Tuple[Tuple[Any, Any], ...]
    batch: Tuple[np.ndarray, ...]

    def compile(self, mode: Any = None, **arguments: Any) -> Any:
        import theano

        return theano.function(list(self.inputs), self.loss, updates=list(self.updates), mode=mode, name=self.name, **arguments)

    def state(self) -> List[np.ndarray]:
        """Copies of everything that the step updates."""
        return [shared.get_value() for shared, _ in self.updates]

    def restore(self, state: Sequence[np.ndarray]) -> None:
        for (shared, _), value in zip(self.updates, state):
            shared.set_value(value)


def build(name: str, size: int = 1, seed: int = 0) -> Model:
    """The model of this name, weights and batch drawn from `seed`."""
    make, train = MODELS[name]
    weights = _Weights(seed)
    inputs, loss, batch = make(weights, size)
    return Model(name, tuple(inputs), loss, tuple(train(loss, weights.all)), tuple(batch))


class _Weights:
    """Draws weights and data, and remembers the weights."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)
        self.all: List[Any] = []

    def __call__(self, *shape: int, fan: int = 0) -> Any:
        import theano

        value = self.random.normal(0, 1 / np.sqrt(fan or shape[0]), shape).astype("float32")
        return self._keep(theano.shared(value, name=f"W{len(self.all)}"))

    def zeros(self, *shape: int) -> Any:
        import theano

        return self._keep(theano.shared(np.zeros(shape, "float32"), name=f"b{len(self.all)}"))

    def _keep(self, shared: Any) -> Any:
        self.all.append(shared)
        return shared

    def data(self, *shape: int) -> np.ndarray:
        return self.random.normal(0, 1, shape).astype("float32")

    def labels(self, n: int) -> np.ndarray:
        return self.random.randint(0, 10, n).astype("int32")


# --- how they are trained --------------------------------------------------------------------------------------------


def _sgd(loss: Any, weights: Sequence[Any]) -> List[Tuple[Any, Any]]:
    import theano.tensor as tt

    return [(w, w - np.float32(0.01) * g) for w, g in zip(weights, tt.grad(loss, list(weights)))]


def _adam(loss: Any, weights: Sequence[Any]) -> List[Tuple[Any, Any]]:
    import theano
    import theano.tensor as tt

    one, b1, b2 = np.float32(1), np.float32(0.9), np.float32(0.999)
    updates = []
    for w, g in zip(weights, tt.grad(loss, list(weights))):
        m, v = (theano.shared(np.zeros_like(w.get_value()), name=f"{w.name}.{which}") for which in "mv")
        new_m, new_v = b1 * m + (one - b1) * g, b2 * v + (one - b2) * g * g
        updates += [(m, new_m), (v, new_v), (w, w - np.float32(1e-3) * new_m / (tt.sqrt(new_v) + np.float32(1e-7)))]
    return updates


# --- the models ------------------------------------------------------------------------------------------------------

Made = Tuple[List[Any], Any, List[np.ndarray]]


def _classify(logits: Any, y: Any) -> Any:
    import theano.tensor as tt

    return tt.nnet.categorical_crossentropy(tt.nnet.softmax(logits), y).mean(dtype="float32")


def _logreg(w: _Weights, size: int) -> Made:
    import theano.tensor as tt

    n = 600 // size
    x, y = tt.fmatrix("x"), tt.ivector("y")
    return [x, y], _classify(tt.dot(x, w(784, 10)) + w.zeros(10), y), [w.data(n, 784), w.labels(n)]


def _mlp(w: _Weights, size: int) -> Made:
    import theano.tensor as tt

    n = width = 512 // size
    x, y = tt.fmatrix("x"), tt.ivector("y")
    h, before = x, 784
    for _ in range(6):
        h, before = tt.tanh(tt.dot(h, w(before, width)) + w.zeros(width)), width
    return [x, y], _classify(tt.dot(h, w(width, 10)) + w.zeros(10), y), [w.data(n, 784), w.labels(n)]


def _lenet(w: _Weights, size: int) -> Made:
    import theano.tensor as tt
    from theano.tensor.signal.pool import pool_2d

    n = 64 // size
    x, y = tt.ftensor4("x"), tt.ivector("y")
    h, channels = x, 1
    for filters in (20, 50):
        conv = tt.nnet.conv2d(h, w(filters, channels, 5, 5, fan=25 * channels)) + w.zeros(filters).dimshuffle("x", 0, "x", "x")
        h, channels = tt.tanh(pool_2d(conv, (2, 2), ignore_border=True)), filters
    h = tt.tanh(tt.dot(h.flatten(2), w(50 * 4 * 4, 500)) + w.zeros(500))
    return [x, y], _classify(tt.dot(h, w(500, 10)) + w.zeros(10), y), [w.data(n, 1, 28, 28), w.labels(n)]


def _resnet(w: _Weights, size: int) -> Made:
    import theano.tensor as tt

    n = max(2, 16 // size)
    x, y = tt.ftensor4("x"), tt.ivector("y")

    def conv(h: Any, channels: int) -> Any:
        return tt.nnet.conv2d(h, w(16, channels, 3, 3, fan=9 * channels), border_mode="half")

    h = tt.nnet.relu(conv(x, 3))
    for _ in range(4):
        h = tt.nnet.relu(h + conv(tt.nnet.relu(conv(h, 16)), 16))
    pooled = h.mean(axis=(2, 3), dtype="float32")
    return [x, y], _classify(tt.dot(pooled, w(16, 10)) + w.zeros(10), y), [w.data(n, 3, 32, 32), w.labels(n)]


def _lstm(w: _Weights, size: int) -> Made:
    import theano.tensor as tt

    n, width, steps = 64 // size, 128 // size, 10
    x, y = tt.ftensor3("x"), tt.ivector("y")
    into, again, bias = w(64, 4 * width), w(width, 4 * width), w.zeros(4 * width)
    h = tt.zeros((x.shape[1], width), "float32")
    c = tt.zeros((x.shape[1], width), "float32")
    for step in range(steps):
        gates = tt.dot(x[step], into) + tt.dot(h, again) + bias
        i, f, o = (tt.nnet.sigmoid(gates[:, k * width : (k + 1) * width]) for k in range(3))
        c = f * c + i * tt.tanh(gates[:, 3 * width :])
        h = o * tt.tanh(c)
    return [x, y], _classify(tt.dot(h, w(width, 10)) + w.zeros(10), y), [w.data(steps, n, 64), w.labels(n)]


def _attention(w: _Weights, size: int) -> Made:
    import theano.tensor as tt

    n, length, heads, width = max(1, 8 // size), max(8, 64 // size), 4, 64
    each = width // heads
    x = tt.ftensor3("x")
    batch = x.shape[0]
    h = x

    def split(z: Any) -> Any:
        z = z.reshape((batch, length, heads, each)).dimshuffle(0, 2, 1, 3)
        return z.reshape((batch * heads, length, each))

    for _ in range(2):
        flat = h.reshape((batch * length, width))
        q, k, v = (split(tt.dot(flat, w(width, width))) for _ in range(3))
        scores = tt.batched_dot(q, k.dimshuffle(0, 2, 1)) * np.float32(1 / np.sqrt(each))
        e = tt.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = tt.batched_dot(e / e.sum(axis=2, keepdims=True), v)
        mixed = mixed.reshape((batch, heads, length, each)).dimshuffle(0, 2, 1, 3).reshape((batch * length, width))
        flat = flat + tt.dot(mixed, w(width, width))
        flat = flat + tt.dot(tt.nnet.relu(tt.dot(flat, w(width, 4 * width))), w(4 * width, width))
        h = flat.reshape((batch, length, width))
    return [x], (h**2).mean(dtype="float32"), [w.data(n, length, width)]


def _branches(w: _Weights, size: int) -> Made:
    import theano.tensor as tt

    n, wide, narrow = 1000 // size, 1000 // size, 100 // min(size, 10)
    x = tt.fmatrix("x")
    total = 0
    for _ in range(8):
        total = total + tt.dot(tt.nnet.softmax(tt.dot(x, w(narrow, wide))), w(wide, narrow))
    return [x], (total**2).sum(dtype="float32"), [w.data(n, narrow)]


def _scan(w: _Weights, size: int) -> Made:
    import theano
    import theano.tensor as tt

    n, width, steps = 64 // size, 128 // size, 20
    x, y = tt.ftensor3("x"), tt.ivector("y")
    into, again, bias = w(64, width), w(width, width), w.zeros(width)
    states, _ = theano.scan(
        lambda now, h: tt.tanh(tt.dot(now, into) + tt.dot(h, again) + bias),
        sequences=[x],
        outputs_info=[tt.zeros((x.shape[1], width), "float32")],
    )
    return [x, y], _classify(tt.dot(states[-1], w(width, 10)) + w.zeros(10), y), [w.data(steps, n, 64), w.labels(n)]


def _nothing(loss: Any, weights: Sequence[Any]) -> List[Tuple[Any, Any]]:
    return []


Train = Callable[[Any, Sequence[Any]], List[Tuple[Any, Any]]]
MODELS: Dict[str, Tuple[Callable[[_Weights, int], Made], Train]] = {
    "logreg": (_logreg, _sgd),
    "mlp": (_mlp, _sgd),
    "mlp_adam": (_mlp, _adam),
    "lenet": (_lenet, _sgd),
    "resnet": (_resnet, _sgd),
    "resnet_adam": (_resnet, _adam),
    "lstm": (_lstm, _sgd),
    "attention": (_attention, _sgd),
    "attn_adam": (_attention, _adam),
    "branches": (_branches, _nothing),
    "scan_rnn": (_scan, _sgd),
}
"""Name -> (the model, how it is trained)."""

"""An LSTM over word embeddings for sentences of different lengths: Scan with a mask, dropout by a switch, Adadelta in two functions."""

import numpy as np
import theano
import theano.tensor as T
from ending import Training, steps
from theano.sandbox.rng_mrg import MRG_RandomStreams as RandomStreams

random = np.random.RandomState(1)
streams = RandomStreams(123)
floatX = theano.config.floatX
WORDS, WIDTH, BATCH = 1000, 64, 16
weights = {}


def weight(name, value):
    weights[name] = theano.shared(value.astype(floatX), name=name)
    return weights[name]


def orthogonal():
    return np.linalg.svd(random.randn(WIDTH, WIDTH))[0]


embedding = weight("Wemb", 0.01 * random.rand(WORDS, WIDTH))
W = weight("lstm_W", np.concatenate([orthogonal() for _ in range(4)], axis=1))
U = weight("lstm_U", np.concatenate([orthogonal() for _ in range(4)], axis=1))
b = weight("lstm_b", np.zeros(4 * WIDTH))
top, top_b = weight("U", 0.01 * random.randn(WIDTH, 2)), weight("b", np.zeros(2))
use_noise = theano.shared(np.asarray(0.0, floatX), name="use_noise")
x, mask, y = T.matrix("x", dtype="int64"), T.matrix("mask", dtype=floatX), T.vector("y", dtype="int64")


def step(m, projected, h, c):
    gates = T.dot(h, U) + projected
    i, f, o = (T.nnet.sigmoid(gates[:, k * WIDTH : (k + 1) * WIDTH]) for k in range(3))
    c_new = f * c + i * T.tanh(gates[:, 3 * WIDTH :])
    c_new = m[:, None] * c_new + (1.0 - m)[:, None] * c
    h_new = o * T.tanh(c_new)
    return m[:, None] * h_new + (1.0 - m)[:, None] * h, c_new


embedded = embedding[x.flatten()].reshape([x.shape[0], x.shape[1], WIDTH])
start = T.alloc(np.asarray(0.0, floatX), x.shape[1], WIDTH)
(hidden, _), _ = theano.scan(step, sequences=[mask, T.dot(embedded, W) + b], outputs_info=[start, start], n_steps=x.shape[0], name="lstm")
pooled = (hidden * mask[:, :, None]).sum(axis=0) / mask.sum(axis=0)[:, None]
pooled = T.switch(use_noise, pooled * streams.binomial(pooled.shape, p=0.5, n=1, dtype=floatX), pooled * 0.5)
prediction = T.nnet.softmax(T.dot(pooled, top) + top_b)
cost = -T.log(prediction[T.arange(x.shape[1]), y] + 1e-8).mean() + 0.0001 * (top**2).sum()
predict = theano.function([x, mask], prediction.argmax(axis=1), name="predict")


def adadelta(params, gradients):
    """One function computes the gradients and keeps them, another moves the weights."""

    def like(kind):
        return [theano.shared(p.get_value() * 0, name=f"{p.name}_{kind}") for p in params]

    kept, moved, squares = like("grad"), like("rup2"), like("rgrad2")
    compute = [(k, g) for k, g in zip(kept, gradients)] + [(s, 0.95 * s + 0.05 * g**2) for s, g in zip(squares, gradients)]
    compute = theano.function([x, mask, y], cost, updates=compute, name="compute")
    moves = [-T.sqrt(m + 1e-6) / T.sqrt(s + 1e-6) * k for k, m, s in zip(kept, moved, squares)]
    updates = [(m, 0.95 * m + 0.05 * d**2) for m, d in zip(moved, moves)] + [(p, p + d) for p, d in zip(params, moves)]
    return compute, theano.function([], [], updates=updates, name="move")


params = list(weights.values())
compute, move = adadelta(params, T.grad(cost, params))


def batch():
    lengths = random.randint(5, 40, size=BATCH)
    words = np.zeros((lengths.max(), BATCH), "int64")
    seen = np.zeros((lengths.max(), BATCH), floatX)
    for column, length in enumerate(lengths):
        words[:length, column] = random.randint(1, WORDS, size=length)
        seen[:length, column] = 1
    return words, seen, (words % 5 == 1).any(axis=0).astype("int64")


def train(words, seen, labels):
    loss = compute(words, seen, labels)
    move()
    return loss


use_noise.set_value(1.0)
training = Training()
for _ in range(steps(12)):
    training.step(train, *batch())
use_noise.set_value(0.0)
guesses = [predict(*batch()[:2]) for _ in range(2)]
training.finish([p.get_value() for p in params] + guesses)

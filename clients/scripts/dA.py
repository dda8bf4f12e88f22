"""A denoising autoencoder with tied weights: part of the input is put to zero, and the rest must restore it."""

import numpy as np
import theano
import theano.tensor as T
from ending import Training, steps
from theano.tensor.shared_randomstreams import RandomStreams

random = np.random.RandomState(1)
streams = RandomStreams(random.randint(2**30))
floatX = theano.config.floatX
BATCH, VISIBLE, HIDDEN = 50, 784, 500

data = theano.shared(random.rand(1000, VISIBLE).astype(floatX), borrow=True)
bound = 4 * np.sqrt(6.0 / (HIDDEN + VISIBLE))
W = theano.shared(random.uniform(-bound, bound, (VISIBLE, HIDDEN)).astype(floatX), name="W", borrow=True)
hidden_bias = theano.shared(np.zeros(HIDDEN, floatX), name="b", borrow=True)
visible_bias = theano.shared(np.zeros(VISIBLE, floatX), name="b_prime", borrow=True)
params = [W, hidden_bias, visible_bias]

index, x = T.lscalar("index"), T.matrix("x")
corrupted = streams.binomial(size=x.shape, n=1, p=0.7, dtype=floatX) * x
hidden = T.nnet.sigmoid(T.dot(corrupted, W) + hidden_bias)
z = T.nnet.sigmoid(T.dot(hidden, W.T) + visible_bias)
cost = T.mean(-T.sum(x * T.log(z) + (1 - x) * T.log(1 - z), axis=1))
updates = [(p, p - 0.1 * g) for p, g in zip(params, T.grad(cost, params))]
train = theano.function([index], cost, updates=updates, givens={x: data[index * BATCH : (index + 1) * BATCH]}, name="train")

training = Training()
for i in range(steps(20)):
    training.step(train, i % 20)
training.finish([p.get_value() for p in params])

"""A restricted Boltzmann machine: persistent contrastive divergence, the Gibbs chain in a Scan, samples drawn at the end."""

import numpy as np
import theano
import theano.tensor as T
from ending import Training, steps
from theano.tensor.shared_randomstreams import RandomStreams

random = np.random.RandomState(1)
streams = RandomStreams(random.randint(2**30))
floatX = theano.config.floatX
BATCH, VISIBLE, HIDDEN, K = 20, 784, 500, 5

data = theano.shared((random.rand(400, VISIBLE) > 0.7).astype(floatX), borrow=True)
bound = 4 * np.sqrt(6.0 / (HIDDEN + VISIBLE))
W = theano.shared(random.uniform(-bound, bound, (VISIBLE, HIDDEN)).astype(floatX), name="W", borrow=True)
hbias = theano.shared(np.zeros(HIDDEN, floatX), name="hbias", borrow=True)
vbias = theano.shared(np.zeros(VISIBLE, floatX), name="vbias", borrow=True)
persistent = theano.shared(np.zeros((BATCH, HIDDEN), floatX), borrow=True)
bit = theano.shared(0, name="bit")
params = [W, hbias, vbias]


def free_energy(v):
    return -T.dot(v, vbias) - T.sum(T.log(1 + T.exp(T.dot(v, W) + hbias)), axis=1)


def hidden_given(v):
    before = T.dot(v, W) + hbias
    mean = T.nnet.sigmoid(before)
    return before, mean, streams.binomial(size=mean.shape, n=1, p=mean, dtype=floatX)


def visible_given(h):
    before = T.dot(h, W.T) + vbias
    mean = T.nnet.sigmoid(before)
    return before, mean, streams.binomial(size=mean.shape, n=1, p=mean, dtype=floatX)


def gibbs(h):
    before_v, v_mean, v = visible_given(h)
    before_h, h_mean, h = hidden_given(v)
    return [before_v, v_mean, v, before_h, h_mean, h]


def pseudo_likelihood(x, before_updates):
    rounded = T.round(x)
    flipped = T.set_subtensor(rounded[:, bit], 1 - rounded[:, bit])
    cost = T.mean(VISIBLE * T.log(T.nnet.sigmoid(free_energy(flipped) - free_energy(rounded))))
    before_updates[bit] = (bit + 1) % VISIBLE
    return cost


index, x = T.lscalar("index"), T.matrix("x")
chain, updates = theano.scan(gibbs, outputs_info=[None, None, None, None, None, persistent], n_steps=K, name="gibbs")
chain_end = chain[2][-1]
cost = T.mean(free_energy(x)) - T.mean(free_energy(chain_end))
for p, g in zip(params, T.grad(cost, params, consider_constant=[chain_end])):
    updates[p] = p - g * T.cast(0.1, floatX)
updates[persistent] = chain[5][-1]
monitor = pseudo_likelihood(x, updates)
train = theano.function([index], monitor, updates=updates, givens={x: data[index * BATCH : (index + 1) * BATCH]}, name="train")

shown = theano.shared(data.get_value()[:20], name="shown")
visible_chain, sampling = theano.scan(lambda v: visible_given(hidden_given(v)[2])[1:], outputs_info=[None, shown], n_steps=10, name="sampling")
sampling[shown] = visible_chain[1][-1]
sample = theano.function([], [visible_chain[0][-1], visible_chain[1][-1]], updates=sampling, name="sample")

training = Training()
for i in range(steps(10)):
    training.step(train, i % 20)
samples = [a for _ in range(2) for a in sample()]
training.finish([p.get_value() for p in [*params, persistent, bit, shown]] + samples)

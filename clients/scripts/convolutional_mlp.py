"""A network of two convolutions with pooling, a hidden layer and logistic regression: LeNet."""

import numpy as np
import theano
import theano.tensor as T
from ending import Training, steps
from theano.tensor.nnet import conv2d
from theano.tensor.signal import pool

random = np.random.RandomState(1)
floatX = theano.config.floatX
BATCH, KERNELS = 100, (20, 50)
params = []


def weight(*shape, bound):
    params.append(theano.shared(random.uniform(-bound, bound, shape).astype(floatX), borrow=True))
    return params[-1]


def convolution_and_pooling(x, filter_shape, image_shape):
    fan = np.prod(filter_shape[1:]) + filter_shape[0] * np.prod(filter_shape[2:]) / 4
    W = weight(*filter_shape, bound=np.sqrt(6.0 / fan))
    b = weight(filter_shape[0], bound=0)
    convolved = conv2d(x, W, filter_shape=filter_shape, input_shape=image_shape)
    return T.tanh(pool.pool_2d(convolved, (2, 2), ignore_border=True) + b.dimshuffle("x", 0, "x", "x"))


images = theano.shared(random.rand(500, 784).astype(floatX), borrow=True)
labels = T.cast(theano.shared(random.randint(10, size=500).astype(floatX), borrow=True), "int32")
index, x, y = T.lscalar("index"), T.matrix("x"), T.ivector("y")

layer0 = convolution_and_pooling(x.reshape((BATCH, 1, 28, 28)), (KERNELS[0], 1, 5, 5), (BATCH, 1, 28, 28))
layer1 = convolution_and_pooling(layer0, (KERNELS[1], KERNELS[0], 5, 5), (BATCH, KERNELS[0], 12, 12))
width = KERNELS[1] * 4 * 4
layer2 = T.tanh(T.dot(layer1.flatten(2), weight(width, 500, bound=np.sqrt(6.0 / (width + 500)))) + weight(500, bound=0))
p_y = T.nnet.softmax(T.dot(layer2, weight(500, 10, bound=0)) + weight(10, bound=0))
cost = -T.mean(T.log(p_y)[T.arange(y.shape[0]), y])

rows = slice(index * BATCH, (index + 1) * BATCH)
givens = {x: images[rows], y: labels[rows]}
test = theano.function([index], T.mean(T.neq(T.argmax(p_y, axis=1), y)), givens=givens)
updates = [(p, p - 0.1 * g) for p, g in zip(params, T.grad(cost, params))]
train = theano.function([index], cost, updates=updates, givens=givens, name="train")

training = Training()
for i in range(steps(10)):
    training.step(train, i % 5)
wrong = [test(i) for i in range(2)]
print("errors", np.mean(wrong))
training.finish([p.get_value() for p in params] + wrong)

"""A perceptron with one hidden layer, L1 and L2 regularization, the data in shared variables."""

import numpy as np
import theano
import theano.tensor as T
from ending import Training, steps

random = np.random.RandomState(1)
floatX = theano.config.floatX
BATCH, HIDDEN = 50, 500


def uniform(n_in, n_out):
    bound = np.sqrt(6.0 / (n_in + n_out))
    return random.uniform(-bound, bound, (n_in, n_out)).astype(floatX)


data = theano.shared(random.rand(1000, 784).astype(floatX), borrow=True)
labels = T.cast(theano.shared(random.randint(10, size=1000).astype(floatX), borrow=True), "int32")
index, x, y = T.lscalar("index"), T.matrix("x"), T.ivector("y")

W1, b1 = theano.shared(uniform(784, HIDDEN), name="W1"), theano.shared(np.zeros(HIDDEN, floatX), name="b1")
W2, b2 = theano.shared(np.zeros((HIDDEN, 10), floatX), name="W2"), theano.shared(np.zeros(10, floatX), name="b2")
params = [W1, b1, W2, b2]
hidden = T.tanh(T.dot(x, W1) + b1)
p_y = T.nnet.softmax(T.dot(hidden, W2) + b2)
nll = -T.mean(T.log(p_y)[T.arange(y.shape[0]), y])
cost = nll + 0.001 * (abs(W1).sum() + abs(W2).sum()) + 0.0001 * ((W1**2).sum() + (W2**2).sum())
errors = T.mean(T.neq(T.argmax(p_y, axis=1), y))

rows = slice(index * BATCH, (index + 1) * BATCH)
givens = {x: data[rows], y: labels[rows]}
test = theano.function([index], errors, givens=givens)
gradients = [T.grad(cost, p) for p in params]
train = theano.function([index], cost, updates=[(p, p - 0.01 * g) for p, g in zip(params, gradients)], givens=givens, name="train")

training = Training()
for i in range(steps(40)):
    training.step(train, i % 20)
wrong = [test(i) for i in range(5)]
print("errors", np.mean(wrong))
training.finish([p.get_value() for p in params] + wrong)

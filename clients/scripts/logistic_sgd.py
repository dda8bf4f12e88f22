"""Logistic regression by minibatch gradient descent, with the data in shared variables and `givens`."""

import numpy as np
import theano
import theano.tensor as T
from ending import Training, steps

random = np.random.RandomState(1)
BATCH = 100


class LogisticRegression:
    def __init__(self, x, n_in, n_out):
        self.W = theano.shared(np.zeros((n_in, n_out), theano.config.floatX), name="W", borrow=True)
        self.b = theano.shared(np.zeros(n_out, theano.config.floatX), name="b", borrow=True)
        self.p_y = T.nnet.softmax(T.dot(x, self.W) + self.b)
        self.y_pred = T.argmax(self.p_y, axis=1)
        self.params = [self.W, self.b]

    def negative_log_likelihood(self, y):
        return -T.mean(T.log(self.p_y)[T.arange(y.shape[0]), y])

    def errors(self, y):
        return T.mean(T.neq(self.y_pred, y))


def shared_dataset(size):
    images = theano.shared(random.rand(size, 784).astype(theano.config.floatX), borrow=True)
    labels = theano.shared(random.randint(10, size=size).astype(theano.config.floatX), borrow=True)
    return images, T.cast(labels, "int32")


train_x, train_y = shared_dataset(1000)
valid_x, valid_y = shared_dataset(300)
index, x, y = T.lscalar("index"), T.matrix("x"), T.ivector("y")
classifier = LogisticRegression(x, 784, 10)
cost = classifier.negative_log_likelihood(y)
part = slice(index * BATCH, (index + 1) * BATCH)
validate = theano.function([index], classifier.errors(y), givens={x: valid_x[part], y: valid_y[part]})
updates = [(p, p - 0.13 * T.grad(cost, p)) for p in classifier.params]
train = theano.function([index], cost, updates=updates, givens={x: train_x[part], y: train_y[part]}, name="train")

training = Training()
for i in range(steps(40)):
    training.step(train, i % 10)
errors = [validate(i) for i in range(3)]
print("errors on the other data", np.mean(errors))
training.finish([p.get_value() for p in classifier.params] + errors)

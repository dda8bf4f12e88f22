"""A Bayesian neural network with two hidden layers, by ADVI."""

import numpy as np
import pymc3 as pm
import theano.tensor as tt
from ending import steps
from sampling import fit

random = np.random.RandomState(4)
HIDDEN = 20
x = random.normal(0, 1, (500, 2))
y = (np.sin(2 * x[:, 0]) > x[:, 1]).astype(int)

with pm.Model():
    first = pm.Normal("first", 0, 1, shape=(2, HIDDEN), testval=random.normal(0, 1, (2, HIDDEN)))
    second = pm.Normal("second", 0, 1, shape=(HIDDEN, HIDDEN), testval=random.normal(0, 1, (HIDDEN, HIDDEN)))
    last = pm.Normal("last", 0, 1, shape=HIDDEN, testval=random.normal(0, 1, HIDDEN))
    hidden = tt.tanh(tt.dot(tt.tanh(tt.dot(x, first)), second))
    pm.Bernoulli("y", pm.math.sigmoid(tt.dot(hidden, last)), observed=y)
    fit(steps(2000))

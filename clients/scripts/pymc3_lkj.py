"""A covariance with an LKJ prior by NUTS: 200 points of a normal distribution in five dimensions."""

import numpy as np
import pymc3 as pm
from ending import steps
from sampling import sample

random = np.random.RandomState(2)
SIDE = 5
mixing = np.tril(random.normal(0, 1, (SIDE, SIDE))) + 2 * np.eye(SIDE)
points = random.normal(0, 1, (200, SIDE)) @ mixing.T + random.normal(0, 1, SIDE)

with pm.Model():
    packed = pm.LKJCholeskyCov("packed", n=SIDE, eta=2.0, sd_dist=pm.HalfCauchy.dist(2.5))
    cholesky = pm.expand_packed_triangular(SIDE, packed, lower=True)
    pm.Deterministic("covariance", cholesky.dot(cholesky.T))
    pm.MvNormal("points", pm.Normal("mean", 0, 5, shape=SIDE), chol=cholesky, observed=points)
    sample(steps(60), tune=80)

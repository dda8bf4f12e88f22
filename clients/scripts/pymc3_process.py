"""A Gaussian process of 150 points by NUTS: lengthscale, height and noise, by the marginal likelihood."""

import numpy as np
import pymc3 as pm
from ending import steps
from sampling import sample

random = np.random.RandomState(3)
x = np.sort(random.uniform(0, 10, 150))[:, None]
y = np.sin(x[:, 0]) + random.normal(0, 0.3, 150)

with pm.Model():
    length, height = pm.Gamma("length", 2, 1), pm.HalfNormal("height", 2)
    process = pm.gp.Marginal(cov_func=height**2 * pm.gp.cov.Matern52(1, length))
    process.marginal_likelihood("y", X=x, y=y, noise=pm.HalfNormal("noise", 1))
    sample(steps(40), tune=40)

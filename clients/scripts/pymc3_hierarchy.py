"""A hierarchical regression by NUTS: radon-like measurements of 40 counties, an intercept and a slope for each."""

import numpy as np
import pymc3 as pm
from ending import steps
from sampling import sample

random = np.random.RandomState(1)
COUNTIES, HOUSES = 40, 800
county = random.randint(COUNTIES, size=HOUSES)
floor = random.randint(2, size=HOUSES).astype(float)
level = random.normal(1.5, 0.4, COUNTIES)[county] - 0.6 * floor + random.normal(0, 0.7, HOUSES)

with pm.Model():
    mean_a, sd_a = pm.Normal("mean_a", 0, 5), pm.HalfCauchy("sd_a", 2)
    mean_b, sd_b = pm.Normal("mean_b", 0, 5), pm.HalfCauchy("sd_b", 2)
    a = pm.Deterministic("a", mean_a + sd_a * pm.Normal("offset_a", 0, 1, shape=COUNTIES))
    b = pm.Deterministic("b", mean_b + sd_b * pm.Normal("offset_b", 0, 1, shape=COUNTIES))
    pm.Normal("level", a[county] + b[county] * floor, pm.HalfCauchy("noise", 2), observed=level)
    sample(steps(100), tune=150)

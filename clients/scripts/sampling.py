"""PyMC3's sampler and variational inference, observed: the energy or loss of every draw, and the processor time that it took."""

from __future__ import annotations

import logging
import warnings

warnings.filterwarnings("ignore")
import pymc3 as pm  # noqa: E402
from ending import Training  # noqa: E402

logging.getLogger("pymc3").setLevel(logging.ERROR)
SEED = 7


def sample(draws, tune):
    """NUTS, one chain, with the model of the context; prints and digests every variable of the trace."""
    training = Training(cpu=True)

    def drawn(trace, draw):
        training.note(draw.stats[0]["energy"] if draw.stats else draw.draw_idx)

    options = {"chains": 1, "cores": 1, "random_seed": SEED, "progressbar": False, "compute_convergence_checks": False}
    training.begin()
    trace = pm.sample(draws, tune=tune, callback=drawn, return_inferencedata=False, **options)
    training.finish([trace[name] for name in sorted(trace.varnames)])


def fit(steps):
    """ADVI; prints the losses and digests the parameters of the approximation.

    `pm.fit(method="advi")` takes the variables of the model out of a set, in the order of their addresses, and which of them gets which
    random numbers changes from run to run. Here the order is that of the model.
    """
    training = Training(cpu=True)
    variables = pm.modelcontext(None).free_RVs
    approximation = pm.Approximation([pm.Group(variables, vfam="mf", random_seed=SEED)])
    training.begin()
    pm.KLqp(approximation).fit(steps, progressbar=False, callbacks=[lambda approximation, losses, i: training.note(losses[-1])])
    training.finish([parameter.get_value() for parameter in approximation.params])

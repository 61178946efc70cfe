"""The samplers of the registry for diffusion priors, each at the least cost at which all of its parts are at work."""

import dataclasses

from genprior.samplers import SAMPLERS

# Those that take any measurement, or many kinds: none of one kind. DPIR is one, though it draws nothing.
OF_ONE_KIND = ("posterior-mean", "quantised", "quantised-mean")
DIFFUSION = [name for name, sampler in SAMPLERS.items() if sampler.needs == "denoise" and name not in OF_ONE_KIND]
# Of the parameters that cost time, as many as make every loop go round more than once.
LEAST = {
    "steps": 4,
    "iterations": 3,
    "ode_steps": 2,
    "prior_steps": 3,
    "jump": 2,
    "resamplings": 2,
    "travel": 2,
    "repeats": 2,
    "particles": 4,
}


def quick(name, **parameters):
    """The sampler of that name with the parameters of `LEAST`, or those given instead, that it has."""
    known = {field.name for field in dataclasses.fields(SAMPLERS[name])}
    return SAMPLERS[name](**{key: value for key, value in (LEAST | parameters).items() if key in known})

"""Posterior samplers by name."""

import dataclasses
import math

from genprior.operators.base import as_integer
from genprior.priors.base import Prior, UnsupportedError, supports
from genprior.registry import lookup
from genprior.samplers.base import Sampler
from genprior.samplers.diffpir import DiffPIR
from genprior.samplers.dps import DPS
from genprior.samplers.exact import Exact
from genprior.samplers.mmps import MMPS

SAMPLERS: dict[str, type[Sampler]] = {"dps": DPS, "diffpir": DiffPIR, "mmps": MMPS, "exact": Exact}


def find_sampler(sampler: str | Sampler, prior: Prior, steps: int | None = None) -> Sampler:
    """The sampler of a name, "auto" or an object, with `steps` in place of its own if given.

    Raises:
        ValueError: there is no such name, or the sampler takes no such number of steps.
        UnsupportedError: "auto" finds nothing for this prior.
    """
    if isinstance(sampler, str):
        sampler = lookup("sampler", sampler, {"auto": lambda: automatic(prior), **SAMPLERS})()
    if not isinstance(sampler, Sampler):
        raise ValueError(f"A sampler is a name or an object such as DPS(zeta=0.5), not {sampler!r}.")
    if steps is None:
        return sampler
    if not sampler.steps:
        raise ValueError(f"{type(sampler).__name__} has no steps; leave steps={steps!r} out.")
    return dataclasses.replace(sampler, steps=as_integer("steps", steps, 1, math.inf))


def automatic(prior: Prior) -> Sampler:
    """The sampler that measurements favour for what the prior has."""
    if supports(prior, "posterior"):
        return Exact()
    if supports(prior, "denoise"):
        return DiffPIR()
    raise UnsupportedError(
        f"No sampler works with {type(prior).__name__}, which has {', '.join(sorted(prior.capabilities))}."
    )

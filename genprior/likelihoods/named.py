"""Likelihoods by name, for command lines."""

import dataclasses

from genprior.likelihoods.base import Likelihood
from genprior.likelihoods.clipped import Clipped
from genprior.likelihoods.gaussian import Gaussian
from genprior.likelihoods.poisson import Poisson
from genprior.likelihoods.poisson_gaussian import PoissonGaussian
from genprior.likelihoods.quantised import Quantised
from genprior.registry import lookup

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "poisson": Poisson,
    "poisson-gaussian": PoissonGaussian,
    "quantised": Quantised,
    "clipped": Clipped,
}


def named(text: str) -> Likelihood:
    """Return the likelihood given by a name and its parameters in order: "poisson:0.033", "clipped:0,1,0.02".

    Raises:
        ValueError: the name is unknown, or the parameters do not fit it.
    """
    name, _, given = text.partition(":")
    kind = lookup("likelihood", name, LIKELIHOODS)
    fields = [field.name for field in dataclasses.fields(kind)]
    values = given.split(",")
    if len(values) != len(fields) or not all(map(_is_number, values)):
        raise ValueError(f"{text!r} is no likelihood: give {name}:{','.join(fields).upper()}, as numbers.")
    return kind(*map(float, values))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""Divergences between two distributions of images: in closed form, from log-densities, and from draws alone."""

from genprior.divergences.adversarial import adversarial_bound
from genprior.divergences.densities import jensen_shannon, monte_carlo_kl
from genprior.divergences.gaussian import gaussian_kl
from genprior.divergences.samples import mmd, sliced_wasserstein

__all__ = [
    "adversarial_bound",
    "gaussian_kl",
    "jensen_shannon",
    "mmd",
    "monte_carlo_kl",
    "sliced_wasserstein",
]

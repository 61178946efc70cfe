"""Priors: which images are plausible before anything is measured."""

from genprior.checks import UnsupportedError
from genprior.priors.base import Prior, supports
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture

__all__ = ["Gaussian", "GaussianMixture", "Prior", "UnsupportedError", "supports"]

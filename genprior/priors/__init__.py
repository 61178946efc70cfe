"""Priors: what is known of an image before it is measured."""

from genprior.priors.base import Prior, UnsupportedError, supports
from genprior.priors.gaussian import Gaussian
from genprior.priors.gaussian_mixture import GaussianMixture

__all__ = ["Gaussian", "GaussianMixture", "Prior", "UnsupportedError", "supports"]

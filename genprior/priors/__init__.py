"""Priors: what is known of an image before it is measured."""

from genprior.priors.base import Prior, UnsupportedError, supports
from genprior.priors.exact import Gaussian, GaussianMixture

__all__ = ["Gaussian", "GaussianMixture", "Prior", "UnsupportedError", "supports"]

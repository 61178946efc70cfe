"""Likelihoods: the law of a measurement y given z = A x, value by value."""

from genprior.likelihoods.base import Likelihood
from genprior.likelihoods.clipped import Clipped
from genprior.likelihoods.gaussian import Gaussian
from genprior.likelihoods.poisson import Poisson
from genprior.likelihoods.poisson_gaussian import PoissonGaussian
from genprior.likelihoods.quantised import Quantised

__all__ = ["Clipped", "Gaussian", "Likelihood", "Poisson", "PoissonGaussian", "Quantised"]

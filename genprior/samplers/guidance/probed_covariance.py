"""Guidance by a posterior covariance estimated along the chain, for denoisers without a measured one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import Shape
from genprior.likelihoods import Likelihood
from genprior.linalg import divide
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Covariance, Stationary
from genprior.samplers.guidance.base import Guidance
from genprior.samplers.guidance.optimal_covariance import OptimalCovariance
from genprior.samplers.turning import turning

BANDS = 10  # of spatial frequencies, evenly spaced in their logarithm
STEP = 0.1  # of the finite difference, in multiples of sigma
RATIOS = (1e-6, 1 - 1e-6)  # bounds of eigenvalues over sigma^2: a network's J is not symmetric


@dataclass(frozen=True)
class ProbedCovariance(OptimalCovariance):
    """`OptimalCovariance` with a covariance that one more evaluation estimates for each image in each step.

        V   = Cov[x | x_t] = sigma^2 J,   J = d x_hat / d x_t
        J z = (D(x_t + e z) - D(x_t)) / e,   e = sigma / 10

    with z ~ N(0, I). Over the coordinates of a band of frequencies, sum z J z / sum z^2 estimates the mean eigenvalue
    of J (M. F. Hutchinson, 1990), separately for the mean over colours and for their differences. V is taken to be
    stationary with that spectrum, which is right on average over an image, not at each place. This needs neither images
    nor a backward pass.

    References: S. Rissanen, M. Heinonen, A. Solin, Free hunch: denoiser covariance estimation for diffusion models
    without extra costs, 2025 (there, from the steps of the chain); F. Rozet et al., 2024, see `MMPS`.

    Attributes:
        steps, eta, start, integrator, iterations, turns: see `OptimalCovariance`.
    """

    passes: ClassVar[int] = 2

    def lacks(self, prior: Prior, operator: Operator, likelihood: Likelihood | None = None) -> str | None:
        return Guidance.lacks(self, prior, operator, likelihood)

    def chains(self, n: int) -> int:
        return 2 * n

    def moments(self, prior: Prior, like: Tensor) -> Callable[[Tensor, float], tuple[Tensor, Covariance]]:
        denoise = turning(prior.denoise) if self.turns else prior.denoise
        basis = Stationary(torch.ones(like.shape[1:]), cosines(like.shape[1])).to(like)
        bands, z = frequency_bands(tuple(like.shape[1:])).to(like), Noise(0, [0])(like[:1])

        def moments_given(x_t: Tensor, sigma: float) -> tuple[Tensor, Covariance]:
            e = STEP * sigma
            # in one call: the next may see the image turned in another way
            x_hat, moved = denoise(torch.cat([x_t, x_t + e * z]), sigma).chunk(2)
            ratios = in_bands(basis, bands, z, (moved - x_hat) / e).clamp(*RATIOS)
            eigenvalues = sigma**2 * torch.einsum("bck,hwk->bchw", ratios.logit(), bands).sigmoid()
            return x_hat, basis.with_eigenvalues(eigenvalues)

        return moments_given


def in_bands(basis: Stationary, bands: Tensor, z: Tensor, Jz: Tensor) -> Tensor:
    """<z, J z> / <z, z> over the coordinates of each field and band, (B, C, K); 0 for empty bands."""
    a, b = basis.coefficients(z), basis.coefficients(Jz)
    bands = bands[:, : a.shape[-2]]  # the coordinates cover half of the frequencies
    product, square = ((a * each).sum(-1) for each in (b, a))
    # small images leave bands empty
    return divide(torch.einsum("bchw,hwk->bck", product, bands), torch.einsum("bchw,hwk->bck", square, bands))


def frequency_bands(image_shape: Shape) -> Tensor:
    """The weight of each band at each frequency, (H, W, K): hat functions of the logarithm; the first includes 0."""
    rows, columns = (torch.fft.fftfreq(n).abs() for n in image_shape[1:])
    radius = torch.hypot(rows[:, None], columns)
    lowest = 1 / max(image_shape[1:])
    place = (radius / lowest).clamp_min(1).log()
    place = place / place.max().clamp_min(1e-9) * (BANDS - 1)
    return (1 - (place[..., None] - torch.arange(BANDS)).abs()).clamp_min(0)


def cosines(C: int) -> Tensor:
    """An orthonormal basis of colours, its columns: their mean, then ever finer differences (DCT-II)."""
    k, c = torch.arange(C), torch.arange(C) + 0.5
    Q = torch.cos(math.pi / C * c[:, None] * k)
    return Q / Q.norm(dim=0)

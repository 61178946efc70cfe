"""DPIR: denoise and fit the measurement in turn, at decreasing noise levels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.checks import Fraction, Positive
from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior, as_level
from genprior.samplers.base import Sampler, start
from genprior.samplers.turning import turning


@dataclass(frozen=True)
class DPIR(Sampler):
    """Half-quadratic splitting with a denoiser, along noise levels that fall to the noise of the measurement.

        x_y = argmin_x |y - A x|^2 + weight noise^2 / sigma^2 |x - x_hat|^2
        x_hat = E[x | x_t = x_y + s n],   n ~ N(0, I)

    A point estimate: all samples are the same, n too. Published is s = 0. But a network of photographs, told of noise
    that is not there, may invent stripes and speckles, which grow from step to step; so s makes up what x_y lacks of
    `grain` sigma. Where y sees all of the image, as for blurs and super-resolution, its squared error is about that of
    the mean of four draws of DiffPIR, at the cost of one (docs/results.md). It fills large holes with what `start`
    supplies.

    References: K. Zhang et al., Plug-and-play image restoration with deep denoiser prior, 2021.

    Attributes:
        steps: evaluations of the denoiser; published: 8 for deblurring, 24 for super-resolution.
        weight: lambda, the weight of the denoised image against the measurement; published: 0.23. None for 0.1 where
            data steps let little noise into the image, as for super-resolution and wide Gaussian blurs, and for 0.2
            elsewhere: with less, motion blurs leave stripes that grow from step to step.
        first: the first noise level, in multiples of the prior's spread; published: 0.77.
            The last is the noise of the measurement, as published.
        grain: the noise in what the network sees, in multiples of sigma, if y lets in less; "auto" gives 0.7 to
            networks of photographs of any size. Those of digits and flowers lose by it.
        turns: whether each step sees the image turned or mirrored in another way, as published (see `turning`).
    """

    steps: int = 20
    weight: Positive | None = None
    first: Positive = 0.8
    grain: Fraction = 0.0
    turns: bool = False

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        y, A = measurement.y, measurement.linear
        denoise = turning(prior.denoise) if self.turns else prior.denoise
        x_hat = start(prior, measurement)
        sd = as_level(measurement.sd, y)
        last = sd.clamp_min(prior.sigma_min)
        high = last.clamp_min(min(self.first * prior.spread, prior.sigma_max))
        still = Noise(0, torch.zeros(len(y), dtype=torch.long))  # of no seed, and the same for all images
        z = still(y)
        weight = calm_weight(A, z) if self.weight is None else self.weight
        for share in torch.linspace(0, 1, self.steps).tolist():
            sigma = high ** (1 - share) * last**share
            gamma = sigma**2 / (weight * sd**2)
            x_y = A.prox(x_hat, y, gamma)
            if self.grain:
                lacking = (self.grain * sigma) ** 2 - (sd * let_in(A, z, gamma)) ** 2
                x_y = x_y + lacking.clamp_min(0).sqrt() * still(x_y)
            x_hat = denoise(x_y, sigma)
        return x_hat


def calm_weight(A: LinearOperator, z: Tensor) -> Tensor:
    """0.1 where the data step at sigma = 4 noise lets in noise of less than 0.7 sigma, else 0.2: (B, 1, 1, 1).

    0.7 lies between 0.55 (Gaussian blur of width 1.5) and 0.84 (width 1), on photographs that no table contains.

    Arguments:
        z: white noise in place of y.
    """
    return torch.where(let_in(A, z, 4.0**2 / 0.1) < 0.7 * 4.0, 0.1, 0.2).to(z)


def let_in(A: LinearOperator, z: Tensor, gamma: float | Tensor) -> Tensor:
    """The standard deviation of the noise that a data step takes over from y of noise z, (B, 1, 1, 1)."""
    return A.prox(z.new_zeros(len(z), *A.image_shape), z, gamma).square().mean((1, 2, 3), keepdim=True).sqrt()

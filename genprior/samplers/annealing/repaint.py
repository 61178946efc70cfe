"""RePaint: set the known pixels at every noise level, and step back and forth until the rest agrees with them."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, UnsupportedError
from genprior.noise import Noise
from genprior.operators.linear import SVD, LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, begin, first_level
from genprior.samplers.integrate import ancestral_step, geometric


@dataclass(frozen=True)
class RePaint(Sampler):
    """Take ancestral steps on the whole image, and after each draw the known pixels anew from y.

        x' ~ q(x' | x_t, x_hat)                                    where A does not see
        x' = y + sqrt(sigma'^2 - noise^2) n                        where it does, while sigma' >= noise

    with sigma' the next level: the law of x + sigma' n given y under a flat prior. Each stretch of `jump` steps runs
    `resamplings` times, each repeat after adding the noise that leads back to where the stretch began, as the unseen
    pixels of one step do not know the seen ones of the next.

    The published method assumes no noise. Below its noise level y has nothing to add: x_t carries y with less than
    (ratio of levels) times y's own noise, and the free chain draws from p(x | x_t), without resampling, which would
    forget y. (Those repeats are computed all the same, and discarded, as images of a batch may have different noise.)
    The operator needs an `svd` with singular values 0 and 1, as inpainting masks have.

    References: A. Lugmayr et al., RePaint: inpainting using denoising diffusion probabilistic models, 2022.

    Attributes:
        steps: noise levels; published: 250.
        jump: steps of a stretch; published: 10.
        resamplings: r, how often each stretch runs; published: 10.
        start: first noise level, in multiples of the prior's spread, with x started from the measurement (see `begin`);
            None for sigma_max.
    """

    needs_operator: ClassVar[str | None] = "projection"
    steps: int = 250
    jump: Count = 10
    resamplings: Count = 10
    start: float | None = None

    def check_operator(self, prior: Prior, operator: LinearOperator) -> None:
        projection(operator)

    @property
    def calls(self) -> int:
        last = self.steps % self.jump or min(self.jump, self.steps)
        return self.steps * self.resamplings - last * (self.resamplings - 1)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        svd = projection(measurement.linear)
        y = svd.Ut(measurement.y)
        seen = svd.singular_values.to(y) > 0.5
        level = torch.as_tensor(measurement.sd, dtype=y.dtype, device=y.device)

        def descend(x: Tensor, sigmas: list[float]) -> Tensor:
            for sigma, sigma_next in pairwise(sigmas):
                x = ancestral_step(x, prior.denoise(x, sigma), sigma, sigma_next, noise)
                known = y + (sigma_next**2 - level**2).clamp_min(0).sqrt() * noise(x)
                x = svd.V(torch.where(seen & (sigma_next >= level), known, svd.Vt(x)))
            return x

        sigmas = geometric(first_level(prior, self.start), prior.sigma_min, self.steps)
        x = begin(prior, measurement, sigmas[0], noise)
        *before, last = stretches(sigmas, self.jump)
        for stretch in before:
            x = descend(x, stretch)
            for _ in range(self.resamplings - 1):
                back = x + math.sqrt(stretch[0] ** 2 - stretch[-1] ** 2) * noise(x)
                x = torch.where(stretch[-1] >= level, descend(back, stretch), x)
        return descend(x, last)


def stretches(sigmas: list[float], length: int) -> list[list[float]]:
    """The levels in pieces of `length` steps, the last possibly shorter; each starts where the one before ends."""
    return [sigmas[i : i + length + 1] for i in range(0, len(sigmas) - 1, length)]


def projection(operator: LinearOperator) -> SVD:
    """The SVD of an operator whose singular values are 0 and 1, to rounding."""
    svd = operator.svd()
    s = svd.singular_values
    if not bool(((s.abs() < 1e-6) | ((s - 1).abs() < 1e-6)).all()):
        raise UnsupportedError(
            f"RePaint inserts known values: it needs an operator with singular values 0 and 1, such as inpainting; "
            f"those of {type(operator).__name__} reach from {float(s.min()):.3g} to {float(s.max()):.3g}. "
            'Take sampler="ddnm" or "ddrm", which take any singular values.'
        )
    return svd

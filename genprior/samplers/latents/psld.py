"""Posterior sampling with latent diffusion: DPS in the latents, pulled towards latents that re-encode to themselves."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import NonNegative, Positive
from genprior.linalg import divide, inner, norm
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler
from genprior.samplers.integrate import ancestral_step, variance_preserving


@dataclass(frozen=True)
class PSLD(Sampler):
    """Draw w by ancestral steps, each followed by a gradient step of fixed scale down two norms; x = G(w).

        w_hat = E[w | w_t],   x_hat = G(w_hat),   x* = x_hat + A^T (A A^T + noise^2 / spread^2 I)^-1 (y - A x_hat)
        z_next <- ancestral(z_t, w_hat) - grad_{z_t} (omega |y - A x_hat| + gamma |w_hat - E(x*)|)

    in the variance-preserving coordinates z = w_t / sqrt(1 + (sigma / spread)^2), latents in multiples of their spread
    and images of `unit`, as published; E is the encoder. The published x* = A^T y + (I - A^T A) x_hat holds where
    A A^T = I and y has no noise; there ours is the same. With gamma = 0 this is DPS through the decoder, which maps
    many w to each image, most of them not the latents of any image.

    The noise of y hardly enters, and the decoder's variance not at all: the method is not calibrated.

    References: L. Rout, N. Raoof, G. Daras, C. Caramanis, A. G. Dimakis, S. Shakkottai, Solving linear inverse problems
    provably via posterior sampling with latent diffusion models, 2023.

    Attributes:
        omega: step size of the measurement; published: 0.1, and 0.9 for super-resolution.
        gamma: step size of the term that glues w to E(x*); published: 0.1.
        steps: published: 1000.
        unit: half the range of x; the paper's images live on [-1, 1], ours on [0, 1].
    """

    needs: ClassVar[str] = "render"
    omega: NonNegative = 0.1
    gamma: NonNegative = 0.1
    steps: int = 1000
    unit: Positive = 0.5

    @property
    def calls(self) -> int:
        return self.steps + 1

    @property
    def evaluations(self) -> int:
        # of denoiser, decoder and encoder, each forward and backward
        return 6 * self.steps + 1

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        latents = prior.latents
        y, A, known = measurement.y, measurement.linear, measurement.seen
        trust = (prior.spread / measurement.sd) ** 2
        spread = latents.spread
        sigmas = variance_preserving(latents.sigma_max, latents.sigma_min, self.steps, spread)
        w = latents.centre + sigmas[0] * noise(y.new_empty(len(y), *latents.image_shape))
        for sigma, sigma_next in pairwise(sigmas):
            with torch.enable_grad():
                w = w.detach().requires_grad_()
                w_hat = latents.denoise(w, sigma)
                x_hat = prior.render(w_hat)
                misfit = length(known * (y - A(x_hat))) / self.unit
                gluing = length(w_hat - prior.encode(A.prox(x_hat, y, trust))) / spread
                (pull,) = torch.autograd.grad((self.omega * misfit + self.gamma * gluing).sum(), w)
            w = ancestral_step(w.detach(), w_hat.detach(), sigma, sigma_next, noise)
            # |w_t| / |z_t| once for the gradient and once for the step
            dilation = math.sqrt((1 + (sigma / spread) ** 2) * (1 + (sigma_next / spread) ** 2))
            w = w - spread**2 * dilation * pull
        return prior.render(w)


def length(r: Tensor) -> Tensor:
    """|r| of each row, with the gradient r / |r|, which is 0 for r = 0."""
    return inner(divide(r, norm(r)).detach(), r)

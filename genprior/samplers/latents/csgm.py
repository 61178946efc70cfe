"""CSGM: the image whose latent explains the measurement best."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor

from genprior.checks import Count, NonNegative, Positive
from genprior.linalg import inner
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.adam import Adam
from genprior.samplers.base import Sampler
from genprior.samplers.latents.latent_hmc import decoder_variance


@dataclass(frozen=True)
class CSGM(Sampler):
    """Search the range of a decoder by gradient descent on the latent, from several starts.

        z* = argmin_z |y - A(G(z))|^2 + penalty |z|^2,   x = G(z*)

    by Adam from z ~ N(0, I), keeping the restart of least objective. A point estimate: samples differ only in the
    minimum they found, and their spread says nothing about p(x | y). With penalty = noise^2 and v = 0, z* is the mode
    of p(z | y).

    `CSGM()` has the published parameters for a VAE of digits, `CSGM(steps=500, restarts=2, lr=0.1, penalty=0.00025)`
    those for a DCGAN of faces (there 0.001, for images in [-1, 1]).

    References: A. Bora, A. Jalal, E. Price, A. G. Dimakis, Compressed sensing using generative models, 2017.

    Attributes:
        steps: of Adam; published: 1000 for digits, 500 for faces.
        restarts: published: 10 and 2. They run side by side, so memory grows with them.
        lr: learning rate of Adam; published: 0.01 and 0.1.
        penalty: of |z|^2, in squared units of x; published: 0.1 and 0.001. None for noise^2 + v, the posterior's own
            where A A^T = I: the better choice for few measured values, which a penalty of 0.1 would outweigh.
    """

    needs: ClassVar[str] = "decode"
    linear: ClassVar[bool] = False
    steps: int = 1000
    restarts: Count = 10
    lr: Positive = 0.01
    penalty: NonNegative | None = 0.1

    def chains(self, n: int) -> int:
        return n * self.restarts

    @property
    def calls(self) -> int:
        return self.steps + 1

    @property
    def evaluations(self) -> int:
        return self.restarts * (2 * self.steps + 1)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        B = len(measurement.y)
        each = measurement.select(torch.arange(B).repeat_interleave(self.restarts))
        penalty = self._penalty(prior, each)
        starts = noise(each.y.new_empty(B, self.restarts, *prior.latent_shape))
        z = starts.flatten(0, 1)
        # Adam works element by element, so rows are independent.
        adam = Adam(self.lr)
        for _ in range(self.steps):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                objective, _ = _objective(prior, each, z, penalty)
            (gradient,) = torch.autograd.grad(objective, z, torch.ones_like(objective))
            z = z.detach() - adam(gradient)
        objective, x = _objective(prior, each, z, penalty)
        objective = rearrange(objective.nan_to_num(nan=math.inf, posinf=math.inf), "(b r) -> b r", b=B)
        x = rearrange(x, "(b r) ... -> b r ...", b=B)
        return x[torch.arange(B, device=x.device), objective.argmin(1)]

    def _penalty(self, prior: Prior, measurement: Measurement) -> float | Tensor:
        if self.penalty is not None:
            return self.penalty
        return torch.as_tensor(measurement.sd**2 + decoder_variance(prior)).to(measurement.y).flatten()


def _objective(prior: Prior, measurement: Measurement, z: Tensor, penalty: float | Tensor) -> tuple[Tensor, Tensor]:
    """|y - A G(z)|^2 + penalty |z|^2, (B,), and G(z)."""
    x = prior.decode(z)
    r = measurement.y - measurement.operator(x)
    return inner(r, r).flatten() + penalty * z.square().flatten(1).sum(1), x

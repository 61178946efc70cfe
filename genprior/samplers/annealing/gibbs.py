"""Split Gibbs sampling: an image that fits y and one that fits the prior, drawn in turn, ever closer together."""

from dataclasses import dataclass

from torch import Tensor

from genprior.checks import Count, Fraction, Positive
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, start
from genprior.samplers.integrate import ancestral, karras


@dataclass(frozen=True)
class SplitGibbs(Sampler):
    """PnP-DM: Gibbs sampling of p(x) N(z; x, rho^2 I) N(y; A z, noise^2 I), with rho falling to rho_min.

        z ~ p(z | x, y), a Gaussian in closed form
        x ~ p(x | z), the reverse diffusion from sigma = rho, started at z
        rho_k = max(rho_min, rho_0 decay^k) spread

    At the last rho, x has the posterior of a measurement with the noise covariance noise^2 I + rho^2 A A^T instead of
    noise^2 I: wider than the true one unless rho_min is well below noise / spread. The smaller rho, the more tightly
    x and z constrain each other, and the more slowly the chain moves: what does not settle while rho falls stays as
    it is.

    References: Z. Wu et al., Principled probabilistic imaging using diffusion models as plug-and-play priors, 2024.

    Attributes:
        steps: pairs of draws, the last x of which is the draw; published: 100, the last 60 of them kept as draws.
        prior_steps: noise levels of each reverse diffusion; published: 100 from 80 to 0.002, of which the
            30 to 70 below rho are used.
        rho_0: in multiples of the prior's spread; published: 10 on [-1, 1], where the spread is about 0.5.
        rho_min: in multiples of the prior's spread; published: 0.6 for linear operators, in the same units. Ours is
            smaller, as 0.6 drowns a noise of 0.1: see the table of errors.
        decay: of rho in each step; published: 0.9.
    """

    steps: int = 100
    prior_steps: Count = 20
    rho_0: Positive = 20.0
    rho_min: Positive = 0.1
    decay: Fraction = 0.9

    @property
    def calls(self) -> int:
        return self.steps * self.prior_steps

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        spread, sigma_min, sigma_max = prior.spread, prior.sigma_min, prior.sigma_max
        x = start(prior, measurement)
        for k in range(self.steps):
            rho = max(self.rho_min, self.rho_0 * self.decay**k) * spread
            rho = min(max(rho, sigma_min), sigma_max)
            z = gaussian_draw(measurement, x, rho, noise)
            x = ancestral(prior.denoise, z, karras(rho, sigma_min, self.prior_steps), noise)
        return x


def gaussian_draw(measurement: Measurement, mean: Tensor, sd: float | Tensor, noise: Noise) -> Tensor:
    """A draw from N(x; mean, sd^2 I) N(y; A x, noise^2 I), normalised: perturb mean and y, then take the mode.

    References: G. Papandreou, A. Yuille, Gaussian sampling by local perturbations, 2010.
    """
    y, A, level = measurement.y, measurement.linear, measurement.sd
    return A.prox(mean + sd * noise(mean), y + level * noise(y), (sd / level) ** 2)

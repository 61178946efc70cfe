"""Metropolis-within-Gibbs: image and latent of a variational auto-encoder, in turn."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, Range
from genprior.linalg import inner, per_row
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, start
from genprior.samplers.chains.mcmc import FEWEST, Trace
from genprior.samplers.latents.latent_hmc import decoder_variance, image_given


@dataclass(frozen=True)
class VAEGibbs(Sampler):
    """Draw x and z in turn; the encoder's q(z | x) proposes z, and a Metropolis test corrects its errors.

        x ~ p(x | z, y), a Gaussian in closed form
        z' ~ q(z | x), accepted with probability min(1, w(z') / w(z)),   w(z) = p(x | z) p(z) / q(z | x)
        z' = z + 2.38 / sqrt(dim z) sd n, accepted with probability min(1, p(x | z') p(z') / (p(x | z) p(z)))

    with p(x | z) = N(G(z), v I) and sd the standard deviation of q(z | x). Exact for the auto-encoder's own
    posterior as `steps` grows, whatever q is. In `burn_in`, the pseudo-Gibbs sampler accepts every proposal of q: it
    finds the region, but is biased where q is wrong. The published method, for missing pixels, has only the first two
    lines. But x here has the grain sqrt(v) n, which the encoder did not see in training: for an auto-encoder of digits,
    q was so far off that none of its proposals was accepted, and only the random walk of the third line moves the
    chain.

    With small v, x and z pin each other and the chain moves slowly: see the diagnostics. `LatentHMC` integrates x out.

    Diagnostics: "acceptance" of the proposals of q, "local acceptance" of the random walk, "ess" and "rhat" over
    `steps`, of all draws of an image (see `mcmc`).

    References: P.-A. Mattei, J. Frellsen, Leveraging the exact likelihood of deep latent variable models, 2018. D. J.
    Rezende, S. Mohamed, D. Wierstra, Stochastic backpropagation and approximate inference in deep generative models,
    2014, for the pseudo-Gibbs sampler. L. Tierney, Markov chains for exploring posterior distributions, 1994, for
    combining both proposals. G. O. Roberts, A. Gelman, W. R. Gilks, Weak convergence and optimal scaling of random walk
    Metropolis algorithms, 1997, for 2.38.

    Attributes:
        steps: steps with the Metropolis tests; the last state is the draw. At least 4.
        burn_in: steps of the pseudo-Gibbs sampler before those.
    """

    needs: ClassVar[str] = "infer"
    steps: Annotated[int, Range(FEWEST)] = 200
    burn_in: Count = 20

    @property
    def calls(self) -> int:
        return self.burn_in + self.steps

    @property
    def evaluations(self) -> int:
        return 2 * self.burn_in + 3 * self.steps

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        v = decoder_variance(prior)
        if not v > 0:
            raise ValueError(
                f"{type(prior).__name__} has the decoder variance {v}: x and z then determine each other, and neither "
                'moves. Take sampler="latent".'
            )
        x = start(prior, measurement)
        for _ in range(self.burn_in):
            mean, sd = prior.infer(x)
            latent = _Latent.at(mean + sd * noise(mean), prior)
            x = image_given(latent.x_hat, v, measurement, noise)

        trace, acceptances = Trace(latent.z), []
        scale = 2.38 / math.sqrt(mean[0].numel())
        for _ in range(self.steps):
            mean, sd = prior.infer(x)
            proposal = _Latent.at(mean + sd * noise(mean), prior)
            gain = proposal.log_joint(x, v) - latent.log_joint(x, v)
            gain = gain - _log_normal(proposal.z, mean, sd) + _log_normal(latent.z, mean, sd)
            latent, acceptance = _test(gain, proposal, latent, noise)

            proposal = _Latent.at(latent.z + scale * sd * noise(mean), prior)
            gain = proposal.log_joint(x, v) - latent.log_joint(x, v)
            latent, local = _test(gain, proposal, latent, noise)

            x = image_given(latent.x_hat, v, measurement, noise)
            trace.append(latent.z, -latent.log_joint(x, v))
            acceptances.append(torch.stack([acceptance, local]))
        acceptance, local = torch.stack(acceptances).mean(0)
        return x, {"acceptance": acceptance, "local acceptance": local, **trace.diagnose(noise.image)}


@dataclass(frozen=True, eq=False)
class _Latent:
    """z and the decoder's mean x_hat = G(z)."""

    z: Tensor
    x_hat: Tensor

    @classmethod
    def at(cls, z: Tensor, prior: Prior) -> "_Latent":
        return cls(z, prior.decode(z))

    def log_joint(self, x: Tensor, v: float) -> Tensor:
        """ln p(x | z) + ln p(z) + const, (B,)."""
        r = x - self.x_hat
        return -inner(r, r).flatten() / (2 * v) - self.z.square().flatten(1).sum(1) / 2


def _test(gain: Tensor, proposal: _Latent, latent: _Latent, noise: Noise) -> tuple[_Latent, Tensor]:
    """The proposal with probability min(1, exp(gain)), (B,), else the unchanged latent; and that probability."""
    acceptance = gain.clamp(max=0).exp().nan_to_num(nan=0.0)
    accepted = noise.uniform(acceptance) < acceptance
    z = torch.where(per_row(accepted, latent.z), proposal.z, latent.z)
    x_hat = torch.where(per_row(accepted, latent.x_hat), proposal.x_hat, latent.x_hat)
    return _Latent(z, x_hat), acceptance


def _log_normal(z: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """ln q(z | x) + const of z, (B,)."""
    return -((z - mean) / sd).square().flatten(1).sum(1) / 2

"""Decoupled annealing in the latents of a decoder, with a diffusion as the prior of the latents."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, Positive
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.annealing.daps import moments
from genprior.samplers.base import Sampler, first_level
from genprior.samplers.chains.mcmc import DualAveraging, Point, transition
from genprior.samplers.integrate import geometric
from genprior.samplers.latents.fisher_hmc import information_metric
from genprior.samplers.latents.latent_hmc import decoder_variance, image_given, posterior


@dataclass(frozen=True)
class LatentDAPS(Sampler):
    """Draw w from p(w | w_t, y), forget w_t, add the noise of the next level to w; at the end, draw x from p(x | w, y).

        w ~ N(w; w_hat, r^2 I) N(y; A G(w), noise^2 I + v A A^T),   w_hat = E[w | w_t],   r^2 = sigma^2 tr J / D
        w_t' = w + sigma' n

    with J = d w_hat / d w_t, D the number of values of w, and v the decoder's variance in x = G(w) + sqrt(v) m. The
    inner draw takes Hamiltonian transitions in e = (w - w_hat) / r, whose law without y is N(0, I), with the Fisher
    information at w_hat as mass (see `FisherHMC`) and a step size that adapts from level to level. Draws are exact for
    white Gaussian latents and linear decoders, once the transitions mix.

    Differences from the paper: its inner chain starts at w_hat, ours at the last w. If that had the law p(w | y), it
    has the law p(w | w_t, y) given w_t = w + sigma n, so two transitions suffice in place of 15 to 80 steps. The
    paper's gradients are those of |A G(w) - y|^2 / (2 0.01^2) whatever the noise, clipped, without the decoder's
    variance and without a Metropolis test. Its r is sigma; see `DAPS`. Our levels are evenly spaced in ln sigma.

    Diagnostics: "acceptance", the mean over all transitions.

    References: B. Zhang, W. Chu, J. Berner, C. Meng, A. Anandkumar, Y. Song, Improving diffusion inverse problem
    solving with decoupled noise annealing, 2025.

    Attributes:
        steps: noise levels; published: 50.
        transitions: of each inner chain.
        leapfrog: steps of each transition; published: 15 to 80 in all.
        probes: for each estimate of the mass, one backward pass each.
        start: the first level, in multiples of the latents' spread; published: 10.
    """

    needs: ClassVar[str] = "render"
    steps: int = 50
    transitions: Count = 2
    leapfrog: Count = 6
    probes: Count = 4
    start: Positive = 10.0

    @property
    def calls(self) -> int:
        # each level decodes for the mass, and for the energy at its first point
        return self.steps * (self.transitions * self.leapfrog + 2) + 1

    @property
    def evaluations(self) -> int:
        return 2 * self.calls - 1 + self.steps * (2 + self.probes - 1)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        v, latents = decoder_variance(prior), prior.latents
        spread = latents.spread
        sigmas = geometric(first_level(latents, self.start), latents.sigma_min, self.steps)
        n = noise(measurement.y.new_empty(len(measurement.y), *latents.image_shape))
        w_t = latents.centre + math.hypot(sigmas[0], spread) * n
        w = latents.denoise(w_t, sigmas[0])
        steps, acceptances = DualAveraging.of(n, self.leapfrog, 1 / 2), []
        for sigma, sigma_next in pairwise(sigmas):
            w_hat, r = moments(latents.denoise, w_t, sigma, spread, noise)
            around: Any = _Around(prior, w_hat, r)
            potential = posterior(around, v, measurement, measurement.sd)
            mass = information_metric(around, v, measurement, torch.zeros_like(w_hat), noise, self.probes)
            point = Point.at(potential, (w - w_hat) / r)
            for _ in range(self.transitions):
                point, acceptance = transition(potential, point, steps.step, self.leapfrog, noise, mass)
                steps.update(acceptance)
                acceptances.append(acceptance)
            w = w_hat + r * point.state
            w_t = w + sigma_next * noise(w) if sigma_next else w
        x = image_given(prior.render(w), v, measurement, noise)
        return x, {"acceptance": torch.stack(acceptances).mean(0)}


@dataclass(frozen=True, eq=False)
class _Around:
    """The decoder of e = (w - w_hat) / r, of law N(0, I), for functions of such latents."""

    prior: Prior
    w_hat: Tensor
    r: Tensor

    def decode(self, e: Tensor) -> Tensor:
        return self.prior.render(self.w_hat + self.r * e)

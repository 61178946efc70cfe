"""Objectives: each holds the networks it trains, and `forward(batch, step)` returns (loss, logs).

A batch is a dict: "x" images in [0, 1], (B, C, H, W); "item" their numbers in the run, (B,); optionally "label", (B,),
and "features", (B, F, H, W), the additional input of a DDPM with features.
Noise and dropped labels are keyed by (seed, item), steps and noise levels by the item alone (see `spread`), so that an
item's loss does not depend on the rest of its batch.
"""

import math

import torch
from torch import Tensor, nn

from genprior.ambient import deliberate
from genprior.noise import Noise
from genprior.priors.chain import UNIT
from genprior.priors.ddpm import DDPM
from genprior.training.data.order import spread

DROPPED = 0.1  # fraction of labels replaced by the null class, unless stated


class NoisePrediction(nn.Module):
    """The loss of the course: |eps - eps_hat(z_t)|^2 with t uniform over the steps of the chain, per value.

    Arguments:
        prior: the DDPM to train.
        seed: keys noise and dropped labels.
    """

    sigmas: Tensor

    def __init__(self, prior: DDPM, *, seed: int = 0):
        super().__init__()
        self.prior, self.seed = prior, seed
        alpha_bar = torch.tensor(prior.alpha_bars, dtype=torch.float64)
        self.register_buffer("sigmas", UNIT * ((1 - alpha_bar) / alpha_bar).sqrt(), persistent=False)

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        t = (spread(batch["item"]) * len(self.sigmas)).long()
        sigma = self.sigmas[t].float().reshape(-1, 1, 1, 1)
        error, s = _error(self.prior, batch, sigma, self.seed)
        loss = (error / s**2).mean()
        return loss, {"loss": loss.detach()}


class Denoising(nn.Module):
    """The same regression weighted to unit variance at every noise level, with sigma drawn where restoration needs it.

    ln sigma is logistic with the given median and scale, truncated to the prior's [sigma_min, sigma_max]: dense where
    structure is decided, with tails heavy enough to train pure noise, where samplers start, too. The weight
    1 / c_out^2 gives the target of the bare network unit variance (Karras et al., 2022).

    Arguments:
        prior: the DDPM to train.
        seed: keys noise and dropped labels.
        median: median of sigma, in the units of x.
        scale: scale of the logistic law of ln sigma.
        dropped: fraction of labels replaced by the null class, so that the prior learns images of any label too.
    """

    def __init__(
        self, prior: DDPM, *, seed: int = 0, median: float = 0.12, scale: float = 0.9, dropped: float = DROPPED
    ):
        super().__init__()
        self.prior, self.seed, self.median, self.scale, self.dropped = prior, seed, median, scale, dropped
        self.low, self.high = (
            1 / (1 + math.exp((math.log(median) - math.log(s)) / scale)) for s in (prior.sigma_min, prior.sigma_max)
        )

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        u = self.low + (self.high - self.low) * spread(batch["item"])
        sigma = (self.median * (self.scale * torch.logit(u)).exp()).float().reshape(-1, 1, 1, 1)
        error, s = _error(self.prior, batch, sigma, self.seed, self.dropped)
        _, c_out = self.prior.skip_and_out(s)
        loss = (error / c_out**2).mean()
        return loss, {"loss": loss.detach()}


class FlowMatching(nn.Module):
    """|v - v_hat(z, t)|^2 with v = u - n the velocity of the straight path z = t u + (1 - t) n, t uniform, per value.

    In the coordinates of the prior, u_t = z / t = u + s n with s = (1 - t) / t, and v - v_hat = (u - u_hat) / (1 - t).
    t is uniform between its values at sigma_max and sigma_min. The prior may have any `prediction`; the published
    method has "velocity".

    Arguments:
        prior: the DDPM to train.
        seed: keys noise and dropped labels.

    References: Y. Lipman et al., Flow matching for generative modeling, 2023.
    """

    def __init__(self, prior: DDPM, *, seed: int = 0):
        super().__init__()
        self.prior, self.seed = prior, seed
        self.low, self.high = (1 / (1 + sigma / UNIT) for sigma in (prior.sigma_max, prior.sigma_min))

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        t = self.low + (self.high - self.low) * spread(batch["item"])
        sigma = (UNIT * (1 - t) / t).float().reshape(-1, 1, 1, 1)
        error, s = _error(self.prior, batch, sigma, self.seed)
        loss = (error * ((1 + s) / s) ** 2).mean()
        return loss, {"loss": loss.detach()}


@deliberate
def _error(
    prior: DDPM, batch: dict[str, Tensor], sigma: Tensor, seed: int, dropped: float = DROPPED
) -> tuple[Tensor, Tensor]:
    """Return (u - u_hat)^2 on the network's scale [-1, 1], shaped like x, and s."""
    x, items = batch["x"], batch["item"]
    noise = Noise(seed, items)
    label = batch.get("label")
    if label is not None:
        kept = noise.uniform(sigma).flatten() >= dropped
        label = torch.where(kept, label, prior.classes)
    x_hat = prior.denoise(x + sigma * noise(x), sigma, label, features=batch.get("features"))
    return ((x - x_hat) / UNIT) ** 2, sigma / UNIT

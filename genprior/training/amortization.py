"""The loss of a learned posterior: denoising on pairs (x, y) that an operator generates on the fly."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genprior.nets.coupling import full_precision
from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.posteriors.amortized import observe
from genprior.priors.amortized import LearnedPosterior
from genprior.training.objectives import Denoising

PAIRS = 1  # the `sample` number of the noise that makes the pairs; the diffusion uses 0


class Amortization(nn.Module):
    """|x - D(x + sigma n, y)|^2 / c_out^2 with y = A x + noise n', A and noise random; minimised by E[x | x_t, y].

    Arguments:
        prior: the learned posterior to train.
        operator: maps (x, noise) to the operator that measures the images x, (B, C, H, W), with parameters drawn from
            `noise`, which is keyed by (seed, item).
        seed: keys all randomness.
        median, scale: of the diffusion's noise levels sigma, see `Denoising`.
    """

    def __init__(
        self,
        prior: LearnedPosterior,
        operator: Callable[[Tensor, Noise], LinearOperator],
        *,
        seed: int = 0,
        median: float = 0.12,
        scale: float = 0.9,
    ):
        super().__init__()
        self.unregistered = (prior,)  # `denoising` already registers its networks, those of the diffusion
        self.denoising = Denoising(prior.ddpm, seed=seed, median=median, scale=scale)
        self.operator, self.seed = operator, seed

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        (prior,) = self.unregistered
        with full_precision(batch["x"]):  # operators need float32, whatever the networks' precision
            observed = observe(prior, self.pairs(batch["x"], batch["item"]))
        return self.denoising({"x": batch["x"], "item": batch["item"], "features": observed}, step)

    def pairs(self, x: Tensor, items: Tensor) -> Measurement:
        """Measure the images x, numbered `items` in the run, at noise levels uniform over the prior's range."""
        (prior,) = self.unregistered
        noise = Noise(self.seed, items, torch.full_like(items, PAIRS))
        least, largest = prior.noise
        level = least + (largest - least) * noise.uniform(x[:, :1, :1, :1])
        A = self.operator(x, noise)
        y = A(x)
        return Measurement(y + level * noise(y), A, level)

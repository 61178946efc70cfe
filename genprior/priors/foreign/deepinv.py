"""Priors in deepinv's algorithms; deepinv itself is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.priors.base import Prior, as_level, supports

if TYPE_CHECKING:
    from deepinv.models import Denoiser
    from deepinv.optim import Prior as Potential


def as_denoiser(prior: Prior) -> Denoiser:
    """Return a deepinv Denoiser from `prior.denoise`, for its DPS, DiffPIR, plug-and-play and other algorithms.

    Units are the same: images in [0, 1] and sigma in their units. deepinv gives sigma as a number, or as a tensor of
    any shape with 1 or B values. Levels are passed on unchanged, even beyond the prior's sigma_min and sigma_max, which
    deepinv's schedules ignore: its DPS begins at about 76, its DDRM with 1000 levels ends at 0.001.

    Raises:
        UnsupportedError: the prior has no `denoise`.
    """
    from deepinv.models import Denoiser

    if not supports(prior, "denoise"):
        raise UnsupportedError(f"{type(prior).__name__} has no denoise, so it is no denoiser for deepinv.")

    class PriorDenoiser(Denoiser):
        def __init__(self):
            super().__init__(device=None)  # pyright: ignore[reportArgumentType]
            self.prior = prior

        def forward(self, x: Tensor, sigma: float | Tensor, **_) -> Tensor:
            return self.prior.denoise(x, as_level(sigma, x))

    return PriorDenoiser()


def as_score_prior(prior: Prior) -> Potential:
    """Return a deepinv prior for its Langevin samplers and gradient methods: `grad(x, sigma)` is minus the score.

    For priors with `denoise` the score is that of noisy images, grad ln p_sigma(x), by deepinv's own `ScorePrior`; for
    those with `score` only, such as flows, it is grad ln p(x), whatever sigma is.

    Raises:
        UnsupportedError: the prior has neither.
    """
    from deepinv.optim import Prior as Potential
    from deepinv.optim import ScorePrior

    if supports(prior, "denoise"):
        return ScorePrior(as_denoiser(prior))
    if not supports(prior, "score"):
        raise UnsupportedError(
            f"{type(prior).__name__} has no denoise and no score, so it is no score prior for deepinv."
        )

    class PriorScore(Potential):
        def __init__(self):
            super().__init__()
            self.prior = prior

        def grad(self, x: Tensor, *_, **__) -> Tensor:
            return -self.prior.score(x)

    return PriorScore()

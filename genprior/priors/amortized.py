"""A posterior learned from pairs (x, y): a diffusion whose network sees the measurement beside x_t.

Notation: y = A x + noise n the measurement, A^+ the pseudo-inverse of A; x_t = x + sigma n. Training minimises
|x - D(x_t, y)|^2 over pairs made by the operator. The minimum is D = E[x | x_t, y], so the reverse chain with D ends in
p(x | y), without approximating p(y | x_t).

References: C. Saharia et al., Image super-resolution via iterative refinement, 2021. C. Saharia et al., Palette:
image-to-image diffusion models, 2022. G. Batzolis et al., Conditional image generation with score-based diffusion
models, 2021 (that the regression on pairs gives the conditional score).
"""

from typing import Any

import torch
from torch import Tensor

from genprior.checks import OpenShape
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM


class LearnedPosterior(Prior):
    """p(x | y) for the operators and noise levels of its training: `denoise_given`.

    It is not a prior: it knows p(x | y), not p(x), and no other operator. `posteriors.amortized` checks that a
    measurement matches its training.

    Arguments:
        image_shape: (C, H, W); H and W may be None for images of any size.
        operator: the "name" of the class of A, and the attributes A must have, such as {"name": "SuperResolution",
            "scale": 4}; other attributes, such as a mask, were random in training.
        noise: the smallest and the largest noise level of the measurements, in the units of y.
        chain: further arguments of the underlying `DDPM`.

    Raises:
        ValueError: an argument is not as described.
    """

    def __init__(
        self,
        image_shape: OpenShape,
        *,
        operator: dict[str, Any],
        noise: tuple[float, float],
        **chain: Any,
    ):
        super().__init__()
        if "name" not in operator:
            raise ValueError(f'operator is {operator!r}: give its class as "name", such as "SuperResolution".')
        if len(noise) != 2 or not 0 <= noise[0] <= noise[1]:
            raise ValueError(f"noise is {noise!r}: give the least and the largest level, 0 or more.")
        self.ddpm = DDPM(image_shape, features=2 * image_shape[0] + 1, **chain)
        self.config = {"operator": dict(operator), "noise": list(noise), **self.ddpm.config}
        del self.config["features"]
        self.operator, self.noise = dict(operator), tuple(noise)
        self.image_shape = self.ddpm.image_shape
        self.centre, self.spread = self.ddpm.centre, self.ddpm.spread
        self.sigma_min, self.sigma_max = self.ddpm.sigma_min, self.ddpm.sigma_max

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype of the chain; see `Prior`."""
        return self.ddpm.autocast

    @autocast.setter
    def autocast(self, dtype: torch.dtype | None) -> None:
        self.ddpm.autocast = dtype

    def denoise_given(self, x_t: Tensor, sigma: float | Tensor, observed: Tensor) -> Tensor:
        """E[x | x_t, y] for x_t = x + sigma n, with `observed` from `posteriors.amortized.observe`."""
        return self.ddpm.denoise(x_t, sigma, features=observed)

"""A prior given a class label is a prior."""

import torch
from torch import Tensor

from genprior.priors.base import Prior


class Given(Prior):
    """p(x | label) of a prior whose `denoise` and `sample` take a label; the rest of it is not conditional.

    Arguments:
        prior: has classes.
        label: 0 … classes - 1.
        guidance: 1 for p(x | label); more for images more typical of the label than those (classifier-free guidance).

    Raises:
        ValueError: the prior has no such class.
    """

    def __init__(self, prior: Prior, label: int, guidance: float = 1.0):
        super().__init__()
        classes = prior.config.get("classes", 0)
        if not 0 <= label < classes:
            raise ValueError(f"This prior has {classes} classes, numbered from 0; there is no label {label!r}.")
        self.prior, self.label, self.guidance = prior, label, guidance
        self.image_shape, self.centre = prior.image_shape, prior.centre
        self.spread = prior.spread
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max

    def sample(self, n: int, *, seed: int = 0, **options) -> Tensor:
        return self.prior.sample(n, seed=seed, label=self.label, guidance=self.guidance, **options)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        labels = torch.full((len(x_t),), self.label, device=x_t.device)
        return self.prior.denoise(x_t, sigma, labels, self.guidance)

"""The posterior learned from pairs (x, y): a diffusion whose network sees the measurement beside x_t.

Notation: y = A x + noise n the measurement, A^+ its pseudo-inverse; x_t = x + sigma n. The regression that makes a
denoiser, |x - D(x_t, y)|^2 over pairs made by the operator, has its minimum at D = E[x | x_t, y]: the chain that D
undoes ends in p(x | y), without any approximation of p(y | x_t).

References: C. Saharia et al., Image super-resolution via iterative refinement, 2021. C. Saharia et al., Palette:
image-to-image diffusion models, 2022. G. Batzolis et al., Conditional image generation with score-based diffusion
models, 2021 (that the regression on pairs gives the conditional score).
"""

from typing import Any

import torch
from torch import Tensor

from genprior.checks import OpenShape, UnsupportedError
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM


class LearnedPosterior(Prior):
    """p(x | y) of the operators and noise levels it was trained with: `denoise_given`.

    It is no prior by itself: it knows p(x | y), not p(x), and no other operator. What it has been trained for is
    compared with what it is asked for, by the operator's class and those of its attributes that are named.

    Arguments:
        image_shape: (C, H, W); H and W may be None for images of any size.
        operator: what A is: "name", of its class, and attributes that it must have, such as {"name":
            "SuperResolution", "scale": 4}; attributes that are not named, such as a mask, were random in training.
        noise: the least and the largest noise level of its measurements, in the units of x.
        chain: further arguments of the `DDPM` that is the chain.

    Raises:
        ValueError: an argument is not what is said here.
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
        """That of the chain, see `Prior`."""
        return self.ddpm.autocast

    @autocast.setter
    def autocast(self, dtype: torch.dtype | None) -> None:
        self.ddpm.autocast = dtype

    def observe(self, measurement) -> Tensor:
        """What the network sees of y: A^+ y, how much of every value A sees, the noise level; (B, 2 C + 1, H, W).

        The second is A^T A 1, for inpainting the pixels that are kept. All are in multiples of the spread.

        Raises:
            UnsupportedError: the operator is not the one it was trained for.
            ValueError: the noise is not.
        """
        A, y = measurement.operator, measurement.y
        self.check_operator(A)
        self._check_noise(measurement.noise)
        ones = y.new_ones(len(y), *A.image_shape)
        level = torch.as_tensor(measurement.noise, dtype=y.dtype, device=y.device).expand(len(y), 1, 1, 1)
        seen = [(A.pinv(y) - self.centre) / self.spread, A.adjoint(A(ones)), level / self.spread * ones[:, :1]]
        return torch.cat(seen, dim=1)

    def denoise_given(self, x_t: Tensor, sigma: float | Tensor, observed: Tensor) -> Tensor:
        """E[x | x_t, y] for x_t = x + sigma n and `observed` what `observe` made of y."""
        return self.ddpm.denoise(x_t, sigma, features=observed)

    def knows(self, A) -> bool:
        """Whether it was trained for that operator."""
        return self._like_own(A) == self.operator

    def _like_own(self, A) -> dict[str, Any]:
        """The operator, described as its own is."""
        return {name: type(A).__name__ if name == "name" else getattr(A, name, None) for name in self.operator}

    def check_operator(self, A) -> None:
        """Refuse an operator that it was not trained for, by an UnsupportedError."""
        if not self.knows(A):
            raise UnsupportedError(
                f"This posterior was learned for {_described(self.operator)}, not for {_described(self._like_own(A))}: "
                "train one for that (see recipes/train_amortized_mnist.py), or restore with a prior, which takes any."
            )

    def _check_noise(self, noise: float | Tensor) -> None:
        least, largest = self.noise
        levels = torch.as_tensor(noise)
        if float(levels.min()) < least or float(levels.max()) > largest:
            raise ValueError(
                f"This posterior was learned for noise from {least:g} to {largest:g}, not "
                f"{float(levels.min()):g} to {float(levels.max()):g}: restore with a prior, which takes any."
            )


def _described(operator: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in operator.items() if name != "name")
    return f"{operator['name']}({arguments})"

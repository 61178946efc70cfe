"""Consistency models of diffusers as priors: a map from noise to images in one evaluation.

Notation: u = 2x - 1 the image on the network's own [-1, 1]; s the noise of u_t = u + s n, from s_min to s_max; F the
network; sd the standard deviation of the values of u.

References: Y. Song, P. Dhariwal, M. Chen, I. Sutskever, Consistency models, 2023.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.checks import OpenShape, UnsupportedError
from genprior.devices import state_of
from genprior.nets.kept import half_of
from genprior.nets.wrapped import unwrapped
from genprior.noise import Noise
from genprior.priors.base import Prior, shape_of_draws
from genprior.priors.base import checked as of_shape
from genprior.priors.chain import UNIT
from genprior.priors.foreign.diffusers_network import answer, checked, multiple_of

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from diffusers.schedulers import SchedulerMixin


class ConsistencyPrior(Prior):
    """x = f(s_max z, s_max), z ~ N(0, I) of the image's shape: `sample`, `decode`.

        f(u_t, s) = c_skip u_t + c_out F(u_t / sqrt(s^2 + sd^2), 250 ln s),
        c_skip = sd^2 / ((s - s_min)^2 + sd^2),   c_out = (s - s_min) sd / sqrt(s^2 + sd^2).

    f(u_t, s) is the end of the probability flow from u_t: one of the images that u_t may have been, not their mean, so
    there is no `denoise`. From s_max the flow reaches all images, and posterior sampling in z is free of any denoiser's
    error. Nothing is clipped.

    Arguments:
        unet: see `DiffusersPrior`.
        scheduler: the CMStochasticIterativeScheduler of its training; only its levels and sigma_data matter.
        image_shape: see `DiffusersPrior`.

    Raises:
        UnsupportedError: the network needs a class label, or is of another kind.
        ValueError: the network's images have other channels than image_shape.
    """

    decoder_variance = 0.0
    centre = 0.5

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin, image_shape: OpenShape | None = None):
        super().__init__()
        self.unet, self.image_shape = checked(unet, image_shape)
        times = unwrapped(unet).config.time_embedding_type
        if times != "positional":
            raise UnsupportedError(
                f"This network has {times} times, which no consistency model has: theirs are positional."
            )
        self.multiple, self.autocast = multiple_of(unet), half_of(unet)
        config = scheduler.config  # pyright: ignore[reportAttributeAccessIssue]
        self.s_min, self.s_max, self.data_std = config.sigma_min, config.sigma_max, config.sigma_data
        self.spread = UNIT * self.data_std

    @property
    def latent_shape(self) -> OpenShape:
        """Shape of one z, that of the image."""
        return self.image_shape

    def decode(self, z: Tensor) -> Tensor:
        """f(s_max z, s_max) in the units of x, (B, C, H, W) -> (B, C, H, W); differentiable."""
        z = of_shape(self, z)
        s, sd = self.s_max, self.data_std
        c_skip = sd**2 / ((s - self.s_min) ** 2 + sd**2)
        c_out = (s - self.s_min) * sd / math.hypot(s, sd)
        t = torch.full((len(z),), 250 * math.log(s), dtype=z.dtype, device=z.device)
        u = c_skip * s * z + c_out * answer(self.unet, s / math.hypot(s, sd) * z, t, self.multiple, self.autocast)
        return self.centre + UNIT * u

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, size: tuple[int, int] | None = None) -> Tensor:
        """n draws decoded from z ~ N(0, I), (n, C, H, W).

        Arguments:
            seed: keys the noise; draw k is the same whatever n is.
            size: (H, W), needed where the prior's images have any size.

        Raises:
            ValueError: size is missing but needed, or the prior does not have it.
        """
        noise = Noise.of_draws(n, seed)
        return self.decode(noise(state_of(self.unet).new_empty(n, *shape_of_draws(self.image_shape, size))))

"""Pixel-space diffusions of diffusers as priors.

Notation: u = 2x - 1 the image on the network's own [-1, 1], u_t = u + s n; z what the network sees of u_t, and t its
timestep; sigma = s / 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.checks import OpenShape
from genprior.devices import state_of
from genprior.nets.kept import half_of
from genprior.nets.wrapped import unwrapped
from genprior.noise import Noise
from genprior.priors.base import as_level, shape_of_draws
from genprior.priors.chain import UNIT, ancestral_chain, posterior_variance, relative_noise, respaced
from genprior.priors.foreign.diffusers_levels import levels_of
from genprior.priors.foreign.diffusers_network import answer, checked, multiple_of
from genprior.priors.posterior_covariance import MeasuredCovariance
from genprior.priors.probability_flow import FlowDensity, flow_log_prob

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from diffusers.schedulers import SchedulerMixin


class DiffusersPrior(MeasuredCovariance):
    """An unconditional `UNet2DModel` of diffusers, with the noise that it was trained on.

    At any level sigma = s / 2, the network's output gives u_hat as its scheduler says, see `diffusers_levels`. Nothing
    is clipped. Levels above 80, in the units of x, are left out. A network in half precision computes in it.

    Arguments:
        unet: with its configuration, in evaluation mode; it is not copied. It may be compiled, or wrapped for several
            devices or as a moving average.
        scheduler: of the training: one with alphas_cumprod, such as DDPM or DDIM, one of EDM or of flow matching, or
            ScoreSdeVe. Only the levels of its training and its prediction_type matter.
        image_shape: (C, H, W), None for axes of any size; by default the size of the network's training, or any size if
            it does not say. Images are padded by mirroring to the multiple that the network's levels need.
        data_std: standard deviation of the values of u (0.5 for photographs, Karras et al., 2022).

    Raises:
        UnsupportedError: the network needs a class label, or the scheduler is of another kind.
        ValueError: the network's images have other channels than image_shape, or the scheduler's numbers are not noise
            levels.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        image_shape: OpenShape | None = None,
        data_std: float = 0.5,
    ):
        super().__init__()
        self.unet, self.image_shape = checked(unet, image_shape)
        self.multiple, self.autocast = multiple_of(unet), half_of(unet)
        self.scheduler = scheduler
        self.levels = levels_of(scheduler, unwrapped(unet).config.time_embedding_type)
        self.centre = 0.5
        self.spread = UNIT * data_std
        self.sigma_min, *_, self.sigma_max = (UNIT * relative_noise(a) for a in self.levels.alpha_bars)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        u_t = (x_t - self.centre) / UNIT
        s = as_level(sigma, x_t) / UNIT
        return self.centre + UNIT * self.levels.estimate(self._network, u_t, s)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, size: tuple[int, int] | None = None, steps: int | None = None) -> Tensor:
        """n draws by the reverse chain, with the posterior variances and without clipping, (n, C, H, W).

        Arguments:
            seed: keys the noise.
            size: (H, W), needed where the prior's images have any size.
            steps: use this many of the chain's steps, evenly spaced; None for all.

        Raises:
            ValueError: size is missing but needed, or the prior does not have that size or number of steps.
        """
        noise = Noise.of_draws(n, seed)
        z = noise(state_of(self.unet).new_empty(n, *shape_of_draws(self.image_shape, size)))
        return ancestral_chain(
            self.denoise, z, respaced(self.levels.alpha_bars, steps), noise, posterior_variance, self.centre
        )

    def flow_log_prob(self, x: Tensor, *, seed: int = 0, steps: int = 100, probes: int = 4) -> FlowDensity:
        return flow_log_prob(self, x, seed=seed, steps=steps, probes=probes)

    def _network(self, z: Tensor, t: Tensor) -> Tensor:
        return answer(self.unet, z, t, self.multiple, self.autocast)

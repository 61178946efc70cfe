"""Latent diffusions of diffusers as priors: an autoencoder, and a diffusion in its latents.

Notation: z the autoencoder's own map of latents; u = (z - m) / a the latents as the diffusion was trained on them;
w = (1 + u) / 2, which samplers of diffusions treat as images; G(w) the decoder; v the variance of x - G(w).

References: R. Rombach, A. Blattmann, D. Lorenz, P. Esser, B. Ommer, High-resolution image synthesis with latent
diffusion models, 2022.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genprior.checks import OpenShape, UnsupportedError
from genprior.devices import state_of
from genprior.nets.kept import half_of
from genprior.nets.wrapped import on_one_device, unwrapped
from genprior.noise import Noise
from genprior.priors.base import Prior, checked, shape_of_draws
from genprior.priors.chain import UNIT
from genprior.priors.foreign.diffusers_folder import write_pipeline
from genprior.priors.foreign.diffusers_levels import is_of
from genprior.priors.foreign.diffusers_network import package, prepared
from genprior.priors.foreign.diffusers_pixels import DiffusersPrior

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DModel, VQModel
    from diffusers.schedulers import SchedulerMixin

AT_ONCE = 2**20  # values to encode and decode at once


class DiffusersLatentPrior(Prior):
    """p(x) = ∫ N(x; G(w), v I) p(w) dw with p(w) a diffusion of diffusers: `sample`, `encode`, `render`.

    `latents` is p(w), a prior of its own with `denoise`. A VQModel decodes the codes nearest to a latent, as its
    pipeline does; gradients treat the codes as if they were the latents (straight-through). The pipelines do not state
    v: `fit_decoder` measures it. Nothing is clipped.

    Arguments:
        autoencoder: VQModel or AutoencoderKL, in evaluation mode; it is not copied.
        unet, scheduler: of the latents; see `DiffusersPrior`.
        image_shape: (C, H, W), None for axes of any size; by default what the unet's own size decodes to. Images are
            padded to multiples of the autoencoder's stride, and cropped again.

    Raises:
        UnsupportedError: a part is of another kind, or the network needs a class label.
        ValueError: the parts, or the image_shape and the autoencoder, do not fit together.
    """

    centre = 0.5
    spread = 0.25  # that of photographs
    latent_mean: Tensor
    latent_sd: Tensor
    variance: Tensor

    def __init__(
        self,
        autoencoder: VQModel | AutoencoderKL,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        image_shape: OpenShape | None = None,
    ):
        super().__init__()
        if is_of(scheduler, "ScoreSdeVeScheduler"):
            raise UnsupportedError("ScoreSdeVeScheduler is of images on [0, 1], and latents are none.")
        self.diffusion = DiffusersPrior(unet, scheduler, data_std=1.0)
        channels, *size = self.diffusion.image_shape
        self.diffusion.image_shape = (channels, None, None)
        plain, diffusers = unwrapped(autoencoder), package()
        if not isinstance(plain, diffusers.VQModel | diffusers.AutoencoderKL):
            raise UnsupportedError(f"The autoencoder is a {type(plain).__name__}: give a VQModel or an AutoencoderKL.")
        config = plain.config
        own = config.get("vq_embed_dim") or config.latent_channels
        if own != channels:
            raise ValueError(
                f"The autoencoder, a {type(plain).__name__}, has {own} latents to a cell, and the network takes images "
                f"of {channels} channels: they are not of one model."
            )
        self.autoencoder, self.autocast = on_one_device(autoencoder), half_of(autoencoder)
        self.stride = 2 ** (len(config.block_out_channels) - 1)
        shape = (config.in_channels, *(None if a is None else a * self.stride for a in size))
        self.image_shape = shape if image_shape is None else tuple(image_shape)
        if self.image_shape[0] != config.in_channels:
            raise ValueError(
                f"image_shape is {self.image_shape}, but the autoencoder's images have {config.in_channels} channels."
            )
        mean = config.get("latents_mean") or [config.get("shift_factor") or 0.0]
        sd = torch.tensor(config.get("latents_std") or [1.0]) / config.scaling_factor
        self.register_buffer("latent_mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("latent_sd", sd.reshape(-1, 1, 1), persistent=False)
        self.register_buffer("variance", torch.tensor(math.nan))

    @property
    def latents(self) -> DiffusersPrior:
        """p(w), a prior of maps (latent, rows, columns) of the size that matches this prior's images."""
        rows, columns = (None if a is None else math.ceil(a / self.stride) for a in self.image_shape[1:])
        return self.diffusion if rows is None or columns is None else self.diffusion.sized(rows, columns)

    @property
    def latent_shape(self) -> OpenShape:
        """Shape of one w: (latent, rows, columns), with None where the image has any size."""
        return self.latents.image_shape

    @property
    def decoder_variance(self) -> Tensor:
        """v, in squared units of x, once it has been measured.

        Raises:
            UnsupportedError: it has not been measured.
        """
        if self.variance.isnan():
            raise UnsupportedError(
                "How far images lie from what this decoder makes of their latents was never measured: give some images "
                "that it was not trained on, prior = genprior.load_prior(…), prior.fit_decoder(images), and keep it by "
                "genprior.save_prior(prior, folder). (The samplers psld and resample do without.)"
            )
        return self.variance

    @torch.no_grad()
    def fit_decoder(self, x: Tensor) -> None:
        """Set v to its maximum-likelihood value on images x, (N, C, H, W): the mean square of x - G(encode(x))."""
        prior, total = self.sized(*x.shape[-2:]), 0.0
        for rows in x.split(max(1, AT_ONCE // x[0].numel())):
            rows = checked(prior, rows).to(state_of(self))
            total += float((rows - prior.render(prior.encode(rows))).double().square().sum())
        self.variance.fill_(total / x.numel())

    def save(self, folder: Path, card: dict[str, Any]) -> None:
        """Write the pipeline in the layout of diffusers, and v beside it, to an existing, empty folder."""
        variance = None if self.variance.isnan() else float(self.variance)
        write_pipeline(
            (unwrapped(self.autoencoder), unwrapped(self.diffusion.unet), self.diffusion.scheduler),
            {"image_shape": list(self.image_shape), "decoder_variance": variance},
            folder,
            card,
        )

    def render(self, w: Tensor) -> Tensor:
        """The mean G(w) of p(x | w), (B, *latent_shape) -> (B, C, H, W); differentiable."""
        w = checked(self, w, self.latent_shape)
        z = self.latent_mean + self.latent_sd * (w - self.diffusion.centre) / UNIT
        z, around = prepared(self.autoencoder, z, self.autocast)
        with around:
            u = self.autoencoder.decode(z).sample
        height, width = self.image_shape[1:]
        return self.centre + UNIT * u[..., :height, :width].to(w.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """The mean latent of an image under the encoder, (B, C, H, W) -> (B, *latent_shape); differentiable."""
        u = (checked(self, x) - self.centre) / UNIT
        below, right = (-a % self.stride for a in u.shape[-2:])
        u = F.pad(u, (0, right, 0, below), mode="replicate")
        u, around = prepared(self.autoencoder, u, self.autocast)
        with around:
            code = self.autoencoder.encode(u)
        z = (code.latents if hasattr(code, "latents") else code.latent_dist.mode()).to(x.dtype)
        return self.diffusion.centre + UNIT * (z - self.latent_mean) / self.latent_sd

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, size: tuple[int, int] | None = None, steps: int | None = None) -> Tensor:
        """n draws G(w), w drawn by the reverse chain, (n, C, H, W), plus grain of variance v if that was measured.

        Arguments:
            seed: keys the noise; draw k is the same whatever n is.
            size: (H, W), needed where the prior's images have any size.
            steps: number of steps of the chain, evenly spaced; None for all.

        Raises:
            ValueError: this prior does not have that size or number of steps.
        """
        prior = self.sized(*shape_of_draws(self.image_shape, size)[1:])
        mean = prior.render(prior.latents.sample(n, seed=seed, steps=steps))
        if self.variance.isnan():
            return mean
        # The chain has the noise of image 0.
        grain = Noise(seed, torch.ones(n, dtype=torch.long), torch.arange(n))
        return mean + self.variance.sqrt() * grain(mean)

"""How well a prior in training restores: one fixed, cheap restoration of a few held-out images, in dB.

PSNR = -10 log10 MSE of values clamped to [0, 1], at most 100, the mean over images; the noise is the same every time.
"""

import torch
from torch import Tensor

from genprior.noise import Noise
from genprior.priors.ddpm import DDPM
from genprior.priors.vae import VAE

SIGMA = 0.1  # of the noise that is removed, in the units of x: 25.5 grey levels


@torch.no_grad()
def denoising_psnr(prior: DDPM, x: Tensor) -> dict[str, float]:
    """Of E[x | y] for y = x + 0.1 n, which for a diffusion is one call of its network."""
    y = x + SIGMA * Noise(0, torch.arange(len(x), device=x.device))(x)
    return {"denoising PSNR": mean_psnr(prior.denoise(y, SIGMA), x)}


@torch.no_grad()
def reconstruction_psnr(prior: VAE, x: Tensor) -> dict[str, float]:
    """Of the image of the latent of x: what the decoder cannot say is lost to every restoration."""
    return {"reconstruction PSNR": mean_psnr(prior.sized(*x.shape[-2:]).decode(prior.encode(x)), x)}


def mean_psnr(x_hat: Tensor, x: Tensor) -> float:
    error = (x_hat.clamp(0, 1) - x).square().flatten(1).mean(1)
    return float(-10 * error.clamp_min(1e-10).log10().mean())

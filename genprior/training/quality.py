"""How well a prior in training restores: one fixed, cheap restoration of a few held-out images, in dB.

PSNR = -10 log10 MSE of values clamped to [0, 1], at most 100, averaged over images; the noise is the same every time.
Images may be on any device. Flows are measured in bits per value, because their restorations would cost as much as many
training steps. `held_out_and_seen` measures on training images too.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from genprior.bits import bits_per_dim, dequantize
from genprior.devices import device_of, state_of
from genprior.noise import Noise
from genprior.priors.base import Prior, supports
from genprior.priors.ddpm import DDPM
from genprior.priors.gan import GAN
from genprior.priors.vae import VAE

SIGMA = 0.1  # of the noise that is removed, in the units of x: 25.5 grey levels


@torch.no_grad()
def denoising_psnr(prior: DDPM, x: Tensor, sigma: float = SIGMA) -> dict[str, float]:
    """Return the PSNR of E[x | y] for y = x + sigma n, which takes a diffusion one network call."""
    x = x.to(prior.decoder_variance)
    y = x + sigma * Noise(0, torch.arange(len(x), device=x.device))(x)
    return {"denoising PSNR": mean_psnr(prior.denoise(y, sigma), x)}


@torch.no_grad()
def reconstruction_psnr(prior: VAE, x: Tensor) -> dict[str, float]:
    """PSNR of the decoded latent of x: no restoration can recover what the decoder loses."""
    x = x.to(prior.decoder_variance)
    return {"reconstruction PSNR": mean_psnr(prior.sized(*x.shape[-2:]).decode(prior.encode(x)), x)}


def search_psnr(prior: GAN, x: Tensor, *, steps: int = 100) -> dict[str, float]:
    """Return the PSNR of the image nearest to x that `steps` of Adam find from latent 0; low if modes are lost."""
    x = x.to(state_of(prior))
    z = x.new_zeros(len(x), *prior.latent_shape).requires_grad_()
    adam = torch.optim.Adam([z], lr=0.1)
    for _ in range(steps):
        adam.zero_grad()
        (prior.decode(z) - x).square().sum().backward()
        adam.step()
    return {"reconstruction PSNR": mean_psnr(prior.decode(z).detach(), x)}


@torch.no_grad()
def held_out_bits(prior: Prior, x: Tensor) -> dict[str, float]:
    """Return the bits per value of 8-bit images x; an upper bound if the prior only bounds its density."""
    x = x.to(device_of(prior))
    x = dequantize(x, Noise(0, torch.arange(len(x), device=x.device)))
    density = prior.log_prob if supports(prior, "log_prob") else prior.elbo
    return {"bits per value": float(bits_per_dim(density(x), x[0].numel()).mean())}


def held_out_and_seen(
    measure: Callable[[Tensor], dict[str, float]], held_out: Tensor, seen: Tensor
) -> dict[str, float]:
    """Apply `measure` to held-out images and to training images: if the two differ, the prior memorises."""
    parts = {"held out": held_out, "trained on": seen}
    return {f"{name}, {part}": value for part, x in parts.items() for name, value in measure(x).items()}


def mean_psnr(x_hat: Tensor, x: Tensor) -> float:
    error = (x_hat.clamp(0, 1) - x).square().flatten(1).mean(1)
    return float(-10 * error.clamp_min(1e-10).log10().mean())

"""The loss of latent diffusion: that of a diffusion, on latents that a frozen autoencoder draws on the fly."""

import torch
from torch import Tensor, nn

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.latent import LatentDiffusion
from genprior.training.objectives import Denoising


class LatentDenoising(nn.Module):
    """`Denoising` of w ~ q(w | x'), with x' the dequantised image: the autoencoder sees what it was trained on.

    The latents are nearly white, where photographs are not: the median of sigma is their spread itself.

    Arguments:
        prior: whose diffusion is to be trained; its autoencoder stays as it is.
        seed: keys dequantisation, draws of w and noise.
    """

    def __init__(self, prior: LatentDiffusion, *, seed: int = 0):
        super().__init__()
        self.prior, self.seed = prior, seed
        self.denoising = Denoising(prior.ddpm, seed=seed, median=prior.ddpm.spread)

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        items = batch["item"]
        # The noise of sample 0 is that of the diffusion.
        noise = Noise(self.seed, items, torch.ones_like(items))
        with torch.no_grad():
            mean, sd = self.prior.moments(dequantize(batch["x"], noise))
        return self.denoising({"x": mean + sd * noise(mean), "item": items}, step)

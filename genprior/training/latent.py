"""Training of latent diffusion: fewer latents, and the loss, that of a diffusion on latents drawn on the fly."""

import torch
from torch import Tensor, nn

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.latent import LatentDiffusion
from genprior.priors.vae import VAE
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


@torch.no_grad()
def pruned(vae: VAE, x: Tensor, latent: int) -> VAE:
    """The autoencoder of maps without all but `latent` of the latents of a cell, which are 0 from then on.

    Those are kept whose KL(q(z | x) || N(0, I)), averaged over these images, is largest: the bound switches latents off
    that would cost more than what they say saves, and those cost nothing and say nothing.

    Arguments:
        vae: of images of any size.
        x: images, (N, C, H, W).
        latent: how many of the latents of a cell are kept.
    """
    mean, sd = vae.infer(x)
    kl = ((mean**2 + sd**2 - 1) / 2 - sd.log()).mean(dim=(0, 2, 3))
    kept = kl.argsort(descending=True)[:latent].sort().values
    both = torch.cat([kept, vae.latent + kept])  # of the means, and of the log standard deviations
    state, head = vae.state_dict(), f"encoder.{len(vae.encoder) - 1}"
    state |= {f"{head}.{name}": state[f"{head}.{name}"][both] for name in ("weight", "bias")}
    state["decoder.0.weight"] = state["decoder.0.weight"][:, kept]
    smaller = VAE(**{**vae.config, "latent": latent}).to(x)
    smaller.load_state_dict(state)
    return smaller

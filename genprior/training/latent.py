"""Training of latent diffusion: its loss, on latents drawn on the fly, and the pruning of unused latents."""

import torch
from torch import Tensor, nn

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.latent import LatentDiffusion
from genprior.priors.vae import VAE
from genprior.training.objectives import Denoising


class LatentDenoising(nn.Module):
    """`Denoising` of w ~ q(w | x'), with x' the dequantised image, which is what the autoencoder was trained on.

    Unlike photographs, the latents are nearly white, so the median of sigma is their spread itself.

    Arguments:
        prior: the latent diffusion whose diffusion is trained; its autoencoder stays unchanged.
        seed: keys dequantisation, draws of w and noise.
    """

    def __init__(self, prior: LatentDiffusion, *, seed: int = 0):
        super().__init__()
        self.prior, self.seed = prior, seed
        self.denoising = Denoising(prior.ddpm, seed=seed, median=prior.ddpm.spread)

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        items = batch["item"]
        # Ones, because the diffusion's noise has sample number 0.
        noise = Noise(self.seed, items, torch.ones_like(items))
        with torch.no_grad():
            mean, sd = self.prior.moments(dequantize(batch["x"], noise))
        return self.denoising({"x": mean + sd * noise(mean), "item": items}, step)


@torch.no_grad()
def pruned(vae: VAE, x: Tensor, latent: int) -> VAE:
    """Return the autoencoder with only `latent` of its latents per cell; the others are fixed at 0.

    Those with the largest KL(q(z | x) || N(0, I)), averaged over the images x, are kept: the bound switches off latents
    that would cost more than their information saves, and these then cost nothing and carry nothing.

    Arguments:
        vae: an autoencoder of images of any size, whose latents are maps.
        x: images, (N, C, H, W).
        latent: number of latents per cell to keep.
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

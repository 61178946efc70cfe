"""Latent diffusion: a denoising diffusion in the latents of a variational autoencoder.

Notation: z the autoencoder's map of latents, G(z) its decoder's mean, v the decoder's variance; w = c + s (z - m) / a
the standardised latents, which serve as the diffusion's images, with m and a the mean and standard deviation of each
channel of z over the data, and c and s the diffusion's centre and spread; q(w | x) the encoder.

References: R. Rombach, A. Blattmann, D. Lorenz, P. Esser, B. Ommer, High-resolution image synthesis with latent
diffusion models, 2022. A. Vahdat, K. Kreis, J. Kautz, Score-based generative modeling in latent space, 2021 (the
bound).
"""

import math
from typing import Any

import torch
from torch import Tensor

from genprior.checks import OpenShape
from genprior.noise import Noise
from genprior.priors.base import Prior, shape_of_draws
from genprior.priors.ddpm import DDPM
from genprior.priors.vae import VAE


class LatentDiffusion(Prior):
    """p(x) = ∫ N(x; G(w), v I) p(w) dw with p(w) a diffusion: `sample`, `elbo`, `encode`, `render`.

    N(0, I) no longer describes many latents: p(w) takes its place. `encode`, `render` and samplers all use w, and p(w)
    is itself a prior, `latents`, on maps instead of images. The autoencoder's z stays internal.

    Arguments:
        vae: has maps of latents, that is, takes images of any size.
        ddpm: has as many channels as a cell has latents, and takes any size.

    Raises:
        ValueError: the two do not fit together.
    """

    latent_mean: Tensor
    latent_sd: Tensor

    def __init__(self, vae: VAE, ddpm: DDPM):
        super().__init__()
        if vae.flat or ddpm.image_shape != vae.latent_shape:
            raise ValueError(
                f"The latents of the vae are {vae.latent_shape}, the images of the ddpm {ddpm.image_shape}: give a vae "
                "of images of any size, (C, None, None), and a ddpm of (latent, None, None)."
            )
        self.config = {"vae": vae.config, "ddpm": ddpm.config}
        self.vae, self.ddpm = vae.requires_grad_(False), ddpm
        self.image_shape = vae.image_shape
        self.centre, self.spread = vae.centre, vae.spread
        self.register_buffer("latent_mean", torch.zeros(vae.latent, 1, 1))
        self.register_buffer("latent_sd", torch.ones(vae.latent, 1, 1))

    @classmethod
    def blank(cls, vae: dict[str, Any], ddpm: dict[str, Any]) -> "LatentDiffusion":
        """Build a prior with random weights, from the arguments of its two parts."""
        return cls(VAE(**vae), DDPM(**ddpm))

    @property
    def latents(self) -> DDPM:
        """p(w), a prior of maps (latent, rows, columns) of the size that matches this prior's images."""
        shape = self.vae.sized(*self.image_shape[1:]).latent_shape
        return self.ddpm.sized(*shape[1:])

    @property
    def latent_shape(self) -> OpenShape:
        """Shape of one w: (latent, rows, columns), with None where the image has any size."""
        return self.latents.image_shape

    @property
    def decoder_variance(self) -> Tensor:
        """v, in squared units of x."""
        return self.vae.decoder_variance

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        progress: bool = False,
    ) -> Tensor:
        """n draws from p(x), x = G(w) + sqrt(v) eps with w drawn by the reverse chain, (n, C, H, W).

        `render(latents.sample(n))` is their mean given w, without the grain.

        Arguments:
            seed: keys the noise; draw k is the same whatever n is.
            size: (H, W), needed where the prior's images have any size.
            steps: number of steps of the chain, evenly spaced; None for all.
            progress: show a progress bar.

        Raises:
            ValueError: this prior does not have that size or number of steps.
        """
        prior = self.sized(*shape_of_draws(self.image_shape, size)[1:])
        mean = prior.render(prior.latents.sample(n, seed=seed, steps=steps, progress=progress))
        # The chain has the noise of image 0.
        grain = Noise(seed, torch.ones(n, dtype=torch.long), torch.arange(n))
        return mean + self.decoder_variance.sqrt() * grain(mean)

    def render(self, w: Tensor) -> Tensor:
        """The mean G(w) of p(x | w), (B, *latent_shape) -> (B, C, H, W); differentiable."""
        return self.vae.sized(*self.image_shape[1:]).decode(self._own(w))

    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(w | x), (B, C, H, W) -> (B, *latent_shape); differentiable."""
        return self.moments(x)[0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(w | x), each (B, *latent_shape)."""
        mean, sd = self.vae.infer(x)
        return self.ddpm.centre + self._scale * (mean - self.latent_mean), self._scale * sd

    @torch.no_grad()
    def elbo(self, x: Tensor, *, seed: int = 0, terms: int = 64) -> Tensor:
        """E_q [ln p(x | w) + bound on ln p(w)] + H(q(w | x)) <= ln p(x), in nats, (B,), from one draw of w.

        The bound on ln p(w) is the diffusion's, estimated from `terms` of its terms (see `DDPM.elbo`). Both p(w) and H
        are in units of w, with the entropy ln sd + (1 + ln 2 pi) / 2 of each value computed from the sd of w: what
        standardising adds to one, it takes from the other.

        Arguments:
            x: (B, C, H, W); the density is in the units of x.
            seed: keys all draws, by row.
            terms: see `DDPM.elbo`.
        """
        row = torch.arange(len(x))
        mean, sd = self.moments(x)
        # The diffusion's own draws are those of sample 0.
        w = mean + sd * Noise(seed, row, torch.ones_like(row))(mean)
        entropy = (sd.log() + (1 + math.log(2 * math.pi)) / 2).flatten(1).sum(1)
        return self.vae.log_likelihood(x, self._own(w)) + self.ddpm.elbo(w, seed=seed, terms=terms) + entropy

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Set the mean and standard deviation of each latent channel to those of draws from q(z | x) for images x."""
        mean, sd = self.vae.infer(x.to(self.latent_mean))
        variance = mean.var(dim=(0, 2, 3)) + sd.square().mean(dim=(0, 2, 3))
        self.latent_mean.copy_(mean.mean(dim=(0, 2, 3)).reshape(-1, 1, 1))
        self.latent_sd.copy_(variance.sqrt().reshape(-1, 1, 1))

    def fit_decoder(self, x: Tensor, *, seed: int = 0) -> None:
        """Fit the variance of the last step of the diffusion's bound to the latents of x; see `DDPM.fit_decoder`."""
        row = torch.arange(len(x))
        mean, sd = self.moments(x.to(self.latent_mean))
        self.ddpm.fit_decoder(mean + sd * Noise(seed, row, torch.ones_like(row))(mean), seed=seed)

    @property
    def _scale(self) -> Tensor:
        """|dw / dz| of each channel."""
        return self.ddpm.spread / self.latent_sd

    def _own(self, w: Tensor) -> Tensor:
        """Return the autoencoder's z for w."""
        return self.latent_mean + (w - self.ddpm.centre) / self._scale

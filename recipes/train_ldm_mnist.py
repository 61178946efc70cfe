"""Train `ldm-mnist`: latent diffusion of handwritten digits, a variational autoencoder and a diffusion in its latents.

    python recipes/train_ldm_mnist.py --data mnist.npz --out runs/ldm-mnist

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28); the last 5,000 are kept for validation. Stage 1, `OUT/vae`:
an autoencoder with 4 latents for each 4 x 4 pixels, enough for the learned variance of the decoder to fall low and
detail to be kept. Stage 2, `OUT/ldm`: the diffusion in these latents, with the autoencoder fixed. The card of the
bundled prior has the seconds that stage 2 took, on a CPU core shared with other work. Kill it at any time and run it
again: it resumes where it stopped. The result is `OUT/ldm/prior`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from genprior.priors.ddpm import DDPM
from genprior.priors.latent import LatentDiffusion
from genprior.priors.vae import VAE
from genprior.training.bound import EvidenceBound
from genprior.training.data import Arrays, first
from genprior.training.flags import add_flags, stated
from genprior.training.latent import LatentDenoising
from genprior.training.loop import Settings, train
from genprior.training.quality import reconstruction_psnr

FIRST = Settings(steps=1200, batch=128, lr=2e-3, validate_every=500)
SECOND = Settings(steps=2000, batch=128, lr=1e-3, validate_every=500)


def preview(prior: LatentDiffusion) -> torch.Tensor:
    """Return means of p(x | w), without the grain that a draw of p(x) has."""
    prior = prior.sized(28, 28)
    return prior.render(prior.latents.sample(64, steps=50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--out", default="runs/ldm-mnist", type=Path)
    add_flags(parser, SECOND)
    options = parser.parse_args()
    own = stated(options)
    seed = own.get("seed", 0)

    data = Arrays(options.data, "train_images", keep=slice(0, 55000), seed=seed)
    held_out = Arrays(options.data, "train_images", keep=slice(55000, 60000), seed=None)
    given = {"validation": held_out, "card": {"data": "MNIST, first 55,000 training digits", "licence": "CC BY-SA 3.0"}}

    torch.manual_seed(seed)
    vae = train(
        vae := VAE((1, None, None), latent=4, widths=(32, 64), blocks=(1, 2), spread=0.47),
        [EvidenceBound(vae, seed=seed)],
        data,
        replace(FIRST, **own),
        options.out / "vae",
        preview=lambda vae: vae.sample(64, size=(28, 28)),
        measure=lambda vae: reconstruction_psnr(vae, first(held_out, 16)),
        **given,
    )

    prior = LatentDiffusion(vae, DDPM((4, None, None), data_std=1.0, widths=(64, 128), patch=1))
    prior.standardise(first(data, 2048))
    train(
        prior,
        [LatentDenoising(prior, seed=seed)],
        data,
        replace(SECOND, **own),
        options.out / "ldm",
        preview=preview,
        finish=lambda prior: prior.fit_decoder(first(held_out, 512)),
        **given,
    )


if __name__ == "__main__":
    main()

"""Train `ldm-flowers`: latent diffusion of photographs of flowers, an autoencoder and a diffusion in its latents.

    python recipes/train_ldm_flowers.py --data flowers_64.npz --out runs/ldm-flowers

`flowers_64.npz` holds `train_images`, uint8 (N, 64, 64, 3); a share of them, by a hash of each, is held out. Stage 1,
`OUT/vae`: maps of 4 latents, a cell for 4 x 4 pixels. Stage 2, `OUT/ldm`: the diffusion in these latents, the
autoencoder as it is. Bits are measured on images trained on as well: where the two part, a network memorises. Flags are
of stage 2. Kill it when you like and call it again: it goes on where it was. The result is `OUT/ldm/prior`.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from genprior.priors.ddpm import DDPM
from genprior.priors.latent import LatentDiffusion
from genprior.priors.vae import VAE
from genprior.training.bound import EvidenceBound
from genprior.training.data import evenly, first, open_parts
from genprior.training.flags import add_flags, stated
from genprior.training.latent import LatentDenoising
from genprior.training.loop import Settings, train
from genprior.training.quality import held_out_and_seen, held_out_bits, reconstruction_psnr

FIRST = Settings(steps=3000, batch=32, lr=1e-3, validate_every=500)
SECOND = Settings(steps=5000, batch=64, lr=1e-3, ema=0.9995)


def preview(prior: LatentDiffusion, size: tuple[int, int]) -> torch.Tensor:
    """Means of p(x | w), without the grain that a draw of p(x) has."""
    prior = prior.sized(*size)
    return prior.render(prior.latents.sample(64, steps=50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--validation-share", type=float, default=0.05, help="of the training images, held out")
    parser.add_argument("--out", default="runs/ldm-flowers", type=Path)
    parser.add_argument("--vae-steps", type=int, default=FIRST.steps, help="of stage 1")
    add_flags(parser, SECOND)
    options = parser.parse_args()
    settings = replace(SECOND, **stated(options))

    data, held_out = open_parts(options.data, options.validation_share, orientations=2, seed=settings.seed)
    text = f"five classes of flowers, {len(data)} photographs of 64 x 64, mirrored too; see flowers.csv"
    given = {"validation": held_out, "card": {"data": text, "licence": "CC BY 2.0"}}
    x, seen = evenly(held_out, 32), first(data, 32)

    torch.manual_seed(settings.seed)
    vae = VAE((3, None, None), latent=4, widths=(48, 96), blocks=(1, 2), spread=0.3)
    bound = EvidenceBound(vae, seed=settings.seed)
    brief = replace(FIRST, steps=options.vae_steps, seed=settings.seed)
    given["measure"] = lambda vae: held_out_and_seen(partial(reconstruction_psnr, vae), x, seen)
    vae = train(vae, [bound], data, brief, options.out / "vae", **given)

    prior = LatentDiffusion(vae, DDPM((4, None, None), data_std=1.0, widths=(64, 96, 96), patch=1))
    prior.standardise(first(data, 1024))
    given["measure"] = lambda prior: held_out_and_seen(partial(held_out_bits, prior), x, seen)
    given |= {"preview": partial(preview, size=tuple(x.shape[2:])), "finish": lambda prior: prior.fit_decoder(x)}
    train(prior, [LatentDenoising(prior, seed=settings.seed)], data, settings, options.out / "ldm", **given)


if __name__ == "__main__":
    main()

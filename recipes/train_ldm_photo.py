"""Train `ldm-photo`: latent diffusion of RGB photographs of any size, 6 latents to each 4 x 4 pixels.

    python recipes/train_ldm_photo.py --data PHOTOS --validation OTHER_PHOTOS --out runs/ldm-photo

Stage 1, `OUT/vae`: the bound has switched off most latents of `vae-photo`, whose information would cost more than it
saves. The 6 of 16 that say most are kept, an eighth of the numbers of the image, and the networks adapted to them.
Stage 2, `OUT/ldm`: the diffusion in these latents, with the autoencoder fixed. Flags apply to stage 2. Kill it at any
time and run it again: it resumes where it stopped. The result is `OUT/ldm/prior`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_prior
from genprior.priors.latent import LatentDiffusion
from genprior.priors.store import find_prior
from genprior.training.bound import EvidenceBound
from genprior.training.data import Photos, first
from genprior.training.flags import add_flags, stated
from genprior.training.latent import LatentDenoising, pruned
from genprior.training.loop import Settings, train
from genprior.training.quality import reconstruction_psnr

FIRST = Settings(steps=300, lr=3e-4, warmup=20, decay=0.7, ema=0.98)
SECOND = Settings(steps=2800, lr=1e-3, warmup=100, ema=0.998, validate_every=200, patience=8)


def preview(prior: LatentDiffusion) -> torch.Tensor:
    """Return means of p(x | w), without the grain that a draw of p(x) has."""
    prior = prior.sized(64, 64)
    return prior.render(prior.latents.sample(8, steps=50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs, at least 128 pixels wide and high")
    parser.add_argument("--validation", required=True, help="folder of other photographs, for early stopping")
    parser.add_argument("--out", default="runs/ldm-photo", type=Path)
    parser.add_argument("--vae", default="vae-photo", help="name or folder of the autoencoder to begin with")
    parser.add_argument("--vae-steps", type=int, default=FIRST.steps, help="of stage 1")
    parser.add_argument("--size", type=int, default=96, help="side of the training crops in pixels")
    parser.add_argument("--licence", default="see the training data", help="of the weights, for the card")
    add_flags(parser, SECOND)
    options = parser.parse_args()
    settings = replace(SECOND, **stated(options))

    data = Photos(options.data, options.size, seed=settings.seed)
    held_out = Photos(options.validation, 128, augment=False)
    card = {"data": f"{Path(options.data).name}: random crops of {options.size} px", "licence": options.licence}
    given = {"validation": held_out, "card": card}

    torch.manual_seed(settings.seed)
    vae = pruned(read_prior(find_prior(options.vae)), first(data, 64), latent=6).train().requires_grad_()
    bound = EvidenceBound(vae, seed=settings.seed)
    brief = replace(FIRST, steps=options.vae_steps, validate_every=options.vae_steps, seed=settings.seed)
    given["measure"] = lambda vae: reconstruction_psnr(vae, first(held_out, 16))
    vae = train(vae, [bound], data, brief, options.out / "vae", **given)

    prior = LatentDiffusion(vae, DDPM((6, None, None), data_std=1.0, widths=(64, 128, 144), patch=1))
    prior.standardise(first(data, 256))
    denoising = LatentDenoising(prior, seed=settings.seed)
    given |= {"measure": None, "preview": preview, "finish": lambda prior: prior.fit_decoder(first(held_out, 64))}
    train(prior, [denoising], data, settings, options.out / "ldm", **given)


if __name__ == "__main__":
    main()

"""Train `vae-photo`: a variational autoencoder of RGB photographs of any size, 16 latents to each 4 x 4 pixels.

    python recipes/train_vae_photo.py --data PHOTOS --validation OTHER_PHOTOS --out runs/vae-photo

Its 1,800 steps reach 5.34 bits/dim on 41 validation crops; the card of the bundled prior has the seconds. Kill it
at any time and run it again: it resumes where it stopped. The result is `OUT/prior`; the sheets `samples-*.png`
show photographs, their reconstructions G(mean of q(z | x)), and G(z) of random latents.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from genprior.priors.base import Prior
from genprior.priors.vae import VAE
from genprior.training.bound import EvidenceBound
from genprior.training.data import Photos, first
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train
from genprior.training.quality import reconstruction_psnr

DEFAULTS = Settings(steps=1800, batch=16, lr=1e-3, validate_every=500)


def preview(prior: Prior, x: torch.Tensor) -> torch.Tensor:
    """Return each x beside its reconstruction and a mean of p(x | z), without the grain that a draw of p(x) has."""
    prior, x = prior.sized(*x.shape[-2:]), x.to(prior.decoder_variance)
    z = torch.randn(len(x), *prior.latent_shape, generator=torch.Generator().manual_seed(0)).to(x)
    return torch.cat([x, prior.decode(prior.encode(x)).detach(), prior.decode(z).detach()], dim=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs, at least 128 pixels wide and high")
    parser.add_argument("--validation", help="folder of other photographs")
    parser.add_argument("--out", default="runs/vae-photo")
    parser.add_argument("--size", type=int, default=64, help="side of the training crops in pixels")
    parser.add_argument("--licence", default="see the training data", help="of the weights, for the card")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data = Photos(options.data, options.size, seed=settings.seed)
    held_out = Photos(options.validation or options.data, 128, augment=False)
    shown = first(held_out, 9)

    torch.manual_seed(settings.seed)
    prior = VAE((3, None, None), latent=16, widths=(64, 96), blocks=(1, 3))
    train(
        prior,
        [EvidenceBound(prior, seed=settings.seed)],
        data,
        settings,
        options.out,
        validation=held_out if options.validation else None,
        preview=lambda prior: preview(prior, shown),
        measure=lambda prior: reconstruction_psnr(prior, shown),
        card={"data": f"{Path(options.data).name}: random crops of {options.size} px", "licence": options.licence},
    )


if __name__ == "__main__":
    main()

"""Train `vae-flowers`: a variational autoencoder of 64 x 64 photographs of flowers with 128 latents.

    python recipes/train_vae_flowers.py --data flowers_64.npz --out runs/vae-flowers

`flowers_64.npz` holds `train_images`, uint8 (N, 64, 64, 3); a share of them, by a hash of each, is held out.
The bound is measured on images trained on as well: where the two part, the network memorises.
Kill it when you like and call it again: it goes on where it was. The result is `OUT/prior`.
"""

import argparse
from dataclasses import replace
from functools import partial

import torch

from genprior.priors.base import Prior
from genprior.priors.vae import VAE
from genprior.training.bound import EvidenceBound
from genprior.training.data import evenly, first, open_parts
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train
from genprior.training.quality import held_out_and_seen, held_out_bits, reconstruction_psnr

DEFAULTS = Settings(steps=3000, batch=32, lr=1e-3, decay=0.5, validate_every=500)


def preview(prior: Prior) -> torch.Tensor:
    """Means of p(x | z), without the grain that a draw of p(x) has."""
    z = torch.randn(64, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    return prior.decode(z.to(prior.decoder_variance)).detach()


def measure(prior: Prior, x: torch.Tensor) -> dict[str, float]:
    return held_out_bits(prior, x) | reconstruction_psnr(prior, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--validation-share", type=float, default=0.05, help="of the training images, held out")
    parser.add_argument("--out", default="runs/vae-flowers")
    parser.add_argument("--warmup-kl", type=int, default=1500, help="steps over which the price of latents rises to 1")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data, held_out = open_parts(options.data, options.validation_share, orientations=2, seed=settings.seed)
    torch.manual_seed(settings.seed)
    prior = VAE(tuple(data[0]["x"].shape), latent=128, widths=(32, 64, 96, 128), blocks=(1, 1, 1, 1), spread=0.3)
    train(
        prior,
        [EvidenceBound(prior, seed=settings.seed, warmup=options.warmup_kl)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        measure=lambda prior: held_out_and_seen(partial(measure, prior), evenly(held_out, 128), first(data, 128)),
        card={
            "data": f"five classes of flowers, {len(data)} photographs of 64 x 64, mirrored too; see flowers.csv",
            "licence": "CC BY 2.0",
        },
    )


if __name__ == "__main__":
    main()

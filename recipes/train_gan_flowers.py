"""Train `gan-flowers`: an adversarial prior of 64 x 64 photographs of flowers, discriminator and generator in turn.

    python recipes/train_gan_flowers.py --data flowers_64.npz --out runs/gan-flowers

`flowers_64.npz` holds `train_images`, uint8 (N, 64, 64, 3); a share of them, by a hash of each, is held out. How near
the generator comes to these is measured beside how near it comes to images trained on. Kill it when you like and call
it again: it goes on where it was. The result is `OUT/prior`.
"""

import argparse
from dataclasses import replace
from functools import partial

import torch

from genprior.nets.gan import Discriminator
from genprior.priors.gan import GAN
from genprior.training.adversarial import gan
from genprior.training.augmentation import varied
from genprior.training.data import evenly, first, open_parts
from genprior.training.families import ADVERSARIAL
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train
from genprior.training.quality import held_out_and_seen, search_psnr

# at the usual rate of 1e-3, the generator of images this large dies within 200 steps
DEFAULTS = Settings(steps=8000, batch=32, **ADVERSARIAL | {"lr": 3e-4})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--validation-share", type=float, default=0.05, help="of the training images, held out")
    parser.add_argument("--out", default="runs/gan-flowers")
    parser.add_argument("--gamma", type=float, default=1.5, help="weight of the penalty on the discriminator")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data, held_out = open_parts(options.data, options.validation_share, orientations=2, seed=settings.seed)
    torch.manual_seed(settings.seed)
    widths = (128, 96, 64, 32)
    prior = GAN(tuple(data[0]["x"].shape), latent=128, spread=0.3, widths=widths)
    discriminator = Discriminator(prior.image_shape, widths=widths[::-1])
    train(
        prior,
        gan(prior, discriminator, seed=settings.seed, gamma=options.gamma, augment=varied),
        data,
        settings,
        options.out,
        preview=lambda prior: prior.sample(64, seed=0),
        measure=lambda prior: held_out_and_seen(partial(search_psnr, prior), evenly(held_out, 16), first(data, 16)),
        card={
            "data": f"five classes of flowers, {len(data)} photographs of 64 x 64, mirrored too; see flowers.csv",
            "licence": "CC BY 2.0",
        },
    )


if __name__ == "__main__":
    main()

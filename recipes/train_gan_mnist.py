"""Train `gan-mnist`: an adversarial prior of handwritten digits, discriminator and generator in turn.

    python recipes/train_gan_mnist.py --data mnist.npz --out runs/gan-mnist

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28); the first 55,000 are used. Kill it at any time and run it
again: it resumes where it stopped. The result is `OUT/prior`; `recipes/evaluate_gan_mnist.py` says whether a mode is
lost. The card of the bundled prior has the seconds it took, on CPU cores shared with other work.
"""

import argparse
from dataclasses import replace

import torch

from genprior.nets.gan import Discriminator
from genprior.priors.gan import GAN
from genprior.training.adversarial import gan
from genprior.training.data import Arrays, first
from genprior.training.families import ADVERSARIAL
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train
from genprior.training.quality import search_psnr

DEFAULTS = Settings(steps=4000, batch=64, **ADVERSARIAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--out", default="runs/gan-mnist")
    parser.add_argument("--gamma", type=float, default=0.25, help="weight of the penalty on the discriminator")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data = Arrays(options.data, "train_images", keep=slice(0, 55000), seed=settings.seed)
    held_out = Arrays(options.data, "train_images", keep=slice(55000, 60000), seed=None)

    torch.manual_seed(settings.seed)
    prior = GAN((1, 28, 28), latent=64, spread=0.48)
    train(
        prior,
        gan(prior, Discriminator(prior.image_shape), seed=settings.seed, gamma=options.gamma),
        data,
        settings,
        options.out,
        preview=lambda prior: prior.sample(64, seed=0),
        measure=lambda prior: search_psnr(prior, first(held_out, 16)),
        card={"data": "MNIST, first 55,000 training digits", "licence": "CC BY-SA 3.0"},
    )


if __name__ == "__main__":
    main()

"""Train one flow of handwritten digits adversarially, by likelihood, or by the weighted sum of both losses.

    python recipes/train_flow_gan_mnist.py --data mnist.npz --out runs/flow-gan-mnist/hybrid --weight 10
    python recipes/train_flow_gan_mnist.py --data mnist.npz --out runs/flow-gan-mnist/adversarial --adversarial
    python recipes/train_flow_gan_mnist.py --data mnist.npz --out runs/flow-gan-mnist/likelihood --weight inf

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28); the first 55,000 are used, and bits per value of the others are
logged. All three start from the same weights and see the same digits in the same order, with the same settings. Kill it
at any time and run it again: it resumes where it stopped. The result is `OUT/prior`, an ordinary flow;
`recipes/flow_gan_table.py` compares the three.
"""

import argparse
from dataclasses import replace

import torch

from genprior.bits import dequantize
from genprior.nets.gan import Discriminator
from genprior.noise import Noise
from genprior.priors.flow import Flow
from genprior.training.data import Arrays, first
from genprior.training.families import ADVERSARIAL
from genprior.training.flags import add_flags, stated
from genprior.training.flow_gan import flow_gan
from genprior.training.loop import Settings, train
from genprior.training.quality import held_out_bits

DEFAULTS = Settings(steps=1000, batch=32, ema=0.99, validate_every=200, **ADVERSARIAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--out", default="runs/flow-gan-mnist/hybrid")
    loss = parser.add_mutually_exclusive_group()
    loss.add_argument("--adversarial", dest="weight", action="store_const", const=0.0, help="the same as --weight 0")
    loss.add_argument("--weight", type=float, help="of the bits per value (default: 10); inf: likelihood alone")
    parser.set_defaults(weight=10.0)
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data = Arrays(options.data, "train_images", keep=slice(0, 55000), seed=settings.seed)
    held_out = first(Arrays(options.data, "train_images", keep=slice(55000, 60000), seed=None), 500)

    torch.manual_seed(settings.seed)
    prior = Flow((1, 28, 28), widths=(32, 64), steps=(4, 4), pixels="ink")
    examples = first(data, 1000)
    prior.initialise(dequantize(examples, Noise(settings.seed, torch.arange(len(examples)))))
    discriminator = Discriminator(prior.image_shape)
    train(
        prior,
        flow_gan(prior, discriminator, weight=options.weight, seed=settings.seed),
        data,
        settings,
        options.out,
        preview=lambda prior: prior.sample(64, seed=0),
        measure=lambda prior: held_out_bits(prior, held_out),
        card={"data": "MNIST, first 55,000 training digits", "licence": "CC BY-SA 3.0", "weight": options.weight},
    )


if __name__ == "__main__":
    main()

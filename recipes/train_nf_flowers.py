"""Train `nf-flowers`: a normalizing flow of 64 x 64 photographs of flowers, by maximum likelihood.

    python recipes/train_nf_flowers.py --data flowers_64.npz --out runs/nf-flowers

`flowers_64.npz` holds `train_images`, uint8 (N, 64, 64, 3); a share of them, by a hash of each, is held out, on
which training stops early with, say, `--patience 3`. Bits per value are measured on images trained on as well: where
the two part, the network memorises. Kill it when you like and call it again: it goes on where it was. The result is
`OUT/prior`.
"""

import argparse
from dataclasses import replace
from functools import partial

import torch

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.base import Prior
from genprior.priors.flow import Flow
from genprior.training.data import evenly, first, open_parts
from genprior.training.flags import add_flags, stated
from genprior.training.likelihood import MaximumLikelihood
from genprior.training.loop import Settings, train
from genprior.training.quality import held_out_and_seen, held_out_bits

DEFAULTS = Settings(steps=6000, batch=16, lr=1e-3)


def preview(prior: Prior) -> torch.Tensor:
    return prior.sample(16, seed=0).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--validation-share", type=float, default=0.05, help="of the training images, held out")
    parser.add_argument("--out", default="runs/nf-flowers")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data, held_out = open_parts(options.data, options.validation_share, orientations=2, seed=settings.seed)
    torch.manual_seed(settings.seed)
    examples = first(data, 256)
    prior = Flow(tuple(examples.shape[1:]), widths=(48, 64, 80), steps=(6, 6, 6), pixels="linear")
    prior.initialise(dequantize(examples, Noise(settings.seed, torch.arange(len(examples)))), whiten=True)
    train(
        prior,
        [MaximumLikelihood(prior, seed=settings.seed)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        measure=lambda prior: held_out_and_seen(partial(held_out_bits, prior), evenly(held_out, 64), first(data, 64)),
        card={
            "data": f"five classes of flowers, {len(data)} photographs of 64 x 64, mirrored too; see flowers.csv",
            "licence": "CC BY 2.0",
        },
    )


if __name__ == "__main__":
    main()

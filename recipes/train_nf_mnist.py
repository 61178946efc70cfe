"""Train `nf-mnist`: a normalizing flow of handwritten digits, by maximum likelihood.

    python recipes/train_nf_mnist.py --data mnist.npz --out runs/nf-mnist

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28); the last 5,000 are kept for validation, on which training stops
early with, say, `--patience 3`. Its 4000 steps end at 1.18 bits per value of the validation digits; the card of the
bundled prior has the seconds they took, on a CPU core shared with other work. Kill it at any time and run it again: it
resumes where it stopped. The result is `OUT/prior`.
"""

import argparse
from dataclasses import replace

import torch

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.base import Prior
from genprior.priors.flow import Flow
from genprior.training.data import Arrays, first
from genprior.training.flags import add_flags, stated
from genprior.training.likelihood import MaximumLikelihood
from genprior.training.loop import Settings, train

DEFAULTS = Settings(steps=4000, batch=32, lr=2e-3)


def preview(prior: Prior) -> torch.Tensor:
    return prior.sample(16, seed=0).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--out", default="runs/nf-mnist")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data = Arrays(options.data, "train_images", keep=slice(0, 55000), seed=settings.seed)
    held_out = Arrays(options.data, "train_images", keep=slice(55000, 60000), seed=None)

    torch.manual_seed(settings.seed)
    prior = Flow((1, 28, 28), widths=(32, 64), steps=(8, 4), pixels="ink")
    examples = first(data, 1000)
    prior.initialise(dequantize(examples, Noise(settings.seed, torch.arange(len(examples)))))
    train(
        prior,
        [MaximumLikelihood(prior, seed=settings.seed)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        card={"data": "MNIST, first 55,000 training digits", "licence": "CC BY-SA 3.0"},
    )


if __name__ == "__main__":
    main()

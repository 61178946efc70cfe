"""Train `ddpm-mnist`: a diffusion prior of handwritten digits, with the loss of the course.

    python recipes/train_ddpm_mnist.py --data mnist.npz --out runs/ddpm-mnist

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28), and `train_labels`; the last 5,000 are kept for validation.
Kill it at any time and run it again: it resumes where it stopped. The result is `OUT/prior`.
"""

import argparse
from dataclasses import replace

import torch

from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.training.data import Arrays, first
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train
from genprior.training.objectives import NoisePrediction
from genprior.training.quality import denoising_psnr

DEFAULTS = Settings(steps=6000, batch=64, lr=1e-3)


def preview(prior: Prior) -> torch.Tensor:
    return prior.sample(16, seed=0, steps=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images and train_labels")
    parser.add_argument("--out", default="runs/ddpm-mnist")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data = Arrays(options.data, "train_images", "train_labels", keep=slice(0, 55000), seed=settings.seed)
    held_out = Arrays(options.data, "train_images", "train_labels", keep=slice(55000, 60000), seed=None)

    torch.manual_seed(settings.seed)
    prior = DDPM((1, 28, 28), betas="geometric", data_std=0.6, classes=10, edges=True, widths=(64, 128), patch=2)
    train(
        prior,
        [NoisePrediction(prior, seed=settings.seed)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        measure=lambda prior: denoising_psnr(prior, first(held_out, 16)),
        finish=lambda prior: prior.calibrate(first(held_out, 1000)),
        card={"data": "MNIST, first 55,000 training digits", "licence": "CC BY-SA 3.0"},
    )


if __name__ == "__main__":
    main()

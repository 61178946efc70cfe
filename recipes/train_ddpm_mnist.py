"""Train `ddpm-mnist`: a diffusion prior of handwritten digits, with the loss of the course.

    python recipes/train_ddpm_mnist.py --data mnist.npz --out runs/ddpm-mnist

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28), and `train_labels`; the last 5,000 are kept for validation.
Kill it when you like and call it again: it goes on where it was. The result is `OUT/prior`.
"""

import argparse

import torch

from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.training.data import Arrays, first
from genprior.training.loop import Settings, train
from genprior.training.objectives import NoisePrediction


def preview(prior: Prior) -> torch.Tensor:
    return prior.sample(16, seed=0, steps=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images and train_labels")
    parser.add_argument("--out", default="runs/ddpm-mnist")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", default="bf16", choices=["no", "bf16"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    data = Arrays(options.data, "train_images", "train_labels", keep=slice(0, 55000), seed=options.seed)
    held_out = Arrays(options.data, "train_images", "train_labels", keep=slice(55000, 60000), seed=None)

    torch.manual_seed(options.seed)
    prior = DDPM((1, 28, 28), betas="geometric", data_std=0.6, classes=10, edges=True, widths=(64, 128), patch=2)
    settings = Settings(
        steps=options.steps, batch=options.batch, lr=options.lr, precision=options.precision, seed=options.seed
    )
    train(
        prior,
        [NoisePrediction(prior, seed=options.seed)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        finish=lambda prior: prior.fit_decoder(first(held_out, 1000)),
        card={"data": "MNIST, first 55,000 training digits", "licence": "CC BY-SA 3.0"},
    )


if __name__ == "__main__":
    main()

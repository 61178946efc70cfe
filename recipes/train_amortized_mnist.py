"""Train a posterior of digits for one operator on simulated pairs: `OUT/prior`, for the sampler `amortized`.

    python recipes/train_amortized_mnist.py --data mnist.npz --task super-resolution --out runs/amortized-sr-mnist
    python recipes/train_amortized_mnist.py --data mnist.npz --task inpaint --out runs/amortized-inpaint-mnist

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28): 55,000 to train on, the next 2,000 for validation. The operator
averages blocks of 4 x 4 pixels, or hides 30 to 70 % of the pixels; the noise is 0.02 to 0.1. If killed,
run it again: it resumes.
"""

import argparse
from dataclasses import replace

import torch

from genprior.operators import Inpaint, SuperResolution
from genprior.priors.amortized import LearnedPosterior
from genprior.training.amortization import Amortization
from genprior.training.data import Arrays
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train

DEFAULTS = Settings(steps=3000, batch=64, lr=1e-3)
SHAPE = (1, 28, 28)
REDUCTION = SuperResolution(4, SHAPE, "average")


def holes(x, noise) -> Inpaint:
    """Draw a mask for each image, each with its own share of holes."""
    share = 0.3 + 0.4 * noise.uniform(x[:, :1, :1, :1])
    return Inpaint(noise.uniform(x) < share, SHAPE)


TASKS = {
    "super-resolution": ({"name": "SuperResolution", "scale": 4, "antialias": "average"}, lambda x, noise: REDUCTION),
    "inpaint": ({"name": "Inpaint"}, holes),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--task", choices=TASKS, default="super-resolution")
    parser.add_argument("--out", default="runs/amortized-mnist")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data = Arrays(options.data, "train_images", keep=slice(0, 55000), seed=settings.seed)
    held_out = Arrays(options.data, "train_images", keep=slice(55000, 57000), seed=None)

    torch.manual_seed(settings.seed)
    description, operator = TASKS[options.task]
    chain = {"betas": "geometric", "data_std": 0.6, "edges": True, "widths": (48, 96), "patch": 2}
    prior = LearnedPosterior(SHAPE, operator=description, noise=(0.02, 0.1), **chain)
    train(
        prior,
        [Amortization(prior, operator, seed=settings.seed)],
        data,
        settings,
        options.out,
        validation=held_out,
        card={"data": "MNIST, first 55,000 training digits", "licence": "CC BY-SA 3.0"},
    )


if __name__ == "__main__":
    main()

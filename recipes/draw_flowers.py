"""Draws from posteriors of flowers, and from the prior by class: the figures to look at.

    python recipes/draw_flowers.py --data flowers_64.npz --prior ddpm-flowers --out flowers

`OUT/posterior.png`: of four test images and three measurements each, y, five draws, the mean of all draws, their
standard deviation, white where they differ most, and the truth. `OUT/classes.png`: of each class a row, eight draws
without guidance and eight with it.
"""

import argparse
from pathlib import Path

import torch
from torch.nn.functional import interpolate

import genprior
from genprior import images
from genprior.benchmark.contact import sheet
from genprior.devices import alone
from genprior.training.data import Arrays, evenly

NOISE = 0.025
TASKS = {
    "24 x 24 box": ("inpaint", {"mask": "box", "size": 24}),
    "super-resolution x8": ("super-resolution", {"scale": 8}),
    "92 % missing": ("inpaint", {"mask": "random", "fraction": 0.92}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with test_images")
    parser.add_argument("--prior", default="ddpm-flowers", help="a diffusion with classes that have names")
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--steps", type=int, help="of the sampler")
    parser.add_argument("--images", type=int, default=4, help="how many test images, of different classes")
    parser.add_argument("--n", type=int, default=16, help="draws of each, five of them shown")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--chain", type=int, default=100, help="steps of the prior's own chain")
    parser.add_argument("--out", type=Path, default=Path("flowers"))
    options = parser.parse_args()
    alone("draw_flowers")

    x = evenly(Arrays(options.data, "test_images", seed=None), options.images)
    prior = genprior.load_prior(options.prior)
    options.out.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[torch.Tensor]] = {}
    for seed, (op, parameters) in enumerate(TASKS.values()):
        measurement = genprior.degrade(x, op, noise=NOISE, seed=seed, **parameters)
        found = genprior.restore(
            measurement, prior=prior, sampler=options.sampler, steps=options.steps, n=options.n, seed=seed
        )
        samples = found.samples.reshape(len(x), options.n, *x.shape[1:])
        std = samples.std(1).mean(1, keepdim=True)
        shown = {
            "measurement": interpolate(measurement.y, x.shape[2:]),
            **{f"draw {k + 1}": samples[:, k] for k in range(5)},
            "mean": samples.mean(1),
            "standard deviation": (std / std.amax((2, 3), keepdim=True)).expand(-1, 3, -1, -1),
            "truth": x,
        }
        for name, column in shown.items():
            columns.setdefault(name, []).extend(column)
    sheet(columns).save(options.out / "posterior.png")

    ways = [prior.given(name, w) for name in prior.class_names for w in (1.0, options.guidance)]
    draws = torch.cat([way.sample(8, steps=options.chain) for way in ways])
    images.save(images.grid(draws, columns=16), options.out / "classes.png")


if __name__ == "__main__":
    main()

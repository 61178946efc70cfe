"""Measure the error of the estimated noise level, on photographs with white noise of known standard deviation.

    python recipes/evaluate_noise.py --data FOLDER...

Whole photographs on [0, 1]; where the true noise is 0, each is first halved in size by means of 2 x 2 pixels, because
film and sensors have noise of their own. "kept": y = x + noise n as it is; "8 bits": clipped and rounded, as a file
holds it; "grey": the mean of the channels, kept; "holes": 70 % of the pixels missing at random. Each has the 5 %, 50 %
and 95 % quantiles of estimate / noise (of the estimate where the noise is 0), and the share of good estimates: from 0.8
to 1.3, or below 0.012 where the noise is 0.
"""

import argparse
from pathlib import Path

import torch
from skimage import data
from torch import Tensor

from genprior import images
from genprior.devices import alone
from genprior.images.files import list_images
from genprior.noise import Noise
from genprior.noise_level import noise_level
from genprior.operators import random_mask

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
KINDS = ("kept", "8 bits", "grey", "holes")


def photographs(folders: list[Path], most: int) -> list[Tensor]:
    """Return at most `most` photographs of each folder, evenly spaced; without folders, five of scikit-image."""
    if not folders:
        return [images.read(getattr(data, name)()).x for name in PHOTOS]
    found = []
    for folder in folders:
        paths = list_images(folder)
        found += [images.read(paths[k * len(paths) // most] if len(paths) > most else paths[k]).x
                  for k in range(min(most, len(paths)))]  # fmt: skip
    return found


def estimates(x: Tensor, level: float, noise: Noise, seed: int) -> list[Tensor]:
    """Estimate the noise of one photograph, for each of `KINDS`."""
    x = x if level else torch.nn.functional.avg_pool2d(x, 2)
    y = x + level * noise(x)
    grey = x.mean(1, keepdim=True)
    return [
        noise_level(y),
        noise_level((y.clamp(0, 1) * 255).round() / 255),
        noise_level(grey + level * noise(grey)),
        noise_level(y, random_mask(tuple(y.shape[-2:]), 0.7, seed=seed)[None]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders (default: five of scikit-image)")
    parser.add_argument("--most", type=int, default=80, help="photographs of each folder (default: %(default)s)")
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 0.01, 0.02, 0.05, 0.1])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    alone("evaluate_noise")

    photos = photographs(options.data, options.most)
    print(f"{len(photos)} photographs\n")
    print(f"| noise | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}")
    for level in options.noise:
        found = [estimates(x, level, Noise(options.seed, [i]), options.seed) for i, x in enumerate(photos)]
        cells = []
        for of_kind in zip(*found):
            estimate = torch.cat(of_kind).flatten().double() / (level or 1)
            good = (estimate >= 0.8) & (estimate <= 1.3) if level else estimate < 0.012
            quantiles = estimate.quantile(torch.tensor([0.05, 0.5, 0.95]).double()).tolist()
            cells.append(" ".join(f"{q:.{2 if level else 4}f}" for q in quantiles) + f" {good.double().mean():.0%}")
        print(f"| {level:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

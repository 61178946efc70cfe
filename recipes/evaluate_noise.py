"""How far the estimated noise level is off, on photographs with white noise of a known standard deviation.

    python recipes/evaluate_noise.py

Five photographs of scikit-image, whole, on [0, 1]. "kept": y = x + noise n as it is; "8 bits": clipped and rounded, as
a file holds it; "holes": 70 % of the pixels missing at random. Least, median and largest estimate of the five.
"""

import argparse

import torch
from skimage import data

from genprior import images
from genprior.estimate import noise_level
from genprior.noise import Noise
from genprior.operators import random_mask

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket")


def estimates(level: float, seed: int) -> dict[str, torch.Tensor]:
    """The estimate on each photograph, by the kind of measurement."""
    found: dict[str, list[torch.Tensor]] = {"kept": [], "8 bits": [], "holes": []}
    for i, name in enumerate(PHOTOS):
        x = images.read(getattr(data, name)()).x
        y = x + level * Noise(seed, [i])(x)
        found["kept"].append(noise_level(y))
        found["8 bits"].append(noise_level((y.clamp(0, 1) * 255).round() / 255))
        found["holes"].append(noise_level(y, random_mask(tuple(y.shape[-2:]), 0.7, seed=seed)[None]))
    return {kind: torch.cat(values).flatten().sort().values for kind, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 0.01, 0.02, 0.05, 0.1, 0.2])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    print("| noise | kept | 8 bits | holes |\n|---|---|---|---|")
    for level in options.noise:
        cells = (f"{v[0]:.4f} {v.median():.4f} {v[-1]:.4f}" for v in estimates(level, options.seed).values())
        print(f"| {level:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

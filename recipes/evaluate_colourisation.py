"""Measure how far colourised photographs are from their true colours, and how colourful they are.

    python recipes/evaluate_colourisation.py --data PHOTOS

The centre of each photograph is reduced to `--side` pixels and turned grey. Grey image, picture of `restore` and one
draw are scored by the mean distance to the truth in (a, b) of CIELAB, and by colourfulness over that of the truth
(D. Hasler, S. Suesstrunk, Measuring colourfulness in natural images, 2003): means ± standard errors over images.
"""

import argparse

import numpy as np
import torch
from skimage.color import rgb2lab
from torch.nn import functional as F

import genprior
from genprior import images
from genprior.devices import alone
from genprior.table import Estimate, Table


def rgb(x: torch.Tensor) -> np.ndarray:
    return x.clamp(0, 1).movedim(0, -1).double().numpy()


def distance(x: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the mean over pixels of the distance in (a, b); both images are (3, H, W)."""
    return float(np.linalg.norm(rgb2lab(rgb(x))[..., 1:] - rgb2lab(rgb(truth))[..., 1:], axis=-1).mean())


def colourfulness(x: torch.Tensor) -> float:
    r, g, b = 255 * np.moveaxis(rgb(x), -1, 0)
    opponents = np.stack([r - g, (r + g) / 2 - b])
    return float(np.hypot(*opponents.std((1, 2))) + 0.3 * np.hypot(*opponents.mean((1, 2))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs")
    parser.add_argument("--prior", default="ddpm-photo")
    parser.add_argument(
        "--images", type=int, default=10, help="how many, evenly from the folder (default: %(default)s)"
    )
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    alone("evaluate_colourisation")

    paths = images.list_images(options.data)
    rows = {"grey": [], "picture": [], "one draw": []}
    for path in paths[:: max(1, len(paths) // options.images)][: options.images]:
        x = images.read(path).seen[0]
        side = min(x.shape[1:])
        top, left = ((n - side) // 2 for n in x.shape[1:])
        square = x[None, :, top : top + side, left : left + side]
        truth = F.interpolate(square, size=(options.side, options.side), mode="area")[0]
        y = genprior.degrade(truth, "colorize", noise=0.01, seed=0)
        result = genprior.restore(y, prior=options.prior, n=1, seed=0, progress=False)
        grey = y.y[0].expand(3, -1, -1)
        for x_hat, found in zip((grey, result.mean, result.samples[0]), rows.values()):
            found.append((distance(x_hat, truth), colourfulness(x_hat) / colourfulness(truth)))
    table = [
        {"image": name, "distance in (a, b)": Estimate.mean(d), "colourfulness, of the truth's": Estimate.mean(c)}
        for name, (d, c) in ((name, np.transpose(found).tolist()) for name, found in rows.items())
    ]
    print(Table(table).markdown())


if __name__ == "__main__":
    main()

"""Restore four photographs that nobody trained on, compare with tuned classical methods, draw one figure.

    python recipes/demo.py --out demo          (what `make demo` runs)

Noise 0.025 on [0, 1]. The classical methods (TV, biharmonic, bicubic, Wiener) are tuned on the truth, ours are not.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

import genprior
from genprior import images
from genprior.benchmark.baselines import classical
from genprior.devices import alone
from genprior.scores.metrics import psnr, ssim

NOISE = 0.025
TASKS = {
    "random inpainting, 70 % missing": ("astronaut", "inpaint", {"mask": "random", "fraction": 0.7}),
    "super-resolution x4": ("chelsea", "super-resolution", {"scale": 4}),
    "Gaussian deblurring, width 2": ("coffee", "gaussian-deblur", {"width": 2.0}),
    "motion deblurring, length 15": ("rocket", "motion-deblur", {"length": 15, "angle": 30}),
}


def photograph(name: str, size: int) -> torch.Tensor:
    """Return the centre of a photograph, scaled down to (3, size, size)."""
    image = Image.fromarray(getattr(skimage.data, name)())
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    return torch.from_numpy(np.asarray(image).copy()).movedim(-1, 0).float() / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--prior", default="ddpm")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--size", type=int, default=192)
    options = parser.parse_args()
    alone("demo")
    prior = genprior.load_prior(options.prior)
    rows, began = [], time.perf_counter()
    print("| task | measurement | best classical | one draw | picture | picture - classical | seconds |")
    print("|---|---|---|---|---|---|---|")
    for seed, (task, (name, op, parameters)) in enumerate(TASKS.items()):
        image = photograph(name, options.size)
        measurement = genprior.degrade(image, op, noise=NOISE, seed=seed, **parameters)
        truth = measurement.operator.frame(image)
        result = genprior.restore(measurement, prior=prior, steps=options.steps, n=options.n, seed=seed)
        baselines = classical(measurement, truth)
        best = max(baselines, key=lambda key: float(psnr(baselines[key], truth)))
        measured = torch.nn.functional.interpolate(measurement.y, size=truth.shape[1:], mode="nearest")[0]
        shown = [measured, baselines[best], result.samples[0], result.mean]
        cells = [f"{float(psnr(x, truth)):.2f} dB, {ssim(x, truth):.3f}" for x in shown]
        cells[1] = f"{best} {cells[1]}"
        gain = float(psnr(result.mean, truth) - psnr(baselines[best], truth))
        print(f"| {task} | {' | '.join(cells)} | {gain:+.2f} dB | {result.seconds:.1f} |", flush=True)
        if gain <= 0:
            print(f"  not above {best}: a small prior, trained on a CPU; the recipe on a GPU goes further", flush=True)
        rows.append([*shown, truth])
    print(f"{options.n} draws by {result.sampler}; {time.perf_counter() - began:.0f} s in all")
    side = max(x.shape[-1] for row in rows for x in row)
    sheet = torch.ones(5 * len(rows), 3, side, side)
    for cell, x in zip(sheet, (x for row in rows for x in row)):
        cell[:, : x.shape[1], : x.shape[2]] = x
    images.save(images.grid(sheet, columns=5, pad=4), options.out / "figure.png")
    print(f"{options.out / 'figure.png'}: measurement, best classical, one draw, picture, truth")


if __name__ == "__main__":
    main()

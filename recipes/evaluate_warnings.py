"""How often a restoration is warned of: sound ones never should be, wrong kernels and noises always.

    python recipes/evaluate_warnings.py --data photos/validation

Crops of photographs, measured in five ways with noise 0.025, restored with few steps: first as they were measured, then
with a wrong kernel or noise. For each task the median and the largest residual and
excess (see `genprior.plausible`) of the crops, and how many were warned of.
"""

import argparse
import warnings
from pathlib import Path

import torch

import genprior
from genprior import images
from genprior.images.files import list_images
from genprior.operators import Measurement
from genprior.operators.build import for_image

MOTION = {"length": 11, "angle": 30}
SOUND = {
    "70 % missing": ("inpaint", {"mask": "random", "fraction": 0.7}),
    "box": ("inpaint", {"mask": "box", "size": 20}),
    "gaussian-deblur": ("gaussian-deblur", {"width": 1.5}),
    "motion-deblur": ("motion-deblur", MOTION),
    "super-resolution": ("super-resolution", {"scale": 4}),
}
# What was measured, what it is said to be, and the noise that is stated; blurs about the edges, to have one size.
WRONG = {
    "gaussian 1.5 as 2": (("gaussian-deblur", {"width": 1.5}), ("gaussian-deblur", {"width": 2.0}), 0.025),
    "gaussian 1.5 as 3": (("gaussian-deblur", {"width": 1.5}), ("gaussian-deblur", {"width": 3.0}), 0.025),
    "motion at 30 as at 120": (("motion-deblur", MOTION), ("motion-deblur", MOTION | {"angle": 120}), 0.025),
    "motion 11 as 21": (("motion-deblur", MOTION), ("motion-deblur", MOTION | {"length": 21}), 0.025),
    "noise 0.025 as 0.005": (("motion-deblur", MOTION), ("motion-deblur", MOTION), 0.005),
}


def crops(folder: Path, number: int, side: int) -> list[torch.Tensor]:
    """The middle of so many photographs, (3, side, side)."""
    found = []
    for path in list_images(folder)[:number]:
        x = images.read(path).x[0]
        top, left = ((length - side) // 2 for length in x.shape[1:])
        found.append(x[:, top : top + side, left : left + side])
    return found


def row(task: str, measurements: list[Measurement], told: str, options: argparse.Namespace) -> str:
    residuals, excesses, warned = [], [], 0
    for i, measurement in enumerate(measurements):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = genprior.restore(
                measurement, prior=options.prior, sampler=options.sampler, steps=options.steps, seed=i, progress=False
            )
        residuals.append(result.diagnostics["residual"].median())
        excesses.append(result.diagnostics["excess"].median())
        warned += any("Implausible" in str(each.message) for each in caught)
    r, e = torch.stack(residuals), torch.stack(excesses)
    figures = f"{r.median():.2f} {r.max():.2f} | {e.median():.3f} {e.max():.3f}"
    return f"| {task} | {told} | {figures} | {warned} of {len(measurements)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--prior", default="ddpm-photo")
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--crops", type=int, default=40)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--wrong", type=int, default=10, help="crops for what is wrong (default: %(default)s)")
    options = parser.parse_args()

    photos = crops(options.data, options.crops, options.side)
    print("| task | told | residual: median, largest | excess | warned |\n|---|---|---|---|---|", flush=True)
    for task, (op, parameters) in SOUND.items():
        measured = [genprior.degrade(x, op, noise=0.025, seed=i, **parameters) for i, x in enumerate(photos)]
        print(row(task, measured, "right", options), flush=True)
    for task, ((op, parameters), (said, others), noise) in WRONG.items():
        measured = [
            genprior.degrade(x, op, noise=0.025, seed=i, boundary="circular", **parameters).y
            for i, x in enumerate(photos[: options.wrong])
        ]
        operator = for_image(said, tuple(photos[0].shape), boundary="circular", **others)
        print(row(task, [Measurement(y, operator, noise) for y in measured], "wrong", options), flush=True)


if __name__ == "__main__":
    main()

"""Count restorations that raise a warning: sound ones never should, those with a wrong kernel or noise where it shows.

    python recipes/evaluate_warnings.py --data photos/validation

Crops of photographs, noise 0.025, few steps: median and largest residual and excess (see `genprior.plausible`).
"""

import argparse
import statistics
import warnings
from pathlib import Path

import torch

import genprior
from genprior import images
from genprior.devices import alone
from genprior.images.files import list_images
from genprior.operators.build import for_image

SIDE = 64  # of the crops
MOTION = {"length": 11, "angle": 30}
SOUND = {
    "70 % missing": ("inpaint", {"mask": "random", "fraction": 0.7}),
    "box": ("inpaint", {"mask": "box", "size": 20}),
    "gaussian-deblur": ("gaussian-deblur", {"width": 1.5}),
    "motion-deblur": ("motion-deblur", MOTION),
    "super-resolution": ("super-resolution", {"scale": 4}),
}
# The true operator, the stated one, and the stated noise; blurs are circular, so that all have one size.
WRONG = {
    "gaussian 1.5 as 2": (("gaussian-deblur", {"width": 1.5}), ("gaussian-deblur", {"width": 2.0}), 0.025),
    "gaussian 1.5 as 3": (("gaussian-deblur", {"width": 1.5}), ("gaussian-deblur", {"width": 3.0}), 0.025),
    "motion at 30 as at 120": (("motion-deblur", MOTION), ("motion-deblur", MOTION | {"angle": 120}), 0.025),
    "motion 11 as 21": (("motion-deblur", MOTION), ("motion-deblur", MOTION | {"length": 21}), 0.025),
    "noise 0.025 as 0.005": (("motion-deblur", MOTION), ("motion-deblur", MOTION), 0.005),
}


def middle(x: torch.Tensor) -> torch.Tensor:
    """Return the centre (3, SIDE, SIDE) of a photograph (3, H, W)."""
    top, left = ((length - SIDE) // 2 for length in x.shape[1:])
    return x[:, top : top + SIDE, left : left + SIDE]


def row(task: str, measurements: list[genprior.Measurement], prior: str, steps: int) -> str:
    figures, warned = {"residual": [], "excess": []}, 0
    for i, measurement in enumerate(measurements):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = genprior.restore(measurement, prior=prior, steps=steps, seed=i, progress=False)
        for name, values in figures.items():
            values.append(float(result.diagnostics[name]))
        warned += any("Implausible" in str(each.message) for each in caught)
    cells = (f"{statistics.median(values):.3f} {max(values):.3f}" for values in figures.values())
    return f"| {task} | {' | '.join(cells)} | {warned} of {len(measurements)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--prior", default="ddpm-photo")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--crops", type=int, default=40)
    options = parser.parse_args()
    alone("evaluate_warnings")
    photos = [(i, middle(images.read(p).x[0])) for i, p in enumerate(list_images(options.data)[: options.crops])]
    print("| task | residual: median, largest | excess | warned |\n|---|---|---|---|", flush=True)
    for task, (op, parameters) in SOUND.items():
        measured = [genprior.degrade(x, op, noise=0.025, seed=i, **parameters) for i, x in photos]
        print(row(task, measured, options.prior, options.steps), flush=True)
    for task, ((op, parameters), (said, others), noise) in WRONG.items():
        A = for_image(op, (3, SIDE, SIDE), boundary="circular", **parameters)
        told = for_image(said, (3, SIDE, SIDE), boundary="circular", **others)
        measured = [genprior.Measurement(genprior.degrade(x, A, noise=0.025, seed=i).y, told, noise) for i, x in photos]
        print(row(task, measured, options.prior, options.steps), flush=True)


if __name__ == "__main__":
    main()

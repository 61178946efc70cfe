"""The same measurements of the same digits, restored with every family of priors: one table, one figure.

    python recipes/evaluate_families.py --data mnist.npz --out families

`mnist.npz` holds `test_images`, uint8 (N, 28, 28), the first of which are measured; "auto" picks the samplers.
PSNR and SSIM are means over the digits; `families.csv` has a line per digit, `families.png` shows ten digits.
"""

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import genprior
from genprior.devices import alone
from genprior.scores.metrics import psnr, ssim
from genprior.training.data import Arrays, first

NOISE = 0.05
TASKS = {
    "70 % missing": ("inpaint", {"mask": "random", "fraction": 0.7}),
    "14 x 14 box": ("inpaint", {"mask": "box", "size": 14}),
    "super-resolution x4": ("super-resolution", {"scale": 4, "antialias": "average"}),
    "Gaussian blur, width 1.5": ("gaussian-deblur", {"width": 1.5, "boundary": "circular"}),
    "motion blur, length 9": ("motion-deblur", {"length": 9, "angle": 30, "boundary": "circular"}),
}
PRIORS = ["gaussian-mnist", "nf-mnist", "vae-mnist", "ddpm-mnist", "gan-mnist"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with test_images")
    parser.add_argument("--priors", nargs="+", default=PRIORS)
    parser.add_argument("--digits", type=int, default=256)
    parser.add_argument("--n", type=int, default=4, help="samples of each")
    parser.add_argument("--out", type=Path, default=Path("families"))
    options = parser.parse_args()
    alone("evaluate_families")
    x = first(Arrays(options.data, "test_images", seed=None), options.digits)
    options.out.mkdir(parents=True, exist_ok=True)
    shown = [("truth", x[:10])]
    rows = [["task", "prior", "digit", "psnr_sample", "ssim_sample", "psnr_mean", "ssim_mean"]]
    print("| task | prior | sampler | PSNR, SSIM of one sample | of the mean | seconds a digit | evaluations |")
    print("|---|---|---|---|---|---|---|")
    for seed, (task, (op, parameters)) in enumerate(TASKS.items()):
        measurement = genprior.degrade(x, op, noise=NOISE, seed=seed, **parameters)
        shown.append((task, torch.nn.functional.interpolate(measurement.y[:10], size=x.shape[-2:], mode="nearest")))
        for name in options.priors:
            result = genprior.restore(measurement, prior=name, n=options.n, seed=seed)
            figures = []
            for k, truth in enumerate(x):
                one, mean = result.samples[k, 0], result.mean[k]
                figures.append([float(psnr(one, truth)), ssim(one, truth), float(psnr(mean, truth)), ssim(mean, truth)])
                rows.append([task, name, k, *figures[-1]])
            a, b, c, d = torch.tensor(figures).mean(0).tolist()
            cells = [f"{a:.2f} dB, {b:.3f}", f"{c:.2f} dB, {d:.3f}", f"{result.seconds / len(x):.2f}"]
            cells = [task, name, type(result.sampler).__name__, *cells, result.network_evaluations * options.n]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            shown.append((name, result.samples[:10, 0]))

    with open(options.out / "families.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    draw(shown, options.out / "families.png")


def draw(shown: list[tuple[str, torch.Tensor]], path: Path) -> None:
    """Draw rows of digits, each with its name."""
    names, digits = zip(*shown)
    sheet = genprior.images.grid(torch.cat(digits).clamp(0, 1), columns=len(digits[0]))[0]
    figure, axes = plt.subplots(figsize=(6, 0.4 * len(shown)))
    axes.imshow(sheet, cmap="gray")
    axes.set_yticks([(k + 0.5) * len(sheet) / len(shown) for k in range(len(shown))], names, fontsize=8)
    axes.set_xticks([])
    figure.savefig(path, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()

"""Super-resolution x4 of digits, latent against pixel diffusion at equal seconds: a table and a figure.

    python recipes/latent_superresolution.py --data mnist.npz --out latent-superresolution

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28), of which the last 5,000, which no prior here has seen, are
measured: means of 4 x 4 pixels, noise 0.05. The steps of each method are set by its own seconds for a few steps, so
that all take about as long: as many as fit into SECONDS for each digit; what they took is in the table. PSNR and
consistency, the root mean square of y - A x over the noise (1 for the truth), are means over the digits.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import genprior
from genprior import images
from genprior.evaluation.metrics import psnr, ssim
from genprior.training.data import Arrays, first

NOISE, PROBE = 0.05, 10
METHODS = [("ddpm-mnist", "diffpir"), ("ddpm-mnist", "mmps"), ("ldm-mnist", "latent-daps"), ("ldm-mnist", "psld")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--digits", type=int, default=8)
    parser.add_argument("--n", type=int, default=2, help="samples of each")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each sample")
    parser.add_argument("--out", type=Path, default=Path("latent-superresolution"))
    options = parser.parse_args()

    x = first(Arrays(options.data, "train_images", keep=slice(-5000, None), seed=None), options.digits)
    measurement = genprior.degrade(x, "super-resolution", noise=NOISE, seed=0, scale=4, antialias="average")
    shown = [("truth", x), ("measurement", torch.nn.functional.interpolate(measurement.y, size=x.shape[-2:]))]
    print("| prior | sampler | steps | seconds | PSNR, SSIM of one sample | of the mean | consistency |")
    print("|---|---|---|---|---|---|---|")
    for prior, sampler in METHODS:

        def restore(steps: int, prior: str = prior, sampler: str = sampler):
            return genprior.restore(measurement, prior=prior, sampler=sampler, n=options.n, steps=steps, seed=0)

        restore(2)  # what is made once is made here
        draws = len(x) * options.n
        steps = max(2, round(PROBE * options.seconds * draws / restore(PROBE).seconds))
        result = restore(steps)
        r = measurement.y - measurement.operator(result.samples[:, 0])
        one, mean = (quality(images, x) for images in (result.samples[:, 0], result.mean))
        cells = [prior, sampler, steps, f"{result.seconds / draws:.2f}", one, mean]
        print(f"| {' | '.join(map(str, cells))} | {float(r.square().mean().sqrt()) / NOISE:.2f} |", flush=True)
        shown.append((f"{prior}, {sampler}", result.samples[:, 0]))
    draw(shown, options.out)


def quality(found: torch.Tensor, x: torch.Tensor) -> str:
    """Mean PSNR and SSIM."""
    ratio = sum(float(psnr(a, b)) for a, b in zip(found, x)) / len(x)
    return f"{ratio:.2f} dB, {sum(ssim(a, b) for a, b in zip(found, x)) / len(x):.3f}"


def draw(shown: list[tuple[str, torch.Tensor]], out: Path) -> None:
    """Rows of digits, each with its name."""
    names, digits = zip(*shown)
    sheet = images.grid(torch.cat(digits).clamp(0, 1), columns=len(digits[0]))[0]
    figure, axes = plt.subplots(figsize=(6, 0.7 * len(shown)))
    axes.imshow(sheet, cmap="gray")
    axes.set_yticks([(k + 0.5) * len(sheet) / len(shown) for k in range(len(shown))], names, fontsize=8)
    axes.set_xticks([])
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "superresolution.png", dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()

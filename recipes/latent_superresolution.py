"""Super-resolution x4, latent against pixel diffusion at equal seconds: a table and a figure.

    python recipes/latent_superresolution.py --data mnist.npz
    python recipes/latent_superresolution.py --photos gb82 --images 2 --n 1 --seconds 8

Measured are digits from the last 5,000 of `train_images` (60000, 28, 28), which no prior here has seen, or the centres
of photographs: means of 4 x 4 pixels, noise 0.05. Each method takes as many steps as fit into SECONDS of CPU time per
sample, by its own time for a few. PSNR and consistency, the root mean square of y - A x over the noise (1 for the
truth), are means over the images.
"""

import argparse
import time

import matplotlib.pyplot as plt
import torch

import genprior
from genprior.devices import alone
from genprior.samplers.latents.resample import ReSample
from genprior.scores.metrics import psnr, ssim
from genprior.training.data import Arrays, Photos, first

NOISE, PROBE = 0.05, 10
# As published, ReSample fits long and seldom: only once or twice in the few steps that the time allows.
LATENT = ["latent-daps", "psld", ReSample(every=2, iterations=20, rate=0.02)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help=".npz with train_images")
    parser.add_argument("--photos", help="folder of photographs, in place of digits")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="side of the photographs in pixels")
    parser.add_argument("--n", type=int, default=2, help="samples of each")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each sample")
    parser.add_argument("--ldm", default="ldm", help="name or folder of the latent diffusion")
    parser.add_argument("--out", default="latent-superresolution.png", help="the figure")
    options = parser.parse_args()
    alone("latent_superresolution")
    digits = options.data and Arrays(options.data, "train_images", keep=slice(-5000, None), seed=None)
    x = first(digits or Photos(options.photos, options.size, augment=False), options.images)
    given = genprior.degrade(x, "super-resolution", noise=NOISE, seed=0, scale=4, antialias="average")
    y = torch.nn.functional.interpolate(given.y, size=x.shape[-2:], mode="bicubic")
    shown = [("truth", x), ("bicubic", y)]
    print("| prior | sampler | steps | seconds | PSNR, SSIM of one sample | of the mean | consistency |")
    print(f"|---|---|---|---|---|---|---|\n|  | bicubic |  |  | {' | '.join(quality(y, y, x, given))} |")
    for family, sampler in [("ddpm", "diffpir"), ("ddpm", "mmps"), *(("ldm", latent) for latent in LATENT)]:
        prior = genprior.load_prior({"ldm": options.ldm}.get(family, family), image_shape=tuple(x.shape[1:]))
        steps = 2  # a first run pays for what is made only once
        for _ in range(3):
            began = time.process_time()
            result = genprior.restore(given, prior=prior, sampler=sampler, n=options.n, steps=steps, seed=0)
            seconds = (time.process_time() - began) / (len(x) * options.n)
            steps = PROBE if steps == 2 else max(3, round(PROBE * options.seconds / seconds))
        name, one = type(result.sampler).__name__, result.samples[:, 0]
        cells = [f"{result.sampler.steps}", f"{seconds:.2f}", *quality(one, result.mean, x, given)]
        print(f"| {' | '.join([family, name, *cells])} |", flush=True)
        shown.append((f"{family}, {name}", one))
    draw(shown, options.out)


def quality(one: torch.Tensor, mean: torch.Tensor, x: torch.Tensor, given: genprior.Measurement) -> list[str]:
    """Return mean PSNR and SSIM of one sample per image and of the means, and the consistency of the samples."""
    pairs = [[(float(psnr(a, b)), float(ssim(a, b))) for a, b in zip(found, x)] for found in (one, mean)]
    cells = ["{:.2f} dB, {:.3f}".format(*torch.tensor(each).mean(0).tolist()) for each in pairs]
    return [*cells, f"{float((given.y - given.operator(one)).square().mean().sqrt()) / NOISE:.2f}"]


def draw(shown: list[tuple[str, torch.Tensor]], out: str) -> None:
    names, rows = zip(*shown)
    sheet = genprior.images.grid(torch.cat(rows), columns=len(rows[0])).expand(3, -1, -1).movedim(0, -1)
    figure, axes = plt.subplots(figsize=(5, 5 * sheet.shape[0] / sheet.shape[1]), subplot_kw={"xticks": []})
    axes.imshow(sheet.numpy())
    axes.set_yticks([(k + 0.5) * len(sheet) / len(shown) for k in range(len(shown))], names, fontsize=8)
    figure.savefig(out, dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    main()

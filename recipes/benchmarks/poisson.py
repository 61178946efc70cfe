"""PSNR under photon noise: `restore` with `Poisson(1 / peak)`, and Anscombe's transform with the same network.

    python recipes/benchmarks/poisson.py --data CBSD68 --peaks 30 10 --images 12

The transform of counts k, 2 sqrt(k + 3/8), makes the noise white; the network denoises the result, and the exact
unbiased inverse maps it back. Counts are keyed by (0, image).

References: M. Makitalo, A. Foi, Optimal inversion of the Anscombe transformation in low-count Poisson image denoising,
2011 (the closed form of the inverse: A closed-form approximation of the exact unbiased inverse, 2011).
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

import genprior
from genprior import images
from genprior.likelihoods import Poisson
from genprior.scores.metrics import psnr


def anscombe(prior, y: Tensor, gain: float) -> Tensor:
    """Restore y = gain k, (B, C, H, W), by the transform, scaled to [0, 1] for the network."""
    low, high = (2 * math.sqrt(k + 3 / 8) for k in (0, 1 / gain))
    stable = (2 * (y / gain + 3 / 8).sqrt() - low) / (high - low)
    D = low + (high - low) * prior.denoise(stable, 1 / (high - low))
    D = D.clamp_min(low)
    a = math.sqrt(3 / 2)
    return gain * (D**2 / 4 + a / (4 * D) - 11 / (8 * D**2) + 5 * a / (8 * D**3) - 1 / 8).clamp_min(0)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--peaks", type=float, nargs="+", default=[30.0, 10.0], help="counts of white")
    parser.add_argument("--images", type=int, default=12, help="how many, evenly spread over the folder")
    parser.add_argument("--prior", default="ddpm-photo")
    options = parser.parse_args()
    prior = genprior.load_prior(options.prior)
    files = sorted(options.data.iterdir())
    files = files[:: max(1, len(files) // options.images)][: options.images]
    for peak in options.peaks:
        found = []
        for i, file in enumerate(files):
            x = images.read(file, role="image").seen
            one = genprior.degrade(x, "denoise", noise=Poisson(1 / peak), seed=i)
            ours = genprior.restore(one, prior=prior, seed=0, progress=False).mean[None]
            pictures = (one.y, anscombe(prior, one.y, 1 / peak), ours)
            found.append([float(psnr(picture.clamp(0, 1), x)) for picture in pictures])
        noisy, transformed, restored = torch.tensor(found).mean(0).tolist()
        told = f"y {noisy:.2f}, Anscombe {transformed:.2f}, restore {restored:.2f} dB"
        print(f"peak {peak:g}, {len(files)} images: {told}", flush=True)


if __name__ == "__main__":
    main()

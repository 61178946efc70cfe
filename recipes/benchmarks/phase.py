"""Phase retrieval of digits: how often draws of each sampler find the image, and how near the best of several comes.

Each digit has 16 draws. Of their PSNR in dB, "one" is the mean over draws, "best of 4" the mean over disjoint groups of
four of the draw that fits y best, and "oracle" the best of all 16 by the truth; "success" is the share of draws within
1 dB of the oracle. A digit turned by 180 degrees, or placed elsewhere in the black, has the same y: for the columns
"registered" the draws are first turned and moved to the truth.

    python recipes/benchmarks/phase.py --data mnist.npz --digits 4
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor

import genprior
from genprior.operators import PhaseRetrieval
from genprior.samplers import DAPSHMC, DPS, SITCOM, DAPSLangevin
from genprior.table import Table

SAMPLERS = {
    "dps": DPS(steps=300, zeta=1.0),
    "daps-hmc": DAPSHMC(steps=50),
    "daps-langevin": DAPSLangevin(steps=50),
    "sitcom": SITCOM(),
}
DRAWS, FEW, NOISE = 16, 4, 0.025


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a .npz with test_images (N, 28, 28) of bytes")
    parser.add_argument("--array", default="test_images")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--digits", type=int, default=4)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    options = parser.parse_args()
    chosen = slice(options.first, options.first + options.digits)
    truth = torch.from_numpy(np.load(options.data)[options.array][chosen]).float()[:, None] / 255
    measurement = genprior.degrade(truth, PhaseRetrieval((1, 28, 28)), noise=NOISE, seed=0)
    rows = []
    for name in options.samplers:
        began = time.perf_counter()
        result = genprior.restore(
            measurement, prior="ddpm-mnist", sampler=SAMPLERS[name], n=DRAWS, seed=0, progress=False
        )
        seconds = (time.perf_counter() - began) / (DRAWS * options.digits)
        residual = result.diagnostics["residual"]
        rows.append(
            {
                "sampler": repr(SAMPLERS[name]),
                **figures(psnr(result.samples, truth[:, None]), residual),
                **{f"{k}, registered": v for k, v in figures(registered(result.samples, truth), residual).items()},
                "residual": float(residual.median()),
                "seconds a draw": seconds,
            }
        )
    print(Table(rows))


def figures(quality: Tensor, residual: Tensor) -> dict[str, float]:
    """Summarise the PSNR of draws, (B, DRAWS)."""
    best = quality.amax(1, keepdim=True)
    fours = residual.reshape(len(residual), -1, FEW).argmin(-1, keepdim=True)
    by_fit = quality.reshape(len(quality), -1, FEW).gather(-1, fours)
    return {
        "one": float(quality.mean()),
        "best of 4": float(by_fit.mean()),
        "oracle": float(best.mean()),
        "success": float((quality >= best - 1).float().mean()),
    }


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    return -10 * (x.clamp(0, 1) - truth).square().flatten(-3).mean(-1).log10()


def registered(x: Tensor, truth: Tensor) -> Tensor:
    """Return the PSNR of x (B, n, C, H, W), the better of both turns, each moved to where it best matches the truth."""
    side = x.shape[-1]
    target = torch.fft.fft2(truth[:, None], s=(2 * side, 2 * side))
    found = []
    for turned in (x.clamp(0, 1), x.clamp(0, 1).flip(-1, -2)):
        spectrum = torch.fft.fft2(turned, s=(2 * side, 2 * side))
        # |a moved - b|^2 = |a|^2 + |b|^2 - 2 <a moved, b>
        product = torch.fft.ifft2(target * spectrum.conj()).real.sum(-3).flatten(-2).amax(-1)
        squares = turned.square().flatten(-3).sum(-1) + truth[:, None].square().flatten(-3).sum(-1) - 2 * product
        found.append(-10 * (squares.clamp_min(1e-9) / truth[0].numel()).log10())
    return torch.maximum(*found)


if __name__ == "__main__":
    main()

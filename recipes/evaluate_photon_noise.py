"""Measure the error of the estimated photon noise, on photographs with photon noise of known gain and sd.

    python recipes/evaluate_photon_noise.py --data FOLDER...

Whole photographs on [0, 1], y = gain k + sd n with counts k. "kept": as it is; "8 bits": clipped and rounded, as a file
holds it; "grey": of the mean of the channels; "crop": 256 x 256 pixels from the middle. Each has the 5, 50 and 95 %
quantiles of estimate / truth, for the gain and for sqrt(gain / 2 + sd^2), and the number of photographs refused.
"""

import argparse
from pathlib import Path

import torch
from evaluate_noise import photographs
from torch import Tensor

from genprior.devices import alone
from genprior.likelihoods import PoissonGaussian
from genprior.noise import Noise
from genprior.photon_noise import photon_noise

KINDS = ("kept", "8 bits", "grey", "crop")
CROP = 256


def estimates(x: Tensor, gain: float, sd: float, noise: Noise) -> list[tuple[float, float] | None]:
    """Estimate gain and sd of one photograph, for each of `KINDS`; None where they are refused."""
    law = PoissonGaussian(gain, sd)
    y = law.sample(x, noise)
    top, left = ((side - CROP) // 2 for side in x.shape[-2:])
    made = (
        y,
        (y.clamp(0, 1) * 255).round() / 255,
        law.sample(x.mean(1, keepdim=True), noise),
        y[..., top : top + CROP, left : left + CROP],
    )
    return [estimate(each) for each in made]


def estimate(y: Tensor) -> tuple[float, float] | None:
    try:
        gain, sd = photon_noise(y)
    except ValueError:
        return None
    return float(gain), float(sd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders (default: five of scikit-image)")
    parser.add_argument("--most", type=int, default=80, help="photographs of each folder (default: %(default)s)")
    parser.add_argument("--gains", type=float, nargs="+", default=[1 / 10, 1 / 30, 1 / 100, 1 / 300])
    parser.add_argument("--sds", type=float, nargs="+", default=[0.02])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    alone("evaluate_photon_noise")

    photos = photographs(options.data, options.most)
    print(f"{len(photos)} photographs\n")
    print(f"| gain, sd | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}")
    for gain in options.gains:
        for sd in options.sds:
            found = [estimates(x, gain, sd, Noise(options.seed, [i])) for i, x in enumerate(photos)]
            known = [[each for each in of_kind if each is not None] for of_kind in zip(*found)]
            cells = [told(each, len(photos), gain, sd) for each in known]
            print(f"| {gain:.3g}, {sd:g} | {' | '.join(cells)} |", flush=True)


def told(found: list[tuple[float, float]], asked: int, gain: float, sd: float) -> str:
    if not found:
        return f"{asked} refused"
    gains, sds = torch.tensor(found, dtype=torch.float64).T
    middle = (gains / 2 + sds**2).sqrt() / (gain / 2 + sd**2) ** 0.5
    levels = gains.new_tensor([0.05, 0.5, 0.95])
    quantiles = (" ".join(f"{q:.2f}" for q in each.quantile(levels).tolist()) for each in (gains / gain, middle))
    return f"{'; '.join(quantiles)}; {asked - len(found)} refused"


if __name__ == "__main__":
    main()

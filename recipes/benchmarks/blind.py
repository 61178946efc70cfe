"""Blurs identified from photographs alone: how accurate, how well calibrated, and what it costs the restoration.

Crops are blurred by motions of 7 to 25 pixels at any angle, or Gaussians of width 0.8 to 3, that reach past the frame.
"near" is the share with the length within 1.5 pixels and the angle within 7 degrees, or the width within 10 %; refusals
are not near. "90 %" is the share of intervals of that level that hold the truth; "0.5 dB" the share of pictures
restored with the identified parameters within 0.5 dB of those restored with the true ones and the true noise. Of crops
that were not blurred, "no blur" is the share whose 90 % interval starts at a length of at most 1.5 pixels or a width of
at most 0.4. "place" is the p-value of a test that the truth is as likely at each rank among the draws (Kolmogorov,
Smirnov): small where the posterior is too narrow, too wide or off to one side.

    python recipes/benchmarks/blind.py --data PHOTOS --crops 24 --restored 6 --unblurred 20
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import torch
from common import crops, machine
from scipy.stats import kstest
from torch import Tensor

import genprior
from genprior.scores.metrics import psnr
from genprior.table import Table

OPERATORS = {"motion-deblur": {"length": (7, 25), "angle": (0, 180)}, "gaussian-deblur": {"width": (0.8, 3)}}
SHARP = {"motion-deblur": ("length", 1.5), "gaussian-deblur": ("width", 0.4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of sharp photographs")
    parser.add_argument("--op", choices=list(OPERATORS), nargs="+", default=list(OPERATORS))
    parser.add_argument("--crops", type=int, default=24, help="of each folder, one of a photograph")
    parser.add_argument("--restored", type=int, default=6, help="of these, how many are restored too")
    parser.add_argument("--unblurred", type=int, default=20, help="of each folder, crops that are not blurred")
    parser.add_argument("--side", type=int, default=160, help="of a crop, before the blur takes its margin")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03])
    options = parser.parse_args()
    photos, sharp = (list(crops(options.data, n, options.side).values()) for n in (options.crops, options.unblurred))
    blurred, unblurred = [], []
    for op in options.op:
        for noise in options.noise:
            blurred.append(of_blurred(op, noise, photos, options.restored))
            unblurred += [of_unblurred(op, noise, sharp)] if sharp else []
    print(machine(torch.device("cpu")), *(Table(rows) for rows in (blurred, unblurred) if rows), sep="\n\n")


def of_blurred(op: str, noise: float, photos: list[Tensor], restored: int) -> dict:
    """Return a row: shares over the crops, of which the first `restored` are restored too."""
    generator = torch.Generator().manual_seed(0)
    told, places, seconds = defaultdict(list), defaultdict(list), []
    for k, x in enumerate(photos):
        u = torch.rand(2, generator=generator).tolist()
        truth = {name: low + share * (high - low) for share, (name, (low, high)) in zip(u, OPERATORS[op].items())}
        measurement = genprior.degrade(x, op, noise=noise, seed=k, **truth)
        began = time.perf_counter()
        try:
            found = genprior.identify(measurement.y[0], op)
        except genprior.UnsupportedError:
            told["near"].append(False)
            continue
        seconds.append(time.perf_counter() - began)
        told["near"].append(near(found.parameters, truth))
        for name, value in {**truth, "noise": noise}.items():
            told[f"90 %, {name}"].append(holds(found.interval()[name], value, name))
            places[f"place, {name}"].append(place(found.draws[name], value, name))
        if k < restored:
            clean = measurement.operator.frame(x)
            known = genprior.restore(measurement, seed=0, progress=False).mean
            blind = genprior.restore(
                measurement.y[0], op, noise=found.noise, seed=0, progress=False, **found.found
            ).mean
            loss = float(psnr(known, clean) - psnr(blind, clean))
            told["0.5 dB"].append(loss < 0.5)
    shares = {name: f"{sum(values)} of {len(values)}" for name, values in told.items()}
    uniform = {name: float(kstest(values, "uniform").pvalue) for name, values in places.items()}
    return {"operator": op, "noise": noise, **shares, **uniform, "seconds": sorted(seconds)[len(seconds) // 2]}


def of_unblurred(op: str, noise: float, photos: list[Tensor]) -> dict:
    name, most = SHARP[op]
    kept = []
    for k, x in enumerate(photos):
        y = genprior.degrade(x, "denoise", noise=noise, seed=k).y[0]
        kept.append(genprior.identify(y, op).interval()[name][0] <= most)
    return {"operator": op, "noise": noise, "no blur": f"{sum(kept)} of {len(kept)}"}


def near(found: dict[str, float], truth: dict[str, float]) -> bool:
    if "width" in truth:
        return abs(found["width"] - truth["width"]) < 0.1 * truth["width"]
    turned = (found["angle"] - truth["angle"] + 90) % 180 - 90
    return abs(found["length"] - truth["length"]) < 1.5 and abs(turned) < 7


def holds(interval: tuple[float, float], value: float, name: str) -> bool:
    low, high = interval
    return any(low <= value + turn <= high for turn in ((-180, 0, 180) if name == "angle" else (0,)))


def place(draws: Tensor, value: float, name: str) -> float:
    """Return the share of the draws below the truth."""
    below = draws - value
    return float(((below + 90) % 180 - 90 if name == "angle" else below).lt(0).double().mean())


if __name__ == "__main__":
    main()

"""Find the motion length and the noise of a photograph from itself alone: those of the largest evidence.

    python recipes/find_blur.py --figure find-blur.png

Tiles of the luma have ln p(y | length, noise) in closed form under the bundled stationary Gaussian of photographs,
averaged over contrasts and slopes of the spectrum, since no tile is an average one. The angle is known.
"""

import argparse
import math
from pathlib import Path

import matplotlib.pyplot as plt
import skimage.data
import torch

import genprior
from genprior import GaussianField, images
from genprior.devices import alone
from genprior.operators.build import for_measurement
from genprior.operators.colour import WEIGHTS
from genprior.table import Table

CASES = [(*photo, noise) for noise in (0.01, 0.05) for photo in (("astronaut", 5), ("coffee", 9), ("chelsea", 15))]
COLUMNS = ("photograph", "length", "found length", "noise", "found noise", "truth behind by, nats")
LEVELS = [0.01 * 2 ** (k / 2) for k in range(-1, 7)]
CONTRASTS, SLOPES, ANGLE, SIDE, TILE = (0.125, 0.25, 0.5, 1, 2), (0, 0.3, 0.6, 1), 30, 240, 24


def luma_fields() -> list[GaussianField]:
    """The stationary Gaussian of the luma, its spectrum times |frequency|^-2t for every slope t, at equal variance."""
    prior, weights = genprior.load_prior("gaussian-photo"), torch.tensor(WEIGHTS)
    density = torch.einsum("k,kij->ij", (prior.axes.T @ weights) ** 2, prior.density)[None]
    frequency = torch.fft.fftfreq(density.shape[-1])
    squared = frequency[:, None] ** 2 + frequency**2 + (1 / 64) ** 2
    steeper = [density * squared**-t for t in SLOPES]
    mean = (weights @ prior.mean.flatten()).reshape(1, 1, 1)
    return [GaussianField(mean, d * density.mean() / d.mean(), torch.eye(1)) for d in steeper]


def log_evidence(tiles: torch.Tensor, length: int, noise: float, fields: list[GaussianField]) -> float:
    """sum over tiles of ln mean_{s, t} p(y | s, t): x of contrast s is m + s (x' - m), x' of the field of slope t."""
    A = for_measurement("motion-deblur", tuple(tiles.shape[1:]), length=length, angle=ANGLE)
    terms = []
    for field in fields:
        for s in CONTRASTS:
            figures = genprior.evidence(field.mean + (tiles - field.mean) / s, A, field, noise=noise / s)
            terms.append(torch.tensor([figure.value for figure in figures]) - tiles[0].numel() * math.log(s))
    return float((torch.stack(terms).logsumexp(0) - math.log(len(terms))).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first of them only")
    parser.add_argument("--lengths", type=int, nargs="+", default=range(1, 22, 2), help="those to choose from, odd")
    parser.add_argument("--figure", type=Path, default=Path("find-blur.png"), help="evidence over length")
    options = parser.parse_args()
    alone("find_blur")
    fields, rows, lengths = luma_fields(), [], options.lengths
    figure, axes = plt.subplots(1, options.cases, figsize=(15, 2.6), squeeze=False, layout="constrained")
    for axis, (name, length, noise) in zip(axes[0], CASES):
        photo = images.read(getattr(skimage.data, name)()).x[0, :, :SIDE, :SIDE]
        luma = torch.tensordot(torch.tensor(WEIGHTS), photo, 1)[None]
        y = genprior.degrade(luma, "motion-deblur", length=length, angle=ANGLE, noise=noise, seed=1).y[0]
        tiles = y.unfold(1, TILE, TILE).unfold(2, TILE, TILE).flatten(1, 2).movedim(0, 1)
        best = lengths[len(lengths) // 2]
        for _ in range(2):
            level = max(LEVELS, key=lambda a: log_evidence(tiles, best, a, fields))
            profile = {k: log_evidence(tiles, k, level, fields) for k in lengths}
            best = max(profile, key=profile.get)
        rows.append([name, length, best, noise, f"{level:.3g}", round(profile[best] - profile[length])])
        axis.plot(lengths, [v - profile[best] for v in profile.values()], marker="o")
        axis.axvline(length, linestyle=":")
        axis.set(yscale="symlog", title=f"{name}, noise {noise}", xlabel="length (dotted: true)", ylabel="nats below")
    print(Table([dict(zip(COLUMNS, row)) for row in rows]))
    figure.savefig(options.figure, dpi=80)


if __name__ == "__main__":
    main()

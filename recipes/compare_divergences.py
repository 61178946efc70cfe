"""Every divergence between N(0, I) and N(c, I) on images of 4 values as c grows, beside the closed form of the KL.

python recipes/compare_divergences.py --figure divergences.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from genprior.devices import alone
from genprior.divergences import (
    adversarial_bound,
    gaussian_kl,
    jensen_shannon,
    mmd,
    monte_carlo_kl,
    sliced_wasserstein,
)
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.table import Estimate, Table

DRAWN = ("KL, closed form", "KL", "JS", "adversarial bound on JS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="draws of each")
    parser.add_argument("--shifts", type=float, nargs="+", default=[0, 0.25, 0.5, 1, 2], help="length of c")
    parser.add_argument("--steps", type=int, default=300, help="of the discriminator")
    parser.add_argument("--figure", type=Path, help="PNG of the figures in nats")
    options = parser.parse_args()
    alone("compare_divergences")

    zero, one = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    rows = []
    for shift in options.shifts:
        p, q = Gaussian(zero, one), Gaussian(zero + shift / 2, one)
        x_p, x_q = p.sample(options.n, seed=1), q.sample(options.n, seed=2)
        row = {"shift": shift, "KL, closed form": Estimate(gaussian_kl(p, q)), "KL": monte_carlo_kl(p, q, options.n)}
        row |= {"JS": jensen_shannon(p, q, options.n)}
        row |= {"adversarial bound on JS": adversarial_bound(x_p, x_q, steps=options.steps)}
        row |= {"sliced Wasserstein": sliced_wasserstein(x_p, x_q), "MMD²": mmd(x_p, x_q)}
        rows.append(row)
    print(Table(rows))
    if options.figure:
        draw(rows, options.figure)


def draw(rows: list[dict], path: Path) -> None:
    """Plot each divergence against the shift, with error bars of two standard errors."""
    figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    for name in DRAWN:
        values = [row[name].value for row in rows]
        errors = [2 * (row[name].error or 0) for row in rows]
        axis.errorbar([row["shift"] for row in rows], values, errors, marker="o", capsize=3, label=name)
    axis.set(xlabel="shift |c|", ylabel="nats")
    axis.set_yscale("symlog", linthresh=0.1)
    axis.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()

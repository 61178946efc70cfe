"""Every divergence between N(0, I) and N(c, I) on images of 4 values, as the shift grows, beside its closed form.

python recipes/compare_divergences.py
"""

import argparse

import torch

from genprior.divergences import (
    adversarial_bound,
    gaussian_kl,
    jensen_shannon,
    mmd,
    monte_carlo_kl,
    sliced_wasserstein,
)
from genprior.evaluation.table import Table
from genprior.priors.exact import Gaussian


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="draws of each")
    parser.add_argument("--shifts", type=float, nargs="+", default=[0, 0.25, 0.5, 1, 2], help="length of c")
    parser.add_argument("--steps", type=int, default=300, help="of the discriminator")
    options = parser.parse_args()

    zero, one = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    rows = []
    for shift in options.shifts:
        p, q = Gaussian(zero, one), Gaussian(zero + shift / 2, one)
        x_p, x_q = p.sample(options.n, seed=1), q.sample(options.n, seed=2)
        row = {"shift": shift, "KL, closed form": gaussian_kl(p, q), "KL": monte_carlo_kl(p, q, options.n)}
        row |= {"JS": jensen_shannon(p, q, options.n)}
        row |= {"adversarial bound on JS": adversarial_bound(x_p, x_q, steps=options.steps)}
        row |= {"sliced Wasserstein": sliced_wasserstein(x_p, x_q), "MMD²": mmd(x_p, x_q)}
        rows.append(row)
    print(Table(rows))


if __name__ == "__main__":
    main()

"""Choose between priors by their evidence: which explains a degraded digit best, without seeing the truth?

    python recipes/choose_prior.py --data mnist.npz --digits 3

A Bayes factor is exp of a difference. Exact for the Gaussians, by annealed importance sampling for the VAE and the GAN.
"""

import argparse

import numpy as np
import torch

import genprior
from genprior.devices import alone
from genprior.marginal.annealed import AnnealedImportance
from genprior.table import Estimate, Table

PRIORS = ("gaussian-mnist", "vae-mnist", "gan-mnist", "gaussian-photo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="mnist.npz")
    parser.add_argument("--digits", type=int, default=3, help="of the test set, the first ones")
    parser.add_argument("--priors", nargs="+", default=PRIORS)
    parser.add_argument("--noise", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=200, help="temperatures of importance sampling")
    parser.add_argument("--particles", type=int, default=25)
    parser.add_argument("--clouds", type=int, default=4)
    options = parser.parse_args()
    alone("choose_prior")

    digits = np.load(options.data)["test_images"][: options.digits]
    x = torch.from_numpy(digits)[:, None].float() / 255
    one = genprior.degrade(x, "gaussian-deblur", width=1.0, boundary="circular", noise=options.noise, seed=1)
    annealed = AnnealedImportance(options.steps, options.particles)
    rows = []
    for name in options.priors:
        prior = genprior.load_prior(name)
        method = "exact" if name.startswith("gaussian") else annealed
        figures = genprior.evidence(one, prior=prior, method=method, clouds=options.clouds)
        figures = [figures] if isinstance(figures, Estimate) else figures
        rows.append({"prior": name} | {f"digit {i}": figure for i, figure in enumerate(figures)})
    print(Table(rows))


if __name__ == "__main__":
    main()

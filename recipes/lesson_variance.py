"""The variance of the reverse chain: beta-tilde, beta, and the one that makes the bound's weights constant.

    python recipes/lesson_variance.py --out variance.png

Prints how much of the variance of N(0, 1) remains after sampling with the exact noise prediction and T steps, and draws
digits with each variance. The last variance gives the loss of the course its constant weights, but is not for sampling:
it is about beta times beta-tilde, and the samples lose what makes them differ.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import genprior
from genprior import images
from genprior.devices import alone
from genprior.noise import Noise
from genprior.priors.chain import BETAS, UNIT, VARIANCES, ancestral_chain
from genprior.table import Table


def variance_left(name: str, betas: str, steps: int, draws: int) -> float:
    """Return the variance of samples of N(0, 1), whose E[u | u_t] = u_t / (1 + s^2); 1 if the chain is right."""
    alpha_bars = torch.cumprod(1 - BETAS[betas](steps), 0).tolist()
    noise = Noise(0, torch.zeros(draws, dtype=torch.long), torch.arange(draws))
    z = noise(torch.empty(draws, 1, 1, 1))
    x = ancestral_chain(
        lambda x_t, sigma: x_t / (1 + (sigma / UNIT) ** 2), z, alpha_bars, noise, VARIANCES[name], centre=0.0
    )
    return float((x / UNIT).var())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="ddpm-mnist", help="name or folder of a diffusion of images of one size")
    parser.add_argument("--n", type=int, default=10, help="draws with each variance")
    parser.add_argument("--steps", type=int, default=250, help="of the chain that draws")
    parser.add_argument("--draws", type=int, default=20000, help="of N(0, 1)")
    parser.add_argument("--out", type=Path, default=Path("variance.png"))
    options = parser.parse_args()
    alone("lesson_variance")

    rows = []
    for name in VARIANCES:
        left = {f"{betas}, T = 1000": f"{variance_left(name, betas, 1000, options.draws):.3f}" for betas in BETAS}
        rows.append({"variance": name, **left})
    print(f"Variance left of N(0, 1), by betas, {options.draws} draws:\n\n{Table(rows)}\n")

    prior = genprior.load_prior(options.prior)
    figure, axes = plt.subplots(len(VARIANCES), figsize=(7, 2.4), layout="constrained")
    for axis, name in zip(axes, VARIANCES):
        x = prior.sample(options.n, seed=0, steps=options.steps, variance=name)
        print(f"{options.prior}, {name}: variance between draws {float(x.var(dim=0).mean()):.4f}")
        axis.imshow(images.grid(x.clamp(0, 1), columns=options.n)[0], cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set_xticks([]), axis.set_yticks([])
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()

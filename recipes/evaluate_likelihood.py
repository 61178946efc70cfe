"""Measure how probable priors find unseen images: ln p in nats and bits/dim, comparable between families.

    python recipes/evaluate_likelihood.py --data mnist.npz --priors nf-mnist vae-mnist ddpm-mnist gaussian-mnist

`mnist.npz` holds `test_images`, uint8 (N, H, W). All figures are those of a density on [0, 1]^D of dequantised images
(see `genprior/bits.py`): a uniform draw dequantises for priors with a density or an ELBO; the discretised decoder of a
diffusion has a constant density in each cell. A bound's mean is below ln p. Errors are standard errors over images.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

import genprior
from genprior.bits import bits_per_dim, dequantize
from genprior.devices import alone
from genprior.noise import Noise
from genprior.priors.base import Prior, supports
from genprior.training.data import Arrays, Photos, evenly


def methods(prior: Prior) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return the figures of a prior: name -> function of 8-bit images and dequantised images to nats, (B,)."""
    if supports(prior, "log_prob"):
        return {"log-density": lambda x, u: prior.log_prob(u)}
    if supports(prior, "infer"):
        return {"ELBO": lambda x, u: prior.elbo(u, seed=1), "IWAE(500)": lambda x, u: prior.iwae(u, 500, seed=1)}
    if supports(prior, "denoise"):
        return {"ELBO": lambda x, u: prior.elbo_8bit(x), "flow bound": lambda x, u: prior.flow_bound_8bit(x)}
    if supports(prior, "elbo"):
        return {"ELBO": lambda x, u: prior.elbo(u, seed=1)}
    raise SystemExit(f"A {type(prior).__name__} has no likelihood, and no bound of it.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help=".npz with test_images")
    parser.add_argument("--photos", help="folder of photographs, whose centres of 128 x 128 pixels take their place")
    parser.add_argument("--priors", nargs="+", required=True, help="names or folders of priors")
    parser.add_argument("--n", type=int, default=10000, help="images for what is quick")
    parser.add_argument("--n-slow", type=int, default=500, help="images for IWAE and the flow bound")
    parser.add_argument("--batch", type=int, default=250)
    options = parser.parse_args()
    alone("evaluate_likelihood")

    digits = options.data and Arrays(options.data, "test_images", seed=None)
    images = evenly(digits or Photos(options.photos, 128, augment=False), options.n)
    print("| prior | figure | images | nats | bits/dim | seconds |\n|---|---|---|---|---|---|")
    for name in options.priors:
        prior = genprior.load_prior(name)
        prior.autocast = None  # the noise of the lowest levels is finer than bfloat16
        for figure, log_prob in methods(prior).items():
            began = time.perf_counter()
            x = images if figure in ("log-density", "ELBO") else images[: options.n_slow]
            nats = []
            for k in tqdm(range(0, len(x), options.batch), f"{name}, {figure}", leave=False, disable=None):
                part = x[k : k + options.batch]
                rows = torch.arange(k, k + len(part))
                with torch.no_grad():
                    nats.append(log_prob(part, dequantize(part, Noise(0, rows))).double())
            nats = torch.cat(nats)
            bits = bits_per_dim(nats, x[0].numel())
            error = len(x) ** -0.5
            print(
                f"| {name} | {figure} | {len(x)} | {nats.mean():.1f} ± {nats.std() * error:.1f} | "
                f"{bits.mean():.4f} ± {bits.std() * error:.4f} | {time.perf_counter() - began:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

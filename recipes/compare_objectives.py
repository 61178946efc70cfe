"""Compare what a diffusion learns from the same images by denoising and by flow matching.

    python recipes/compare_objectives.py --data mnist.npz --steps 600

Both have the same network, digits, order and number of steps; they differ in what the network predicts, how often it
sees each noise level, and how each level is weighted. The last 5,000 of `train_images` are held out. PSNR is that of
E[x | x + sigma n] for held-out digits; the ELBO is that of 8-bit digits, see `evaluate_likelihood.py`.
"""

import argparse
import tempfile
import time

import torch

from genprior.bits import bits_per_dim
from genprior.devices import alone
from genprior.priors.folder import read_prior
from genprior.training.data import Arrays, first
from genprior.training.families import OBJECTIVES, plan
from genprior.training.loop import Settings, train
from genprior.training.quality import denoising_psnr

SIGMAS = (0.03, 0.1, 0.3, 1.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--digits", type=int, default=256, help="held out, to judge by")
    options = parser.parse_args()
    alone("compare_objectives")

    x = first(Arrays(options.data, "train_images", keep=slice(55000, None), seed=None), options.digits)
    levels = " | ".join(f"PSNR at {sigma}" for sigma in SIGMAS)
    print(f"| objective | seed | {levels} | ELBO, bits/dim | seconds |\n|---|---|{'---|' * (len(SIGMAS) + 2)}")
    for seed in options.seeds:
        data = Arrays(options.data, "train_images", keep=slice(0, 55000), seed=seed)
        for objective in options.objectives:
            chosen = plan("ddpm", (1, 28, 28), 0, first(data, 256), seed, objective=objective)
            given = {"lr": 1e-3, "warmup": options.steps // 10, "ema": 0.99, "precision": "no", "seed": seed}
            settings = Settings(steps=options.steps, batch=options.batch, save_every=options.steps, **given)
            with tempfile.TemporaryDirectory() as out:
                began = time.perf_counter()
                train(chosen.prior, chosen.objectives, data, settings, out, finish=lambda prior: prior.calibrate(x))
                seconds = time.perf_counter() - began
                prior = read_prior(f"{out}/prior")
            with torch.no_grad():
                psnr = [denoising_psnr(prior, x, sigma)["denoising PSNR"] for sigma in SIGMAS]
                bits = bits_per_dim(prior.elbo_8bit(x, seed=1), x[0].numel()).mean()
            cells = [*(f"{each:.2f}" for each in psnr), f"{float(bits):.2f}", f"{seconds:.0f}"]
            print(f"| {objective} | {seed} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

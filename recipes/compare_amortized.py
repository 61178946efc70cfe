"""Compare a posterior learned for one operator with zero-shot guidance of a prior, at equal CPU time.

    python recipes/compare_amortized.py --data mnist.npz --posterior runs/amortized-sr-mnist/prior

Super-resolution x4 of digits of `train_images` from number 55,000 on, which neither was trained on, with noise 0.05.
The other methods take as many steps as the CPU time of the learned posterior allows. PSNR is that of one sample and of
the mean; coverage is that of the central half of the samples; CRPS is in the units of x, lower is better.
"""

import argparse
import dataclasses
import time

import torch

import genprior
from genprior.devices import alone
from genprior.samplers import find_sampler
from genprior.scores.metrics import psnr
from genprior.scores.uncertainty import coverage, crps
from genprior.training.data import Arrays, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--posterior", required=True, help="folder of a posterior learned for super-resolution")
    parser.add_argument("--prior", default="ddpm-mnist")
    parser.add_argument("--samplers", nargs="+", default=["auto", "mmps"])
    parser.add_argument("--digits", type=int, default=32)
    parser.add_argument("--n", type=int, default=8, help="samples of each")
    parser.add_argument("--steps", type=int, default=50, help="of the learned posterior")
    options = parser.parse_args()
    alone("compare_amortized")

    truth = first(Arrays(options.data, "train_images", keep=slice(55000, None), seed=None), options.digits)
    parameters = {"scale": 4, "antialias": "average"}
    measurement = genprior.degrade(truth, "super-resolution", noise=0.05, seed=0, **parameters)
    prior, posterior = genprior.load_prior(options.prior), genprior.load_prior(options.posterior)

    def draw(prior, sampler, n):
        began = time.process_time()
        result = genprior.restore(measurement, prior=prior, sampler=sampler, n=n, seed=0, progress=False)
        samples = result.samples.reshape(len(truth), n, *truth.shape[1:])
        return samples, time.process_time() - began

    def at_equal_seconds(name, budget):
        """Return the sampler with as many steps as the budget allows, by the cost of one sample at its default."""
        sampler = find_sampler(name, prior)
        _, seconds = draw(prior, sampler, 1)
        steps = round(sampler.steps * budget / (seconds * options.n))
        return dataclasses.replace(sampler, steps=max(steps, 2))

    samples, budget = draw(posterior, find_sampler("amortized", posterior, options.steps), options.n)
    rows = [("learned posterior, amortized", options.steps, samples, budget)]
    for name in options.samplers:
        sampler = at_equal_seconds(name, budget)
        try:
            samples, seconds = draw(prior, sampler, options.n)
            rows.append((f"{options.prior}, {type(sampler).__name__}", sampler.steps, samples, seconds))
        except FloatingPointError as error:
            print(f"{options.prior}: {error}\n")

    print(
        "| method | steps | time | PSNR, sample | PSNR, mean | coverage of 50 % | CRPS |\n|---|---|---|---|---|---|---|"
    )
    for name, steps, samples, seconds in rows:
        one = [float(psnr(x, t)) for x, t in zip(samples[:, 0].clamp(0, 1), truth)]
        mean = [float(psnr(x, t)) for x, t in zip(samples.mean(1).clamp(0, 1), truth)]
        scores = [torch.tensor(one), torch.tensor(mean), coverage(samples, truth, 0.5), crps(samples, truth)]
        cells = [f"{s.mean():.{d}f} ± {s.std() / len(s) ** 0.5:.{d}f}" for s, d in zip(scores, (2, 2, 3, 4))]
        print(f"| {name} | {steps} | {seconds / budget:.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

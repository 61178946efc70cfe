"""Check whether draws of digits vary as much as they err, under photon noise or another law of y.

    python recipes/calibrate_digits.py --noise poisson:0.1

The digits are draws of the prior, which tests the sampler alone. With --data they are the last of `train_images`, which
tests prior and sampler together: digits are black beside the strokes, draws of a diffusion model only nearly so.

The first table is that of `genprior evaluate truth --suite calibration`. The second gives the mean rank of the truth
among its draws, from 0 (below all) to 1, for each scalar computed from an image: 0.5 for an exact sampler.
"""

import argparse
from pathlib import Path

from genprior.cli.common import noise_of
from genprior.devices import alone, pick_device
from genprior.likelihoods import Likelihood
from genprior.operators.build import for_image
from genprior.priors.store import load_prior
from genprior.samplers import find_sampler
from genprior.table import Estimate, Table
from genprior.training.data import Arrays, first
from genprior.truth.calibration import calibrate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz of digits, with train_images (default: draws of the prior)")
    parser.add_argument("--noise", type=noise_of, default="poisson:0.1", help="a number, or a law (%(default)s)")
    parser.add_argument("--op", default="denoise", choices=("denoise", "super-resolution"))
    parser.add_argument("--prior", default="ddpm-mnist")
    parser.add_argument("--samplers", default="optimal-covariance", help="names, with commas between them")
    parser.add_argument("--images", type=int, default=100, help="digits (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=19, help="of each digit (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="of the sampler (default: its own)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    alone("calibrate_digits")

    device, n = pick_device(options.device), options.images
    prior, x = load_prior(options.prior, device), None
    if options.data:
        x = first(Arrays(options.data, "train_images", keep=slice(-n, None), seed=None), n).to(device)
    scale = {"scale": 2} if options.op == "super-resolution" else {}
    operator = for_image(options.op, prior.image_shape, **scale)
    law = options.noise if isinstance(options.noise, Likelihood) else None
    figures, places = [], []
    for name in options.samplers.split(","):
        sampler = find_sampler(name.strip(), prior, options.steps)
        if lack := sampler.lacks(prior, operator, law):
            parser.error(lack)
        found = calibrate(prior, sampler, operator, options.noise, n, options.draws, options.seed, truth=x)
        means = {quantity: Estimate.mean(ranks / options.draws) for quantity, ranks in found.ranks.items()}
        figures.append({"sampler": name, **found.figures})
        places.append({"sampler": name, **means})
    print(f"{Table(figures).markdown()}\n{Table(places).markdown()}")


if __name__ == "__main__":
    main()

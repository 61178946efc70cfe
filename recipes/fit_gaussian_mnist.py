"""Fit `gaussian-mnist`: the Gaussian with the mean and covariance of handwritten digits, the prior to beat.

    python recipes/fit_gaussian_mnist.py --data mnist.npz --out runs/gaussian-mnist

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28); the last 5,000 are kept for validation. The result is
`OUT/prior`. Takes seconds.
"""

import argparse
import time
from pathlib import Path

import torch

from genprior.bits import bits_per_dim, dequantize
from genprior.devices import alone, device_name
from genprior.files import write_folder
from genprior.noise import Noise
from genprior.priors.folder import write_prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.training.data import Arrays, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--out", type=Path, default=Path("runs/gaussian-mnist"))
    parser.add_argument("--covariance", default="full", choices=["full", "stationary", "diagonal"])
    parser.add_argument("--train", type=int, default=55000, help="images to fit; those after them are held out")
    options = parser.parse_args()
    alone("fit_gaussian_mnist")

    began = time.perf_counter()
    images = first(Arrays(options.data, "train_images", seed=None), 60000)
    data, held_out = images[: options.train], images[options.train :]
    prior = Gaussian.fit(data, options.covariance)
    seconds = round(time.perf_counter() - began)

    x = dequantize(held_out, Noise(0, torch.arange(len(held_out))))
    bits = bits_per_dim(prior.log_prob(x), x[0].numel())
    print(f"{bits.mean():.4f} ± {bits.std() / len(bits) ** 0.5:.4f} bits/dim on {len(x)} held-out digits")

    card = {
        "data": f"MNIST, first {len(data)} training digits",
        "licence": "CC BY-SA 3.0",
        "seconds": seconds,
        "device": device_name(x.device),
        "torch": torch.__version__,
    }
    write_folder(options.out / "prior", lambda folder: write_prior(prior, folder, card))
    print(f"{options.out / 'prior'} is ready; fitted in {seconds} s")


if __name__ == "__main__":
    main()

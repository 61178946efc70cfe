"""Fit `gaussian-flowers`: the stationary Gaussian with the colours and spectrum of flowers, the prior to beat.

    python recipes/fit_gaussian_flowers.py --data flowers_64.npz --out runs/gaussian-flowers

`flowers_64.npz` holds `train_images`, uint8 (N, 64, 64, 3); a share of them, by a hash of each, is held out. A full
covariance of 12,288 values would have more entries than all images have. The result is `OUT/prior`. It takes seconds.
"""

import argparse
import time
from pathlib import Path

import torch

from genprior.devices import alone, device_name
from genprior.files import write_folder
from genprior.priors.folder import write_prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.training.data import first, open_parts
from genprior.training.quality import held_out_and_seen, held_out_bits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--validation-share", type=float, default=0.05, help="of the training images, held out")
    parser.add_argument("--out", type=Path, default=Path("runs/gaussian-flowers"))
    parser.add_argument("--covariance", default="stationary", choices=["stationary", "diagonal"])
    options = parser.parse_args()
    alone("fit_gaussian_flowers")

    began = time.perf_counter()
    data, held_out = open_parts(options.data, options.validation_share)
    x = first(data, len(data))
    prior = Gaussian.fit(torch.cat([x, x.flip(-1)]), options.covariance)
    seconds = round(time.perf_counter() - began)

    n = len(held_out)
    found = held_out_and_seen(lambda x: held_out_bits(prior, x), first(held_out, n), x[:n])
    print("; ".join(f"{name}: {value:.4f}" for name, value in found.items()))

    card = {
        "data": f"five classes of flowers, {len(data)} photographs of 64 x 64, mirrored too; see flowers.csv",
        "licence": "CC BY 2.0",
        "seconds": seconds,
        "device": device_name(x.device),
        "torch": torch.__version__,
    }
    write_folder(options.out / "prior", lambda folder: write_prior(prior, folder, card))
    print(f"{options.out / 'prior'} is ready; fitted in {seconds} s")


if __name__ == "__main__":
    main()

"""Fit `gaussian-photo`: a stationary Gaussian field with the spectrum and colours of photographs, of any size.

    python recipes/fit_gaussian_photo.py --data PHOTOS --validation OTHER_PHOTOS --out runs/gaussian-photo

The result is `OUT/prior`. Takes a minute.
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
from genprior.priors.gaussian.field import GaussianField
from genprior.training.data import Photos, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs, at least as large as the crops")
    parser.add_argument("--validation", required=True, help="folder of other photographs")
    parser.add_argument("--out", type=Path, default=Path("runs/gaussian-photo"))
    parser.add_argument(
        "--size", type=int, default=128, help="side of the crops in pixels: no covariance reaches further"
    )
    parser.add_argument("--crops", type=int, default=4, help="of each photograph")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--licence", default="see the training data", help="of the weights, for the card")
    options = parser.parse_args()
    alone("fit_gaussian_photo")

    began = time.perf_counter()
    photos = Photos(options.data, options.size, seed=options.seed, grey=0.0)
    crops = torch.stack([photos[i]["x"] for i in range(options.crops * len(photos))])
    prior = GaussianField.fit(crops)
    seconds = round(time.perf_counter() - began)

    held_out = first(Photos(options.validation, options.size, augment=False), 1000)
    x = dequantize(held_out, Noise(0, torch.arange(len(held_out))))
    bits = bits_per_dim(prior.log_prob(x), x[0].numel())
    error = bits.std() / len(bits) ** 0.5
    print(f"{bits.mean():.4f} ± {error:.4f} bits/dim on {len(x)} held-out crops of {options.size} x {options.size}")

    card = {
        "data": f"{Path(options.data).name}: {len(crops)} random crops of {options.size} px",
        "licence": options.licence,
        "seconds": seconds,
        "device": device_name(x.device),
        "torch": torch.__version__,
    }
    write_folder(options.out / "prior", lambda folder: write_prior(prior, folder, card))
    print(f"{options.out / 'prior'} is ready; fitted in {seconds} s")


if __name__ == "__main__":
    main()

"""PSNR of a prior's one-step denoiser E[x | x + sigma n] on a folder of photographs: the CBSD68 protocol.

    python recipes/evaluate_denoising.py --data CBSD68 --prior ddpm

Noise of sd 15, 25 and 50 out of 255, not clipped; PSNR of each image on [0, 1], then the mean over images.
"""

import argparse
import time

import torch

import genprior
from genprior import images
from genprior.devices import alone
from genprior.noise import Noise
from genprior.scores.metrics import psnr


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs")
    parser.add_argument("--prior", default="ddpm")
    parser.add_argument("--sigma", type=float, nargs="+", default=[15, 25, 50], help="of 255")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    alone("evaluate_denoising")

    prior = genprior.load_prior(options.prior, options.device)
    paths = images.list_images(options.data)
    print(f"| sigma / 255 | PSNR, mean of {len(paths)} images | seconds |\n|---|---|---|")
    for level in options.sigma:
        sigma, began, values = level / 255, time.perf_counter(), []
        for i, path in enumerate(paths):
            x = images.read(path).seen.to(options.device)
            x_t = x + sigma * Noise(options.seed, [i])(x)
            values.append(float(psnr(prior.denoise(x_t, sigma), x)[0]))
        print(f"| {level:g} | {sum(values) / len(values):.2f} dB | {time.perf_counter() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()

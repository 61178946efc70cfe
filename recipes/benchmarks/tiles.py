"""How much denoising by tiles differs from denoising the whole photograph: the largest difference of any value.

    python recipes/benchmarks/tiles.py

The first columns go by the distance in pixels from the cut of a tile, the last by the overlap of `Tiled`. In float32:
the rounding of bfloat16, in which the network computes where that is fast, is larger than all of these.
"""

import argparse

import torch
from common import machine
from skimage.data import astronaut

from genprior import images
from genprior.noise import Noise
from genprior.priors.store import find_prior, load_prior
from genprior.priors.wrappers.tiled import Tiled

SIGMAS = (0.005, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 78.0)
DISTANCES = (0, 16, 32, 48, 64, 96, 192)
OVERLAPS = (64, 96, 128)
TILE = 256


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="ddpm-photo")
    parser.add_argument("--photo", help="a file, of at least 333 x 411 pixels; the astronaut of scikit-image without")
    options = parser.parse_args()

    prior = load_prior(find_prior(options.prior), "cpu")
    prior.autocast = None
    x = images.read(options.photo or astronaut()).x[..., :333, :411]
    cut = x.shape[-1] // 2 // prior.multiple * prior.multiple
    print(f"{options.prior}, {x.shape[-2]} x {x.shape[-1]}, tiles of {TILE}; {machine(torch.device('cpu'))}\n")
    headings = [f"from {d} px" for d in DISTANCES] + [f"overlap {overlap}" for overlap in OVERLAPS]
    print("| " + " | ".join(["sigma", *headings]) + " |")
    print("|---" * (1 + len(headings)) + "|")
    for sigma in SIGMAS:
        x_t = x + sigma * Noise(0, torch.zeros(1, dtype=torch.long))(x)
        whole = prior.denoise(x_t, sigma)
        beside = (prior.denoise(x_t[..., cut:], sigma) - whole[..., cut:]).abs().amax((0, 1, 2))
        tiled = [(Tiled(prior, TILE, overlap).denoise(x_t, sigma) - whole).abs().max() for overlap in OVERLAPS]
        found = [beside[d:].max() for d in DISTANCES] + tiled
        print(f"| {sigma:g} | " + " | ".join(f"{difference:.0e}" for difference in found) + " |", flush=True)


if __name__ == "__main__":
    main()

"""Train `ddpm-photo`: a diffusion prior of RGB photographs of any size.

    python recipes/train_ddpm_photo.py --data PHOTOS --validation OTHER_PHOTOS --out runs/ddpm-photo

This script trained the bundled weights in four runs on one CPU thread (their card lists them); on a GPU, try
`--steps 200000 --batch 64 --size 96`. Kill it at any time and run it again: it resumes where it stopped. The result is
`OUT/prior`, which `genprior restore --prior OUT/prior` takes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_prior
from genprior.priors.store import find_prior
from genprior.training.data import Photos, first
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train
from genprior.training.objectives import Denoising
from genprior.training.quality import denoising_psnr

DEFAULTS = Settings(steps=10000, batch=16, lr=7e-4)


def preview(prior: Prior) -> torch.Tensor:
    return prior.sample(8, seed=0, size=(64, 64), steps=50)


def published_levels(prior: DDPM, x: torch.Tensor) -> dict[str, float]:
    """Return the denoising PSNR in dB at the noise levels for which denoisers publish theirs."""
    return {f"PSNR at {level}/255": denoising_psnr(prior, x, level / 255)["denoising PSNR"] for level in (15, 25, 50)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs, at least 128 pixels wide and high")
    parser.add_argument("--validation", help="folder of other photographs")
    parser.add_argument("--out", default="runs/ddpm-photo")
    parser.add_argument("--start", help="name or folder of a diffusion prior to go on from, with a fresh optimiser")
    parser.add_argument("--size", type=int, default=64, help="side of the training crops in pixels")
    parser.add_argument("--licence", default="see the training data", help="of the weights, for the card")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data = Photos(options.data, options.size, seed=settings.seed)
    held_out = Photos(options.validation or options.data, 128, augment=False)

    torch.manual_seed(settings.seed)
    prior = read_prior(find_prior(options.start)).train().requires_grad_() if options.start else DDPM((3, None, None))
    train(
        prior,
        [Denoising(prior, seed=settings.seed)],
        data,
        settings,
        options.out,
        validation=held_out if options.validation else None,
        preview=preview,
        measure=lambda prior: published_levels(prior, first(held_out, 41)),
        finish=lambda prior: prior.calibrate(first(held_out, 64)),
        card={
            "data": f"{Path(options.data).name}: random crops of {options.size} px",
            "licence": options.licence,
            **({"started from": options.start} if options.start else {}),
        },
    )


if __name__ == "__main__":
    main()

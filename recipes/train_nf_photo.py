"""Train `nf-photo`: a flow of small patches; as a `PatchFlow` it is a prior of RGB photographs of any size.

    python recipes/train_nf_photo.py --data PHOTOS --validation OTHER_PHOTOS --out runs/nf-photo

Every item is a crop, and training uses all of its patches. Kill it at any time and run it again: it resumes where it
stopped. The result is `OUT/prior`, which `genprior restore --prior OUT/prior` takes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.base import Prior
from genprior.priors.patches import PatchFlow
from genprior.training.data import Photos, first
from genprior.training.flags import add_flags, stated
from genprior.training.likelihood import MaximumLikelihood
from genprior.training.loop import Settings, train

DEFAULTS = Settings(steps=3000, batch=16, lr=1e-3)


def preview(prior: Prior) -> torch.Tensor:
    return prior.flow.sample(64, seed=0).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs, at least 64 pixels wide and high")
    parser.add_argument("--validation", help="folder of other photographs")
    parser.add_argument("--out", default="runs/nf-photo")
    parser.add_argument("--size", type=int, default=60, help="side of the training crops in pixels")
    parser.add_argument("--patch", type=int, default=6, help="side of the patches in pixels")
    parser.add_argument("--licence", default="see the training data", help="of the weights, for the card")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    data = Photos(options.data, options.size, seed=settings.seed)
    held_out = Photos(options.validation, options.size, augment=False) if options.validation else None

    torch.manual_seed(settings.seed)
    prior = PatchFlow(patch=options.patch)
    examples = first(data, 250)
    prior.initialise(dequantize(examples, Noise(settings.seed, torch.arange(len(examples)))))
    train(
        prior,
        [MaximumLikelihood(prior, seed=settings.seed)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        card={"data": f"{Path(options.data).name}: patches of {options.patch} px", "licence": options.licence},
    )


if __name__ == "__main__":
    main()

"""Train `nf-photo`: a flow of small patches, which as `PatchFlow` is a prior of RGB photographs of any size.

    python recipes/train_nf_photo.py --data PHOTOS --validation OTHER_PHOTOS --out runs/nf-photo

Every item is a crop, all of whose patches are trained on. Kill it when you like and call it again: it goes on where it
was. The result is `OUT/prior`, which `genprior restore --prior OUT/prior` takes.
"""

import argparse
from pathlib import Path

import torch

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.base import Prior
from genprior.priors.patches import PatchFlow
from genprior.training.data import Photos, first
from genprior.training.likelihood import PatchLikelihood
from genprior.training.loop import Settings, train


def preview(prior: Prior) -> torch.Tensor:
    return prior.flow.sample(64, seed=0).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs, at least 64 pixels wide and high")
    parser.add_argument("--validation", help="folder of other photographs")
    parser.add_argument("--out", default="runs/nf-photo")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16, help="crops per step")
    parser.add_argument("--size", type=int, default=60, help="side of the training crops in pixels")
    parser.add_argument("--patch", type=int, default=6, help="side of the patches in pixels")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", default="bf16", choices=["no", "bf16"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--licence", default="see the training data", help="of the weights, for the card")
    options = parser.parse_args()

    data = Photos(options.data, options.size, seed=options.seed)
    held_out = Photos(options.validation, options.size, augment=False) if options.validation else None

    torch.manual_seed(options.seed)
    prior = PatchFlow(patch=options.patch)
    examples = first(data, 250)
    prior.initialise(dequantize(examples, Noise(options.seed, torch.arange(len(examples)))))
    settings = Settings(
        steps=options.steps, batch=options.batch, lr=options.lr, precision=options.precision, seed=options.seed
    )
    train(
        prior,
        [PatchLikelihood(prior, seed=options.seed)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        card={"data": f"{Path(options.data).name}: patches of {options.patch} px", "licence": options.licence},
    )


if __name__ == "__main__":
    main()

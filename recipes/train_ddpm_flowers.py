"""Train `ddpm-flowers`: a diffusion prior of 64 x 64 flowers, with labels, that begins as the prior of photographs.

    python recipes/train_ddpm_flowers.py --data flowers_64.npz --out runs/ddpm-flowers

`flowers_64.npz` holds `train_images`, uint8 (N, 64, 64, 3), `train_labels`, and the names `classes`; a share of the
training images, by a hash of each, is held out for choices. Measured on images trained on as well: where the two part,
the network memorises. Kill it when you like and call it again: it goes on where it was. The result is `OUT/prior`.
"""

import argparse
from dataclasses import replace
from functools import partial

import torch

from genprior.priors.base import Prior
from genprior.priors.folder import read_prior
from genprior.priors.store import find_prior
from genprior.training.data import evenly, first, open_parts, read_names
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train
from genprior.training.objectives import Denoising
from genprior.training.quality import denoising_psnr, held_out_and_seen

DEFAULTS = Settings(steps=4400, batch=16, optimizer="muon", lr=7e-4, decay=1.0, ema=0.998)


def preview(prior: Prior) -> torch.Tensor:
    """Five draws of each class, a class a row."""
    return torch.cat([prior.sample(5, seed=0, label=k, steps=50) for k in range(prior.classes)])


def measure(prior: Prior, x: torch.Tensor) -> dict[str, float]:
    return {f"{name} at {s}": value for s in (0.1, 0.5, 1.5) for name, value in denoising_psnr(prior, x, s).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images, train_labels and classes")
    parser.add_argument("--validation-share", type=float, default=0.05, help="of the training images, held out")
    parser.add_argument("--out", default="runs/ddpm-flowers")
    parser.add_argument("--start", default="ddpm-photo", help="name or folder of the diffusion prior to go on from")
    parser.add_argument("--median", type=float, default=0.3, help="of the noise levels trained at")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    given = {"labels": "train_labels", "orientations": 2, "seed": settings.seed}
    data, held_out = open_parts(options.data, options.validation_share, **given)
    names = read_names(options.data, "classes")

    torch.manual_seed(settings.seed)
    prior = read_prior(find_prior(options.start))
    prior = (prior if prior.classes else prior.with_classes(len(names), data[0]["x"].shape)).train().requires_grad_()
    prior.class_names = names
    train(
        prior,
        # high levels, where flowers differ from other photographs; often without labels, as most restorations are
        [Denoising(prior, seed=settings.seed, median=options.median, dropped=0.4)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        measure=lambda prior: held_out_and_seen(partial(measure, prior), evenly(held_out, 128), first(data, 128)),
        finish=lambda prior: prior.calibrate(evenly(held_out, 128)),
        card={
            "data": f"five classes of flowers, {len(data)} photographs of 64 x 64, mirrored too; see flowers.csv",
            "licence": "CC BY-SA 4.0",  # that of ddpm-photo
            "started from": options.start,
        },
    )


if __name__ == "__main__":
    main()

"""genprior train: a prior of your own images."""

from __future__ import annotations

import argparse
from pathlib import Path

FAMILIES = ("ddpm", "vae", "nf", "gan")  # what can be trained, see genprior.training.families


def add(commands) -> None:
    """`genprior train`."""
    train = commands.add_parser("train", help="train a prior on your images; call again to resume")
    train.add_argument("family", choices=FAMILIES, help="what to train; gan: images of one size only")
    train.add_argument("--data", required=True, help="folder of images, or an .npz file")
    train.add_argument("--validation", help="folder of other images, or an .npz file")
    train.add_argument("--images", default="train_images", help="array of the .npz file (default: %(default)s)")
    train.add_argument("--labels", help="array of class labels in the .npz file")
    train.add_argument("--size", type=int, default=64, help="side of the crops of a folder's images (default: 64)")
    train.add_argument("--channels", type=int, choices=[1, 3], default=3, help="of a folder's images: 1 grey, 3 RGB")
    train.add_argument("--out", required=True, help="folder of the run; OUT/prior is the result")
    train.add_argument("--steps", type=int, default=20000)
    train.add_argument("--batch", type=int, default=16)
    train.add_argument("--accumulate", type=int, default=1, help="micro-batches per step")
    train.add_argument("--lr", type=float, help="learning rate (default: the family's)")
    train.add_argument("--precision", default="no", choices=["no", "bf16"])
    train.add_argument("--patience", type=int, help="validations without improvement after which to stop")
    train.add_argument("--workers", type=int, default=0, help="processes that load data")
    train.add_argument("--licence", default="unknown", help="of the data, for the card")
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from genprior.training.data import Arrays, Photos, first
    from genprior.training.families import plan
    from genprior.training.loop import Settings, train

    def dataset(path: str, augment: bool):
        if path.endswith(".npz"):
            return Arrays(path, options.images, options.labels, seed=options.seed if augment else None)
        return Photos(path, options.size, channels=options.channels, seed=options.seed, augment=augment)

    data = dataset(options.data, True)
    held_out = dataset(options.validation or options.data, False)
    examples = first(data, 256)
    size = tuple(examples.shape[2:])
    shape = tuple(examples.shape[1:]) if isinstance(data, Arrays) else (options.channels, None, None)
    classes = int(data.labels.max()) + 1 if isinstance(data, Arrays) and options.labels else 0
    chosen = plan(options.family, shape, classes, examples, options.seed)
    names = ("steps", "batch", "accumulate", "lr", "precision", "patience", "workers", "seed")
    stated = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    train(
        chosen.prior,
        chosen.objectives,
        data,
        Settings(**{**chosen.settings, **stated}),
        options.out,
        validation=held_out if options.validation else None,
        preview=lambda prior: chosen.preview(prior, 16, size),
        finish=chosen.finish and (lambda prior: chosen.finish(prior, first(held_out, 64))),
        card={"data": Path(options.data).name, "licence": options.licence},
    )
    print(f"{Path(options.out) / 'prior'} is ready: genprior restore … --prior {Path(options.out) / 'prior'}")
    return 0

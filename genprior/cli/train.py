"""genprior train: a prior of your own images."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

FAMILIES = ("ddpm", "vae", "nf", "gan")  # what can be trained, see genprior.training.families

# Every field of genprior.training.settings.Settings: its type, other names of its flag, and what it says.
SETTINGS = {
    "steps": (int, ("--max-train-steps",), "optimiser steps in all (default: 20000)"),
    "batch": (int, ("--train-batch-size",), "images per step, over all devices and micro-batches"),
    "accumulate": (int, ("--gradient-accumulation-steps",), "micro-batches per step: less memory, the same step"),
    "auto_batch": (bool, (), "make more micro-batches where memory does not suffice (on one process)"),
    "lr": (float, ("--learning-rate",), "learning rate at its height"),
    "warmup": (int, ("--lr-warmup-steps",), "steps over which it rises"),
    "decay": (float, (), "last fraction of the steps, over which it falls to zero"),
    "weight_decay": (float, ("--adam-weight-decay",), "AdamW's"),
    "betas": (float, (), "AdamW's"),
    "clip": (float, ("--max-grad-norm",), "largest norm of a gradient"),
    "ema": (float, ("--ema-decay",), "decay of the moving average of the weights, which is what is kept"),
    "precision": (str, ("--mixed-precision",), "no (float32) or bf16"),
    "compile": (bool, (), "compile the networks: slow to begin, then faster on a GPU"),
    "seed": (int, (), "of weights, data and noise"),
    "log_every": (int, ("--logging-steps",), "steps from one line of log.jsonl to the next"),
    "validate_every": (int, ("--validation-steps",), "steps from one validation and sheet of samples to the next"),
    "save_every": (int, ("--checkpointing-steps",), "steps from one checkpoint to the next"),
    "keep": (int, ("--checkpoints-total-limit",), "newest checkpoints kept, besides the best"),
    "patience": (int, (), "validations without improvement after which to stop, with the best weights"),
    "workers": (int, ("--dataloader-num-workers",), "processes that load data"),
}


def add(commands) -> None:
    """`genprior train`."""
    train = commands.add_parser("train", help="train a prior on your images; call again to resume")
    train.add_argument("family", choices=FAMILIES, help="what to train; gan: images of one size only")
    data = train.add_argument_group("data")
    data.add_argument("--data", "--train-data-dir", required=True, help="folder of images, or an .npz file")
    data.add_argument("--validation", help="folder of other images, or an .npz file")
    data.add_argument("--images", default="train_images", help="array of the .npz file (default: %(default)s)")
    data.add_argument("--labels", help="array of class labels in the .npz file")
    data.add_argument(
        "--size", "--resolution", type=int, default=64, help="side of the crops of a folder's images (default: 64)"
    )
    data.add_argument("--channels", type=int, choices=[1, 3], default=3, help="of a folder's images: 1 grey, 3 RGB")
    data.add_argument("--data-changed", action="store_true", help="resume although the data are not those of the run")
    data.add_argument("--licence", default="unknown", help="of the data, for the card")

    run_folder = train.add_argument_group("run")
    run_folder.add_argument("--out", "--output-dir", required=True, help="folder of the run; OUT/prior is the result")
    run_folder.add_argument(
        "--resume-from-checkpoint",
        choices=["latest", "never"],
        default="latest",
        help="latest: from the newest sound checkpoint in OUT, if there is one (default); never: refuse such an OUT",
    )
    run_folder.add_argument(
        "--log-with", "--report-to", action="append", default=[], metavar="TRACKER", help="tensorboard, wandb, trackio"
    )
    run_folder.add_argument("--push-to-hub", metavar="OWNER/NAME", help="publish the result on the Hugging Face Hub")
    run_folder.add_argument("--dry-run", action="store_true", help="print what would be done as JSON, and do nothing")

    settings = train.add_argument_group("settings", "What is not given is the family's own.")
    for name, (kind, others, text) in SETTINGS.items():
        options: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
        options |= {"betas": {"nargs": 2}, "precision": {"choices": ["no", "bf16"]}}.get(name, {})
        settings.add_argument(
            f"--{name.replace('_', '-')}", *others, dest=name, default=argparse.SUPPRESS, help=text, **options
        )
    train.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from genprior.training.data import first
    from genprior.training.faults import out_of_memory
    from genprior.training.loop import train

    data, held_out, chosen, settings = _resolved(options)
    size = tuple(first(data, 1).shape[2:])
    if options.dry_run:
        print(json.dumps(_described(options, data, held_out, chosen, settings), indent=2))
        return 0
    out = Path(options.out)
    if options.resume_from_checkpoint == "never" and any(out.glob("step-*")):
        raise ValueError(f"{out} has checkpoints: give another --out, or resume with --resume-from-checkpoint latest.")
    try:
        train(
            chosen.prior,
            chosen.objectives,
            data,
            settings,
            out,
            validation=held_out if options.validation else None,
            preview=lambda prior: chosen.preview(prior, 16, size),
            measure=chosen.measure and (lambda prior: chosen.measure(prior, first(held_out, 16).to(_device(prior)))),
            finish=chosen.finish and (lambda prior: chosen.finish(prior, first(held_out, 64).to(_device(prior)))),
            card={"data": Path(options.data).name, "licence": options.licence},
            log_with=options.log_with,
            data_changed=options.data_changed,
        )
    except KeyboardInterrupt as stop:
        print(f"genprior: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        print(f"genprior: out of memory: {error}", file=sys.stderr)
        return 1
    if os.environ.get("RANK", "0") == "0":
        print(f"{out / 'prior'} is ready: genprior restore … --prior {out / 'prior'}")
        if options.push_to_hub:
            from genprior.priors.hub import push_to_hub

            print(push_to_hub(out / "prior", options.push_to_hub))
    return 0


def _resolved(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """The data, the held-out data (else the same, as they are), the plan of the family, and the settings."""
    from genprior.training.data import Arrays, Photos, first
    from genprior.training.families import plan
    from genprior.training.settings import Settings

    stated = {name: getattr(options, name) for name in SETTINGS if hasattr(options, name)}
    if "betas" in stated:
        stated["betas"] = tuple(stated["betas"])
    seed = stated.get("seed", 0)

    def dataset(path: str, augment: bool):
        if path.endswith(".npz"):
            return Arrays(path, options.images, options.labels, seed=seed if augment else None)
        return Photos(path, options.size, channels=options.channels, seed=seed, augment=augment)

    data = dataset(options.data, True)
    held_out = dataset(options.validation or options.data, False)
    examples = first(data, 256)
    shape = tuple(examples.shape[1:]) if isinstance(data, Arrays) else (options.channels, None, None)
    classes = int(data.labels.max()) + 1 if isinstance(data, Arrays) and options.labels else 0
    chosen = plan(options.family, shape, classes, examples, seed)
    return data, held_out, chosen, Settings(**{"steps": 20000, **chosen.settings, **stated})


def _described(options: argparse.Namespace, data, held_out, chosen, settings) -> dict[str, Any]:
    """What `--dry-run` prints."""
    trained = {p for objective in chosen.objectives for p in objective.parameters() if p.requires_grad}
    return {
        "family": options.family,
        "prior": {"class": type(chosen.prior).__name__, "arguments": chosen.prior.config},
        "objectives": [type(objective).__name__ for objective in chosen.objectives],
        "parameters": sum(p.numel() for p in trained),
        "data": {"path": options.data, "images": len(data)},
        "validation": {"path": options.validation, "images": len(held_out)} if options.validation else None,
        "settings": asdict(settings),
        "log_with": options.log_with,
        "out": options.out,
    }


def _device(prior):
    return next(prior.parameters()).device

"""genprior train: train a prior on your own images."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genprior.cli.names import FAMILIES, OBJECTIVES
from genprior.training.flags import add_flags, stated


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior train`."""
    parser.add_argument("family", choices=FAMILIES, help="what to train; gan, flow-gan: images of one size only")
    parser.add_argument("--vae", metavar="PRIOR", help="of an ldm: its autoencoder, a folder or name (vae-photo)")
    parser.add_argument(
        "--weight", type=float, help="of a flow-gan: of its bits per value against its adversarial loss (default: 10)"
    )
    parser.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help="of a ddpm: what its network learns (default: denoising)",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        "--train-data-dir",
        required=True,
        help="folder of images, .npz file, parquet file or folder of them, torchvision:NAME[:SPLIT], "
        "hf:OWNER/NAME[:SPLIT]",
    )
    validation = data.add_mutually_exclusive_group()
    validation.add_argument("--validation", help="other images, given as --data")
    validation.add_argument("--validation-share", type=float, metavar="SHARE", help="fraction of the data held out")
    data.add_argument("--images", help="array of the .npz file (default: train_images), or column of the table")
    data.add_argument("--labels", help="array or column of class labels; of torchvision: targets")
    data.add_argument("--class-names", metavar="ARRAY", help="array of the .npz file with the names of the classes")
    data.add_argument(
        "--size", "--resolution", type=int, default=64, help="side of the crops of a folder's images (default: 64)"
    )
    data.add_argument("--channels", type=int, choices=[1, 3], default=3, help="of a folder's images: 1 grey, 3 RGB")
    data.add_argument(
        "--orientations",
        type=int,
        choices=[1, 2, 8],
        help="of an image: 8 flipped and turned, 2 mirrored, 1 as it is (default: 8 of crops, 1 of arrays)",
    )
    data.add_argument("--root", default="data", help="folder of torchvision's data sets (default: data)")
    data.add_argument("--download", action="store_true", help="have torchvision fetch what is not there")
    data.add_argument("--data-changed", action="store_true", help="resume although the data are not those of the run")
    data.add_argument("--licence", default="unknown", help="of the data, for the card")

    run_folder = parser.add_argument_group("run")
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

    add_flags(
        parser.add_argument_group(
            "settings", "What is not given is the family's own; 20,000 steps, or as many as fit into --minutes."
        )
    )


def run(options: argparse.Namespace) -> int:
    from genprior.devices import processes
    from genprior.priors.hub import check_hub_name, push_to_hub
    from genprior.training.data import first
    from genprior.training.faults import out_of_memory
    from genprior.training.loop import train

    if options.push_to_hub:
        check_hub_name(options.push_to_hub)  # now, rather than after training
    ranks = processes()
    with ranks.main_process_first() if options.download else contextlib.nullcontext():
        data, held_out, chosen, settings = _resolved(options)
    size = tuple(first(data, 1).shape[2:])
    if options.dry_run:
        if ranks.is_main_process:
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
            validation=held_out if _validates(options) else None,
            preview=lambda prior: chosen.preview(prior, 16, size),
            measure=chosen.measure and (lambda prior: chosen.measure(prior, first(held_out, 16))),
            finish=chosen.finish and (lambda prior: chosen.finish(prior, first(held_out, 64))),
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
    if ranks.is_main_process:
        print(f"{out / 'prior'} is ready: genprior restore … --prior {out / 'prior'}")
        if options.push_to_hub:
            print(push_to_hub(out / "prior", options.push_to_hub))
    return 0


def _resolved(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """The data, the held-out data (or the same, not augmented), the plan of the family, and the settings."""
    import torch

    from genprior.priors.folder import read_prior
    from genprior.priors.labels import check_names
    from genprior.priors.store import find_prior
    from genprior.training.data import Arrays, first, open_data, open_parts
    from genprior.training.families import plan
    from genprior.training.settings import Settings

    _check_apart(options)
    own = stated(options)
    seed = own.get("seed", 0)

    names = ("images", "labels", "channels", "orientations", "root", "download")
    given = {"size": options.size, "seed": seed, **{name: getattr(options, name) for name in names}}
    if options.validation_share is None:
        data = open_data(options.data, **given)
        held_out = open_data(options.validation or options.data, augment=False, **given)
    else:
        data, held_out = open_parts(options.data, options.validation_share, **given)
    examples = first(data, 256)
    shape = tuple(examples.shape[1:]) if isinstance(data, Arrays) else (options.channels, None, None)
    names = _names(options)
    classes = 0 if data.labels is None else _count_classes(data.labels, names)
    _check_alike(data, held_out, classes)
    vae = read_prior(find_prior(options.vae)) if options.vae else None
    chosen = plan(options.family, shape, classes, examples, seed, vae, options.weight, options.objective)
    if classes:
        chosen.prior.fit_classes(torch.as_tensor(data.labels))
        chosen.prior.class_names = check_names(names, classes)
    steps = 20000 if own.get("minutes") is None else 10**7  # with minutes, as many as fit
    return data, held_out, chosen, Settings(**{"steps": steps, **chosen.settings, **own})


def _count_classes(labels: Any, names: tuple[str, ...]) -> int:
    """Return the number of classes; raise ValueError if their labels are not 0, 1, 2, …"""
    from genprior.checks import count_classes

    classes = count_classes(labels)
    if classes > max(len(labels), len(names)):
        raise ValueError(f"Labels count from 0, and {len(labels)} images have one of {classes - 1}: use 0, 1, 2, …")
    return max(classes, len(names))


def _check_apart(options: argparse.Namespace) -> None:
    """Raise ValueError if OUT, with its pictures of samples, lies in a folder of images."""
    out = Path(options.out).resolve()
    for name in ("data", "validation"):
        given = getattr(options, name)
        if given and Path(given).is_dir() and out.is_relative_to(Path(given).resolve()):
            raise ValueError(
                f"--out {options.out} lies in --{name} {given}, and its pictures would be taken for images to learn "
                "from: give a folder outside of it."
            )


def _check_alike(data: Any, held_out: Any, classes: int) -> None:
    """Raise ValueError if the held-out images have another shape, or classes that the others lack."""
    from genprior.checks import count_classes

    shape, other = (tuple(part[0]["x"].shape) for part in (data, held_out))
    if shape != other:
        raise ValueError(f"Held-out images have the shape {other}, the others {shape}: give images of one shape.")
    if not classes:
        return
    if count_classes(held_out.labels) > classes:
        label = int(held_out.labels.max())
        raise ValueError(f"The held-out images have the label {label}, and the others {classes} classes, from 0.")


def _names(options: argparse.Namespace) -> tuple[str, ...]:
    """The names of the classes, if they have any."""
    from genprior.training.data import read_names

    if options.class_names is None:
        return ()
    if options.labels is None or Path(options.data).suffix != ".npz":
        raise ValueError(f"--class-names {options.class_names} goes with --labels and an .npz file: leave it out.")
    return read_names(options.data, options.class_names)


def _validates(options: argparse.Namespace) -> bool:
    return options.validation is not None or options.validation_share is not None


def _described(options: argparse.Namespace, data, held_out, chosen, settings) -> dict[str, Any]:
    """What `--dry-run` prints."""
    from genprior.training.banner import parameter_count

    return {
        "family": options.family,
        "prior": {"class": type(chosen.prior).__name__, "arguments": chosen.prior.config},
        "objectives": [type(objective).__name__ for objective in chosen.objectives],
        "parameters": parameter_count(chosen.objectives),
        "data": {"path": options.data, "images": len(data)},
        "validation": {"path": options.validation or options.data, "images": len(held_out)}
        if _validates(options)
        else None,
        "settings": asdict(settings),
        "log_with": options.log_with,
        "out": options.out,
    }

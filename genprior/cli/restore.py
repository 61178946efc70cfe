"""genprior restore: images from their measurements."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genprior.cli.common import (
    NOISE,
    Item,
    add_images,
    add_operator,
    beside,
    each,
    label_of,
    load,
    noise_to_estimate,
    number_or_law,
    parameters_of,
    refuse_existing,
    save_array,
    seed_of,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    import genprior


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior restore`."""
    add_images(parser)
    add_operator(parser, number_or_law)
    parser.add_argument(
        "--prior",
        default="ddpm",
        help="name, folder, checkpoint or family: the prior of it that fits each image (default: ddpm)",
    )
    parser.add_argument(
        "--sampler", default="auto", help="auto, or a name such as diffpir; a wrong one lists them (default: auto)"
    )
    parser.add_argument(
        "-n",
        "--n",
        type=int,
        help="draws of each image, for --samples, --std or --out NAME.npz; torchrun leaves only -n to us (default: "
        "the picture alone)",
    )
    parser.add_argument("--samples", action="store_true", help="write every sample too, as NAME_sample-K.png")
    parser.add_argument(
        "--std", action="store_true", help="write the standard deviation too, its maximum white, as NAME_std.png"
    )
    parser.add_argument(
        "--concat",
        action="store_true",
        help="write the measurement and the result side by side too, as NAME_concat.png",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per file in place of text: what was written, and how"
    )
    parser.add_argument(
        "--noise",
        type=noise_to_estimate,
        help=f"{NOISE}; estimated if left out, as one level; poisson alone: photon noise, its gain and sd estimated",
    )
    parser.add_argument("--label", type=label_of, help="class of the images, its number or name")
    parser.add_argument("--steps", type=int, help="steps of the sampler")
    parser.add_argument(
        "--tile", type=int, help="side in pixels of the tiles in which a large image is denoised (default: by memory)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    import genprior
    from genprior import images
    from genprior.devices import pick_device, processes
    from genprior.priors.store import find_prior

    find_prior(options.prior)
    if options.op == "colorize":
        print(
            "genprior: colours are guesses; docs/operators.md says how far ddpm-photo's are from the truth",
            file=sys.stderr,
        )
    ranks = processes(options.device)
    device = pick_device(options.device) if ranks.num_processes == 1 else ranks.device

    wanted = options.n if options.n is not None else 1 if options.samples or options.std else None
    samples = [f"_sample-{k}" for k in range((wanted or 0) if options.samples else 0)]
    ends = [*samples, *["_std"] * options.std, *["_concat"] * options.concat]

    def one(item: Item) -> str:
        path, target = item.path, item.target
        outputs = dict(zip(["", *ends], [target, *beside(target, ends)]))
        refuse_existing(list(outputs.values()), options.overwrite)
        given = load(path)
        if target.suffix.lower() in (".jpg", ".jpeg") and given is path and images.read(path).alpha is not None:
            raise ValueError(f"it has alpha, which {target.name} cannot hold: choose .png, .tif or .webp.")
        result = genprior.restore(
            given,
            options.op,
            options.prior,
            n=wanted,
            **{name: getattr(options, name) for name in ("sampler", "noise", "label", "steps", "tile")},
            seed=seed_of(options, item.key),
            device=device,
            progress=ranks.is_main_process,
            **parameters_of(options, item),
        )
        if target.suffix.lower() == ".npy":
            save_array(_values(result, given), target)
        else:
            result.save(target, overwrite=options.overwrite)
        for k, end in enumerate(samples):
            images.save(images.writable(result.like(result.samples[k]), result.samples[k]), outputs[end])
        if options.std:
            images.save(result.std / result.std.max().clamp_min(1e-12), outputs["_std"])
        if options.concat:
            images.save(_side_by_side(result), outputs["_concat"])
        told = _described(path, list(outputs.values()), result)
        return json.dumps(told) if options.json else f"{path} -> {target}: {result}"

    return each(options, one, ranks, ends=ends)


def _values(result: genprior.Restoration, given: Any) -> np.ndarray:
    """The picture for a .npy file: H x W x C, or the layout and dtype of the array given; floats are not clipped."""
    import numpy as np
    from einops import rearrange

    x = rearrange(result.picture, "c h w -> h w c").numpy()
    if not isinstance(given, np.ndarray):
        return x
    image = np.asarray(result.image)
    if image.dtype.kind == "f":
        colours = image.reshape(*x.shape[:2], -1)[..., : x.shape[2]]  # without alpha
        np.copyto(colours, x, where=colours == x.clip(0, 1), casting="same_kind")  # known pixels are as given
    return image


def _side_by_side(result: genprior.Restoration) -> Tensor:
    """The measurement, its pixels repeated to the size of the result, beside the result: (C, H, W')."""
    import torch
    from torch.nn.functional import interpolate

    from genprior import images

    x = result.picture
    y = interpolate(result.measurement.picture.float().cpu(), x.shape[-2:], mode="nearest-exact")
    return images.grid(torch.cat([y.expand(-1, len(x), -1, -1), x[None]]), columns=2)


def _described(path: Path, outputs: list[Path], result: genprior.Restoration) -> dict[str, Any]:
    """What `--json` prints."""
    from genprior import record

    return {
        "input": str(path),
        "outputs": [str(output) for output in outputs],
        "seconds": round(result.seconds, 3),
        "n": result.n,
        "tile": result.tile,
        "seed": result.seed,
        "noise": record.of_noise(result.measurement.noise)[0],
        "noise_was_estimated": result.noise_was_estimated,
        **({} if result.identification is None else result.identification.summary),
        **result.methods,
        "prior": result.prior_name,
        "evaluations": result.network_evaluations,
        "diagnostics": {name: figures.tolist() for name, figures in result.diagnostics.items()},
    }

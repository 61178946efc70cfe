"""genprior evaluate: how well images are restored."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from genprior.cli.common import NOISE, add_operator, add_simulation, noise_of, simulated


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior evaluate`."""
    parser.add_argument("data", nargs="+", type=Path, help="folder of images, image files, or an .npz file")
    add_operator(parser)
    add_simulation(parser)
    parser.add_argument(
        "--preset", help="a task by name in place of --op, its parameters and --noise; a wrong one lists them"
    )
    parser.add_argument("--noise", type=noise_of, help=f"{NOISE}; known to all methods")
    parser.add_argument("--prior", default="ddpm", help="name, folder, or family (default: %(default)s)")
    parser.add_argument("--sampler", type=_names, default=["auto"], help="names, as diffpir,dps,mmps (default: auto)")
    parser.add_argument("--baselines", type=_names, default=[], help="classical methods, as tv,bicubic")
    parser.add_argument(
        "-n", "--n", type=int, default=4, help="samples of each image; torchrun leaves only -n to us (default: 4)"
    )
    parser.add_argument("--steps", type=int, help="steps of every sampler")
    parser.add_argument("--lpips", action="store_true", help="LPIPS too: an extra, which downloads weights")
    parser.add_argument("--limit", type=int, help="how many images, the first ones")
    parser.add_argument("--crop", type=int, help="side of the square cut from the middle of each image")
    parser.add_argument("--images", default="test_images", help="array of an .npz file (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="folder for the results; what it holds is not computed again"
    )
    parser.set_defaults(op=None)


def run(options: argparse.Namespace) -> int:
    import genprior
    from genprior.benchmark.presets import PRESETS
    from genprior.registry import lookup

    if (options.op is None) == (options.preset is None):
        raise ValueError("Say what is done to the images: --op, or a task by --preset.")
    if options.preset is not None:
        lookup("preset", options.preset, PRESETS)
    same = ("n", "noise", "seed", "steps", "baselines", "lpips", "out", "limit", "crop", "images", "device")
    evaluation = genprior.evaluate(
        options.data[0] if len(options.data) == 1 else options.data,
        options.preset or options.op,
        options.prior,
        options.sampler,
        **{name: getattr(options, name) for name in same},
        **_parameters(options),
    )
    failed = [str(row["method"]) for row in evaluation.table.rows if row.get("note")]
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"{evaluation}\n{options.out}: table.md, table.csv, images.csv, run.json, contact.png")
        if failed:
            print(f"genprior: failed on some images, see the last column: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    if options.mask is not None and Path(options.mask).is_dir():
        raise ValueError(f"--mask {options.mask} is a folder; give one mask for all images, or random, box or stroke.")
    return simulated(options)

"""Run the tasks of a published table with its operators, noise, sampler and steps; docs/reproduce.md compares.

    python recipes/reproduce.py dps --data ffhq256 --prior ffhq_10m.pt --out runs/dps --limit 1000 --lpips
    python recipes/reproduce.py ddrm --data imagenet256 --prior 256x256_diffusion_uncond.pt --out runs/ddrm --tasks sr4

Results are written as by `genprior.evaluate`, one folder per task; an interrupted task resumes.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.physics import Blur
from scipy.ndimage import gaussian_filter

import genprior
from genprior.benchmark.presets import camera_motion
from genprior.samplers import DDRM, DPS, DAPSLangevin, DiffPIR


def tables(side: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the arguments of `evaluate` for each task of each table, on images of `side` pixels (published: 256)."""
    reach = min(61, side - 1 + side % 2) // 2  # of the kernels, 61 pixels wide
    gaussian = torch.from_numpy(gaussian_filter(np.pad([[1.0]], reach), 3.0))  # cut off at 4 standard deviations
    kernels = {"gaussian": gaussian, "motion": camera_motion(2 * reach + 1)}
    mirrored = {k: {"op": Blur(kernel.float()[None, None], padding="reflect")} for k, kernel in kernels.items()}
    circular = {k: {"op": "deblur", "kernel": kernel, "boundary": "circular"} for k, kernel in kernels.items()}
    sr4 = {"op": "super-resolution", "scale": 4, "antialias": "bicubic"}
    box = {"op": "inpaint", "mask": "box", "size": side // 2}
    random = {"op": "inpaint", "mask": "random"}

    def all_by(noise: float, sampler: Any, **tasks: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {name: {"noise": noise, "sampler": sampler, **task} for name, task in tasks.items()}

    def diffpir(eta: float) -> DiffPIR:
        return DiffPIR(steps=100, weight=1, eta=eta, start=None, coarse=0)

    few, some = random | {"fraction": 0.92}, random | {"fraction": 0.7}
    average = sr4 | {"antialias": "average"}
    return {
        "dps": all_by(0.025, DPS(zeta=0.3), sr4=sr4, **mirrored) | all_by(0.025, DPS(zeta=0.5), box=box, random=few),
        "daps": all_by(0.025, DAPSLangevin(steps=200, ode_steps=5), sr4=sr4, box=box, random=some, **mirrored),
        "diffpir": all_by(0.05, diffpir(0.25), sr4=sr4) | all_by(0.05, diffpir(0.1), **circular),
        "ddrm": all_by(0.05, DDRM(), sr4=average) | all_by(0.0, DDRM(), clean=average),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(tables(256)))
    parser.add_argument("--data", type=Path, required=True, help="folder of the images")
    parser.add_argument("--prior", required=True, help="checkpoint, folder or name")
    parser.add_argument("--out", type=Path, required=True, help="folder: what it holds is not computed again")
    parser.add_argument("--tasks", nargs="*", help="some of them (default: all)")
    for name, default in (("limit", None), ("side", 256), ("steps", None), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help="published, unless it is given")
    parser.add_argument("--also", nargs="*", default=[], help="samplers besides the published one, as auto mmps")
    parser.add_argument("--lpips", action="store_true")
    options = parser.parse_args()

    found = tables(options.side)[options.table]
    shared = {name: getattr(options, name) for name in ("limit", "steps", "seed", "lpips")}
    for name in options.tasks or found:
        task = found[name] | shared | {"sampler": [found[name]["sampler"], *options.also]}
        evaluation = genprior.evaluate(
            options.data, prior=options.prior, n=1, crop=options.side, out=options.out / name, **task
        )
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"{options.table}, {name}\n\n{evaluation}")


if __name__ == "__main__":
    main()

"""Peak memory of restoring one large photograph: the largest resident set of this process, in GB (10^9 bytes).

    python recipes/benchmarks/memory.py --op inpaint --height 3000 --width 4000

The photograph is noise, which takes as much time and memory as any. One step has the peak of any number of steps: each
frees what it made.
"""

import argparse
import resource

import torch
from common import machine

import genprior

PARAMETERS = {
    "inpaint": {"mask": "random", "fraction": 0.5},
    "super-resolution": {"scale": 4},
    "gaussian-deblur": {"width": 2.0},  # separable: in closed form
    "motion-deblur": {"length": 15, "angle": 30.0},  # not separable: by conjugate gradients
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", choices=PARAMETERS, default="inpaint")
    parser.add_argument("--prior", default="ddpm-photo")
    parser.add_argument("--sampler", default="auto")
    for name, default in (("height", 3000), ("width", 4000), ("steps", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()

    x = torch.rand(1, 3, options.height, options.width, generator=torch.Generator().manual_seed(0))
    measurement = genprior.degrade(x, options.op, noise=0.025, seed=0, **PARAMETERS[options.op])
    del x
    before = _peak()
    genprior.restore(measurement, prior=options.prior, sampler=options.sampler, steps=options.steps, seed=0)
    print(
        f"{options.op}, {options.height} x {options.width}, {options.sampler}: {_peak():.2f} GB "
        f"({before:.2f} before); {machine(torch.device('cpu'))}"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()

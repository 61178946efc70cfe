"""What one draw costs with each bundled prior and the sampler that "auto" chooses, compared with the diffusion.

    python recipes/benchmarks/cost.py
    python recipes/benchmarks/cost.py --priors ddpm-mnist gan-mnist --repeats 1

Super-resolution x4, noise 0.05: of a photograph of 64 x 64 for the priors of photographs, of a digit drawn from
`ddpm-mnist` for those of digits. Seconds are the least CPU time of --repeats restorations, with one thread; the ratio
is to the diffusion of the same kind of image.
"""

import argparse

import torch
from common import machine, seconds
from skimage.data import astronaut

import genprior
from genprior.operators.measurement import Measurement
from genprior.priors.store import bundled
from genprior.samplers import SAMPLERS, automatic
from genprior.table import Cell, Table

NAMES = {kind: name for name, kind in SAMPLERS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--priors", nargs="+", default=sorted(bundled()))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine(torch.device('cpu'))}\n")

    photo = astronaut()[:64, 160:224]
    digit = genprior.load_prior("ddpm-mnist").sample(1, seed=0).clamp(0, 1)
    for x, kind in ((photo, "photo"), (digit, "mnist")):
        if names := [name for name in options.priors if name.endswith(kind)]:
            y = genprior.degrade(x, "super-resolution", scale=4, noise=0.05, seed=0)
            costs = {name: cost(name, y, options.repeats) for name in dict.fromkeys([f"ddpm-{kind}", *names])}
            unit = costs[f"ddpm-{kind}"][2]
            print(Table([row(name, *costs[name], unit) for name in names]), flush=True)


def cost(name: str, y: Measurement, repeats: int) -> tuple[str, int, float]:
    """Return the sampler's name, its network evaluations per draw, and the seconds of a draw."""
    prior = genprior.load_prior(name)
    sampler = automatic(prior)

    def draw() -> genprior.Restoration:
        return genprior.restore(y, prior=prior, sampler=sampler, n=1, seed=0, progress=False)

    evaluations = draw().network_evaluations
    return NAMES[type(sampler)], evaluations, min(seconds(draw, torch.device("cpu")) for _ in range(repeats))


def row(name: str, sampler: str, evaluations: int, spent: float, unit: float) -> dict[str, Cell]:
    return {
        "prior": f"`{name}`",
        "sampler": f"`{sampler}`",
        "evaluations": evaluations,
        "seconds": f"{spent:.2f}",
        "ratio": f"{spent / unit:.2g}",
    }


if __name__ == "__main__":
    main()

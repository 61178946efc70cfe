"""Samplers against the posterior of the mixture of 25 Gaussians, see `genprior.truth.mixture`.

    python recipes/benchmarks/mixture.py --cells 8,1 8,2 8,4 --samplers mmps tds-moments --steps 20 100

Prints a table as Markdown, and with --out writes it as CSV too.
"""

import argparse
from pathlib import Path

from genprior.samplers import MMPS, SAMPLERS, SMC, TDS, MCGDiff, TDSMoments
from genprior.truth.mixture import CELLS, DRAWS, SEEDS, mixture_suite

PARTICLES = DRAWS + DRAWS // 4
# These differ from the defaults: exact covariances of up to 4 values, and somewhat more particles than draws.
CHOSEN = {
    "mmps": MMPS(iterations=4),
    "tds": TDS(particles=PARTICLES),
    "tds-moments": TDSMoments(particles=PARTICLES),
    "smc": SMC(particles=PARTICLES),
    "mcgdiff": MCGDiff(particles=PARTICLES),
}


def cell(text: str) -> tuple[int, int]:
    d, observed = text.split(",")
    return int(d), int(observed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=["dps", "ddrm", "mmps", "mcgdiff", "tds-moments"])
    parser.add_argument("--steps", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--cells", nargs="+", type=cell, default=CELLS, help="d,values of y")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, help="CSV file")
    options = parser.parse_args()

    samplers = {name: CHOSEN.get(name) or SAMPLERS[name]() for name in options.samplers}
    table = mixture_suite(samplers, steps=options.steps, cells=options.cells, seeds=options.seeds)
    print(table.markdown())
    if options.out:
        options.out.write_text(table.csv())


if __name__ == "__main__":
    main()

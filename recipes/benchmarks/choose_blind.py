"""Choose the powers of the likelihood that identifies blurs: a row of `blind.py` for each choice.

    python recipes/benchmarks/choose_blind.py --data PHOTOS --op gaussian-deblur --crops 20 --photograph 0.3 0.45 0.6

PHOTOS is a folder of sharp photographs; with --fitted, that of `recipes/fit_spectra_photo.py`, of which only the
held-out photographs count. Choose powers whose 90 % intervals hold the truth as often as they claim, whose places are
uniform, and whose share "near" is as large as possible.
"""

import argparse
import itertools
from pathlib import Path

import torch
from blind import OPERATORS, of_blurred
from common import anything, crops, machine

from genprior.blind.spectra import held_out
from genprior.blind.whittle import POWERS, Powers
from genprior.table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of sharp photographs")
    parser.add_argument("--fitted", action="store_true", help="the spectra were fitted to that folder")
    parser.add_argument("--op", choices=list(OPERATORS), nargs="+", default=list(OPERATORS))
    parser.add_argument("--crops", type=int, default=20, help="one of a photograph")
    parser.add_argument("--side", type=int, default=160, help="of a crop, before the blur takes its margin")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03])
    for name in ("window", "photograph", "of-noise"):
        parser.add_argument(f"--{name}", type=float, nargs="+", help="powers to try (default: that of the package)")
    options = parser.parse_args()
    keep = (lambda path: held_out(path.name)) if options.fitted else anything
    photos = list(crops([options.data], options.crops, options.side, keep).values())
    rows = []
    for op in options.op:
        usual = POWERS[op]
        windows, of_all = options.window or [usual.window], options.photograph or [usual.photograph]
        of_noise = options.of_noise or [usual.noise]
        for b, c, d in itertools.product(windows, of_all, of_noise):
            POWERS[op] = Powers(b, c, d)
            for noise in options.noise:
                rows.append({"b": b, "c": c, "d": d, **of_blurred(op, noise, photos, restored=0)})
        POWERS[op] = usual
    print(machine(torch.device("cpu")), Table(rows), sep="\n\n")


if __name__ == "__main__":
    main()

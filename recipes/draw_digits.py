"""Draws from each family of priors of digits, one row per prior: what each takes for a digit.

python recipes/draw_digits.py --out draws.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

import genprior
from genprior import images
from genprior.devices import alone

PRIORS = ("gaussian-mnist", "nf-mnist", "vae-mnist", "ddpm-mnist", "ldm-mnist", "gan-mnist")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--priors", nargs="+", default=PRIORS, help="names or folders of priors of grey 28 x 28 images")
    parser.add_argument("--n", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("draws.png"))
    options = parser.parse_args()
    alone("draw_digits")

    figure, axes = plt.subplots(
        len(options.priors), figsize=(8, 0.62 * len(options.priors)), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes.flat, options.priors):
        x = genprior.load_prior(name).sized(28, 28).sample(options.n, seed=options.seed)
        axis.imshow(images.grid(x.clamp(0, 1), columns=options.n)[0], cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(Path(name).name, rotation=0, ha="right", va="center")
        axis.set_xticks([]), axis.set_yticks([])
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()

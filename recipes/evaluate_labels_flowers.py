"""What the label is worth: flowers with much missing, restored without their label, with it, and with guidance.

    python recipes/evaluate_labels_flowers.py --data flowers_64.npz --prior ddpm-flowers --out labels-flowers

`flowers_64.npz` holds `test_images`, `test_labels` and `classes`; the first images of each class are measured. PSNR of
the mean of the draws, in dB, over the images of all classes, with standard errors. What is done is kept in OUT.
"""

import argparse
from pathlib import Path

import numpy as np

import genprior
from genprior.devices import alone
from genprior.table import Estimate, Table
from genprior.training.data import Arrays, read_names

NOISE = 0.025
TASKS = {
    "24 x 24 box": ("inpaint", {"mask": "box", "size": 24}),
    "40 x 40 box": ("inpaint", {"mask": "box", "size": 40}),
    "92 % missing": ("inpaint", {"mask": "random", "fraction": 0.92}),
    "super-resolution x8": ("super-resolution", {"scale": 8}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with test_images, test_labels and classes")
    parser.add_argument("--prior", default="ddpm-flowers")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--each", type=int, default=12, help="images of each class")
    parser.add_argument("--n", type=int, default=16, help="samples of each image")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("labels-flowers"))
    options = parser.parse_args()
    alone("evaluate_labels_flowers")

    test = Arrays(options.data, "test_images", "test_labels", seed=None)
    prior, rows = genprior.load_prior(options.prior), []
    for task in options.tasks:
        op, parameters = TASKS[task]
        found: dict[str, dict[str, list[float]]] = {}
        for k, name in enumerate(read_names(options.data, "classes")):
            of_class = np.flatnonzero(test.labels == k)[: options.each]
            x = [test[int(number)]["x"] for number in of_class]
            priors = {
                "no label": prior,
                "label": prior.given(name),
                f"guidance {options.guidance:g}": prior.given(name, options.guidance),
            }
            for way, given in priors.items():
                out = options.out / f"{task} {name} {way}".replace(" ", "-")
                evaluation = genprior.evaluate(
                    x, op, given, n=options.n, noise=NOISE, out=out, progress=False, seed=k, **parameters
                )
                for row in evaluation.images.rows:
                    for key in ("psnr_mean", "psnr_holes_mean", "coverage"):
                        if row.get(key) is not None:
                            found.setdefault(way, {}).setdefault(key, []).append(row[key])
        for way, figures in found.items():
            gain = np.subtract(figures["psnr_mean"], found["no label"]["psnr_mean"])
            means = {key: Estimate.mean(values) for key, values in figures.items()}
            rows.append({"task": task, "given": way, **means, "gain, dB": Estimate.mean(gain)})
        print(Table(rows[-len(found) :]).markdown(), flush=True)
    (options.out / "table.md").write_text(Table(rows).markdown())


if __name__ == "__main__":
    main()

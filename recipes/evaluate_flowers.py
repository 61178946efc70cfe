"""The same measurements of the same flowers, restored with every family and by classical methods: a table, figures.

    python recipes/evaluate_flowers.py --data flowers_64.npz --out families-flowers

Some `test_images` of each class, uint8 (N, 64, 64, 3), are measured; "auto" picks the samplers. Markov chains get fewer
images and samples. TV and Wiener are tuned on the truth. What is done is kept in OUT: call again to go on. `table.md`
and `table.csv` have a line per task and method, each task a sheet of four flowers.
"""

import argparse
import re
from pathlib import Path

from torch.nn.functional import interpolate

import genprior
from genprior import images
from genprior.benchmark.contact import sheet
from genprior.benchmark.evaluate import image_seed
from genprior.benchmark.items import stem
from genprior.benchmark.summary import columns
from genprior.devices import alone
from genprior.samplers import find_sampler
from genprior.samplers.latents.fisher_hmc import FisherHMC
from genprior.table import Table
from genprior.training.data import Arrays, evenly

NOISE = 0.025
TASKS = {
    "24 x 24 box": ("inpaint", {"mask": "box", "size": 24}, ["tv-oracle", "biharmonic"]),
    "92 % missing": ("inpaint", {"mask": "random", "fraction": 0.92}, ["tv-oracle", "biharmonic"]),
    "70 % missing": ("inpaint", {"mask": "random", "fraction": 0.7}, ["tv-oracle", "biharmonic"]),
    "super-resolution x4": ("super-resolution", {"scale": 4}, ["tv-oracle", "bicubic"]),
    "super-resolution x8": ("super-resolution", {"scale": 8}, ["tv-oracle", "bicubic"]),
    "Gaussian blur, width 1.5": ("gaussian-deblur", {"width": 1.5}, ["tv-oracle", "wiener-oracle"]),
    "motion blur, length 9": ("motion-deblur", {"length": 9, "angle": 30}, ["tv-oracle", "wiener-oracle"]),
    "colourisation": ("colorize", {}, ["tv-oracle"]),
}
PRIORS = [f"{family}-flowers" for family in ("ddpm", "nf", "vae", "gan", "ldm", "gaussian")] + ["ddpm-photo"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with test_images")
    parser.add_argument("--priors", nargs="+", default=PRIORS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--images", type=int, nargs=2, default=[64, 16], help="how many; how many for Markov chains")
    parser.add_argument("--n", type=int, nargs=2, default=[16, 4], help="samples of each; and of Markov chains")
    parser.add_argument("--chain-steps", type=int, help="of Markov chains (default: the sampler's own)")
    parser.add_argument("--out", type=Path, default=Path("families-flowers"))
    options = parser.parse_args()
    alone("evaluate_flowers")
    x, rows = evenly(Arrays(options.data, "test_images", seed=None), max(options.images)), []
    for task in options.tasks:
        op, parameters, baselines = TASKS[task]
        few = x[:4]
        y = [genprior.degrade(one, op, noise=NOISE, seed=image_seed(0, k), **parameters).y for k, one in enumerate(few)]
        shown = {"truth": list(few), task: [interpolate(one.expand(-1, 3, -1, -1), x.shape[2:])[0] for one in y]}
        for name in options.priors:
            out = options.out / re.sub(r"\W+", "-", f"{task} {name}")
            chain = isinstance(find_sampler("auto", genprior.load_prior(name)), FisherHMC)
            given = {"limit": options.images[chain], "n": options.n[chain], "noise": NOISE, "out": out, **parameters}
            given |= {"steps": options.chain_steps} if chain else {"baselines": baselines}
            baselines = baselines if chain else []
            found = genprior.evaluate(x, op, name, progress=False, **given).table.rows
            for k, row in enumerate(found):
                measured = (column for column in columns(given["n"]).values() if "LPIPS" not in column)
                figures = {key: row.get(key) for key in ("method", "images", *measured, "note")}
                rows.append({"task": task, "prior": "classical" if k else name, **figures})
            files = [out / "items" / f"{stem(k, found[0]['method'])}-sample.png" for k in range(len(y))]
            shown[name] = [images.read(file).x[0] if file.exists() else None for file in files]
            print(Table(rows[-len(found) :]).markdown(), flush=True)
        sheet(shown).save(options.out / f"{task.replace(' ', '-')}.png")

    for suffix, text in ((".md", Table(rows).markdown()), (".csv", Table(rows).csv())):
        (options.out / f"table{suffix}").write_text(text)


if __name__ == "__main__":
    main()

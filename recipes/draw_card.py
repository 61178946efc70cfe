"""Draw the picture of a prior's card (draws, and a restoration for each of five tasks) and measure its calibration.

    python recipes/draw_card.py ddpm-mnist gan-mnist --data mnist.npz

Writes card.jpg, and "calibration" into card.json: the share of true values in central intervals of the draws, ± its
standard error over images, and the variance of draws over the squared error of their mean. Photographs: scikit-image.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from demo import photograph
from draw_front import pictures
from PIL import Image

import genprior
from genprior.benchmark.contact import sheet
from genprior.devices import alone
from genprior.files import write_text
from genprior.priors import supports
from genprior.priors.card import PICTURE, save_picture
from genprior.priors.folder import read_card, read_config
from genprior.priors.store import find_prior
from genprior.scores.uncertainty import coverage, widest
from genprior.table import Estimate
from genprior.training.data import Arrays, evenly

TASKS = (
    ("chelsea", "inpaint", {"mask": "random", "fraction": 0.7}),
    ("astronaut", "inpaint", {"mask": "stroke", "fraction": 0.3}),
    ("coffee", "super-resolution", {"scale": 4}),
    ("rocket", "gaussian-deblur", {"width": 1.5}),
    ("chelsea", "motion-deblur", {"length": 9, "angle": 30}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("priors", nargs="+", help="names of bundled priors, or folders")
    parser.add_argument("--data", type=Path, help=".npz with test_images, for priors of one size of images")
    parser.add_argument("--side", type=int, default=96, help="of photographs, in pixels")
    parser.add_argument("--draws", type=int, default=19, help="of each image; 90 %% intervals take 19")
    options = parser.parse_args()
    alone("draw_card")
    for folder in map(find_prior, options.priors):
        prior = genprior.load_prior(folder)
        truths = [photograph(name, options.side)[None] for name, *_ in TASKS]
        if None not in read_config(folder)["image_shape"]:
            truths = evenly(Arrays(options.data, "test_images", seed=None), 2 * len(TASKS)).split(2)
        draws = options.draws if supports(prior, "sample") else 1  # an energy alone gives one picture
        columns, held, variance, error = {}, {k: [] for k in (0.5, 0.9) if k <= widest(draws)}, 0.0, 0.0
        for x, (_, op, parameters) in zip(truths, TASKS):
            y = genprior.degrade(x, op, noise=0.025, seed=0, **parameters)
            result, truth = genprior.restore(y, prior=prior, n=draws, seed=0), y.operator.frame(x)
            samples = result.samples.reshape(len(x), draws, *truth.shape[1:])
            for column, picture in pictures(result, samples[0], truth[0], shown=3).items():
                columns.setdefault(column, []).append(picture)
            for level, shares in held.items():
                shares.append(coverage(samples, truth, level))
            variance += (1 + 1 / draws) * float(samples.var(1, correction=min(1, draws - 1)).mean())
            error += float((samples.mean(1) - truth).square().mean())
        shares = {f"in {level:.0%} intervals": f"{Estimate.mean(100 * torch.cat(s))} %" for level, s in held.items()}
        shares["variance over squared error"] = f"{variance / error:.2f}"
        shares["of"] = f"{sum(map(len, truths))} images, {draws} draws each by {type(result.sampler).__name__}"
        card = read_card(folder) | {"calibration": shares if draws > 1 else "none: one picture, without draws"}
        write_text(folder / "card.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")
        pages = [sheet(columns)]
        if supports(prior, "sample"):
            chain = {"steps": 100} if isinstance(prior, genprior.DDPM) or supports(prior, "render") else {}
            x = prior.sized(*truths[0].shape[-2:]).sample(len(columns), seed=0, **chain)
            pages.insert(0, sheet({f"from p(x), {k}": [draw] for k, draw in enumerate(x, 1)}))
        save_picture(Image.fromarray(np.vstack(pages)), folder)
        print(f"{folder / PICTURE}: {shares}", flush=True)


if __name__ == "__main__":
    main()

"""What adversarial training does to a flow: bits per value against the quality of samples, and a strip of samples.

    python recipes/flow_gan_table.py --data mnist.npz --runs runs/flow-gan-mnist --out flow-gan.png

RUNS holds the runs of `recipes/train_flow_gan_mnist.py`, named as there. All figures use every other one of the last
5,000 training digits, which neither the flows nor the classifier have seen: their bits per value, dequantised, with the
standard error, and the comparison of as many samples with them, in the features of the classifier that
`recipes/evaluate_gan_mnist.py` trains and keeps. The row "digits" has the other half in place of samples: as good as a
prior can be.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file
from torch import Tensor

from genprior import images
from genprior.bits import bits_per_dim, dequantize
from genprior.devices import alone
from genprior.nets.classifier import Classifier, classify
from genprior.noise import Noise
from genprior.priors.flow import Flow
from genprior.priors.folder import read_prior
from genprior.scores.manifold import classifier_score, density_coverage, precision_recall
from genprior.training.data import Arrays, first

TRAININGS = ("likelihood", "hybrid", "adversarial")
CHUNK = 250  # images at once


@torch.no_grad()
def bits(prior: Flow, x: Tensor) -> str:
    """Return bits per value in float64, since a flow that was trained adversarially may be nearly singular."""
    u = dequantize(x.double(), Noise(0, torch.arange(len(x))))
    each = bits_per_dim(torch.cat([prior.double().log_prob(part) for part in u.split(CHUNK)]), x[0].numel())
    return f"{each.mean():.4g} ± {each.std() * len(x) ** -0.5:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--runs", type=Path, default=Path("runs/flow-gan-mnist"), help="folder of the three runs")
    parser.add_argument("--classifier", default="runs/classifier-mnist.safetensors", help="where it is kept")
    parser.add_argument("--n", type=int, default=2500, help="samples of each, at most 2500")
    parser.add_argument("--out", type=Path, default=Path("flow-gan.png"))
    options = parser.parse_args()
    alone("flow_gan_table")
    classifier = Classifier().requires_grad_(False)
    classifier.load_state_dict(load_file(options.classifier))
    x = first(Arrays(options.data, "train_images", keep=slice(55000, 60000), seed=None), 2 * options.n)
    real, _ = classify(classifier, x[::2])

    print("| training | bits/dim | classifier score | precision, k = 3 | recall | density, k = 5 | coverage |")
    print("|---|---|---|---|---|---|---|")
    strip = []
    for name in (*TRAININGS, "digits"):
        if name == "digits":
            drawn, cell = x[1::2], "–"
        else:
            prior = read_prior(options.runs / name / "prior")
            drawn, cell = prior.sample(options.n), bits(prior, x[::2])
            strip.append(drawn[:16])
        fake, _ = classify(classifier, drawn)
        score = classifier_score(classifier.tail(fake))
        figures = (score, *precision_recall(real, fake), *density_coverage(real, fake))
        print(f"| {name} | {cell} | {' | '.join(f'{figure:.3f}' for figure in figures)} |", flush=True)

    sheet = images.grid(torch.cat(strip), columns=len(strip[0]))[0].numpy()
    figure, axes = plt.subplots(figsize=(8, 1.6))
    axes.imshow(sheet, cmap="gray")
    axes.set_yticks([(k + 0.5) * len(sheet) / len(strip) for k in range(len(strip))], TRAININGS)
    axes.set_xticks([])
    figure.savefig(options.out, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()

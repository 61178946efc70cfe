"""Are drawn flowers as real ones, are they all of them, and are they new? Shares of classes, precision, recall, copies.

    python recipes/evaluate_draws_flowers.py --data flowers_64.npz --classifier runs/classifier-flowers.safetensors

Draws, those of autoencoders without their grain, are compared with test images in the features of the classifier (see
`train_classifier_flowers.py`). Classes count where it is surer than 0.5. "Copies" are draws nearer to a training image
than 95 % of test images are: by chance 5 %. "held out" are training images that neither prior nor classifier saw. In
OUT: rows of draws, each above the training images nearest to them.
"""

import argparse
import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from genprior import images
from genprior.devices import alone
from genprior.nets.classifier import PhotoClassifier, classify
from genprior.noise import Noise
from genprior.priors.base import supports
from genprior.priors.ddpm import DDPM
from genprior.priors.store import load_prior
from genprior.scores.manifold import density_coverage, nearest, precision_recall
from genprior.training.data import Arrays, first, open_parts, read_names

JUDGED = ["ddpm-flowers", "ddpm-flowers by class", "gan-flowers", "vae-flowers"]


def drawn(name: str, n: int, steps: int, size: tuple[int, int]) -> torch.Tensor:
    """Draws, in [0, 1]; of autoencoders means of p(x | z), which have no grain. "NAME by class": as many of each."""
    prior = load_prior(name.removesuffix(" by class")).sized(*size)
    if name.endswith(" by class"):
        of_each = [prior.sample(n // prior.classes, seed=k, label=k, steps=steps) for k in range(prior.classes)]
        x = torch.stack(of_each, 1).flatten(0, 1)  # in turn, so that the first of them are of all kinds
    elif supports(prior, "render"):
        x = prior.render(prior.latents.sample(n, steps=steps))
    elif supports(prior, "infer"):
        x = prior.decode(Noise(0, torch.arange(n))(torch.empty(n, *prior.latent_shape)))
    else:
        x = prior.sample(n, **({"steps": steps} if isinstance(prior, DDPM) else {}))
    return x.detach().clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images, test_images and classes")
    parser.add_argument("--classifier", required=True, help="its file")
    parser.add_argument("--priors", nargs="+", default=JUDGED)
    parser.add_argument("--validation-share", type=float, default=0.05, help="of the training images, held out")
    parser.add_argument("--n", type=int, default=1000, help="draws of each")
    parser.add_argument("--chain", type=int, default=100, help="steps of a diffusion's chain")
    parser.add_argument("--out", type=Path, default=Path("draws-flowers"))
    options = parser.parse_args()
    alone("evaluate_draws_flowers")
    train, held_out = (first(part, len(part)) for part in open_parts(options.data, options.validation_share))
    train = torch.cat([train, train.flip(-1)])
    test = Arrays(options.data, "test_images", seed=None)
    classes = read_names(options.data, "classes")
    (classifier := PhotoClassifier(classes=len(classes))).load_state_dict(load_file(options.classifier))
    real, known = (classify(classifier, x)[0] for x in (first(test, len(test)), train))
    usual = nearest(real, known)[0].quantile(0.05)
    columns = ["precision, k = 3", "recall", "density, k = 5", "coverage", "copies"]
    print(f"| images | % {', '.join([*classes, 'unsure'])} | {' | '.join(columns)} |\n{'|---' * 7}|")
    for name in [*options.priors, "held out"]:
        x = held_out if name == "held out" else drawn(name, options.n, options.chain, train.shape[2:])
        fake, labels = classify(classifier, x)
        labels[classifier.tail(fake).softmax(1).amax(1) <= 0.5] = len(classes)
        shares = torch.bincount(labels, minlength=len(classes) + 1) / len(x)
        distance, index = nearest(fake, known)
        cells = [name, " ".join(f"{100 * share:.1f}" for share in shares.tolist())]
        cells += [f"{figure:.3f}" for figure in (*precision_recall(real, fake), *density_coverage(real, fake))]
        print(f"| {' | '.join(cells)} | {100 * float((distance < usual).double().mean()):.1f} % |", flush=True)
        rows = [part for pair in zip(x[:32].split(8), train[index[:32]].split(8)) for part in pair]
        images.save(images.grid(torch.cat(rows), columns=8), options.out / f"{re.sub('[/ ]', '-', name)}.png")


if __name__ == "__main__":
    main()

"""Has a prior of digits lost a mode? Shares of the ten classes, classifier score, precision, recall, and the like.

    python recipes/evaluate_gan_mnist.py --data mnist.npz --prior gan-mnist

`mnist.npz` holds `train_images`, `train_labels`, `test_images` and `test_labels`. Samples of the prior are compared
with test digits in the features of a classifier, trained first (on the first 55,000 training digits, in a minute or
two on one core) and kept in the file CLASSIFIER. The row "data" has the last training digits, which neither the
classifier nor the prior has seen: as good as a prior can be.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from genprior.devices import alone
from genprior.nets.classifier import Classifier, classify
from genprior.priors.store import load_prior
from genprior.scores.manifold import class_shares, classifier_score, density_coverage, precision_recall
from genprior.training.classification import train_classifier
from genprior.training.data import Arrays, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with training and test digits")
    parser.add_argument("--prior", default="gan-mnist", help="name or folder of a prior that has sample")
    parser.add_argument("--n", type=int, default=5000, help="digits of each set, at most 5000")
    parser.add_argument("--classifier", default="runs/classifier-mnist.safetensors", help="where it is kept")
    parser.add_argument("--steps", type=int, default=1100, help="of the classifier's training")
    parser.add_argument("--chain", type=int, help="steps of a diffusion's chain; all of them if not given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    alone("evaluate_gan_mnist")

    torch.manual_seed(options.seed)
    classifier, file = Classifier(), Path(options.classifier)
    if file.exists():
        classifier.load_state_dict(load_file(file))
    else:
        seen = Arrays(options.data, "train_images", "train_labels", keep=slice(0, 55000), seed=options.seed)
        train_classifier(classifier, seen, options.steps)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(classifier.state_dict(), file)

    def digits(part: str, keep: slice) -> tuple[torch.Tensor, torch.Tensor]:
        data = Arrays(options.data, f"{part}_images", f"{part}_labels", keep=keep, seed=None)
        return first(data, options.n), torch.from_numpy(data.labels[: options.n])

    # Every other test digit: the first half of the file is known to be easier than the second.
    x, label = digits("test", slice(0, 10000, 2))
    real, found = classify(classifier, x)
    right = float((found == label).double().mean())
    print(f"The classifier is right about {100 * right:.2f} % of {len(x)} test digits.")
    print("| images | share of each class, % | score | precision, k = 3 | recall | density, k = 5 | coverage |")
    print("|---|---|---|---|---|---|---|")
    unseen = digits("train", slice(-options.n, None))[0]
    prior, chain = load_prior(options.prior).sized(28, 28), {"steps": options.chain} if options.chain else {}
    for name, x in ((options.prior, prior.sample(options.n, seed=options.seed, **chain)), ("data", unseen)):
        fake, labels = classify(classifier, x)
        shares = " ".join(f"{100 * share:.1f}" for share in class_shares(labels, 10).tolist())
        score = classifier_score(classifier.tail(fake).detach())
        figures = (score, *precision_recall(real, fake), *density_coverage(real, fake))
        print(f"| {name} | {shares} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")


if __name__ == "__main__":
    main()

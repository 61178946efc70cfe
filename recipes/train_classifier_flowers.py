"""Train the classifier of flowers whose features judge what priors draw, and say how often it is right.

    python recipes/train_classifier_flowers.py --data flowers_64.npz --out runs/classifier-flowers.safetensors

`flowers_64.npz` holds `train_images`, `train_labels`, `test_images`, `test_labels` and `classes`. The images that
priors hold out are held out here too. `recipes/evaluate_draws_flowers.py` takes the result.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from genprior.devices import alone
from genprior.nets.classifier import PhotoClassifier, classify
from genprior.training.augmentation import shifted
from genprior.training.classification import train_classifier
from genprior.training.data import Arrays, first, open_parts, read_names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with training and test images and labels")
    parser.add_argument("--validation-share", type=float, default=0.05, help="of the training images, held out")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=Path("runs/classifier-flowers.safetensors"))
    options = parser.parse_args()
    alone("train_classifier_flowers")

    data, held_out = open_parts(options.data, options.validation_share, labels="train_labels", orientations=2)
    test = Arrays(options.data, "test_images", "test_labels", seed=None)
    torch.manual_seed(0)
    classifier = PhotoClassifier(classes=len(read_names(options.data, "classes")))
    train_classifier(classifier, data, options.steps, batch=64, weight_decay=0.05, augment=shifted)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(classifier.state_dict(), options.out)

    for name, part in (("held-out", held_out), ("test", test)):
        right = np.mean(classify(classifier, first(part, len(part)))[1].numpy() == part.labels)
        print(f"Right about {100 * right:.1f} % of {len(part)} {name} images.")


if __name__ == "__main__":
    main()

"""A small classifier of small images, whose last hidden layer serves as features for judging generated ones.

Shapes: B batch, C channels, H x W pixels (multiples of 4).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(nn.Module):
    """Map x (B, C, H, W), in units where images lie in [0, 1], to logits (B, classes); no row depends on another.

    Arguments:
        image_shape: (C, H, W), H and W multiples of 4.
        classes: number of labels.
        width: number of features.
    """

    def __init__(self, image_shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, width: int = 64):
        super().__init__()
        channels, height, across = image_shape
        self.convs = nn.Sequential(
            nn.Conv2d(channels, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.hidden = nn.Linear(64 * (height // 4) * (across // 4), width)
        self.tail = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, at least 0, (B, width)."""
        return F.relu(self.hidden(self.convs(2 * x - 1).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.features(x))


@torch.no_grad()
def classify(classifier: Classifier, x: Tensor, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """Features (n, width) and the most probable labels (n,) of images (n, C, H, W), some at a time."""
    features = torch.cat([classifier.features(part) for part in x.split(chunk)])
    return features, classifier.tail(features).argmax(1)

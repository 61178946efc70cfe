"""Small classifiers of digits and photographs, whose last hidden layer gives features to judge generated images.

Shapes: B batch, C channels, H x W pixels.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genprior.checks import Shape
from genprior.nets.vae import Block


class Classifier(nn.Module):
    """Map x (B, C, H, W), in units where images lie in [0, 1], to logits (B, classes); no row depends on another.

    Arguments:
        image_shape: (C, H, W), H and W multiples of 4.
        classes: number of labels.
        width: number of features.
    """

    def __init__(self, image_shape: Shape = (1, 28, 28), classes: int = 10, width: int = 64):
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
        """Return the inputs of the last layer, at least 0, (B, width)."""
        return F.relu(self.hidden(self.convs(2 * x - 1).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.features(x))


class PhotoClassifier(nn.Module):
    """A classifier of photographs: residual convolutions, whose mean over all positions gives the features.

    So content counts and position does not, and a few thousand images are enough.

    Arguments:
        channels: C; H and W are multiples of 2 ** len(widths).
        classes: number of labels.
        widths: channels of each level, finest first; the finest has half the resolution of the image, and each further
            level half of that. The last is the number of features.
    """

    def __init__(self, channels: int = 3, classes: int = 5, widths: tuple[int, ...] = (32, 64, 96, 128)):
        super().__init__()
        layers = [nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, widths[0], 3, padding=1), Block(widths[0])]
        for fine, coarse in pairwise(widths):
            layers += [nn.Conv2d(fine, coarse, 2, stride=2), Block(coarse)]
        self.convs = nn.Sequential(*layers, nn.SiLU())
        self.tail = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the inputs of the last layer, (B, widths[-1])."""
        return self.convs(2 * x - 1).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.features(x))


@torch.no_grad()
def classify(classifier: Classifier | PhotoClassifier, x: Tensor, chunk: int = 500) -> tuple[Tensor, Tensor]:
    """Return features (n, width) and the most probable labels (n,) of images (n, C, H, W), a chunk at a time."""
    features = torch.cat([classifier.features(part) for part in x.split(chunk)])
    return features, classifier.tail(features).argmax(1)

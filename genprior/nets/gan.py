"""The two networks of an adversarial prior: from a latent to an image, and from an image to one logit.

Shapes: B batch, C channels, H x W pixels, d latent values. Both networks work at L levels, from 1 / 2^L to 1 / 2 of the
image's resolution, by default 1 / 4 and 1 / 2; H and W are multiples of 2^L. Blocks of 2 x 2 pixels are folded into
channels. Neither network normalises over the batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genprior.checks import Shape
from genprior.nets.initial import zeroed

SLOPE = 0.2  # of the leaky ReLU below 0


class Block(nn.Module):
    """Residual block  h + W2 f(W1 f(h)),  f the leaky ReLU; the identity at initialisation."""

    def __init__(self, width: int):
        super().__init__()
        self.conv_in = _he(nn.Conv2d(width, width, 3, padding=1))
        self.conv_out = zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.conv_out(_leaky(self.conv_in(_leaky(h))))


class Generator(nn.Module):
    """Map z (B, d) to x (B, C, H, W) in (0, 1); no row depends on another.

    Arguments:
        image_shape: (C, H, W), H and W multiples of 2^L.
        latent: d.
        widths: channels of the L levels, coarsest first.
        blocks: residual blocks of each.
        hidden: width of the fully connected layer between z and the coarsest level.
    """

    def __init__(
        self,
        image_shape: Shape,
        latent: int = 64,
        widths: tuple[int, ...] = (96, 32),
        blocks: int = 1,
        hidden: int = 128,
    ):
        super().__init__()
        channels, height, width = image_shape
        cell = 2 ** len(widths)
        self.coarse_shape = (widths[0], height // cell, width // cell)
        self.spread_out = nn.Sequential(
            _he(nn.Linear(latent, hidden)), nn.LeakyReLU(SLOPE), _he(nn.Linear(hidden, math.prod(self.coarse_shape)))
        )
        self.levels = _levels(widths, blocks)
        self.tail = nn.Conv2d(widths[-1], 4 * channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.levels[0](self.spread_out(z).unflatten(1, self.coarse_shape))
        for grow, level in zip(self.levels[1::2], self.levels[2::2]):
            h = level(F.interpolate(grow(_leaky(h)), scale_factor=2, mode="nearest"))
        return F.pixel_shuffle(self.tail(_leaky(h)), 2).sigmoid()


class Discriminator(nn.Module):
    """Map x (B, C, H, W), in units where images lie in [0, 1], to the logit of d(x), (B,).

    With `compare`, one channel holds the mean standard deviation over the batch (Karras et al., 2018), which reveals
    batches of generated images that are too alike. It couples the rows of a batch (those on one device and in one
    micro-batch), which is harmless here: a discriminator exists in training only, and no sampler calls it.

    Arguments:
        image_shape: (C, H, W), H and W multiples of 2^L.
        widths: channels of the L levels, finest first.
        blocks: residual blocks of each.
        hidden: width of the last fully connected layer.
        compare: whether to show the network how much the batch varies.
        classes: number of class labels, 0 for none. With classes, the logit of (x, label) adds the inner product of the
            last features with an embedding of the label (Miyato and Koyama), divided by sqrt(hidden).

    References:
        cGANs with projection discriminator. T. Miyato, M. Koyama, 2018.
        Progressive growing of GANs for improved quality, stability, and variation. T. Karras, T. Aila, S. Laine,
        J. Lehtinen, 2018.
    """

    def __init__(
        self,
        image_shape: Shape,
        widths: tuple[int, ...] = (32, 96),
        blocks: int = 1,
        hidden: int = 128,
        compare: bool = True,
        classes: int = 0,
    ):
        super().__init__()
        channels, height, width = image_shape
        cell = 2 ** len(widths)
        self.compare = compare
        self.embed = nn.Embedding(classes, hidden) if classes else None
        self.head = _he(nn.Conv2d(4 * channels, widths[0], 3, padding=1))
        self.levels = _levels(widths, blocks)
        self.gather = _he(nn.Conv2d(widths[-1] + compare, widths[0], 3, padding=1))
        self.hidden = _he(nn.Linear(widths[0] * (height // cell) * (width // cell), hidden))
        self.tail = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.levels[0](self.head(F.pixel_unshuffle(2 * x - 1, 2)))
        for shrink, level in zip(self.levels[1::2], self.levels[2::2]):
            h = level(shrink(F.avg_pool2d(_leaky(h), 2)))
        if self.compare:
            h = torch.cat([h, variation(h).to(h.dtype).expand(len(h), 1, *h.shape[2:])], dim=1)
        h = _leaky(self.gather(_leaky(h))).flatten(1)
        h = _leaky(self.hidden(h))
        logit = self.tail(h).squeeze(1)
        if self.embed is None:
            return logit
        return logit + (self.embed(label) * h).sum(1) / math.sqrt(h.shape[1])


def variation(h: Tensor) -> Tensor:
    """The standard deviation of every value of h over the batch, averaged over the values: a single number."""
    return (h.float().var(0, correction=0) + 1e-8).sqrt().mean()


def _levels(widths: tuple[int, ...], blocks: int) -> nn.ModuleList:
    """Build the blocks of each level and, between neighbouring levels, the convolution from one to the next."""
    layers: list[nn.Module] = []
    for before, width in zip((None, *widths), widths):
        if before is not None:
            layers.append(_he(nn.Conv2d(before, width, 3, padding=1)))
        layers.append(nn.Sequential(*(Block(width) for _ in range(blocks))))
    return nn.ModuleList(layers)


def _leaky(h: Tensor) -> Tensor:
    return F.leaky_relu(h, SLOPE)


def _he(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Initialise weights with variance 2 / ((1 + SLOPE^2) inputs), which preserves the size of activations."""
    nn.init.kaiming_normal_(zeroed(layer).weight, a=SLOPE)
    return layer

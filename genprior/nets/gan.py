"""The two networks of an adversarial prior: from a latent to an image, and from an image to one logit.

Shapes: B batch, C channels, H x W pixels (multiples of 4), d latent values. Both networks compute on two levels, a
quarter and half of the image's resolution; blocks of 2 x 2 pixels are folded into channels. Neither normalises over the
batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of the leaky ReLU below 0


class Block(nn.Module):
    """Residual block  h + W2 f(W1 f(h)),  f the leaky ReLU; the identity at initialisation."""

    def __init__(self, width: int):
        super().__init__()
        self.conv_in = _he(nn.Conv2d(width, width, 3, padding=1))
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.conv_out(_leaky(self.conv_in(_leaky(h))))


class Generator(nn.Module):
    """Map z (B, d) to x (B, C, H, W) in (0, 1); each row by itself.

    Arguments:
        image_shape: (C, H, W), H and W multiples of 4.
        latent: d.
        widths: channels at a quarter and at half of the resolution.
        blocks: residual blocks of each.
        hidden: width of the fully connected layer between z and the coarse level.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent: int = 64,
        widths: tuple[int, int] = (96, 32),
        blocks: int = 1,
        hidden: int = 128,
    ):
        super().__init__()
        channels, height, width = image_shape
        coarse, fine = widths
        self.coarse_shape = (coarse, height // 4, width // 4)
        self.spread_out = nn.Sequential(
            _he(nn.Linear(latent, hidden)), nn.LeakyReLU(SLOPE), _he(nn.Linear(hidden, math.prod(self.coarse_shape)))
        )
        self.coarse = nn.Sequential(*(Block(coarse) for _ in range(blocks)))
        self.grow = _he(nn.Conv2d(coarse, fine, 3, padding=1))
        self.fine = nn.Sequential(*(Block(fine) for _ in range(blocks)))
        self.tail = nn.Conv2d(fine, 4 * channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.coarse(self.spread_out(z).unflatten(1, self.coarse_shape))
        h = self.fine(F.interpolate(self.grow(_leaky(h)), scale_factor=2, mode="nearest"))
        return F.pixel_shuffle(self.tail(_leaky(h)), 2).sigmoid()


class Discriminator(nn.Module):
    """Map x (B, C, H, W), in units where images lie in [0, 1], to the logit of d(x), (B,).

    With `compare`, one channel holds the mean standard deviation over the batch (Karras et al., 2018): a batch of
    generated images that are too alike is then seen as such. It couples the rows of a batch (those on one device and in
    one micro-batch), harmless in a discriminator: it exists in training only, and no sampler calls it.

    Arguments:
        image_shape: (C, H, W), H and W multiples of 4.
        widths: channels at half and at a quarter of the resolution.
        blocks: residual blocks of each.
        hidden: width of the last fully connected layer.
        compare: whether to show the network how much the batch varies.
        classes: number of class labels, 0 for none: the logit of (x, label) has the inner product of the last features
            with an embedding of the label besides (Miyato and Koyama).

    References:
        cGANs with projection discriminator. T. Miyato, M. Koyama, 2018.
        Progressive growing of GANs for improved quality, stability, and variation. T. Karras, T. Aila, S. Laine,
        J. Lehtinen, 2018.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        widths: tuple[int, int] = (32, 96),
        blocks: int = 1,
        hidden: int = 128,
        compare: bool = True,
        classes: int = 0,
    ):
        super().__init__()
        channels, height, width = image_shape
        fine, coarse = widths
        self.compare = compare
        self.embed = nn.Embedding(classes, hidden) if classes else None
        self.head = _he(nn.Conv2d(4 * channels, fine, 3, padding=1))
        self.fine = nn.Sequential(*(Block(fine) for _ in range(blocks)))
        self.shrink = _he(nn.Conv2d(fine, coarse, 3, padding=1))
        self.coarse = nn.Sequential(*(Block(coarse) for _ in range(blocks)))
        self.gather = _he(nn.Conv2d(coarse + compare, fine, 3, padding=1))
        self.hidden = _he(nn.Linear(fine * (height // 4) * (width // 4), hidden))
        self.tail = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.fine(self.head(F.pixel_unshuffle(2 * x - 1, 2)))
        h = self.coarse(self.shrink(F.avg_pool2d(_leaky(h), 2)))
        if self.compare:
            h = torch.cat([h, variation(h).to(h.dtype).expand(len(h), 1, *h.shape[2:])], dim=1)
        h = _leaky(self.gather(_leaky(h))).flatten(1)
        h = _leaky(self.hidden(h))
        logit = self.tail(h).squeeze(1)
        if self.embed is None:
            return logit
        return logit + (self.embed(label) * h).sum(1) / math.sqrt(h.shape[1])


def variation(h: Tensor) -> Tensor:
    """The standard deviation over the batch of every value of h, averaged over the values: a single number."""
    return (h.float().var(0, correction=0) + 1e-8).sqrt().mean()


def _leaky(h: Tensor) -> Tensor:
    return F.leaky_relu(h, SLOPE)


def _he(layer: nn.Module) -> nn.Module:
    """Weights of the variance 2 / ((1 + SLOPE^2) inputs), which keeps the size of what passes through the layer."""
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)
    return layer

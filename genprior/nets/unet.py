"""A fully convolutional U-Net for images of any size, a continuous noise level and an optional class label.

Shapes: B batch, C channels, H x W pixels, E embedding width. Levels halve the resolution; skips are added, not
concatenated.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genprior.nets.initial import zeroed
from genprior.nets.padding import mirrored

EMBEDDING = 128  # E


class Block(nn.Module):
    """Residual block  h + W2 silu((1 + a) W1 h + b),  with (a, b) read from the embedding."""

    def __init__(self, width: int):
        super().__init__()
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.modulation = nn.Linear(EMBEDDING, 2 * width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        a, b = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        return h + self.conv_out(F.silu(torch.addcmul(b, self.conv_in(h), 1 + a)))


class UNet(nn.Module):
    """Map (x, level, label) to an image-shaped output; zero at initialisation.

    Arguments:
        channels: image channels C, of the output and of the input.
        features: additional channels of the input.
        widths: channels of each level, finest first; each level halves the resolution.
        blocks: residual blocks per level, on the way down and again on the way up.
        patch: side of the pixel blocks folded into channels at the input (1: none), which makes the finest level
            `patch` times coarser and the network correspondingly faster.
        classes: number of class labels; 0 for an unconditional network. Label `classes` is the null class.
    """

    frequencies: Tensor

    def __init__(
        self,
        channels: int = 3,
        widths: tuple[int, ...] = (64, 128, 256),
        blocks: int = 2,
        patch: int = 2,
        classes: int = 0,
        features: int = 0,
    ):
        super().__init__()
        self.multiple = patch * 2 ** (len(widths) - 1)
        # Each 3 x 3 convolution reaches one cell of its level further, and within a coarsest cell every pixel reaches
        # every other. Each level has 4 per block, 2 down and 2 up; the coarsest has 2; the finest adds head and tail.
        cells = [patch * 2**level for level in range(len(widths))]
        self.reach = 2 * patch + 4 * blocks * sum(cells[:-1]) + 2 * blocks * cells[-1] + self.multiple - 1
        self.patch = patch
        frequencies = torch.linspace(math.log(0.25), math.log(16.0), 16).exp()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed = nn.Sequential(nn.Linear(32, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU())
        self.label = nn.Embedding(classes + 1, 32) if classes else None
        self.head = nn.Conv2d((channels + features) * patch**2, widths[0], 3, padding=1)
        self.tail = zeroed(nn.Conv2d(widths[0], channels * patch**2, 3, padding=1))

        def level(width):
            return nn.ModuleList(Block(width) for _ in range(blocks))

        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(level(width) for width in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.middle = level(widths[-1])
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in reversed(pairs))
        self.up = nn.ModuleList(level(width) for width in reversed(widths[:-1]))

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """x (B, C + features, H, W), level (B,), a log noise level of order 1, label (B,) integers -> (B, C, H, W)."""
        angles = level[:, None] * self.frequencies
        features = torch.cat([angles.cos(), angles.sin()], dim=1)
        if self.label is not None:
            features = features + self.label(label)
        embedding = self.embed(features)

        height, width = x.shape[-2:]
        h = self.head(F.pixel_unshuffle(mirrored(x, self.multiple), self.patch))
        skips = []
        for blocks, shrink in zip(self.down, self.shrink):
            for block in blocks.children():
                h = block(h, embedding)
            skips.append(h)
            h = shrink(h)
        for block in self.middle:
            h = block(h, embedding)
        for blocks, grow in zip(self.up, self.grow):
            h = grow(h) + skips.pop()
            for block in blocks.children():
                h = block(h, embedding)
        return F.pixel_shuffle(self.tail(h), self.patch)[..., :height, :width]

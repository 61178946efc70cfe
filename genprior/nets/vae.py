"""Encoders and decoders of autoencoders: deterministic residual convolutions, without batch statistics.

An encoder gives two numbers per latent (a mean and a log standard deviation, stacked along the channels), a decoder an
image. The spatial pair is fully convolutional, for images of any size that is a multiple of the stride; the flat pair
is for images of one size. Images and latents should be of order 1.

Shapes: B batch, C channels, H x W pixels, d latents (of one cell, in the spatial pair), stride s = 2 ** len(widths).
"""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from genprior.nets.initial import zeroed

HIDDEN = 192  # width of the flat pair's layers that see the whole image
LOG_SD = -2.0  # of latents at initialisation: at sd 1 they would begin as noise, which decoders learn to ignore


class Block(nn.Module):
    """Residual block  h + W2 silu(W1 silu(h));  the identity at initialisation.

    Arguments:
        width: channels of h.
        dilation: of W1, for a large receptive field at little cost.
    """

    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.conv_in = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv_out = zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.conv_out(F.silu(self.conv_in(F.silu(h))))


class Dense(nn.Module):
    """`Block` for features without places, h + W2 silu(W1 silu(h)): a linear path beside a non-linear one."""

    def __init__(self, width: int):
        super().__init__()
        self.linear_in = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.linear_out(F.silu(self.linear_in(F.silu(h))))


def spatial_encoder(channels: int, latent: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.Sequential:
    """(B, C, H, W) -> (B, 2 d, H / s, W / s).

    Arguments:
        channels: C.
        latent: d.
        widths: channels of each level, finest first; the finest has half the resolution of the image, and each
            further level half of that.
        blocks: residual blocks of each level; block i of a level is dilated by 2 ** i.
    """
    return nn.Sequential(
        *_down(channels, widths, blocks), _informative(nn.Conv2d(widths[-1], 2 * latent, 3, padding=1))
    )


def spatial_decoder(channels: int, latent: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.Sequential:
    """(B, d, H / s, W / s) -> (B, C, H, W); the arguments are those of `spatial_encoder`."""
    return nn.Sequential(nn.Conv2d(latent, widths[-1], 3, padding=1), *_up(channels, widths, blocks))


def flat_encoder(
    channels: int,
    latent: int,
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    cells: tuple[int, int],
    skip: bool = True,
) -> nn.Sequential:
    """(B, C, s h, s w) -> (B, 2 d).

    Arguments:
        channels, latent, widths, blocks: see `spatial_encoder`.
        cells: (h, w), size of the coarsest level.
        skip: whether the layers that see the whole image have a linear path: see `genprior.priors.vae.VAE`.
    """
    *layers, head = _whole(widths[-1] * cells[0] * cells[1], 2 * latent, skip)
    activation = [] if skip else [nn.SiLU()]
    return nn.Sequential(*_down(channels, widths, blocks), *activation, nn.Flatten(), *layers, _informative(head))


def flat_decoder(
    channels: int,
    latent: int,
    widths: tuple[int, ...],
    blocks: tuple[int, ...],
    cells: tuple[int, int],
    skip: bool = True,
) -> nn.Sequential:
    """(B, d) -> (B, C, s h, s w); the arguments are those of `flat_encoder`."""
    layers = _whole(latent, widths[-1] * cells[0] * cells[1], skip)
    return nn.Sequential(*layers, nn.Unflatten(1, (widths[-1], *cells)), *_up(channels, widths, blocks))


def _whole(features: int, out: int, skip: bool) -> list[nn.Module]:
    """The layers that see the whole image.

    One linear map in their place gave no better a bound on digits, and by eye about half of 64 decoded draws from
    N(0, I) were not digits; with non-linear layers, about a quarter.
    """
    if skip:
        return [nn.Linear(features, HIDDEN), Dense(HIDDEN), nn.Linear(HIDDEN, out)]
    within = nn.Linear(HIDDEN, HIDDEN)
    return [nn.Linear(features, HIDDEN), nn.SiLU(), within, nn.SiLU(), nn.Linear(HIDDEN, out)]


def _down(channels: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> list[nn.Module]:
    layers = [nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, widths[0], 3, padding=1), *_level(widths[0], blocks[0])]
    for (fine, coarse), count in zip(pairwise(widths), blocks[1:]):
        layers += [nn.Conv2d(fine, coarse, 2, stride=2), *_level(coarse, count)]
    return layers


def _up(channels: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> list[nn.Module]:
    layers = [*_level(widths[-1], blocks[-1])]
    for (coarse, fine), count in zip(pairwise(reversed(widths)), reversed(blocks[:-1])):
        layers += [nn.ConvTranspose2d(coarse, fine, 2, stride=2), *_level(fine, count)]
    return [*layers, nn.SiLU(), nn.Conv2d(widths[0], 4 * channels, 3, padding=1), nn.PixelShuffle(2)]


def _level(width: int, blocks: int) -> list[Block]:
    return [Block(width, 2**i) for i in range(blocks)]


def _informative(head: nn.Module) -> nn.Module:
    """Make the second half of an encoder's outputs, log standard deviations, begin near LOG_SD; return the layer."""
    latent = len(head.bias) // 2  # pyright: ignore[reportArgumentType]
    nn.init.constant_(head.bias[latent:], LOG_SD)  # pyright: ignore[reportIndexIssue]
    return head

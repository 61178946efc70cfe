"""Augmentation for discriminators with little data: shifts, colour changes and cutout, on real and generated alike.

Without it, a discriminator memorises a few thousand images before the generator is any good. Real and generated images
undergo the same changes, so the generator still learns the distribution of the unchanged images.

Reference: S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han, Differentiable augmentation for data-efficient GAN training,
2020.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from genprior.noise import Noise

GREY = 0.5  # value of what enters the frame and of what is cut out
SHIFT = 1 / 8  # largest shift, as a fraction of the image's side
CUT = 1 / 2  # side of the box that is cut out, as a fraction of the image's side


def varied(x: Tensor, noise: Noise) -> Tensor:
    """Give every image (B, C, H, W) its own brightness, saturation, contrast, shift and hole; differentiable.

    Brightness is additive, uniform on ±1/2; saturation and contrast are factors, uniform on (0, 2) and (1/2, 3/2).
    """
    return cut_out(shifted(recoloured(x, noise), noise), noise)


def recoloured(x: Tensor, noise: Noise) -> Tensor:
    brightness, saturation, contrast = noise.uniform(x.new_empty(len(x), 3)).reshape(-1, 3, 1, 1, 1).unbind(1)
    x = x + brightness - 0.5
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (0.5 + contrast) * (x - mean)


def shifted(x: Tensor, noise: Noise) -> Tensor:
    """Shift by whole pixels, up to an eighth of each side."""
    height, width = x.shape[-2:]
    down, right = int(SHIFT * height), int(SHIFT * width)
    u = noise.uniform(x.new_empty(len(x), 2))
    rows = _whole(u[:, :1], 2 * down + 1) + torch.arange(height, device=x.device)
    columns = _whole(u[:, 1:], 2 * right + 1) + torch.arange(width, device=x.device)
    wide = F.pad(x, (right, right, down, down), value=GREY)
    each = torch.arange(len(x), device=x.device)[:, None, None]
    return rearrange(wide[each, :, rows[:, :, None], columns[:, None, :]], "b h w c -> b c h w")


def cut_out(x: Tensor, noise: Noise) -> Tensor:
    """Turn a box, half as long as each side and centred anywhere in the image, grey."""
    u = noise.uniform(x.new_empty(len(x), 2))
    rows, columns = _within(u[:, :1], x.shape[-2]), _within(u[:, 1:], x.shape[-1])
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], GREY, x)


def _within(u: Tensor, side: int) -> Tensor:
    """Return which positions along a side lie in the box, (B, side); u (B, 1) in (0, 1) gives its centre."""
    return (torch.arange(side, device=u.device) - _whole(u, side)).abs() < CUT * side / 2


def _whole(u: Tensor, n: int) -> Tensor:
    """Map uniform u in (0, 1) to a uniform integer 0 … n - 1."""
    return (u * n).long().clamp_max(n - 1)

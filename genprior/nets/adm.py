"""The U-Net of ADM, in the layout of the published checkpoints: its state dict has their names.

Shapes: B batch, C channels, H x W pixels, E embedding width. Levels halve the resolution; skips are concatenated.

References: P. Dhariwal, A. Nichol, Diffusion models beat GANs on image synthesis, 2021 (ADM). A. Nichol, P. Dhariwal,
Improved denoising diffusion probabilistic models, 2021 (its predecessor).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from genprior.nets.initial import zeroed
from genprior.registry import lookup

GROUPS = 32
# Channel layouts of queries, keys and values.
ORDERS = {"legacy": "b (heads part c) n -> part b heads n c", "new": "b (part heads c) n -> part b heads n c"}

Resample = Callable[[Tensor], Tensor]


def halved(h: Tensor) -> Tensor:
    return F.avg_pool2d(h, 2)


def doubled(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2, mode="nearest")


class Residual(nn.Module):
    """skip(r h) + W2 silu((1 + a) norm(W1 r silu(norm h)) + b), (a, b) from the embedding, r a change of resolution.

    Without `scale_shift`, W2 silu(norm(W1 r silu(norm h) + b)) takes the place of the second term.
    """

    def __init__(self, width: int, out: int, embedding: int, scale_shift: bool, resample: Resample | None = None):
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out if scale_shift else out))
        # the identity stands for dropout, which has a number in the weights' names but acts in training only
        last = zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.out_layers = nn.Sequential(nn.GroupNorm(GROUPS, out), nn.SiLU(), nn.Identity(), last)
        self.skip_connection = nn.Identity() if out == width else nn.Conv2d(width, out, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        norm_in, silu, conv_in = self.in_layers
        norm_out, *rest = self.out_layers
        inner = silu(norm_in(h))
        if self.resample is not None:
            h, inner = self.resample(h), self.resample(inner)
        inner = conv_in(inner)
        modulation = rearrange(self.emb_layers(embedding), "b c -> b c 1 1")
        if self.scale_shift:
            a, b = modulation.chunk(2, dim=1)
            inner = norm_out(inner) * (1 + a) + b
        else:
            inner = norm_out(inner + modulation)
        for layer in rest:
            inner = layer(inner)
        return self.skip_connection(h) + inner


class Attention(nn.Module):
    """h + W softmax(q kᵀ / sqrt(c)) v over all pixels, in heads of c channels."""

    def __init__(self, width: int, heads: int, order: str):
        super().__init__()
        self.heads, self.order = heads, lookup("order", order, ORDERS)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = zeroed(nn.Conv1d(width, width, 1))

    def forward(self, h: Tensor, _: Tensor) -> Tensor:
        height = h.shape[-2]
        pixels = rearrange(h, "b c h w -> b c (h w)")
        q, k, v = rearrange(self.qkv(self.norm(pixels)), self.order, part=3, heads=self.heads)
        seen = rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n c -> b (heads c) n")
        return rearrange(pixels + self.proj_out(seen), "b c (h w) -> b c h w", h=height)


class Down(nn.Module):
    """Halve the resolution by a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, h: Tensor, _: Tensor) -> Tensor:
        return self.op(h)


class Up(nn.Module):
    """Double the resolution, then convolve."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor, _: Tensor) -> Tensor:
        return self.conv(doubled(h))


class Layers(nn.Sequential):
    """Layers that receive the embedding, except for bare convolutions."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            h = layer(h) if isinstance(layer, nn.Conv2d) else layer(h, embedding)
        return h


class ADMUNet(nn.Module):
    """Map (x, t, label) to `outputs` channels; zero at initialisation.

    Arguments:
        channels: image channels C.
        outputs: C, or 2 C for a network that also learned variances.
        base: number of sinusoids that encode t; E is four times that.
        widths: channels of each level, finest first, multiples of 32.
        blocks: residual blocks of each level on the way down; one more on the way up.
        attention: the levels with attention after each block; the middle of the network always has one attention.
        head_channels, heads: of each attention, c or else the number of heads, the same everywhere; give one of them.
        order: "legacy", heads outermost among the channels of q, k and v, or "new", q, k and v outermost.
        scale_shift: see `Residual`.
        resample_blocks: whether residual blocks change the resolution; otherwise convolutions do.
        classes: number of class labels; 0 for none.

    Raises:
        ValueError: neither or both of head_channels and heads are given, or do not divide the channels.
    """

    def __init__(
        self,
        channels: int = 3,
        outputs: int = 6,
        base: int = 128,
        widths: tuple[int, ...] = (128, 128, 256, 256, 512, 512),
        blocks: int = 1,
        attention: tuple[int, ...] = (4,),
        *,
        head_channels: int | None = None,
        heads: int | None = None,
        order: str = "legacy",
        scale_shift: bool = True,
        resample_blocks: bool = True,
        classes: int = 0,
    ):
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.base, E = base, 4 * base
        self.time_embed = nn.Sequential(nn.Linear(base, E), nn.SiLU(), nn.Linear(E, E))
        self.label_emb = nn.Embedding(classes, E) if classes else None

        def residual(width: int, out: int, resample: Resample | None = None) -> Residual:
            return Residual(width, out, E, scale_shift, resample)

        def attended(width: int) -> Attention:
            return Attention(width, number_of_heads(width, head_channels, heads), order)

        width, skips = widths[0], [widths[0]]
        self.input_blocks = nn.ModuleList([Layers(nn.Conv2d(channels, width, 3, padding=1))])
        for level, out in enumerate(widths):
            for _ in range(blocks):
                self.input_blocks.append(Layers(residual(width, out), *[attended(out)] * (level in attention)))
                width = out
                skips.append(width)
            if level + 1 < len(widths):
                self.input_blocks.append(Layers(residual(width, width, halved) if resample_blocks else Down(width)))
                skips.append(width)

        self.middle_block = Layers(residual(width, width), attended(width), residual(width, width))

        self.output_blocks = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for k in range(blocks + 1):
                layers: list[nn.Module] = [residual(width + skips.pop(), out)]
                layers += [attended(out)] * (level in attention)
                width = out
                if level and k == blocks:
                    layers.append(residual(width, width, doubled) if resample_blocks else Up(width))
                self.output_blocks.append(Layers(*layers))

        last = zeroed(nn.Conv2d(width, outputs, 3, padding=1))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), last)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), H and W multiples of `multiple`, t (B,) in steps, label (B,) integers -> (B, outputs, H, W).

        t may lie between steps.
        """
        embedding = self.time_embed(sinusoids(t, self.base).to(x.dtype))
        if self.label_emb is not None:
            embedding = embedding + self.label_emb(label)
        h, skips = x, []
        for layers in self.input_blocks:
            h = layers(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for layers in self.output_blocks:
            h = layers(torch.cat([h, skips.pop()], dim=1), embedding)
        return self.out(h)


def number_of_heads(width: int, head_channels: int | None, heads: int | None) -> int:
    """Return the number of heads of an attention with `width` channels.

    Raises:
        ValueError: neither or both of head_channels and heads are given, or they do not divide the channels.
    """
    if (head_channels is None) == (heads is None):
        raise ValueError(f"head_channels is {head_channels!r} and heads {heads!r}: give one of them.")
    count: Any = width // head_channels if head_channels else heads
    if not count or width % count or (head_channels and width % head_channels):
        raise ValueError(
            f"An attention of {width} channels has no heads by head_channels {head_channels!r}, heads {heads!r}: give "
            "a number that divides its channels."
        )
    return count


def sinusoids(t: Tensor, count: int) -> Tensor:
    """cos and sin of t at count / 2 geometric frequencies, from 1 down to almost 1e-4: (B,) -> (B, count)."""
    half = count // 2
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t[:, None].float() * torch.exp(-math.log(10000) / half * k)
    return torch.cat([angles.cos(), angles.sin()], dim=1)

"""Invertible layers with cheap log-determinants, which make up a normalizing flow.

Every layer maps x (B, C, H, W) to z by `forward(x) -> (z, logdet)`, with logdet = ln |det dz / dx| of each image, (B,),
and back by `inverse(z) -> x`. Under an autocast only the ResNet of a coupling computes in lower precision; z and logdet
have the dtype of x.

References: L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017 (affine coupling, squeeze).
D. Kingma, P. Dhariwal, Glow: generative flow with invertible 1x1 convolutions, 2018 (actnorm, 1x1 convolution).
"""

import contextlib

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from genprior.nets.initial import zeroed


def full_precision(x: Tensor) -> contextlib.AbstractContextManager:
    """Return a context in which nothing is cast below the dtype of x, whatever autocast surrounds it."""
    return torch.autocast(x.device.type, enabled=False)


class Squeeze(nn.Module):
    """Blocks of `factor` x `factor` pixels become channels: (B, C, H, W) -> (B, C factor^2, H / factor, W / factor)."""

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p = self.factor
        return rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=p, q=p), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        p = self.factor
        return rearrange(z, "b (c p q) h w -> b c (h p) (w q)", p=p, q=p)


class ActNorm(nn.Module):
    """z = exp(log_scale) (x - shift), one scale and one shift per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Give every channel of z mean 0 and variance 1 on the images x."""
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        self.shift.copy_(mean[:, None, None])
        self.log_scale.copy_(-0.5 * variance.clamp_min(1e-12).log()[:, None, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logdet = x[0, 0].numel() * self.log_scale.sum()
        return self.log_scale.exp() * (x - self.shift), logdet.expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        return (-self.log_scale).exp() * z + self.shift


class Mixing(nn.Module):
    """z = W x at every pixel, an invertible 1x1 convolution; W is initialised to a random channel permutation."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels)[torch.randperm(channels)])

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """W <- W S^(-1/2), with S the second moments of the channels of the images x, which makes z white.

        Directions of the C channels in which N pixels show hardly any variance are not scaled up to unit variance: each
        eigenvalue counts as at least (C / N)^2 of their mean.
        """
        channels = rearrange(x, "b c h w -> c (b h w)").double()
        C, N = channels.shape
        l, V = torch.linalg.eigh(channels @ channels.T / N)
        least = torch.maximum(1e-8 * l[-1], (C / N) ** 2 * l.mean())
        whiten = V @ (torch.maximum(l, least).rsqrt()[:, None] * V.T)
        self.weight.copy_(self.weight.double() @ whiten)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            logdet = x[0, 0].numel() * torch.linalg.slogdet(self.weight).logabsdet
            return _at_every_pixel(self.weight, x), logdet.expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        with full_precision(z):
            return _at_every_pixel(torch.linalg.inv(self.weight), z)


def _at_every_pixel(weight: Tensor, x: Tensor) -> Tensor:
    if x.shape[2:] == (1, 1):  # convolving an image of one pixel is more overhead than work
        return F.linear(x.flatten(1), weight)[:, :, None, None]
    return F.conv2d(x, weight[:, :, None, None])


class Coupling(nn.Module):
    """Affine coupling: the first half of the channels is scaled and shifted by functions of the second.

        x1 = exp(s(x2)) z1 + m(x2),  z2 = x2,  logdet = -sum s,

    with m and s from one ResNet, and s = bound tanh(raw / bound), so no scale can vanish.

    Arguments:
        channels: C, at least 2; C // 2 of them are transformed.
        size: (H, W) of x.
        width, blocks: of the ResNet.
        bound: largest |s|.
    """

    def __init__(self, channels: int, size: tuple[int, int], width: int, blocks: int = 1, bound: float = 2.0):
        super().__init__()
        self.first = channels // 2
        self.bound = bound
        self.net = ResNet(channels - self.first, 2 * self.first, size, width, blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x1, x2 = x[:, : self.first], x[:, self.first :]
        m, s = self._shift_and_scale(x2)
        return torch.cat([(x1 - m) * (-s).exp(), x2], dim=1), -s.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        z1, x2 = z[:, : self.first], z[:, self.first :]
        m, s = self._shift_and_scale(x2)
        return torch.cat([s.exp() * z1 + m, x2], dim=1)

    def _shift_and_scale(self, x2: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.net(x2).to(x2.dtype).chunk(2, dim=1)
        return m, self.bound * (s / self.bound).tanh()


class PerClass(nn.Module):
    """z = exp(-log_scale_k) (u - shift_k) for vectors u, (B, D), with one shift and scale for each class k."""

    # Both move this many times faster than other parameters: an Adam step moves all parameters equally far, but classes
    # lie as far apart as u is wide, while weights of networks need to move much less.
    PACE = 10.0

    def __init__(self, classes: int, dimension: int):
        super().__init__()
        self.slow_shift = nn.Parameter(torch.zeros(classes, dimension))
        self.slow_log_scale = nn.Parameter(torch.zeros(classes, dimension))

    def forward(self, u: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._of(label)
        return (-log_scale).exp() * (u - shift), -log_scale.sum(1)

    def inverse(self, z: Tensor, label: Tensor) -> Tensor:
        shift, log_scale = self._of(label)
        return log_scale.exp() * z + shift

    def _of(self, label: Tensor) -> tuple[Tensor, Tensor]:
        return self.PACE * self.slow_shift[label], self.PACE * self.slow_log_scale[label]


class ResNet(nn.Module):
    """Convolution, residual blocks  h + W2 silu(W1 silu(h)),  convolution; zero at initialisation.

    Convolutions are 3 x 3; on images of one pixel they are linear maps. Since the size is known, the first bias is
    per pixel, which lets the network distinguish an image's border, black for digits, from its middle.

    Arguments:
        channels, out: channels of the input and of the output.
        size: (H, W).
        width, blocks: channels inside, and number of residual blocks.
    """

    def __init__(self, channels: int, out: int, size: tuple[int, int], width: int, blocks: int):
        super().__init__()
        self.flat = size == (1, 1)

        def layer(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
            if self.flat:
                return nn.Linear(inputs, outputs, bias)
            return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)

        self.head = layer(channels, width, bias=False)
        self.place = nn.Parameter(torch.zeros(width) if self.flat else torch.zeros(width, *size))
        self.blocks = nn.ModuleList(nn.ModuleList([layer(width, width), layer(width, width)]) for _ in range(blocks))
        self.tail = zeroed(layer(width, out))

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(x.flatten(1) if self.flat else x)
        h = h + self.place.to(h.dtype)
        for layer_in, layer_out in (block.children() for block in self.blocks):
            h = h + layer_out(F.silu(layer_in(F.silu(h))))
        h = self.tail(F.silu(h))
        return h[:, :, None, None] if self.flat else h

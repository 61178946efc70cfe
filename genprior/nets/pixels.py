"""Maps from pixels to the scale on which a flow works, value by value: u = f(x), with their log-determinants.

As in the layers of a flow, `forward(x) -> (u, logdet)` and `inverse(u) -> x`. `low` and `high` bound the domain of the
map; outside it u is nan, and the density of the flow is 0.
"""

import math

import torch
from torch import Tensor, nn

EDGE = 1e-5  # of the logit, in the units of x
MARGIN = 2**-10  # how far the first and last cells of `Ink` reach beyond [0, 1], in cells: exact in float32
BACK = 2.5  # standard deviations from the mean of black to the edge of ink
LEVELS = 256


class Linear(nn.Module):
    """u = 2 x - 1, for any x."""

    low, high = -math.inf, math.inf

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x - 1, x.new_full((len(x),), x[0].numel() * math.log(2))

    def inverse(self, u: Tensor) -> Tensor:
        return (u + 1) / 2


class Logit(nn.Module):
    """u = ln v - ln w with v = a + (1 - 2 a) x, w = 1 - v, a = 1e-5: the logit of x, except for an edge at 0 and 1."""

    low, high = -EDGE / (1 - 2 * EDGE), 1 + EDGE / (1 - 2 * EDGE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v = EDGE + (1 - 2 * EDGE) * x
        w = EDGE + (1 - 2 * EDGE) * (1 - x)
        logdet = math.log(1 - 2 * EDGE) - v.log() - w.log()
        return v.log() - w.log(), logdet.flatten(1).sum(1)

    def inverse(self, u: Tensor) -> Tensor:
        return _between(self.low, (u.sigmoid() - EDGE) / (1 - 2 * EDGE), self.high)


class Ink(nn.Module):
    """For 8-bit images with much exact black, such as digits: Gaussian noise for black, half a Gaussian for ink.

    With p_k the share of the value k in 8-bit images, spread evenly over its cell [k / 256, (k + 1) / 256), r(x) the
    share of values above x among those that are not black, Phi the normal distribution function, and c = 2.5:

        u = Phi^-1(Phi(c) 256 x) - c   < 0   where x < 1 / 256,
        u = -Phi^-1(r(x) / 2)         >= 0   elsewhere.

    Dequantised black, uniform on its cell, becomes a Gaussian without its tail beyond c standard deviations. An affine
    flow models a Gaussian at no cost; on the scale of `Logit`, where black has an exponential law, its best fit to a
    pixel known to be black costs 0.6 bits too many. The first and last cells reach 2^-10 of a cell beyond [0, 1], so
    that x = 0 and x = 1 have a density.
    """

    low, high = -MARGIN / LEVELS, 1 + MARGIN / LEVELS

    log_share: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("log_share", torch.full((LEVELS,), -math.log(LEVELS)))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set the shares p_k to those of dequantised images x; a level that never occurs counts as seen once."""
        count = torch.bincount(self._level(x).flatten(), minlength=LEVELS).clamp_min(1)
        self.log_share.copy_((count / count.sum()).log())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        share, above, beyond, width = self._tables(x)
        k = self._level(x)
        r = above[k] + share[k] * ((1 - x) - beyond[k]) / width[k]  # 1 - x is exact next to white
        t = (x - self.low) / width[0]
        black = k == 0
        q = torch.special.ndtri(torch.where(black, _phi(BACK) * t, r / 2))
        slope = torch.where(black, _phi(BACK) / width[0], share[k] / (2 * width[k]))
        logdet = slope.log() + 0.5 * q.square() + 0.5 * math.log(2 * math.pi)
        return torch.where(black, q - BACK, -q), logdet.flatten(1).sum(1)

    def inverse(self, u: Tensor) -> Tensor:
        share, above, beyond, width = self._tables(u)
        black = u < 0
        v = torch.special.ndtr(torch.where(black, u + BACK, -u))
        r = (2 * v).clamp_max(1)
        # The share above a cell falls from 1 to 0 with k: the cell of r is the first with at most r above it.
        k = torch.searchsorted(-above[1:].contiguous(), -r.detach().contiguous()).clamp_max(LEVELS - 2) + 1
        ink = 1 - (beyond[k] + width[k] * (r - above[k]) / share[k])
        return _between(self.low, torch.where(black, self.low + width[0] * v / _phi(BACK), ink), self.high)

    def _level(self, x: Tensor) -> Tensor:
        # NaN, which a diverging Markov chain may propose, has no level; 0 is as good as any.
        return (LEVELS * x).nan_to_num(0.0).floor().clamp(0, LEVELS - 1).long()

    def _tables(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each level: its share of all but black, the share above it, 1 minus its cell's end, its cell's width."""
        share = self.log_share[1:].double().softmax(0)
        above = share.flip(0).cumsum(0).flip(0) - share
        beyond = torch.arange(LEVELS - 1, -1, -1, device=like.device, dtype=torch.float64) / LEVELS
        beyond[-1] = -MARGIN / LEVELS
        width = torch.full_like(beyond, 1 / LEVELS)
        width[[0, -1]] += MARGIN / LEVELS
        black = share.new_ones(1)  # level 0 has no such share: any finite number will do
        share, above = torch.cat([black, share]).to(like.dtype), torch.cat([black, above]).to(like.dtype)
        return share, above, beyond.to(like.dtype), width.to(like.dtype)


PIXELS: dict[str, type[nn.Module]] = {"linear": Linear, "logit": Logit, "ink": Ink}


def _between(low: float, x: Tensor, high: float) -> Tensor:
    """Move each x that was rounded to a bound or beyond to the next number inside, which has a density."""
    least, largest = x.new_tensor([low, high]).nextafter(x.new_tensor([0.5, 0.5]))
    return x.clamp(least, largest)


def _phi(c: float) -> float:
    return 0.5 * math.erfc(-c / math.sqrt(2))

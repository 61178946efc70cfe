"""Photographs as a mixture of stationary Gaussian fields, window by window: what is known about them before a blur.

Notation: I a periodogram (F,); P_k the spectrum of component k, (F,) of mean 1; m a kind of photograph, v_m its weight,
u_mk the weight of component k in it; s^2 the contrast of a window.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

BUNDLED = Path(__file__).parent / "photographs" / "spectra.safetensors"
# The powers that fit the kinds, like those that identify with them; see `Powers`.
POWER, TEMPER = 0.06, 0.45
SHARP = 0.2  # the power with which `fit` assigns windows to components: higher, so that the components differ
ROUNDS = 25
SPREAD = 5  # windows' worth of the common weights, added to every kind's so that none is 0


@dataclass(frozen=True, eq=False)
class Spectra:
    """I(f) ~ s^2 P_k(f) e(f), with e exponential of mean 1, k random, and a contrast s^2 of which nothing is known.

    The windows of one photograph share a lens, a focus and a camera, so soft ones come together. A photograph is
    therefore of a kind, m with probability v_m, and its windows have component k with probability u_mk.

    Attributes:
        densities: (K, F), P_k.
        shares: (M, K), u_mk, each row of sum 1.
        kinds: (M,), v_m, of sum 1.
    """

    densities: Tensor
    shares: Tensor
    kinds: Tensor

    @classmethod
    def fit(cls, photographs: list[Tensor], components: int, kinds: int, seed: int = 0) -> Spectra:
        """Fit by expectation maximisation: the components of greatest likelihood for all windows, then the kinds.

        Arguments:
            photographs: for each, which is not blurred, the periodograms of its windows, (W, F).
            components: K.
            kinds: M.
        """
        generator = torch.Generator().manual_seed(seed)
        I = torch.cat(photographs)
        P, u = _components(I, components, generator)
        of = torch.repeat_interleave(torch.tensor([len(each) for each in photographs]))
        log_p, _ = _log_likelihood(I, P)
        return cls(P, *_kinds(POWER * log_p, of, u, kinds, generator))


def _log_likelihood(I: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    """max_s ln p(I | k, s) up to a constant, (W, K), and the s^2 that attains it."""
    contrast = I @ (1 / P).T / I.shape[1]
    return -I.shape[1] * contrast.log() - P.log().sum(1), contrast


def _components(I: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """P (K, F), and the weights of the components in all windows together, (K,)."""
    R = I / I.mean(1, keepdim=True)
    groups = torch.randint(0, len(R), (number, 32), generator=generator)
    P, u = R[groups].mean(1), R.new_full((number,), 1 / number)
    for _ in range(ROUNDS):
        log_p, contrast = _log_likelihood(I, P)
        shares = torch.softmax(SHARP * log_p + u.log(), 1)
        u = shares.mean(0)
        P = (shares / contrast).T @ I
        P = P / P.mean(1, keepdim=True)
    return P, u


def _kinds(log_p: Tensor, of: Tensor, common: Tensor, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """u (M, K) and v (M,), from windows of log-likelihood log_p (W, K) in the photographs numbered `of` (W,)."""
    p = (log_p - log_p.max(1, keepdim=True).values).exp()
    G = int(of.max()) + 1
    u, v = _apart(p * common, of, number, generator), p.new_full((number,), 1 / number)
    for _ in range(ROUNDS):
        mixed = p @ u.T
        told = p.new_zeros(G, number).index_add_(0, of, TEMPER * mixed.log())
        kind = torch.softmax(told + v.log(), 1)
        u = u * ((kind[of] / mixed).T @ p) + SPREAD * common
        u = u / u.sum(1, keepdim=True)
        v = kind.mean(0)
    return u, v


def _apart(p: Tensor, of: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """The weights (M, K) of dissimilar photographs, chosen as in k-means++, each averaged with those of the mean."""
    share = p / p.sum(1, keepdim=True)
    own = share.new_zeros(int(of.max()) + 1, p.shape[1]).index_add_(0, of, share)
    own = own / own.sum(1, keepdim=True)
    found = [own[torch.randint(0, len(own), (1,), generator=generator)]]
    for _ in range(number - 1):
        away = torch.cdist(own.sqrt(), torch.cat(found).sqrt()).min(1).values.square()
        found.append(own[torch.multinomial(away, 1, generator=generator)])
    return (torch.cat(found) + own.mean(0)) / 2


def held_out(name: str) -> bool:
    """Whether the photograph of that file name is in the random fifth that the fit left out, for making choices."""
    return zlib.crc32(Path(name).name.encode()) % 5 == 0


@lru_cache
def of_photographs() -> Spectra:
    """The spectra that come with the package."""
    return Spectra(**load_file(BUNDLED))

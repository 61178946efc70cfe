"""Photographs as a mixture of stationary Gaussian fields, window by window: what is known of them before a blur.

Notation: I a periodogram (F,); P_k the spectrum of component k, (F,) of mean 1; u_k its weight; s^2 the contrast of a
window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

BUNDLED = Path(__file__).parent / "photographs" / "spectra.safetensors"
# A window's F values say less than F independent ones would, as no spectrum is quite one of the P_k: the power of its
# likelihood. Chosen on validation photographs, see docs/blind.md.
POWER = 0.03
ROUNDS = 40


@dataclass(frozen=True, eq=False)
class Spectra:
    """I(f) ~ s^2 P_k(f) e(f), e exponential of mean 1 and k by chance, at a contrast s^2 of which nothing is known.

    Attributes:
        densities: (K, F), P_k.
        weights: (K,), u_k, of sum 1.
    """

    densities: Tensor
    weights: Tensor

    @classmethod
    def fit(cls, I: Tensor, components: int, seed: int = 0) -> Spectra:
        """Those of greatest likelihood, each window's to `POWER`, by expectation maximisation.

        Arguments:
            I: (W, F), periodograms of windows of photographs that are not blurred.
            components: K.
        """
        generator = torch.Generator().manual_seed(seed)
        R = I / I.mean(1, keepdim=True)
        groups = torch.randint(0, len(R), (components, 32), generator=generator)
        P, u = R[groups].mean(1), R.new_full((components,), 1 / components)
        for _ in range(ROUNDS):
            contrast = I @ (1 / P).T / I.shape[1]
            log_p = -I.shape[1] * contrast.log() - P.log().sum(1)
            shares = torch.softmax(POWER * log_p + u.log(), 1)
            u = shares.mean(0)
            P = (shares / contrast).T @ I
            P = P / P.mean(1, keepdim=True)
        return cls(P, u)


@lru_cache
def of_photographs() -> Spectra:
    """Those that come with the package."""
    return Spectra(**load_file(BUNDLED))

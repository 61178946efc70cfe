"""ln p(y | theta, noise) of a photograph, by the periodograms of its windows.

Notation: I, s^2, P_k, u_mk, v_m as in `spectra`; q = q_theta the share of a spectrum that the operator passes, see
`seen_through`; F the number of frequencies; b, c, d see `Powers`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.blind.spectra import Spectra
from genprior.blind.windows import seen_through
from genprior.operators.base import Operator

# The range of s^2, in factors of 2: from 2^-FAINTER noise^2 to 2^BRIGHTER times the largest mean of a periodogram.
BRIGHTER, FAINTER = 3, 4


@dataclass(frozen=True)
class Powers:
    """Powers of likelihoods, with which these say no more than they know.

    Attributes:
        window: b, of a window's F values: they say less than F independent ones would, as no spectrum is quite one of
            the P_k.
        photograph: c, of all windows: they overlap, and are alike.
        noise: d, of the likelihood of the noise given theta: it comes from frequencies that hold little else, where
            the P_k matter less.
    """

    window: float
    photograph: float
    noise: float


# By operator. Chosen on photographs that the spectra were not fitted to; see docs/blind.md.
POWERS = {
    "motion-deblur": Powers(0.06, 0.6, 6.0),
    "gaussian-deblur": Powers(0.06, 0.3, 12.0),
    "denoise": Powers(0.06, 0.3, 12.0),
}


@dataclass(frozen=True, eq=False)
class Whittle:
    """The likelihood of windows, tempered: ln sum_m v_m prod_w (sum_k u_mk max_s p(I_w | k, s)^b)^c, with

        ln p(I | k, s) = -sum_f [ln(s^2 P_k(f) q(f) + noise^2) + I(f) / (s^2 P_k(f) q(f) + noise^2)].

    This is Whittle's likelihood, which takes frequencies as independent, of a mixture with a contrast for each window.

    Attributes:
        I: (W, F), see `periodograms`.
        spectra: of photographs before the measurement.

    References:
        Estimation and information in stationary time series. P. Whittle, 1953.
        Robust Bayesian inference via coarsening. J. W. Miller, D. B. Dunson, 2019, for likelihoods to a power.
    """

    I: Tensor
    spectra: Spectra
    powers: Powers

    def __call__(self, operator: Operator, noise: Tensor) -> Tensor:
        """The log-likelihood up to a constant, (L,), at noise levels (L,)."""
        S = self.spectra.densities * seen_through(operator)
        ratios = self._ratios(noise)
        V = S[:, None] + ratios[:, None]  # (K, ratios, F), the spectrum of y over s^2
        log_det = V.log().sum(-1)[:, None]
        squares = torch.einsum("wf,krf->wkr", self.I, V.reciprocal_())[:, :, None]
        contrast = (noise[:, None] ** 2 / ratios).float()  # (L, ratios), s^2
        log_p = -(squares / contrast + log_det + self.I.shape[1] * contrast.log())
        log_p = self.powers.window * _peak(log_p)  # (W, K, L)
        largest = log_p.amax(1, keepdim=True)
        mixed = torch.einsum("wkl,mk->wml", (log_p - largest).exp(), self.spectra.shares).log() + largest
        of_kinds = self.powers.photograph * mixed.double().sum(0)  # (M, L)
        return (of_kinds + self.spectra.kinds.log()[:, None]).logsumexp(0)

    def _ratios(self, noise: Tensor) -> Tensor:
        """noise^2 / s^2, ascending."""
        least = float(noise.min()) ** 2 / float(self.I.mean(1).max())
        return 2.0 ** torch.arange(min(0, math.floor(math.log2(least)) - BRIGHTER), FAINTER + 1)


def _peak(values: Tensor) -> Tensor:
    """The largest value along the last axis, interpolated between samples by a parabola through three of them."""
    largest, at = values.max(-1, keepdim=True)
    inside = at.clamp(1, values.shape[-1] - 2)
    before, here, after = (values.gather(-1, inside + k) for k in (-1, 0, 1))
    slope, bend = (after - before) / 2, after - 2 * here + before
    top = here - slope**2 / (2 * bend)
    return torch.where((inside == at) & (bend < 0), top, largest).squeeze(-1)

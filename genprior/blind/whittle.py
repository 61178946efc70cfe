"""ln p(y | theta, noise) of a photograph, by the periodograms of its windows.

Notation: I, s^2, P_k, u_k as in `spectra`; q = q_theta what the operator leaves of a spectrum, see `seen_through`; F
the number of frequencies; b the power of a window's likelihood, c that of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from genprior.blind.spectra import POWER, Spectra
from genprior.blind.windows import seen_through
from genprior.operators.base import Operator

# Every pixel is in four windows, and their spectra are alike: the power of the likelihood of all, with which 90 %
# intervals hold what they say. Chosen on validation photographs, see docs/blind.md.
TEMPER = 0.3
RATIOS = 2.0 ** torch.arange(-14, 5)  # noise^2 / s^2


@dataclass(frozen=True, eq=False)
class Whittle:
    """The likelihood of windows, tempered: c sum_w ln sum_k u_k max_s p(I_w | k, s)^b, with

        ln p(I | k, s) = -sum_f [ln(s^2 P_k(f) q(f) + noise^2) + I(f) / (s^2 P_k(f) q(f) + noise^2)].

    That of Whittle, which takes frequencies for independent, of a mixture that gives every window the contrast it has.

    Attributes:
        I: (W, F), see `periodograms`.
        spectra: of what was measured, before that.

    References:
        Estimation and information in stationary time series. P. Whittle, 1953.
        Robust Bayesian inference via coarsening. J. W. Miller, D. B. Dunson, 2019, for likelihoods to a power.
    """

    I: Tensor
    spectra: Spectra
    power: float = field(default=POWER)
    temper: float = field(default=TEMPER)

    def __call__(self, operator: Operator, noise: Tensor) -> Tensor:
        """Up to a constant, (L,), at noise levels (L,)."""
        S = self.spectra.densities * seen_through(operator)
        V = S[:, None] + RATIOS[:, None]  # (K, ratios, F), the spectrum of y over s^2
        log_det = V.log().sum(-1)[:, None]
        squares = torch.einsum("wf,krf->wkr", self.I, V.reciprocal_())[:, :, None]
        contrast = (noise[:, None] ** 2 / RATIOS).float()  # (L, ratios), s^2
        log_p = -(squares / contrast + log_det + self.I.shape[1] * contrast.log())
        best = _peak(self.power * log_p)  # (W, K, L)
        mixed = (best + self.spectra.weights.log()[:, None]).logsumexp(1)
        return self.temper * mixed.double().sum(0)


def _peak(values: Tensor) -> Tensor:
    """The largest value along the last axis, between the samples too: that of the parabola through three of them."""
    largest, at = values.max(-1, keepdim=True)
    inside = at.clamp(1, values.shape[-1] - 2)
    before, here, after = (values.gather(-1, inside + k) for k in (-1, 0, 1))
    slope, bend = (after - before) / 2, after - 2 * here + before
    top = here - slope**2 / (2 * bend)
    return torch.where((inside == at) & (bend < 0), top, largest).squeeze(-1)

"""Whether a restoration is plausible: how well its samples fit y, and how far they leave the range of the prior.

Notation: x a sample; y ~ p(y | A x), as y = A x + noise n, n ~ N(0, I); centre and spread of the prior.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import has_posterior
from genprior.priors.base import Prior
from genprior.priors.foreign.denoiser import DenoiserPrior

REACH = 2.5  # spreads from the centre within which values are plausible: for photographs, -0.125 to 1.125
# Beyond these a restoration gets a warning; `recipes/evaluate_warnings.py` prints how far sound ones stay below.
RESIDUAL, EXCESS, RHAT = 1.5, 0.05, 2.0
NORMAL, SD = 0.0024, 0.046  # mean and standard deviation of max(0, |n| - REACH)^2, n ~ N(0, 1)
OWN = 64  # draws of a prior in closed form, some of whose values may vary more than its spread


def figures(x: Tensor, measurement: Measurement, prior: Prior) -> dict[str, Tensor]:
    """Two figures for each row of x (B, *image_shape), each (B,).

        residual = sqrt(mean (y - E[y | A x])^2 / Var[y | A x])
        excess   = sqrt(mean max(0, |x - centre| / spread - REACH)^2)

    For Gaussian noise, the first is sqrt(mean (y - A x)^2) / noise. The standard deviation of y is taken to be at least
    1/50 of the prior's spread, 0.005 for photographs, because diffusions end near there.
    """
    mean, variance = measurement.likelihood.to(x).predicted(measurement.operator(x))
    deviation = variance.sqrt().clamp_min(prior.spread / 50)
    return {"residual": _rms((measurement.y - mean) / deviation), "excess": _excess(x, prior)}


def warn(diagnostics: dict[str, Tensor], measurement: Measurement, prior: Prior, stacklevel: int) -> None:
    """Warn once if the median of a figure over the samples of an image is implausible.

    With few values the residual may be larger by chance: for m values of noise alone it is 1 with a standard deviation
    of 1 / sqrt(2 m), and the limit allows four of these.

    Arguments:
        diagnostics: name -> (B, n): those of `figures`, and "rhat" of Markov chains.
        measurement, prior: those of the samples.
        stacklevel: of the function to blame, 1 for the caller.
    """
    values = math.prod(measurement.operator.image_shape)
    few = 4 / math.sqrt(2 * math.prod(measurement.operator.measurement_shape))
    excess = EXCESS + _own_excess(prior, values)
    unexplained = [
        *_beyond(diagnostics, "residual", RESIDUAL * (1 + few), "misfit to y, in multiples of the noise"),
        *_beyond(diagnostics, "excess", excess, f"distance beyond {REACH} spreads from the prior's centre, in spreads"),
    ]
    unmixed = _beyond(diagnostics, "rhat", RHAT, "1 for Markov chains that have mixed")
    advice = []
    if unexplained:
        advice.append(
            "Operator and noise, or the prior, do not explain the measurement: check the kernel, mask or scale, the "
            "noise (estimated if left out), and whether the prior is for such images; or take more steps."
        )
    if unmixed:
        advice.append("The samples are no draws from the posterior yet: take more steps, or another sampler.")
    if advice:
        warnings.warn(f"Implausible: {'; '.join(unexplained + unmixed)}. {' '.join(advice)}", stacklevel=stacklevel + 1)


def _beyond(diagnostics: dict[str, Tensor], name: str, most: float, meaning: str) -> list[str]:
    """What to say of a figure; nothing if it is plausible for every image, or missing."""
    if name not in diagnostics:
        return []
    each = diagnostics[name].median(dim=1).values
    wrong = (each > most).nonzero().flatten().tolist()
    if not wrong:
        return []
    whose = f" of image {', '.join(map(str, wrong))}" if len(each) > 1 else ""
    return [f"{name}{whose} is {float(each[wrong].max()):.3g} where up to {most:.3g} is plausible ({meaning})"]


def _own_excess(prior: Prior, values: int) -> float:
    """The largest excess of draws from the prior, where these are free: Gaussians have pixels of many variances."""
    if isinstance(prior, DenoiserPrior):  # of unknown images, whose values may well be normal
        return math.sqrt(NORMAL + 6 * SD / math.sqrt(values))  # six deviations, since few values make the law skewed
    if not has_posterior(prior):
        return 0.0
    return float(_excess(prior.sample(OWN, seed=0), prior).max())


def _excess(x: Tensor, prior: Prior) -> Tensor:
    centre = torch.as_tensor(prior.centre).to(x)
    return _rms(((x - centre).abs() / prior.spread - REACH).clamp_min(0))


def _rms(a: Tensor) -> Tensor:
    return a.square().flatten(1).mean(1).sqrt()

"""The least noise that samplers which weigh y by 1 / noise^2 without a denoiser's sigma_min take y to have."""

from dataclasses import replace

import torch

from genprior.operators.base import Measurement
from genprior.priors.base import Prior

# In multiples of the prior's spread. For images in [0, 1], of spread about 0.3, it is 1/500: half a grey level.
LEAST = 1 / 150


def floored(measurement: Measurement, prior: Prior) -> Measurement:
    """The measurement with a noise of at least `LEAST` spreads, as a (1 or B, 1, 1, 1) tensor.

    Without noise, p(x | y) of x = G(z) lies on a set of measure 0 that no Markov chain moves on, and that an imperfect
    prior most often misses altogether.
    """
    y = measurement.y
    noise = torch.as_tensor(measurement.noise, dtype=y.dtype, device=y.device).reshape(-1, 1, 1, 1)
    return replace(measurement, noise=noise.clamp_min(LEAST * prior.spread))

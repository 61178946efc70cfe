"""Dequantise 8-bit images, which makes the likelihoods of different priors comparable.

An image of D values k in 0 … 255, x = k / 255, is dequantised to (k + u) / 256 with u uniform on (0, 1). A density p on
[0, 1]^D then bounds the probability of the 8-bit image, P(k) = E_u p((k + u) / 256) / 256^D, by Jensen's inequality:
ln P(k) >= E_u ln p((k + u) / 256) - D ln 256.
"""

import math

from torch import Tensor

from genprior.noise import Noise


def dequantize(x: Tensor, noise: Noise) -> Tensor:
    """(255 x + u) / 256 with u uniform on (0, 1): x (B, C, H, W) in [0, 1], one row of noise per image."""
    return (255 * x + noise.uniform(x)) / 256


def bits_per_dim(log_prob: Tensor, dimension: int) -> Tensor:
    """-ln p / (D ln 2) + 8: bits per value of 8-bit images, from nats of the density on [0, 1]^D."""
    return -log_prob / (dimension * math.log(2)) + 8

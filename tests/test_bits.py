"""Bits per value of 8-bit images from densities of dequantised ones."""

import math

import pytest
import torch

from genprior.bits import bits_per_dim, dequantize
from genprior.noise import Noise


def test_bits_per_dim_of_known_densities():
    """A density of 1 on [0, 1]^D spends 8 bits on each of 256 values; 256 on one value's cell spends none."""
    D = 12
    log_prob = torch.tensor([0.0, D * math.log(256), D * math.log(2)], dtype=torch.float64)
    assert bits_per_dim(log_prob, D).tolist() == pytest.approx([8, 0, 7])


def test_dequantized_images_lie_in_the_cells_of_their_values():
    k = torch.arange(256, dtype=torch.float64).reshape(4, 1, 8, 8)
    x = dequantize(k / 255, Noise(0, range(4)))
    assert torch.equal((256 * x).floor(), k)
    # u is uniform: its mean over 256 values has the sd 1 / sqrt(12 * 256)
    u = 256 * x - k
    assert abs(u.mean() - 0.5) < 3.3 / math.sqrt(12 * 256)
    assert abs(u.var() - 1 / 12) < 3.3 * math.sqrt(1 / 180 / 256)

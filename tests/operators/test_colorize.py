"""Colourisation against Kornia."""

import pytest
import torch
from kornia.color import rgb_to_grayscale

from genprior.operators import Colorize


def test_grey_is_that_of_kornia():
    x = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # Kornia keeps its weights in float32
    torch.testing.assert_close(Colorize((3, 6, 7))(x), rgb_to_grayscale(x), rtol=0, atol=1e-6)


def test_channels_are_checked():
    with pytest.raises(ValueError, match="colour images"):
        Colorize((1, 6, 7))
    with pytest.raises(ValueError, match="one grey channel"):
        Colorize.for_measurement((3, 6, 7))

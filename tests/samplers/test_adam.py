"""Adam against that of torch."""

import pytest
import torch

from genprior.samplers.adam import Adam


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.99)])
def test_adam_is_that_of_torch(betas):
    """On |x|^4 / 4, with gradients from 1e-18, far below Adam's eps, to 1e9: to rounding, in each of 50 steps."""
    x = torch.logspace(-6, 3, 40, dtype=torch.float64)
    other = x.clone()
    adam, torchs = Adam(0.05, betas), torch.optim.Adam([other], lr=0.05, betas=betas)
    for _ in range(50):
        x = x - adam(x**3)
        other.grad = other**3
        torchs.step()
        assert torch.allclose(x, other, rtol=1e-12, atol=1e-12)

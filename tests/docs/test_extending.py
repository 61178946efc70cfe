"""The page on extending is run as it stands: its operator, prior and sampler work, and work together."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def page():
    names = {"__name__": "extending"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_adjoint_and_the_closed_form_of_the_operator_are_right(page):
    A, generator = page["RowMeans"]((2, 5, 7)), torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 5, 7, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 2, 5, 1, generator=generator, dtype=torch.float64)
    # sums of 210 products in float64: 1e-12 leaves a factor 100 for rounding
    torch.testing.assert_close((A(x) * y).sum(), (x * A.adjoint(y)).sum(), rtol=1e-12, atol=1e-12)
    v = A.solve(y, 0.1)
    torch.testing.assert_close(A(A.adjoint(v)) + 0.1 * v, y, rtol=1e-12, atol=1e-12)


def test_the_denoiser_of_the_prior_is_the_conditional_mean(page):
    prior = page["BlackOrWhite"](0.3, (1, 1, 1))
    x_t, sigma = torch.linspace(-1, 2, 7, dtype=torch.float64).reshape(-1, 1, 1, 1), 0.4
    one, zero = 0.3 * torch.exp(-((x_t - 1) ** 2) / (2 * sigma**2)), 0.7 * torch.exp(-(x_t**2) / (2 * sigma**2))
    torch.testing.assert_close(prior.denoise(x_t, sigma), one / (one + zero), rtol=1e-12, atol=1e-12)


def test_the_three_together_draw_black_or_white_images_with_about_the_means_measured(page):
    samples, y = page["result"].samples, page["measurement"].y
    assert samples.shape == (16, 1, 8, 8)
    # The last level of noise is 0.01, where the denoiser leaves nothing between 0 and 1. The last prox moves the values
    # of a row by what its mean is off at most, here mostly no more than one pixel of 8.
    assert torch.minimum(samples.abs(), (samples - 1).abs()).median() < 1 / 8
    # Without y, the mean of a row of 8 has the variance 0.3 * 0.7 / 8 around 0.3.
    unmeasured = ((0.3 - y).square().mean() + 0.3 * 0.7 / 8).sqrt()
    assert (samples.mean(-1, keepdim=True) - y).square().mean().sqrt() < unmeasured / 2
    assert samples.std(0).mean() > 0.05


def test_the_operator_that_is_not_linear_is_restored(page):
    """Draws of the prior leave more than twice as much of y, on the root mean square."""
    developed, exposed = page["developed"].samples, page["exposed"]

    def left(x):
        return (exposed.operator(x) - exposed.y).square().mean().sqrt()

    prior = (torch.rand(500, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    assert left(developed) < left(prior) / 2
    assert developed.std(0).mean() > 0.05

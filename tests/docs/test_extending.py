"""The page on extending is run as it stands: its operator, prior and sampler work, and work together."""

import re
from pathlib import Path

import pytest
import torch

from genprior.noise import Noise

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


def test_the_likelihood_has_the_moments_and_draws_of_its_density(page):
    """Against a sum over 20,001 points to 12 deviations; 20,000 draws of each err by 0.7 % of the deviation, four times
    over, and of 40,000 bits the share of ones by 0.0025."""
    law = page["OneBit"](0.5, 0.3)
    y, m, v = torch.tensor([[1, 0.4, 0.2], [0, 0.2, 0.1], [0, 2.0, 0.3]], dtype=torch.float64).T.reshape(3, 3, 1, 1, 1)
    mean, variance = law.moments(y, m, v)
    z = m + v.sqrt() * torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    p = (law.log_prob(y, z) - (z - m).square() / (2 * v)).softmax(-1)
    exact = (p * z).sum(-1, keepdim=True)
    torch.testing.assert_close(mean, exact, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance, (p * (z - exact).square()).sum(-1, keepdim=True), rtol=1e-5, atol=0)
    drawn = law.conditional(*(a.expand(3, 1, 1, 20_000) for a in (y, m, v)), Noise(0, [0, 1, 2]))
    assert ((drawn.mean(-1, keepdim=True) - exact) / variance.sqrt()).abs().max() < 4 * 0.007
    ones = law.sample(torch.full((1, 1, 200, 200), 0.65), Noise(0, [0])).mean()
    assert float(ones) == pytest.approx(0.691, abs=0.01)  # Phi(0.15 / 0.3)


def test_the_likelihood_goes_with_restore(page):
    """Of pixels that are 0 or 1 the posterior is Bayes' rule, 0.69 of those seen bright, 0.075 of the others; methods
    that take p(x | x_t) for Gaussian come to two tenths of it, on the right side of the prior's 0.3."""
    samples, y = page["guessed"].samples, page["seen"].y[0]
    assert type(page["guessed"].sampler).__name__ == "ProbedCovariance"
    bright, dark = (float(samples[:, y == bit].mean()) for bit in (1, 0))
    assert 0.69 - 0.2 < bright < 0.69 + 0.2
    assert 0.3 > dark > 0.075 - 0.1

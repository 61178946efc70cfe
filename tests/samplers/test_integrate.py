"""Integrators against the Gaussian x ~ N(m, v), whose noisy law is N(m, v + sigma^2) and whose ODE is solved by

x(sigma) = m + (x(sigma_max) - m) sqrt((v + sigma^2) / (v + sigma_max^2)).
"""

import math
from itertools import pairwise

import pytest
import torch

from genprior.noise import Noise
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.integrate import (
    ancestral,
    euler,
    fresh,
    geometric,
    heun,
    karras,
    multistep,
    thinned,
    variance_preserving,
)

M, V, HIGH, LOW = 0.5, 0.04, 5.0, 0.01
PRIOR = Gaussian(torch.full((1, 1, 1), M, dtype=torch.float64), torch.full((1, 1, 1), V, dtype=torch.float64))
SCHEDULES = {
    "geometric": geometric,
    "karras": karras,
    "thinned": lambda high, low, steps: thinned(high, low, steps, 2.0),
    "variance preserving": lambda high, low, steps: variance_preserving(high, low, steps, 0.5),
}


def ode_error(integrator, steps):
    """Relative error at LOW of the solution that starts one standard deviation above the mean."""
    x = torch.full((1, 1, 1, 1), M + math.sqrt(V + HIGH**2), dtype=torch.float64)
    x = integrator(PRIOR.denoise, x, geometric(HIGH, LOW, steps + 1)[:-1])
    return abs(float(x - M) / math.sqrt(V + LOW**2) - 1)


def variance(integrator, sigmas, v=V, begun=None):
    """The exact variance of what `integrator` makes of N(M, v), its own noise, and a start of variance v + sigma_0^2.

    Every step is affine in x and in its noise: row k of a batch follows the k-th of all these independent standard
    normal numbers by itself, and the variance is the sum of squares of what becomes of them.
    """
    prior = Gaussian(PRIOR.mean, torch.full((1, 1, 1), v, dtype=torch.float64))
    begun = v + sigmas[0] ** 2 if begun is None else begun
    coordinates = torch.eye(len(sigmas), dtype=torch.float64).reshape(len(sigmas), -1, 1, 1, 1)
    drawn = iter(coordinates[1:])
    x = integrator(prior.denoise, M + math.sqrt(begun) * coordinates[0], sigmas, lambda x: next(drawn))
    return float((x - M).square().sum())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_schedules_fall_from_sigma_max_to_sigma_min_and_end_at_zero(name, steps):
    sigmas = SCHEDULES[name](HIGH, LOW, steps)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(HIGH, rel=1e-12)
    assert sigmas[-1] == 0
    assert sigmas[-2] == pytest.approx(LOW if steps > 1 else HIGH, rel=1e-9)
    assert all(a > b for a, b in pairwise(sigmas))


def test_geometric_is_even_in_the_logarithm_and_karras_in_the_seventh_root():
    logarithms = [math.log(sigma) for sigma in geometric(HIGH, LOW, 9)[:-1]]
    roots = [sigma ** (1 / 7) for sigma in karras(HIGH, LOW, 9)[:-1]]
    for values in (logarithms, roots):
        differences = [a - b for a, b in pairwise(values)]
        assert differences == pytest.approx([differences[0]] * 8, rel=1e-9)


def test_thinned_levels_are_even_in_the_logarithm_at_low_noise_and_even_in_sigma_at_high_noise():
    """Of i(sigma) = density ln(sigma / LOW) + b (sigma - LOW), the step per level is 1 / (density / sigma + b)."""
    sigmas = thinned(HIGH, LOW, 1000, 3.0)[:-1]
    folds = math.log(HIGH / LOW)
    b = (999 - 3 * folds) / (HIGH - LOW)
    ranks = [3 * math.log(sigma / LOW) + b * (sigma - LOW) for sigma in sigmas]
    assert ranks == pytest.approx(range(999, -1, -1), abs=1e-9)
    # of at most as many steps as the density allows, all are even in the logarithm
    assert thinned(HIGH, LOW, 19, 3.0) == pytest.approx(geometric(HIGH, LOW, 19), rel=1e-9)
    assert 18 < 3 * folds < 19


def test_variance_preserving_levels_are_even_in_the_time_of_the_linear_betas():
    """alpha_bar(t) = exp(-0.1 t - 9.95 t^2) at times i / 10 gives back those times."""

    def level(t, unit):
        alpha_bar = math.exp(-0.1 * t - 9.95 * t**2)
        return unit * math.sqrt((1 - alpha_bar) / alpha_bar)

    for unit in (0.5, 2.0):
        expected = [level(t / 10, unit) for t in range(10, 0, -1)]
        assert variance_preserving(expected[0], expected[-1], 10, unit)[:-1] == pytest.approx(expected, rel=1e-10)


def multistep_flow(denoise, x, sigmas):
    return multistep(denoise, x, sigmas, None, eta=0.0)


@pytest.mark.parametrize(("integrator", "factor"), [(euler, 2), (heun, 4), (multistep_flow, 4)])
def test_order_of_integrators(integrator, factor):
    """Doubling the steps divides the error by 2^order, up to the next order of the step, a few per cent here."""
    coarse, middle, fine = (ode_error(integrator, steps) for steps in (100, 200, 400))
    assert coarse / middle == pytest.approx(factor, rel=0.08)
    assert middle / fine == pytest.approx(factor, rel=0.04)
    assert fine < 2e-2 / factor


@pytest.mark.parametrize("integrator", [euler, heun, multistep_flow])
def test_last_step_to_zero_returns_the_denoised_image(integrator):
    x = torch.full((1, 1, 1, 1), 1.7, dtype=torch.float64)
    torch.testing.assert_close(integrator(PRIOR.denoise, x, [0.3, 0.0]), PRIOR.denoise(x, 0.3), rtol=1e-14, atol=0)


def test_error_of_the_ancestral_variance_is_of_first_order():
    target = V**2 / (V + LOW**2)  # of E[x | x_t] at the last level, which is what is returned
    errors = [variance(ancestral, geometric(HIGH, LOW, steps)) / target - 1 for steps in (200, 400, 800)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)
    assert 0 < abs(errors[2]) < 0.02


def test_error_of_the_multistep_variance_is_of_second_order():
    target = V**2 / (V + LOW**2)
    errors = [variance(multistep, geometric(HIGH, LOW, steps)) / target - 1 for steps in (100, 200, 400)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.08)
    assert 0 < abs(errors[2]) < 0.002


# The variance that comes out over the true one, for posteriors of sd tau under a prior of spread 0.25, from 4 or 64
# spreads.
@pytest.mark.parametrize(
    ("integrator", "steps", "first", "ratios"),
    [
        (ancestral, 20, 1.0, (0.751, 0.765, 0.764)),
        (ancestral, 40, 1.0, (0.855, 0.874, 0.872)),
        (multistep, 20, 1.0, (0.968, 0.998, 0.997)),
        (multistep, 40, 1.0, (0.973, 0.998, 0.997)),
        (multistep, 20, 16.0, (0.949, 0.989, 0.993)),
        (multistep, 40, 16.0, (0.971, 0.999, 1.001)),
    ],
)
def test_few_multistep_steps_keep_the_variance_and_ancestral_ones_do_not(integrator, steps, first, ratios):
    for tau, ratio in zip((0.03, 0.1, 0.25), ratios):
        found = variance(integrator, geometric(first, 0.005, steps), tau**2, begun=first**2)
        assert found / tau**2 == pytest.approx(ratio, abs=0.002)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_multistep_extrapolates_less_the_more_noise_the_step_before_drew(eta):
    """Two steps of the docstring, number by number: the first cannot extrapolate, the second does."""
    high, middle, low = 0.9, 0.4, 0.25
    x, noise = torch.full((1, 1, 1, 1), 1.7, dtype=torch.float64), Noise(5, [0])
    n, n_next = (float(noise(x)) if eta else 0.0 for _ in range(2))

    def x_hat(value, sigma):
        return M + V / (V + sigma**2) * (value - M)

    h, h_next = math.log(high / middle), math.log(middle / low)
    value = middle / high * math.exp(-eta * h) * 1.7 + (1 - math.exp(-(1 + eta) * h)) * x_hat(1.7, high)
    value += middle * math.sqrt(1 - math.exp(-2 * eta * h)) * n
    before, now = x_hat(1.7, high), x_hat(value, middle)
    D = now + h_next / (2 * h) * (1 - eta * h_next / 4) * (now - before)
    value = low / middle * math.exp(-eta * h_next) * value + (1 - math.exp(-(1 + eta) * h_next)) * D
    value += low * math.sqrt(1 - math.exp(-2 * eta * h_next)) * n_next
    found = multistep(PRIOR.denoise, x, [high, middle, low], Noise(5, [0]), eta)
    assert float(found) == pytest.approx(value, abs=1e-12)


def test_ancestral_without_fresh_noise_is_euler():
    x = torch.tensor([1.0, -2.0, 6.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    sigmas = karras(HIGH, LOW, 12)
    ddim = ancestral(PRIOR.denoise, x, sigmas, Noise(0, [0, 1, 2]), eta=0.0)
    torch.testing.assert_close(ddim, euler(PRIOR.denoise, x, sigmas), rtol=1e-12, atol=0)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_fresh_steps_keep_x_hat_and_draw_the_rest_anew(eta):
    """x' = x_hat + sigma' (sqrt(1 - eta) (x - x_hat) / sigma + sqrt(eta) n), number by number, and to zero: x_hat."""
    sigmas = geometric(HIGH, LOW, 6)
    x = torch.tensor([1.0, -2.0, 6.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    values, noise = x.flatten().tolist(), Noise(5, [0, 1, 2])
    for sigma, sigma_next in pairwise(sigmas):
        n = noise(x).flatten().tolist()
        for i, value in enumerate(values):
            x_hat = M + V / (V + sigma**2) * (value - M)
            kept = math.sqrt(1 - eta) * (value - x_hat) / sigma
            values[i] = x_hat + sigma_next * (kept + math.sqrt(eta) * n[i])
    found = fresh(PRIOR.denoise, x, sigmas, Noise(5, [0, 1, 2]), eta=eta)
    assert found.flatten().tolist() == pytest.approx(values, abs=1e-12)
    x_0 = fresh(PRIOR.denoise, x, [0.3, 0.0], Noise(5, [0, 1, 2]), eta=eta)
    torch.testing.assert_close(x_0, PRIOR.denoise(x, 0.3), rtol=1e-14, atol=0)


def test_fresh_steps_without_noise_are_eulers_and_with_it_lose_variance():
    """x' = a x + ... has the variance a^2 v + sigma'^2, with a = V / (V + sigma^2): what is lost does not come back."""
    x = torch.tensor([1.0, -2.0, 6.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    sigmas = geometric(HIGH, LOW, 12)
    without = fresh(PRIOR.denoise, x, sigmas, Noise(0, [0, 1, 2]), eta=0.0)
    torch.testing.assert_close(without, euler(PRIOR.denoise, x, sigmas), rtol=1e-12, atol=0)
    v = V + HIGH**2
    for sigma, sigma_next in pairwise(sigmas):
        v = (V / (V + sigma**2)) ** 2 * v + sigma_next**2
    assert variance(fresh, sigmas) == pytest.approx(v, rel=1e-12)
    assert v < 0.5 * V**2 / (V + LOW**2)


def test_eta_replaces_noise_that_is_there_by_fresh_noise():
    """One step with x_hat = x_0 known: its variance is sigma_next^2 whatever eta is, eta^2 (1 - r) of it fresh."""
    sigma, sigma_next, r = 0.6, 0.3, 0.25
    n = torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(2, 1, 1, 1)  # row 0 follows x, row 1 the fresh noise
    for eta in (0.0, 0.4, 1.0):
        x = ancestral(lambda x, sigma: 0 * x, sigma * n, [sigma, sigma_next], lambda x: 1 - n, eta=eta)
        kept, fresh = x.flatten().square().tolist()
        assert fresh == pytest.approx(eta**2 * sigma_next**2 * (1 - r), rel=1e-12)
        assert kept + fresh == pytest.approx(sigma_next**2, rel=1e-12)


def test_ancestral_samples_have_the_mean_and_variance_of_the_prior():
    """With the library's own noise; three sd are 3 / sqrt(n) for the mean and 3 sqrt(2 / n) for the variance."""
    n, sigmas = 4000, geometric(HIGH, LOW, 400)
    noise = Noise(1, torch.zeros(n, dtype=torch.int64), torch.arange(n))
    x = M + sigmas[0] * noise(torch.empty(n, 1, 1, 1, dtype=torch.float64))
    x = ancestral(PRIOR.denoise, x, sigmas, noise)
    assert float(x.mean() - M) / math.sqrt(V) == pytest.approx(0, abs=3 / math.sqrt(n))
    assert float(x.var()) / V == pytest.approx(
        1, abs=3 * math.sqrt(2 / n) + 0.03
    )  # 3 %: first-order error of 400 steps

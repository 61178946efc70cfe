"""Hamiltonian Monte Carlo and its diagnostics, on targets with known answers."""

import math

import pytest
import torch

from genprior.noise import Noise
from genprior.samplers.chains.mcmc import (
    EUCLIDEAN,
    DualAveraging,
    Metric,
    Point,
    Trace,
    effective_sample_size,
    run,
    split_rhat,
    transition,
)


def chains(n, seed=0):
    return Noise.of_draws(n, seed)


def rows(n, T, seed=0):
    return chains(n, seed)(torch.empty(n, T, dtype=torch.float64))


def banana(state):
    """N(0, 1) in a, then b = a^2 + n / 2: correlated, and of varying curvature."""
    a, b = state.unbind(1)
    r = b - a**2
    return a**2 / 2 + 2 * r**2, torch.stack([a - 8 * a * r, 4 * r], 1)


def banana_draws(n):
    a, e = rows(n, 2).unbind(1)
    return torch.stack([a, a**2 + e / 2], 1)


def skewed_metric():
    """M = L L^T with one entry off the diagonal."""
    L = torch.tensor([[1.5, 0.0], [0.5, 2.0]], dtype=torch.float64)
    inverse = torch.linalg.inv(L @ L.T)
    return Metric(lambda noise, like: noise(like) @ L.T, lambda momentum: momentum @ inverse)


def test_transition_keeps_its_target():
    """Exact draws stay exact draws, with steps so long that many proposals must be rejected.

    The law of (a, (b - a^2)) is N(0, 1) and N(0, 1/4), independent: of n draws, a mean is off by 1 / sqrt(n) sd, a
    variance by sqrt(2 / n) of itself, a covariance by sqrt(1 / n) of both sds; 3.3 of those in each of 5 numbers.
    """
    n = 20000
    step = torch.full((n,), 0.4, dtype=torch.float64)
    for metric, leapfrog in ((EUCLIDEAN, 1), (EUCLIDEAN, 3), (skewed_metric(), 3)):
        noise = chains(n, seed=1)
        point = Point.at(banana, banana_draws(n))
        for _ in range(3):
            point, acceptance = transition(banana, point, step, leapfrog, noise, metric)
        assert 0.4 < acceptance.mean() < 0.9
        a, b = point.state.unbind(1)
        e = torch.stack([a, 2 * (b - a**2)], 1)
        assert e.mean(0).abs().max() < 3.3 / math.sqrt(n)
        assert (e.square().mean(0) - 1).abs().max() < 3.3 * math.sqrt(2 / n)
        assert e.prod(1).mean().abs() < 3.3 / math.sqrt(n)
        assert torch.allclose(point.energy, banana(point.state)[0])
        assert torch.allclose(point.gradient, banana(point.state)[1])


def test_proposals_outside_the_support_are_rejected():
    """Half-normal draws stay so where the energy is infinite, or not a number, below 0: mean sqrt(2 / pi), E x^2 = 1.

    Var x = 1 - 2 / pi and Var x^2 = 2, of n draws.
    """
    n = 20000
    for outside in (math.inf, math.nan):

        def half_normal(state, outside=outside):
            x = state[:, 0]
            return torch.where(x > 0, x**2 / 2, outside), torch.where(state > 0, state, outside)

        noise = chains(n, seed=1)
        point = Point.at(half_normal, rows(n, 1).abs())
        for _ in range(3):
            point, _ = transition(half_normal, point, torch.full((n,), 0.8, dtype=torch.float64), 2, noise)
        x = point.state[:, 0]
        assert x.min() > 0
        assert abs(x.mean() - math.sqrt(2 / math.pi)) < 3.3 * math.sqrt((1 - 2 / math.pi) / n)
        assert abs(x.square().mean() - 1) < 3.3 * math.sqrt(2 / n)


def test_one_leapfrog_step_is_a_langevin_step():
    """x' = x - h^2 / 2 M^-1 grad U + h M^-1 momentum, with h the jittered step, to rounding."""
    metric = skewed_metric()
    x = banana_draws(50)
    point = Point.at(banana, x)
    moved, _ = transition(banana, point, torch.full((50,), 0.05, dtype=torch.float64), 1, chains(50, seed=1), metric)
    noise = chains(50, seed=1)
    momentum = metric.draw(noise, x)
    jitter = noise.uniform(x)[:, :1]
    h = 0.05 * (0.8 + 0.4 * jitter)
    expected = x - h**2 / 2 * metric.velocity(point.gradient) + h * metric.velocity(momentum)
    accepted = (moved.state != x).any(1, keepdim=True)
    assert accepted.sum() > 40
    assert torch.allclose(moved.state, torch.where(accepted, expected, x), rtol=0, atol=1e-12)


def test_step_sizes_adapt_row_by_row_to_the_target():
    """Where acceptance = exp(-step / scale), the target 0.8 is met at step = 0.223 scale, whatever the scale of a row.

    To have moved ln step by d, t errors in acceptance must have added up to gamma d sqrt(t): the last of them are
    gamma d / (2 sqrt(t)), 0.016 for d = 6 and t = 3000. The mean over all t that is returned has up to twice that.
    """
    scale = torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    sizes = DualAveraging(torch.ones(3, dtype=torch.float64), 0.8)
    for _ in range(3000):
        sizes.update((-sizes.step / scale).exp())
    assert ((-sizes.settled / scale).exp() - 0.8).abs().max() < 0.032


def test_effective_sample_size_of_an_autoregressive_chain():
    """x_t = a x_t-1 + n has T (1 - a) / (1 + a).

    The sd of an estimate that sums the autocorrelations to lag 2 m is about sqrt(2 (4 m + 1) / T) of it (Sokal, 1997):
    with m = 5, 10 % for T = 4000, and 1.3 % for the mean of 64 chains. 3.3 of those, and 1 % for the sum's early end.
    """
    T = 4000
    n = rows(64, T + 100)
    for a in (0.5, 0.0, -0.5):
        x = torch.zeros_like(n)
        for t in range(1, T + 100):
            x[:, t] = a * x[:, t - 1] + n[:, t]
        ess = effective_sample_size(5 + 3 * x[:, 100:]).mean()
        assert abs(ess / (T * (1 - a) / (1 + a)) - 1) < 3.3 * 0.013 + 0.01
    assert effective_sample_size(torch.full((1, 50), 2.0)).tolist() == [1.0]


def test_rhat_is_one_for_mixed_chains():
    """10 chains of T = 1000 independent states: V N / W has the mean 1, and over 20 halves the sd sqrt(2 / 19).

    With N = 500, R-hat - 1 = (V / W - 1 / N) / 2 then has the mean 0 and the sd 0.32 / (2 N).
    """
    rhat = split_rhat(rows(10, 1000), torch.zeros(10, dtype=torch.long))
    assert (rhat - 1).abs().max() < 3.3 * 0.33 / 1000


@pytest.mark.parametrize("number", [1, 3])
def test_rhat_is_the_formula_of_gelman_and_others(number):
    """With m = 2 rows halves of N states, W the mean of their variances and B / N the variance of their means, both
    without bias: sqrt((N - 1) / N + B / (N W)). A few states, so that each term counts."""
    x = rows(number, 10) + torch.arange(number)[:, None]
    halves = x.reshape(2 * number, 5)
    W, V = halves.var(1, correction=1).mean(), halves.mean(1).var(correction=1)
    found = split_rhat(x, torch.zeros(number, dtype=torch.long))
    torch.testing.assert_close(found, (4 / 5 + V / W).sqrt().expand(number))


def test_rhat_sees_chains_that_have_not_mixed():
    """Chains of one image that stay at +1 and at -1, of sd 1: the means of four halves have the variance 4 / 3.

    R-hat is sqrt(1 + 4 / 3). Their own halves agree: alone, and for another image, R-hat is 1. A chain that drifts is
    seen without company. W and V are off by 1 / sqrt(N) = 0.03 of themselves, R-hat by less.
    """
    x = rows(3, 2000)
    x[:2] += torch.tensor([[1.0], [-1.0]])
    rhat = split_rhat(x, torch.tensor([4, 4, 7]))
    assert torch.allclose(rhat[:2], torch.tensor(math.sqrt(7 / 3)).double(), rtol=3.3 * 0.03)
    assert abs(rhat[2] - 1) < 0.01
    assert (split_rhat(x[:1], torch.tensor([4])) - 1).abs() < 0.01
    assert split_rhat(rows(1, 2000) + torch.linspace(-2, 2, 2000), torch.tensor([0])) > 1.2


def test_rhat_of_chains_that_never_moved():
    """Infinite, and nothing to those of other images."""
    x = torch.cat([torch.tensor([[1.0] * 8, [2.0] * 8, [math.inf] * 8]).double(), rows(1, 8)])
    rhat = split_rhat(x, torch.tensor([0, 1, 2, 3]))
    assert rhat[:3].tolist() == [math.inf] * 3
    assert rhat[3] == split_rhat(x[3:], torch.tensor([3]))


def test_diagnostics_tell_of_the_slowest_number():
    """Chains of one energy, stuck in two places: only the projections show it."""
    trace = Trace(torch.zeros(2, 5))
    n = rows(2, 400).float()
    for t in range(400):
        trace.append(torch.tensor([[1.0], [-1.0]]) * 10 + n[:, t, None] * torch.ones(5), n[:, t])
    told = trace.diagnose(torch.tensor([0, 0]))
    assert told["rhat"].min() > 1.2
    assert told["rhat"].shape == told["ess"].shape == (2,)


def test_chain_of_a_batch_does_not_depend_on_its_company():
    """State, acceptance and effective sample size alone and in a batch: the same to rounding (float64)."""
    x = banana_draws(4)
    sizes = torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64)
    image = torch.tensor([0, 1, 2, 3])
    point, told = run(banana, Point.at(banana, x), sizes, 20, 3, Noise(0, image))
    for i in range(4):
        alone, told_alone = run(banana, Point.at(banana, x[i : i + 1]), sizes[i : i + 1], 20, 3, Noise(0, [i]))
        assert torch.allclose(alone.state[0], point.state[i], rtol=0, atol=1e-12)
        for name in ("acceptance", "ess", "rhat"):
            assert torch.allclose(told_alone[name][0], told[name][i], rtol=1e-9)

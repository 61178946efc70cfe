"""Twisted diffusion samplers: their twists in closed form, and what their clouds tend to."""

import math

import pytest
import torch
from clouds import (
    FAR,
    exact_moments,
    farthest,
    farthest_of_gaussian,
    gain,
    gaussian,
    matrix_of,
    mixture,
    modes,
    normal,
    of_clouds,
    one_cloud,
    twisted_posterior,
    weighed_chain,
    white,
)

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement, random_mask
from genprior.posteriors.exact import posterior_of
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers import SMC, TDS, PiGDM, TDSMoments
from genprior.samplers.integrate import geometric
from genprior.samplers.particles import tds
from genprior.truth.gaussian import SHAPE, correlated, moments, operators

OPERATORS = operators()


def measured(prior, operator, noise=0.1):
    y = operator(prior.sample(1, seed=1))
    return Measurement(y + noise * Noise(2, [0])(y), operator, noise)


def log_density(e, covariance):
    """ln N(e; 0, covariance) of rows e, up to the constant of the dimension."""
    return -((e @ torch.linalg.inv(covariance)) * e).sum(1) / 2 - torch.logdet(covariance) / 2


def dense(one, prior):
    """A and the covariance of the noise, as matrices, and the mean and the covariance of x."""
    A = matrix_of(one.operator)
    return A, one.noise**2 * torch.eye(len(A), dtype=A.dtype), *moments(prior)


@pytest.mark.parametrize("kind", ["inpaint", "super-resolution", "circular blur", "valid blur", "matrix"])
def test_white_twist_is_the_gaussian_it_says_and_climbs_its_gradient(kind):
    """To rounding; the valid blur solves by conjugate gradients, to 1e-4 of a shift (see `Blur`), squared in ln psi."""
    prior, tolerance = correlated(SHAPE), 1e-4 if kind == "valid blur" else 1e-9
    one = measured(prior, OPERATORS[kind])
    A, R, mean, S = dense(one, prior)
    sigma, sigma_next = 0.3, 0.29
    x_t = prior.sample(5, seed=2) + sigma * normal(5, *SHAPE)
    x_hat, guided, log_psi = tds.isotropic(prior, one)(x_t, sigma, sigma_next)
    expected = mean + (x_t.flatten(1) - mean) @ gain(S, sigma)
    covariance = R + A @ white(prior.spread)(S, sigma) @ A.T
    residual = one.y.flatten() - expected @ A.T
    density = log_density(residual, covariance)
    assert torch.allclose(x_hat.flatten(1), expected, rtol=0, atol=1e-9)
    assert torch.allclose(log_psi - log_psi[0], density - density[0], rtol=tolerance, atol=1e-9)
    gradient = residual @ torch.linalg.inv(covariance) @ A @ gain(S, sigma)
    shift = sigma**2 * gradient  # steps as short as this one have the published weight
    assert torch.allclose((guided - x_hat).flatten(1), shift, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["super-resolution", "matrix"])
def test_moment_matched_twist_is_exact_for_gaussian_priors(kind):
    prior = correlated(SHAPE)
    one = measured(prior, OPERATORS[kind])
    A, R, mean, S = dense(one, prior)
    sigma = 0.3
    x_t = prior.sample(5, seed=2) + sigma * normal(5, *SHAPE)
    _, guided, log_psi = tds.moment_matched(prior.denoise, one)(x_t, sigma, 0.2)
    x_hat = mean + (x_t.flatten(1) - mean) @ gain(S, sigma)
    V = exact_moments(S, sigma)
    residual, covariance = one.y.flatten() - x_hat @ A.T, R + A @ V @ A.T
    assert torch.allclose(log_psi, log_density(residual, covariance), rtol=0, atol=1e-8)
    exact = x_hat + residual @ torch.linalg.inv(covariance) @ A @ V
    assert torch.allclose(guided.flatten(1), exact, rtol=0, atol=1e-9)


def test_covariances_with_negative_eigenvalues_are_replaced_by_their_variances():
    """And others are not, down to half of the floor."""
    floor = torch.eye(2).double()
    good = torch.tensor([[2.0, 1.0], [1.0, 1.0]]).double()
    slightly = torch.tensor([[0.5, 0.9], [0.9, 0.5]]).double()  # eigenvalues -0.4 and 1.4
    bad = torch.tensor([[0.5, 2.0], [2.0, -3.0]]).double()
    L = tds.cholesky(torch.stack([good, slightly, bad]), floor)
    product = L @ L.mT - floor
    assert torch.allclose(product, torch.stack([good, slightly, torch.diag(torch.tensor([0.5, 0.0]).double())]))


@pytest.mark.parametrize("sampler", [TDS(20, 300), TDSMoments(20, 300)], ids=lambda sampler: type(sampler).__name__)
def test_cloud_tends_to_the_posterior_of_a_gaussian_chain(sampler):
    prior, one = gaussian()
    twist = sampler.twist(prior, one)
    V = exact_moments if isinstance(sampler, TDSMoments) else white(prior.spread)
    sigmas = geometric(prior.sigma_max, prior.sigma_min, sampler.steps)
    law = twisted_posterior(prior, one, sigmas, V, lambda x_t, sigma: twist(x_t, sigma, 0.0)[1])
    x, _ = of_clouds(sampler, prior, one, sampler.particles)
    assert farthest_of_gaussian(x, *law) < FAR
    assert farthest_of_gaussian(x, *moments(posterior_of(prior, one))) > FAR  # what 20 steps get wrong is seen


@pytest.mark.parametrize("sampler", [TDS(40, 400), TDSMoments(40, 400)], ids=lambda sampler: type(sampler).__name__)
def test_cloud_finds_the_weights_of_the_modes_of_a_mixture(sampler):
    prior, one = mixture()
    x, _ = of_clouds(sampler, prior, one, sampler.particles)
    assert farthest(modes(x), *weighed_chain(sampler.steps)) < FAR


def test_weights_with_matched_moments_are_nearly_constant_for_gaussian_priors():
    """They would be constant if the chain were exact. Its steps change ln w by as much as their length, so that 1 / ESS
    - 1, its variance over all S steps without resampling, falls as 1 / S: by 4 from 40 to 160 steps, less the chance of
    two variances of 400 values, sqrt(2 / 400) of each, 3.3 times. White twists have not the covariance of this prior:
    their weights vary however many steps there are.
    """
    prior, one = gaussian()

    def excess(sampler):
        _, told = of_clouds(sampler, prior, one, sampler.particles, count=1)
        return 1 / float(told["effective sample size"][0, 0]) - 1

    few, many = (excess(TDSMoments(steps, 400, threshold=0.0)) for steps in (40, 160))
    assert few / many > 4 * (1 - 3.3 * math.sqrt(4 / 400))
    assert many < 0.1
    assert excess(TDS(160, 400, threshold=0.0)) > 3 * many


def test_twists_know_nothing_of_what_y_holds_under_the_holes():
    """In float32, where a constant of 1e8 in ln psi would leave nothing of its differences."""
    prior = correlated(SHAPE).float()
    operator = OPERATORS["inpaint"]
    y = operator(prior.sample(1, seed=1))
    for sampler in (TDS(4, 8), TDSMoments(4, 8), SMC(4, 8)):
        ones = [Measurement(each, operator, 0.01) for each in (y, torch.where(operator.mask, 100.0, y))]
        draws = [of_clouds(sampler, prior, one, 8, count=1)[0] for one in ones]
        assert torch.equal(*draws)


def test_long_steps_do_not_overshoot_where_one_direction_varies_most():
    """The mean colour of an image has 1000 times the variance of its values here. The published weight, that of a score
    and of `PiGDM` as a proposal, sends x_hat to 100 spreads and farther at 20 steps; ours leaves it where images are.
    """
    shape = (1, 32, 32)
    spectrum = torch.full(shape, 0.01 * 0.04).double()
    spectrum[0, 0, 0] = 0.99 * 1024 * 0.04
    prior = Gaussian.stationary(torch.full(shape, 0.5).double(), spectrum)
    one = measured(prior, Inpaint(random_mask(shape, 0.5, 0), shape))
    denoise, farthest_yet = prior.denoise, []

    def watched(x_t, sigma):
        x_hat = denoise(x_t, sigma)
        farthest_yet.append(float((x_hat.detach() - 0.5).abs().max()) / prior.spread)
        return x_hat

    prior.denoise = watched

    def peak(sampler):
        farthest_yet.clear()
        of_clouds(sampler, prior, one, 4, count=1)
        return max(farthest_yet)

    assert peak(TDS(20, 4)) < 12
    assert peak(SMC(20, 4, proposal=PiGDM())) > 100


def test_the_weight_of_the_gradient_is_that_of_pigdm():
    """min(sigma^2, v / (1 - r)) of the gradient, times the share 1 - r that a step moves."""
    prior, one = gaussian()
    twist = tds.isotropic(prior, one)
    x_t = prior.sample(2, seed=2)
    for sigma, sigma_next in ((5.0, 4.9), (5.0, 1.0), (0.1, 0.05)):
        x_hat, short, _ = twist(x_t, sigma, sigma * (1 - 1e-9))
        _, guided, _ = twist(x_t, sigma, sigma_next)
        share = 1 - (sigma_next / sigma) ** 2
        variance = (sigma * prior.spread) ** 2 / (sigma**2 + prior.spread**2)
        expected = min(sigma**2, variance / share) / sigma**2
        assert torch.allclose(guided - x_hat, expected * (short - x_hat), rtol=1e-9, atol=0)


def test_more_values_than_covariances_are_made_of_are_refused():
    prior = correlated((1, 8, 9))
    one = measured(prior, Inpaint(random_mask((1, 8, 9), 0.5, 0), (1, 8, 9)))
    with pytest.raises(UnsupportedError, match=r"64 values at most, and y has 72\. TDS takes any number"):
        TDSMoments(2, 2)(prior, one, one_cloud(2))


@pytest.mark.parametrize("wrong", [{"threshold": -0.1}, {"threshold": math.nan}, {"particles": 0}, {"steps": 0}])
@pytest.mark.parametrize("sampler", [TDS, TDSMoments])
def test_wrong_parameters_are_refused(sampler, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sampler(**wrong)

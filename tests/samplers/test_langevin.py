"""Langevin and Hamiltonian Monte Carlo on images, against exact posteriors of Gaussians and mixtures."""

import math

import pytest
import torch
from linear import NOISE, OPERATORS, SHAPE, dense, deviations, draw, measure

from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement, random_mask
from genprior.posteriors.exact import posterior_of
from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.samplers.chains.langevin import HMC, MALA, ULA


def independent(shape):
    D = math.prod(shape)
    variances = 0.02 + 0.08 * torch.linspace(0, 1, D, dtype=torch.float64)
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), variances.reshape(shape))


def correlated(shape):
    """exp(-distance / 3) between pixels, 0.8 between channels, sd 0.25: smooth, like a photograph."""
    channels, height, width = shape
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([i.flatten(), j.flatten()], 1).double()
    between_channels = 0.2 * torch.eye(channels, dtype=torch.float64) + 0.8
    covariance = 0.25**2 * torch.kron(between_channels, torch.exp(-torch.cdist(points, points) / 3))
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), covariance)


PRIORS = {"independent": independent, "correlated": correlated}


def moments(gaussian):
    """Mean (D,) and covariance (D, D)."""
    D = gaussian.mean.numel()
    eye = torch.eye(D, dtype=torch.float64).reshape(D, *gaussian.mean.shape)
    return gaussian.mean.flatten(), gaussian.covariance.filter(eye, gaussian.covariance.eigenvalues).flatten(1)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_hmc_matches_gaussian_posterior(prior, operator):
    """Of n exact draws, both figures are within 3.3 of 0; see `linear`."""
    prior = PRIORS[prior](OPERATORS[operator].image_shape)
    one = measure(prior, OPERATORS[operator])
    # a valid blur solves by conjugate gradients in every leapfrog step
    n = 20 if operator == "valid blur" else 200
    # 192 directions, of which the widest and the narrowest sd are 43 apart, take longer trajectories
    leapfrog = 15 if operator == "colorize" else 5
    draws, told = draw(HMC(steps=15, burn_in=20, leapfrog=leapfrog), prior, one, n)
    assert max(deviations(draws, *moments(posterior_of(prior, one)))) < 3.3
    assert 0.7 < told["acceptance"].mean() < 0.9


@pytest.mark.parametrize("prior", PRIORS)
def test_mala_matches_gaussian_posterior(prior):
    prior = PRIORS[prior](SHAPE)
    one = measure(prior, OPERATORS["inpaint"])
    draws, told = draw(MALA(steps=150, burn_in=50), prior, one, 200)
    assert max(deviations(draws, *moments(posterior_of(prior, one)))) < 3.3
    assert 0.5 < told["acceptance"].mean() < 0.7


def test_precise_measurements_do_not_slow_the_chain():
    """Noise of a hundredth of the spread: the metric has it in, and 35 transitions are as exact as before."""
    prior = correlated(SHAPE)
    one = measure(prior, OPERATORS["super-resolution"], noise=0.0025)
    draws, _ = draw(HMC(steps=15, burn_in=20, leapfrog=5), prior, one, 200)
    assert max(deviations(draws, *moments(posterior_of(prior, one)))) < 3.3


def law_of_ula(sampler, prior, one):
    """Mean and covariance of a chain's last state. With x_k - m = M^(-1/2) u_k and H = M^(-1/2) S^-1 M^(-1/2),

        u_k+1 = (I - step^2 / 2 H) u_k + step n,

    which starts at argmin_x |y - A x|^2 / noise^2 + |x - centre|^2 / spread^2.
    """
    m, S = moments(posterior_of(prior, one))
    A = dense(one.operator)
    eye = torch.eye(len(m), dtype=torch.float64)
    M = eye / prior.spread**2 + A.T @ A / one.noise**2
    l, V = torch.linalg.eigh(M)
    root, inverse_root = V * l.sqrt() @ V.T, V * l.rsqrt() @ V.T
    h, U = torch.linalg.eigh(inverse_root @ torch.linalg.inv(S) @ inverse_root)
    decay = 1 - sampler.step**2 / 2 * h
    centre = prior.mean.flatten()
    first = centre + torch.linalg.solve(M, A.T @ (one.y.flatten() - A @ centre)) / one.noise**2
    mean = m + inverse_root @ U @ (decay**sampler.steps * (U.T @ (root @ (first - m))))
    variance = sampler.step**2 * (1 - decay ** (2 * sampler.steps)) / (1 - decay**2)
    return mean, inverse_root @ (U * variance @ U.T) @ inverse_root, h


@pytest.mark.parametrize("operator", ["inpaint", "circular blur"])
def test_ula_has_the_law_of_its_recursion(operator):
    """The bias of the unadjusted chain is what theory says: the variances are too large.

    Where a chain has forgotten its start, the variance is 1 / (1 - step^2 h / 4) times the posterior's.
    """
    prior = independent(SHAPE)
    one = measure(prior, OPERATORS[operator])
    sampler = ULA(steps=40, step=0.9)
    draws, _ = draw(sampler, prior, one, 2000)
    mean, covariance, h = law_of_ula(sampler, prior, one)
    assert max(deviations(draws, mean, covariance)) < 3.3
    m, S = moments(posterior_of(prior, one))
    assert deviations(draws, m, S)[1] > 10
    settled = (1 / h) / (1 - sampler.step**2 * h / 4)
    ratio = float((torch.linalg.inv(S) @ covariance).trace() / (h * settled).sum())
    assert abs(ratio - 1) < 0.01


def test_ula_takes_out_its_bias_with_its_step():
    """With the default step the variances are 1 / (1 - 0.01 h) too large, here less than 4 %.

    Of n draws the mean ratio over 64 directions has the sd sqrt(2 / (64 n)).
    """
    prior = independent(SHAPE)
    one = measure(prior, OPERATORS["inpaint"])
    n = 300
    draws, _ = draw(ULA(steps=400), prior, one, n)
    m, S = moments(posterior_of(prior, one))
    ratio = float(((draws.flatten(1) - m) ** 2 / S.diagonal()).mean())
    _, _, h = law_of_ula(ULA(steps=400), prior, one)
    expected = float((1 / (1 - 0.2**2 * h / 4)).mean())
    assert 1 < expected < 1.04
    assert abs(ratio - expected) < 3.3 * math.sqrt(2 / (64 * n)) * expected


@pytest.mark.parametrize("sampler", [HMC(steps=30, burn_in=20, leapfrog=5), MALA(steps=200, burn_in=50)])
def test_chains_cross_between_near_modes(sampler):
    """Two modes 3 sd apart, of weights 0.3 and 0.7: the exact posterior is a mixture, too.

    Of n draws, the mean is off by sd / sqrt(n), and the share beyond the middle by sqrt(p (1 - p) / n).
    """
    n = 1500
    means = torch.tensor([[0.0, 0.0], [0.9, 0.0]], dtype=torch.float64)[:, :, None, None]
    prior = GaussianMixture(torch.tensor([0.3, 0.7]).double(), means, torch.full((2, 1, 1), 0.09, dtype=torch.float64))
    one = Measurement(torch.tensor([0.3, 0.2]).double().reshape(1, 2, 1, 1), Denoise((2, 1, 1)), 0.5)
    exact = posterior_of(prior, one).sample(200000, seed=3)[:, :, 0, 0]
    draws = draw(sampler, prior, one, n)[0][:, :, 0, 0]
    assert ((draws.mean(0) - exact.mean(0)) / exact.std(0)).abs().max() < 3.3 / math.sqrt(n)
    middle = exact[:, 0].mean()
    p = float((exact[:, 0] > middle).double().mean())
    assert abs((draws[:, 0] > middle).double().mean() - p) < 3.3 * math.sqrt(p * (1 - p) / n)
    # the fourth moment of these two-humped laws is below 3 sd^4: sqrt(2 / n) bounds a variance's relative sd
    assert abs(draws[:, 0].var() / exact[:, 0].var() - 1) < 3.3 * math.sqrt(2 / n)


class Positive(Prior):
    """Independent exponential pixels of mean 1: the energy is infinite below 0."""

    image_shape = (1, 2, 2)
    centre, spread = 1.0, 1.0

    def energy(self, x):
        return torch.where(x > 0, x, math.inf).sum((1, 2, 3))


def test_supports_are_kept():
    """y = x + n with exponential x: each pixel is N(y - noise^2, noise^2) cut at 0, whose mean and variance are known.

    The chain often runs into the wall, and takes its time.
    """
    n, noise, y = 3000, 0.5, 0.4
    one = Measurement(torch.full((1, 1, 2, 2), y, dtype=torch.float64), Denoise((1, 2, 2)), noise)
    draws, _ = draw(MALA(steps=300, burn_in=30), Positive(), one, n)
    a = -(y - noise**2) / noise
    density = math.exp(-(a**2) / 2) / math.sqrt(2 * math.pi)
    hazard = density / (0.5 * math.erfc(a / math.sqrt(2)))
    mean, variance = noise * (hazard - a), noise**2 * (1 + a * hazard - hazard**2)
    assert draws.min() > 0
    # 4 n independent values; the kurtosis of a truncated Gaussian is below that of the exponential, 9
    assert abs(draws.mean() - mean) < 3.3 * math.sqrt(variance / (4 * n))
    assert abs(((draws - mean) ** 2).mean() / variance - 1) < 3.3 * math.sqrt(8 / (4 * n))


SHORT = [HMC(steps=4, burn_in=3, leapfrog=3), MALA(steps=5, burn_in=3), ULA(steps=10)]


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
@pytest.mark.parametrize("sampler", SHORT)
def test_units_do_not_matter(sampler, scale):
    """A prior and a measurement in other units give the same draws in those units; without noise, too."""
    one = independent(SHAPE)
    other = Gaussian(scale * one.mean, scale**2 * one.covariance.eigenvalues)
    operator = OPERATORS["inpaint"]
    y = operator(one.sample(4, seed=1))
    for noise in (0.05, 0.0):
        draws = sampler(one, Measurement(y, operator, noise), Noise(0, range(4)))
        scaled = sampler(other, Measurement(scale * y, operator, scale * noise), Noise(0, range(4)))
        assert torch.allclose(scaled / scale, draws, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", SHORT)
def test_image_of_a_batch_does_not_depend_on_its_company(sampler):
    """Each image with its own mask and noise level, alone and in a batch: the same to rounding (float64)."""
    masks = torch.stack([random_mask(SHAPE, fraction, seed) for seed, fraction in enumerate((0.3, 0.5, 0.7))])
    prior = correlated(SHAPE)
    noise = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64).reshape(-1, 1, 1, 1)
    measurement = Measurement(Inpaint(masks, SHAPE)(prior.sample(3, seed=1)), Inpaint(masks, SHAPE), noise)
    together, told = sampler.draw(prior, measurement, Noise(0, [0, 1, 2]))
    for i in range(3):
        alone, told_alone = sampler.draw(prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
        assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)
        for name in told:
            assert torch.allclose(told_alone[name][0], told[name][i], rtol=1e-6)


@pytest.mark.parametrize("sampler", SHORT)
def test_calls_are_counted(sampler):
    """Every step evaluates the energy once, and differentiates it once."""
    prior, calls = independent(SHAPE), []
    energy = prior.energy
    prior.energy = lambda x: calls.append(1) or energy(x)
    draw(sampler, prior, Measurement(torch.zeros(1, *SHAPE).double(), Denoise(SHAPE), NOISE), 2)
    assert len(calls) == sampler.calls
    assert sampler.evaluations == 2 * sampler.calls


@pytest.mark.parametrize(
    ("sampler", "wrong"),
    [
        (ULA, {"steps": 7}),
        (ULA, {"step": 0}),
        (HMC, {"steps": 3}),
        (HMC, {"burn_in": 0}),
        (HMC, {"leapfrog": 0}),
        (MALA, {"steps": 3}),
        (MALA, {"burn_in": 0}),
    ],
)
def test_wrong_parameters_are_refused(sampler, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sampler(**wrong)

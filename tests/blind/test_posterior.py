"""Under a Gaussian prior the posterior of a blur's parameters is known: `identify` has to give that one."""

import math

import pytest
import torch

import genprior
from genprior.operators import for_measurement

SIDE, NOISE, RANGE = 14, 0.05, (0.5, 2.0)


def prior_of(channels=1, side=SIDE):
    """A stationary Gaussian whose spectrum falls like that of photographs."""
    f = torch.fft.fftfreq(side, dtype=torch.float64)
    spectrum = 0.01 / (f[:, None] ** 2 + f**2 + 0.05) ** 1.2
    mean = torch.full((channels, side, side), 0.4, dtype=torch.float64)
    return genprior.Gaussian.stationary(mean, spectrum.expand(channels, -1, -1))


def blurred(prior, op, seed, **parameters):
    A = for_measurement(op, prior.image_shape, boundary="circular", **parameters)
    y = A(prior.sample(1, seed=seed))
    return (y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)))[0]


def log_density(prior, y, op, noise=NOISE, **parameters):
    """ln N(y; A m, A S A^T + noise^2 I) by matrices, which `identify` does not make."""
    A = for_measurement(op, tuple(y.shape), boundary="circular", **parameters)
    I = torch.eye(y.numel(), dtype=torch.float64).unflatten(1, tuple(y.shape))
    S = prior.covariance.filter(I, prior.covariance.eigenvalues)
    K = A(A(S).flatten(1).T.unflatten(1, tuple(y.shape))).flatten(1) + noise**2 * torch.eye(y.numel())
    law = torch.distributions.MultivariateNormal(A(prior.mean[None])[0].flatten(), K)
    return float(law.log_prob(y.flatten().double()))


def moments(values, log_p):
    p = torch.softmax(log_p, 0)
    mean = (p * values).sum()
    return float(mean), float((p * (values - mean) ** 2).sum().sqrt())


def test_width_has_the_posterior_of_the_closed_form():
    """By quadrature at 60 widths: cells of at most 1 % of the posterior are off by less than 2 % of its deviation."""
    prior = prior_of()
    y = blurred(prior, "gaussian-deblur", 3, width=1.2)
    found = genprior.identify(y, "gaussian-deblur", prior=prior, noise=NOISE, width=RANGE, boundary="circular")
    widths = torch.linspace(*RANGE, 61, dtype=torch.float64)
    widths = (widths[1:] + widths[:-1]) / 2
    log_p = torch.tensor([log_density(prior, y, "gaussian-deblur", width=float(w)) for w in widths])
    mean, std = moments(widths, log_p)
    assert found.parameters["width"] == pytest.approx(mean, abs=0.02 * std)
    assert found.std["width"] == pytest.approx(std, rel=0.02)
    draws = found.draws["width"].sort().values
    below = torch.softmax(log_p, 0).cumsum(0)
    share = torch.searchsorted(draws, widths.contiguous() + (RANGE[1] - RANGE[0]) / 120) / len(draws)
    assert (share - below).abs().max() < 1.95 / math.sqrt(len(draws))  # Kolmogorov's bound, of which 0.1 % is above


def test_noise_has_the_posterior_of_the_closed_form():
    """With the width known; uniform in the logarithm, so quadrature over that."""
    prior = prior_of()
    y = blurred(prior, "gaussian-deblur", 3, width=1.2)
    given = {"width": 1.2, "boundary": "circular"}
    found = genprior.identify(y, "gaussian-deblur", prior=prior, noise=(0.02, 0.2), **given)
    levels = torch.linspace(math.log(0.02), math.log(0.2), 200, dtype=torch.float64).exp()
    log_p = torch.tensor([log_density(prior, y, "gaussian-deblur", noise=float(n), width=1.2) for n in levels])
    mean, std = moments(levels, log_p)
    assert found.noise == pytest.approx(mean, abs=0.02 * std)
    assert found.std["noise"] == pytest.approx(std, rel=0.02)


def test_motion_has_the_posterior_of_the_closed_form():
    """Length and angle together, on a grid of steps below the deviations, as which its own cells are uniform."""
    prior = prior_of()
    y = blurred(prior, "motion-deblur", 5, length=5, angle=170)
    given = {"length": (3.0, 7.0), "angle": (160, 190), "boundary": "circular"}
    found = genprior.identify(y, "motion-deblur", prior=prior, noise=NOISE, **given)
    grid = (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    lengths, angles = 3 + 4 * grid, 160 + 30 * grid
    log_p = torch.tensor(
        [[log_density(prior, y, "motion-deblur", length=float(l), angle=float(a)) for a in angles] for l in lengths]
    )
    for name, (mean, std) in {
        "length": moments(lengths, log_p.logsumexp(1)),
        "angle": moments(angles, log_p.logsumexp(0)),
    }.items():
        assert abs((found.parameters[name] - mean + 90) % 180 - 90) < 0.1 * std
        assert found.std[name] == pytest.approx(std, rel=0.1)


@pytest.mark.parametrize("number", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_the_truth_lies_anywhere_in_the_posterior(number):
    """Simulation-based calibration: of widths from the prior, the posterior below each is uniform.

    Kolmogorov's bound 1.95 / sqrt(number), above which 0.1 % are.
    """
    prior, below = prior_of(), []
    uniform = torch.rand(number, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k, u in enumerate(uniform.tolist()):
        width = RANGE[0] + u * (RANGE[1] - RANGE[0])
        y = blurred(prior, "gaussian-deblur", k, width=width)
        found = genprior.identify(y, "gaussian-deblur", prior=prior, noise=NOISE, width=RANGE, boundary="circular")
        below.append(float((found.draws["width"] < width).double().mean()))
    ranks = torch.tensor(below).sort().values
    uniform = (torch.arange(number) + 0.5) / number
    assert (ranks - uniform).abs().max() < 1.95 / math.sqrt(number)

"""Guidance is a denoiser: any integrator runs any of it, at the cost that it states."""

import pytest
import torch

from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement, random_mask
from genprior.posteriors.exact import posterior_of
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers import MMPS, TMPD, DiffPIR, PiGDM
from genprior.samplers.base import begin
from genprior.samplers.guidance.optimal_covariance import OptimalCovariance
from genprior.samplers.integrate import INTEGRATORS, heun
from genprior.truth.gaussian import moments

SHAPE = (1, 4, 4)


def problem():
    """Pixels of a Gaussian, half of them measured, for four chains."""
    variances = torch.linspace(0.5, 2.0, 16, dtype=torch.float64).reshape(SHAPE)
    prior = Gaussian(torch.zeros(SHAPE, dtype=torch.float64), variances)
    A = Inpaint(random_mask(SHAPE, 0.5, 0), SHAPE)
    y = A(prior.sample(1, seed=1)) + 0.5 * Noise(2, [0])(A(prior.sample(1, seed=1)))
    return prior, Measurement(y, A, 0.5).select(torch.zeros(4, dtype=torch.long)), Noise(3, [0] * 4, range(4))


class Counted(Gaussian):
    """Counts the calls of its denoiser."""

    def denoise(self, x_t, sigma, label=None):
        self.count = getattr(self, "count", 0) + 1
        return super().denoise(x_t, sigma)


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("guidance", [MMPS, TMPD, PiGDM, DiffPIR, OptimalCovariance])
def test_any_integrator_runs_any_guidance_in_the_calls_that_are_stated(guidance, integrator):
    prior, measurement, noise = problem()
    counted = Counted(prior.mean, prior.covariance.eigenvalues)
    sampler = guidance(steps=6, integrator=integrator)
    sampler(counted, measurement, noise)
    assert counted.count == sampler.calls
    assert sampler.evaluations == sampler.calls * guidance(steps=6).evaluations // 6


def test_heun_takes_exact_guidance_to_the_posterior_with_second_order():
    """The flow of a Gaussian posterior N(m, S) takes m + d at sigma to m + sqrt((S + sigma'^2) / (S + sigma^2)) d."""
    prior, measurement, noise = problem()
    m, covariance = moments(posterior_of(prior, measurement.select(torch.tensor([0]))))
    m, S = m.reshape(SHAPE), covariance.diagonal().reshape(SHAPE)  # pixels are independent
    sigma, last = prior.sigma_max, prior.sigma_min
    x_T = begin(prior, measurement, sigma, noise)
    # At the last level, E[x | x_t, y] is returned.
    exact = m + ((S + last**2) / (S + sigma**2)).sqrt() * S / (S + last**2) * (x_T - m)

    def error(steps):
        denoise = MMPS(iterations=16).guided(prior, measurement)
        x = heun(denoise, x_T, MMPS(steps=steps).levels(prior, 4))
        assert torch.equal(x, MMPS(steps=steps, iterations=16, integrator="heun")(prior, *problem()[1:]))
        return float((x - exact).abs().max())

    coarse, fine = error(80), error(160)
    assert fine < 0.01
    assert 3 < coarse / fine < 5


def test_parameters_that_an_integrator_has_no_use_for_are_refused():
    with pytest.raises(ValueError, match=r"eta is 0.5, but heun draws no noise"):
        MMPS(eta=0.5, integrator="heun")
    with pytest.raises(ValueError, match=r"Unknown integrator 'huen'.*Did you mean 'heun'"):
        MMPS(integrator="huen")
    with pytest.raises(ValueError, match=r"eta is 0.5, but euler draws no noise"):
        DiffPIR(eta=0.5, integrator="euler")
    with pytest.raises(ValueError, match=r"Unknown integrator None"):
        MMPS(integrator=None)

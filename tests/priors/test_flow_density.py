"""The density by the probability flow and the errors stated with it, on Gaussian data, in float64."""

import math

import pytest
import torch

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.priors.base import supports
from genprior.priors.ddpm import DDPM
from genprior.priors.foreign.denoiser import DenoiserPrior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.probability_flow import flow_estimates, flow_log_prob

SD, LOW, HIGH = 0.2, 0.01, 50.0


def correlated(noise=0.0):
    """N(0.5, S + noise^2 I), S with a correlation length of three pixels and the variance SD^2."""
    i = torch.arange(16, dtype=torch.float64)
    S = SD**2 * torch.exp(-(i[:, None] - i).abs() / 3)
    return Gaussian(torch.full((1, 4, 4), 0.5, dtype=torch.float64), S + noise**2 * torch.eye(16))


def known(truth, low=LOW, high=HIGH):
    """The prior of which there is the denoiser of that law, and a spread."""
    return DenoiserPrior(truth.denoise, truth.image_shape, low, high, 0.5, SD)


def density(x, **options):
    return flow_log_prob(known(correlated()), x, **options)


def images(n):
    """Images near and far from the centre: draws, spread twice as far."""
    return 0.5 + 2 * (correlated(LOW).sample(n, seed=1) - 0.5)


def test_stated_error_covers_the_true_one():
    """The probes' errors are nearly normal: of 40 estimates, each with 16 probes, none beyond 5 standard errors.

    Student's t with 15 degrees of freedom is beyond 5 once in 6000. Their mean square, in standard errors, is 15 / 13
    on average, with a standard deviation of 1.9 / sqrt(40) = 0.3: a statement too small or too large by half is seen.
    The rest, the law of x_T, is below sum of the variances / HIGH^2 = 16 SD^2 / HIGH^2 = 3e-4.
    """
    x = images(40)
    found = density(x, steps=100, probes=16)
    off = (found.value - correlated(LOW).log_prob(x)).abs()
    assert (off < 5 * found.probe_error + found.step_error + 3e-4).all()
    z = (found.value - density(x, steps=100, probes=16, seed=1).value) / (math.sqrt(2) * found.probe_error)
    assert 0.45 < float(z.square().mean()) < 2.2
    torch.testing.assert_close(found.error, found.probe_error + found.step_error)


def white(x, steps):
    """A denoiser whose Jacobian is a multiple of I: any probe meets its trace exactly, and only the steps err."""
    truth = Gaussian(torch.full((1, 4, 4), 0.5).double(), torch.full((1, 4, 4), SD**2).double())
    found = flow_log_prob(known(truth), x, steps=steps, probes=2)
    noisy = Gaussian(truth.mean, torch.full((1, 4, 4), SD**2 + LOW**2).double())
    return (found.value - noisy.log_prob(x)).abs(), found


def test_step_error_is_three_times_the_true_one():
    """Heun's error is c / steps^2: half the steps are off by 4 c, so that they differ from these by 3 c."""
    x = images(5)
    off, found = white(x, 200)
    assert float(found.probe_error.max()) < 1e-12  # of a trace that every probe meets
    ratios = found.step_error / off
    assert 2.5 < float(ratios.min()) <= float(ratios.max()) < 3.5
    torch.testing.assert_close(white(x, 400)[0] / off, torch.full_like(off, 0.25), rtol=0.15, atol=0)


def test_law_of_noisy_images_has_the_spread_of_the_images_too():
    """Of white images it is N(0.5, (SD^2 + sigma^2) I) at every level, so that one may stop at sigma = SD as well.

    A spread 10 % off would change ln p by up to 16 / 2 ln 1.1 = 0.8 nats.
    """
    variances = torch.full((1, 4, 4), SD**2).double()
    truth = Gaussian(torch.full((1, 4, 4), 0.5).double(), variances)
    noisy, x = Gaussian(truth.mean, variances + LOW**2), images(5)
    found = flow_log_prob(known(truth, high=SD), x, steps=100, probes=2)
    assert float(found.step_error.max()) < 2e-2
    assert ((found.value - noisy.log_prob(x)).abs() < found.step_error).all()


def test_probe_error_is_the_standard_error_of_the_mean_over_the_probes():
    x = images(3)
    for probes in (2, 5):
        each = flow_estimates(known(correlated()), x, None, 0, 10, probes)
        found = density(x, steps=10, probes=probes)
        torch.testing.assert_close(found.value, each.mean(0))
        square = (each - each.mean(0)).square().sum(0) / (probes - 1) / probes
        torch.testing.assert_close(found.probe_error, square.sqrt())


def test_estimate_of_an_image_owes_nothing_to_its_company():
    x = images(3)
    alone, together = density(x[:1], steps=10), density(x, steps=10)
    assert_close = torch.testing.assert_close
    assert_close(alone.value, together.value[:1])
    assert_close(alone.probe_error, together.probe_error[:1])
    assert_close(density(x, steps=10, seed=0).value, together.value, rtol=0, atol=0)
    assert float((density(x, steps=10, seed=1).value - together.value).abs().min()) > 1e-3


def test_single_probe_states_no_error_of_its_own():
    found = density(images(2), steps=4, probes=1)
    assert found.probe_error.isnan().all()
    assert found.step_error.isfinite().all()


@pytest.mark.parametrize(("options", "message"), [({"steps": 5}, "even"), ({"steps": 0}, "even"), ({"probes": 0}, "1")])
def test_numbers_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        density(images(1), **options)


def ddpm(**arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = DDPM((1, 4, 4), widths=(8, 8), patch=1, steps=20, **arguments)
        for parameter in prior.parameters():
            parameter.data.normal_(std=0.2)
    return prior


def test_ddpm_has_the_density_under_its_own_name_and_in_full_precision():
    prior, x = ddpm(), Noise(0, torch.arange(2))(torch.empty(2, 1, 4, 4))
    assert supports(prior, "flow_log_prob")
    assert not supports(prior, "log_prob")
    found = prior.flow_log_prob(x, steps=4, probes=2)
    levels = (prior.sigma_min, prior.sigma_max)
    plain = DenoiserPrior(prior.denoise, prior.image_shape, *levels, 0.5, prior.spread)
    wanted = flow_log_prob(plain, x, steps=4, probes=2)
    prior.autocast = torch.bfloat16
    rounded = prior.flow_log_prob(x, steps=4, probes=2)
    for each in (found, rounded):
        torch.testing.assert_close(each.value, wanted.value, rtol=0, atol=0)
    assert prior.autocast == torch.bfloat16
    with pytest.raises(UnsupportedError, match="Gaussian has no flow_log_prob"):
        correlated().flow_log_prob(x)


def test_density_given_a_label_is_that_of_the_label():
    prior, x = ddpm(classes=3), Noise(0, torch.arange(2))(torch.empty(2, 1, 4, 4))
    found = prior.given(1).flow_log_prob(x, steps=4, probes=2)
    wanted = prior.flow_log_prob(x, torch.ones(2, dtype=torch.long), steps=4, probes=2)
    torch.testing.assert_close(found.value, wanted.value, rtol=0, atol=0)
    assert float((prior.flow_log_prob(x, steps=4, probes=2).value - wanted.value).abs().min()) > 1e-3

"""The covariance that is estimated along the chain, against Gaussians whose covariance is known."""

import pytest
import torch

import genprior
from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement, random_mask
from genprior.priors.foreign.denoiser import DenoiserPrior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers import OptimalCovariance, ProbedCovariance, automatic, find_estimator
from genprior.samplers.guidance.correction import correction
from genprior.samplers.guidance.probed_covariance import cosines, frequency_bands, in_bands

SHAPE = (3, 24, 32)


def field(shape, slope):
    """A stationary Gaussian, its colours independent, its spectrum falling as a power of the frequency."""
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64).abs() for n in shape[1:])
    radius = torch.hypot(rows[:, None], columns).clamp_min(1 / max(shape[1:]))
    spectrum = 0.01 * (radius / 0.1) ** -slope
    return Gaussian.stationary(torch.full(shape, 0.5, dtype=torch.float64), spectrum.expand(shape))


def hidden(prior):
    """The same denoiser, of which nothing else is known."""
    return DenoiserPrior(prior.denoise, prior.image_shape, prior.sigma_min, prior.sigma_max, 0.5, prior.spread)


@pytest.mark.parametrize("C", [1, 2, 3, 4])
def test_colours_are_seen_along_orthonormal_axes_the_first_of_them_grey(C):
    Q = cosines(C).double()
    torch.testing.assert_close(Q.T @ Q, torch.eye(C, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(Q[:, 0], torch.full((C,), C**-0.5, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 24, 32), (1, 1, 7), (1, 1, 1)])
def test_bands_share_every_frequency(shape):
    bands = frequency_bands(shape)
    assert bands.shape[:2] == shape[1:]
    torch.testing.assert_close(bands.sum(-1), torch.ones(shape[1:]))
    assert (bands >= 0).all()


def test_mean_eigenvalues_of_bands_are_found():
    """Of a white J they are exact; of a steep one within the chance of so many coordinates (Hutchinson's estimate).

    sum z J z / sum z^2 over n coordinates with eigenvalues l has variance 2 var(l) / n about the mean of l, as the
    axes of J are those of the bands here.
    """
    prior, sigma = field(SHAPE, 2.0), 0.2
    z = Noise(0, [0])(torch.empty(1, *SHAPE, dtype=torch.float64))
    basis, bands = prior.covariance.identity(SHAPE).double(), frequency_bands(SHAPE).double()
    torch.testing.assert_close(in_bands(basis, bands, z, 0.3 * z), torch.full((1, 3, 10), 0.3, dtype=torch.float64))
    gain = prior.covariance.eigenvalues / (prior.covariance.eigenvalues + sigma**2)
    found = in_bands(basis, bands, z, prior.covariance.filter(z, gain))[0]
    mean = torch.einsum("chw,hwk->ck", gain, bands) / bands.sum((0, 1))
    square = torch.einsum("chw,hwk->ck", gain**2, bands) / bands.sum((0, 1))
    n = bands.sum((0, 1)) ** 2 / bands.square().sum((0, 1))
    assert ((found - mean).abs() <= 4 * ((square - mean**2).clamp_min(0) * 2 / n).sqrt() + 1e-9).all()


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_draws_have_nearly_the_posterior_of_a_stationary_gaussian(noise):
    """Mean and variance of 200 draws in the holes, beside those that know the covariance itself.

    Their variances agree within 10 %: a band holds eigenvalues that differ by a factor e^0.7 or so. 3.3 standard
    errors of the ratio of variances over 900 values, of 200 draws each, of which neighbours depend on one another,
    are less.
    """
    prior = field((1, 24, 32), 2.0)
    A = Inpaint(random_mask((1, 24, 32), 0.6, seed=1), (1, 24, 32))
    y = A(prior.sample(1, seed=1))
    y = y + noise * Noise(2, [0])(y)
    rows = torch.zeros(200, dtype=torch.long)
    measurement = Measurement(y, A, noise).select(rows)
    known = OptimalCovariance(steps=30, iterations=40)(prior, measurement, Noise(3, rows, range(200)))
    probed = ProbedCovariance(steps=30, iterations=40)(hidden(prior), measurement, Noise(4, rows, range(200)))
    hole = A(torch.ones_like(y))[0] == 0
    ratio = probed.var(0)[hole].mean() / known.var(0)[hole].mean()
    assert ratio == pytest.approx(1, abs=0.1)
    error = (probed.mean(0) - known.mean(0))[hole].square().mean() / known.var(0)[hole].mean()
    assert error < 2 / 200 + 0.15**2


def test_a_row_does_not_depend_on_its_company():
    prior = hidden(field(SHAPE, 1.0))
    A = Inpaint(random_mask(SHAPE, 0.6, seed=1), SHAPE)
    y = A(field(SHAPE, 1.0).sample(3, seed=1))
    measurement = Measurement(y, A, 0.05)
    together = ProbedCovariance(steps=6)(prior, measurement, Noise(0, [0, 1, 2]))
    for i in range(3):
        alone = ProbedCovariance(steps=6)(prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-9)


def test_auto_takes_it_for_denoisers_of_any_size_that_were_never_measured():
    open_to_any = genprior.from_denoiser(lambda x_t, sigma: x_t / (1 + sigma**2), (3, None, None))
    A = Inpaint(random_mask(SHAPE, 0.6, seed=1), SHAPE)
    assert automatic(open_to_any) == ProbedCovariance()
    picture = find_estimator(open_to_any, A)
    assert (type(picture), picture.integrator, picture.evaluations) == (ProbedCovariance, "fresh", 20)
    assert ProbedCovariance().evaluations == 40
    # digits have their places, of which a spectrum knows nothing
    of_one_size = hidden(field(SHAPE, 1.0))
    assert type(automatic(of_one_size)).__name__ == "DiffPIR"
    assert find_estimator(of_one_size, A) is None


def test_evaluations_and_rows_are_counted():
    """A denoiser that counts the rows that it is shown."""
    seen = 0

    def denoise(x_t, sigma):
        nonlocal seen
        seen += len(x_t)
        return x_t / (1 + sigma**2)

    prior = genprior.from_denoiser(denoise, (1, None, None))
    seen = 0  # but for the look at whether it is a denoiser
    y = torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(0))
    sampler = ProbedCovariance(steps=7)
    result = genprior.restore(
        y, "inpaint", prior, mask=torch.eye(12), noise=0.1, n=3, sampler=sampler, progress=False, seed=0
    )
    assert seen == result.network_evaluations == 3 * 14


def test_an_image_of_much_variance_leaves_the_others_as_they_are():
    """Two images, each with a V of its own: the least variance that counts is that of each by itself."""
    shape = (1, 6, 6)
    A = Inpaint(random_mask(shape, 0.5, seed=1), shape)
    basis, scales = field(shape, 1.0).covariance, torch.tensor([1e-12, 1e2], dtype=torch.float64)
    spectra = scales.reshape(2, 1, 1, 1) * basis.eigenvalues
    gradient = A.adjoint(Noise(2, [0, 1])(torch.empty(2, *shape, dtype=torch.float64)))
    normal = torch.full((1, 1, 1, 1, 1), 0.5, dtype=torch.float64)

    def corrected(rows):
        return correction(basis.with_eigenvalues(spectra[rows]), A, 1e-6, gradient[rows], normal, 40)

    together = corrected([0, 1])
    for i in range(2):
        torch.testing.assert_close(corrected([i])[0], together[i], rtol=1e-9, atol=0)

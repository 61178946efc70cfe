"""What single precision may hide from closed forms: nothing that is above the noise and the rounding of y."""

import math

import pytest
import torch

from genprior.operators.blur import Blur
from genprior.operators.build import for_image
from genprior.operators.linear import LinearOperator
from genprior.operators.matrix import Matrix
from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import posterior_of
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture

SHAPE = (1, 8, 8)
SINGLE, DOUBLE = torch.float32, torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def one_large(small, dtype):
    """Independent pixels of the deviation `small`, and one of 10."""
    sd = torch.full(SHAPE, small, dtype=dtype)
    sd[0, 0, 0] = 10
    return Gaussian(torch.full(SHAPE, 0.5, dtype=dtype), sd**2)


# Variances are stored with relative rounding, and a sum of squares over 64 pixels adds a few times that.
@pytest.mark.parametrize(("dtype", "tolerance"), [(SINGLE, 1e-5), (DOUBLE, 1e-9)])
@pytest.mark.parametrize(("small", "noise"), [(1e-3, 1e-4), (1e-4, 1e-6), (1e-5, 1e-3)])
def test_small_deviations_beside_a_large_one_are_measured(small, noise, dtype, tolerance):
    """The least of singular values is 1e-6 of the largest, 64 eps of float32 are 8e-6."""
    prior = one_large(small, dtype)
    y = prior.sample(1, seed=1)
    posterior = posterior_of(prior, Measurement(y, for_image("denoise", SHAPE), noise))
    l = (prior.covariance.eigenvalues.double() * noise**2) / (prior.covariance.eigenvalues.double() + noise**2)
    found = posterior.covariance.filter(
        torch.eye(64, dtype=DOUBLE).reshape(64, *SHAPE), posterior.covariance.eigenvalues
    )
    torch.testing.assert_close(found.flatten(1).diagonal(), l.flatten(), rtol=tolerance, atol=0)
    mean = prior.mean + prior.covariance.eigenvalues / (prior.covariance.eigenvalues + noise**2) * (y[0] - prior.mean)
    torch.testing.assert_close(posterior.mean, mean, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-5])
def test_blur_of_a_stationary_gaussian_has_the_variances_of_its_frequencies(noise, dtype):
    """Blur and covariance commute: l noise^2 / (|k^|^2 l + noise^2), over seven decades of |k^| sqrt(l)."""
    rows, columns = (torch.fft.fftfreq(8, dtype=DOUBLE)[:, None], torch.fft.fftfreq(8, dtype=DOUBLE)[None])
    spectrum = (1e-3 + rows**2 + columns**2) ** -1.5 / 1000
    prior = Gaussian.stationary(torch.full(SHAPE, 0.5, dtype=dtype), spectrum[None])
    kernel = torch.exp(-(torch.arange(-3, 4, dtype=DOUBLE) ** 2) / 2)
    A = Blur(kernel.outer(kernel) / kernel.sum() ** 2, SHAPE, boundary="circular")
    posterior = posterior_of(prior, Measurement(A(prior.sample(1, seed=1)), A, noise))
    s, l = A.svd().singular_values.double(), prior.covariance.eigenvalues.double()
    truth = (l * noise**2 / (s**2 * l + noise**2)).flatten().sort().values
    found = posterior.covariance.eigenvalues.double().flatten().sort().values
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=0)


def test_what_is_not_seen_hides_no_small_deviation():
    """Of F F^T rather than F, with a variance of 100 not seen, all below 1e-13 would be rounding."""
    prior, noise = one_large(1e-3, SINGLE), 1e-7
    A = Matrix(torch.eye(64, dtype=DOUBLE)[1:], SHAPE)
    posterior = posterior_of(prior, Measurement(A(prior.sample(1, seed=1).double()), A, noise))
    l = posterior.covariance.eigenvalues.double().flatten().sort().values
    torch.testing.assert_close(l[:63], torch.full((63,), noise**2, dtype=DOUBLE), rtol=1e-5, atol=0)
    assert float(l[63]) == pytest.approx(100)


def test_a_small_direction_tells_components_apart():
    """Two means, 5 noises apart in one pixel, beside one of a deviation 10: the nearer one has the weight."""
    noise, variances = 1e-4, one_large(1e-6, SINGLE).covariance.eigenvalues
    means = torch.full((2, *SHAPE), 0.5)
    means[1, 0, 3, 3] += 5 * noise
    prior = GaussianMixture(torch.tensor([0.5, 0.5]), means, variances)
    posterior = posterior_of(prior, Measurement(means[1:], for_image("denoise", SHAPE), noise))
    off = float(means[1, 0, 3, 3].double() - 0.5)
    log_odds = off**2 / 2 / (noise**2 + 1e-12)
    assert float(posterior.weights[0]) == pytest.approx(math.exp(-log_odds), rel=1e-3)


def test_noiseless_blur_in_single_precision_is_not_inverted_beyond_the_rounding_of_y():
    """Deviations below the rounding of y stay unknown: no direction ends farther off than a few of its own."""
    kernel = torch.exp(-(torch.arange(-3, 5, dtype=DOUBLE) ** 2) / 8)
    A = Blur(kernel.outer(kernel) / kernel.sum() ** 2, SHAPE, boundary="circular")  # |k^| down to 1e-17
    prior = Gaussian(torch.full(SHAPE, 0.5), torch.full(SHAPE, 0.1))
    x = prior.sample(1, seed=1)
    posterior = posterior_of(prior, Measurement(A(x), A, 0.0))
    s = A.svd().singular_values.double() * math.sqrt(0.1)
    known = int((posterior.covariance.eigenvalues == 0).sum())
    assert int((s > 1e-5).sum()) <= known <= int((s > 1e-8).sum())
    z = A.svd().Vt((posterior.mean - x[0])[None].double()) / math.sqrt(0.1)
    assert float(z.abs().max()) < 5
    assert float(z[s > 1e-4].abs().max()) < 0.01


class Single(LinearOperator):
    """A matrix that is multiplied in float32, whatever x is."""

    precision = SINGLE

    def __init__(self, M):
        self.M, self.image_shape, self.measurement_shape = M.float(), SHAPE, (len(M), 1, 1)

    def _forward(self, x):
        return (x.float().flatten(1) @ self.M.T).reshape(-1, len(self.M), 1, 1).to(x)

    def _adjoint(self, y):
        return (y.float().flatten(1) @ self.M).reshape(-1, *SHAPE).to(y)

    def _select(self, index):
        return self


def test_rounding_of_an_operator_in_single_precision_is_no_measurement():
    """Of rank 5 but for rounding, of 64: 59 directions keep their variance."""
    M = normal(40, 5) @ normal(5, 64, seed=1)
    prior = Gaussian(torch.full(SHAPE, 0.5), torch.full(SHAPE, 0.1))
    A = Single(M)
    posterior = posterior_of(prior, Measurement(A(prior.sample(1, seed=1)), A, 0.0))
    l = posterior.covariance.eigenvalues.double().flatten().sort().values
    assert (l[:5] == 0).all()
    torch.testing.assert_close(l[5:], torch.full((59,), 0.1, dtype=DOUBLE), rtol=1e-5, atol=0)
    assert (A @ for_image("denoise", SHAPE)).precision == SINGLE


@pytest.mark.parametrize("form", ["diagonal", "dense"])
@pytest.mark.parametrize(("distance", "sd"), [(300.0, 0.01), (1000.0, 1e-3), (10.0, 1.0)])
def test_mixture_in_single_precision_of_far_means_has_its_own_density(form, distance, sd):
    """The mixture of the stored values: float32 adds nothing but the rounding of the result, 64 ln(1000) of 6e-8."""
    means = distance * normal(4, *SHAPE).float()
    means[1] = means[0] + sd / 4
    S = torch.full(SHAPE, sd**2)
    if form == "dense":
        Q = torch.linalg.qr(normal(64, 64)).Q
        S = (Q * torch.logspace(0, -1, 64, dtype=DOUBLE) * sd**2) @ Q.T
        S = ((S + S.T) / 2).float()
    prior = GaussianMixture(torch.full((4,), 0.25), means, S)
    x = (means[[0, 1, 2]] + sd * normal(3, *SHAPE, seed=2)).float().requires_grad_()
    l = prior.covariance.eigenvalues.double()
    whitened = torch.stack([prior.covariance.filter(x.double() - m, l.rsqrt()) for m in prior.means.double()], 1)
    log_w = prior.weights.double().log() - whitened.square().sum((2, 3, 4)) / 2
    log_p = log_w.logsumexp(1) - (2 * math.pi * l).log().sum() / 2
    torch.testing.assert_close(prior.log_prob(x).double(), log_p, rtol=0, atol=5e-5)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    torch.testing.assert_close(prior.score(x), score, rtol=1e-4, atol=1e-4 * float(score.abs().max()))
    whitened = torch.stack(
        [prior.covariance.filter(x.double() - m, (l + sd**2).rsqrt()) for m in prior.means.double()], 1
    )
    given = (prior.weights.double().log() - whitened.square().sum((2, 3, 4)) / 2).softmax(1)
    m = torch.tensordot(given, prior.means.double(), 1)
    x_hat = m + prior.covariance.filter(x.double() - m, l / (l + sd**2))
    torch.testing.assert_close(prior.denoise(x, sd).double(), x_hat, rtol=6e-8, atol=0)


def test_density_in_single_precision_of_a_wide_spectrum():
    """Deviations from 10 to 1e-3 along the frequencies, where float32 would whiten with an error of 0.001 each."""
    shape = (1, 32, 32)
    rows = torch.fft.fftfreq(32, dtype=DOUBLE).abs()
    spectrum = (100 * (1e-8 ** ((rows[:, None] + rows[None]) / 1.0)))[None]
    prior = Gaussian.stationary(torch.zeros(shape), spectrum)
    x = prior.sample(2, seed=1)
    l = prior.covariance.eigenvalues.double()
    whitened = prior.covariance.filter(x.double(), l.rsqrt())
    log_p = -(2 * math.pi * l).log().sum() / 2 - whitened.square().sum((1, 2, 3)) / 2
    torch.testing.assert_close(prior.log_prob(x).double(), log_p, rtol=1e-7, atol=0)

"""The Gaussian field of any size, against dense matrices; in float64, where these agree to 1e-12."""

import math

import pytest
import torch

from genprior.noise import Noise
from genprior.operators import Denoise
from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import has_posterior
from genprior.priors.gaussian.field import GaussianField
from genprior.priors.gaussian.fit import DEQUANTISATION
from genprior.samplers import find_sampler
from genprior.samplers.exact import Exact
from genprior.samplers.guidance.probed_covariance import ProbedCovariance

N = 6


def crops(n=8, channels=3, seed=0):
    x = torch.rand(n, channels, N, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (255 * (x + x.roll(1, -1) + x.roll(1, -2) + x.roll(1, 1)) / 4).round() / 255


def matrix(prior):
    """The covariance of a prior, (D, D)."""
    eye = torch.eye(math.prod(prior.image_shape), dtype=prior.mean.dtype).unflatten(1, prior.image_shape)
    return prior.covariance.filter(eye, prior.covariance.eigenvalues).flatten(1)


def covariance_function(field):
    """c(d) of each axis of colour at the lags d = -N … N along both sides, (C, 2 N + 1, 2 N + 1)."""
    lags = torch.arange(-N, N + 1, dtype=torch.float64)
    i, j = (torch.arange(2 * N, dtype=torch.float64) for _ in "ij")
    rows, columns = (torch.exp(2j * math.pi * lags[:, None] * f / (2 * N)) for f in (i, j))
    c = torch.einsum("di,cij,ej->cde", rows, field.density.to(rows.dtype), columns) / (2 * N) ** 2
    assert c.imag.abs().max() < 1e-12
    return c.real


@pytest.mark.parametrize("size", [(3, 3), (6, 6), (2, 9), (8, 5), (1, 4)])
def test_image_of_one_size_has_the_circulant_covariance_nearest_to_the_field(size):
    """The nearest circulant matrix is the mean of the field's own over all shifts of rows and columns together."""
    H, W = size
    field = GaussianField.fit(crops())
    c = covariance_function(field)
    i, j = (a.flatten() for a in torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij"))

    def toeplitz(k):
        di, dj = i[:, None] - i, j[:, None] - j
        values = c[k][(di.clamp(-N, N) + N), (dj.clamp(-N, N) + N)]
        return torch.where((di.abs() <= N) & (dj.abs() <= N), values, 0)

    nearest = []
    for k in range(3):
        S = toeplitz(k).reshape(H, W, H, W)
        shifts = [S.roll((a, b, a, b), (0, 1, 2, 3)) for a in range(H) for b in range(W)]
        nearest.append(torch.stack(shifts).mean(0).reshape(H * W, H * W))
    Q = torch.kron(field.axes.contiguous(), torch.eye(H * W, dtype=torch.float64))
    expected = Q @ torch.block_diag(*nearest) @ Q.T
    torch.testing.assert_close(matrix(field.sized(H, W)), expected, rtol=0, atol=1e-12)


def test_variance_of_a_value_is_the_same_at_any_size_and_none_is_below_that_of_dequantisation():
    field = GaussianField.fit(crops())
    variance = (field.axes**2 @ field.density.mean((1, 2)))[:, None]
    for size in ((1, 1), (5, 7), (30, 20)):
        prior = field.sized(*size)
        of_pixels = matrix(prior).diagonal().reshape(3, -1)
        torch.testing.assert_close(of_pixels, variance.expand_as(of_pixels), rtol=1e-12, atol=0)
        assert prior.covariance.eigenvalues.min() >= DEQUANTISATION
        assert prior.spread == pytest.approx(field.spread, rel=1e-12)
        assert prior.image_shape == (3, *size)
    assert field.image_shape == (3, None, None)


def test_fit_has_the_windowed_covariances_of_the_crops():
    """c(d) is the sum over pairs of pixels at the distance d of w r r', r the deviation from the mean colour."""
    x = crops(channels=1)
    field = GaussianField.fit(x)
    hann = torch.sin(math.pi * torch.arange(1, N + 1, dtype=torch.float64) / (N + 1)) ** 2
    w = hann.outer(hann) / hann.square().sum()
    r = w * (x - x.mean())
    c = covariance_function(field)[0]
    for di, dj in ((0, 0), (0, 1), (2, -1), (N - 1, 3), (N, 0)):
        later = torch.zeros_like(r)
        rows, columns = slice(max(di, 0), N), slice(max(dj, 0), N + min(dj, 0))
        later[..., : N - di, max(-dj, 0) : N - max(dj, 0)] = r[..., rows, columns]
        direct = (255 / 256) ** 2 * (r * later).sum((1, 2, 3)).mean() + (DEQUANTISATION if di == dj == 0 else 0)
        assert float(c[N + di, N + dj]) == pytest.approx(float(direct), abs=1e-12)
    torch.testing.assert_close(field.mean.flatten(), (255 * x.mean((0, 2, 3)) + 0.5) / 256)


def test_what_a_field_says_of_an_image_is_what_the_gaussian_of_its_size_says():
    field = GaussianField.fit(crops())
    prior, x = field.sized(4, 7), torch.rand(2, 3, 4, 7, dtype=torch.float64)
    for method in ("log_prob", "score", "decode", "encode", "energy"):
        assert torch.equal(getattr(field, method)(x), getattr(prior, method)(x))
    assert torch.equal(field.denoise(x, 0.2), prior.denoise(x, 0.2))
    assert torch.equal(field.sample(2, seed=3, size=(4, 7)), prior.sample(2, seed=3))
    assert has_posterior(prior)
    assert not has_posterior(field)


def test_exact_draws_are_at_hand_where_the_image_is_small():
    """At noise far below the least deviation, y is what is drawn; but "auto" takes what works at any size."""
    field = GaussianField.fit(crops())
    y = field.sample(1, size=(4, 5))
    measurement = Measurement(y, Denoise((3, 4, 5)), 1e-6)
    assert isinstance(find_sampler("auto", field), ProbedCovariance)
    x = Exact()(field.sized(4, 5), measurement, Noise(0, [1]))
    # drawn with the deviation 1e-6, and drawn to the mean by (1e-6 / 1e-3)^2 of less than 1
    assert (x - y).abs().max() < 6e-6


def test_what_cannot_be_a_field_is_refused():
    for wrong, message in (
        (crops()[0], r"shape \(3, 6, 6\): give floats \(K, C, N, N\)"),
        (crops()[..., :5], r"\(8, 3, 6, 5\)"),
        (crops()[:0], r"\(0, 3, 6, 6\)"),
        (2 * crops(), r"outside \[0, 1\]"),
        (crops() * math.nan, r"none that are numbers"),
        ((255 * crops()).byte(), "torch.uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            GaussianField.fit(wrong)
    for shape, frequencies, message in (
        ((3, 4, 4), 8, "image_shape is"),
        ((0, None, None), 8, "image_shape is"),
        ((3, None, None), 7, "frequencies is 7"),
        ((3, None, None), "8", "frequencies is '8'"),
    ):
        with pytest.raises(ValueError, match=message):
            GaussianField.blank(shape, frequencies)
    with pytest.raises(ValueError, match="say which one, as size="):
        GaussianField.fit(crops()).sample(1)

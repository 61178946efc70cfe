"""The fit of covariances to images; in float64, where closed forms of these sizes agree to 1e-12 unless said otherwise.

Of n independent draws of N(m, S) a mean has the variance S_ii / n, an entry of the covariance (S_ii S_jj + S_ij^2) / n;
chance exceeds 5 standard deviations once in 10^6.
"""

import math

import pytest
import torch

import genprior
from genprior.bits import bits_per_dim, dequantize
from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.posteriors.exact import has_posterior
from genprior.priors.gaussian import fit
from genprior.priors.gaussian.covariance import FORMS, Stationary, reflected
from genprior.priors.gaussian.fit import DEQUANTISATION
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture

SHAPE = (3, 4, 5)
D = math.prod(SHAPE)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def grey_levels(n, shape=SHAPE, seed=0):
    """Images of 8 bits whose neighbours and channels are correlated."""
    x = torch.rand(n, *shape, generator=generator(seed), dtype=torch.float64)
    x = (x + x.roll(1, -1) + x.roll(1, -2) + x.roll(1, 1)) / 4
    return (255 * x).round() / 255


def matrix(prior):
    """The covariance of a prior, (D, D)."""
    eye = torch.eye(math.prod(prior.image_shape), dtype=prior.mean.dtype).unflatten(1, prior.image_shape)
    return prior.covariance.filter(eye, prior.covariance.eigenvalues).flatten(1)


def colour_field():
    """A Gaussian whose fields along three random axes of colour are circulant: mean, spectrum and axes."""
    axes = torch.linalg.qr(torch.randn(3, 3, generator=generator(1), dtype=torch.float64)).Q
    spectrum = 0.002 * torch.rand(SHAPE, generator=generator(2), dtype=torch.float64) + 1e-4
    spectrum = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)[:, None, None] * (spectrum + reflected(spectrum)) / 2
    mean = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)[:, None, None].expand(SHAPE)
    return Gaussian(mean, Stationary(spectrum, axes))


def standard_errors(S, n):
    return ((S.diagonal().outer(S.diagonal()) + S**2) / n).sqrt()


def known(form):
    if form == "stationary":
        return colour_field()
    x = 0.25 + grey_levels(200, seed=3) / 2
    return Gaussian(x.mean(0), x.var(0) if form == "diagonal" else torch.cov(x.flatten(1).T))


@pytest.mark.parametrize("form", FORMS)
def test_fit_recovers_a_known_gaussian(form):
    n, truth = 4000, known(form)
    x = truth.sample(n, seed=4)
    m, S = truth.mean, matrix(truth)
    assert 0 < x.min() < x.max() < 1  # nothing to clip
    fitted = Gaussian.fit(x, form)
    eye = torch.eye(D, dtype=torch.float64)
    expected = (255 / 256) ** 2 * S + DEQUANTISATION * eye
    assert ((fitted.mean - (255 * m + 0.5) / 256).flatten().abs() < 5 * (S.diagonal() / n).sqrt() + 1e-6).all()
    assert ((matrix(fitted) - expected).abs() < 5 * standard_errors(S, n) + 1e-9).all()


def test_fit_has_the_moments_of_dequantised_images():
    """Of 5 images, dequantised 20000 times: the deviations of u alone, of variance q, are the Monte-Carlo error."""
    n, x = 20000, grey_levels(5, (1, 2, 3))
    fitted = Gaussian.fit(x)
    drawn = dequantize(x.repeat(n, 1, 1, 1), Noise(0, range(5 * n))).flatten(1)
    S = matrix(fitted)
    assert ((drawn.mean(0) - fitted.mean.flatten()).abs() < 5 * math.sqrt(DEQUANTISATION / 5 / n)).all()
    products = (drawn - fitted.mean.flatten()).unflatten(0, (n, 5))
    products = (products[..., :, None] * products[..., None, :]).mean(1)  # of one dequantisation of all five
    assert ((products.mean(0) - S).abs() < 5 * products.std(0) / math.sqrt(n) + 1e-12).all()


def test_fit_of_all_pixels_is_the_covariance_of_the_images():
    x = grey_levels(50)
    fitted = Gaussian.fit(x)
    S = (255 / 256) ** 2 * torch.cov(x.flatten(1).T, correction=0) + DEQUANTISATION * torch.eye(D, dtype=x.dtype)
    torch.testing.assert_close(matrix(fitted), S, rtol=0, atol=1e-12)
    diagonal = Gaussian.fit(x, "diagonal").covariance.eigenvalues.flatten()
    torch.testing.assert_close(diagonal, S.diagonal(), rtol=0, atol=1e-12)


def test_stationary_fit_of_grey_images_is_the_mean_covariance_over_all_shifts():
    """The closest circulant matrix, in the Frobenius norm, to the covariance about one mean colour."""
    x = grey_levels(20, (1, 4, 5))
    fitted = Gaussian.fit(x, "stationary")
    r = x - x.mean()
    shifted = torch.cat([r.roll((i, j), (2, 3)) for i in range(4) for j in range(5)]).flatten(1)
    S = shifted.T @ shifted / len(shifted)
    expected = (255 / 256) ** 2 * S + DEQUANTISATION * torch.eye(20, dtype=x.dtype)
    torch.testing.assert_close(matrix(fitted), expected, rtol=0, atol=1e-12)


def test_stationary_fit_diagonalises_what_is_stationary():
    """In the basis of the fit, draws of a known field are uncorrelated, each with the variance of its eigenvalue."""
    n, truth = 4000, colour_field()
    fitted = Gaussian.fit(truth.sample(n, seed=4), "stationary")
    white = fitted.encode((255 * truth.sample(n, seed=5) + 0.5) / 256).flatten(1)
    C = torch.cov(white.T)
    # white = S_fit^(-1/2) (x - m): the errors of n draws of the fit and of n of the check add; eigenvalues are above
    # 1e-4, of which q is 1.3 %
    assert ((C - torch.eye(D, dtype=C.dtype)).abs() < 5 * math.sqrt(2) * standard_errors(torch.eye(D), n) + 0.02).all()


def test_stationary_fit_finds_the_axes_of_colour():
    """Fields along the axes have no covariance at one pixel."""
    x = grey_levels(50)
    fitted = Gaussian.fit(x, "stationary")
    Q = fitted.covariance.axes
    torch.testing.assert_close(Q.T @ Q, torch.eye(3, dtype=Q.dtype), rtol=0, atol=1e-12)
    r = torch.einsum("ck,ncij->nkij", Q, x - x.mean((0, 2, 3), keepdim=True)).movedim(1, 0).flatten(1)
    at_one_pixel = r @ r.T / r.shape[1]
    torch.testing.assert_close(at_one_pixel, at_one_pixel.diagonal().diag(), rtol=0, atol=1e-12)


def test_covariance_along_axes_of_colour_is_that_of_its_matrix():
    prior = colour_field()
    dense = Gaussian(prior.mean, matrix(prior))
    x = prior.sample(3, seed=1)
    # the least eigenvalue is 1e-4: rounding of 1e-16 grows to 1e-10
    torch.testing.assert_close(prior.log_prob(x), dense.log_prob(x), rtol=0, atol=1e-8)
    torch.testing.assert_close(prior.denoise(x, 0.03), dense.denoise(x, 0.03), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_no_eigenvalue_is_below_the_variance_of_dequantisation(form):
    """So a fit to fewer images than values, or to black ones, has a density."""
    few = Gaussian.fit(grey_levels(3), form)
    assert few.covariance.eigenvalues.min() >= DEQUANTISATION * (1 - 1e-6)
    black = torch.zeros(2000, 1, 2, 2)
    prior = Gaussian.fit(black, form)
    torch.testing.assert_close(prior.covariance.eigenvalues, torch.full((1, 2, 2), DEQUANTISATION), rtol=1e-6, atol=0)
    # A Gaussian of the variance 1 / 12 of a grey level spends 1/2 log2(2 pi e / 12) bits on a level that is certain.
    # The mean of 8000 values of (u - 1/2)^2 / 2 (12) log2(e) has the sd sqrt(1 / 180) 6 log2(e) / sqrt(8000) = 0.0072.
    bits = bits_per_dim(prior.log_prob(dequantize(black, Noise(0, range(2000)))), 4).mean()
    assert float(bits) == pytest.approx(0.5 * math.log2(2 * math.pi * math.e / 12), abs=3 * 0.0072)


@pytest.mark.parametrize("form", FORMS)
def test_chunks_do_not_change_the_fit(form, monkeypatch):
    x = grey_levels(20)
    whole = Gaussian.fit(x, form)
    monkeypatch.setattr(fit, "AT_ONCE", 7 * D)  # 7, 7 and 6 images
    parts = Gaussian.fit(x, form)
    torch.testing.assert_close(parts.mean, whole.mean, rtol=0, atol=1e-14)
    torch.testing.assert_close(matrix(parts), matrix(whole), rtol=0, atol=1e-14)


def test_single_precision_loses_no_small_variance():
    """Sums are in float64: pixels of deviation 0.001 beside others of 0.3 keep theirs to the rounding of x."""
    x = grey_levels(500, (1, 3, 4))
    x[:, :, 0] = 0.9 + 0.001 * (x[:, :, 0] - 0.5)
    single, double = (
        Gaussian.fit(x.to(dtype)).covariance.eigenvalues.min() for dtype in (torch.float32, torch.float64)
    )
    assert double < 1.6 * DEQUANTISATION
    # float32 rounds x near 0.9 by up to 3e-8, beside deviations of 1e-4 or more: 6e-4 of a variance
    assert abs(single / double - 1) < 1e-3


def test_matrix_in_single_precision_keeps_deviations_far_apart():
    """Variances from 100 to 1e-6, correlated by half: rounding of the large ones is no rounding of the small ones."""
    sd = torch.tensor([10, 1, 0.1, 0.001]).double()
    S = (0.5 + 0.5 * torch.eye(4).double()) * sd.outer(sd)
    prior = Gaussian(torch.zeros(1, 2, 2), S.float())
    torch.testing.assert_close(
        prior.covariance.eigenvalues.double().flatten().sort().values, torch.linalg.eigvalsh(S), rtol=1e-5, atol=0
    )
    singular = Gaussian(torch.zeros(1, 2, 2), (sd.outer(sd)).float())  # of rank 1, and rounded
    assert int((singular.covariance.eigenvalues > 0).sum()) == 1


def test_images_that_cannot_be_fitted_are_refused():
    for images, form, message in (
        (grey_levels(2), "fulll", "Unknown form of covariance 'fulll'.*Did you mean 'full'"),
        (grey_levels(2)[0], "full", r"images is .* shape \(3, 4, 5\).*\(N, C, H, W\)"),
        (grey_levels(2)[:0], "full", "images is"),
        (255 * grey_levels(2), "full", "images have values from .*in \\[0, 1\\]"),
        ((255 * grey_levels(2)).to(torch.uint8), "full", "torch.uint8"),
        (torch.zeros(2, 1, 65, 64), "full", '4160 x 4160 matrix, and "full" stops at 4096'),
    ):
        with pytest.raises(ValueError, match=message):
            Gaussian.fit(images, form)
    for shape, form, message in (
        ((3, 4), "full", "image_shape is"),
        ((1, 0, 4), "full", "image_shape is"),
        ((1, 100, 100), "full", "stops at 4096"),
        ((1, 4, 4), "dense", "Unknown form of covariance 'dense'"),
    ):
        with pytest.raises(ValueError, match=message):
            Gaussian.blank(shape, form)


def test_posterior_is_offered_as_far_as_its_matrix_goes():
    """Beyond 4096 values the automatic sampler is one that needs the denoiser only, and restoring still works."""
    small, large = (Gaussian(torch.full((1, h, 64), 0.5), torch.full((1, h, 64), 0.01)) for h in (64, 65))
    assert has_posterior(small)
    assert not has_posterior(large)
    mixture = GaussianMixture(torch.ones(1), large.mean[None], large.covariance)
    for prior, sampler in ((large, "OptimalCovariance"), (mixture, "DiffPIR")):
        assert not has_posterior(prior)
        y = genprior.degrade(torch.full((1, 65, 64), 0.5), "inpaint", mask="random", fraction=0.5, noise=0.1, seed=0)
        found = genprior.restore(y, prior=prior, n=1, steps=3, seed=0, progress=False)
        assert type(found.sampler).__name__ == sampler
        with pytest.raises(UnsupportedError, match="Exact needs a prior that has a posterior in closed form"):
            genprior.restore(y, prior=prior, sampler="exact", progress=False)

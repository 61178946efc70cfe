"""The mean posterior covariance: in closed form, measured, stored; and the guidance by it."""

import math

import pytest
import torch

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Blur, Denoise, Inpaint, Measurement, SuperResolution, gaussian_kernel, random_mask
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_prior, save_prior
from genprior.priors.gaussian.covariance import Dense, Diagonal, Stationary
from genprior.priors.gaussian.field import GaussianField
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.priors.posterior_covariance import PosteriorCovariance
from genprior.priors.wrappers.tiled import Tiled
from genprior.samplers.guidance.optimal_covariance import OptimalCovariance
from genprior.samplers.guidance.probed_covariance import ProbedCovariance

SHAPE = (2, 6, 5)
D = math.prod(SHAPE)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stationary(H, W, C=3):
    """A smooth field: variances that fall with frequency, and axes of colour that are none of the channels."""
    f = torch.fft.fftfreq(H, dtype=torch.float64)[:, None] ** 2 + torch.fft.fftfreq(W, dtype=torch.float64) ** 2
    spectrum = torch.stack([0.05 / (c + 1) / (0.002 + f) * 0.01 for c in range(C)])
    axes = torch.linalg.qr(normal(C, C))[0]
    return Gaussian(torch.full((C, H, W), 0.5, dtype=torch.float64), Stationary(spectrum, axes))


def dense():
    B = normal(D, D)
    return Gaussian(normal(*SHAPE, seed=1), B @ B.T / D + 0.02 * torch.eye(D, dtype=torch.float64))


def matrix(V, shape):
    eye = torch.eye(math.prod(shape), dtype=torch.float64).unflatten(1, shape)
    return V.filter(eye, V.eigenvalues).flatten(1)


# ---- coordinates ----


@pytest.mark.parametrize("size", [(6, 5), (5, 6), (4, 4), (1, 7)])
@pytest.mark.parametrize("form", [Diagonal, Dense, Stationary])
def test_coefficients_are_an_isometry_in_which_the_covariance_is_diagonal(form, size):
    shape = (3, *size)
    n = math.prod(shape)
    if form is Diagonal:
        V = Diagonal(normal(*shape).square())
    elif form is Dense:
        V = Dense(normal(*shape).square(), torch.linalg.qr(normal(n, n))[0])
    else:
        V = stationary(*size).covariance
    x, other = normal(2, *shape, seed=1), normal(2, *shape, seed=2)
    c = V.coefficients(x)
    torch.testing.assert_close((c * V.coefficients(other)).sum(), (x * other).sum())
    torch.testing.assert_close(V.image(c), x)
    torch.testing.assert_close(V.image(V.variances * c), V.filter(x, V.eigenvalues))


def test_diagonal_is_exact_where_the_eigenvectors_are_shared():
    V = stationary(8, 7).covariance
    A = Blur(gaussian_kernel(1.0, 5), (3, 8, 7), "circular")
    found, shared = V.diagonal_like(lambda x: A.adjoint(A(x)), torch.zeros(1, 3, 8, 7, dtype=torch.float64))
    x = normal(1, 3, 8, 7)
    torch.testing.assert_close(V.image(found * V.coefficients(x)), A.adjoint(A(x)))
    assert shared.all()

    mask = random_mask((1, 8, 7), 0.5)
    A, V = Inpaint(mask, (3, 8, 7)), Diagonal.identity((3, 8, 7))
    found, shared = V.diagonal_like(lambda x: A.adjoint(A(x)), torch.zeros(1, 3, 8, 7))
    assert torch.equal(found[0, ..., 0], (~mask).float().expand(3, -1, -1))
    assert shared.all()


def test_diagonal_of_a_mask_in_frequencies_is_the_share_it_keeps_of_each_image():
    """tr A^T A / D from 4 probes, each a share of the squares of 4096 normals: an sd of sqrt(2 * .3 * .7 / 4096)."""
    V = stationary(64, 64, C=1).covariance
    masks = torch.stack([random_mask((1, 64, 64), fraction) for fraction in (0.7, 0.2)])
    A = Inpaint(masks, (1, 64, 64))
    found, shared = V.diagonal_like(lambda x: A.adjoint(A(x)), torch.zeros(2, 1, 64, 64, dtype=torch.float64))
    found = found.flatten(1)
    assert not shared.any()
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert (found[:, 0] - torch.tensor([0.3, 0.8])).abs().max() < 3.3 * math.sqrt(2 * 0.3 * 0.7 / 4096 / 4)


def test_diagonal_of_an_image_does_not_depend_on_the_others():
    """An image without a hole shares the eigenvectors, one with holes does not: each has what it has alone."""
    V = stationary(16, 16, C=1).covariance
    A = Inpaint(torch.stack([torch.zeros(1, 16, 16, dtype=bool), random_mask((1, 16, 16), 0.7)]), (1, 16, 16))
    like = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    both, shared = V.diagonal_like(lambda x: A.adjoint(A(x)), like)
    for i in (0, 1):
        one = A.select(torch.tensor([i]))
        alone, _ = V.diagonal_like(lambda x, one=one: one.adjoint(one(x)), like[:1])
        torch.testing.assert_close(both[i : i + 1], alone.expand_as(both[:1]), rtol=1e-12, atol=0)
    assert shared.tolist() == [True, False]
    assert both[0].std() < 1e-12
    assert abs(float(both[1].mean()) - 0.3) < 0.1


# ---- in closed form ----


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_gaussian_knows_its_posterior_covariance(sigma):
    prior = dense()
    S = matrix(prior.covariance, SHAPE)
    wanted = S @ torch.linalg.inv(S + sigma**2 * torch.eye(D, dtype=torch.float64)) * sigma**2
    torch.testing.assert_close(matrix(prior.posterior_covariance(sigma), SHAPE), wanted)


def test_mixture_in_one_dimension_against_quadrature():
    means, sd, sigma = torch.tensor([-0.6, 0.1, 0.9], dtype=torch.float64), 0.2, 0.3
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    prior = GaussianMixture(weights, means.reshape(3, 1, 1, 1), torch.full((1, 1, 1), sd**2, dtype=torch.float64))
    t = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    total = math.hypot(sd, sigma)
    density = (weights * torch.exp(-((t[:, None] - means) ** 2) / (2 * total**2))).sum(1)
    x_hat = prior.denoise(t.reshape(-1, 1, 1, 1), sigma).flatten()
    second = float((weights * (means**2 + sd**2)).sum())
    wanted = second - float((density * x_hat**2).sum() / density.sum())
    found = float(prior.posterior_covariance(sigma).eigenvalues)
    # The mean over 1024 draws of a conditional variance between sigma^2 W and that + 0.25: an sd of about 0.03 / 32.
    assert abs(found - wanted) < 0.004


# ---- measured ----


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_measured_covariance_of_a_gaussian_is_the_one_it_has(form):
    """Its eigenvectors are the principal axes; 4000 images leave the mean square of each an sd of sqrt(2 / 4000)."""
    prior = dense() if form == "full" else Gaussian(normal(*SHAPE), normal(*SHAPE, seed=3).square() + 0.05)
    images = prior.sample(4000)
    measured = PosteriorCovariance.measured(prior, images, form)
    for sigma in (0.05, 0.5):
        found, wanted = (matrix(V, SHAPE) for V in (measured.at(sigma, SHAPE), prior.posterior_covariance(sigma)))
        # sqrt(2 / (4000 D)) for equal eigenvalues; these, a few of which are most of the trace, count as D / 9
        assert abs(float(found.trace() / wanted.trace()) - 1) < 3.3 * math.sqrt(2 * 9 / 4000 / D)
        assert float((found - wanted).norm() / wanted.norm()) < 0.1


def test_measured_covariance_of_a_stationary_field_holds_at_another_size():
    field = GaussianField.fit(stationary(32, 32).sample(400).clamp(0, 1).mul(255).round().div(255))
    prior = field.sized(32, 32)
    measured = PosteriorCovariance.measured(prior, prior.sample(300), "stationary")
    for size in ((32, 32), (40, 24)):
        exact = field.sized(*size).posterior_covariance(0.1)
        found = measured.at(0.1, (3, *size))
        assert found.eigenvalues.shape == (3, *size)
        ratio = matrix(found, (3, *size)).diagonal() / matrix(exact, (3, *size)).diagonal()
        # the variance of a pixel: the window smooths the spectrum, which costs the steepest frequencies some of theirs
        assert 0.85 < float(ratio.mean()) < 1.15


def small(**options):
    torch.manual_seed(0)
    return DDPM((3, None, None), widths=(8,), blocks=1, steps=10, **options).eval()


def test_a_diffusion_has_it_once_it_was_measured_and_keeps_it(tmp_path):
    prior = small()
    assert "posterior_covariance" not in prior.capabilities
    operator = Denoise((3, 16, 16))
    assert "prior.fit_covariance(images)" in OptimalCovariance().lacks(prior, operator)
    with pytest.raises(UnsupportedError, match=r"was never measured.*prior\.fit_covariance\(images\)"):
        prior.posterior_covariance(0.1)

    prior.fit_covariance(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert "posterior_covariance" in prior.capabilities
    save_prior(prior, tmp_path / "prior")
    again = read_prior(tmp_path / "prior")
    for each in (again, Tiled(again, 64, 0)):
        V, W = (p.sized(20, 12).posterior_covariance(0.3) for p in (prior, each))
        assert torch.equal(V.eigenvalues, W.eigenvalues)
        assert torch.equal(V.axes, W.axes)


def test_images_go_to_where_the_prior_is():
    prior = small().double()
    prior.fit_covariance(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert prior.residuals.basis.axes.dtype == torch.float64


def test_images_and_forms_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"any size: give \"stationary\""):
        small().fit_covariance(torch.rand(4, 3, 16, 16), "full")
    with pytest.raises(ValueError, match=r"images has shape \(4, 1, 16, 16\)"):
        small().fit_covariance(torch.rand(4, 1, 16, 16))
    x = torch.rand(4, 3, 16, 16)
    for wrong in ((255 * x).byte(), x[:0]):
        with pytest.raises(ValueError, match=rf"images is {len(wrong)} of .*: give one or more, in floating point"):
            small().fit_covariance(wrong)
    for wrong in (255 * x, x.masked_fill(x > 0.9, math.nan)):
        with pytest.raises(ValueError, match=r"images has values .* spreads of the prior from its centre"):
            small().fit_covariance(wrong)


# ---- guidance ----


def problems():
    shape = (3, 12, 12)
    return {
        "mask": Inpaint(random_mask((1, 12, 12), 0.6), shape),
        "super-resolution": SuperResolution(2, shape),
        "circular blur": Blur(gaussian_kernel(1.0, 5), shape, "circular"),
        "valid blur": Blur(gaussian_kernel(1.0, 3), shape),
    }


@pytest.mark.parametrize("noise", [0.01, 0.3])
@pytest.mark.parametrize("name", problems())
def test_guidance_is_exact_for_gaussians(name, noise):
    A, prior, sigma = problems()[name], stationary(12, 12), 0.2
    y = A(prior.sample(2)) + noise * normal(2, *A.measurement_shape)
    x_t = prior.sample(2, seed=1)
    S = matrix(prior.covariance, A.image_shape)
    eye = torch.eye(len(S), dtype=torch.float64)
    M = A(eye.unflatten(1, A.image_shape)).flatten(1).T
    precision = torch.linalg.inv(S) + eye / sigma**2 + M.T @ M / noise**2
    shift = torch.linalg.solve(S, prior.mean.flatten()) + x_t.flatten(1) / sigma**2 + y.flatten(1) @ M / noise**2
    wanted = torch.linalg.solve(precision, shift.T).T.unflatten(1, A.image_shape)
    # as many iterations as there are unknowns at most; a circular blur needs one
    sampler = OptimalCovariance(iterations=1 if name == "circular blur" else 400)
    found = sampler.guided(prior, Measurement(y, A, noise))(x_t, sigma)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_each_image_has_its_own_noise_and_mask():
    prior = stationary(12, 12)
    masks = torch.stack([random_mask((1, 12, 12), 0.5, seed) for seed in (0, 1)])
    A = Inpaint(masks, (3, 12, 12))
    y = A(prior.sample(2))
    noise = torch.tensor([0.1, 0.3]).reshape(2, 1, 1, 1)
    both = OptimalCovariance(iterations=200)(prior, Measurement(y, A, noise), Noise(0, [0, 1]))
    for i in (0, 1):
        one = Measurement(y[i : i + 1], A.select(torch.tensor([i])), float(noise[i]))
        alone = OptimalCovariance(iterations=200)(prior, one, Noise(0, [i]))
        torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-6)


# ---- inflation of the fresh noise ----


def drawn_with(inflation, kind=OptimalCovariance, **sampler):
    prior = dense()
    prior.inflation = inflation
    one = Measurement(normal(4, *SHAPE, seed=2), Denoise(SHAPE), 0.5)  # A^T A = I: the guidance is exact, so linear
    return kind(**sampler)(prior, one, Noise(0, torch.arange(4)))


def test_inflation_multiplies_the_fresh_noise_of_draws():
    """For a Gaussian a draw is linear in its noise: without the fresh part, d(0), it grows in proportion."""
    still = drawn_with(0.0)
    torch.testing.assert_close(drawn_with(1.5) - still, 1.5 * (drawn_with(1.0) - still), rtol=1e-9, atol=1e-9)
    assert (drawn_with(1.0) - still).abs().mean() > 0.05


def test_inflation_reaches_probed_covariances_too():
    apart = drawn_with(1.5, ProbedCovariance, steps=8) - drawn_with(1.0, ProbedCovariance, steps=8)
    assert apart.abs().mean() > 0.05


@pytest.mark.parametrize("still", [{"integrator": "fresh"}, {"integrator": "euler"}, {"eta": 0.0}], ids=str)
def test_only_draws_are_inflated(still):
    assert torch.equal(drawn_with(1.5, **still), drawn_with(1.0, **still))


def test_inflation_is_stored_with_the_covariance_and_seen_through_wrappers(tmp_path):
    prior = small()
    assert prior.inflation == 1.0
    prior.fit_covariance(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), inflation=1.25)
    save_prior(prior, tmp_path / "prior")
    stored = read_prior(tmp_path / "prior")
    assert stored.inflation == Tiled(stored, 64).inflation == stored.sized(16, 16).inflation == 1.25
    assert stored.with_classes(2, (3, 16, 16)).inflation == 1.0  # measured for the denoiser that it was
    labelled = small(classes=2)
    labelled.fit_covariance(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), inflation=1.25)
    assert labelled.given(1).inflation == labelled.given(1, guidance=2).inflation == 1.25


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), "1"])
def test_wrong_inflation_is_refused(wrong):
    prior = small()
    with pytest.raises(ValueError, match="inflation"):
        prior.fit_covariance(torch.rand(4, 3, 16, 16), inflation=wrong)
    assert prior.residuals is None

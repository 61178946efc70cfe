"""All in float64, where closed forms of these sizes agree to about 1e-12: tolerance 1e-9 unless a comment differs."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators.matrix import Matrix
from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import has_posterior, posterior_of, posteriors_of
from genprior.priors.base import METHODS, Prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture

SHAPE = (2, 2, 3)
D = math.prod(SHAPE)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_covariance(size=D, rank=None, seed=1):
    F = normal(size, rank or size, seed=seed)
    return F @ F.T / size + (0.1 * torch.eye(size, dtype=torch.float64) if rank is None else 0)


def even(spectrum):
    return spectrum + spectrum.flip(-2, -1).roll((1, 1), (-2, -1))


def circulant(spectrum):
    """The matrix of a spectrum, (D, D), from the complex Fourier matrix."""
    _, H, W = spectrum.shape
    F = torch.kron(*(torch.fft.fft(torch.eye(n, dtype=torch.complex128), norm="ortho") for n in (H, W)))
    return torch.block_diag(*((F.conj().T * s.flatten()) @ F for s in spectrum)).real


def gaussian(form):
    mean, variances = normal(*SHAPE), normal(*SHAPE, seed=2) ** 2 + 0.1
    if form == "diagonal":
        return Gaussian(mean, variances), variances.flatten().diag()
    if form == "stationary":
        return Gaussian.stationary(mean, even(variances)), circulant(even(variances))
    return Gaussian(mean, dense_covariance()), dense_covariance()


def mixture(form):
    means, variances = 2 * normal(3, *SHAPE), normal(*SHAPE, seed=2) ** 2 + 0.1
    S = variances if form == "diagonal" else dense_covariance()
    return GaussianMixture(WEIGHTS, means, S), variances.flatten().diag() if form == "diagonal" else S


def reference(prior, S, sigma=0.0):
    """The law of x + sigma n, by torch.distributions."""
    S = S + sigma**2 * torch.eye(len(S), dtype=S.dtype)
    if isinstance(prior, Gaussian):
        return MultivariateNormal(prior.mean.flatten(), S)
    return MixtureSameFamily(Categorical(WEIGHTS), MultivariateNormal(prior.means.flatten(1), S))


PRIORS = [
    (gaussian, "diagonal"),
    (gaussian, "dense"),
    (gaussian, "stationary"),
    (mixture, "diagonal"),
    (mixture, "dense"),
]


@pytest.fixture(params=PRIORS, ids=lambda p: f"{p[0].__name__}-{p[1]}")
def prior_and_covariance(request):
    make, form = request.param
    return make(form)


def measured(M, y, noise, shape=SHAPE):
    return Measurement(y.reshape(-1, len(M), 1, 1), Matrix(M, shape), noise)


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_log_prob_matches_torch_distributions(prior_and_covariance):
    prior, S = prior_and_covariance
    x = normal(5, *SHAPE, seed=3)
    assert_close(prior.log_prob(x), reference(prior, S).log_prob(x.flatten(1)))
    assert_close(prior.elbo(x), prior.log_prob(x))


def test_score_is_the_gradient_of_log_prob(prior_and_covariance):
    prior, S = prior_and_covariance
    x = normal(5, *SHAPE, seed=3).requires_grad_()
    (gradient,) = torch.autograd.grad(reference(prior, S).log_prob(x.flatten(1)).sum(), x)
    assert_close(prior.score(x), gradient)


@pytest.mark.parametrize("sigma", [1e-3, 0.7, 100.0])
def test_denoise_obeys_tweedie(prior_and_covariance, sigma):
    prior, S = prior_and_covariance
    x_t = sigma * normal(5, *SHAPE, seed=3).requires_grad_()
    (gradient,) = torch.autograd.grad(reference(prior, S, sigma).log_prob(x_t.flatten(1)).sum(), x_t)
    assert_close(prior.denoise(x_t, sigma), x_t + sigma**2 * gradient)
    # The division makes rounding of size 1e-15 max(1, |x_t|) larger by 1 / sigma^2.
    assert_close((prior.denoise(x_t, sigma) - x_t) / sigma**2, gradient, 1e-8)


def test_denoise_is_the_posterior_mean_of_a_white_measurement(prior_and_covariance):
    prior, _ = prior_and_covariance
    x_t = normal(4, *SHAPE, seed=3)
    sigma = torch.tensor([0.1, 0.4, 1.0, 3.0], dtype=torch.float64).reshape(4, 1, 1, 1)
    measurement = measured(torch.eye(D), x_t, sigma)
    means = torch.stack([posterior_of(prior, measurement, row=i).centre for i in range(4)])
    assert_close(prior.denoise(x_t, sigma), means)


def test_denoise_takes_one_sigma_per_image_and_images_do_not_mix(prior_and_covariance):
    prior, _ = prior_and_covariance
    x_t, sigmas = normal(3, *SHAPE, seed=3), [0.1, 1.0, 5.0]
    together = prior.denoise(x_t, torch.tensor(sigmas, dtype=torch.float64).reshape(3, 1, 1, 1))
    assert_close(together, torch.cat([prior.denoise(x_t[i : i + 1], s) for i, s in enumerate(sigmas)]), 1e-13)


def test_denoise_is_differentiable(prior_and_covariance):
    prior, _ = prior_and_covariance
    x_t = normal(1, *SHAPE, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: prior.denoise(x, 0.8), x_t)


def test_stationary_equals_dense():
    prior, S = gaussian("stationary")
    dense = Gaussian(prior.mean, S)
    x = normal(3, *SHAPE, seed=3)
    for name in ("log_prob", "score", "decode", "encode"):
        assert_close(getattr(prior, name)(x), getattr(dense, name)(x))
    assert_close(prior.denoise(x, 0.3), dense.denoise(x, 0.3))
    assert_close(prior.sample(3, seed=4), dense.sample(3, seed=4))
    assert_close(torch.tensor([prior.sigma_min, prior.sigma_max]), torch.tensor([dense.sigma_min, dense.sigma_max]))


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 1, 6), (2, 7, 1)])
def test_stationary_equals_dense_for_odd_and_thin_images(shape):
    spectrum = even(normal(*shape) ** 2 + 0.1)
    x = normal(2, *shape, seed=3)
    dense = Gaussian(torch.zeros(shape, dtype=torch.float64), circulant(spectrum))
    assert_close(Gaussian.stationary(torch.zeros(shape, dtype=torch.float64), spectrum).score(x), dense.score(x))


def test_decode_of_white_noise_has_the_covariance_and_encode_inverts_it():
    for form in ("diagonal", "dense", "stationary"):
        prior, S = gaussian(form)
        eye = torch.eye(D, dtype=torch.float64).reshape(D, *SHAPE)
        L = (prior.decode(eye) - prior.mean).flatten(1)
        assert_close(L.T @ L, S)
        assert_close(prior.encode(prior.decode(eye)), eye)
        assert prior.latent_shape == SHAPE


def test_samples_have_the_mean_and_covariance(prior_and_covariance):
    prior, S = prior_and_covariance
    n = 20000
    x = prior.sample(n, seed=7).flatten(1)
    mean, C = prior.centre.flatten(), S
    if isinstance(prior, GaussianMixture):
        m = prior.means.flatten(1) - mean
        C = S + (WEIGHTS[:, None] * m).T @ m
    r = x - mean
    products = r[:, :, None] * r[:, None, :]
    # An average of n independent terms lies within 5 of its own standard errors, std / sqrt(n).
    assert (r.mean(0) / r.std(0)).abs().max() < 5 / math.sqrt(n)
    assert ((products.mean(0) - C) / products.std(0)).abs().max() < 5 / math.sqrt(n)


def test_draws_follow_the_rows_of_the_noise(prior_and_covariance):
    prior, _ = prior_and_covariance
    draws = prior.draw(Noise(3, [0, 5, 0], [1, 1, 0]))
    assert_close(draws[[2, 0]], prior.sample(2, seed=3), 1e-13)
    assert not torch.equal(draws[0], draws[1])


def test_mixture_samples_have_the_weights():
    n = 20000
    means = torch.tensor([-10.0, 0.0, 0.0, 10.0]).reshape(4, 1, 1, 1)
    prior = GaussianMixture(torch.tensor([0.2, 0.0, 0.5, 0.3]), means, torch.ones(1, 1, 1))
    x = prior.sample(n, seed=1).flatten()
    for low, high, w in [(-15, -5, 0.2), (-5, 5, 0.5), (5, 15, 0.3)]:
        share = float(((x > low) & (x < high)).double().mean())
        assert share == pytest.approx(w, abs=5 * math.sqrt(w * (1 - w) / n))


def test_weights_are_divided_by_their_sum():
    prior = GaussianMixture(WEIGHTS * (1 + 5e-7), torch.zeros(3, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1))
    assert float(prior.weights.sum()) == pytest.approx(1, abs=1e-14)


def test_sample_k_does_not_depend_on_n(prior_and_covariance):
    prior, _ = prior_and_covariance
    assert_close(prior.sample(2, seed=3), prior.sample(5, seed=3)[:2], 1e-13)
    assert not torch.equal(prior.sample(2, seed=3), prior.sample(2, seed=4))


@pytest.mark.parametrize("form", ["diagonal", "dense", "stationary"])
@pytest.mark.parametrize("m", [1, 4, 20])
def test_gaussian_posterior_matches_the_information_form(form, m):
    prior, S = gaussian(form)
    M, y, noise = normal(m, D, seed=4), normal(m, seed=5), 0.3
    posterior = posterior_of(prior, measured(M, y, noise))
    precision = S.inverse() + M.T @ M / noise**2
    mean = torch.linalg.solve(precision, S.inverse() @ prior.mean.flatten() + M.T @ y / noise**2)
    eye = torch.eye(D, dtype=torch.float64).reshape(D, *SHAPE)
    L = (posterior.decode(eye) - posterior.mean).flatten(1)
    assert_close(posterior.mean.flatten(), mean)
    assert_close(L.T @ L, precision.inverse())


def test_posterior_of_a_row_is_that_of_the_row_alone():
    prior, _ = mixture("dense")
    M, y = normal(4, D, seed=4), normal(3, 4, seed=5)
    noise = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    for row in range(3):
        together = posterior_of(prior, measured(M, y, noise), row=row)
        alone = posterior_of(prior, measured(M, y[row], float(noise[row])))
        assert_close(together.weights, alone.weights)
        assert_close(together.means, alone.means)


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_images_of_one_operator_and_noise_share_one_factorisation(make, monkeypatch):
    prior, _ = make("dense")
    M, y = normal(4, D, seed=4), normal(5, 4, 1, 1, seed=5)
    noise = torch.tensor([0.5, 0.1, 0.5, 2.0, 0.1], dtype=torch.float64).reshape(5, 1, 1, 1)
    own = torch.stack([(1 + i) * M for i in range(5)])
    factorised, svd = [], torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda A, **options: factorised.append(A) or svd(A, **options))
    for operator, level, times in ((M, 0.3, 1), (M, noise, 3), (own, 0.3, 5)):
        many = Measurement(y, Matrix(operator, SHAPE), level)
        factorised.clear()
        together = posteriors_of(prior, many)
        assert len(factorised) == 2 * times  # of A S^(1/2), and of a root of the covariance given y
        for i, posterior in enumerate(together):
            alone = posterior_of(prior, many.select(torch.tensor([i])))
            assert_close(posterior.centre, alone.centre)
            assert_close(posterior.log_prob(prior.sample(2)), alone.log_prob(prior.sample(2)))


def test_levels_and_spread_follow_what_is_loaded():
    for make in (lambda: gaussian("dense")[0], lambda: gaussian("stationary")[0], lambda: mixture("dense")[0]):
        prior, other = make(), make()
        small = {
            key: t if key.endswith(("vectors", "axes", "weights")) else t / 9 for key, t in prior.state_dict().items()
        }
        other.load_state_dict(small)
        # means by 9, variances by 9: with one mean, the deviations are 3 times less
        if isinstance(prior, Gaussian):
            assert other.spread == pytest.approx(prior.spread / 3)
            assert other.sigma_max == pytest.approx(prior.sigma_max / 3)
        assert other.sigma_min == pytest.approx(prior.sigma_min / 3)
        assert other.spread < prior.spread / 2


def test_mixture_posterior_is_prior_times_likelihood():
    prior, _ = mixture("dense")
    M, y, noise = normal(4, D, seed=4), normal(4, seed=5), 0.5
    posterior = posterior_of(prior, measured(M, y, noise))
    x = normal(6, *SHAPE, seed=6)
    log_likelihood = -((x.flatten(1) @ M.T - y) ** 2).sum(1) / 2 / noise**2
    log_ratio = posterior.log_prob(x) - prior.log_prob(x) - log_likelihood
    assert_close(log_ratio, log_ratio[:1].expand(6), 1e-8)


def test_mixture_posterior_matches_quadrature_in_one_dimension():
    means = torch.tensor([-300.0, -1.0, 1.5], dtype=torch.float64).reshape(3, 1, 1, 1)
    prior = GaussianMixture(WEIGHTS, means, torch.full((1, 1, 1), 0.25, dtype=torch.float64))
    a, y, noise = 2.0, 0.6, 0.8
    posterior = posterior_of(
        prior, measured(torch.tensor([[a]]), torch.tensor([y], dtype=torch.float64), noise, (1, 1, 1))
    )
    # The trapezoidal rule is exact to rounding for smooth functions that vanish at both ends.
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    modes = torch.exp(-((x[:, None] - means.flatten()) ** 2) / 0.5)
    density = (WEIGHTS * modes).sum(1) * torch.exp(-((y - a * x) ** 2) / 2 / noise**2)
    density = density / torch.trapezoid(density, x)
    mean = torch.trapezoid(x * density, x)
    assert_close(posterior.log_prob(x.reshape(-1, 1, 1, 1)).exp(), density)
    assert_close(posterior.centre.flatten()[0], mean)


def test_noiseless_posterior_is_the_limit_of_small_noise():
    prior, S = gaussian("dense")
    M, y = normal(4, D, seed=4), normal(4, seed=5)
    posterior = posterior_of(prior, measured(M, y, 0.0))
    G = S @ M.T @ (M @ S @ M.T).inverse()
    eye = torch.eye(D, dtype=torch.float64).reshape(D, *SHAPE)
    L = (posterior.decode(eye) - posterior.mean).flatten(1)
    assert_close(posterior.mean.flatten(), prior.mean.flatten() + G @ (y - M @ prior.mean.flatten()))
    assert_close(L.T @ L, S - G @ M @ S)
    # What was measured is known: every sample gives y.
    assert_close(posterior.sample(3).flatten(1) @ M.T, y.expand(3, 4))
    with pytest.raises(UnsupportedError, match="4 zero eigenvalues among 12"):
        posterior.log_prob(eye)


def test_noiseless_full_measurement_gives_a_point():
    for make in (gaussian, mixture):
        prior, _ = make("dense")
        y = normal(D, seed=5)
        posterior = posterior_of(prior, measured(torch.eye(D), y, 0.0))
        assert_close(posterior.sample(2).flatten(1), y.expand(2, D))
        assert_close(posterior.denoise(normal(2, *SHAPE), 3.0).flatten(1), y.expand(2, D))


def test_noiseless_mixture_posterior_is_the_limit_of_small_noise():
    prior, _ = mixture("dense")
    M, y = normal(2, D, seed=4), normal(2, seed=5)
    exact, near = (posterior_of(prior, measured(M, y, noise)) for noise in (0.0, 1e-5))
    # The weights depend on noise^2 = 1e-10 over variances of about 0.1 and more.
    assert_close(exact.weights, near.weights, 1e-7)
    assert_close(exact.means, near.means, 1e-7)


def test_noiseless_measurement_picks_the_point_mass_that_explains_it():
    means = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 5.0]], dtype=torch.float64).reshape(3, 1, 1, 2)
    prior = GaussianMixture(WEIGHTS, means, torch.zeros(1, 1, 2, dtype=torch.float64))
    posterior = posterior_of(prior, measured(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), 0.0, (1, 1, 2)))
    assert_close(posterior.weights, torch.tensor([0.0, 0.625, 0.375], dtype=torch.float64))


@pytest.mark.parametrize("noise", [1e-3, 0.5])
def test_posterior_of_points_is_bayes_rule(noise):
    means = torch.tensor([[300.0, 2.0], [300.0, 2.0 + noise], [300.0, 5.0]], dtype=torch.float64).reshape(3, 1, 1, 2)
    M, y = normal(3, 2, seed=4), normal(3, 2, seed=4) @ means[0].flatten() + noise * normal(3, seed=5)
    log_likelihood = -((y - means.flatten(1) @ M.T) ** 2).sum(1) / 2 / noise**2
    # float32 moves the second mean by up to 1.2e-7, that is 1.2e-4 noise, and the others not at all.
    for dtype, tolerance in [(torch.float64, 1e-9), (torch.float32, 1e-3)]:
        prior = GaussianMixture(WEIGHTS, means.to(dtype), torch.zeros(1, 1, 2))
        posterior = posterior_of(prior, measured(M, y, noise, (1, 1, 2)))
        assert_close(posterior.weights.double(), (WEIGHTS.log() + log_likelihood).softmax(0), tolerance)


def test_values_of_y_in_holes_mean_nothing():
    prior, _ = mixture("dense")
    M = torch.eye(D, dtype=torch.float64)
    M[3:] = 0
    y = normal(2, D, seed=5)
    y[1, :3] = y[0, :3]
    y[1, 3:] = 1e6
    for noise in (0.0, 0.2):
        a, b = (posterior_of(prior, measured(M, y, noise), row=i) for i in range(2))
        assert_close(a.weights, b.weights)
        assert_close(a.means, b.means)
    nothing = posterior_of(prior, measured(torch.zeros(D, D), y, 0.2))
    assert_close(nothing.means, prior.means)
    assert_close(nothing.weights, WEIGHTS)


def test_far_components_keep_finite_weights():
    prior, _ = mixture("diagonal")
    posterior = posterior_of(prior, measured(torch.eye(D), 1e4 * normal(D, seed=5), 1e-3))
    assert_close(posterior.weights.sum(), torch.ones((), dtype=torch.float64))
    assert posterior.log_prob(posterior.sample(3)).isfinite().all()


def test_singular_covariance_samples_and_denoises_on_its_support():
    F = normal(D, 3, seed=1)
    prior = Gaussian(normal(*SHAPE), F @ F.T)
    outside = torch.linalg.svd(F).U[:, 3:]
    for x in (prior.sample(4), prior.denoise(normal(4, *SHAPE), 0.5), prior.denoise(normal(4, *SHAPE), 0.0)):
        assert_close((x - prior.mean).flatten(1) @ outside, torch.zeros(4, 9, dtype=torch.float64))
    x_t, S = normal(4, *SHAPE, seed=3), F @ F.T
    expected = (x_t - prior.mean).flatten(1) @ torch.linalg.solve(S + 0.25 * torch.eye(D, dtype=S.dtype), S)
    assert_close((prior.denoise(x_t, 0.5) - prior.mean).flatten(1), expected)
    x = prior.sample(4)
    assert_close(prior.decode(prior.encode(x)), x)
    for method in (prior.log_prob, prior.elbo, prior.score):
        with pytest.raises(UnsupportedError, match="9 zero eigenvalues among 12"):
            method(x)


def test_mixture_of_points_denoises_to_their_posterior_mean():
    means = torch.tensor([-1.0, 2.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    prior = GaussianMixture(torch.tensor([0.25, 0.75]), means, torch.zeros(1, 1, 1))
    x_t, sigma = 0.1, 0.9
    a, b = 0.25 * math.exp(-((x_t + 1) ** 2) / 2 / sigma**2), 0.75 * math.exp(-((x_t - 2) ** 2) / 2 / sigma**2)
    x_hat = prior.denoise(torch.full((1, 1, 1, 1), x_t, dtype=torch.float64), sigma)
    assert float(x_hat) == pytest.approx((-a + 2 * b) / (a + b), abs=1e-9)


@pytest.mark.parametrize("form", ["diagonal", "dense", "stationary"])
def test_ancestral_sampling_between_sigma_max_and_sigma_min_keeps_every_sd_within_1_percent(form):
    prior, S = gaussian(form)
    l, V = torch.linalg.eigh(S)
    directions = V.T.reshape(D, *SHAPE)
    sigmas = torch.logspace(math.log10(prior.sigma_max), math.log10(prior.sigma_min), 2000, dtype=torch.float64)
    # The denoiser is affine: its gain along each eigenvector gives the exact recursion of the variance.
    v = sigmas[0].square().expand(D)
    for sigma, sigma_next in pairwise(sigmas):
        gain = (prior.denoise(prior.mean + directions, sigma) - prior.mean).mul(directions).sum((1, 2, 3))
        r = (sigma_next / sigma) ** 2
        v = (r + (1 - r) * gain) ** 2 * v + sigma_next**2 * (1 - r)
    assert ((v / l).sqrt() - 1).abs().max() < 0.01


def test_spread_of_a_mixture_is_the_root_mean_square_deviation_from_its_centre():
    """By the law of total variance, component by component; within components and between them count alike."""
    weights, means = torch.tensor([0.2, 0.8]).double(), torch.tensor([[0.0, 1.0], [3.0, 0.5]]).double()
    variances = torch.tensor([0.3, 0.7]).double()
    prior = GaussianMixture(weights, means.reshape(2, 1, 1, 2), variances.reshape(1, 1, 2))
    centre = 0.2 * means[0] + 0.8 * means[1]
    each = [variances + (m - centre) ** 2 for m in means]
    assert prior.spread == pytest.approx(math.sqrt(float((0.2 * each[0] + 0.8 * each[1]).mean())), rel=1e-12)


def test_levels_cover_the_spread_of_the_means():
    means = torch.tensor([-300.0, 300.0]).reshape(2, 1, 1, 1)
    prior = GaussianMixture(torch.tensor([0.5, 0.5]), means, torch.ones(1, 1, 1))
    assert prior.sigma_min == pytest.approx(0.01)
    assert prior.sigma_max == pytest.approx(10 * math.hypot(300, 1))
    assert float(prior.centre) == 0


def test_results_have_the_dtype_of_x_and_the_module_converts():
    for make in (gaussian, mixture):
        prior, _ = make("dense")
        x = normal(2, *SHAPE)
        for name in ("log_prob", "score"):
            single, double = getattr(prior, name)(x.float()), getattr(prior, name)(x)
            assert single.dtype == torch.float32
            # Rounding x to float32, 6e-8 relative, is magnified by at most max |S^-1| = 10 and |x|, |m| of about 5.
            assert_close(single.double(), double, 1e-4)
        assert prior.denoise(x.float(), 0.5).dtype == torch.float32
        prior.float()
        assert prior.sample(1).dtype == torch.float32
        assert_close(prior.denoise(x, 0.5), make("dense")[0].denoise(x, 0.5), 1e-5)
        assert posterior_of(prior, measured(normal(2, D), normal(2), 0.1)).centre.dtype == torch.float32


def test_a_gaussian_has_all_but_an_encoder_and_a_mixture_no_latents():
    assert gaussian("dense")[0].capabilities == frozenset(METHODS) - {"infer", "render", "flow_log_prob"}
    prior, _ = mixture("dense")
    lacking = {"decode", "encode", "infer", "render", "flow_log_prob"}
    assert prior.capabilities == frozenset(METHODS) - lacking
    with pytest.raises(UnsupportedError, match="GaussianMixture has no decode"):
        prior.decode(normal(1, *SHAPE))
    with pytest.raises(UnsupportedError, match="GaussianMixture has no class labels"):
        prior.given(1)


def bad(change):
    S = dense_covariance()
    S[0, 1] += change
    return S


ZERO, ONE = torch.zeros(SHAPE), torch.ones(SHAPE)
THREE = torch.zeros(3, *SHAPE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(torch.zeros(3), torch.eye(3)), r"mean is .* shape \(3,\)"),
        (lambda: Gaussian(torch.zeros(SHAPE, dtype=torch.int64), ONE), "torch.int64"),
        (lambda: Gaussian(ZERO, torch.eye(3)), r"covariance has shape \(3, 3\).*\(12, 12\).*\(2, 2, 3\)"),
        (lambda: Gaussian(ZERO, ONE * math.nan), "finite"),
        (lambda: Gaussian(ZERO, bad(0.1)), "differs from its transpose by up to 0.1"),
        (lambda: Gaussian(ZERO, -torch.eye(D)), "covariance has the eigenvalue -1"),
        (lambda: Gaussian(ZERO, -ONE), "covariance has the eigenvalue -1"),
        (lambda: Gaussian.stationary(ZERO, ONE[:1]), r"spectrum is .* shape \(1, 2, 3\)"),
        (lambda: Gaussian.stationary(ZERO, ONE + 0j), "spectrum is a torch.complex64"),
        (lambda: Gaussian.stationary(ZERO, -ONE), "spectrum has the eigenvalue -1"),
        (lambda: Gaussian.stationary(ZERO, normal(*SHAPE) ** 2), "spectrum differs from its reflection"),
        (lambda: GaussianMixture(WEIGHTS, ZERO, ONE), "means is"),
        (lambda: GaussianMixture(WEIGHTS[:2], THREE, ONE), r"weights has shape \(2,\) for 3 means"),
        (lambda: GaussianMixture(2 * WEIGHTS, THREE, ONE), "weights sum to 2"),
        (lambda: GaussianMixture(torch.tensor([1.5, -0.5, 0.0]), THREE, ONE), "the least is -0.5"),
        (lambda: Gaussian(ZERO, ONE).log_prob(ZERO), r"\(2, 2, 3\) was given: this Gaussian takes \(B, 2, 2, 3\)"),
        (
            lambda: GaussianMixture(WEIGHTS, THREE, ONE).denoise(torch.zeros(1, 1, 2, 3), 1.0),
            r"shape \(1, 1, 2, 3\) was given",
        ),
        (
            lambda: posterior_of(Gaussian(ZERO, ONE), measured(torch.eye(D), normal(2, D), 0.1), row=2),
            "row is 2, of 2 images",
        ),
        (lambda: posterior_of(Gaussian(ZERO, ONE), measured(torch.eye(D), normal(D), 0.1, (1, 3, 4))), r"\(1, 3, 4\)"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_posterior_of_too_large_an_image_is_refused():
    shape = (1, 64, 65)
    prior = Gaussian(torch.zeros(shape), torch.ones(shape))
    with pytest.raises(UnsupportedError, match="4160 image values"):
        posterior_of(prior, measured(torch.ones(1, 4160), torch.zeros(1), 0.1, shape))


def test_other_priors_have_no_closed_form_until_they_register_one():
    class Flat(Prior):
        image_shape = (1, 1, 2)

    one = measured(torch.eye(2), torch.zeros(2), 0.1, (1, 1, 2))
    assert not has_posterior(Flat())
    with pytest.raises(UnsupportedError, match="The posterior of Flat has no closed form, as those of Gaussian"):
        posterior_of(Flat(), one)
    posteriors_of.register(
        Flat, lambda prior, measurement: [Gaussian(measurement.y.reshape(1, 1, 2), torch.ones(1, 1, 2))]
    )
    assert has_posterior(Flat())
    assert torch.equal(posterior_of(Flat(), one).mean, one.y.reshape(1, 1, 2))

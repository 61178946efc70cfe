"""ln p(y) against closed forms; estimates by weights are unbiased for p(y) itself, see `is_unbiased`.

What estimates without moves are made of, every constant of a density of y, is compared exactly.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

import genprior
from genprior.checks import UnsupportedError
from genprior.likelihoods import Clipped, Poisson, Quantised
from genprior.marginal import normal as normal_module
from genprior.marginal.annealed import AnnealedImportance, anneal, by_annealing
from genprior.marginal.evidence import estimate_of, find_method, log_mean_estimate
from genprior.marginal.normal import cholesky, covariance_of_y, log_scale
from genprior.marginal.particles import by_particles
from genprior.noise import Noise
from genprior.operators import Blur, Inpaint, Matrix, Measurement, motion_kernel
from genprior.operators.build import for_image, for_measurement
from genprior.operators.colour import WEIGHTS
from genprior.posteriors.exact import posterior_of
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.samplers import MMPS, SMC, TDS, MCGDiff, TDSMoments
from genprior.samplers.integrate import geometric
from genprior.samplers.particles.base import log_mean
from genprior.truth.gaussian import correlated, moments

SHAPE = (1, 4, 4)
CHANCE = 1e-4  # of a right estimate to fail its test, were it not seeded
HOLES = torch.arange(16).reshape(1, 1, 4, 4) % 3 == 0
OPERATORS = {
    "inpaint": {"mask": HOLES},
    "super-resolution": {"scale": 2},
    "gaussian-deblur": {"width": 0.3},
    "denoise": {},
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def measured(prior, op, noise=0.1, images=1):
    operator = for_image(op, SHAPE, **OPERATORS[op])
    y = operator(prior.sample(images, seed=1))
    y = y + noise * Noise(2, torch.arange(images))(y)
    return Measurement(torch.where(HOLES, 9.0, y) if op == "inpaint" else y, operator, noise)


def matrix(one):
    """A, (M', D), its rows of 0 left out, and the values of y, (B, M')."""
    D = math.prod(one.operator.image_shape)
    A = one.operator(torch.eye(D, dtype=torch.float64).reshape(D, *one.operator.image_shape)).flatten(1).T
    seen = A.abs().sum(1) > 0
    return A[seen], one.y.flatten(1)[:, seen]


def log_normal(y, mean, K):
    return torch.distributions.MultivariateNormal(mean, K).log_prob(y)


def three_modes():
    means = normal(3, *SHAPE, seed=7)
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2]).double(), means, correlated(SHAPE).covariance)


# ---- the closed form ----


@pytest.mark.parametrize("op", OPERATORS)
def test_evidence_of_a_gaussian_is_the_density_of_y(op):
    """N(y; A m, A S A^T + noise^2 I) over the values that A sees; what stands in holes is nothing."""
    prior = correlated(SHAPE)
    one = measured(prior, op)
    A, y = matrix(one)
    m, S = moments(prior)
    expected = log_normal(y, A @ m, A @ S @ A.T + 0.01 * eye(len(A)))
    figure = genprior.evidence(one, prior=prior)
    assert figure.error is None
    assert figure.value == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("prior", [correlated(SHAPE), three_modes()], ids=["gaussian", "mixture"])
def test_evidence_is_likelihood_times_prior_over_posterior(prior, op):
    """Bayes' rule, at an x of no distinction."""
    one = measured(prior, op)
    x = prior.sample(1, seed=5)
    A, y = matrix(one)
    likelihood = log_normal(y, (A @ x.flatten()), 0.01 * eye(len(A)))
    expected = likelihood + prior.log_prob(x) - posterior_of(prior, one).log_prob(x)
    assert genprior.evidence(one, prior=prior).value == pytest.approx(float(expected), rel=1e-6)


def test_evidence_of_several_images_is_that_of_each():
    """With noise of their own, in any order."""
    prior = three_modes()
    levels = torch.tensor([0.1, 0.3, 0.1]).double().reshape(3, 1, 1, 1)
    many = Measurement(prior.sample(3, seed=1), for_image("denoise", SHAPE), levels)
    figures = genprior.evidence(many, prior=prior)
    for i, figure in enumerate(figures):
        alone = genprior.evidence(many.select(torch.tensor([i])), prior=prior)
        assert figure.value == pytest.approx(alone.value, rel=1e-12)
    assert len({round(figure.value, 3) for figure in figures}) == 3


def test_evidence_takes_what_restore_takes():
    """A name, its parameters, a mask, arrays of any kind: the holes of a mask, and those of NaN."""
    prior = correlated(SHAPE)
    x = prior.sample(1, seed=1)[0].float()
    one = Measurement(x[None].double(), Inpaint(HOLES, SHAPE), 0.1)
    expected = genprior.evidence(one, prior=prior).value
    given = [
        genprior.evidence(x, "inpaint", prior, noise=0.1, mask=HOLES[0, 0].numpy()),
        genprior.evidence(np.where(HOLES[0, 0], np.nan, x[0]).astype(np.float32), "inpaint", prior, noise=0.1),
        genprior.evidence(x, Inpaint(HOLES, SHAPE), prior, noise=0.1),
    ]
    assert [figure.value for figure in given] == pytest.approx([expected] * 3, rel=1e-6)


def test_bundled_prior_of_photographs_sees_the_luma_of_a_grey_measurement():
    """Of 6 x 6 pixels, of which y is each one's luma: the Gaussian of w . x."""
    y = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0))
    prior = genprior.load_prior("gaussian-photo")
    m, S = moments(prior.sized(6, 6))
    W = torch.kron(torch.tensor(WEIGHTS).double()[None], eye(36))
    expected = log_normal(y.double().flatten(), W @ m.double(), W @ S.double() @ W.T + 0.01 * eye(36))
    found = genprior.evidence(y, "denoise", "gaussian-photo", noise=0.1)
    assert found.value == pytest.approx(float(expected), rel=1e-4)  # the prior is in float32


def test_evidence_is_greatest_at_the_blur_and_the_noise_that_were():
    """For an image of the prior itself, seen through a motion of 7 pixels."""
    prior = genprior.load_prior("gaussian-photo")
    x = prior.sized(30, 30).sample(1, seed=3)
    y = for_image("motion-deblur", (3, 30, 30), length=7)(x)
    y = (y + 0.02 * Noise(4, [0])(y))[..., :16, :16]
    found = {
        (length, noise): genprior.evidence(y, blur(length, y), prior, noise=noise).value
        for length in (3, 7, 15)
        for noise in (0.01, 0.02, 0.04)
    }
    assert max(found, key=found.get) == (7, 0.02)


def blur(length, y):
    return for_measurement("motion-deblur", tuple(y.shape[1:]), length=length)


# ---- estimates ----


def is_unbiased(log_p, expected):
    """E p_hat = p, from the logarithms of n independent p_hat and of p: Student's test of the mean of p_hat / p.

    With e the standard error of the mean, a right estimate has |mean - 1| < t e but for CHANCE, t the quantile of n - 1
    degrees of freedom. One that is f times p on average has an error of f e and, but for CHANCE, a mean within t f e of
    f. For f = 3/2 that is over t f e from 1, and so is seen, if f - 1 > 2 t f e: t e < 1/6. For f = 2/3, if t e < 1/4.
    """
    n = len(log_p)
    ratios = (log_p - expected).exp()
    bound = stats.t.isf(CHANCE / 2, n - 1) * float(ratios.std()) / math.sqrt(n)
    assert abs(float(ratios.mean()) - 1) < bound
    assert bound < 1 / 6


def falls_as_one_over_steps(log_p_of, steps, exact):
    """What the steps miss of ln p(y) is a / steps + b / steps^2 + …

    2 ln p(2 steps) - ln p(steps) then misses -b / (2 steps^2), and of twice the steps a quarter of that, which is a
    third of the difference of the two. The third order is left the rest of the difference.
    """
    once, twice, four_times = (log_p_of(k * steps) for k in (1, 2, 4))
    coarse, fine = 2 * twice - once, 2 * four_times - twice
    assert abs(fine - exact) < abs(fine - coarse)
    assert abs(fine - exact) < abs(four_times - exact)


# ---- particles ----


class Coarse(Gaussian):
    """Chains that end early, where psi still has a variance of its own."""

    sigma_min = 0.2


def coarse():
    prior = correlated(SHAPE)
    return Coarse(prior.mean, prior.covariance)


def of_the_chain(prior, one, steps, V):
    """ln of what particles of a Gaussian prior estimate without bias: N(y; A E x_hat, cov), by moments of the chain.

    x_t at the last level is N(m, C) by the chain's steps, x_hat = m + G (x_t - m), and y is N(A x_hat, A V A^T + R).
    """
    m, S = moments(prior)
    A, y = matrix(one)
    identity = eye(len(S))
    sigmas = geometric(prior.sigma_max, prior.sigma_min, steps)

    def gain(sigma):
        return S @ torch.linalg.inv(S + sigma**2 * identity)

    C = (prior.spread**2 + sigmas[0] ** 2) * identity
    for sigma, sigma_next in pairwise(sigmas[:-1]):
        r = (sigma_next / sigma) ** 2
        step = r * identity + (1 - r) * gain(sigma)
        C = step @ C @ step.T + sigma_next**2 * (1 - r) * identity
    G = gain(sigmas[-2])
    K = A @ (G @ C @ G.T + V(S, sigmas[-2])) @ A.T + one.noise**2 * eye(len(A))
    return float(log_normal(y[0], A @ m, K))


def white(S, sigma):
    v = float(S.diagonal().mean())
    return sigma**2 * v / (sigma**2 + v) * eye(len(S))


def exact_moments(S, sigma):
    return sigma**2 * S @ torch.linalg.inv(S + sigma**2 * eye(len(S)))


def variance_of(sampler):
    return exact_moments if isinstance(sampler, TDSMoments) else white


@pytest.mark.parametrize("noise", [0.3, 0.01])
@pytest.mark.parametrize("op", ["inpaint", "gaussian-deblur"])
@pytest.mark.parametrize(
    "sampler", [TDS(1, 5), TDSMoments(1, 5), SMC(1, 5, 0.5, MMPS())], ids=lambda s: type(s).__name__
)
def test_mean_weight_of_one_level_is_the_mean_density_of_y(sampler, op, noise):
    """N(y; A x_hat, A V A^T + noise^2 I) of particles at sigma_max, by the noise of images 1, 2, … of the seed.

    Noise below sigma_min / 5 is taken for that.
    """
    prior = coarse()
    one, sigma = measured(prior, op, noise), prior.sigma_max
    A, y = matrix(one)
    K = A @ variance_of(sampler)(moments(prior)[1], sigma) @ A.T + max(noise, 0.04) ** 2 * eye(len(A))
    for k, found in enumerate(by_particles(prior, one, sampler, 3, 2)):
        n = Noise(2, torch.full((5,), k + 1), torch.arange(5))(prior.mean.expand(5, *SHAPE))
        x_hat = prior.denoise(prior.mean + math.hypot(prior.spread, sigma) * n, sigma)
        log_w = log_normal(y, x_hat.flatten(1) @ A.T, K)
        assert float(found) == pytest.approx(float(log_w.logsumexp(0)) - math.log(5), rel=1e-9)


@pytest.mark.parametrize(
    ("sampler", "op"),
    [
        (TDS(6, 16, 0.9), "inpaint"),
        (TDS(6, 16, 0.9), "gaussian-deblur"),
        (TDSMoments(6, 16, 0.9), "inpaint"),
        (SMC(6, 16, 0.9, MMPS()), "super-resolution"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_mean_weight_of_small_clouds_is_unbiased(sampler, op):
    """E exp(ln p_hat) = p(y) of the chain, resampled at most of its 6 steps, by 60 clouds of 16."""
    prior = coarse()
    one = measured(prior, op, noise=0.3)
    is_unbiased(by_particles(prior, one, sampler, 60, 0), of_the_chain(prior, one, 6, variance_of(sampler)))


def test_particles_find_the_evidence_of_a_gaussian():
    """Unbiased of what 40 steps tend to, which tends to the evidence; the figure is that of the clouds."""
    prior = correlated(SHAPE)
    one = measured(prior, "super-resolution")
    sampler = TDSMoments(40, 100)
    log_p = by_particles(prior, one, sampler, 16, 0)
    is_unbiased(log_p, of_the_chain(prior, one, 40, exact_moments))
    exact = genprior.evidence(one, prior=prior).value
    falls_as_one_over_steps(lambda steps: of_the_chain(prior, one, steps, exact_moments), 40, exact)
    found = genprior.evidence(one, prior=prior, method=sampler, clouds=3, seed=0)
    assert found.value == log_mean_estimate(log_p[:3]).value


def test_error_of_particles_covers_what_their_steps_miss():
    """The spread of clouds alone is far too small: the evidence lies within 3 errors, and not of 3 spreads."""
    prior = GaussianMixture(
        torch.tensor([0.2, 0.5, 0.3]).double(),
        torch.tensor([[0.1, 0.3], [0.5, 0.45], [0.6, 0.9]]).double().reshape(3, 1, 1, 2),
        torch.tensor([[0.03, 0.012], [0.012, 0.02]]).double(),
    )
    A = Matrix(torch.tensor([[1, 0.4]]).double(), (1, 1, 2))
    one = Measurement(torch.full((1, 1, 1, 1), 0.62).double(), A, 0.1)
    exact = genprior.evidence(one, prior=prior).value
    steps = 25
    sampler = TDSMoments(steps, 200)
    found = genprior.evidence(one, prior=prior, method=sampler, clouds=8)
    whole, rough = (log_mean_estimate(by_particles(prior, one, TDSMoments(n, 200), 8, 0)) for n in (steps, steps // 4))
    assert abs(found.value - exact) > 3 * whole.error
    assert abs(found.value - exact) < 3 * found.error
    # a / M - a / N of the numbers of steps M and N, to be a / N
    bias = (rough.value - whole.value) / (steps / (steps // 4) - 1)
    assert found.value == whole.value
    assert found.error == pytest.approx(math.hypot(whole.error, bias))
    assert genprior.evidence(one, prior=prior, method=sampler, clouds=1).error is None
    with pytest.raises(ValueError, match="TDSMoments has steps=1: give at least 2"):
        genprior.evidence(one, prior=prior, method=TDSMoments(1, 8))


def of_the_chain_of_a_pixel(prior, one, steps):
    """`of_the_chain` of one pixel and any prior, A = 1, with the moments of the denoiser: backwards, by quadrature.

        h(x) = psi(x) at the last level,  h(x) = E h(r x + (1 - r) x_hat + sigma_next sqrt(1 - r) n) before

    Expectations are by 31 nodes of Gauss-Hermite, ln h a cubic spline through 501 points.
    """
    sigmas = geometric(prior.sigma_max, prior.sigma_min, steps)
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    weights = weights / weights.sum()
    centre, y = float(prior.centre), float(one.y)

    def law(sigma):  # of x_t, as far as it goes
        return np.linspace(-9, 9, 501) * math.hypot(prior.spread, sigma) + centre

    def denoised(x, sigma):
        x = torch.tensor(x).reshape(-1, 1, 1, 1).requires_grad_()
        x_hat = prior.denoise(x, sigma)
        (slope,) = torch.autograd.grad(x_hat.sum(), x)
        return x_hat.detach().flatten().numpy(), slope.flatten().numpy()

    x = law(sigmas[-2])
    x_hat, slope = denoised(x, sigmas[-2])
    log_h = stats.norm.logpdf(y, x_hat, np.sqrt(one.noise**2 + sigmas[-2] ** 2 * slope))
    for sigma, sigma_next in reversed(list(pairwise(sigmas[:-1]))):
        r, after = (sigma_next / sigma) ** 2, CubicSpline(x, log_h)
        x = law(sigma)
        mean = r * x + (1 - r) * denoised(x, sigma)[0]
        log_h = logsumexp(after(mean[:, None] + sigma_next * math.sqrt(1 - r) * nodes), 1, b=weights)
    begin = centre + math.hypot(prior.spread, sigmas[0]) * nodes
    return float(logsumexp(CubicSpline(x, log_h)(begin), b=weights))


def test_particles_find_the_evidence_of_a_mixture():
    """Of modes that y does not tell apart, and that psi takes for one Gaussian."""
    means = torch.tensor([-6.0, 0.0, 6.0]).double().reshape(3, 1, 1, 1)
    prior = GaussianMixture(torch.tensor([0.5, 0.3, 0.2]).double(), means, torch.ones(1, 1, 1).double())
    one = Measurement(torch.full((1, 1, 1, 1), 0.3).double(), Matrix(eye(1), (1, 1, 1)), 3.0)
    log_p = by_particles(prior, one, TDSMoments(20, 100), 20, 0)
    is_unbiased(log_p, of_the_chain_of_a_pixel(prior, one, 20))
    exact = genprior.evidence(one, prior=prior).value
    falls_as_one_over_steps(lambda steps: of_the_chain_of_a_pixel(prior, one, steps), 20, exact)


def test_quadrature_of_a_chain_is_that_of_its_moments():
    """For a Gaussian, of which both are known: the splines' error is below 1e-6 nats."""
    prior = Gaussian(torch.full((1, 1, 1), 0.4).double(), torch.full((1, 1, 1), 2.0).double())
    one = Measurement(torch.full((1, 1, 1, 1), 3.0).double(), Matrix(eye(1), (1, 1, 1)), 0.7)
    expected = of_the_chain(prior, one, 10, exact_moments)
    assert of_the_chain_of_a_pixel(prior, one, 10) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("op", [*OPERATORS, "valid blur"])
def test_constant_of_a_twist_is_that_of_the_covariance_of_y(op):
    """ln N(0; 0, noise^2 I + v A A^T), by singular values; of the valid blur, which has none, by the matrix."""
    if op == "valid blur":
        A = Blur(motion_kernel(3, 30.0), SHAPE, "valid")
        one = Measurement(normal(1, *A.measurement_shape), A, 0.1)
        with pytest.raises(UnsupportedError):
            A.svd()
    else:
        one = measured(correlated(SHAPE), op)
    A, y = matrix(one)
    for v in (0.0, 0.3):
        expected = log_normal(0 * y, torch.zeros(len(A)).double(), 0.01 * eye(len(A)) + v * A @ A.T)
        assert log_scale(one, v) == pytest.approx(float(expected), rel=1e-9)


def test_evidence_leaves_no_trace_and_is_a_function_of_the_seed():
    prior = correlated(SHAPE)
    one = measured(prior, "denoise", images=2)
    state = torch.get_rng_state()
    first = genprior.evidence(one, prior=prior, method=TDS(4, 8), seed=1)
    assert genprior.evidence(one, prior=prior, method=TDS(4, 8), seed=1) == first
    assert genprior.evidence(one, prior=prior, method=TDS(4, 8), seed=2) != first
    assert genprior.evidence(one.select(torch.tensor([1])), prior=prior, method=TDS(4, 8), seed=1) == first[1]
    assert torch.equal(torch.get_rng_state(), state)


# ---- importance sampling ----


class LinearDecoder(Prior):
    """x = W z + sqrt(v) n: what a VAE would be with a linear decoder."""

    image_shape, latent_shape = SHAPE, (3,)

    def __init__(self, v):
        super().__init__()
        self.W, self.decoder_variance = 0.3 * normal(16, 3), torch.tensor(v)
        self.register_buffer("state", torch.zeros((), dtype=torch.float64))

    def decode(self, z):
        return (z @ self.W.T).unflatten(1, SHAPE)

    def exact(self, one):
        A, y = matrix(one)
        S = self.W @ self.W.T + float(self.decoder_variance) * eye(16)
        return float(log_normal(y[0], torch.zeros(len(A)).double(), A @ S @ A.T + one.noise**2 * eye(len(A))))


def test_annealed_weights_are_unbiased():
    """E w = E L(z), of 8 temperatures, too few for moves to follow, and no matter: L(z) = N(2; z_1 + z_2, 0.1^2)."""
    like, y = torch.empty(2000, 2).double(), torch.tensor(2.0).double()

    def log_likelihood(z):
        return torch.distributions.Normal(z.sum(1), 0.1).log_prob(y)

    clouds = [Noise(0, torch.full((2000,), k), torch.arange(2000)) for k in range(30)]
    log_p = torch.stack([log_mean(anneal(log_likelihood, like, 8, noise)) for noise in clouds])
    is_unbiased(log_p, torch.distributions.Normal(0, math.sqrt(2.01)).log_prob(y))


def test_moves_of_annealing_keep_the_law_of_the_latents():
    """Where the likelihood is flat every move is taken, and sixty of them leave N(0, I): the variance of 8000 numbers
    is 1 within 3.3 sqrt(2 / 8000). Moves whose shares do not add up to 1 compound."""
    seen = []

    def flat(z):
        seen.append(z)
        return torch.zeros(len(z), dtype=torch.float64)

    log_w = anneal(flat, torch.empty(4000, 2).double(), 60, Noise(0, torch.arange(4000)))
    assert (log_w == 0).all()
    assert len(seen) == 60
    assert float(seen[-1].var()) == pytest.approx(1, abs=3.3 * math.sqrt(2 / 8000))
    assert float((seen[-1] * seen[0]).mean()) < 0.5  # and move them they do


@pytest.mark.parametrize("op", ["inpaint", "super-resolution", "gaussian-deblur"])
@pytest.mark.parametrize("v", [0.0, 0.1])
def test_importance_sampling_from_the_prior_is_the_mean_likelihood(op, v):
    """N(y; A G(z), noise^2 I + v A A^T) of latents by the noise of images 1, 2, … of the seed."""
    prior = LinearDecoder(v)
    one = measured(correlated(SHAPE), op, noise=0.3)
    A, y = matrix(one)
    for k, found in enumerate(by_annealing(prior, one, AnnealedImportance(steps=1, particles=5), 3, 2)):
        z = Noise(2, torch.full((5,), k + 1), torch.arange(5))(one.y.new_empty(5, 3))
        log_w = log_normal(y, prior.decode(z).flatten(1) @ A.T, 0.09 * eye(len(A)) + v * A @ A.T)
        assert float(found) == pytest.approx(float(log_w.logsumexp(0)) - math.log(5), rel=1e-6)


def test_annealing_finds_what_plain_importance_sampling_does_not():
    """16 values of noise 0.02 seen: 100 temperatures bring the error below half a nat, one leaves it at several."""
    prior = LinearDecoder(0.0)
    x = prior.decode(normal(1, 3, seed=4))
    one = Measurement(x + 0.02 * normal(1, *SHAPE, seed=5), for_image("denoise", SHAPE), 0.02)
    annealed = genprior.evidence(one, prior=prior, method=AnnealedImportance(100, 100))
    plain = genprior.evidence(one, prior=prior, method=AnnealedImportance(1, 100))
    far = stats.t.isf(CHANCE / 2, 7)  # of 8 clouds; the logarithm bends by half a squared error
    assert abs(annealed.value - prior.exact(one)) < far * annealed.error + annealed.error**2 / 2
    assert annealed.error < 0.5
    assert plain.error > 1
    assert plain.value < prior.exact(one) - 5


LAWS = [(Poisson(0.1), (0.7, 0.2)), (Quantised(0.5), (0.5, 0.0)), (Clipped(0, 0.6, 0.1), (0.6, 0.3))]


def one_of(law, y, v=0.0):
    """Two values of y, of x = 0.5 + 2 W z with two latents, and z -> A G(z)."""
    prior = LinearDecoder(v)
    A = Matrix(torch.kron(eye(2), torch.full((1, 8), 1 / 8).double()), SHAPE)
    prior.decode = lambda z: 0.5 + 2 * (z @ prior.W[:, :2].T).unflatten(1, SHAPE)
    prior.latent_shape = (2,)
    return prior, Measurement(torch.tensor(y, dtype=torch.float64).reshape(1, *A.measurement_shape), A, law)


@pytest.mark.parametrize(("law", "y"), LAWS, ids=str)
def test_importance_sampling_takes_other_laws_and_finds_the_integral(law, y):
    """By quadrature in the two latents, with 400^2 nodes to 7 deviations: ends of cells are met to 1e-2."""
    prior, one = one_of(law, y)
    t = torch.linspace(-7, 7, 401, dtype=torch.float64)
    z = torch.cartesian_prod(t, t)
    log_p = law.log_prob(one.y, one.operator(prior.decode(z))).flatten(1).sum(1) - z.square().sum(1) / 2
    truth = float(log_p.logsumexp(0)) + 2 * math.log(14 / 400) - math.log(2 * math.pi)
    found = genprior.evidence(one, prior=prior, method=AnnealedImportance(10, 1000))
    assert found.error < 0.1
    assert abs(found.value - truth) < stats.t.isf(CHANCE / 2, 7) * found.error + 0.01
    assert genprior.evidence(one, prior=prior, clouds=2).value == pytest.approx(truth, abs=0.5)  # by "auto"


def test_what_has_no_evidence_under_other_laws_is_refused():
    law, y = LAWS[0]
    _, one = one_of(law, y)
    for other, method in ((correlated(SHAPE), "exact"), (correlated(SHAPE), TDS())):
        with pytest.raises(UnsupportedError, match=r"Poisson.*importance sampling.*decode.*Gaussian noise"):
            genprior.evidence(one, prior=other, method=method)
    with pytest.raises(UnsupportedError, match=r"law of variance 0\.1"):
        genprior.evidence(one, prior=one_of(law, y, v=0.1)[0])


# ---- its figure, and errors ----


def test_error_of_a_mean_of_estimates_is_the_spread_or_the_gap():
    """Small: that of the delta method, sd / (mean sqrt n). Where one estimate is alone: by how many nats it is."""
    p = 1 + 0.01 * normal(1000)
    found = log_mean_estimate(p.log())
    assert found.value == pytest.approx(math.log(float(p.mean())), abs=1e-12)
    assert found.error == pytest.approx(float(p.std() / p.mean()) / math.sqrt(1000), rel=1e-2)
    alone = log_mean_estimate(torch.tensor([0.0, -100.0, -100.0, -100.0]).double())
    assert alone.value == pytest.approx(-math.log(4))
    assert 70 < alone.error < 110
    assert log_mean_estimate(torch.zeros(1)) == (0, None)


def test_error_of_a_mean_of_two_is_half_of_their_logarithms_difference():
    """By the definition of the jackknife, sqrt((n - 1) / n sum (ln p_-i - mean)^2), where p_-i is the other one."""
    found = log_mean_estimate(torch.tensor([1.0, 3.0]).double().log())
    assert found.value == pytest.approx(math.log(2))
    assert found.error == pytest.approx(math.log(3) / 2)


def test_covariance_singular_to_rounding_is_refused():
    """[[1, 1], [1, 1 + eps]]: its factor is found, of a pivot that rounding alone made."""
    with pytest.raises(ValueError, match="no density"):
        cholesky(torch.tensor([[1, 1], [1, 1 + torch.finfo(torch.float64).eps]], dtype=torch.float64))


def test_covariance_is_made_for_so_many_values_and_no_more(monkeypatch):
    one = measured(correlated(SHAPE), "denoise")
    monkeypatch.setattr(normal_module, "LARGEST_DENSE", 16)
    assert covariance_of_y(one, lambda x: x, torch.arange(16)).shape == (16, 16)
    monkeypatch.setattr(normal_module, "LARGEST_DENSE", 15)
    with pytest.raises(UnsupportedError, match="16 values"):
        covariance_of_y(one, lambda x: x, torch.arange(16))


def test_auto_takes_the_first_method_that_the_prior_has():
    assert find_method("auto", correlated(SHAPE)) is None
    assert find_method("exact", three_modes()) is None
    assert find_method("auto", DDPM((1, 8, 8), widths=(8,), blocks=1)) == TDS()
    assert find_method("auto", LinearDecoder(0.1)) == AnnealedImportance()
    assert find_method(TDSMoments(5, 6), correlated(SHAPE)) == TDSMoments(5, 6)


def test_evidence_refuses_what_it_cannot_tell():
    prior = correlated(SHAPE)
    one = measured(prior, "denoise")
    silent = LinearDecoder(0.1)
    with pytest.raises(UnsupportedError, match="needs a prior that has denoise; LinearDecoder has decode"):
        genprior.evidence(one, prior=silent, method="smc")
    with pytest.raises(UnsupportedError, match="no way to ln p"):
        genprior.evidence(one, prior=Sampled())
    with pytest.raises(ValueError, match=r"Unknown method 'exakt'.*Did you mean 'exact'"):
        genprior.evidence(one, prior=prior, method="exakt")
    with pytest.raises(ValueError, match="Unknown method MCGDiff"):
        genprior.evidence(one, prior=prior, method=MCGDiff())
    with pytest.raises(ValueError, match="clouds"):
        genprior.evidence(one, prior=prior, clouds=0)
    with pytest.raises(ValueError, match="images of shape"):
        genprior.evidence(torch.rand(1, 5, 5), "denoise", prior, noise=0.1)
    with pytest.raises(ValueError, match="no density"):
        genprior.evidence(torch.rand(16, 1, 1), Matrix(torch.ones(16, 16).double(), SHAPE), prior, noise=0.0)
    with pytest.raises(ValueError, match="noise above 0"):
        genprior.evidence(one.y[0].clamp(0, 1), "denoise", silent, noise=0.0)
    with pytest.raises(UnsupportedError, match="4096 at most"):
        genprior.evidence(torch.rand(3, 40, 40), "denoise", "gaussian-photo", noise=0.1)


class Sampled(Prior):
    """What can only be sampled."""

    image_shape = SHAPE

    def sample(self, n, *, seed=0):
        return torch.zeros(n, *SHAPE)


def test_parameters_of_methods_say_where_they_belong():
    x = torch.rand(1, 4, 4)
    for method, wanted in (("smc", "TDS"), ("importance", "AnnealedImportance")):
        with pytest.raises(TypeError, match=rf"give method={wanted}\(particles=9\), by `from genprior"):
            genprior.evidence(x, "denoise", "gaussian", noise=0.1, method=method, particles=9)


def test_particles_without_any_weight_are_no_estimate():
    prior, one = one_of(Quantised(0.01), (9.0, 9.0))
    with pytest.raises(UnsupportedError, match="No particle explains y"):
        estimate_of(prior, one, AnnealedImportance(steps=2, particles=3), 2, 0)

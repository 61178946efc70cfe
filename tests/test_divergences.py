"""Divergences against closed forms. Of Monte-Carlo figures |t| < 4 is asked: chance exceeds it once in 16,000 cases."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn

from genprior.checks import UnsupportedError
from genprior.divergences import (
    adversarial_bound,
    densities,
    gaussian_kl,
    jensen_shannon,
    mmd,
    monte_carlo_kl,
    samples,
    sliced_wasserstein,
)
from genprior.nets.gan import Discriminator
from genprior.noise import Noise
from genprior.priors.base import Prior
from genprior.priors.gan import GAN
from genprior.priors.gaussian.covariance import Dense, Diagonal, Stationary, reflected
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture

SHAPE = (3, 2, 4)
FAR = 4


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stationary(shape, seed):
    spectrum = (0.5 * normal(*shape, seed=seed)).exp()
    axes = torch.linalg.qr(normal(shape[0], shape[0], seed=seed + 1)).Q
    return Stationary((spectrum + reflected(spectrum)) / 2, axes)


def covariance(form, seed):
    if form == "stationary":
        return stationary(SHAPE, seed)
    l = (0.5 * normal(*SHAPE, seed=seed)).exp()
    return Diagonal(l) if form == "diagonal" else Dense(l, torch.linalg.qr(normal(24, 24, seed=seed + 1)).Q)


def matrix(covariance):
    eye = torch.eye(24, dtype=torch.float64).unflatten(1, SHAPE)
    return covariance.filter(eye, covariance.eigenvalues).flatten(1)


def line(mean, sd):
    """N(mean, sd^2) on images of one value."""
    return Gaussian(torch.full((1, 1, 1), mean).double(), torch.full((1, 1, 1), sd**2).double())


class Uniform(Prior):
    """Uniform between two values."""

    image_shape = (1, 1, 1)

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def sample(self, n, *, seed=0):
        u = Noise(seed, torch.arange(n)).uniform(torch.empty(n, 1, 1, 1, dtype=torch.float64))
        return self.low + (self.high - self.low) * u

    def log_prob(self, x):
        inside = (x >= self.low) & (x <= self.high)
        return torch.where(inside, -math.log(self.high - self.low), -math.inf).flatten()


# ---- the closed form ----

FORMS = ["diagonal", "full", "stationary"]


@pytest.mark.parametrize("of_p", FORMS)
@pytest.mark.parametrize("of_q", FORMS)
def test_kl_of_gaussians_is_the_formula_of_the_course(of_p, of_q):
    """1/2 { tr(S1^-1 S0) + (m1 - m0)^T S1^-1 (m1 - m0) - k + ln(|S1| / |S0|) } of the matrices, to rounding."""
    p = Gaussian(normal(*SHAPE, seed=1), covariance(of_p, 2))
    q = Gaussian(normal(*SHAPE, seed=3), covariance(of_q, 4))
    S0, S1, d = matrix(p.covariance), matrix(q.covariance), (q.mean - p.mean).flatten()
    inverse = torch.linalg.inv(S1)
    expected = ((inverse @ S0).trace() + d @ inverse @ d - 24 + torch.logdet(S1) - torch.logdet(S0)) / 2
    assert gaussian_kl(p, q) == pytest.approx(float(expected), rel=1e-10)
    assert gaussian_kl(p, p) == pytest.approx(0, abs=1e-12)


def test_kl_of_photographs_needs_no_matrix():
    """Between N(0, S) and N(m, c S), with m = S^(1/2) u: (k (1/c - 1 + ln c) + |u|^2 / c) / 2, k = 49152."""
    shape, c = (3, 128, 128), 1.7
    S = stationary(shape, 0)
    u = normal(*shape, seed=5)
    p = Gaussian(torch.zeros(shape).double(), S)
    q = Gaussian(S.filter(u, S.eigenvalues.sqrt()), Stationary(c * S.eigenvalues, S.axes))
    expected = (u.numel() * (1 / c - 1 + math.log(c)) + float(u.square().sum()) / c) / 2
    assert gaussian_kl(p, q) == pytest.approx(expected, rel=1e-10)


def test_kl_of_singular_gaussians_on_one_subspace_is_that_within_it():
    """Coordinates w of the subspace, x = B w: KL is that of the laws of w."""
    B = torch.linalg.qr(normal(4, 2)).Q
    S0, S1 = torch.diag(torch.tensor([1.0, 2.0]).double()), torch.tensor([[2.0, 0.7], [0.7, 1.0]]).double()
    m0, m1 = normal(2, seed=1), normal(2, seed=2)

    def lifted(m, S):
        return Gaussian((B @ m).reshape(1, 2, 2), B @ S @ B.T)

    def low(m, S):
        return Gaussian(m.reshape(1, 1, 2), S)

    assert gaussian_kl(lifted(m0, S0), lifted(m1, S1)) == pytest.approx(gaussian_kl(low(m0, S0), low(m1, S1)), rel=1e-9)


def test_kl_is_infinite_where_one_gaussian_has_mass_that_the_other_has_not():
    def variances(a, b, mean=0.0):
        return Gaussian(torch.tensor([[[0.0, mean]]]).double(), torch.tensor([[[a, b]]]).double())

    regular, flat, upright = variances(1.0, 1.0), variances(1.0, 0.0), variances(0.0, 1.0)
    shifted = variances(1.0, 0.0, mean=0.1)
    for p, q in [(regular, flat), (flat, regular), (flat, upright), (flat, shifted)]:
        assert gaussian_kl(p, q) == math.inf
    assert gaussian_kl(flat, variances(2.0, 0.0)) == pytest.approx((0.5 - 1 + math.log(2)) / 2)


def test_closed_form_refuses_what_it_is_not_for():
    with pytest.raises(TypeError, match="monte_carlo_kl"):
        gaussian_kl(line(0, 1), Uniform(0, 1))
    with pytest.raises(ValueError, match="give two of one shape"):
        gaussian_kl(line(0, 1), Gaussian(torch.zeros(1, 1, 2), torch.ones(1, 1, 2)))


# ---- from log-densities ----


def test_monte_carlo_kl_is_that_of_gaussians_with_its_error():
    """For S0 = S1 the log-ratio is N(KL, 2 KL): its mean has the standard error sqrt(2 KL / n), known to 1/sqrt(2n)."""
    n = 4000
    p = Gaussian(normal(*SHAPE, seed=1), covariance("full", 2))
    q = Gaussian(p.mean + 0.3 * normal(*SHAPE, seed=3), p.covariance)
    kl, found = gaussian_kl(p, q), monte_carlo_kl(p, q, n)
    assert abs(found.value - kl) < FAR * found.error
    assert found.error == pytest.approx(math.sqrt(2 * kl / n), rel=FAR / math.sqrt(2 * n))
    other = Gaussian(normal(*SHAPE, seed=4), covariance("stationary", 5))
    found = monte_carlo_kl(p, other, n)
    assert abs(found.value - gaussian_kl(p, other)) < FAR * found.error


def test_draws_are_weighed_in_parts_that_fit_the_memory(monkeypatch):
    p, q, sizes = line(0, 1), line(1, 2), []
    whole = monte_carlo_kl(p, q, 100)
    monkeypatch.setattr(densities, "rows_at_once", lambda *_: 7)
    monkeypatch.setattr(q, "log_prob", lambda x: sizes.append(len(x)) or Gaussian.log_prob(q, x))
    assert monte_carlo_kl(p, q, 100) == pytest.approx(whole, rel=1e-12)
    assert max(sizes) == 7
    assert sum(sizes) == 100


def test_monte_carlo_kl_is_infinite_once_a_draw_is_where_q_has_no_mass():
    assert monte_carlo_kl(Uniform(0, 1), Uniform(0.5, 1.5), 100) == (math.inf, None)
    assert monte_carlo_kl(Uniform(0, 1), Uniform(-1, 2), 100).value == pytest.approx(math.log(3))


def test_jensen_shannon_is_its_integral():
    """Of N(0, 1) and N(1, 4), by the trapezoidal rule on a grid that leaves out less than 1e-20 of either."""
    p, q = line(0.0, 1.0), line(1.0, 2.0)
    x = torch.linspace(-25, 25, 20001).double()
    a, b = p.log_prob(x.reshape(-1, 1, 1, 1)), q.log_prob(x.reshape(-1, 1, 1, 1))
    middle = torch.logaddexp(a, b) - math.log(2)
    expected = float(torch.trapezoid((a.exp() * (a - middle) + b.exp() * (b - middle)) / 2, x))
    found = jensen_shannon(p, q, 4000)
    assert abs(found.value - expected) < FAR * found.error
    assert found.error < 0.01


def test_jensen_shannon_is_between_0_and_ln_2():
    p = line(0.0, 1.0)
    assert jensen_shannon(p, p, 100) == pytest.approx((0, 0), abs=1e-12)
    assert jensen_shannon(p, line(100.0, 1.0), 100).value == pytest.approx(math.log(2), rel=1e-12)
    assert jensen_shannon(Uniform(0, 1), Uniform(2, 3), 100) == pytest.approx((math.log(2), 0))
    # of each, the share 0.3 where the other has no mass
    part = jensen_shannon(Uniform(0, 1), Uniform(0.3, 1.3), 1000)
    assert abs(part.value - 0.3 * math.log(2)) < FAR * part.error
    assert all(jensen_shannon(p, line(float(m), 1.0), 20, seed=m).value <= math.log(2) for m in range(10))


def test_densities_refuse_what_has_none():
    gan = GAN((1, 4, 4), latent=2, widths=(4, 4), blocks=0, hidden=4)
    with pytest.raises(UnsupportedError, match="log_prob"):
        monte_carlo_kl(gan, gan, 10)
    with pytest.raises(ValueError, match="one shape"):
        jensen_shannon(line(0, 1), gan, 10)
    with pytest.raises(ValueError, match="number of draws"):
        monte_carlo_kl(line(0, 1), line(0, 1), 1)


# ---- the bound of adversarial training ----


def shifted(n, d, shift, seed):
    return normal(n, d, seed=seed).float() + shift


class Logit(nn.Module):
    """The best discriminator of N(0, 1) and N(1, 1): ln p / q = 1/2 - x; and a parameter that changes nothing."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return 0.5 - x.flatten() + 0 * self.unused


def test_gan_bound_of_the_best_discriminator_is_the_divergence():
    """2 JS - 2 ln 2 = E_p ln d + E_q ln(1 - d) for d = p / (p + q)."""
    x_p, x_q = shifted(8000, 1, 0, 1), shifted(8000, 1, 1, 2)
    found = adversarial_bound(x_p, x_q, discriminator=Logit(), steps=1)
    exact = jensen_shannon(line(0.0, 1.0), line(1.0, 1.0), 20000)
    assert abs(found.value - exact.value) < FAR * math.hypot(found.error, exact.error)
    assert found.error < 0.01


def test_gan_bound_of_a_trained_discriminator_is_below_the_divergence_and_near_it():
    d, n = 4, 4000
    exact = jensen_shannon(
        Gaussian(torch.zeros(d, 1, 1).double(), torch.ones(d, 1, 1).double()),
        Gaussian(torch.full((d, 1, 1), 0.7).double(), torch.ones(d, 1, 1).double()),
        20000,
    )
    found = adversarial_bound(shifted(n, d, 0, 1), shifted(n, d, 0.7, 2), steps=100)
    assert found.value < exact.value + FAR * found.error
    assert found.value > 0.85 * exact.value - FAR * found.error


def test_gan_bound_stays_below_the_divergence_when_the_discriminator_learns_by_heart():
    """JS is 0: 200 images of 400 values are told apart without a fault where they were trained on, and nowhere else."""
    x_p, x_q = shifted(400, 400, 0, 1), shifted(400, 400, 0, 2)
    bounds = [adversarial_bound(x_p, x_q, steps=40, batch=64, seed=seed) for seed in range(2)]
    assert all(bound.value <= FAR * bound.error for bound in bounds)
    # nor far below: training goes on to perfection, the quarter that chooses a step takes an early one
    assert all(bound.value > -0.1 for bound in bounds)


def test_gan_bound_takes_a_discriminator_of_images_and_any_number_of_each():
    x_p, x_q = torch.zeros(40, 1, 8, 8), torch.ones(64, 1, 8, 8)
    net = Discriminator((1, 8, 8), widths=(4, 4), blocks=0, hidden=4, compare=False)
    found = adversarial_bound(x_p, x_q, discriminator=net, steps=40, batch=16, rate=1e-2)
    assert 0.6 < found.value <= math.log(2)


def test_gan_bound_is_a_function_of_its_seed_and_touches_no_global_state():
    x_p, x_q = shifted(64, 3, 0, 1), shifted(64, 3, 1, 2)
    state = torch.get_rng_state()
    first = adversarial_bound(x_p, x_q, steps=20, seed=5)
    assert adversarial_bound(x_p, x_q, steps=20, seed=5) == first
    assert adversarial_bound(x_p, x_q, steps=20, seed=6) != first
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="at least 8"):
        adversarial_bound(x_p[:7], x_q)


# ---- from draws alone ----


def test_sliced_wasserstein_is_scipys_distance_in_one_dimension():
    x, y = normal(200, 1), 2 * normal(200, 1, seed=1) + 1
    assert sliced_wasserstein(x, y) == pytest.approx(wasserstein_distance(x.flatten(), y.flatten()), rel=1e-12)


def test_sliced_wasserstein_of_a_shift_is_the_mean_length_of_its_projections():
    """|c| E|u_1|, u uniform on the sphere of R^d: E|u_1| = Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)), E u_1^2 = 1/d."""
    d, projections = 6, 4000
    x, c = normal(50, d), normal(d, seed=1)
    mean = math.gamma(d / 2) / math.sqrt(math.pi) / math.gamma((d + 1) / 2)
    sd = math.sqrt((1 / d - mean**2) / projections)
    assert sliced_wasserstein(x, x + c, projections) / float(c.norm()) == pytest.approx(mean, abs=3.3 * sd)


def test_mmd_is_the_sum_over_distinct_pairs(monkeypatch):
    """And so in blocks of two rows, for several widths."""
    x, y, widths = normal(5, 2), normal(5, 2, seed=1), (0.5, 2.0)

    def k(a, b):
        return sum(math.exp(-float((a - b).square().sum()) / (2 * w**2)) for w in widths) / 2

    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    h = {(i, j): k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i, j in pairs}

    def estimate(points):
        inside = [h[i, j] for i, j in pairs if i in points and j in points]
        return sum(inside) / len(inside)

    without = torch.tensor([estimate(set(range(5)) - {i}) for i in range(5)]).double()
    error = float(((without - without.mean()).square().sum() * 4 / 5).sqrt())
    assert mmd(x, y, widths) == pytest.approx((estimate(set(range(5))), error), rel=1e-5)
    whole = mmd(x, y, widths)
    monkeypatch.setattr(samples, "pixels_at_once", lambda _: 10)
    assert mmd(x, y, widths) == pytest.approx(whole, rel=1e-12)


def test_mmd_of_gaussians_is_its_closed_form():
    """E k(a, b) = (w^2 / (w^2 + s))^(d/2) exp(-|m|^2 / (2 (w^2 + s))) for a - b ~ N(m, s I)."""
    d, w, n = 3, 1.5, 1000
    c = 0.4 * normal(d, seed=2)

    def expected_k(m, s):
        return (w**2 / (w**2 + s)) ** (d / 2) * math.exp(-float(m.square().sum()) / (2 * (w**2 + s)))

    exact = expected_k(0 * c, 2) + expected_k(0 * c, 8) - 2 * expected_k(c, 5)
    found = mmd(normal(n, d), c + 2 * normal(n, d, seed=1), w)
    assert abs(found.value - exact) < FAR * found.error
    assert found.error < exact / 10


def test_mmd_is_unbiased_for_equal_laws_and_its_error_is_known():
    """Over 200 pairs of sets: the mean within 4 of its standard errors of 0. Their variance is known to 10 % and more,
    as it has heavy tails; the jackknife's is twice it where the laws are equal, and it where they are not.
    """
    same = [mmd(normal(30, 2, seed=2 * k), normal(30, 2, seed=2 * k + 1), 1.0) for k in range(200)]
    values = torch.tensor([f.value for f in same])
    assert abs(float(values.mean())) < FAR * float(values.std()) / math.sqrt(200)
    assert 1.4 < sum(f.error**2 for f in same) / 200 / float(values.var()) < 2.8
    apart = [mmd(normal(30, 2, seed=2 * k), 1 + normal(30, 2, seed=2 * k + 1), 1.0) for k in range(200)]
    values = torch.tensor([f.value for f in apart])
    assert 0.7 < sum(f.error**2 for f in apart) / 200 / float(values.var()) < 1.4


def test_mmd_takes_the_median_distance_for_width():
    x, y = normal(20, 3), normal(20, 3, seed=1)
    points = torch.cat([x, y])
    distances = torch.tensor([float((a - b).norm()) for i, a in enumerate(points) for b in points[:i]])
    assert mmd(x, y) == pytest.approx(mmd(x, y, float(distances.median())), rel=1e-5)


def test_mmd_refuses_what_has_no_pairs_or_no_width():
    x = normal(5, 2)
    with pytest.raises(ValueError, match="3 points"):
        mmd(x[:2], x[:2])
    with pytest.raises(ValueError, match="have shapes"):
        mmd(x, x[:4])
    for widths in (0.0, [1.0, -1.0], [], math.inf):
        with pytest.raises(ValueError, match="above 0"):
            mmd(x, x + 1, widths)
    with pytest.raises(ValueError, match="no median"):
        mmd(torch.zeros(5, 2), torch.zeros(5, 2))


def test_two_mixtures_are_told_apart_by_every_divergence():
    """The same moments, other modes: what a comparison of means and variances would not see."""
    means = torch.tensor([-1.0, 1.0]).double().reshape(2, 1, 1, 1)
    p = GaussianMixture(torch.tensor([0.5, 0.5]).double(), means, torch.full((1, 1, 1), 0.05).double())
    q = line(0.0, math.sqrt(1.05))
    x_p, x_q = p.sample(2000, seed=1), q.sample(2000, seed=2)
    for figure in (
        monte_carlo_kl(p, q, 2000),
        jensen_shannon(p, q, 2000),
        adversarial_bound(x_p, x_q, steps=100, rate=3e-3),
        mmd(x_p[:500], x_q[:500]),
    ):
        assert figure.value > FAR * figure.error
    assert sliced_wasserstein(x_p, x_q) > 2 * sliced_wasserstein(p.sample(2000, seed=3), x_p)

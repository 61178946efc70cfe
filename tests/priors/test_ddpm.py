"""The diffusion prior, with the network replaced by the exact one of Gaussian data, in float64.

For u ~ N(m, v) on the network's [-1, 1] the exact denoiser is u_hat = m + v / (v + s^2) (u_t - m), and the network that
gives it is F = (u_hat - c_skip u_t) / c_out.
"""

import math
from itertools import pairwise

import pytest
import torch
from skimage import data
from torch import nn
from torch.distributions import Normal, kl_divergence

from genprior.noise import Noise
from genprior.priors.chain import (
    VARIANCES,
    ancestral_chain,
    chain_elbo,
    cosine_betas,
    gaussian_decoder,
    geometric_betas,
    grey_level_decoder,
    linear_betas,
    relative_noise,
    respaced,
)
from genprior.priors.ddpm import DDPM
from genprior.priors.foreign.denoiser import DenoiserPrior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.probability_flow import flow_log_prob
from genprior.priors.store import load_prior

SD = 0.2  # of x: pixels of u have the variance v = (2 SD)^2


class ExactNetwork(nn.Module):
    """F of u ~ N(means[label], v), preconditioned as by Karras et al., for a data_std that is not the data's."""

    def __init__(self, means, v, data_std):
        super().__init__()
        self.means = nn.Parameter(torch.tensor(means, dtype=torch.float64))
        self.v, self.data_std = v, data_std

    def forward(self, scaled, level, label=None):
        s = (4 * level).exp().reshape(-1, 1, 1, 1)
        m = self.means[0 if label is None else label].reshape(-1, 1, 1, 1)
        total = s**2 + self.data_std**2
        u_t = scaled * total.sqrt()
        u_hat = m + self.v / (self.v + s**2) * (u_t - m)
        return (u_hat - self.data_std**2 / total * u_t) / (s * self.data_std / total.sqrt())


class ExactVelocity(nn.Module):
    """F = E[u - n | z] of u ~ N(0, v) and z = t u + (1 - t) n, by the covariance of u - n and z."""

    def __init__(self, v):
        super().__init__()
        self.v = v

    def forward(self, z, level, label=None):
        t = 1 / (1 + (4 * level).exp().reshape(-1, 1, 1, 1))
        return (t * self.v - (1 - t)) / (t**2 * self.v + (1 - t) ** 2) * z


def exact(shape=(1, 1, 1), means=(0.0,), sd=SD, **arguments):
    """A DDPM of x ~ N(0.5 + means / 2, sd^2); with several means, one per class and the last for no class."""
    prior = DDPM(shape, widths=(8,), classes=len(means) - 1, data_std=0.7, **arguments)
    prior.net = ExactNetwork(means, (2 * sd) ** 2, 0.7)
    return prior.double()


def exact_velocity(shape, **arguments):
    """A DDPM of x ~ N(0.5, SD^2) whose network predicts the velocity."""
    prior = DDPM(shape, widths=(8,), prediction="velocity", **arguments)
    prior.net = ExactVelocity((2 * SD) ** 2)
    return prior.double()


def gaussian(shape, mean=0.0, sd=SD):
    return Gaussian(
        torch.full(shape, 0.5 + mean / 2, dtype=torch.float64), torch.full(shape, sd**2, dtype=torch.float64)
    )


def real(**arguments):
    """A DDPM whose U-Net has random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = DDPM(**({"image_shape": (1, 4, 4), "widths": (8, 8), "patch": 1, "steps": 20} | arguments))
        for parameter in prior.parameters():
            parameter.data.normal_(std=0.2)
    return prior.double()


def chain_variance(alpha_bars, variance, sd=SD):
    """The exact variance of x from `ancestral_chain` with the exact denoiser of N(0.5, sd^2).

    Every step is affine: row k follows the k-th of the independent standard normal numbers that enter (the first is
    z_T), and the variance is the sum of squares of what becomes of them.
    """
    coordinates = torch.eye(len(alpha_bars) + 1, dtype=torch.float64).reshape(len(alpha_bars) + 1, -1, 1, 1, 1)
    drawn = iter(coordinates[1:])
    denoise = gaussian((1, 1, 1), sd=sd).denoise
    x = ancestral_chain(denoise, coordinates[0], alpha_bars, lambda z: next(drawn), VARIANCES[variance])
    return float((x - 0.5).square().sum())


def alpha_bars(steps):
    return torch.cumprod(1 - linear_betas(steps), 0).tolist()


# ---- the chain's constants ----


def test_linear_betas_have_the_published_ends():
    betas = linear_betas(1000)
    assert (float(betas[0]), float(betas[-1])) == pytest.approx((1e-4, 0.02), rel=1e-12)
    assert torch.allclose(betas.diff(), betas.diff()[0])
    assert linear_betas(250)[[0, -1]].tolist() == pytest.approx([4e-4, 0.08], rel=1e-12)
    # sum of betas, hence ln alpha_bar_T, is about the same for all T: sum = 1000 (1e-4 + 0.02) / 2
    assert [float(linear_betas(steps).sum()) for steps in (100, 300, 1000)] == pytest.approx([10.05] * 3)


def test_cosine_alpha_bar_is_the_squared_cosine():
    steps = 500
    t = torch.arange(1, steps, dtype=torch.float64) / steps  # the last beta is capped
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    betas = cosine_betas(steps)
    torch.testing.assert_close(torch.cumprod(1 - betas, 0)[:-1], f, rtol=1e-9, atol=0)
    assert float(betas[-1]) == 0.999


def test_levels_are_those_of_the_chain_in_units_of_x():
    prior = DDPM((1, 4, 4), widths=(8,), steps=1000)
    # s_1 = sqrt(beta_1 / (1 - beta_1)); alpha_bar_T = 4.04e-5 for 1000 linear betas (Ho et al.)
    assert prior.sigma_min == pytest.approx(0.5 * math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-9)
    assert prior.sigma_max == pytest.approx(0.5 / math.sqrt(4.04e-5), rel=1e-2)


def test_respaced_keeps_both_ends():
    full = alpha_bars(1000)
    some = respaced(full, 11)
    assert (some[0], some[-1], len(some)) == (full[0], full[-1], 11)
    assert some[5] in full[498:501]
    assert respaced(full, 2) == [full[0], full[-1]]
    assert respaced(full, 1000) == full


def test_single_step_is_taken_from_pure_noise():
    """One denoising at sigma_max, whose x_hat is the mean but for v / (v + s^2) of the noise."""
    prior = exact(steps=100)
    x = prior.sample(200, steps=1)
    expected = (SD**2 / (SD**2 + prior.sigma_max**2)) ** 2 * (0.5**2 / prior.alpha_bars[-1])
    assert float((x - 0.5).square().mean()) == pytest.approx(expected, rel=3 * math.sqrt(2 / 200))
    assert respaced(prior.alpha_bars, 1) == prior.alpha_bars[-1:]


# ---- denoising ----


@pytest.mark.parametrize("exact", [exact, exact_velocity])
def test_denoise_is_exact_at_any_level_from_sigma_min_on(exact):
    prior, truth = exact((2, 3, 3), steps=100), gaussian((2, 3, 3))
    x_t = torch.linspace(-3, 4, 4 * 18, dtype=torch.float64).reshape(4, 2, 3, 3)
    chain = [0.5 * relative_noise(a) for a in prior.alpha_bars]
    between = math.sqrt(chain[40] * chain[41])
    for sigma in (prior.sigma_min, 0.02, chain[40], between, prior.sigma_max, 10 * prior.sigma_max):
        # rounding of F is divided and multiplied by c_out: none is left but that of a few operations
        torch.testing.assert_close(prior.denoise(x_t, sigma), truth.denoise(x_t, sigma), rtol=1e-10, atol=1e-10)
    levels = torch.tensor([0.02, 0.1, 1.0, 9.0], dtype=torch.float64).reshape(4, 1, 1, 1)
    torch.testing.assert_close(prior.denoise(x_t, levels), truth.denoise(x_t, levels), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prediction", ["karras", "velocity"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_denoise_without_noise_returns_what_it_is_given(dtype, prediction):
    x = torch.linspace(-1, 2, 32, dtype=dtype).reshape(2, 1, 4, 4)
    prior = real(prediction=prediction).to(dtype)
    # A shift by 0.5 and back: rounding of numbers below 4.
    bound = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(prior.denoise(x, 0.0), x, rtol=0, atol=bound)
    levels = torch.tensor([0.0, 0.3], dtype=dtype).reshape(2, 1, 1, 1)
    mixed = prior.denoise(x, levels)
    torch.testing.assert_close(mixed[:1], x[:1], rtol=0, atol=bound)
    torch.testing.assert_close(mixed[1:], prior.denoise(x[1:], 0.3), rtol=0, atol=1e3 * bound)


def test_label_conditions_and_no_label_means_the_null_class():
    prior = exact(means=(-0.8, 0.6, 0.1), steps=50)
    x_t, sigma = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64).reshape(3, 1, 1, 1), 0.3
    mixed = prior.denoise(x_t, sigma, torch.tensor([1, 0, 2]))
    for row, mean in enumerate((0.6, -0.8, 0.1)):
        expected = gaussian((1, 1, 1), mean).denoise(x_t[row : row + 1], sigma)
        torch.testing.assert_close(mixed[row : row + 1], expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(prior.denoise(x_t, sigma), prior.denoise(x_t, sigma, torch.tensor([2, 2, 2])))


def test_rows_of_a_batch_are_denoised_alone():
    prior = real(classes=2)
    x_t = torch.linspace(-1, 2, 48, dtype=torch.float64).reshape(3, 1, 4, 4)
    sigma, label = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64).reshape(3, 1, 1, 1), torch.tensor([1, 2, 0])
    together = prior.denoise(x_t, sigma, label)
    for k in range(3):
        alone = prior.denoise(x_t[k : k + 1], float(sigma[k]), label[k : k + 1])
        torch.testing.assert_close(alone, together[k : k + 1], rtol=0, atol=1e-11)


# ---- sampling ----


def test_variance_of_ancestral_samples_tends_to_the_data_as_steps_grow():
    """With the posterior variance the chain keeps less than the data's variance, by O(1 / T)."""
    errors = [1 - chain_variance(alpha_bars(steps), "posterior") / SD**2 for steps in (250, 500, 1000)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.15)
    assert 0 < errors[2] < 0.02


def test_forward_variance_is_right_for_standard_normal_data():
    """For u ~ N(0, 1) every step of variance beta keeps the variance 1; the last, without noise, leaves 1 - beta_1."""
    assert 4 * chain_variance(alpha_bars(1000), "forward", sd=0.5) == pytest.approx(1 - 1e-4, rel=1e-9)


def test_constant_weight_variance_collapses_to_one_and_a_half_per_cent():
    """u ~ N(0, 1), T = 1000, linear betas: 1.45 % is left; by hand, var <- (1 - beta) var + sigma^2."""
    left = 4 * chain_variance(alpha_bars(1000), "constant-weight", sd=0.5)
    by_hand = 1.0
    for t in reversed(range(1000)):
        beta, alpha_bar = float(linear_betas(1000)[t]), alpha_bars_1000[t]
        by_hand = (1 - beta) * by_hand + (beta**2 / ((1 - beta) * (1 - alpha_bar)) if t else 0)
    assert left == pytest.approx(by_hand, rel=1e-6)
    assert 0.014 < left < 0.015


alpha_bars_1000 = alpha_bars(1000)


@pytest.mark.parametrize("variance", VARIANCES)
def test_samples_have_the_variance_of_their_chain(variance):
    """Against the exact one, for 60 of 200 steps and 3000 draws: three sd of a variance are 3 sqrt(2 / n) = 7.7 %."""
    n, prior = 3000, exact(steps=200)
    x = prior.sample(n, seed=5, steps=60, variance=variance)
    expected = chain_variance(respaced(prior.alpha_bars, 60), variance)
    assert float(x.var()) == pytest.approx(expected, rel=3 * math.sqrt(2 / n))
    assert float(x.mean()) == pytest.approx(0.5, abs=3 * math.sqrt(expected / n))


def test_samples_of_a_label_have_its_mean():
    prior = exact(means=(-0.8, 0.6, 0.1), steps=60)
    for label, mean in ((0, -0.8), (1, 0.6), (None, 0.1)):
        x = prior.sample(400, label=label)
        # three sd of the mean of 400 draws; alpha_bar_T = 4e-5 keeps sqrt(alpha_bar_T) = 0.6 % of an offset in z_T
        assert float(x.mean()) == pytest.approx(0.5 + mean / 2, abs=3 * SD / 20 + 0.006)


def test_draw_k_does_not_depend_on_how_many_are_drawn():
    prior = real()
    five = prior.sample(5, seed=3)
    torch.testing.assert_close(prior.sample(2, seed=3), five[:2], rtol=1e-9, atol=1e-9)
    assert (five[0] - five[1]).abs().max() > 0.01
    assert (prior.sample(1, seed=4) - five[:1]).abs().max() > 0.01


def test_sampling_leaves_the_global_random_state():
    state = torch.get_rng_state()
    real().sample(1, steps=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_any_size_is_sampled_where_the_prior_has_any():
    prior = real(image_shape=(2, None, 5))
    assert prior.sample(1, size=(3, 5), steps=2).shape == (1, 2, 3, 5)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((1, None, None), {}, r"images of any size: say which one, as size=\(height, width\)"),
        ((1, None, 4), {}, "say which one"),
        ((1, 4, 4), {"size": (4, 5)}, r"images of size \(4, 4\), not \(4, 5\)"),
        ((1, None, 4), {"size": (4, 5)}, r"not \(4, 5\)"),
        ((1, 4, 4), {"steps": 0}, "steps must lie between 1 and the 20 of the chain, got 0"),
        ((1, 4, 4), {"steps": 21}, "got 21"),
        ((1, 4, 4), {"variance": "posterier"}, r"Unknown variance 'posterier'.*Did you mean 'posterior'"),
        ((1, 4, 4), {"label": 2}, "There is no label 2: this prior has 2 classes, counted from 0"),
        ((1, 4, 4), {"label": -1}, "There is no label -1"),
    ],
)
def test_what_cannot_be_sampled_is_refused(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        real(image_shape=shape, classes=2).sample(1, **arguments)


def test_label_for_a_prior_without_classes_is_refused():
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    with pytest.raises(
        ValueError,
        match="This DDPM was trained without labels, so there is no label 0: take one with labels, such as ddpm-mnist",
    ):
        real().sample(1, label=0)
    with pytest.raises(ValueError, match="This prior has no classes: leave the label out"):
        real().denoise(x, 0.1, torch.tensor([0]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 1},
        {"steps": 10.0},
        {"data_std": 0},
        {"data_std": math.nan},
        {"classes": -1},
        {"widths": ()},
        {"widths": (8, 0)},
        {"blocks": -1},
        {"patch": 0},
        {"image_shape": (1, 4)},
        {"image_shape": (0, 4, 4)},
        {"image_shape": (1, 0, 4)},
    ],
)
def test_wrong_arguments_are_refused_by_name(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is .*: give "):
        DDPM(**({"image_shape": (1, 4, 4), "widths": (8,)} | wrong))


# ---- the bound ----


def geometric_levels(steps):
    return [0.005 * (80 / 0.005) ** (i / (steps - 1)) for i in range(steps)]


def linear_levels(steps):
    return [0.5 * relative_noise(a) for a in alpha_bars(steps)]


def decoder_variance(sigma):
    """Of p(x | x_1), exactly."""
    return 1 / (1 / SD**2 + 1 / sigma**2)


def gap(sigmas, terms=10**6, copies=200, seed=0):
    """Mean and standard error of (ln p(x) - elbo) / D over noise, for one image of the prior, the denoiser exact."""
    truth = gaussian((1, 4, 4))
    x = truth.sample(1, seed=8).expand(copies, 1, 4, 4)
    v = decoder_variance(sigmas[0])
    elbo = chain_elbo(
        truth.denoise, x, sigmas, 0.5, 0.25 + sigmas[-1] ** 2, gaussian_decoder(v), terms=terms, seed=seed
    )
    differences = (truth.log_prob(x) - elbo) / 16
    return float(differences.mean()), float(differences.std()) / math.sqrt(copies)


def mean_gap(sigmas):
    """The same in closed form, averaged over x as well: E |x - x_hat(x_t)|^2 = D v sigma^2 / (v + sigma^2)."""
    v, last = SD**2, 0.25 + sigmas[-1] ** 2
    decoder = -0.5 - 0.5 * math.log(2 * math.pi * decoder_variance(sigmas[0]))
    kl = 0.5 * ((v + sigmas[-1] ** 2) / last - 1 - math.log(sigmas[-1] ** 2 / last))
    total = sum(0.5 * (a**-2 - b**-2) * v * b**2 / (v + b**2) for a, b in pairwise(sigmas))
    return -0.5 - 0.5 * math.log(2 * math.pi * v) - (decoder - kl - total)


def test_elbo_is_below_log_prob_and_tends_to_it_as_levels_grow_dense():
    """For levels even in ln sigma the gap is O(1 / T)."""
    (coarse, error), (middle, error_middle), (fine, error_fine) = (gap(geometric_levels(T)) for T in (50, 200, 800))
    assert coarse > 3 * error
    assert middle > 3 * error_middle
    assert fine > -3 * error_fine
    assert fine < 0.06
    assert coarse > 3.5 * middle
    assert mean_gap(geometric_levels(200)) / mean_gap(geometric_levels(800)) == pytest.approx(4, rel=0.05)


def test_elbo_has_the_divergence_of_the_last_level_from_the_prior():
    """Nothing else depends on centre and prior_variance: for the same noise, elbos differ by these divergences."""
    truth, levels = gaussian((1, 4, 4)), [0.05, 0.2, 0.4]
    x = truth.sample(3, seed=6)

    def elbo_and_kl(centre, variance):
        p = Normal(torch.tensor(centre, dtype=torch.float64), math.sqrt(variance))
        kl = kl_divergence(Normal(x, levels[-1]), p).sum((1, 2, 3))
        return chain_elbo(truth.denoise, x, levels, centre, variance, gaussian_decoder(1e-3)), kl

    (elbo, kl), (other, other_kl) = elbo_and_kl(0.5, 0.3), elbo_and_kl(0.1, 0.2)
    torch.testing.assert_close(elbo - other, other_kl - kl, rtol=1e-9, atol=1e-9)
    assert (other_kl - kl).min() > 1


@pytest.mark.parametrize("levels", [geometric_levels(60), linear_levels(60)], ids=["geometric", "linear"])
def test_elbo_has_its_closed_form_mean_for_gaussian_data(levels):
    truth = gaussian((1, 4, 4))
    x = truth.sample(3000, seed=4)
    v = decoder_variance(levels[0])
    elbo = chain_elbo(truth.denoise, x, levels, 0.5, 0.25 + levels[-1] ** 2, gaussian_decoder(v), terms=60)
    differences = (truth.log_prob(x) - elbo) / 16
    assert float(differences.mean()) == pytest.approx(mean_gap(levels), abs=3.5 * float(differences.std()) / 3000**0.5)


def test_gap_of_linear_betas_does_not_vanish():
    """Where p is flat at sigma_min, the first variances grow as sigma_t^2 ~ t, and the posterior variance costs

    1/2 sum_t (1 / t - ln(1 + 1 / t)) = 0.577 / 2 = 0.29 nats per value, however large T is.
    """
    gaps = [mean_gap(linear_levels(steps)) for steps in (1000, 10_000, 100_000)]
    assert gaps[0] > gaps[1] > gaps[2] > 0.5772 / 2
    assert gaps[2] == pytest.approx(0.5772 / 2, abs=0.02)


def test_elbo_of_few_terms_is_unbiased():
    """Against the whole sum, within 3.5 standard errors of both; a term's weight wrong by 3 % would be seen."""
    whole, error = gap(linear_levels(100))
    for terms in (1, 7, 40):
        few, error_few = gap(linear_levels(100), terms=terms, copies=3000, seed=1)
        assert few == pytest.approx(whole, abs=3.5 * math.hypot(error, error_few))


def test_elbo_of_the_prior_is_that_of_levels_even_in_ln_sigma():
    prior, truth = exact((1, 4, 4), steps=100), gaussian((1, 4, 4))
    x = truth.sample(3, seed=2)
    sigmas = torch.logspace(math.log10(prior.sigma_min), math.log10(prior.sigma_max), 100, dtype=torch.float64).tolist()
    prior.decoder_variance.fill_(1e-4)
    expected = chain_elbo(
        truth.denoise, x, sigmas, 0.5, 0.25 / prior.alpha_bars[-1], gaussian_decoder(1e-4), seed=3, terms=9
    )
    torch.testing.assert_close(prior.elbo(x, seed=3, terms=9), expected, rtol=1e-8, atol=0)
    with pytest.raises(ValueError, match="terms is 0"):
        prior.elbo(x, terms=0)


def test_fitted_decoder_has_the_variance_of_the_error_at_sigma_min():
    """v sigma^2 / (v + sigma^2); relative sd sqrt(2 / N) of a mean of N squares, three of them."""
    prior, truth = exact((1, 16, 16), sd=0.05, steps=20), gaussian((1, 16, 16), sd=0.05)
    prior.fit_decoder(truth.sample(20, seed=1))
    expected = 1 / (1 / 0.05**2 + 1 / prior.sigma_min**2)
    assert float(prior.decoder_variance) == pytest.approx(expected, rel=3 * math.sqrt(2 / (20 * 256)))
    assert expected < 0.7 * prior.sigma_min**2  # far from the variance it had before


# ---- bounds of 8-bit images, and the probability flow ----


def test_geometric_levels_are_even_in_ln_sigma():
    alpha_bar = torch.cumprod(1 - geometric_betas(200), 0)
    log_s = ((1 - alpha_bar) / alpha_bar).sqrt().log()
    torch.testing.assert_close(log_s.diff(), log_s.diff().mean().expand(199), rtol=1e-6, atol=0)
    prior = real(betas="geometric", steps=200)
    assert (255 * prior.sigma_min, prior.sigma_max) == pytest.approx((0.2, 10), rel=1e-6)


def test_masses_of_the_grey_levels_sum_to_one():
    """For any x_hat, in range or not, and any variance; D ln 256 turns the mass of a cell into its density."""
    x = torch.arange(256, dtype=torch.float64).reshape(256, 1, 1, 1) / 255
    for x_hat in (0.0, 0.3, 1.0, -0.2, 1.2, 0.5 / 255):
        for v in (1e-8, 1e-5, 1e-2):
            density = grey_level_decoder(v)(x, torch.full_like(x, x_hat)).exp()
            assert float(density.sum()) == pytest.approx(256, rel=1e-9)


def test_grey_level_decoder_keeps_its_digits_far_from_the_estimate():
    """The mass beyond 19 sd is N(19) / 19 to a relative 1 / 19^2: a difference of numbers near 1 would lose it."""
    v, x = (1 / 255) ** 2 / 4, torch.full((1, 1, 1, 1), 10 / 255, dtype=torch.float64)
    found = float(grey_level_decoder(v)(x, torch.zeros_like(x))) - math.log(256)
    near = Normal(0.0, 1.0).log_prob(torch.tensor(19.0)).double() - math.log(19)
    assert found == pytest.approx(float(near), abs=1 / 19**2)


def test_8bit_bound_differs_from_the_bound_by_the_decoder():
    prior = exact((1, 4, 4), steps=100)
    prior.decoder_variance.fill_(2e-5)
    x = torch.arange(48, dtype=torch.float64).reshape(3, 1, 4, 4) * 5 / 255
    x_1 = x + prior.sigma_min * Noise(3, torch.arange(3))(x)  # the first noise that the bound draws
    x_hat = prior.denoise(x_1, prior.sigma_min)
    expected = grey_level_decoder(2e-5)(x, x_hat) - gaussian_decoder(2e-5)(x, x_hat)
    torch.testing.assert_close(prior.elbo_8bit(x, seed=3) - prior.elbo(x, seed=3), expected, rtol=1e-9, atol=1e-9)


def flow_error(steps, sd=SD):
    """Largest error of the flow's log-density per value, where N(0.5, sd^2 + sigma_min^2) is exact, by quadrature.

    The trace of a multiple of the identity is met by any probe exactly.
    """
    prior, truth = exact((1, 4, 4), sd=sd), gaussian((1, 4, 4), sd=math.hypot(sd, exact((1, 1, 1)).sigma_min))
    prior.spread = sd
    x = truth.sample(5, seed=1)
    return float((prior.flow_log_prob(x, steps=steps, probes=1).value - truth.log_prob(x)).abs().max()) / 16


def test_flow_log_prob_of_gaussian_data_converges_to_second_order():
    coarse, middle, fine = flow_error(100), flow_error(200), flow_error(800)
    assert coarse / middle == pytest.approx(4, rel=0.15)
    assert middle / fine == pytest.approx(16, rel=0.15)
    assert fine < 2e-4


def test_draws_and_density_of_a_velocity_are_those_of_the_gaussian():
    """Of 3000 draws, within 5 standard errors and 3 % for the 200 steps; ln p within its stated error."""
    prior, truth = exact_velocity((1, 2, 2), steps=200), gaussian((1, 2, 2))
    prior.net.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # says where and in which precision to draw
    x = prior.sample(3000, seed=0)
    assert float((x.mean(0) - 0.5).abs().max()) < 5 * SD / math.sqrt(3000)
    assert float(x.var(0).mean()) == pytest.approx(SD**2, rel=5 * math.sqrt(2 / 12000) + 0.03)
    prior.spread = SD
    noisy = gaussian((1, 2, 2), sd=math.hypot(SD, prior.sigma_min))
    x = truth.sample(5, seed=1)
    found = prior.flow_log_prob(x, steps=100, probes=1)  # the trace of a multiple of the identity is met by any probe
    assert ((found.value - noisy.log_prob(x)).abs() < found.step_error).all()
    assert float(found.step_error.max()) < 0.2


def test_flow_log_prob_is_unbiased_over_probes():
    """A denoiser with a full Jacobian, that of a correlated Gaussian; the mean over 2000 probes, within 3.5 errors."""
    i = torch.arange(16, dtype=torch.float64)
    S = SD**2 * torch.exp(-(i[:, None] - i).abs() / 3)
    truth, noisy = (Gaussian(torch.full((1, 4, 4), 0.5).double(), S + v * torch.eye(16)) for v in (0.0, 0.01**2))
    x = noisy.sample(1, seed=2).expand(2000, 1, 4, 4)
    known = DenoiserPrior(truth.denoise, (1, 4, 4), 0.01, 50.0, 0.5, SD)
    found = flow_log_prob(known, x, steps=200, probes=1).value
    error = float(found.std()) / math.sqrt(2000)
    assert error > 1e-4  # the probes matter
    assert float(found.mean()) == pytest.approx(float(noisy.log_prob(x[:1])), abs=3.5 * error + 16 * 2e-3)


def test_flow_bound_of_8bit_images_is_below_their_log_probability():
    """The model's P(k) of one value, by quadrature: N(0.5, sd^2 + sigma_min^2) for x_1, then the decoder."""
    prior = exact((1, 1, 1), steps=1000, betas="geometric")
    prior.spread = SD
    prior.decoder_variance.fill_(prior.sigma_min**2)
    k = torch.arange(0, 256, 51, dtype=torch.float64).reshape(-1, 1, 1, 1) / 255
    x_1 = torch.linspace(-1.5, 2.5, 400_001, dtype=torch.float64).reshape(-1, 1, 1, 1)
    p = gaussian_decoder(SD**2 + prior.sigma_min**2)(x_1, torch.full_like(x_1, 0.5)).exp()
    x_hat = prior.denoise(x_1, prior.sigma_min)
    exact_log_p = torch.stack([
        (p * grey_level_decoder(prior.sigma_min**2)(value.expand_as(x_1), x_hat).exp()).sum().mul(1e-5).log()
        for value in k
    ])  # fmt: skip
    # its mean: E_q [ln p(x_1) + ln P(k | x_1) - ln q(x_1)], 0.2 to 0.3 nats below for a smooth p
    q = [gaussian_decoder(prior.sigma_min**2)(x_1, value.expand_as(x_1)) for value in k]
    expected = torch.stack([
        (density.exp() * (p.log() + grey_level_decoder(prior.sigma_min**2)(value.expand_as(x_1), x_hat) - density))
        .nan_to_num(0.0).sum() * 1e-5
        for value, density in zip(k, q)
    ])  # fmt: skip
    copies = 400
    bound = prior.flow_bound_8bit(k.repeat_interleave(copies, 0), steps=400).reshape(6, copies)
    error = bound.std(1) / math.sqrt(copies)
    assert ((bound.mean(1) - expected).abs() < 3.5 * error + 1e-3).all()
    assert (exact_log_p - expected > 0.05).all()


# ---- labels and edges ----


def test_with_classes_and_without_a_label_a_prior_equals_what_it_was():
    prior = real()
    labelled = prior.with_classes(3, (1, 8, 8))
    assert (labelled.classes, labelled.image_shape) == (3, (1, 8, 8))
    x_t = torch.linspace(-1, 2, 128, dtype=torch.float64).reshape(2, 1, 8, 8)
    before, after = prior.denoise(x_t, 0.3), labelled.denoise(x_t, 0.3)
    assert torch.equal(after, before)
    given = labelled.denoise(x_t, 0.3, torch.tensor([0, 2]))
    assert (given - after).abs().amax((1, 2, 3)).min() > 1e-3
    again = prior.with_classes(3, (1, 8, 8))
    assert torch.equal(again.denoise(x_t, 0.3, torch.tensor([0, 2])), given)
    with pytest.raises(ValueError, match="This prior has 3 classes already: train it on as it is"):
        labelled.with_classes(3, (1, 8, 8))


def test_guidance_extrapolates_from_no_label_to_the_label():
    prior = exact((1, 2, 2), means=(-0.5, 0.5, 0.0))
    x_t = gaussian((1, 2, 2)).sample(3, seed=1)
    free, given = prior.denoise(x_t, 0.3), prior.given(1).denoise(x_t, 0.3)
    assert (free - given).abs().min() > 0.01
    torch.testing.assert_close(prior.given(1, guidance=2.5).denoise(x_t, 0.3), free + 2.5 * (given - free))
    torch.testing.assert_close(prior.given(1, guidance=0.0).denoise(x_t, 0.3), free)


def test_guidance_moves_the_draws():
    """With equal variances the guided mean is free + w (given - free) too: 0.5 + (0, 0.25, 0.5) for w = 0, 1, 2."""
    prior = exact((1, 4, 4), means=(0.5, 0.0), steps=200)
    for w in (0.0, 1.0, 2.0):
        mean = prior.given(0, guidance=w).sample(100, seed=1).mean()
        # 1600 values of sd 0.2
        assert float(mean) == pytest.approx(0.5 + 0.25 * w, abs=3.3 * SD / 40 + 0.002)


def test_edges_show_the_distance_from_black_and_white_in_units_of_noise():
    prior = real(edges=True, steps=1000)  # sigma_min is 0.005
    seen = []
    prior.net.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    x_t = torch.tensor([0.0, 0.003, -0.002, 1.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    prior.denoise(x_t, 0.01)
    black, white = seen[0][0, 1].flatten(), seen[0][0, 2].flatten()
    # near an edge the distance itself, up to the cube of a quarter of it; far away, at most 4
    torch.testing.assert_close(black[:3], x_t.flatten()[:3] / 0.01, rtol=0.01, atol=1e-9)
    assert float(black[3]) == pytest.approx(4)
    assert (white[3].abs() < 1e-9, float(white[0])) == (True, pytest.approx(-4))
    with torch.no_grad():
        assert torch.isfinite(prior.denoise(x_t, 0.0)).all()


def test_edges_of_photographs_of_any_size_are_denoised_like_the_rest():
    """Sides of 164 are continued to 176: the last rows have about the error that they have as the first, turned round.

    By a tenth more at most, where a last row repeated, whose noise becomes stripes, makes it twice as large.
    """
    prior = load_prior("ddpm-photo")
    x = torch.from_numpy(data.chelsea()[100:264, 60:224]).movedim(-1, 0).float()[None] / 255
    x_t = x + torch.randn((4, *x.shape[1:]), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last = prior.denoise(x_t, 1.0) - x
        first = prior.denoise(x_t.flip(-2, -1), 1.0).flip(-2, -1) - x
    for edge in ((..., slice(-4, None), slice(None)), (..., slice(-4, None))):
        assert last[edge].square().mean().sqrt() < 1.1 * first[edge].square().mean().sqrt()


def test_below_sigma_min_a_trained_network_falls_silent():
    """x_hat - x_t is c_out F, and c_out in proportion to sigma: asked beyond its training, F was 1e5 and more."""
    prior = load_prior("ddpm-photo")
    x = torch.from_numpy(data.astronaut()[:32, :32].copy()).movedim(-1, 0)[None] / 255
    with torch.no_grad():
        moved = [float((prior.denoise(x, f * prior.sigma_min) - x).norm()) for f in (1.0, 0.5, 0.1, 0.0)]
    # F sees the same but for the scale of its input, sqrt(s^2 + data_std^2), which differs by less than 1 %
    # what is left at 0 is the rounding of 3072 values
    assert moved[1:] == pytest.approx([0.5 * moved[0], 0.1 * moved[0], 0.0], rel=0.05, abs=1e-5)


@pytest.mark.parametrize("size", [64, (8,), (8, 0), ("8", 8), (8.5, 8), (8, 8, 8)])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match=r"size is .*height|three positive integers"):
        DDPM((1, None, None), widths=(8,), blocks=1).sample(1, size=size)

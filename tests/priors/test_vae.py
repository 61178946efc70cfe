"""The variational autoencoder, against linear-Gaussian ones whose densities are in closed form, in float64.

With a linear decoder G(z) = m + Q diag(a) z, Q^T Q = I, the law of x is N(m, Q diag(a^2) Q^T + v I), and p(z | x) is
N(diag(a / (a^2 + v)) Q^T (x - m), diag(v / (a^2 + v))): an encoder of this form can be exact.
"""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.priors.base import supports
from genprior.priors.vae import LIMIT, PACE, VAE, divergence

SHAPE, D = (1, 2, 4), 8
V = 0.04
A = torch.tensor([0.5, 0.3], dtype=torch.float64)
SPREAD = 0.25
M = torch.linspace(0.1, 0.9, D, dtype=torch.float64)
Q = torch.linalg.qr(torch.randn(D, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
X = MultivariateNormal(M, (Q * A**2) @ Q.T + V * torch.eye(D, dtype=torch.float64))


class Affine(nn.Module):
    """x -> W x + b, of the flattened x, without matrix products, which autocast would round."""

    def __init__(self, W, b, shape):
        super().__init__()
        self.W, self.b, self.shape = nn.Parameter(W), nn.Parameter(b), shape

    def forward(self, x):
        return ((self.W * x.flatten(1)[:, None]).sum(2) + self.b).reshape(-1, *self.shape)


def linear(shift=(0.0, 0.0), widen=(1.0, 1.0)):
    """The linear VAE; its encoder is exact, or off by `shift` and `widen` standard deviations."""
    prior = VAE(SHAPE, latent=2, widths=(1,), blocks=(0,), spread=SPREAD).double()
    gain, sd = A / (A**2 + V), (V / (A**2 + V)).sqrt()
    raw = LIMIT * ((sd * torch.tensor(widen, dtype=torch.float64)).log() / LIMIT).atanh()
    W = gain[:, None] * Q.T
    bias = W @ (0.5 - M) + sd * torch.tensor(shift, dtype=torch.float64)
    prior.encoder = Affine(torch.cat([W * SPREAD, torch.zeros_like(W)]), torch.cat([bias, raw]), (4,))
    prior.decoder = Affine(Q * A / SPREAD, (M - 0.5) / SPREAD, SHAPE)
    prior.slow_log_variance.data.fill_(math.log(V) / PACE)
    return prior.requires_grad_(False)


def real(image_shape=(2, None, None), **arguments):
    """A VAE whose networks have random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = VAE(image_shape, **({"latent": 3, "widths": (4, 6), "blocks": (1, 1)} | arguments)).double()
        for parameter in prior.parameters():
            if not parameter.any():
                parameter.data.normal_(std=0.2)
    return prior.requires_grad_(False)


def some(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def one_image():
    return (M + (Q * A) @ torch.tensor([0.7, -1.1], dtype=torch.float64) + 0.1).reshape(1, *SHAPE)


def mean_and_error(values):
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


# ---- the bound ----


def test_mean_elbo_of_the_exact_encoder_is_log_prob():
    """Over 20,000 draws; one draw has an sd of about 1.4, sqrt(2 / 2) from |eps|^2 / 2 of two latents and more."""
    x = one_image()
    found, error = mean_and_error(linear().elbo(x.expand(20_000, *SHAPE)))
    assert error < 0.02
    assert found == pytest.approx(float(X.log_prob(x.flatten())), abs=4 * error)


def test_elbo_of_another_encoder_is_below_log_prob_by_its_divergence_from_the_posterior():
    x, prior = one_image(), linear(shift=(0.8, -0.4), widen=(1.5, 0.6))
    found, error = mean_and_error(prior.elbo(x.expand(20_000, *SHAPE)))
    mean, sd = prior.infer(x)
    best_mean, best_sd = linear().infer(x)
    gap = float(kl_divergence(Normal(mean, sd), Normal(best_mean, best_sd)).sum())
    # by hand, in units of the posterior's sd: (shift^2 + widen^2 - 1) / 2 - ln widen, summed
    by_hand = sum((s**2 + w**2 - 1) / 2 - math.log(w) for s, w in ((0.8, 1.5), (-0.4, 0.6)))
    assert gap == pytest.approx(by_hand, rel=1e-9)
    assert found == pytest.approx(float(X.log_prob(x.flatten())) - gap, abs=4 * error)
    assert gap > 40 * error


def test_elbo_is_that_of_its_draw_of_z():
    """With z = mean + sd eps, eps keyed by seed and row, and torch's own normal densities and divergence."""
    prior, x = real((1, 5, 6)), some(3, 1, 5, 6)
    mean, sd = prior.infer(x)
    z = mean + sd * Noise(7, range(3))(mean)
    likelihood = Normal(prior.decode(z), prior.decoder_variance.sqrt()).log_prob(x).sum((1, 2, 3))
    kl = kl_divergence(Normal(mean, sd), Normal(0, 1)).sum(1)
    torch.testing.assert_close(prior.elbo(x, seed=7), likelihood - kl, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(divergence(mean, sd), kl, rtol=1e-12, atol=1e-12)


def test_elbo_of_several_draws_has_the_same_mean_and_their_share_of_the_variance():
    """Nine draws have a third of the sd; the sd of n numbers is known to 1 / sqrt(2 n), and more for heavy tails."""
    prior, x = linear(shift=(0.5, 0.0)), one_image().expand(4000, *SHAPE)
    one, error_one = mean_and_error(prior.elbo(x))
    nine, error_nine = mean_and_error(prior.elbo(x, seed=1, draws=9))
    assert nine == pytest.approx(one, abs=4 * math.hypot(error_one, error_nine))
    assert error_one / error_nine == pytest.approx(3, rel=0.15)


def test_importance_weights_of_the_exact_encoder_do_not_vary():
    """p(x, z) / q(z | x) = p(x) for every z: the bound is ln p(x) itself, whatever k, to rounding."""
    x = one_image() + 0.3 * some(4, *SHAPE)
    for k in (1, 5):
        torch.testing.assert_close(linear().iwae(x, k), X.log_prob(x.flatten(1)), rtol=0, atol=1e-9)


def test_importance_weighted_bound_grows_with_k_to_log_prob():
    """Means over 4000 rows of noise: each k is above the last by over 4 standard errors, and none above ln p(x).

    For large k the gap is Var(w) / (2 k) with w the weights divided by p(x). Here E_q w^2 = E_p w is a product over
    the two latents, for p = N(0, 1) and q = N(s, t^2) of t^2 / sqrt(2 t^2 - 1) exp(s^2 / (2 t^2 - 1)), t^2 > 1/2.
    """
    prior, x = linear(shift=(0.5, 0.0), widen=(1.2, 1.4)), one_image().expand(4000, *SHAPE)
    log_prob = float(X.log_prob(x[0].flatten()))
    found = [mean_and_error(prior.iwae(x, k)) for k in (1, 3, 10, 100)]
    elbo, error = mean_and_error(prior.elbo(x, seed=1))
    assert found[0][0] == pytest.approx(elbo, abs=4 * math.hypot(error, found[0][1]))
    for (low, error_low), (high, error_high) in pairwise(found):
        assert high - low > 4 * math.hypot(error_low, error_high)
    assert all(mean < log_prob - 4 * error for mean, error in found[:3])
    factors = [t**2 / math.sqrt(2 * t**2 - 1) * math.exp(s**2 / (2 * t**2 - 1)) for s, t in ((0.5, 1.2), (0.0, 1.4))]
    gap = (math.prod(factors) - 1) / 200
    mean, error = found[-1]
    assert log_prob - mean == pytest.approx(gap, abs=4 * error + 0.1 * gap)


def test_importance_weighted_bound_does_not_depend_on_how_many_are_decoded_at_once():
    prior, x = real((2, 5, 6)), some(3, 2, 5, 6)
    together = prior.iwae(x, 10, seed=3)
    for rows in (1, 7, 12):
        torch.testing.assert_close(prior.iwae(x, 10, seed=3, rows=rows), together, rtol=0, atol=1e-9)


# ---- the score of the bound ----


@pytest.mark.parametrize("shape", [(1, 5, 6), (2, None, None)])
def test_score_is_the_slope_of_the_bound(shape):
    """Central differences along one direction per row: their error is O(h^2), 1e-8 relative, and rounding 1e-9."""
    prior, x = real(shape), some(3, shape[0], 5, 6)
    direction, h = some(3, shape[0], 5, 6) - 0.5, 1e-5
    up, down = (prior.elbo(x + sign * h * direction, seed=4, draws=2) for sign in (1, -1))
    slope = (prior.score(x, seed=4, draws=2) * direction).sum((1, 2, 3))
    torch.testing.assert_close((up - down) / (2 * h), slope, rtol=1e-5, atol=1e-5)
    assert slope.abs().min() > 0.1


def test_mean_score_of_the_exact_encoder_is_that_of_log_prob():
    """The bound is tight for all x there, so are its slopes: -S^-1 (x - m), within 4.5 standard errors each."""
    x = one_image()
    scores = linear().score(x.expand(20_000, *SHAPE)).flatten(1)
    expected = -X.precision_matrix @ (x.flatten() - M)
    error = scores.std(0) / math.sqrt(len(scores))
    assert ((scores.mean(0) - expected).abs() < 4.5 * error).all()
    assert (expected.abs() > 20 * error).any()


# ---- sampling ----


def test_samples_have_the_law_of_the_model():
    """Mean and covariance of 40,000 draws within 4.5 standard errors, sqrt((S_ii S_jj + S_ij^2) / n) of an entry."""
    n = 40_000
    x = linear().sample(n, seed=2).flatten(1)
    S = X.covariance_matrix
    assert ((x.mean(0) - M).abs() < 4.5 * (S.diagonal() / n).sqrt()).all()
    error = ((S.diagonal()[:, None] * S.diagonal() + S**2) / n).sqrt()
    assert ((x.T.cov() - S).abs() < 4.5 * error).all()
    # the grain is seen: without it, the variances would be smaller by V
    assert (error.diagonal() * 4.5 < V / 4).all()


def test_decoded_latents_are_the_means_of_the_model():
    z = some(5, 2)
    torch.testing.assert_close(linear().decode(z).flatten(1), M + (z * A) @ Q.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "size"), [((1, 5, 6), None), ((1, None, None), (5, 6))])
def test_draw_k_does_not_depend_on_how_many_are_drawn(shape, size):
    prior = real(shape)
    five = prior.sample(5, seed=3, size=size)
    torch.testing.assert_close(prior.sample(2, seed=3, size=size), five[:2], rtol=0, atol=1e-12)
    assert (five[0] - five[1]).abs().max() > 0.01
    assert (prior.sample(1, seed=4, size=size) - five[:1]).abs().max() > 0.01


def test_nothing_touches_the_global_random_state():
    prior, x = real((1, 5, 6)), some(2, 1, 5, 6)
    state = torch.get_rng_state()
    prior.sample(1), prior.elbo(x), prior.iwae(x, 2), prior.score(x)
    assert torch.equal(torch.get_rng_state(), state)


# ---- images of any size ----


def test_latents_of_any_size_are_counted_in_cells():
    prior = real((2, None, None))
    assert prior.latent_shape == (3, None, None)
    assert prior.sized(9, 12).latent_shape == (3, 3, 3)
    assert prior.sized(9, 12).sized(1, 1).latent_shape == (3, 3, 3)  # of one size already
    assert real((2, 9, 12)).latent_shape == (3,)
    for size in ((9, 12), (4, 4), (1, 5)):
        assert prior.sized(*size).infer(some(1, 2, *size))[1].shape[1:] == prior.sized(*size).latent_shape


def test_decoded_image_of_a_size_is_the_corner_of_the_whole():
    prior, z = real(), some(2, 3, 3, 2)
    whole = prior.decode(z)
    assert whole.shape == (2, 2, 12, 8)
    assert torch.equal(prior.sized(10, 5).decode(z), whole[..., :10, :5])


def test_latents_of_any_size_are_those_of_the_replicated_continuation():
    prior, x = real(), some(2, 2, 10, 5)
    whole = F.pad(x, (0, 3, 0, 2), mode="replicate")
    for part, expected in zip(prior.infer(x), prior.infer(whole)):
        assert torch.equal(part, expected)


def test_latents_shift_with_the_image():
    """By whole cells, away from the borders, which reach 1 + (2 + 1) cells and 4 half-cells far."""
    prior, x = real(), some(1, 2, 64, 64)
    z, shifted = prior.encode(x), prior.encode(x.roll((4, 8), (2, 3)))
    interior = (..., slice(8, 10), slice(8, 10))
    torch.testing.assert_close(z.roll((1, 2), (2, 3))[interior], shifted[interior], rtol=0, atol=1e-12)
    assert z[interior].std() > 0.01


def test_prior_of_any_size_has_the_bound_of_its_sized_one():
    prior, x = real(), some(2, 2, 10, 5)
    for method in (lambda p: p.elbo(x), lambda p: p.iwae(x, 3), lambda p: p.score(x)):
        assert torch.equal(method(prior), method(prior.sized(10, 5)))
    assert torch.equal(prior.sample(2, size=(10, 5)), prior.sized(10, 5).sample(2))


# ---- rows, rounding, wiring ----


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, None, None)])
def test_rows_of_a_batch_do_not_see_each_other(shape):
    """Row 0 alone has the noise of row 0 of any batch; other rows are compared by what has no noise."""
    prior, x, z = real(shape), some(3, 2, 5, 6), some(3, *real(shape).sized(5, 6).latent_shape)
    for method in (lambda a: prior.elbo(a, draws=2), lambda a: prior.iwae(a, 3), prior.score):
        torch.testing.assert_close(method(x[:1]), method(x)[:1], rtol=0, atol=1e-9)
    for row in range(3):
        alone = slice(row, row + 1)
        torch.testing.assert_close(prior.decode(z[alone]), prior.decode(z)[alone], rtol=0, atol=1e-12)
        torch.testing.assert_close(prior.encode(x[alone]), prior.encode(x)[alone], rtol=0, atol=1e-12)
        torch.testing.assert_close(prior.infer(x[alone])[1], prior.infer(x)[1][alone], rtol=0, atol=1e-12)


def test_bound_is_computed_in_float32_whatever_the_networks_compute_in():
    """Under autocast, the elbo of networks that autocast does not touch is the same number."""
    prior, x = linear().float(), one_image().float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = prior.elbo(x, draws=3)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, prior.elbo(x, draws=3))


def test_autocast_rounds_the_networks_only():
    """bfloat16 has 8 bits: means of order 1 are off by some 2^-8, not by nothing and not by 2^-3; the type is x's."""
    prior, x = real((1, 5, 6)).float(), some(4, 1, 5, 6).float()
    exact = prior.encode(x), prior.decode(prior.encode(x))
    prior.autocast = torch.bfloat16
    for found, wanted in zip((prior.encode(x), prior.decode(exact[0])), exact):
        assert found.dtype == torch.float32
        error = (found - wanted).abs().max() / wanted.abs().max()
        assert 1e-5 < error < 0.05


def test_standard_deviations_stay_finite_whatever_the_encoder_says():
    prior = linear()
    for raw, log_sd in ((1e6, LIMIT), (-1e6, -LIMIT), (0.0, 0.0)):
        prior.encoder.b[2:] = raw
        assert torch.allclose(prior.infer(one_image())[1].log(), torch.full((1, 2), log_sd, dtype=torch.float64))
        assert prior.elbo(one_image()).isfinite().all()


def test_prior_is_rebuilt_from_its_config_and_weights():
    for prior in (real((2, 5, 6), spread=0.4), real(blocks=(0, 2))):
        with torch.random.fork_rng(devices=[]):
            again = VAE(**prior.config).double()
        again.load_state_dict(prior.state_dict())
        assert torch.equal(again.elbo(some(2, 2, 5, 6)), prior.elbo(some(2, 2, 5, 6)))
        assert torch.equal(again.decoder_variance, prior.decoder_variance)


def test_it_has_what_it_honestly_has():
    assert real().capabilities == {"sample", "elbo", "score", "decode", "encode", "infer"}
    with pytest.raises(UnsupportedError, match="VAE has no log_prob; it has decode, elbo"):
        real().log_prob(some(1, 2, 5, 6))
    assert not supports(real(), "denoise")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: real().sample(1), r"images of any size: say which one, as size=\(height, width\)"),
        (lambda: real((2, None, 4)).sample(1), "say which one"),
        (lambda: real((2, None, 4)).sample(1, size=(4, 5)), r"images of size \(None, 4\), not \(4, 5\)"),
        (lambda: real((2, 5, 6)).sample(1, size=(6, 5)), r"images of size \(5, 6\), not \(6, 5\)"),
        (lambda: real((2, 5, 6)).elbo(some(1, 2, 6, 5)), r"\(1, 2, 6, 5\) was given: this VAE takes \(B, 2, 5, 6\)"),
        (lambda: real().encode(some(1, 3, 6, 5)), r"\(1, 3, 6, 5\) was given: this VAE takes \(B, 2, any, any\)"),
        (lambda: real().encode(some(2, 6, 5)), r"this VAE takes \(B, 2, any, any\)"),
        (lambda: real().sized(8, 8).decode(some(1, 3, 2, 3)), r"this VAE takes \(B, 3, 2, 2\)"),
        (lambda: real((2, 5, 6)).decode(some(1, 4)), r"this VAE takes \(B, 3\)"),
        (lambda: real((2, 5, 6)).elbo(some(1, 2, 5, 6), draws=0), "draws is 0: give"),
        (lambda: real((2, 5, 6)).iwae(some(1, 2, 5, 6), 0), "k is 0: give"),
    ],
)
def test_what_it_does_not_have_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_shape": (1, 4)},
        {"image_shape": (0, 4, 4)},
        {"image_shape": (1, 0, 4)},
        {"latent": 0},
        {"latent": 2.0},
        {"widths": ()},
        {"widths": (8, 0)},
        {"blocks": (1,)},
        {"blocks": (1, -1)},
        {"spread": 0},
        {"spread": math.nan},
    ],
)
def test_wrong_arguments_are_refused_by_name(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is .*: give "):
        VAE(**({"image_shape": (1, 4, 4), "widths": (8, 8), "blocks": (1, 1)} | wrong))

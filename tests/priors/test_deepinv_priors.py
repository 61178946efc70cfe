"""Our priors in deepinv's algorithms, on a Gaussian prior whose posterior and fixed points are known."""

import math
from itertools import pairwise

import deepinv
import numpy as np
import pytest
import torch

import genprior
from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Blur, Inpaint, as_physics, gaussian_kernel, random_mask
from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian

SIDE, SD, NOISE = 8, 0.2, 0.1
D = SIDE**2


def correlated():
    p = torch.arange(SIDE, dtype=torch.float64)
    gaps = (p[:, None] - p).abs()
    S = SD**2 * torch.kron(torch.exp(-gaps / 2), torch.exp(-gaps / 2))
    return Gaussian(torch.linspace(0.3, 0.7, D, dtype=torch.float64).reshape(1, SIDE, SIDE), S)


def white():
    return Gaussian(torch.full((1, SIDE, SIDE), 0.5), torch.full((1, SIDE, SIDE), SD**2))


def matrix(f):
    """The matrix of an affine map of images, and its constant."""
    zero = f(torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)).flatten(1)
    return (f(torch.eye(D, dtype=torch.float64).reshape(D, 1, SIDE, SIDE)).flatten(1) - zero).T, zero[0]


def test_denoiser_takes_sigma_in_every_form_that_deepinv_gives_it():
    prior = correlated()
    denoiser = genprior.as_denoiser(prior)
    assert isinstance(denoiser, deepinv.models.Denoiser)
    x = prior.sample(3)
    wanted = prior.denoise(x, 0.3)
    for sigma in (0.3, np.float64(0.3), torch.tensor(0.3), torch.full((3,), 0.3), torch.full((3, 1, 1, 1), 0.3)):
        torch.testing.assert_close(denoiser(x, sigma), wanted, rtol=1e-6, atol=1e-6)
    levels = torch.tensor([0.1, 0.2, 0.4])
    torch.testing.assert_close(denoiser(x, levels)[1:2], prior.denoise(x[1:2], 0.2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["PGD", "HQS"])
def test_plug_and_play_of_deepinv_ends_at_the_fixed_point(kind):
    """The denoiser D x = G x + g is affine. PGD: x = D(x - t A^T (A x - y)); HQS: x = D(prox(x)), both solved.

    The gain of G is at most l / (l + sigma^2) = 0.96 here: 0.96^600 = 2e-11.
    """
    prior, sigma, t = correlated(), 0.2, 0.9
    A = Blur(gaussian_kernel(1), (1, SIDE, SIDE), "circular")
    y = A(prior.sample(1, seed=1)) + NOISE * Noise(0, [0])(torch.empty(1, 1, SIDE, SIDE, dtype=torch.float64))
    G, g = matrix(lambda x: prior.denoise(x, sigma))
    if kind == "PGD":
        B, b = matrix(lambda x: x - t * A.adjoint(A(x) - y))
    else:
        B, b = matrix(lambda x: A.prox(x, y, t))
    solved = torch.linalg.solve(torch.eye(D, dtype=torch.float64) - G @ B, G @ b + g)
    model = getattr(deepinv.optim, kind)(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(genprior.as_denoiser(prior)),
        stepsize=t,
        sigma_denoiser=sigma,
        max_iter=600,
        early_stop=False,
    )
    with torch.no_grad():
        found = model(y, as_physics(A))
    torch.testing.assert_close(found.flatten(), solved, rtol=0, atol=1e-6)
    assert float((found - y).abs().max()) > 0.05  # it is not where it began


def law_of_dps(seen, steps):
    """Slope a and variance v of a pixel that ends at N(0.5 + a (y - 0.5), v), by deepinv's DPS in the units of x.

    With sigma = sqrt((1 - alpha_bar) / alpha_bar) / 2, alpha_bar = exp(-0.1 t - 9.95 t^2), t from 1 to 0, and the gain
    g = sd^2 / (sd^2 + sigma^2) of the exact denoiser, every step is affine:
        x_hat = g x + k (y - g x),   k = sigma^2 g / (noise^2 + sigma^2), the annealed guidance, 0 for unseen pixels,
        x' = r x + (1 - r) x_hat + sigma' sqrt(1 - r) n,   r = (sigma' / sigma)^2.
    """
    t = torch.linspace(1, 0, steps, dtype=torch.float64)
    sigmas = ((0.1 * t + 9.95 * t**2).expm1().sqrt() / 2).tolist()
    a, v = 0.0, sigmas[0] ** 2
    for sigma, sigma_next in pairwise(sigmas):
        g = SD**2 / (SD**2 + sigma**2)
        k = seen * sigma**2 * g / (NOISE**2 + sigma**2)
        r = (sigma_next / sigma) ** 2
        gain = r + (1 - r) * (1 - k) * g
        a, v = gain * a + (1 - r) * k, gain**2 * v + sigma_next**2 * (1 - r)
    return a, v


def test_dps_of_deepinv_draws_from_its_own_known_law():
    """Independent pixels, 32 of 64 seen, 400 chains: an exact law, though not the posterior (a = 0.67, there 0.8).

    Means within 4.5 sd / sqrt(400), the mean of 32 variances within 4 sqrt(2 / 400 / 32) = 5 %.
    """
    prior, steps = white(), 100
    A = Inpaint(random_mask((SIDE, SIDE), 0.5, 0), (1, SIDE, SIDE))
    y = A(prior.sample(1, seed=2)) + NOISE * A(Noise(0, [0])(torch.empty(1, 1, SIDE, SIDE)))
    model = deepinv.sampling.DPS(
        genprior.as_denoiser(prior), num_steps=steps, guidance="annealed", rng=torch.Generator().manual_seed(0)
    )
    x = model(y.expand(400, -1, -1, -1), as_physics(A, NOISE)).float()
    for pixels, seen in ((A.mask[0], 0), (~A.mask[0], 1)):
        a, v = law_of_dps(seen, steps)
        off = x.mean(0)[pixels] - (0.5 + a * (y[0][pixels] - 0.5))
        assert float(off.abs().max()) < 4.5 * math.sqrt(v / 400)
        assert float(x.var(0)[pixels].mean()) == pytest.approx(v, rel=4 * math.sqrt(2 / 400 / 32))
    assert law_of_dps(1, 100)[0] == pytest.approx(0.67, abs=0.01)


def test_score_prior_is_minus_the_score_of_noisy_images():
    prior, sigma = correlated(), 0.3
    x = prior.sample(3)
    noisy = Gaussian(prior.mean, correlated_covariance(sigma))
    found = genprior.as_score_prior(prior)
    assert isinstance(found, deepinv.optim.ScorePrior)
    torch.testing.assert_close(found.grad(x, sigma), -noisy.score(x))
    torch.testing.assert_close(found.score(x, sigma), noisy.score(x))


def correlated_covariance(sigma):
    prior = correlated()
    return matrix(lambda x: prior.decode(prior.decode(x) - prior.mean) - prior.mean)[0] + sigma**2 * torch.eye(D)


class ScoreOnly(Prior):
    """A prior with no more than a score, as flows are."""

    def __init__(self, truth):
        super().__init__()
        self.truth, self.image_shape = truth, truth.image_shape

    def score(self, x):
        return self.truth.score(x)


@pytest.mark.filterwarnings("ignore:Deprecated ULA:DeprecationWarning")
@pytest.mark.parametrize("wrapped", [lambda prior: prior, ScoreOnly], ids=["denoise", "score"])
def test_langevin_of_deepinv_draws_from_the_posterior(wrapped):
    """Independent pixels: a chain x' = x + h (score + A^T (y - A x) / noise^2) + sqrt(2 h) n of known law.

    Per pixel, of posterior precision p, its variance is 1 / (p (1 - h p / 2)); 64 chains side by side in one batch, of
    2700 steps after the first 300. With an autocorrelation of (1 - h p)^k, they are worth h p / 2 draws a step.
    """
    prior = white()
    sigma = 0.01  # of the noisy images whose score it is, 2 thousandths of the variance
    A = Inpaint(random_mask((SIDE, SIDE), 0.5, 0), (1, SIDE, SIDE))
    y = A(prior.sample(1, seed=2)).expand(64, -1, -1, -1)
    h = 0.25 * NOISE**2
    sampler = deepinv.sampling.ULA(
        genprior.as_score_prior(wrapped(prior)),
        deepinv.optim.L2(sigma=NOISE),
        step_size=h,
        sigma=sigma,
        max_iter=3000,
        thinning=5,
        burnin_ratio=0.1,
        clip=None,
    )
    mean, variance = sampler(y, as_physics(A, NOISE), seed=0)
    precision = 1 / SD**2 + (~A.mask[0]).float() / NOISE**2
    wanted_mean = (0.5 / SD**2 + y[0] / NOISE**2) / precision
    wanted_variance = 1 / (precision * (1 - h * precision / 2))
    independent = 64 * 2700 * h * precision / 2  # draws that a pixel's chains are worth
    z = (mean.mean(0) - wanted_mean) / (wanted_variance / independent).sqrt()
    assert float(z.abs().max()) < 4.5
    # about the mean of a chain, which itself varies as the mean of `independent / 64` draws does
    ratio = variance.mean(0) / (wanted_variance * (1 - 64 / independent))
    assert float((ratio - 1).abs().max()) < 4.5 * math.sqrt(2 / float(independent.min()))


def test_prior_without_a_denoiser_is_refused():
    with pytest.raises(UnsupportedError, match="ScoreOnly has no denoise"):
        genprior.as_denoiser(ScoreOnly(white()))

    class Nothing(Prior):
        pass

    with pytest.raises(UnsupportedError, match="no denoise and no score"):
        genprior.as_score_prior(Nothing())

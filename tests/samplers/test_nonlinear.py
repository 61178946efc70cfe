"""Samplers with operators that are not linear, and other likelihoods, against posteriors computed by quadrature.

Of N = 1000 draws, four standard errors are 0.13 of a posterior's standard deviation for the mean, and 0.09 of it for
the standard deviation (of these posteriors, none of which has heavier tails than a Gaussian).
"""

import math

import pytest
import torch

from genprior.checks import UnsupportedError
from genprior.likelihoods import Clipped, Poisson
from genprior.noise import Noise
from genprior.operators import Measurement, Operator, PhaseRetrieval
from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.samplers import DAPSHMC, DPS, HMC, MALA, MAP, MMPS, SAMPLERS, TDS, DAPSLangevin, FisherHMC, LatentHMC

N = 1000
MEAN, SD = 4 / math.sqrt(N), 4 / math.sqrt(2 * N)
ONE = (1, 1, 1)


class Pointwise(Operator):
    """A function of x, (B, 1, 1, w) -> (B, 1, 1, 1)."""

    def __init__(self, function, width=1):
        self.function = function
        self.image_shape, self.measurement_shape = (1, 1, width), ONE

    def _forward(self, x):
        return self.function(x)

    def _select(self, index):
        return self


MODULUS, SQUARE = Pointwise(torch.abs), Pointwise(torch.square)
RING = Pointwise(lambda x: x.square().sum(-1, keepdim=True), 2)
WEDGE = Pointwise(lambda x: x[..., :1].abs() - x[..., 1:2] * x[..., 2:], 3)


def gaussian(mean, sd, width=1):
    shape = (1, 1, width)
    return Gaussian(torch.full(shape, mean, dtype=torch.float64), torch.full(shape, sd**2, dtype=torch.float64))


def measured(A, y, noise):
    return Measurement(torch.full((1, *ONE), y, dtype=torch.float64), A, noise)


def figures(A, x):
    """The values of x and of A(x), (n, w + 1)."""
    return torch.cat([x.flatten(1), A(x).flatten(1)], 1)


def quadrature(prior, one):
    """Mean and standard deviation of each value of x and of A(x), by a sum over a grid of 6 deviations on each side."""
    width = prior.image_shape[-1]
    per_axis = {1: 4001, 2: 401, 3: 101}[width]
    centre, spread = float(torch.as_tensor(prior.centre).mean()), prior.spread
    axis = torch.linspace(centre - 6 * spread, centre + 6 * spread, per_axis, dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * width).reshape(-1, 1, 1, width)
    data, _ = one.select(torch.zeros(len(x), dtype=torch.long)).potential(x)
    w = (prior.log_prob(x) - data).softmax(0)
    known = figures(one.operator, x)
    mean = w @ known
    return mean, (w @ (known - mean).square()).sqrt()


def errors(sampler, prior, one, broken=None, n=N):
    """The largest error of a mean, in posterior deviations, and of a deviation, relative; of draws given `broken`."""
    rows = torch.zeros(n, dtype=torch.long)
    x = sampler(prior, (broken or one).select(rows), Noise(0, rows, torch.arange(n)))
    drawn, (mean, sd) = figures(one.operator, x), quadrature(prior, one)
    return float(((drawn.mean(0) - mean) / sd).abs().max()), float((drawn.std(0) / sd - 1).abs().max())


PROBLEMS = {
    "modulus": (gaussian(0.3, 0.5), measured(MODULUS, 0.5, 0.3)),
    "square": (gaussian(0.3, 0.5), measured(SQUARE, 0.5, 0.3)),
    "ring": (gaussian(0.4, 0.5, 2), measured(RING, 0.8, 0.3)),
    "three": (gaussian(0.4, 0.5, 3), measured(WEDGE, 0.2, 0.3)),
    "photons, square": (gaussian(1.0, 0.25), measured(SQUARE, 1.2, Poisson(0.1))),
    "photons, modulus": (gaussian(1.0, 0.25), measured(MODULUS, 0.8, Poisson(0.1))),
    "saturated square": (gaussian(1.0, 0.3), measured(SQUARE, 1.0, Clipped(0.0, 1.0, 0.3))),
}
# a problem with hardly any mass in its second mode, where some chains would start and stay
INFORMATIVE = (gaussian(0.8, 0.4), measured(SQUARE, 2.25, 0.2))
GAUSSIAN = [name for name, (_, one) in PROBLEMS.items() if isinstance(one.noise, float)]


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("sampler", [HMC(), MALA(steps=400, burn_in=100)], ids=["hmc", "mala"])
def test_chains_have_the_posterior_of_operators_and_noises_that_are_not_linear(sampler, name):
    """All are of one mode, or of modes between which chains of these lengths go to and fro."""
    off, spread = errors(sampler, *PROBLEMS[name])
    assert off < MEAN
    assert spread < SD


@pytest.mark.parametrize("name", GAUSSIAN)
def test_tds_has_the_posterior_with_many_particles(name):
    """Draws from a cloud of 1000 are fewer in effect: of 0.4 of them, errors are 1.6 times as large."""
    off, spread = errors(TDS(steps=200, particles=N), *PROBLEMS[name])
    assert off < 1.6 * MEAN
    assert spread < 1.6 * SD


def test_tds_draws_nearer_as_particles_grow():
    """Single particles follow the twist alone, which is another law; 400 are weighed."""
    prior, one = INFORMATIVE
    # of 100 draws, four standard errors of the deviation are 0.28
    _, alone = errors(TDS(steps=30, particles=1), prior, one, n=100)
    off, many = errors(TDS(steps=30, particles=N), prior, one)
    assert alone > 0.4
    assert off < 1.6 * MEAN
    assert many < 1.6 * SD


@pytest.mark.parametrize("name", GAUSSIAN)
@pytest.mark.parametrize("sampler", [DAPSLangevin(steps=50, iterations=60), DAPSHMC(steps=50)], ids=["langevin", "hmc"])
def test_decoupled_annealing_is_nearly_right_for_white_gaussian_priors(sampler, name):
    """Inner draws from an exact p(x | x_t), by steps that leave variances 1 / (1 - step / 2) = 1.14 times too large."""
    off, spread = errors(sampler, *PROBLEMS[name])
    assert off < MEAN + 0.05
    assert spread < SD + 0.07


def test_what_does_not_know_the_noise_is_off():
    """DPS, and moment matching, whose linear operator is another for each x_hat: pinned from both sides."""
    prior, one = PROBLEMS["modulus"]
    off, spread = errors(DPS(steps=200), prior, one)
    assert 0.3 < off < 0.9
    assert 0.6 < spread < 0.95
    off, spread = errors(MMPS(), prior, one)
    assert 0.08 < off < 0.35


def test_map_ends_in_a_mode():
    """U' = (x - m) / s^2 + (x^2 - y) 2 x / noise^2 = 0, wherever it started; both modes are found."""
    prior, one = PROBLEMS["square"]
    rows = torch.zeros(50, dtype=torch.long)
    x = MAP()(prior, one.select(rows), Noise(0, rows, torch.arange(50)))
    slope = (x - 0.3) / 0.5**2 + (x**2 - 0.5) * 2 * x / 0.3**2
    # in float64; the energies of which they are the lowest that Adam or rounding tells apart, 1e-16, have a square root
    assert slope.abs().max() < 1e-5
    assert x.min() < 0 < x.max()


class Line(Prior):
    """x = 0.3 + 0.5 z, z ~ N(0, 1): the Gaussian of "modulus" and "square" as a decoder."""

    image_shape, latent_shape, decoder_variance = ONE, (1,), 0.0
    centre, spread = 0.3, 0.5

    def decode(self, z):
        return 0.3 + 0.5 * z.reshape(-1, *ONE)


@pytest.mark.parametrize("sampler", [LatentHMC(steps=40), FisherHMC(steps=40)], ids=["latent", "fisher-hmc"])
def test_chains_of_latents_have_the_posterior(sampler):
    prior, one = PROBLEMS["modulus"]
    rows = torch.zeros(N, dtype=torch.long)
    x = sampler(Line(), one.select(rows), Noise(0, rows, torch.arange(N)))
    drawn, (mean, sd) = figures(one.operator, x), quadrature(prior, one)
    assert ((drawn.mean(0) - mean) / sd).abs().max() < MEAN
    assert (drawn.std(0) / sd - 1).abs().max() < SD


def mixture(*means):
    """Two Gaussians of deviation 0.2, of weights 0.4 and 0.6."""
    means = torch.tensor(means, dtype=torch.float64)[:, None, None]
    variance = torch.full(means.shape[1:], 0.04, dtype=torch.float64)
    return GaussianMixture(torch.tensor([0.4, 0.6], dtype=torch.float64), means, variance)


def magnitudes(*x):
    """Of a Fourier transform of x, with noise among which chains go from mode to mode."""
    A = PhaseRetrieval((1, 1, len(x)))
    return Measurement(A(torch.tensor(x, dtype=torch.float64)[None, None, None]), A, 0.2)


PHASES = {
    "two": (mixture([0.2, 0.8], [0.9, 0.1]), magnitudes(0.25, 0.85)),
    "three": (mixture([0.2, 0.8, 0.4], [0.9, 0.1, 0.5]), magnitudes(0.25, 0.85, 0.45)),
}
EXACT = {"hmc": (HMC(), 1.0), "mala": (MALA(steps=400, burn_in=100), 1.0), "tds": (TDS(steps=100, particles=N), 1.6)}


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("sampler", EXACT)
def test_phases_of_a_mixture_are_retrieved_as_by_quadrature(sampler, name):
    sampler, wider = EXACT[sampler]
    off, spread = errors(sampler, *PHASES[name])
    assert off < wider * MEAN
    assert spread < wider * SD


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("sampler", EXACT)
def test_a_wrong_noise_of_magnitudes_is_seen(sampler, name):
    """Thrice what it is: the deviations of what was measured are too large by a third at least."""
    sampler, wider = EXACT[sampler]
    prior, one = PHASES[name]
    _, spread = errors(sampler, prior, one, one.with_noise(0.6))
    assert spread > 2 * wider * SD


def test_phases_of_a_mixture_by_what_is_not_exact():
    """Known errors, pinned from both sides, to four standard errors: the inner law of DAPS is one Gaussian for both
    modes; DPS does not know the noise."""
    off, spread = errors(DAPSHMC(steps=50), *PHASES["three"])
    assert 0.26 < off < 0.52
    assert 0.17 < spread < 0.36
    off, spread = errors(DPS(steps=200), *PHASES["three"])
    assert 0.5 < off < 0.76
    assert 0.65 < spread < 0.83


def test_phases_of_a_mixture_are_retrieved_as_by_importance_sampling():
    """Images of two values, two modes and their mirror: against a million draws of the prior, weighed by y.

    Their effective number is over 10^4, so that their own errors are a third of those of N draws.
    """
    means = torch.tensor([[0.2, 0.8], [0.9, 0.1]], dtype=torch.float64).reshape(2, 1, 1, 2)
    prior = GaussianMixture(
        torch.tensor([0.4, 0.6], dtype=torch.float64), means, torch.full((1, 1, 2), 0.04, dtype=torch.float64)
    )
    A = PhaseRetrieval((1, 1, 2))
    one = Measurement(A(means[:1] + 0.05), A, 0.1)
    x = prior.sample(1_000_000, seed=3)
    w = (-one.select(torch.zeros(len(x), dtype=torch.long)).potential(x)[0]).softmax(0)
    assert 1 / w.square().sum() > 1e4
    mean = w @ x.flatten(1)
    sd = (w @ (x.flatten(1) - mean).square()).sqrt()
    rows = torch.zeros(N, dtype=torch.long)
    drawn = TDS(steps=100, particles=N)(prior, one.select(rows), Noise(0, rows, torch.arange(N))).flatten(1)
    assert ((drawn.mean(0) - mean) / sd).abs().max() < 1.6 * MEAN
    assert (drawn.std(0) / sd - 1).abs().max() < 1.6 * SD


class Half(Pointwise):
    """With a derivative half as long."""

    def vjp(self, x):
        y, vjp = super().vjp(x)
        return y, lambda v: vjp(v) / 2


@pytest.mark.parametrize("sampler", [DAPSHMC(steps=50), DAPSLangevin(steps=50, iterations=60)], ids=["hmc", "langevin"])
def test_a_wrong_derivative_is_seen(sampler):
    prior, one = INFORMATIVE
    off, spread = errors(sampler, prior, one, Measurement(one.y, Half(torch.square), one.noise))
    assert off > MEAN + 0.05 or spread > SD + 0.07


def test_a_wrong_energy_is_seen(monkeypatch):
    """Half of it, which Metropolis tests follow whatever the gradient."""
    prior, one = gaussian(1.5, 0.2), INFORMATIVE[1]
    wanted = quadrature(prior, one)
    right = Measurement.potential
    monkeypatch.setattr(Measurement, "potential", lambda self, x: (right(self, x)[0] / 2, right(self, x)[1]))
    rows = torch.zeros(N, dtype=torch.long)
    drawn = figures(one.operator, HMC()(prior, one.select(rows), Noise(0, rows, torch.arange(N))))
    assert (drawn.std(0) / wanted[1] - 1).abs().max() > 2 * SD


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if sampler.linear])
def test_the_others_say_what_to_take(name):
    prior, one = PROBLEMS["square"]
    sampler = SAMPLERS[name]()
    with pytest.raises(UnsupportedError) as error:
        sampler(prior, one, Noise(0, [0]))
    if sampler.takes(prior) and isinstance(one.likelihood, sampler.likelihoods):
        assert str(error.value).endswith(
            "needs a linear operator, and Pointwise is not linear: take DAPSHMC, DPS or TDS, which do not."
        )

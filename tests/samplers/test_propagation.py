"""Draws and means under likelihoods that are not Gaussian, against quadrature in one and two dimensions."""

import dataclasses

import pytest
import torch

import genprior
from genprior.likelihoods import Clipped, Gaussian, Poisson, PoissonGaussian, Quantised
from genprior.noise import Noise
from genprior.operators import JPEG, Denoise, Inpaint, Matrix, Measurement, SuperResolution, random_mask
from genprior.priors.gaussian.covariance import Dense, Stationary
from genprior.priors.gaussian.gaussian import Gaussian as GaussianPrior
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.samplers import OptimalCovariance
from genprior.samplers.base import start
from genprior.samplers.guidance import propagation
from genprior.samplers.guidance.propagation import (
    are_apart,
    exact_variances,
    local_variances,
    propagated,
    variances_apart,
)

MEAN = torch.tensor([0.5, 0.4], dtype=torch.float64)
COV = torch.tensor([[0.04, 0.024], [0.024, 0.03]], dtype=torch.float64)
A = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
NORMAL = torch.ones(1, 1, 1, 2, 1, dtype=torch.float64)  # for a preconditioner: two iterations are exact anyway
# counts of 2 to 100, cells of 0.2 to 3 deviations of the prior
CASES = [
    (Gaussian(0.1), (0.65, 0.55)),
    (Poisson(0.25), (0.5, 0.25)),
    (Poisson(0.25), (0.0, 0.25)),
    (Poisson(0.05), (0.55, 0.5)),
    (Poisson(0.01), (0.9, 0.5)),
    (PoissonGaussian(0.1, 0.1), (0.55, 0.5)),
    (PoissonGaussian(0.1, 0.02), (0.6, 0.5)),
    (Quantised(0.04), (0.6, 0.48)),
    (Quantised(0.2), (0.6, 0.4)),
    (Quantised(0.6), (0.6, 0.0)),
    (Clipped(0, 0.6, 0.03), (0.6, 0.5)),
    (Clipped(0, 0.6, 0.1), (0.6, 0.6)),
]
IDS = [f"{law}" for law, _ in CASES]


def quadrature(law, y, matrix=A, n=400):
    """Mean and standard deviations of p(x | y), on a grid that is drawn in thrice, to eight deviations."""
    sd = COV.diagonal().sqrt()
    low, high = MEAN - 6 * sd, MEAN + 6 * sd
    for _ in range(4):
        axes = [torch.linspace(float(a), float(b), n, dtype=torch.float64) for a, b in zip(low, high)]
        x = torch.cartesian_prod(*axes)
        r = torch.linalg.solve_triangular(torch.linalg.cholesky(COV), (x - MEAN).T, upper=False)
        p = (law.log_prob(torch.tensor(y, dtype=torch.float64), x @ matrix.T).sum(1) - r.square().sum(0) / 2).softmax(0)
        mean = p @ x
        sd = (p @ (x - mean).square()).sqrt()
        low, high = torch.maximum(low, mean - 8 * sd), torch.minimum(high, mean + 8 * sd)
    return mean, sd


def prior_of(mean=MEAN, cov=COV):
    l, V = torch.linalg.eigh(cov)
    return genprior.Gaussian(mean.reshape(1, 1, 2), Dense(l.reshape(1, 1, 2), V))


def measured(law, y, n, matrix=A):
    operator = Matrix(matrix, (1, 1, matrix.shape[1]))
    y = torch.tensor(y, dtype=torch.float64).reshape(1, *operator.measurement_shape).repeat(n, 1, 1, 1)
    return Measurement(y, operator, law)


@pytest.mark.parametrize(("rounds", "most"), [(3, 0.05), (8, 0.02)])
@pytest.mark.parametrize(("law", "y"), CASES, ids=IDS)
def test_the_mean_is_that_of_quadrature(law, y, rounds, most):
    """In deviations: what the propagation misses, as the grid is off by (8 / 400)^2 at most."""
    mean, sd = quadrature(law, y)
    one = measured(law, y, 1)
    find = propagated(one, least=1e-6, rounds=rounds)
    x = find(
        MEAN.reshape(1, 1, 1, 2), prior_of().covariance, torch.ones(1, 1, 1, 2, 1, dtype=torch.float64), 4
    ).flatten()
    assert ((x - mean) / sd).abs().max() < most


@pytest.mark.parametrize("y", [(0.5,), (0.0,)])
def test_one_value_is_exact(y):
    """Of one value the propagation is exact: 1e-4 is that of the quadratures."""
    matrix, law = torch.tensor([[0.3, 0.7]], dtype=torch.float64), Poisson(0.25)
    mean, sd = quadrature(law, y, matrix)
    find = propagated(measured(law, y, 1, matrix), least=1e-6)
    x = find(
        MEAN.reshape(1, 1, 1, 2), prior_of().covariance, torch.ones(1, 1, 1, 2, 1, dtype=torch.float64), 4
    ).flatten()
    assert ((x - mean) / sd).abs().max() < 1e-3


def errors(law, y, prior, n=2000, **parameters):
    """Of n draws: the errors of the mean, in deviations, and of the deviations, in shares."""
    mean, sd = quadrature(law, y)
    one = measured(parameters.pop("taken", law), y, n)
    x = OptimalCovariance(**parameters)(prior, one, Noise(0, [1] * n, range(n))).reshape(n, 2)
    return ((x.mean(0) - mean) / sd).abs().max(), (x.std(0) / sd - 1).abs().max()


@pytest.mark.parametrize(("law", "y"), CASES, ids=IDS)
def test_draws_at_the_defaults_are_right_to_a_tenth(law, y):
    """2000 draws have a standard error of 0.022 in the mean and 0.016 in the deviation: three of them are added."""
    mean, deviation = errors(law, y, prior_of())
    assert mean < 0.04 + 3 * 0.022
    assert deviation < 0.05 + 3 * 0.016


@pytest.mark.slow
@pytest.mark.parametrize(("law", "y"), CASES, ids=IDS)
def test_draws_of_many_steps_are_right(law, y):
    """The bars are 0.02 deviations and 2 %, with three standard errors of 20000 draws, 0.007 and 0.005."""
    mean, deviation = errors(law, y, prior_of(), n=20_000, steps=80)
    assert mean < 0.02 + 3 * 0.007
    assert deviation < 0.02 + 3 * 0.005


@pytest.mark.parametrize(
    ("law", "y", "name"),
    [(CASES[3][0], CASES[3][1], "gain"), (CASES[5][0], CASES[5][1], "sd"), (CASES[8][0], CASES[8][1], "step")],
)
def test_a_wrong_parameter_is_seen(law, y, name):
    """Thrice what it is: in the mean or the deviation, by more than the defaults may be off."""
    wrong = dataclasses.replace(law, **{name: 3 * getattr(law, name)})
    mean, deviation = errors(law, y, prior_of(), taken=wrong)
    assert mean > 0.15 or deviation > 0.15


MODES = torch.tensor([[0.35, 0.3, 0.4], [0.75, 0.8, 0.7]], dtype=torch.float64)
A3 = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)


def upper_mode(law, y, taken=None, n=1000):
    """The posterior probability of the upper of two modes, by quadrature, and the share of draws there, of images of
    as many values as y has: two or three."""
    k = len(y)
    modes, matrix = MODES[:, :k], A3[:k, :k]
    variance = torch.full((1, 1, k), 0.01, dtype=torch.float64)
    mixture = GaussianMixture(torch.tensor([0.6, 0.4], dtype=torch.float64), modes.reshape(2, 1, 1, k), variance)
    # six deviations about the modes, of nodes a sixth of a deviation apart
    axis = torch.linspace(-0.3, 1.4, 100, dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * k)
    log_p = mixture.log_prob(x.reshape(-1, 1, 1, k)).flatten()
    p = (log_p + law.log_prob(torch.tensor(y, dtype=torch.float64), x @ matrix.T).sum(1)).softmax(0)
    measurement = measured(law, y, n, matrix)
    taken = measurement.with_noise(law if taken is None else taken)
    draws = OptimalCovariance()(mixture, taken, Noise(0, [1] * n, range(n))).reshape(n, k)
    middle = modes.mean(0).sum()
    return float(p[x.sum(1) > middle].sum()), float((draws.sum(1) > middle).double().mean())


@pytest.mark.parametrize(
    ("law", "y"),
    [
        (Poisson(0.1), (0.75, 0.75)),
        (Poisson(0.25), (0.75, 0.75)),
        (Poisson(0.25), (0.25, 0.25)),
        (Poisson(0.1), (0.7, 0.7, 0.7)),
        (Poisson(0.25), (0.75, 0.75, 0.75)),
        (Poisson(0.25), (0.25, 0.25, 0.25)),
    ],
    ids=str,
)
def test_of_two_modes_photon_noise_decides_by_more_than_half_of_what_it_should(law, y):
    """A known error, pinned from both sides: from the prior's weight of 0.4, draws go 0.60 to 0.66 of the way to the
    exact one, as V is that of both modes together. 1000 draws tell a weight to 0.016, and the way to 0.06."""
    exact, found = upper_mode(law, y)
    assert 0.45 < (found - 0.4) / (exact - 0.4) < 0.8


@pytest.mark.parametrize("y", [(0.75, 0.75), (0.75, 0.75, 0.75)], ids=str)
def test_of_two_modes_the_weights_move_with_the_gain(y):
    """With thrice the gain, y says less of the mode: 0.37 of the way."""
    law = Poisson(0.1)
    exact, wrong = upper_mode(law, y, taken=Poisson(0.3))
    assert (wrong - 0.4) / (exact - 0.4) < 0.45


@pytest.mark.parametrize(
    ("step", "y", "weight", "least", "most"),
    [
        (0.4, (0.4, 0.4), 0.003, 0.05, 0.17),
        (0.4, (0.4, 0.4, 0.4), 0.000, 0.03, 0.1),
        (0.3, (0.6, 0.6, 0.6), 0.94, 0.6, 0.72),
    ],
)
def test_of_two_modes_cells_leave_too_much_to_the_one_that_they_exclude(step, y, weight, least, most):
    """A known error, pinned from both sides: V is that of both modes together, wide where each is narrow, so that a
    cell is taken for less of a bound at high noise than it is. Nodes next to the edges of cells leave 0.02 of a weight.
    """
    exact, found = upper_mode(Quantised(step), y)
    assert abs(exact - weight) < 0.02
    assert least < found < most


@pytest.mark.parametrize("y", [(0.4, 0.4), (0.4, 0.4, 0.4)], ids=str)
def test_of_two_modes_the_weights_move_with_the_cells(y):
    """Cells of thrice the width exclude neither mode: the weight is near that of the prior."""
    _, wrong = upper_mode(Quantised(0.4), y, taken=Quantised(1.2))
    assert wrong > 0.2


def test_few_values_and_many_have_the_same_variances_where_both_are_exact():
    """A stationary V, all values seen, of one precision: the average over values is that of each, to the grid's 1 %."""
    shape = (1, 4, 6)
    k = torch.fft.fftfreq(4)[:, None].square() + torch.fft.fftfreq(6)[None].square()
    V = Stationary(0.05 / (1 + 40 * k).unsqueeze(0).double(), torch.eye(1, dtype=torch.float64))
    operator = genprior.operators.Denoise(shape)
    one = Measurement(torch.zeros(1, *shape, dtype=torch.float64), operator, Gaussian(1.0))
    normal, _ = V.diagonal_like(lambda x: x, one.y)
    for level in (0.1, 30.0, 1000.0):
        w = torch.full_like(one.y, level)
        exact = exact_variances(one, V)(w)
        local = local_variances(V, normal, torch.full((1, 1, 1, 1), 24.0, dtype=torch.float64))(w)
        torch.testing.assert_close(local, exact, rtol=0.02, atol=0)


COSINES = JPEG((1, 16, 16))


def smooth(side):
    """A stationary V of details that fall off as those of photographs do, (1, side, side)."""
    k = side**2 * (torch.fft.fftfreq(side)[:, None].square() + torch.fft.fftfreq(side).square())
    return Stationary(2 / (1 + k).unsqueeze(0).double(), torch.eye(1, dtype=torch.float64))


def test_values_apart_are_told_from_those_that_hang_together():
    """Pixels of a smooth image tell each other, seen through holes too; cosines of blocks do not, after a reduction
    as well, of each image by itself."""
    V, seen = smooth(16), torch.ones(2, 1, 16, 16, dtype=torch.float64)
    holes = random_mask((16, 16), 0.3, seed=1)
    masked = Inpaint(holes, (1, 16, 16))
    white = Stationary(torch.full((1, 16, 16), 0.2, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    cases = {
        "pixels": (V, Denoise((1, 16, 16)), seen, False),
        "holes": (V, masked, (~holes).double()[None].repeat(2, 1, 1, 1), False),
        "white": (white, Denoise((1, 16, 16)), seen, True),
        "cosines": (V, COSINES, torch.ones(2, *COSINES.measurement_shape, dtype=torch.float64), True),
        "reduced": (smooth(32), COSINES @ SuperResolution(2, (1, 32, 32)),
                    torch.ones(2, *COSINES.measurement_shape, dtype=torch.float64), True),
    }  # fmt: skip
    for name, (covariance, operator, values, apart) in cases.items():
        assert are_apart(covariance, operator, values).flatten().tolist() == [apart] * 2, name


def test_variances_of_values_apart_are_near_the_exact_ones(monkeypatch):
    """Of the 64 cosines of one block, which the matrix tells: to a tenth, of which 400 draws are off by 7 %. The mean
    over all values is off by a factor of two, either way."""
    monkeypatch.setattr(propagation, "PROBES", 400)
    A, V = JPEG((1, 8, 8)), smooth(8)
    one = Measurement(torch.zeros(1, *A.measurement_shape, dtype=torch.float64), A, Quantised(0.1))
    w = torch.full_like(one.y, 0.3)
    exact = exact_variances(one, V)(w)
    normal, _ = V.diagonal_like(lambda x: A.adjoint(A(x)), one.y.new_empty(1, 1, 8, 8))
    together = local_variances(V, normal, torch.full((1, 1, 1, 1), 64.0, dtype=torch.float64))
    alone_off, together_off = (
        (c(w) / exact).log().square().mean().sqrt() for c in (variances_apart(V, A, one.y), together)
    )
    assert alone_off < 0.1
    assert together_off > 0.5


def test_restore_chooses_what_takes_the_likelihood():
    prior = genprior.Gaussian(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), 0.04))
    x = torch.full((1, 8, 8), 0.6)
    for law, picture in ((Poisson(0.05), "PosteriorMean"), (Clipped(0, 0.55, 0.02), "OptimalCovariance")):
        one = genprior.degrade(x, "denoise", noise=law, seed=0)
        result = genprior.restore(one, prior=prior, n=4, seed=0, progress=False)
        assert type(result.estimator).__name__ == picture
        assert type(result.sampler).__name__ == "OptimalCovariance"
        assert f"noise {type(law).__name__}(" in str(result)
        assert result.diagnostics["residual"].median() < 1.5


def test_an_image_does_not_depend_on_the_noise_of_its_company():
    """Few counts and many: each has the iterations that its own noise asks for.

    To rounding, of which 1 / s - 1 / v of the sites loses up to seven digits.
    """
    shape = (1, 9, 9)
    f = torch.fft.fftfreq(9, dtype=torch.float64).abs()
    spectrum = 0.05 / (0.05 + torch.hypot(f[:, None], f)) ** 2
    prior = GaussianPrior.stationary(torch.full(shape, 0.5, dtype=torch.float64), 0.01 * spectrum.expand(shape))
    A = Inpaint(random_mask(shape, 0.4, seed=1), shape)
    law = Poisson(torch.tensor([1 / 4000, 1 / 5], dtype=torch.float64).reshape(-1, 1, 1, 1))
    y = law.sample(A(prior.sample(2, seed=1).clamp_min(0)), Noise(1, [0, 1]))
    measurement, sampler = Measurement(y, A, law), OptimalCovariance(steps=6, iterations=10)
    together = sampler(prior, measurement, Noise(0, [0, 1]))
    for i in range(2):
        alone = sampler(prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-7)


def test_pixels_without_counts_do_not_carry_the_start_away():
    """Their likelihood exp(-z / gain) has no precision; it moves E[x | y] by sd^2 / gain = 0.05, half a deviation.

    A start has to be no more than 2.5 deviations away; where these pixels are given others' precision, it is at -30.
    """
    prior = GaussianPrior(torch.full((1, 6, 6), 0.5), torch.full((1, 6, 6), 0.01))
    y = 0.2 * torch.tensor([0.0, 0.0, 1.0, 4.0]).repeat(9).reshape(1, 1, 6, 6)
    found = start(prior, Measurement(y, Denoise((1, 6, 6)), Poisson(0.2)))
    assert (found - 0.5).abs().max() < 0.25
    empty = start(prior, Measurement(0 * y, Denoise((1, 6, 6)), Poisson(0.2)))
    # sd^2 / gain below the mean, to 1 % where all pixels are alike: the likelihood is that line but for z < 0
    torch.testing.assert_close(empty, torch.full_like(empty, 0.45), rtol=0, atol=0.0005)


def test_a_denoiser_without_a_measured_covariance_has_it_estimated():
    """White pixels, by the same denoiser with and without its covariance: means to 0.15 deviations, and the spread of
    256 draws of 64 values to a tenth."""
    shape = (1, 8, 8)
    known = GaussianPrior(torch.full(shape, 0.5), torch.full(shape, 0.04))
    denoiser = genprior.from_denoiser(known.denoise, (1, None, None), sigma_max=50.0)
    one = genprior.degrade(torch.full(shape, 0.6), "denoise", noise=Clipped(0, 0.65, 0.1), seed=0)
    results = [genprior.restore(one, prior=prior, n=256, seed=0, progress=False) for prior in (denoiser, known)]
    found, exact = results
    assert type(found.sampler).__name__ == type(found.estimator).__name__ == "ProbedCovariance"
    assert type(exact.sampler).__name__ == "OptimalCovariance"
    sd = exact.std.square().mean().sqrt()
    assert (found.samples.mean(0) - exact.samples.mean(0)).square().mean().sqrt() < 0.15 * sd
    assert 0.9 < found.std.square().mean().sqrt() / sd < 1.1

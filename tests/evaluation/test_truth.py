"""The Gaussian suite: its figures are unbiased, their errors as stated, and they tell right samplers from wrong."""

import math
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import ClassVar

import pytest
import torch

from genprior.noise import Noise
from genprior.posteriors.exact import posterior_of
from genprior.samplers.annealing.ddrm import DDRM
from genprior.samplers.annealing.repaint import RePaint
from genprior.samplers.base import Sampler
from genprior.samplers.chains.langevin import HMC
from genprior.samplers.exact import Exact
from genprior.samplers.integrate import geometric
from genprior.table import Estimate
from genprior.truth.gaussian import (
    CLOUDS,
    KINDS,
    NOISES,
    PRIORS,
    SHAPE,
    ConvergedMMPS,
    bias_square,
    blind,
    compare,
    correlated,
    covariance_square,
    directions,
    draw,
    gaussian_suite,
    independent,
    judge,
    measure,
    moments,
    operators,
    pairs,
    root,
    variance_ratio,
)

OPERATORS = operators()


@dataclass(frozen=True)
class Wrong(Sampler):
    """Exact draws, moved by `shift` standard deviations of each pixel, their deviations multiplied by `stretch`."""

    needs: ClassVar[str] = "sample"
    shift: float = 0.0
    stretch: float = 1.0

    @property
    def evaluations(self):
        return 0

    def sample(self, prior, measurement, noise):
        posterior = posterior_of(prior, measurement)
        _, S = moments(posterior)
        x = Exact()(prior, measurement, noise)
        moved = self.shift * S.diag().sqrt().reshape(prior.image_shape)
        return posterior.mean + self.stretch * (x - posterior.mean) + moved


@dataclass(frozen=True)
class Cloudy(Sampler):
    """Exact draws, of which each cloud has but one."""

    needs: ClassVar[str] = "sample"
    clouds: ClassVar[bool] = True

    @property
    def evaluations(self):
        return 0

    def sample(self, prior, measurement, noise):
        return Exact()(prior, measurement, Noise(0, torch.zeros_like(noise.image), noise.image))


def skewed(R, n, d):
    """R sets of n draws of a law in d dimensions that is not Gaussian, its mean and its covariance."""
    seed = torch.Generator().manual_seed(0)
    L = torch.eye(d, dtype=torch.float64) + 0.3 * torch.randn(d, d, generator=seed, dtype=torch.float64)
    n = -torch.rand(R, n, d, generator=seed, dtype=torch.float64).log() - 1  # exponential: mean 0, variance 1
    mean = torch.linspace(-0.3, 0.5, d, dtype=torch.float64)
    return n @ L.T + mean, mean, L @ L.T


@pytest.mark.parametrize("b", [1, 2])
def test_figures_are_unbiased_and_have_the_stated_standard_errors(b):
    """Of R = 400 sets of draws, the mean is within 3.3 of its own standard deviations of what is true.

    The mean of the stated variances is that of the sets' figures, which R sets tell to sqrt(2 / R), 7 %, if they are
    Gaussian; they have tails, so 3.3 times 15 % is left to chance.
    """
    R, d = 400, 4
    sets, mean, S = skewed(R, 40 * b, d)
    eye = torch.eye(d, dtype=torch.float64)
    for figure, true in (
        (bias_square, mean.square().mean()),
        (variance_ratio, S.trace() / d),
        (covariance_square, (S - eye).square().sum() / d),
    ):
        found = torch.tensor([figure(e.unflatten(0, (-1, b))) for e in sets], dtype=torch.float64)
        value, error = found.unbind(1)
        assert abs(value.mean() - true) < 3.3 * value.std() / math.sqrt(R), figure
        assert error.square().mean() / value.var() == pytest.approx(1, abs=3.3 * 0.15), figure


def test_draws_of_a_cloud_do_not_count_as_independent():
    """Every cloud of one draw repeated: the figures, and their standard errors, are those of the draws alone."""
    prior, operator = correlated(), OPERATORS["inpaint"]
    one = measure(prior, operator, 0.1)
    x = draw(Cloudy(), prior, one, 20 * CLOUDS)
    assert x.shape == (CLOUDS, 20, 64)
    repeated, alone = (compare(each, posterior_of(prior, one), operator) for each in (x, x[:, :1]))
    for found, expected in ((repeated.seen, alone.seen), (repeated.unseen, alone.unseen)):
        assert found.square == pytest.approx(expected.square)
        assert found.ratio == pytest.approx(expected.ratio)
    assert repeated.square == pytest.approx(alone.square)


@pytest.mark.parametrize("shared", [0.0, 2.0])
def test_pairs_sums_over_distinct_draws(shared):
    """Brute force over ordered pairs, triples and quadruples of six draws; the estimate of z_1 may be below 0."""
    seed = torch.Generator().manual_seed(3)
    own = shared * torch.randn(6, generator=seed, dtype=torch.float64)
    h = torch.randn(6, 6, generator=seed, dtype=torch.float64) + own + own[:, None]
    h = h + h.T
    two = torch.stack([h[i, j] for i, j in permutations(range(6), 2)])
    three = torch.stack([h[i, j] * h[i, k] for i, j, k in permutations(range(6), 3)]).mean()
    four = torch.stack([h[i, j] * h[k, l] for i, j, k, l in permutations(range(6), 4)]).mean()
    assert (three > four) == (shared > 0)
    variance = 2 * (2 * 4 * max(three - four, 0) + two.square().mean() - four) / (6 * 5)
    assert pairs(h) == pytest.approx((float(two.mean()), math.sqrt(max(variance, 0))))


@pytest.mark.parametrize("size", [1, 3])
def test_draws_that_never_vary_have_no_covariance(size):
    """|0 - I|^2 / d = 1 and ratio 0, to rounding: E e e^T less the mean over pairs of groups is 0."""
    e = torch.tensor([1.0, -2.0, 0.5]).double().expand(16, size, 3)
    assert covariance_square(e).value == pytest.approx(1, abs=1e-12)
    assert variance_ratio(e).value == pytest.approx(0, abs=1e-12)


def test_root_of_a_square_near_zero_has_a_finite_error():
    assert root(Estimate(4.0, 0.4)) == pytest.approx((2.0, 0.1))
    assert root(Estimate(0.0, 0.04)) == pytest.approx((0.0, 0.1))
    assert root(Estimate(-0.02, 0.04)) == pytest.approx((0.0, 0.1))
    assert root(Estimate(4.0, 0.0)) == (2.0, 0.0)


@pytest.mark.parametrize("operator", ["inpaint", "super-resolution", "valid blur", "colorize"])
def test_directions_part_what_is_seen_from_what_is_not(operator):
    A = OPERATORS[operator]
    seen, unseen = directions(A)
    both = torch.cat([seen, unseen])
    assert torch.allclose(both @ both.T, torch.eye(len(both), dtype=torch.float64), atol=1e-10)
    assert A(unseen.reshape(-1, *A.image_shape)).abs().max() < 1e-9
    assert len(seen) == {"inpaint": 32, "super-resolution": 16, "valid blur": 36, "colorize": 64}[operator]


@pytest.mark.parametrize(("prior", "noise"), [("independent", 0.01), ("correlated", 0.5)])
def test_wrong_samplers_err_by_what_is_wrong(prior, noise):
    """The mean moved by 0.3 sd of each pixel, the deviations by 1.2: ratio 1.44, covariance error 0.44 in any basis.

    Along pixels, where a mask parts seen from unseen, the error is 0.3.
    """
    found = judge(Wrong(0.3, 1.2), PRIORS[prior](), OPERATORS["inpaint"], 600, noise)
    for part in (found.seen, found.unseen):
        assert part.ratio.value == pytest.approx(1.44, abs=3.3 * part.ratio.error)
        assert part.square.value == pytest.approx(0.09, abs=3.3 * part.square.error)
    assert found.square.value == pytest.approx(0.44**2, abs=3.3 * found.square.error)
    assert found.deviation > 3.3
    assert max(part.ratio.error for part in (found.seen, found.unseen)) < 0.05


@pytest.mark.parametrize("wrong", [Wrong(shift=0.2), Wrong(stretch=0.9), Wrong(stretch=1.1)])
def test_small_errors_deviate(wrong):
    for prior in PRIORS.values():
        assert judge(wrong, prior(), OPERATORS["circular blur"], 500).deviation > 3.3
        assert judge(Exact(), prior(), OPERATORS["circular blur"], 500).deviation < 3.3


def test_draws_that_are_not_finite_deviate_without_end():
    assert judge(Wrong(shift=math.nan), correlated(), OPERATORS["inpaint"], 40).deviation == math.inf
    assert judge(Wrong(stretch=0.0), correlated(), OPERATORS["inpaint"], 40).deviation == math.inf


@pytest.mark.parametrize(("prior", "operator"), [("independent", "super-resolution"), ("correlated", "inpaint")])
@pytest.mark.parametrize(
    "sampler",
    [Exact(), ConvergedMMPS(steps=80, iterations=16), HMC(steps=15, burn_in=20, leapfrog=8)],
    ids=["exact", "mmps", "hmc"],
)
def test_exact_methods_deviate_by_chance_alone(sampler, prior, operator):
    """Five figures, each beyond 3.3 standard errors once in a thousand times."""
    assert judge(sampler, PRIORS[prior](), OPERATORS[operator], 150).deviation < 3.3


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("prior", PRIORS)
def test_steps_of_the_converged_sampler_leave_no_more_than_stated(prior, noise):
    """With exact guidance, a deviation along an eigenvector of eigenvalue l is multiplied by a number in each step."""
    for kind in ("inpaint", "super-resolution", "circular blur", "denoise"):
        operator = OPERATORS[kind]
        gaussian = PRIORS[prior](operator.image_shape)
        l = posterior_of(gaussian, measure(gaussian, operator, noise)).covariance.eigenvalues.flatten()
        sigmas = geometric(4 * gaussian.sigma_max, gaussian.sigma_min / 5, ConvergedMMPS().steps)
        factor = torch.full_like(l, sigmas[0])
        for sigma, following in pairwise(sigmas):
            slope = sigma / (l + sigma**2)
            euler = 1 + (following - sigma) * slope
            again = following / (l + following**2) * euler
            factor = factor * (1 + (following - sigma) * (slope + again) / 2 if following else euler)
        assert (factor.square() / l - 1).abs().max() < 0.002


def test_suite_has_a_row_for_all_that_goes_together():
    table = gaussian_suite({"exact": Exact(), "repaint": RePaint(steps=2), "ddrm": DDRM(steps=2)}, quick=True)
    assert [(row["sampler"], row["operator"]) for row in table.rows] == [
        *(("exact", kind) for kind in KINDS),
        ("repaint", "inpaint"),
        *(("ddrm", kind) for kind in KINDS),
    ]
    for row in table.rows:
        expected = judge(
            {"exact": Exact(), "repaint": RePaint(steps=2), "ddrm": DDRM(steps=2)}[row["sampler"]],
            correlated(),
            OPERATORS[row["operator"]],
            100,
        )
        assert row["error, seen"] == expected.seen.error
        assert row["ratio, seen"] == expected.seen.ratio
        assert row["deviation"] == expected.deviation
        assert ("ratio, unseen" in row) == (expected.unseen is not None)
        assert row["blind ratio"].value == pytest.approx(1, abs=0.3) or row["sampler"] != "exact"


def test_blind_operator_leaves_the_prior():
    one = measure(independent(), blind(SHAPE), 0.1)
    mean, S = moments(posterior_of(independent(), one))
    assert torch.equal(mean, independent().mean.flatten())
    assert torch.allclose(S.diag(), independent().covariance.eigenvalues.flatten())
    assert len(directions(blind(SHAPE))[0]) == 0

"""Calibration: figures against their definitions and closed forms; exact samplers pass, wrong ones are seen.

Bounds of 3.3 standard deviations are exceeded by chance once in a thousand; so are p-values of 1e-3.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import special, stats

from genprior.checks import UnsupportedError
from genprior.likelihoods import Likelihood, Poisson, Quantised
from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement, random_mask
from genprior.posteriors.exact import posteriors_of
from genprior.priors.base import Prior
from genprior.priors.gaussian.field import GaussianField
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.base import Sampler
from genprior.samplers.exact import Exact
from genprior.samplers.guidance.diffpir import DiffPIR
from genprior.samplers.guidance.dps import DPS
from genprior.scores.uncertainty import coverage, crps, energy_score, spread_error_correlation, widest
from genprior.truth import calibration as module
from genprior.truth.calibration import Calibration, calibrate, standard_quantities
from genprior.truth.gaussian import PRIORS, SHAPE, independent, operators
from genprior.truth.ranks import expected_coverage, ranks, sbc, tarp

OPERATORS = operators()
IMAGES, SAMPLES, NOISE = 200, 99, 0.1
LEVELS = tuple(level for level in module.LEVELS if level <= widest(SAMPLES))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform_ranks(count, n, seed=0):
    return torch.randint(n + 1, (count,), generator=torch.Generator().manual_seed(seed))


def images(values):
    """(B, n) or (B,) numbers as images of one pixel."""
    return torch.as_tensor(values, dtype=torch.float64)[..., None, None, None]


# Coverage: what an exact sampler expects.


@pytest.mark.parametrize("level", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("values", [[1.5], [0, 1], [2, 2], range(10), range(37), [0, 0, 1, 1, 1, 2, 5, 5, 5, 5, 5]])
def test_coverage_of_exchangeable_values_is_the_level_exactly(values, level):
    """The truth is each of the n + 1 values, ties included, with the same probability: an enumeration, no sampling."""
    values = [*values, 0.5]
    truth = images(values)
    samples = images([values[:i] + values[i + 1 :] for i in range(len(values))])
    assert float(coverage(samples, truth, level).mean()) == pytest.approx(level, abs=1e-14)


def test_coverage_counts_the_truth_inside_and_not_outside():
    """199 samples: the interval of 90 % ends at the 11th and the 189th of 200 places."""
    samples = images([list(range(1, 200))] * 5)
    truth = images([0.5, 9.5, 10.5, 189.5, 190.5])
    assert coverage(samples, truth, 0.9).tolist() == pytest.approx([0, 0, 1, 1, 0], abs=1e-12)


@pytest.mark.parametrize(("n", "least"), [(9, 0.95), (99, 0.5), (199, 0.0), (499, 0.0)])
def test_coverage_of_a_truth_outside_of_all_samples_is_what_the_docstring_says(n, least):
    assert float(coverage(images([range(n)]), images([-1.0]), 0.99)) == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 18, 19, 198, 199])
def test_coverage_at_the_widest_level_is_0_without_the_truth_and_above_it_is_not(n):
    samples, truth = images([range(n)]), images([-1.0])
    assert float(coverage(samples, truth, widest(n))) == pytest.approx(0, abs=1e-12)
    assert float(coverage(samples, truth, widest(n) + 0.01)) > 0


@pytest.mark.parametrize(
    ("n", "levels"), [(2, ()), (3, (50,)), (18, (50,)), (19, (50, 90)), (198, (50, 90)), (199, (50, 90, 99))]
)
def test_coverage_is_left_out_where_there_are_too_few_samples_for_it(n, levels):
    found = calibrate(independent(), Exact(), OPERATORS["inpaint"], NOISE, 10, n, 0).figures
    assert [name for name in found if "coverage" in name] == [f"coverage {level}%" for level in levels]


def test_coverage_is_that_of_each_image():
    samples = images([range(99), range(99)]).expand(2, 99, 1, 1, 4)
    truth = torch.tensor([[50.5, 50.5, -1, -1], [50.5] * 4], dtype=torch.float64)[:, None, None]
    assert coverage(samples, truth, 0.5).tolist() == [0.5, 1]


# Scores: definitions and closed forms.


def brute_force(samples, truth, distance):
    n = len(samples)
    near = sum(distance(x, truth) for x in samples) / n
    return near - sum(distance(a, b) for a in samples for b in samples) / (2 * n * (n - 1))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_scores_are_those_of_the_definitions(n):
    samples, truth = normal(2, n, 3, 2, 2, seed=1), normal(2, 3, 2, 2, seed=2)
    per_pixel = [brute_force(x, t, lambda a, b: (a - b).abs()).mean() for x, t in zip(samples, truth)]
    per_image = [brute_force(x, t, lambda a, b: (a - b).norm()) for x, t in zip(samples, truth)]
    assert crps(samples, truth).tolist() == pytest.approx([float(s) for s in per_pixel], rel=1e-12)
    assert energy_score(samples, truth).tolist() == pytest.approx([float(s) for s in per_image], rel=1e-12)


@pytest.mark.parametrize("n", [2, 20])
def test_crps_is_unbiased_for_a_gaussian(n):
    """N(m, s^2) at t has CRPS s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (t - m) / s, whatever n is."""
    m, s, t, count = 0.3, 0.2, 0.45, 4000
    z = (t - m) / s
    closed = s * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi))
    scores = crps(m + s * normal(count, n, 1, 1, 1), torch.full((count, 1, 1, 1), t, dtype=torch.float64))
    bound = 3.3 * float(scores.std()) / math.sqrt(count)
    assert abs(float(scores.mean()) - closed) < bound < 0.1 * closed


@pytest.mark.parametrize("n", [2, 20])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_energy_score_is_unbiased_for_a_gaussian(n, shift):
    """E|X - t| of X ~ N(0, s^2 I) in D dimensions is s g 1F1(-1/2; D/2; -|t|^2 / (2 s^2)), E|X - X'| = sqrt(2) s g.

    g = sqrt(2) Gamma((D + 1) / 2) / Gamma(D / 2), the mean of a chi variable.
    """
    D, s, count = 12, 0.2, 2000
    g = math.sqrt(2) * math.gamma((D + 1) / 2) / math.gamma(D / 2)
    near = s * g * special.hyp1f1(-0.5, D / 2, -(shift**2) / (2 * s**2))
    truth = torch.zeros(count, 3, 2, 2, dtype=torch.float64)
    truth[:, 0, 0, 0] = shift
    scores = energy_score(s * normal(count, n, 3, 2, 2), truth)
    bound = 3.3 * float(scores.std()) / math.sqrt(count)
    assert abs(float(scores.mean()) - (near - math.sqrt(2) * s * g / 2)) < bound < 0.1 * near


def test_energy_score_of_one_pixel_is_the_crps():
    samples, truth = normal(5, 7, 1, 1, 1, seed=1), normal(5, 1, 1, 1, seed=2)
    assert torch.allclose(energy_score(samples, truth), crps(samples, truth), rtol=1e-12)


def test_crps_keeps_its_digits_far_from_zero():
    """Units of 1e3, a spread of 1: the score in float32 is that of float64 to the rounding of the images themselves.

    Each |x_i - x*| and |x_i - x_j| is off by at most 2 eps 1e3, eps = 2^-24, so the score is by 3 times that.
    """
    samples, truth = 1e3 + normal(4, 50, 1, 4, 4, seed=1), 1e3 + normal(4, 1, 4, 4, seed=2)
    difference = crps(samples.float(), truth.float()).double() - crps(samples, truth)
    assert float(difference.abs().max()) < 3 * 2 * 2**-24 * 1e3 + 1e-5


def test_spread_error_correlation_is_pearsons():
    samples, truth = normal(3, 6, 2, 4, 4, seed=1), normal(3, 2, 4, 4, seed=2)
    for found, x, t in zip(spread_error_correlation(samples, truth), samples, truth):
        pair = torch.stack([x.std(0).flatten(), (x.mean(0) - t).abs().flatten()])
        assert float(found) == pytest.approx(float(torch.corrcoef(pair)[0, 1]), rel=1e-12)


def test_spread_error_correlation_of_a_point_estimate_is_nan():
    assert spread_error_correlation(normal(1, 1, 1, 4, 4).expand(1, 5, 1, 4, 4), normal(1, 1, 4, 4, seed=1)).isnan()


# Ranks and the tests of their uniformity.


def test_ranks_count_the_samples_below_the_truth():
    samples = images([[3.0, 1.0, 2.0], [0.0, 5.0, -1.0], [7.0, 8.0, 9.0]])
    truth = images([2.5, 6.0, 1.0])
    found = ranks(samples, truth, {"x": lambda x: x.flatten(1), "-x": lambda x: -x.flatten(1)}, Noise(0, range(3)))
    assert found["x"].tolist() == [2, 3, 0]
    assert found["-x"].tolist() == [1, 0, 3]


def test_ties_are_broken_fairly():
    """One sample below, three that tie, one above: the truth takes the places 1 to 4 alike, and no other."""
    count = 4000
    samples = images([[0.0, 1.0, 1.0, 1.0, 2.0]]).expand(count, 5, 1, 1, 1)
    found = ranks(samples, images([1.0] * count), {"x": lambda x: x.flatten(1)}, Noise(0, range(count)))["x"]
    counts = torch.bincount(found, minlength=6)
    assert counts[0] == counts[5] == 0
    assert stats.chisquare(counts[1:5]).pvalue > 1e-3


def test_sbc_statistics_are_those_of_the_definitions():
    """12 ranks among 3 samples: min(4, 12 // 5) = 2 groups of expectation 6, observed 9 and 3; chi^2 = 3."""
    found = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3])
    test = sbc(found, 3)
    assert test.chi2 == pytest.approx(3)
    assert test.chi2_p == pytest.approx(math.erfc(math.sqrt(3 / 2)))  # of one degree of freedom
    assert test.ks == pytest.approx(9 / 12 - 2 / 4)
    assert test.ks_p == pytest.approx(stats.kstwo.sf(0.25, 12))


def test_sbc_expects_of_uneven_groups_what_they_hold():
    """7 places in 5 groups: 1, 1, 2, 1 and 2 of them; ranks as often in each place give chi^2 = 0."""
    assert sbc(torch.arange(7).repeat(4)[:28], 6).chi2 == pytest.approx(0, abs=1e-20)
    found = sbc(torch.tensor([0] * 28), 6)
    assert found.chi2 == pytest.approx(24**2 / 4 + 24)  # (28 - 4)^2 / 4, and the others' expectations, 24 in all


@pytest.mark.parametrize(("n", "count"), [(4, 30), (99, 200)])
def test_p_values_of_uniform_ranks_are_what_they_say(n, count):
    """P(p < a) = a within 3.3 sd for chi^2 (its law is the limit of many ranks: a tenth of a more), <= a for KS."""
    trials = 400
    tests = [sbc(uniform_ranks(count, n, seed), n) for seed in range(trials)]
    for a in (0.05, 0.2):
        chance = 3.3 * math.sqrt(a * (1 - a) / trials)
        assert abs(sum(test.chi2_p < a for test in tests) / trials - a) < chance + 0.1 * a
        assert sum(test.ks_p < a for test in tests) / trials < a + chance


def test_expected_coverage_is_the_share_of_truths_within():
    """TARP by its definition: the ball around r whose radius is a quantile of the samples' distances."""
    samples, truth, references = (
        normal(40, 9, 1, 2, 2, seed=1),
        normal(40, 1, 2, 2, seed=2),
        normal(40, 1, 2, 2, seed=3),
    )
    curve = tarp(samples, truth, references, Noise(0, range(40)))
    nearer = []
    for x, t, r in zip(samples, truth, references):
        nearer.append(sum(float((each - r).norm()) < float((t - r).norm()) for each in x))
    assert curve.level.tolist() == pytest.approx([k / 10 for k in range(11)])
    assert curve.coverage.tolist() == pytest.approx([sum(f < k for f in nearer) / 40 for k in range(11)])
    assert curve.ks == pytest.approx(float((curve.coverage - curve.level).abs().max()))
    assert curve.ks_p == sbc(torch.tensor(nearer), 9).ks_p


# Whole samplers.


@dataclass(frozen=True)
class Altered(Sampler):
    """Exact draws x, changed: `change(x, mean, sd, prior, noise)`, with mean and sd those of p(x | y) at each pixel."""

    change: Callable

    needs: ClassVar[str] = "sample"
    evaluations = 0

    def sample(self, prior, measurement, noise):
        x = Exact()(prior, measurement, noise)
        image, inverse = noise.image.unique(return_inverse=True)
        first = torch.stack([(noise.image == i).nonzero()[0, 0] for i in image])
        posteriors = posteriors_of(prior, measurement.select(first))
        covariance = posteriors[0].covariance
        eye = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
        variance = covariance.filter(eye, covariance.eigenvalues).flatten(1).diagonal().reshape(x.shape[1:])
        mean = torch.stack([posterior.mean for posterior in posteriors])[inverse]
        return self.change(x, mean, variance.sqrt(), prior, noise)


CHANGES = {
    "exact": lambda x, mean, sd, prior, noise: x,
    "half the variance": lambda x, mean, sd, prior, noise: mean + (x - mean) / math.sqrt(2),
    "half a sd off": lambda x, mean, sd, prior, noise: x + sd / 2,
    "ignores y": lambda x, mean, sd, prior, noise: prior.draw(noise),
    "no correlations": lambda x, mean, sd, prior, noise: mean + sd * noise(x),
}


@functools.cache
def calibration(change: str, prior: str, operator: str = "inpaint", seed: int = 0) -> Calibration:
    return calibrate(
        PRIORS[prior](), Altered(CHANGES[change]), OPERATORS[operator], NOISE, IMAGES, SAMPLES, seed, batch=IMAGES
    )


def coverage_moments(level, scale=1.0, shift=0.0):
    """Mean and standard deviation of one pixel's coverage, for samples N(shift, scale^2) of a truth z ~ N(0, 1).

    The rank of z is Binomial(n, Phi((z - shift) / scale)); integrated over z on a grid.
    """
    n = SAMPLES
    counts = coverage(images([list(range(n))] * (n + 1)), images([r - 0.5 for r in range(n + 1)]), level).numpy()
    z = np.linspace(-9, 9, 1001)
    rank = stats.binom.pmf(np.arange(n + 1)[:, None], n, stats.norm.cdf((z - shift) / scale))
    chances = rank @ stats.norm.pdf(z) * (z[1] - z[0])
    mean = float(counts @ chances)
    return mean, math.sqrt(float(counts**2 @ chances) - mean**2)


@pytest.mark.parametrize(
    ("change", "scale", "shift"), [("exact", 1, 0), ("half the variance", math.sqrt(0.5), 0), ("half a sd off", 1, 0.5)]
)
def test_coverage_is_what_theory_expects_of_right_and_wrong_samplers(change, scale, shift):
    """Independent pixels, a mask: all IMAGES * 64 pixels are independent, and the mean's sd is theirs / sqrt(count)."""
    count = IMAGES * math.prod(SHAPE)
    for level in LEVELS:
        mean, sd = coverage_moments(level, scale, shift)
        figure = calibration(change, "independent").figures[f"coverage {level:.0%}"]
        assert abs(figure.value - mean) < 3.3 * sd / math.sqrt(count)
        # the reported standard error is that sd up to its own relative one, 1 / sqrt(2 IMAGES) for normal means
        assert figure.error == pytest.approx(sd / math.sqrt(count), rel=3.3 / math.sqrt(2 * IMAGES))
        if change == "exact":
            assert mean == pytest.approx(level, abs=1e-9)
        else:
            assert abs(mean - level) > 3.3 * sd / math.sqrt(count)


@pytest.mark.parametrize("operator", ["super-resolution", "valid blur"])
@pytest.mark.parametrize("prior", PRIORS)
def test_exact_sampler_is_calibrated(prior, operator):
    found = calibration("exact", prior, operator, 1)
    assert found.figures["SBC p"].value > 1e-3
    assert found.figures["TARP p"].value > 1e-3
    for level in LEVELS:
        value, error = found.figures[f"coverage {level:.0%}"]
        assert abs(value - level) < 3.3 * error


def seen(found: Calibration, exact: Calibration) -> set[str]:
    """What tells a sampler from an exact one.

    Coverages over 3.3 standard errors off; test quantities, and SBC and TARP as wholes, of p < 1e-6; scores whose
    differences from the exact sampler's, image by image, have a mean over 3.3 standard errors.
    """
    figures = found.figures
    covered = {f"coverage {level:.0%}": level for level in LEVELS}
    tests = {name: sbc(each, SAMPLES) for name, each in found.ranks.items()}
    differences = {name: each - exact.scores[name] for name, each in found.scores.items() if name not in covered}
    return {
        *(name for name, level in covered.items() if abs(figures[name].value - level) > 3.3 * figures[name].error),
        *(name for name, test in tests.items() if min(test.chi2_p, test.ks_p) < 1e-6),
        *(name for name in ("SBC p", "TARP p") if figures[name].value < 1e-6),
        *(name for name, d in differences.items() if abs(float(d.mean())) > 3.3 * float(d.std()) / math.sqrt(IMAGES)),
    }


COVERAGES = {f"coverage {level:.0%}" for level in LEVELS}
SCORES = {"CRPS", "energy score"}
# Of x alone, as `standard_quantities` numbers them for seed 0.
LOCAL = {"projection 0", "projection 1", "projection 2", "pixel 15", "pixel 30", "pixel 36"}
GLOBAL = {"mean", "distance from the centre", "roughness", "energy"}
CORRELATION = {"spread-error correlation"}


@pytest.mark.parametrize(
    ("change", "prior", "sees", "blind"),
    [
        ("exact", "correlated", set(), COVERAGES | LOCAL | GLOBAL | {"misfit", "SBC p", "TARP p"}),
        # the correlation knows no scale
        (
            "half the variance",
            "independent",
            COVERAGES | SCORES | {"distance from the centre", "roughness", "energy", "misfit", "SBC p", "TARP p"},
            CORRELATION,
        ),
        ("half a sd off", "independent", COVERAGES | SCORES | {"mean", "misfit", "SBC p", "TARP p"}, CORRELATION),
        # without y, x* and the samples are alike: whatever is a function of x alone has uniform ranks
        (
            "ignores y",
            "independent",
            SCORES | CORRELATION | {"misfit", "SBC p", "TARP p"},
            COVERAGES | LOCAL | GLOBAL,
        ),
        # every pixel has its exact law: what looks at one pixel at a time is blind by construction, and TARP and the
        # energy score, which are not, do not see it in as few images
        (
            "no correlations",
            "correlated",
            {"roughness", "energy", "mean", "SBC p"},
            COVERAGES | CORRELATION | SCORES | {"pixel 15", "pixel 30", "pixel 36", "TARP p"},
        ),
    ],
)
def test_each_error_is_seen_by_what_should_see_it(change, prior, sees, blind):
    found, exact = calibration(change, prior), calibration("exact", prior)
    assert sees | blind <= {*found.figures, *found.ranks}
    told = seen(found, exact)
    assert sees <= told
    assert not blind & told


def test_tarp_with_references_that_ignore_y_does_not_see_a_sampler_that_does():
    """x* ~ N(0, I) and y = x* + 0.1 n; samples from the prior."""
    truth, samples, noise = normal(200, 1, 4, 4, seed=1), normal(200, 99, 1, 4, 4, seed=2), Noise(0, range(200))
    y = truth + 0.1 * normal(200, 1, 4, 4, seed=3)
    assert tarp(samples, truth, normal(200, 1, 4, 4, seed=4), noise).ks_p > 1e-3
    assert tarp(samples, truth, y, noise).ks_p < 1e-6


@pytest.mark.parametrize("sampler", [DiffPIR(), DPS(steps=100)])
def test_approximate_samplers_are_told_from_exact_ones(sampler):
    """DiffPIR has 0.45 of the variance, DPS next to none where A sees: see their table of errors."""
    found = calibrate(independent(), sampler, OPERATORS["inpaint"], NOISE, 40, 19, 0, batch=40).figures
    assert found["SBC p"].value < 1e-6
    assert found["coverage 50%"].value < 0.5 - 3.3 * found["coverage 50%"].error


@dataclass(frozen=True)
class ValueByValue(Sampler):
    """Exact draws where nothing ties one pixel to another, of the law of y or of another one."""

    law: Likelihood | None = None
    needs: ClassVar[str] = "sample"
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = (Likelihood,)
    evaluations = 0

    def sample(self, prior, measurement, noise):
        law = measurement.likelihood if self.law is None else self.law
        m, v = (each.expand_as(measurement.y) for each in (prior.mean, prior.covariance.eigenvalues))
        return law.conditional(measurement.y, m, v, noise)


@pytest.mark.parametrize(("law", "wrong"), [(Poisson(0.1), Poisson(0.2)), (Quantised(0.5), Quantised(1.0))], ids=str)
def test_calibration_under_other_laws_tells_exact_draws_from_those_of_a_wrong_parameter(law, wrong):
    """Of pixels of 1.5 and deviations up to 0.3, of which none is below 0."""
    prior = Gaussian(torch.full(SHAPE, 1.5, dtype=torch.float64), independent().covariance.eigenvalues)
    right, other = (
        calibrate(prior, ValueByValue(taken), Denoise(SHAPE), law, 40, 19, 0, batch=40).figures["SBC p"].value
        for taken in (None, wrong)
    )
    assert right > 1e-3
    assert other < 1e-6


def test_images_that_the_prior_did_not_draw_are_told_from_its_own():
    prior = independent()
    drawn = prior.sample(60, seed=5)
    own = calibrate(prior, Exact(), OPERATORS["inpaint"], NOISE, 60, 19, 5, truth=drawn)
    assert own.figures == calibrate(prior, Exact(), OPERATORS["inpaint"], NOISE, 60, 19, 5).figures
    wider = prior.mean + 2 * (drawn - prior.mean)
    assert calibrate(prior, Exact(), OPERATORS["inpaint"], NOISE, 60, 19, 5, truth=wider).figures["SBC p"].value < 1e-6


def test_images_are_scored_alike_in_every_batch():
    """Each with its own mask; what is summed in other orders differs by rounding, ranks by nothing."""
    masks = torch.stack([random_mask(SHAPE, 0.5, seed) for seed in range(25)])
    operator, prior = Inpaint(masks, SHAPE), PRIORS["correlated"]()
    whole = calibrate(prior, Exact(), operator, NOISE, 25, 9, 3, batch=25)
    parts = calibrate(prior, Exact(), operator, NOISE, 25, 9, 3, batch=4)
    fewer = calibrate(prior, Exact(), operator, NOISE, 12, 9, 3, batch=5)
    for name, scores in whole.scores.items():
        assert torch.allclose(parts.scores[name], scores, rtol=1e-9)
        assert torch.allclose(fewer.scores[name], scores[:12], rtol=1e-9)
    for name, each in whole.ranks.items():
        assert parts.ranks[name].equal(each)
        assert fewer.ranks[name].equal(each[:12])
    assert parts.tarp.coverage.equal(whole.tarp.coverage)


def test_figures_are_made_of_scores_and_ranks():
    found = calibration("half a sd off", "independent")
    for name, scores in found.scores.items():
        assert found.figures[name].value == pytest.approx(float(scores.mean()))
        assert found.figures[name].error == pytest.approx(float(scores.std()) / math.sqrt(IMAGES))
    mild = calibration("exact", "correlated")
    tests = [sbc(each, SAMPLES) for each in mild.ranks.values()]
    p_values = [*(test.chi2_p for test in tests), *(test.ks_p for test in tests)]
    assert mild.figures["SBC p"] == (pytest.approx(min(1, 22 * min(p_values))), None)
    assert mild.figures["TARP p"] == (mild.tarp.ks_p, None)
    assert len(p_values) == 22


def test_quantities_are_those_of_each_image_and_measurement():
    masks = torch.stack([random_mask(SHAPE, 0.5, seed) for seed in range(3)])
    operator, prior = Inpaint(masks, SHAPE), independent()
    y = normal(3, *operator.measurement_shape, seed=1)
    found = standard_quantities(prior, Measurement(y, operator, NOISE), 0)
    x = normal(3, 2, *SHAPE, seed=2)
    values = {name: f(x) for name, f in found.items()}
    assert all(each.shape == (3, 2) for each in values.values())
    for i, k in itertools.product(range(3), range(2)):
        one = x[i, k]
        expected = {
            "misfit": (operator.select(torch.tensor([i]))(one[None])[0] - y[i]).norm(),
            "energy": -prior.log_prob(one[None])[0],
            "mean": one.mean(),
            "distance from the centre": (one - prior.mean).norm(),
            "roughness": torch.cat([one.diff(dim=1).flatten(), one.diff(dim=2).flatten()]).norm(),
            "pixel 30": one.flatten()[30],
        }
        for name, value in expected.items():
            assert float(values[name][i, k]) == pytest.approx(float(value))
    # projections on N(0, I): as linear as they are wide
    ones = torch.stack([found[f"projection {k}"](x + 1) - found[f"projection {k}"](x) for k in range(3)])
    assert torch.allclose(ones, ones[:, :1, :1].expand(3, 3, 2))
    assert float(ones[:, 0, 0].abs().max()) < 3.9 * 8  # three of N(0, 64), beyond 3.9 sd once in 3000


def test_noises_owe_nothing_to_each_other():
    """Chains as `restore` has them, image by image; image 0 is that of prior.sample, and y has noise of its own."""
    asked = []

    @dataclass(frozen=True)
    class Asked(Sampler):
        needs: ClassVar[str] = "sample"
        evaluations = 0

        def sample(self, prior, measurement, noise):
            asked.append((measurement, noise))
            return measurement.y

    prior = independent()
    calibrate(prior, Asked(), Denoise(SHAPE), NOISE, 10, 3, 4, batch=8)
    assert torch.cat([noise.image for _, noise in asked]).tolist() == [i for i in range(1, 11) for _ in range(3)]
    assert torch.cat([noise.sample for _, noise in asked]).tolist() == [0, 1, 2] * 10
    y = torch.cat([measurement.y for measurement, _ in asked])
    measured = (y - prior.sample(10, seed=4).repeat_interleave(3, 0)) / NOISE
    drawn = torch.cat([noise(m.y) for m, noise in asked])
    # 30 x 64 products of independent normals, of which each image's noise comes three times: sd 1 / sqrt(640) at most
    assert abs(float((measured * drawn).mean())) < 3.3 / math.sqrt(640)
    # and of the first draw alone, 10 x 64
    assert abs(float((measured * drawn)[::3].mean())) < 3.3 / math.sqrt(640)
    assert float(measured.square().mean()) == pytest.approx(1, abs=3.3 * math.sqrt(2 / 640))


def test_priors_without_a_density_are_judged_without_it():
    class Drawn(Prior):
        centre = 0.5

        def sample(self, n, *, seed=0):
            return independent().sample(n, seed=seed)

    found = standard_quantities(Drawn(), Measurement(torch.zeros(1, *SHAPE), Denoise(SHAPE), NOISE), 0)
    assert len(found) == 10
    assert "energy" not in found


def test_priors_of_any_size_are_given_that_of_the_operator():
    prior = GaussianField.blank((1, None, None), 4)
    found = calibrate(prior, Exact(), Denoise((1, 6, 4)), NOISE, 50, 19, 0).figures
    assert found["SBC p"].value > 1e-3
    assert abs(found["coverage 50%"].value - 0.5) < 3.3 * found["coverage 50%"].error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, t: coverage(x, t[:1], 0.5), r"n >= 1, of truths .* got \(2, 5, 1, 3, 3\) and \(1, 1, 3, 3\)"),
        (lambda x, t: coverage(x, t, 1.5), "level is a number from 0 to 1; got 1.5"),
        (lambda x, t: crps(x[:, :1], t), "n >= 2"),
        (lambda x, t: energy_score(x[:, 0], t), "got \\(2, 1, 3, 3\\)"),
        (lambda x, t: spread_error_correlation(x, t[..., :2]), "n >= 2"),
        (lambda x, t: crps(x / 0, t), "samples hold 90 values that are NaN or infinite"),
        (lambda x, t: ranks(x, t * math.nan, {}, Noise(0, range(2))), "truth hold 18 values"),
        (lambda x, t: tarp(x, t, t, Noise(0, range(2))), "B >= 10 images"),
        (lambda x, t: sbc(torch.arange(12), 10), "ranks among 10 samples are 0 to 10; got 0 to 11"),
        (lambda x, t: expected_coverage(torch.arange(12.0), 20), "got torch.float32"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(normal(2, 5, 1, 3, 3), normal(2, 1, 3, 3, seed=1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_images": 9}, "n_images is a whole number from 10"),
        ({"n_samples": 1}, "n_samples is a whole number from 2"),
        ({"batch": 0}, "batch is a whole number from 1"),
        ({"noise": 0.0}, "noise is a standard deviation > 0"),
        ({"truth": torch.zeros(11, *SHAPE)}, "There are 11 images, of which n_images=12"),
        ({"sampler": Altered(lambda x, *_: x * math.nan)}, "samples hold .* NaN"),
    ],
)
def test_calibrations_that_cannot_be_are_refused(changed, message):
    given = {"sampler": Exact(), "noise": NOISE, "n_images": 12, "n_samples": 4, "seed": 0, **changed}
    with pytest.raises(ValueError, match=message):
        calibrate(independent(), operator=Denoise(SHAPE), **given)


def test_priors_that_cannot_be_drawn_from_need_images():
    class Silent(Prior):
        image_shape = SHAPE

    with pytest.raises(UnsupportedError, match="Silent has no sample"):
        calibrate(Silent(), Exact(), Denoise(SHAPE), NOISE, 12, 4, 0)

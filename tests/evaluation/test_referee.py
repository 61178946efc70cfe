"""The referees of a learned prior, on a Gaussian whose posterior is known; and what they say of samplers."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from genprior.noise import Noise
from genprior.operators import Inpaint, SuperResolution, random_mask
from genprior.posteriors.exact import posterior_of
from genprior.priors.base import supports
from genprior.samplers.base import Sampler
from genprior.samplers.exact import Exact
from genprior.samplers.latents.fisher_hmc import FisherHMC
from genprior.samplers.latents.latent_hmc import LatentHMC
from genprior.truth.gaussian import SHAPE, correlated, draw, measure, moments
from genprior.truth.referee import (
    APART,
    ENOUGH,
    QUICK,
    Referee,
    chains,
    compare,
    flow_suite,
    importance,
    problems,
)

PRIOR = correlated()
LITTLE = (SuperResolution(4, SHAPE, "average"), 0.5)
MUCH = (Inpaint(random_mask(SHAPE, 0.5, 0), SHAPE), 0.1)
LONG = replace(QUICK, chains=8, burn_in=20, steps=60, leapfrog=8)


@dataclass(frozen=True)
class Wrong(Sampler):
    """Exact draws, moved by `shift` posterior standard deviations, their deviations multiplied by `stretch`."""

    needs: ClassVar[str] = "sample"
    shift: float = 0.0
    stretch: float = 1.0

    @property
    def evaluations(self):
        return 0

    def sample(self, prior, measurement, noise):
        posterior = posterior_of(prior, measurement)
        x = Exact()(prior, measurement, noise)
        sd = moments(posterior)[1].diag().sqrt().reshape(prior.image_shape)
        return posterior.mean + self.stretch * (x - posterior.mean) + self.shift * sd


def weighted_mean(referee):
    return (referee.draws * referee.weights[..., None]).sum((0, 1))


@pytest.fixture(scope="module")
def little():
    one = measure(PRIOR, *LITTLE)
    return one, importance(PRIOR.sample(4000, seed=3), one)


@pytest.fixture(scope="module")
def much():
    one = measure(PRIOR, *MUCH)
    with torch.no_grad():
        return one, chains(PRIOR, one, PRIOR.encode(PRIOR.sample(1, seed=7)), LONG)


def test_importance_weighs_draws_of_the_prior_to_the_posterior(little):
    """Of ess effective draws, the mean square of 64 means in standard deviations is 1 / ess; it has tails."""
    one, referee = little
    mean, S = moments(posterior_of(PRIOR, one))
    assert 100 < referee.told["ess"] < 4000
    assert referee.weights.sum() == pytest.approx(1)
    error = ((weighted_mean(referee) - mean) / S.diag().sqrt()).square().mean()
    assert error < 4 / referee.told["ess"]
    # the prior's mean is far from it
    assert ((PRIOR.mean.flatten() - mean) / S.diag().sqrt()).square().mean() > 40 / referee.told["ess"]


def test_effective_sample_size_is_that_of_the_weights():
    """With y = the mean of x and next to no noise, the nearest draw has all of the weight."""
    one = measure(PRIOR, MUCH[0], 1e-3)
    assert importance(PRIOR.sample(200, seed=3), one).told["ess"] == pytest.approx(1)


def test_chains_stay_in_the_posterior_and_say_that_they_mix(much):
    one, referee = much
    mean, S = moments(posterior_of(PRIOR, one))
    assert referee.told["rhat"] < 1.1
    assert referee.told["ess"] > 50
    error = ((weighted_mean(referee) - mean) / S.diag().sqrt()).square().mean()
    assert error < 4 / referee.told["ess"]
    variance = referee.draws.flatten(0, 1).var(0)
    assert (variance / S.diag()).mean() == pytest.approx(1, abs=0.15)


def test_chains_that_hardly_move_say_that_they_do_not_mix():
    one = measure(PRIOR, *MUCH)
    z = PRIOR.encode(PRIOR.sample(1, seed=7))
    with torch.no_grad():
        assert chains(PRIOR, one, z, replace(LONG, burn_in=1, steps=8, leapfrog=1)).told["rhat"] > 1.3


@pytest.mark.parametrize("which", ["little", "much"])
@pytest.mark.parametrize("sampler", [Exact(), Wrong(shift=0.4), Wrong(stretch=1.4), Wrong(stretch=0.6)])
def test_samplers_are_told_by_what_is_wrong_with_them(sampler, which, request):
    """tr(shift^2 diag S) / tr S = shift^2, and the ratio stretch^2; 100 draws, 3.3 of the stated standard errors.

    Those of a dozen groups are themselves uncertain by a fifth: 3.3 becomes 4.
    """
    one, referee = request.getfixturevalue(which)
    shift, stretch = getattr(sampler, "shift", 0), getattr(sampler, "stretch", 1)
    found = compare(draw(sampler, PRIOR, one, 100), referee)
    assert found["square"].value == pytest.approx(shift**2, abs=4 * found["square"].error)
    assert found["ratio"].value == pytest.approx(stretch**2, abs=4 * found["ratio"].error)
    assert found["square"].error < 0.1
    assert found["ratio"].error < 0.3 * stretch**2
    if sampler == Exact():
        assert found["distance"].value < 1.5 * found["floor"].value
    else:
        assert found["distance"].value > found["floor"].value


def test_comparison_is_unbiased_and_its_errors_are_those_of_many():
    """R = 150 referees of 5 groups of 30 draws and samplers of 12 draws, all from N(m, diag): one law, figures 0 and 1.

    Means within 3.3 of their own standard deviations. R sets tell a variance to 12 % if figures are Gaussian, which
    squares are not. The jackknife's is right for the ratio; that of a square whose root is 0, it overstates twofold.
    """
    R, D = 150, 6
    scale = torch.linspace(0.1, 1, D, dtype=torch.float64)
    noise = scale * Noise(5, range(R))(torch.empty(R, 5 * 30 + 12, D, dtype=torch.float64))
    weights = torch.full((5, 30), 1 / 150, dtype=torch.float64)
    found = [compare(n[150:, None], Referee("", n[:150].reshape(5, 30, D), weights, {})) for n in noise]
    for name, true, overstated in (("square", 0.0, 2.0), ("ratio", 1.0, 1.0)):
        value, error = torch.tensor([each[name] for each in found], dtype=torch.float64).unbind(1)
        assert abs(value.mean() - true) < 3.3 * value.std() / math.sqrt(R), name
        assert error.square().mean() / value.var() == pytest.approx(overstated, rel=0.4), name


def test_points_have_the_weights_of_the_draws():
    draws = torch.arange(6, dtype=torch.float64).reshape(2, 3, 1)
    weights = torch.tensor([[0.1, 0.0, 0.3], [0.2, 0.2, 0.2]], dtype=torch.float64)
    referee = Referee("", draws, weights, {})
    assert referee.points(slice(1), 4).flatten().tolist() == [0, 2, 2, 2]
    assert referee.points(slice(None), 10).flatten().tolist() == [0, 2, 2, 2, 3, 3, 4, 4, 5, 5]


def test_suite_takes_the_referee_that_suits_each_problem():
    effort = replace(QUICK, problems=tuple(problems(SHAPE)), weighted=1000, truths=2, draws=12)
    samplers = {"latent": LatentHMC(), "fisher-hmc": FisherHMC(), "exact": Exact(), "vae only": _VAEOnly()}
    table = flow_suite(samplers, PRIOR, effort=effort)
    assert [(row["problem"], row["sampler"]) for row in table.rows] == [
        (problem, name) for problem in problems(SHAPE) for name in ("latent", "fisher-hmc", "exact")
    ]
    for row in table.rows:
        for told in row["referee"].split("; "):
            name, ess = told.split(", ")[0], float(told.split("ess ")[1].split(",")[0])
            assert ("rhat" in told) == (name == "chains")
            assert name == "chains" or ess >= ENOUGH
        if row["problem"] == "half of the pixels":
            assert row["referee"].count("chains") == 2
    means = {row["sampler"]: row["error"].value for row in table.rows if row["problem"] == "half of the pixels"}
    assert means["exact"] < 0.5


def test_suite_takes_given_truths():
    effort = replace(QUICK, problems=("half of the pixels",), weighted=200, truths=1, draws=8)
    own = flow_suite({"exact": Exact()}, PRIOR, effort=effort)
    same = flow_suite({"exact": Exact()}, PRIOR, truths=PRIOR.sample(3, seed=APART), effort=effort)
    other = flow_suite({"exact": Exact()}, PRIOR, truths=PRIOR.sample(3, seed=9), effort=effort)
    values = [[table.rows[0][name].value for name in ("ratio", "sliced Wasserstein")] for table in (own, same, other)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)  # the first of 3 draws is that of 1, to rounding
    assert values[0] != pytest.approx(values[2], rel=1e-2)


@dataclass(frozen=True)
class _VAEOnly(Exact):
    @classmethod
    def takes(cls, prior):
        return supports(prior, "infer")

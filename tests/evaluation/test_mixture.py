import math
from itertools import pairwise

import pytest
import torch

from genprior.samplers import MMPS, TDSMoments
from genprior.truth.mixture import mixture_suite, problem, published_schedule


def test_problem_is_the_one_of_the_paper():
    prior, measurement = problem(80, 2, seed=3)
    means = prior.means.flatten(1)
    assert sorted({tuple(m[:2].tolist()) for m in means}) == [
        (8.0 * i, 8.0 * j) for i in range(-2, 3) for j in range(-2, 3)
    ]
    assert bool((means[:, ::2] == means[:, :1]).all() and (means[:, 1::2] == means[:, 1:2]).all())
    s = torch.linalg.svdvals(measurement.operator.M[0])
    assert bool(((s > 0) & (s < 1)).all())
    assert 0 < measurement.noise < float(s.max())


def test_published_schedule_goes_from_almost_no_image_to_no_noise_in_equal_steps_of_the_image_share():
    sigmas = published_schedule(20)
    share = [1 / math.hypot(1, sigma) for sigma in sigmas]
    assert sigmas[-1] == 0
    assert sigmas[0] == pytest.approx(
        math.sqrt(math.exp(-sum(math.log1p(-b) for b in torch.linspace(0.02, 1e-4, 999).tolist())) - 1), rel=1e-3
    )
    steps = [b - a for a, b in pairwise(share)]
    # to the nearest of 999 levels, which are at most 0.01 apart where betas are largest
    assert all(step == pytest.approx((share[-1] - share[0]) / 20, abs=0.01) for step in steps)


def test_particles_with_matched_moments_come_within_twice_the_floor_where_guidance_alone_does_not():
    """The published best is 5 times the floor and more."""
    samplers = {"tds-moments": TDSMoments(), "mmps": MMPS(iterations=1)}
    table = mixture_suite(samplers, steps=[150], cells=[(8, 1)], seeds=5, draws=1000)
    distance = {row["method"]: row["8, 1"].value for row in table.rows}
    assert distance["tds-moments"] < 2 * distance["exact"]
    assert distance["mmps"] > 5 * distance["exact"]
    assert distance["DDRM, published"] == 5.88

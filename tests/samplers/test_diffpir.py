"""What is DiffPIR's own: its coarse steps, for what no pixel nearby tells."""

import math
from itertools import pairwise

import pytest
import torch
from skimage import data

import genprior
from genprior.priors.ddpm import DDPM
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.guidance.diffpir import DiffPIR


def test_colour_of_a_large_hole_is_not_that_of_the_start():
    """The sky of a photograph, half of whose sides are a hole: without coarse steps it is filled with grey.

    The errors in the hole are 0.25 and 0.1 (root mean square, two samples); half way lies a third less.
    """
    x = torch.from_numpy(data.rocket()[20:116, 20:116].copy()).movedim(-1, 0).float() / 255
    measurement = genprior.degrade(x, "inpaint", mask="box", size=48, noise=0.02, seed=0)
    hole = measurement.operator.mask[0, 0]

    def error(coarse):
        sampler = DiffPIR(steps=20, coarse=coarse)
        samples = genprior.restore(measurement, sampler=sampler, n=2, seed=0, progress=False).samples
        return float((samples - x)[..., hole].square().mean().sqrt())

    assert error(None) < 2 / 3 * error(0)


def test_coarse_steps_halve_the_noise_down_to_the_start():
    prior = Gaussian(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    sigmas = DiffPIR(steps=10, coarse=2, start=2).levels(prior, 2)
    assert sigmas[:3] == pytest.approx([8 * prior.spread, 4 * prior.spread, 2 * prior.spread])
    assert sigmas[9:] == pytest.approx([prior.sigma_min, 0])
    ratios = [b / a for a, b in pairwise(sigmas[2:10])]
    assert ratios == pytest.approx([ratios[0]] * 7)


@pytest.mark.parametrize(("steps", "coarse", "start"), [(1, 3, 4.0), (2, 3, 4.0), (10, 30, 4.0), (10, 3, None)])
def test_steps_are_as_many_as_asked_for_and_none_is_above_sigma_max(steps, coarse, start):
    prior = Gaussian(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    sigmas = DiffPIR(steps=steps, coarse=coarse, start=start).levels(prior, 2)
    assert len(sigmas) == steps + 1
    assert sigmas[-1] == 0
    assert max(sigmas) <= prior.sigma_max * (1 + 1e-12)
    assert all(a > b for a, b in pairwise(sigmas))


@pytest.mark.parametrize(("side", "steps", "coarse"), [(8, 40, 0), (28, 40, 2), (128, 40, 4), (256, 8, 2)])
def test_larger_images_have_more_coarse_steps_up_to_a_quarter(side, steps, coarse):
    prior = DDPM((1, None, None), widths=(8,), blocks=1)
    sigmas = DiffPIR(steps=steps).levels(prior, side)
    assert sigmas[coarse] == pytest.approx(4 * prior.spread)
    assert sigmas[0] == pytest.approx(2**coarse * 4 * prior.spread)
    assert len(sigmas) == steps + 1


def test_density_moves_steps_to_high_noise():
    """With 3 per factor e, 3 ln(start / sigma_min) steps are left to low noise, and the others are even in sigma."""
    prior = Gaussian(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    even, moved = (DiffPIR(steps=100, coarse=1, density=density).levels(prior, 2) for density in (None, 3.0))
    assert moved[:2] == even[:2]
    assert moved[-2:] == pytest.approx(even[-2:])
    middle = prior.spread / 10

    def below(sigmas):
        return sum(sigma < middle for sigma in sigmas[:-1])

    assert below(moved) < 3 * math.log(middle / prior.sigma_min) + 3 < below(even) / 2


@pytest.mark.parametrize("wrong", [{"coarse": -1}, {"coarse": 1.5}, {"density": 0.0}, {"density": float("nan")}])
def test_parameters_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DiffPIR(**wrong)

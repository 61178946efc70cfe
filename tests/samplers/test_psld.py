"""Diffusion posterior sampling in latents: what it gets wrong, pinned, on posteriors in closed form."""

import dataclasses

import pytest
import torch
from latent_linear import Counted, LinearLatents, errors
from linear import OPERATORS, SHAPE, draw, measure

from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement
from genprior.samplers import find_sampler
from genprior.samplers.latents.psld import PSLD
from genprior.samplers.latents.resample import ReSample

QUICK = PSLD(steps=100)


@pytest.mark.parametrize(
    ("operator", "sampler", "mean", "variance"),
    [
        ("inpaint", QUICK, (0.0, 0.15), (0.04, 0.1)),
        # longer, and the variance is gone
        ("inpaint", PSLD(steps=400), (0.0, 0.15), (0.005, 0.02)),
        ("inpaint", PSLD(steps=100, gamma=0.0), (0.15, 0.4), (0.45, 0.9)),
        ("circular blur", QUICK, (0.5, 0.85), (0.8, 1.4)),
        ("circular blur", PSLD(steps=100, omega=0.9), (0.4, 0.7), (0.1, 0.25)),
    ],
)
def test_errors_on_a_linear_posterior_are_known(operator, sampler, mean, variance):
    """Between bounds around what was found, wider than chance by a factor of 5 and more."""
    off, ratio = errors(sampler, operator)
    assert mean[0] <= off < mean[1]
    assert variance[0] < ratio < variance[1]


def test_units_of_latents_do_not_matter():
    """w in units a hundred times as large, elsewhere: the same images, to rounding grown by 100 steps."""
    one = measure(LinearLatents(), OPERATORS["inpaint"])
    ours, others = (draw(QUICK, LinearLatents(c=c, s=s), one, 4)[0] for c, s in ((0.2, 0.3), (-5.0, 30.0)))
    assert (ours - others).abs().max() < 1e-6


def test_image_of_a_batch_is_drawn_as_alone():
    """A norm of the whole batch would show."""
    prior, A = LinearLatents(), OPERATORS["inpaint"]
    y = A(prior.sample(2, seed=1))
    together = QUICK(prior, Measurement(y, A, 0.1), Noise(0, [0, 1]))
    for i in range(2):
        alone = QUICK(prior, Measurement(y[i : i + 1], A, 0.1), Noise(0, [i]))
        assert (alone[0] - together[i]).abs().max() < 1e-8


def test_residual_of_nothing_gives_no_nan():
    """Where nothing is measured the norm of the residual is 0, and so is its gradient."""
    prior, A = LinearLatents(), Inpaint(torch.ones(SHAPE[1:], dtype=torch.bool), SHAPE)
    draws = QUICK(prior, Measurement(torch.zeros(2, *SHAPE, dtype=torch.float64), A, 0.1), Noise(0, [0, 1]))
    assert torch.isfinite(draws).all()


def test_calls_are_those_of_the_decoder():
    prior = Counted()
    draw(QUICK, prior, measure(prior, OPERATORS["inpaint"]), 2)
    assert prior.calls == QUICK.calls


def test_auto_takes_it_for_latents_of_one_size():
    assert find_sampler("auto", LinearLatents()) == PSLD(steps=300)
    anysize = LinearLatents()
    anysize.image_shape = (3, None, None)
    assert isinstance(find_sampler("auto", anysize), ReSample)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("omega", -1.0), ("gamma", -1.0), ("unit", 0.0)])
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(QUICK, **{name: value})

"""Decoupled annealing in latents against posteriors in closed form: white Gaussian latents, a linear decoder."""

import dataclasses

import pytest
import torch
from latent_linear import Counted, LinearLatents
from linear import OPERATORS, draw, farthest, measure

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Measurement
from genprior.samplers.latents.latent_daps import LatentDAPS

QUICK = LatentDAPS(steps=20, leapfrog=5)


@pytest.mark.parametrize(
    ("operator", "v"),
    # a valid blur solves by conjugate gradients in every leapfrog step where v > 0, which takes too long here
    [(name, v) for name in OPERATORS for v in (0.0, 0.02) if (name, v) != ("valid blur", 0.02)],
)
def test_latent_daps_matches_linear_posterior(operator, v):
    """Of n exact draws, all figures are below 3.3; see `linear`."""
    prior = LinearLatents(OPERATORS[operator].image_shape, v=v)
    one = measure(prior, OPERATORS[operator])
    draws, _ = draw(QUICK, prior, one, 300)
    assert farthest(draws, prior, one) < 3.3


class Blind(LinearLatents):
    """Says that its decoder has no variance."""

    def __init__(self):
        super().__init__()
        self.decoder_variance = 0.0


def test_decoder_variance_left_out_is_seen():
    """The same measurement, of a decoder whose variance the sampler is not told: the test above would fail."""
    one = measure(LinearLatents(), OPERATORS["inpaint"])
    draws, _ = draw(QUICK, Blind(), one, 300)
    assert farthest(draws, LinearLatents(), one) > 33


def test_acceptance_adapts_to_its_target():
    """0.8, at which dual averaging aims; over 40 transitions it is within 0.1, as the first are not yet adapted."""
    prior = LinearLatents()
    _, told = draw(QUICK, prior, measure(prior, OPERATORS["inpaint"]), 100)
    assert abs(float(told["acceptance"].mean()) - 0.8) < 0.1


def test_image_of_a_batch_is_drawn_as_alone():
    """To rounding, 2^-52 grown by a few hundred leapfrog steps; a step size or mass of the batch would show."""
    prior, A = LinearLatents(), OPERATORS["inpaint"]
    noise = torch.tensor([0.05, 0.3], dtype=torch.float64).reshape(-1, 1, 1, 1)
    y = A(prior.sample(2, seed=1))
    together = QUICK(prior, Measurement(y, A, noise), Noise(0, [0, 1]))
    for i in range(2):
        alone = QUICK(prior, Measurement(y[i : i + 1], A, noise[i : i + 1]), Noise(0, [i]))
        assert (alone[0] - together[i]).abs().max() < 1e-8


def test_units_of_latents_do_not_matter():
    """w in units a hundred times as large, elsewhere: the same images, to rounding grown by the leapfrog steps."""
    one = measure(LinearLatents(), OPERATORS["inpaint"])
    ours, others = (draw(QUICK, LinearLatents(c=c, s=s), one, 4)[0] for c, s in ((0.2, 0.3), (-5.0, 30.0)))
    assert (ours - others).abs().max() < 1e-8


def test_calls_are_those_of_the_decoder():
    prior = Counted()
    sampler = LatentDAPS(steps=3, transitions=2, leapfrog=4)
    draw(sampler, prior, measure(prior, OPERATORS["inpaint"]), 2)
    assert prior.calls == sampler.calls


def test_priors_without_such_latents_are_refused():
    prior = LinearLatents()
    one = measure(prior, OPERATORS["inpaint"])
    with pytest.raises(UnsupportedError, match="needs a prior that has render"):
        draw(QUICK, prior.linear, one, 1)


@pytest.mark.parametrize("name", ["steps", "transitions", "leapfrog", "probes"])
def test_parameters_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(QUICK, **{name: 0})

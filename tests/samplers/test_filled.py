"""Holes filled smoothly: the mean of a Gaussian field in closed form, and what a search makes of it."""

import pytest
import torch

from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement, SuperResolution, random_mask
from genprior.posteriors.exact import posterior_of
from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.base import start
from genprior.samplers.chains.filled import filled, mirrored, smooth
from genprior.samplers.chains.map import MAP

SHAPE = (3, 12, 16)
NOISE = 0.02


class Edges(Prior):
    """An energy of differences of neighbours, which hardly grows with large ones, as at the rim of a grey hole."""

    centre, spread = 0.5, 0.25

    def __init__(self, shape=SHAPE):
        super().__init__()
        self.image_shape = shape

    def energy(self, x):
        differences = torch.cat([x.diff(dim=-1).flatten(1), x.diff(dim=-2).flatten(1)], 1)
        return (1 + (differences / 0.03) ** 2).log().sum(1)


def ramp(shape=SHAPE):
    """Brightness from 0.1 to 0.9 from left to right."""
    return torch.linspace(0.1, 0.9, shape[-1], dtype=torch.float64).expand(1, *shape)


BOX = torch.zeros(SHAPE[1:], dtype=torch.bool)
BOX[3:9, 5:11] = True


@pytest.mark.parametrize("mask", [BOX, random_mask(SHAPE, 0.7, 0)], ids=["box", "scattered"])
def test_holes_hold_the_mean_of_the_field_in_closed_form(mask):
    """That of four mirror images; 32 iterations find 144 or 536 pixels of each colour to a thousandth of the spread."""
    prior, A = Edges(), Inpaint(mask, SHAPE)
    one = Measurement(A(ramp()), A, NOISE)
    shape = (SHAPE[0], 2 * SHAPE[1], 2 * SHAPE[2])
    mean = torch.full(shape, prior.centre, dtype=torch.float64)
    whole = Measurement(mirrored(one.y), Inpaint(mirrored(mask), shape), NOISE)
    exact = posterior_of(Gaussian(mean, smooth(shape, prior.spread)), whole).mean[:, : SHAPE[1], : SHAPE[2]]
    off = (filled(prior, one)[0] - exact)[mask.expand(SHAPE)]
    assert off.abs().max() < 1e-3 * prior.spread


def test_missing_border_is_not_that_across():
    """The bright end of a ramp is missing: it stays above what is known, and does not turn to the dark end."""
    mask = torch.zeros(SHAPE[1:], dtype=torch.bool)
    mask[:, 12:] = True
    A = Inpaint(mask, SHAPE)
    x = filled(Edges(), Measurement(A(ramp()), A, NOISE))
    assert x[..., 12:].min() > ramp()[..., 11].min()


def test_field_has_the_spread_of_the_prior():
    """The mean eigenvalue is the variance of a value."""
    assert smooth(SHAPE, 0.3).eigenvalues.mean().sqrt() == pytest.approx(0.3, rel=1e-6)


@pytest.mark.parametrize("operator", [Denoise(SHAPE), SuperResolution(2, SHAPE)], ids=["denoise", "superresolution"])
def test_where_nothing_is_hidden_the_start_stays(operator, monkeypatch):
    """And no field is solved for."""
    monkeypatch.setattr("genprior.samplers.chains.filled.added", None)
    one = Measurement(operator(ramp()), operator, NOISE)
    assert torch.equal(filled(Edges(), one), start(Edges(), one))


class Dim(Edges):
    """The same, of images that are nowhere brighter than 0.72."""

    bounded = True

    def energy(self, x):
        return super().energy(x) + torch.where(x.flatten(1).amax(1) > 0.72, torch.inf, 0.0)


def test_search_begins_where_the_energy_is_finite():
    """The bright end of a ramp is missing, which a smooth field continues past 0.72, and the middle of another."""
    masks = torch.zeros(2, *SHAPE[1:], dtype=torch.bool)
    masks[0, :, 12:], masks[1, :, 4:8] = True, True
    x = ramp().expand(2, -1, -1, -1).clamp_max(ramp()[..., 11].max())
    A = Inpaint(masks[:, None], SHAPE)
    one = Measurement(A(x), A, NOISE)
    prior = Dim()
    assert prior.energy(filled(prior, one)).isfinite().tolist() == [False, True]
    assert prior.energy(MAP(steps=20)(prior, one, Noise(0, [0, 1]))).isfinite().all()


def test_known_pixels_keep_their_start():
    A = Inpaint(BOX, SHAPE)
    one = Measurement(A(ramp()), A, NOISE)
    assert torch.equal(A(filled(Edges(), one)), A(start(Edges(), one)))


def test_hole_is_filled_as_alone():
    """Masks and noise of each image its own, one without holes."""
    masks = torch.stack([random_mask(SHAPE, fraction, seed) for seed, fraction in enumerate((0.0, 0.5, 0.9))])
    A, noise = Inpaint(masks, SHAPE), torch.tensor([0.02, 0.1, 0.3], dtype=torch.float64).reshape(-1, 1, 1, 1)
    one = Measurement(A(ramp().expand(3, -1, -1, -1)), A, noise)
    together = filled(Edges(), one)
    for i in range(3):
        assert torch.allclose(filled(Edges(), one.select(torch.tensor([i])))[0], together[i], rtol=0, atol=1e-9)


def test_search_does_not_leave_a_hole_grey():
    """Half of a ramp is missing, and the energy has a minimum where it is: what the search began at 0.5 stayed there.

    A band of 0.5 has rims of 0.2, which pull with 2 * 0.2 / 0.2^2 = 10. The slope inside that holds against it is only
    10 * 0.03^2 / 2 = 0.0045, of 0.02 in a ramp.
    """
    shape = (1, 6, 40)
    mask = torch.zeros(shape[1:], dtype=torch.bool)
    mask[:, 10:30] = True
    A = Inpaint(mask, shape)
    x = MAP(steps=100)(Edges(shape), Measurement(A(ramp(shape)), A, NOISE), Noise(0, [0]))
    assert (x - ramp(shape))[..., mask].abs().max() < 0.05

"""Masks as users give them, and simulated ones."""

import math

import numpy as np
import pytest
import torch

from genprior.operators import Inpaint, box_mask, random_mask, stroke_mask

HOLE = random_mask((6, 8), 0.3, seed=0)


@pytest.mark.parametrize(
    "mask",
    [
        HOLE,
        HOLE[0],
        HOLE[0].numpy(),
        HOLE[0].numpy()[::-1][::-1],
        HOLE.float() * 0.4 + 0.3,
        HOLE.to(torch.uint8),
        HOLE.to(torch.uint8) * 255,
        HOLE[0].numpy().astype(np.uint16) * 120 + 100,
        HOLE.expand(3, 6, 8),
        HOLE[None],
    ],
)
def test_white_is_the_hole_in_every_kind_of_mask(mask):
    op = Inpaint(mask, (3, 6, 8))
    x = torch.full((1, 3, 6, 8), 5.0)
    assert torch.equal(op(x) == 0, HOLE.expand(1, 3, 6, 8))


def test_values_under_the_holes_mean_nothing():
    op = Inpaint(HOLE, (1, 6, 8))
    z, y = torch.randn(2, 1, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    spoiled = torch.where(HOLE, float("nan"), y)
    for f in (op.adjoint, op.pinv, op.svd().Ut, lambda y: op.prox(z, y, 3.0), lambda y: op.prox(z, y, math.inf)):
        assert torch.equal(f(spoiled), f(y))
    # z + (y - z) is y to rounding, 6e-8 of values up to 4
    torch.testing.assert_close(op.prox(z, y, math.inf)[..., ~HOLE[0]], y[..., ~HOLE[0]], rtol=0, atol=1e-6)
    assert torch.equal(op.prox(z, y, 3.0)[..., HOLE[0]], z[..., HOLE[0]])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(5, 8), r"got \(5, 8\)"),
        (torch.zeros(2, 6, 8), r"got \(2, 6, 8\)"),
        (torch.full((6, 8), 1.5), "1.5"),
        (torch.full((6, 8), float("nan")), "finite"),
        (torch.full((6, 8), -1), "-1"),
        ([[True]], "got list"),
    ],
)
def test_masks_that_cannot_be_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        Inpaint(mask, (3, 6, 8))


@pytest.mark.parametrize("fraction", [0, 0.301, 0.5, 1])
def test_random_mask_has_exactly_the_fraction(fraction):
    assert random_mask((3, 17, 23), fraction, seed=5).sum() == round(fraction * 17 * 23)


def test_random_mask_is_uniform_over_pixels():
    # 400 masks, each pixel a hole with probability 1/4: sd of a frequency 0.0217, 5 sd over 48 pixels
    often = torch.stack([random_mask((6, 8), 0.25, seed=i) for i in range(400)]).double().mean(0)
    assert ((often - 0.25).abs() < 5 * 0.0217).all()


@pytest.mark.parametrize("size", [3, (2, 5), (6, 8)])
def test_box_mask_is_one_box_anywhere_it_fits(size):
    h, w = size if isinstance(size, tuple) else (size, size)
    corners = set()
    for seed in range(200):
        rows, columns = torch.nonzero(box_mask((6, 8), size, seed)[0], as_tuple=True)
        assert len(rows) == h * w
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (h, w)
        corners.add((rows.min().item(), columns.min().item()))
    # 200 draws from at most 24 places: all are met but for a chance of 24 (23/24)^200 = 0.5 %
    assert len(corners) == (6 - h + 1) * (8 - w + 1)


@pytest.mark.parametrize("fraction", [0, 0.1, 0.5, 0.9])
def test_stroke_mask_reaches_the_fraction_by_less_than_a_segment(fraction):
    mask = stroke_mask((3, 100, 120), fraction, seed=2)
    # a segment is at most 0.2 x 0.06 of the longer side squared, and its round end
    segment = 0.2 * 0.06 * 120**2 + math.pi / 4 * (0.06 * 120 + 1) ** 2
    assert mask.shape == (1, 100, 120)
    assert fraction <= mask.double().mean() < fraction + 1.5 * segment / (100 * 120) or fraction == mask.sum() == 0


def test_masks_depend_on_the_seed_and_on_nothing_else():
    for make, how in ((random_mask, 0.3), (box_mask, 20), (stroke_mask, 0.3)):
        state = torch.get_rng_state()
        first = make((64, 64), how, seed=1)
        torch.rand(3)
        np.random.rand(3)  # noqa: NPY002
        assert torch.equal(first, make((64, 64), how, seed=1))
        assert not torch.equal(first, make((64, 64), how, seed=2))
        torch.set_rng_state(state)
        make((64, 64), how, seed=1)
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "make",
    [
        lambda: random_mask((8, 8), 1.2, 0),
        lambda: random_mask((8, 8), "half", 0),
        lambda: random_mask((8, 8), 0.5, -1),
        lambda: stroke_mask((8, 8), 0.95, 0),
        lambda: box_mask((8, 8), 9, 0),
        lambda: box_mask((8, 8), 2.5, 0),
    ],
)
def test_simulations_that_cannot_be_are_refused(make):
    with pytest.raises(ValueError, match="number from"):
        make()

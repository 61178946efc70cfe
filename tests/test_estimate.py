"""The noise level, estimated on photographs whose noise is known."""

import math
import re
from pathlib import Path

import pytest
import torch
from skimage import data

from genprior.estimate import noise_level
from genprior.noise import Noise
from genprior.operators import random_mask

DOCS = Path(__file__).parent.parent / "docs" / "inputs.md"
PHOTOS = ["astronaut", "coffee", "chelsea", "rocket"]


def noisy(name, sd, seed=0):
    """A 192 x 192 crop of a photograph with white noise, (1, 3, 192, 192)."""
    x = torch.from_numpy(getattr(data, name)()[100:292, 100:292].copy()).movedim(-1, 0)[None].float() / 255
    return x + sd * Noise(seed, [0])(x)


@pytest.mark.parametrize(("sd", "factor"), [(0.01, 1.75), (0.02, 1.3), (0.05, 1.08), (0.1, 1.03), (0.2, 1.02)])
@pytest.mark.parametrize("name", PHOTOS)
def test_white_noise_on_photographs_is_estimated_from_above(name, sd, factor):
    """Texture adds to noise, the less the more noise there is: measured, at most 71 %, 27 %, 7.2 %, 2.7 %, 1.1 %."""
    assert 0.99 < float(noise_level(noisy(name, sd))) / sd < factor


@pytest.mark.parametrize("name", PHOTOS)
def test_texture_of_a_photograph_without_noise_is_taken_for_a_little(name):
    """Measured, 0.0019 to 0.0116: half a grey level of 8 bits to three."""
    assert 0 < float(noise_level(noisy(name, 0))) < 0.012


def test_the_documented_errors_are_those_of_whole_photographs(run):
    """A row of the table in docs/inputs.md, as its recipe prints it; other versions may round the last digit."""
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith("| 0.05 |"))
    printed = run("evaluate_noise", "--noise", 0.05).splitlines()[-1]
    ours, theirs = (list(map(float, re.findall(r"0\.\d+", line))) for line in (row, printed))
    assert len(ours) == 10
    assert ours == pytest.approx(theirs, abs=1.5e-4)


@pytest.mark.parametrize(("sd", "factor"), [(0.02, 1.45), (0.05, 1.17), (0.1, 1.1)])
@pytest.mark.parametrize("name", PHOTOS)
def test_noise_is_seen_between_holes(name, sd, factor):
    """With 70 % holes only 2 x 2 windows are left, where texture is stronger: measured, at most 38 %, 13 %, 6.7 %.

    900 of them, not overlapping by much: the estimate has a relative deviation of 1.17 / sqrt(900) = 4 %.
    """
    y, holes = noisy(name, sd), random_mask((192, 192), 0.7, seed=1)[None]
    estimate = float(noise_level(y, holes))
    assert 0.92 < estimate / sd < factor
    trash = torch.where(holes, torch.nan, y)
    assert float(noise_level(trash, holes)) == estimate


def test_white_noise_alone_is_estimated_without_bias():
    """Details overlap in 3 x 3 windows: 9 pixels count for one, and a median has 1.17 the deviation of a deviation."""
    n = 0.05 * Noise(0, [0])(torch.empty(1, 1, 300, 300))
    assert abs(float(noise_level(n)) / 0.05 - 1) < 4 * 1.17 / math.sqrt(300**2 / 9)
    assert float(noise_level(3 * n)) == pytest.approx(3 * float(noise_level(n)), rel=1e-6)


def test_each_image_has_its_own_level():
    y = torch.cat([noisy("astronaut", 0.02), noisy("coffee", 0.1)])
    levels = noise_level(y)
    assert levels.shape == (2, 1, 1, 1)
    for alone, level in zip(y, levels):
        assert float(noise_level(alone[None])) == float(level)
    holes = torch.cat([random_mask((192, 192), f, seed=1)[None] for f in (0.0, 0.7)])
    assert float(noise_level(y, holes)[0]) == float(levels[0])
    assert float(noise_level(y, holes)[1]) == float(noise_level(y[1:], holes[1:]))


def test_a_smooth_image_has_no_noise():
    plane = torch.linspace(0, 1, 50)[:, None] + torch.linspace(0, 1, 40)
    assert float(noise_level(plane[None, None])) < 1e-6


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 4, 4), (1, 1, 1, 500)])
def test_too_small_an_image_is_an_error_that_says_what_to_do(shape):
    with pytest.raises(ValueError, match=r"cannot be estimated.*noise=0\.02"):
        noise_level(torch.zeros(shape))


def test_too_many_holes_are_an_error():
    with pytest.raises(ValueError, match="too few neighbouring pixels"):
        noise_level(torch.zeros(1, 3, 50, 50), torch.ones(1, 1, 50, 50, dtype=torch.bool))

"""The noise level, estimated on photographs whose noise is known."""

import math
import re
from pathlib import Path

import pytest
import torch
from skimage import data

from genprior.noise import Noise
from genprior.noise_level import noise_level
from genprior.operators import random_mask

DOCS = Path(__file__).parent.parent / "docs" / "inputs.md"
PHOTOS = ["astronaut", "coffee", "chelsea", "rocket"]


def noisy(name, sd, seed=0):
    """A 192 x 192 crop of a photograph with white noise, (1, 3, 192, 192)."""
    x = torch.from_numpy(getattr(data, name)()[100:292, 100:292].copy()).movedim(-1, 0)[None].float() / 255
    return x + sd * Noise(seed, [0])(x)


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("sd", [0.01, 0.02, 0.05, 0.1, 0.2])
def test_white_noise_on_photographs_is_estimated(name, sd):
    """Measured on these crops, 0.95 to 1.06 of the truth; the texture that the finest details hold was up to 71 %."""
    assert 0.9 < float(noise_level(noisy(name, sd))) / sd < 1.1


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph_without_noise_has_little(name):
    """Halved in size, as film and sensors have noise of their own: less than a grey level of 8 bits."""
    x = torch.nn.functional.avg_pool2d(noisy(name, 0), 2)
    assert float(noise_level(x)) < 1 / 255


@pytest.mark.parametrize("sd", [0.02, 0.05, 0.1])
def test_texture_is_not_taken_for_noise(sd):
    """Of grass, all of it texture, the median detail makes 0.09 of any noise up to there."""
    x = torch.from_numpy(data.grass()[None, None]).float() / 255
    assert (
        0.8 < float(noise_level(x.expand(-1, 3, -1, -1) + sd * Noise(0, [0])(torch.empty(1, 3, 512, 512)))) / sd < 1.3
    )


def test_the_documented_errors_are_those_of_whole_photographs(run):
    """A row of the table in docs/inputs.md, as its recipe prints it; other versions may round the last digit."""
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith("| 0.05, five |"))
    printed = run("evaluate_noise", "--noise", 0.05).splitlines()[-1]
    ours, theirs = (list(map(float, re.findall(r"[01]\.\d\d", line))) for line in (row, printed))
    assert len(ours) == 13
    assert ours == pytest.approx(theirs, abs=0.015)


@pytest.mark.parametrize(("sd", "factor"), [(0.02, 1.3), (0.05, 1.15), (0.1, 1.1)])
@pytest.mark.parametrize("name", PHOTOS)
def test_noise_is_seen_between_holes(name, sd, factor):
    """With 70 % holes some 300 windows of 2 x 2 are left, of 12 values each: a deviation of about 6 %."""
    y, holes = noisy(name, sd), random_mask((192, 192), 0.7, seed=1)[None]
    estimate = float(noise_level(y, holes))
    assert 0.85 < estimate / sd < factor
    trash = torch.where(holes, torch.nan, y)
    assert float(noise_level(trash, holes)) == estimate


def test_white_noise_alone_is_estimated_without_bias():
    """20 000 windows share 90 000 pixels, each of which tells the level to 1 / sqrt(2 N), and half the values vote."""
    n = 0.05 * Noise(0, [0])(torch.empty(1, 1, 300, 300))
    assert abs(float(noise_level(n)) / 0.05 - 1) < 4 / math.sqrt(300**2)
    assert float(noise_level(3 * n)) == pytest.approx(3 * float(noise_level(n)), rel=1e-4)


def padded(y, how):
    """A picture in the middle of something constant."""
    sides = (30, 30, 20, 60)
    if how == "replicate":
        return torch.nn.functional.pad(y, sides, mode=how)
    return torch.nn.functional.pad(y, sides, value={"black": 0.0, "grey": 0.37, "white": 1.0}[how])


@pytest.mark.parametrize("how", ["black", "grey", "white", "replicate"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_constant_does_not_vote(how, channels):
    """Bars, padding, repeated edges on three quarters of the area: the noise is that of the picture."""
    y = noisy("coffee", 0.05)[:, :channels, 40:120, 40:120]
    alone = float(noise_level(y))
    assert 0.9 < alone / 0.05 < 1.15
    assert float(noise_level(padded(y, how))) == pytest.approx(alone, rel=0.05)


def test_a_cut_out_on_white_has_its_own_noise():
    """A disc of noise on white; windows across its edge, half of them constant, do not vote either."""
    grid = torch.linspace(-1, 1, 160)
    inside = (grid[:, None] ** 2 + grid**2 < 0.3)[None, None]
    y = torch.where(inside, 0.5 + 0.1 * Noise(0, [0])(torch.empty(1, 1, 160, 160)), 1.0)
    assert float(noise_level(y)) == pytest.approx(0.1, rel=0.05)


def test_what_is_clipped_does_not_vote():
    """Half of the picture is black but for noise of which a file holds the positive half."""
    x = torch.full((1, 3, 128, 128), 0.5)
    x[..., 64:] = 0
    y = ((x + 0.1 * Noise(0, [0])(x)).clamp(0, 1) * 255).round() / 255
    assert float(noise_level(y)) == pytest.approx(0.1, rel=0.05)


def test_a_picture_of_two_values_or_one_is_without_noise():
    flat = torch.full((1, 1, 40, 40), 0.3)
    assert float(noise_level(flat)) == 0
    flat[..., 10:30, 10:30] = 1
    assert float(noise_level(flat)) < 1e-6


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

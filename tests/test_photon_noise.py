"""Photon noise, estimated on photographs whose gain and sd are known."""

import json
import math

import numpy as np
import pytest
import torch
from skimage import data

import genprior
from genprior.cli import main
from genprior.likelihoods import Poisson, PoissonGaussian
from genprior.noise import Noise
from genprior.operators import PhaseRetrieval, random_mask
from genprior.photon_noise import photon_noise

PHOTOS = ["astronaut", "coffee", "chelsea", "rocket"]
LAWS = [(1 / 10, 0.001, False), (1 / 30, 0.02, True), (1 / 100, 0.02, False), (1 / 100, 0.05, True)]


def photo(name, side=192):
    """A crop of a photograph, (1, 3, side, side)."""
    x = getattr(data, name)()[40 : 40 + side, 100 : 100 + side]
    return torch.from_numpy(x.copy()).movedim(-1, 0)[None].float() / 255


def noisy(x, gain, sd, seed=0):
    return PoissonGaussian(gain, sd).sample(x, Noise(seed, range(len(x))))


def level(gain, sd, z=0.5):
    return float((gain * z + torch.as_tensor(sd) ** 2) ** 0.5)


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize(("gain", "sd", "bits"), LAWS)
def test_gain_and_sd_of_photographs_are_estimated(name, gain, sd, bits):
    """Measured on these crops, gains of 0.87 to 1.12 of the truth, and deviations of 0.98 to 1.11, where all of the
    picture is texture. A gain without an sd, or one level for all of the picture, would miss the dark or the bright."""
    y = noisy(photo(name), gain, sd)
    y = (y.clamp(0, 1) * 255).round() / 255 if bits else y
    found, rest = photon_noise(y)
    assert 0.8 < float(found) / gain < 1.2
    for z in (0.25, 0.5, 0.9):
        assert 0.95 < level(found, rest, z) / level(gain, sd, z) < 1.13


@pytest.mark.parametrize("sd", [0.0, 0.05])
def test_without_texture_it_is_unbiased(sd):
    """A ramp of 512 x 512 in 16 groups, whose variances come out 0.95 to 1.00 of the truth: to drop the largest
    components costs 2 % of 4,000 windows, and as much is chance."""
    x = torch.linspace(0.2, 0.9, 512).expand(1, 1, 512, 512)
    gain, rest = photon_noise(noisy(x, 0.02, sd) if sd else Poisson(0.02).sample(x, Noise(0, [0])))
    assert float(gain) == pytest.approx(0.02, rel=0.05)
    assert level(gain, rest) == pytest.approx(level(0.02, sd), rel=0.02)


def test_what_is_clipped_above_is_allowed_for():
    """A ramp up to 0.95 of white, of which the brightest groups are clipped: as they are, the gain is 7 % less."""
    x = torch.linspace(0.3, 0.95, 512).expand(1, 1, 512, 512)
    y = Poisson(0.02).sample(x, Noise(0, [0]))
    assert float(photon_noise(y.clamp(max=1))[0]) == pytest.approx(float(photon_noise(y)[0]), rel=0.02)


def test_it_scales_with_y_and_each_image_is_by_itself():
    y = torch.cat([noisy(photo("coffee"), 1 / 30, 0.02), noisy(photo("astronaut"), 1 / 10, 0.05)])
    gain, sd = photon_noise(y)
    assert gain.shape == sd.shape == (2, 1, 1, 1)
    for i in range(2):
        alone = photon_noise(y[i : i + 1])
        assert (float(alone[0]), float(alone[1])) == (float(gain[i]), float(sd[i]))
    larger = photon_noise(255 * y)
    torch.testing.assert_close(larger[0], 255 * gain, rtol=1e-3, atol=0)
    torch.testing.assert_close(larger[1], 255 * sd, rtol=1e-2, atol=0)


def test_what_is_not_seen_or_constant_does_not_vote():
    """Bars and a hole: the groups change by the windows that they lose, the estimate by a few hundredths."""
    y = noisy(photo("coffee"), 1 / 30, 0.02)
    alone, _ = photon_noise(y)
    framed, _ = photon_noise(torch.nn.functional.pad(y, (80, 80, 40, 0), value=0.37))
    assert float(framed) == pytest.approx(float(alone), rel=0.01)
    holes = torch.zeros(1, 1, 192, 192, dtype=torch.bool)
    holes[..., 100:150, 50:150] = True
    trash = torch.where(holes, torch.nan, y)
    assert float(photon_noise(trash, holes)[0]) == pytest.approx(float(alone), rel=0.1)


WHITE = 0.05 * Noise(0, [0])(torch.empty(1, 3, 192, 192))
REFUSED = {
    "white noise": (photo("coffee") + WHITE, "does not grow"),
    "no noise": (torch.nn.functional.avg_pool2d(photo("astronaut"), 2), "does not grow"),
    "one brightness": (noisy(torch.full((1, 1, 256, 256), 0.5), 1 / 30, 0.02), "does not grow"),
    "few counts": (Poisson(1.0).sample(photo("coffee"), Noise(0, [0])), "cannot be estimated"),
    "few pixels": (noisy(photo("coffee", 20), 1 / 30, 0.02), "cannot be estimated"),
    "between holes": (torch.zeros(1, 3, 2, 300), "cannot be estimated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_photograph_does_not_say_is_refused(case):
    y, why = REFUSED[case]
    with pytest.raises(ValueError, match=rf"{why}(.|\n)*noise=Poisson\(gain\)"):
        photon_noise(y)


def test_too_many_holes_are_refused():
    with pytest.raises(ValueError, match="cannot be estimated"):
        photon_noise(noisy(photo("coffee"), 1 / 30, 0.02), random_mask((192, 192), 0.7, seed=1)[None])


PRIOR = genprior.Gaussian(torch.full((3, 192, 192), 0.5), torch.full((3, 192, 192), 0.05))
OPTIONS = {"prior": PRIOR, "seed": 0, "progress": False}


def test_restore_takes_the_law_and_says_that_it_was_estimated():
    y = noisy(photo("coffee"), 1 / 30, 0.02)
    result = genprior.restore(y[0], "denoise", noise="poisson", **OPTIONS)
    gain, sd = photon_noise(y)
    assert result.measurement.noise == PoissonGaussian(float(gain), float(sd))
    assert result.noise_was_estimated
    assert f"noise PoissonGaussian(gain={float(gain):.4g}, sd={float(sd):.4g}) (estimated)" in str(result)
    measured = genprior.degrade(photo("coffee"), "denoise", noise=PoissonGaussian(1 / 30, 0.02), seed=0)
    again = genprior.restore(measured, noise="poisson", **OPTIONS)
    assert again.noise_was_estimated
    assert again.measurement.noise.gain == pytest.approx(1 / 30, rel=0.25)
    stated = genprior.restore(y[0], "denoise", noise=PoissonGaussian(0.03, 0.02), **OPTIONS)
    assert not stated.noise_was_estimated


def test_of_several_images_each_has_its_law_and_known_pixels_are_denoised():
    y = torch.cat([noisy(photo("coffee", 128), 1 / 30, 0.02), noisy(photo("astronaut", 128), 1 / 30, 0.05)])
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[:20, :20] = True
    options = {"seed": 0, "progress": False, "steps": 2}
    prior = genprior.Gaussian(torch.full((3, 128, 128), 0.5), torch.full((3, 128, 128), 0.05))
    result = genprior.restore(y, "inpaint", prior, mask=mask, noise="poisson", **options)
    assert result.measurement.noise.gain.shape == (2, 1, 1, 1)
    known = (result.mean == y)[..., ~mask]
    assert known.float().mean() < 0.01


def test_where_there_is_nothing_to_estimate_it_from_it_is_refused():
    x = photo("coffee")
    with pytest.raises(TypeError, match=r"Poisson\(1 / 30\).*to restore.*got 'poisson'"):
        genprior.degrade(x, "denoise", noise="poisson")
    A = PhaseRetrieval((3, 192, 192))
    with pytest.raises(ValueError, match="no picture"):
        genprior.restore(A(x), A, noise="poisson", **OPTIONS)
    with pytest.raises(TypeError, match=r"'poisson' to have photon noise estimated; got 'poison'"):
        genprior.restore(x, "denoise", noise="poison", **OPTIONS)


def test_the_picture_is_nearly_that_of_the_true_law():
    """What is estimated costs less than a fifth of what one level for all does."""
    x = photo("coffee")
    y = noisy(x, 1 / 30, 0.02)
    made = {law: genprior.restore(y[0], "denoise", noise=law, **OPTIONS).mean - x[0] for law in
            (PoissonGaussian(1 / 30, 0.02), "poisson", None)}  # fmt: skip
    known, estimated, one_level = (math.sqrt(float(error.square().mean())) for error in made.values())
    assert known <= estimated < known + 0.2 * (one_level - known)


def test_the_command_line_estimates_it_and_says_so(tmp_path, capsys):
    file = tmp_path / "y.npy"
    np.save(file, noisy(photo("coffee", 96), 1 / 30, 0.02)[0].movedim(0, -1).numpy())
    words = ["restore", file, "--op", "denoise", "--noise", "poisson", "--json", "-o", tmp_path / "x.png"]
    assert main(list(map(str, [*words, "--device", "cpu"]))) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["noise_was_estimated"]
    assert told["noise"]["class"] == "PoissonGaussian"
    assert told["noise"]["gain"] == pytest.approx(1 / 30, rel=0.3)

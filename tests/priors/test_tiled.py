"""Denoising in tiles: what it agrees with, to what, and how much of an image it holds at once."""

from itertools import pairwise

import pytest
import torch

from genprior import devices
from genprior.checks import UnsupportedError
from genprior.nets.unet import UNet
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.store import find_prior, load_prior
from genprior.priors.wrappers import tiled
from genprior.priors.wrappers.tiled import Tiled


def stirred(module, seed=0):
    """The module in float64 with all of its parameters random, so that no part of it is idle."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module.requires_grad_(False).eval()


def network(**more):
    """A diffusion prior of reach 23, whose tiles lie on multiples of 4."""
    return stirred(DDPM((2, None, None), widths=(4, 4), blocks=1, **more))


def noisy(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Stub(Prior):
    """Denoises by a function of x_t and sigma; keeps the shapes it was asked for."""

    def __init__(self, function, channels=1):
        super().__init__()
        self.function, self.image_shape, self.asked = function, (channels, None, None), []

    def denoise(self, x_t, sigma):
        self.asked.append(tuple(x_t.shape))
        return self.function(x_t, sigma)


# ---- the network's reach ----


@pytest.mark.parametrize(
    "config",
    [
        {"widths": (4,), "blocks": 2, "patch": 1},
        {"widths": (4, 4), "blocks": 1, "patch": 2},
        {"widths": (4, 4, 4), "blocks": 1, "patch": 1},
        {"widths": (4, 4), "blocks": 2, "patch": 3},
    ],
    ids=str,
)
def test_reach_is_how_far_the_network_sees_and_no_further(config):
    net = stirred(UNet(1, **config))
    m, reach = net.multiple, net.reach
    width = 2 * (reach // m + 2) * m
    x = noisy(1, 1, m, width).requires_grad_()
    y = net(x, torch.zeros(1, dtype=torch.float64))
    furthest = 0
    for column in range(width // 2, width // 2 + m):
        (gradient,) = torch.autograd.grad(y[..., column].sum(), x, retain_graph=True)
        seen = gradient.abs().amax((0, 1, 2)).nonzero().flatten()
        furthest = max(furthest, int((seen - column).abs().max()))
    assert furthest == reach


def test_the_bundled_network_sees_the_195_pixels_that_are_written_down():
    prior = load_prior(find_prior("ddpm-photo"), "cpu")
    assert (prior.reach, prior.multiple) == (195, 16)
    assert Tiled(prior, 256).overlap == tiled.OVERLAP == 128


# ---- the same as without tiles ----


@pytest.mark.parametrize("size", [(64, 200), (133, 171), (91, 1), (121, 120)], ids=str)
@pytest.mark.parametrize("sigma", [0.01, 1.0, 60.0])
def test_tiles_that_overlap_by_the_reach_make_no_difference(size, sigma):
    prior = network()
    assert prior.reach == 23
    x_t = sigma * noisy(1, 2, *size)
    parts = Tiled(prior, 80)
    assert parts.overlap == 64  # 23 / (3/8), in multiples of 4
    assert parts.tiles(*size) > 1
    torch.testing.assert_close(parts.denoise(x_t, sigma), prior.denoise(x_t, sigma), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("sigma", [0.02, 0.5, 30.0])
def test_a_photograph_is_denoised_alike_to_a_thousandth(sigma):
    from skimage.data import astronaut

    prior = load_prior(find_prior("ddpm-photo"), "cpu")
    prior.autocast = None  # whose rounding would be all that is seen
    x = torch.from_numpy(astronaut()).movedim(-1, 0)[None, :, 50:203, 60:349] / 255
    x_t = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parts, whole = Tiled(prior, 224).denoise(x_t, sigma), prior.denoise(x_t, sigma)
    assert Tiled(prior, 224).tiles(*x.shape[2:]) == 2
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-3)


@pytest.mark.parametrize("overlap", [0, 20, 52])
def test_weights_add_up_to_one(overlap):
    x = noisy(2, 1, 133, 171)
    torch.testing.assert_close(Tiled(Stub(lambda x_t, _: x_t), 64, overlap).denoise(x, 0.1), x, rtol=0, atol=1e-6)


def test_an_image_that_a_tile_holds_is_left_to_the_prior():
    prior = Stub(lambda x_t, _: 2 * x_t)
    x = noisy(3, 1, 64, 50)
    assert torch.equal(Tiled(prior, 64, 16).denoise(x, 0.1), 2 * x)
    assert prior.asked == [(3, 1, 64, 50)]


def test_tiles_fade_into_one_another():
    """Tiles of unlike constants, from 0 to 1: between neighbours the step is that of a ramp of a quarter overlap."""
    count = iter(range(100))
    prior = Stub(lambda x_t, _: torch.stack([torch.full_like(x, next(count) % 2) for x in x_t]))
    x_hat = Tiled(prior, 64, 32).denoise(noisy(1, 1, 64, 160), 0.1)
    assert (x_hat.min(), x_hat.max()) == (0, 1)
    assert x_hat.diff(dim=-1).abs().max() <= 1 / 8 + 1e-6


def test_gradients_are_those_without_tiles_as_often_as_they_are_asked_for():
    prior = network()
    x_t, pulls = noisy(2, 2, 91, 101).requires_grad_(), noisy(2, 2, 2, 91, 101, seed=2)
    whole, parts = prior.denoise(x_t, 0.3), Tiled(prior, 80).denoise(x_t, 0.3)
    for pull in pulls:
        (expected,) = torch.autograd.grad(whole, x_t, pull, retain_graph=True)
        (gradient,) = torch.autograd.grad(parts, x_t, pull, retain_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


def test_images_of_a_batch_with_their_own_noise_do_not_mix():
    prior = network()
    x_t, sigma = noisy(3, 2, 40, 101), torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    together = Tiled(prior, 80).denoise(x_t, sigma)
    for row in range(3):
        alone = Tiled(prior, 80).denoise(x_t[row, None], float(sigma[row]))
        torch.testing.assert_close(together[row, None], alone, rtol=1e-9, atol=1e-11)


def test_labels_go_with_the_tiles():
    prior, x_t = network(classes=3), noisy(2, 2, 40, 101)
    expected = prior.given(1).denoise(x_t, 0.5)
    for given in (Tiled(prior, 80).given(1), Tiled(prior.given(1), 80)):
        torch.testing.assert_close(given.denoise(x_t, 0.5), expected, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(prior.given(2).denoise(x_t, 0.5), expected, rtol=1e-3)


# ---- how much at once ----


@pytest.mark.parametrize("size", [(70, 90), (70, 900), (500, 600)], ids=str)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("backward", [False, True])
def test_no_more_is_denoised_at_once_than_fits_whatever_the_image(size, rows, backward, monkeypatch):
    monkeypatch.setitem(devices.PIXELS_AT_ONCE, "cpu", 3 * 48**2)
    prior = Stub(torch.mul)
    x_t = noisy(rows, 1, *size).requires_grad_(backward)
    x_hat = Tiled(prior, 48, 16).denoise(x_t, 2.0)
    if backward:
        x_hat.sum().backward()
        torch.testing.assert_close(x_t.grad, torch.full_like(x_t, 2), rtol=0, atol=1e-5)
    pixels = [b * h * w for b, _, h, w in prior.asked]
    assert max(pixels) <= 3 * 48**2
    assert len(pixels) < (1 + backward) * rows * Tiled(prior, 48, 16).tiles(*size)  # several tiles a call


def test_tiles_cover_an_axis_evenly_and_overlap_by_no_less_than_asked():
    for m, tile, overlap in ((1, 10, 3), (4, 40, 8), (16, 256, 128), (4, 12, 8)):
        for size in range(1, 12 * tile, 7):
            spans = tiled._spans(size, tile, overlap, m)
            assert (spans[0].start, spans[-1].stop) == (0, size)
            assert all(s.start % m == 0 and 0 < s.stop - s.start <= tile for s in spans)
            assert all(a.stop - b.start >= overlap for a, b in pairwise(spans))
            fewest = 1 if size <= tile else -(-(size - overlap) // (tile - overlap))
            assert len(spans) == fewest


def test_those_who_watch_are_told_of_every_tile_once(monkeypatch):
    monkeypatch.setitem(devices.PIXELS_AT_ONCE, "cpu", 5 * 40 * 80)
    prior = Tiled(network(), 80)
    told = []
    prior.watch = told.append
    x_t = noisy(2, 2, 40, 200).requires_grad_()
    prior.denoise(x_t, 0.1).sum().backward()
    assert sum(told) == 2 * prior.tiles(40, 200)
    assert len(told) == 4  # five at once, of 18
    told.clear()
    prior.denoise(x_t[..., :70], 0.1)
    assert told == [2]


# ---- a prior ----


def test_all_but_denoising_is_the_prior_s_own():
    prior = network()
    parts = Tiled(prior, 80)
    for name in ("capabilities", "centre", "spread", "sigma_min", "sigma_max", "classes", "bounded", "reach"):
        assert getattr(parts, name) == getattr(prior, name)
    assert torch.equal(parts.sample(1, seed=1, size=(8, 8), steps=2), prior.sample(1, seed=1, size=(8, 8), steps=2))
    assert torch.equal(parts.elbo(noisy(1, 2, 8, 8), terms=2), prior.elbo(noisy(1, 2, 8, 8), terms=2))
    with pytest.raises(UnsupportedError, match="DDPM has no decode"):
        parts.decode(noisy(1, 3))
    sized = parts.sized(90, 100)
    assert sized.image_shape == (2, 90, 100)
    assert sized.tiles(90, 100) == parts.tiles(90, 100) == 6
    assert sized.side(90, 100) == 80
    assert sized.side(60, 70) == 70
    assert parts.image_shape == (2, None, None)


def test_what_cannot_be_tiled_is_refused():
    with pytest.raises(ValueError, match="take a tile of at least 68"):
        Tiled(network(), 64)
    with pytest.raises(ValueError, match=r"images of \(1, 2, 2\) only"):
        Tiled(Gaussian(torch.zeros(1, 2, 2), torch.eye(4)), 64)

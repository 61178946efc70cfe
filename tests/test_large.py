"""Large photographs in `restore`: in tiles where they do not fit, with the same result, and what the bar says of it."""

import sys
import warnings

import numpy as np
import pytest
import torch

import genprior
from genprior import devices, drawing, images
from genprior.checks import UnsupportedError
from genprior.cli import main
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import write_prior
from genprior.priors.foreign.denoiser import from_denoiser
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.wrappers.tiled import Tiled
from genprior.samplers import MMPS, DiffPIR

H, W = 70, 93
TILE = 48  # six tiles, that overlap by 32


def network(channels=1):
    """A diffusion prior of reach 11."""
    prior = DDPM((channels, None, None), widths=(4,), blocks=1)
    generator = torch.Generator().manual_seed(0)
    for parameter in prior.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return prior.requires_grad_(False).eval()


NETWORK = network()


def photo(height=H, width=W, channels=1):
    return 0.2 + 0.6 * torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0))


def restore(img=None, op="denoise", prior=NETWORK, **options):
    img = photo() if img is None else img
    options = {"noise": 0.1, "seed": 0, "progress": False, "sampler": DiffPIR(steps=3), **options}
    return genprior.restore(img, op, prior, **options)


@pytest.fixture
def tiled(monkeypatch):
    """The sides of the tiles that are denoised in, in the order in which `restore` asks for them."""
    sides = []

    class Watched(Tiled):
        def __init__(self, prior, tile, overlap=None):
            super().__init__(prior, tile, overlap)
            sides.append(self.tile)

    monkeypatch.setattr(drawing, "Tiled", Watched)
    return sides


@pytest.mark.parametrize("sampler", [DiffPIR(steps=3), MMPS(steps=3, iterations=1)], ids=["diffpir", "mmps"])
@pytest.mark.parametrize("several", [False, True])
def test_forced_tiles_draw_the_same(sampler, several, tiled):
    # a few roundings of float32
    img, n = (torch.stack([photo(), 1 - photo()]), 2) if several else (photo(), 1)
    whole = restore(img, sampler=sampler, n=n).samples
    assert tiled == []
    torch.testing.assert_close(restore(img, sampler=sampler, n=n, tile=TILE).samples, whole, rtol=0, atol=1e-6)
    assert tiled == [TILE]


def test_tiles_are_taken_where_the_image_is_larger_than_fits(monkeypatch, tiled):
    monkeypatch.setattr(drawing, "tile_side", lambda device: 80)  # 6400 pixels; the image has 6510
    whole = restore(tile=1000).samples
    tiled.clear()
    result = restore()
    torch.testing.assert_close(result.samples, whole, rtol=0, atol=1e-5)
    assert tiled == [80] == [result.tile]
    restore(photo(80, 80))
    restore(photo(40, 160))
    assert tiled == [80]
    assert restore(op="inpaint", mask=np.eye(H, W) > 0, label=None).prior is NETWORK


def test_what_tiles_would_change_is_left_whole_unless_they_are_forced(monkeypatch, tiled):
    monkeypatch.setattr(drawing, "tile_side", lambda device: 40)
    seen = []

    def denoiser(x_t, sigma):
        seen.append(tuple(x_t.shape[2:]))
        return (x_t + x_t.mean((2, 3), keepdim=True)) / 2

    prior = from_denoiser(denoiser, (1, None, None))
    seen.clear()  # the one by which it was seen to be a denoiser
    restore(prior=prior)
    assert tiled == []
    assert set(seen) == {(H, W)}
    seen.clear()
    # of what reaches nobody knows how far, tiles overlap by as much as those of the bundled network
    restore(photo(200, 150), prior=prior, tile=160)
    assert tiled == [160]
    assert all(h <= 160 and w <= 160 for h, w in seen)


def test_a_tiled_prior_is_taken_as_it_is(monkeypatch, tiled):
    monkeypatch.setattr(drawing, "tile_side", lambda device: 40)
    assert restore(prior=drawing.Tiled(NETWORK, TILE)).tile == TILE
    assert tiled == [TILE]
    assert restore(prior=drawing.Tiled(NETWORK, TILE), tile=60).tile == 60
    assert tiled == [TILE, TILE, 60]


def test_the_tile_of_a_result_draws_the_same_again_of_a_prior_with_an_overlap_of_its_own():
    prior = Tiled(NETWORK, TILE, 8)  # less than the reach: seams
    result = restore(prior=prior)
    assert torch.equal(restore(prior=prior, tile=result.tile).samples, result.samples)
    assert not torch.equal(restore(tile=result.tile).samples, result.samples)


def test_a_sampler_that_does_not_denoise_took_no_tiles():
    field = genprior.GaussianField.fit(torch.stack([photo(8, 8), 1 - photo(8, 8)]))
    result = restore(photo(16, 16), prior=Tiled(field, 300), sampler="map", steps=2)
    assert result.tile is None  # `restore` would refuse another


@pytest.mark.parametrize("tile", [0, -3, 2.5, "large"])
def test_a_tile_is_a_whole_number(tile):
    with pytest.raises(ValueError, match="tile, the side of the tiles in pixels"):
        restore(tile=tile)


def test_tiles_that_cannot_be_are_refused():
    flat = Gaussian(torch.full((1, 4, 4), 0.5), 0.04 * torch.eye(16))
    with pytest.raises(UnsupportedError, match="Exact does not denoise"):
        restore(photo(4, 4), prior=flat, sampler="exact", tile=64)
    with pytest.raises(ValueError, match=r"images of \(1, 4, 4\) only"):
        restore(photo(4, 4), prior=flat, tile=64)
    with pytest.raises(ValueError, match="take a tile of at least"):
        restore(tile=16)


# ---- out of memory ----


class Tight(Prior):
    """Runs out of memory as a GPU does, on images of more than `room` pixels."""

    def __init__(self, room, reach=4):
        super().__init__()
        self.image_shape, self.centre, self.spread = (1, None, None), 0.5, 0.25
        self.sigma_min, self.sigma_max = 0.01, 50.0
        self.room, self.reach, self.asked = room, reach, []

    def denoise(self, x_t, sigma):
        self.asked.append(tuple(x_t.shape[2:]))
        if x_t[0, 0].numel() > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 0.5 + (x_t - 0.5) * 0.06 / (0.06 + sigma**2)


def test_out_of_memory_halves_the_tile_once_and_says_so():
    expected = restore(prior=Tight(10**6)).samples
    prior = Tight(64**2)
    with pytest.warns(UserWarning, match="ran out of memory. Once more, with tiles of 46 x 46: give tile=46"):
        result = restore(prior=prior)
    torch.testing.assert_close(result.samples, expected, rtol=0, atol=1e-5)
    assert result.tile == 46
    assert prior.asked[0] == (H, W)
    # tiles of 80 are 70 x 54 here, so that two hold the image
    with pytest.warns(UserWarning, match="tiles of 35 x 35"):
        torch.testing.assert_close(restore(prior=Tight(50**2), tile=80).samples, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "prior", [Tight(30**2), Tight(64**2, reach=None), Tight(64**2, reach=40)], ids=["twice", "not local", "all overlap"]
)
def test_out_of_memory_is_an_error_where_half_the_tile_does_not_help(prior):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(torch.OutOfMemoryError):
            restore(prior=prior)
    assert len(prior.asked) <= 2


# ---- the bar ----


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("sampler", [DiffPIR(steps=4), MMPS(steps=4, iterations=1)], ids=["diffpir", "mmps"])
def test_the_bar_moves_within_a_step_and_ends_where_it_says(sampler, n, monkeypatch):
    monkeypatch.setitem(devices.PIXELS_AT_ONCE, "cpu", TILE**2)  # tiles one by one, samples too
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    moves, ends = [], []

    class Bar(drawing.tqdm):
        def update(self, n=1):
            moves.append(n)
            super().update(n)

        def close(self):
            ends.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(drawing, "tqdm", Bar)
    restore(sampler=sampler, n=n, tile=TILE, progress=True)
    tiles = Tiled(NETWORK, TILE).tiles(H, W)
    assert tiles == 6
    assert moves == [1] * (4 * n * tiles)
    assert ends[0] == (len(moves), len(moves))


def test_the_bar_starts_again_with_smaller_tiles(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ends = []

    class Bar(drawing.tqdm):
        def close(self):
            ends.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(drawing, "tqdm", Bar)
    prior = Tight(64**2)
    with pytest.warns(UserWarning, match="ran out of memory"):
        restore(prior=prior, progress=True)
    tiles = 3 * Tiled(prior, 46).tiles(H, W)
    assert list(dict.fromkeys(ends)) == [(0, 3), (tiles, tiles)]


# ---- the command ----


def test_the_command_takes_a_tile(tmp_path, tiled):
    folder = tmp_path / "prior"
    folder.mkdir()
    write_prior(network(3), folder, {})
    images.save(photo(channels=3), tmp_path / "in.png")
    arguments = ["restore", str(tmp_path / "in.png"), "--op", "denoise", "--noise", "0.1", "--prior", str(folder)]
    arguments += ["--steps", "2", "--seed", "0", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "whole.png")]) == 0
    assert tiled == []
    assert main([*arguments, "--out", str(tmp_path / "parts.png"), "--tile", str(TILE)]) == 0
    assert tiled == [TILE]
    whole, parts = (images.read(tmp_path / name).x for name in ("whole.png", "parts.png"))
    # a bfloat16 rounding of the network, and one of the 256 values
    torch.testing.assert_close(parts, whole, rtol=0, atol=2.1 / 255)

"""The energy of overlapping patches: the sum it says, whatever the size, in whatever chunks."""

import pytest
import torch

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.priors import patches
from genprior.priors.base import supports
from genprior.priors.patches import PatchFlow, tiles


def patch_flow(*, dtype=torch.float64, scale=0.1, **arguments):
    """A prior begun with images, its parameters moved by random numbers, so that no part of it is the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = PatchFlow(**({"patch": 3, "width": 6, "steps": 2} | arguments)).double()
        prior.initialise(images(20, 12, 12, seed=7))
        for parameter in prior.parameters():
            parameter.data += scale * torch.randn(parameter.shape, dtype=torch.float64)
    return prior.to(dtype).requires_grad_(False).eval()


def images(n, height, width, seed=1):
    noise = Noise.of_draws(n, seed)
    return noise.uniform(torch.empty(n, 3, height, width, dtype=torch.float64))


def mirrored(i, length):
    """The pixel that continues an image by reflection at i, the pixel of the edge not repeated."""
    i = abs(i)
    return i if i < length else 2 * (length - 1) - i


def test_energy_is_the_mean_over_tilings_of_the_patches():
    """By a loop over the offsets of the tiling and over its tiles, of the image continued pixel by pixel."""
    prior, P = patch_flow(), 3
    x = images(2, 5, 4)
    rows, columns = (torch.tensor([mirrored(i, n) for i in range(1 - P, n + P - 1)]) for n in (5, 4))
    whole = x[:, :, rows][..., columns]
    total = torch.zeros(2, dtype=torch.float64)
    for a in range(P):
        for b in range(P):
            for i in range(a, whole.shape[2] - P + 1, P):
                for j in range(b, whole.shape[3] - P + 1, P):
                    total -= prior.flow.log_prob(whole[..., i : i + P, j : j + P])
    torch.testing.assert_close(prior.energy(x), total / P**2, rtol=1e-12, atol=1e-12)


def test_every_pixel_counts_once_and_those_next_to_the_border_once_more_in_part():
    """Of a flow that is only z = 2 x - 1, with the energy 1/2 |2 x - 1|^2: pixel d > 0 from the border is in P - d

    rows of patches more, as its mirror image, of P; that at the border itself has no mirror image.
    """
    prior = PatchFlow(patch=3, width=4, steps=1).double()
    x = images(1, 9, 8)
    weight = -prior.score(x) / (2 * (2 * x - 1))
    line = torch.tensor([1, 1 + 2 / 3, 1 + 1 / 3, 1, 1, 1, 1 + 1 / 3, 1 + 2 / 3, 1], dtype=torch.float64)
    expected = line[:, None] * torch.cat([line[:4], line[-4:]])
    torch.testing.assert_close(weight, expected.expand(1, 3, 9, 8), rtol=1e-9, atol=0)


def test_score_is_minus_the_gradient_of_the_energy():
    prior = patch_flow()
    x = images(2, 6, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.energy(x).sum(), x)
    torch.testing.assert_close(prior.score(x.detach()), -gradient, rtol=1e-10, atol=1e-10)
    direction, h = images(2, 6, 7, seed=3) - 0.5, 1e-5
    found = (prior.energy(x + h * direction) - prior.energy(x - h * direction)).detach() / (2 * h)
    # central differences: h^2 times a third derivative, eps |energy| / h
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), found, rtol=1e-5, atol=1e-5)


def test_chunks_change_nothing(monkeypatch):
    prior = patch_flow()
    x = images(2, 8, 5).requires_grad_()

    def everything():
        energy = prior.energy(x)
        return energy.detach(), torch.autograd.grad(energy.sum(), x)[0], prior.score(x)

    whole = everything()
    monkeypatch.setattr(patches, "CHUNK", 7)  # of 2 x 10 x 7 patches: chunks that begin in one image, end in another
    for a, b in zip(whole, everything(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_rows_of_a_batch_do_not_see_each_other():
    prior = patch_flow()
    x = images(3, 6, 5)
    for method in (prior.energy, prior.score):
        together = method(x)
        for k in range(3):
            torch.testing.assert_close(method(x[k : k + 1]), together[k : k + 1], rtol=1e-11, atol=1e-11)


def test_score_keeps_its_precision_under_autocast():
    prior = patch_flow(dtype=torch.float32)
    x = images(1, 6, 6).float()
    plain = prior.energy(x), prior.score(x)
    with torch.autocast("cpu", torch.bfloat16):
        cast = prior.energy(x), prior.score(x)
    for a, b in zip(plain, cast, strict=True):
        assert torch.equal(a, b)


def test_tiles_are_the_patches_row_by_row():
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    found = tiles(x, 2)
    assert found.shape == (8, 3, 2, 2)
    assert torch.equal(found[1], x[0, :, 0:2, 2:4])
    assert torch.equal(found[6], x[1, :, 2:4, 0:2])  # the last column, for which there is no room, is left out
    assert torch.equal(tiles(x, 3, 1)[4], x[0, :, 1:4, 1:4])


def test_patches_that_overlap_have_no_density_but_single_ones_do():
    prior = patch_flow()
    assert prior.capabilities == {"energy", "score"}
    assert not supports(prior, "log_prob")
    for name in ("log_prob", "decode"):
        with pytest.raises(UnsupportedError, match="PatchFlow has no"):
            getattr(prior, name)(images(1, 6, 6))
    assert prior.flow.sample(4).shape == (4, 3, 3, 3)


def test_prior_is_one_of_images_of_any_size_that_holds_a_patch():
    prior = patch_flow()
    assert prior.image_shape == (3, None, None)
    assert prior.sized(9, 4).image_shape == (3, 9, 4)
    x = images(1, 9, 4)
    assert torch.equal(prior.sized(9, 4).energy(x), prior.energy(x))
    for shape in ((1, 3, 2, 9), (1, 1, 9, 9), (3, 9, 9)):
        with pytest.raises(ValueError, match="this prior is one of \\(B, 3, H, W\\), H and W at least 3"):
            prior.energy(torch.rand(shape, dtype=torch.float64))


def test_config_and_weights_rebuild_the_prior():
    prior = patch_flow(patch=2, width=5, steps=3, blocks=2, spread=0.3)
    again = PatchFlow(**prior.config).double()
    again.load_state_dict(prior.state_dict())
    x = images(1, 4, 5)
    assert torch.equal(again.score(x), prior.score(x))
    assert again.spread == 0.3


def test_patch_of_one_pixel_is_refused():
    with pytest.raises(ValueError, match="patch is 1: give a whole number, at least 2"):
        PatchFlow(patch=1)

"""What a discriminator is shown: functions of the item alone, differentiable, of known laws."""

import pytest
import torch

from genprior.nets.gan import Discriminator
from genprior.noise import Noise
from genprior.priors.gan import GAN
from genprior.training.adversarial import DiscriminatorLoss, GeneratorLoss
from genprior.training.augmentation import GREY, cut_out, recoloured, shifted, varied


def noise(n, start=0, seed=0):
    return Noise(seed, torch.arange(start, start + n))


def test_shift_is_uniform_over_whole_pixels_and_grey_comes_in():
    """One bright pixel in the middle of 400 images of 16 x 16 goes to each of 5 rows and columns, 16 times each on
    average: within 5 standard deviations sqrt(400 / 25) = 4, that is by at most 20 from 16, and to no other."""
    x = torch.full((400, 1, 16, 16), GREY)
    x[:, :, 8, 8] = 1
    found = shifted(x, noise(400))
    assert torch.equal(found.sort().values.flatten(1).sum(1), x.flatten(1).sum(1))
    counts = (found > 0.9).sum((0, 1))
    assert counts.sum() == 400
    assert counts[6:11, 6:11].sum() == 400
    assert counts[6:11, 6:11].min() >= 1
    assert counts.max() <= 36
    frame = shifted(torch.zeros(400, 1, 16, 16), noise(400))
    assert frame.unique().tolist() == [0.0, GREY]


def test_hole_is_half_of_each_side_unless_the_edge_cuts_it():
    holes = (cut_out(torch.zeros(500, 2, 12, 8), noise(500)) == GREY).float()
    assert torch.equal(holes[:, 0], holes[:, 1])
    assert holes[:, 0].sum((1, 2)).max() == 5 * 3  # |place - middle| < 3 and < 2
    assert holes.mean((0, 1)).min() > 0.05  # no place is spared
    rows, columns = holes[:, 0].amax(2), holes[:, 0].amax(1)
    assert torch.equal(holes[:, 0], rows[:, :, None] * columns[:, None, :])


def test_colours_change_as_said():
    """Saturation and contrast leave the mean of an image, which brightness, uniform on ±1/2, moves; of 2,000 images the
    mean shift has a standard error of 1 / sqrt(12 2000) = 0.0065."""
    x = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)).expand(2000, -1, -1, -1)
    found = recoloured(x, noise(2000))
    moved = found.mean((1, 2, 3)) - x.mean((1, 2, 3))
    assert moved.abs().max() <= 0.5
    assert moved.mean().abs() < 5 * 0.0065
    assert moved.std() == pytest.approx(12**-0.5, rel=0.1)
    grey, before = found.mean(1, keepdim=True), x.mean(1, keepdim=True)
    contrast = grey.flatten(1).std(1) / before.flatten(1).std(1)
    colour = (found - grey).flatten(1).std(1) / (x - before).flatten(1).std(1) / contrast
    assert 0.5 < contrast.min() < 0.55 < 1.45 < contrast.max() < 1.5
    assert 0 < colour.min() < 0.05 < 1.95 < colour.max() < 2


def test_images_are_varied_by_their_own_items():
    x = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = varied(x, noise(6))
    torch.testing.assert_close(together[2:4], varied(x[2:4], noise(2, start=2)), rtol=0, atol=1e-12)
    assert (together - varied(x, noise(6, seed=1))).abs().max() > 0.1


def test_gradients_pass_through():
    """In all that is left in the frame; gradients of numbers, by float64 differences of 1e-6, to 1e-7."""
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: varied(x, noise(2)), x)
    (gradient,) = torch.autograd.grad(shifted(x, noise(2)).sum(), x)
    assert set(gradient.unique().tolist()) <= {0.0, 1.0}
    assert gradient.mean() > 0.5


def test_both_losses_are_of_varied_images():
    """With a discriminator of mean values, whose loss is then one of the means of what it was shown."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = GAN((3, 8, 8), latent=4, widths=(4, 4), hidden=4)
        discriminator = Discriminator((3, 8, 8), widths=(4, 4), hidden=4)
    batch = {"x": torch.rand(4, 3, 8, 8), "item": torch.arange(4)}
    shown = []

    def watched(x, noise):
        shown.append((x.detach(), varied(x, noise)))
        return shown[-1][1]

    plain = float(DiscriminatorLoss(prior, discriminator)(batch, 0)[0].detach())
    assert float(DiscriminatorLoss(prior, discriminator, augment=watched)(batch, 0)[0].detach()) != plain
    (real, _), (fake, _) = shown
    assert torch.equal(real, batch["x"])
    assert (fake - real).abs().max() > 0.01
    GeneratorLoss(prior, discriminator, augment=watched)(batch, 0)[0].backward()
    assert len(shown) == 3
    assert max(float(p.grad.abs().max()) for p in prior.parameters()) > 0

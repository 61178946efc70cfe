"""The flow: a density that integrates to 1, of which it draws samples, and an inverse that is one, in float32 too."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from genprior.priors.base import supports
from genprior.priors.flow import Flow

SHAPES = {
    "two scales, down to one pixel": {"image_shape": (1, 4, 4), "widths": (4, 6), "steps": (2, 2)},
    "odd sides, no squeeze": {"image_shape": (4, 3, 1), "widths": (4, 4), "steps": (2, 1)},
    "a vector": {"image_shape": (3, 2, 2), "widths": (5,), "steps": (3,)},
}


def flow(*, dtype=torch.float64, scale=0.1, seed=0, **arguments):
    """A flow begun with images, its parameters moved by random numbers, so that no part of it is the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = Flow(**({"image_shape": (1, 4, 4), "widths": (4, 6), "steps": (2, 2)} | arguments)).double()
        prior.initialise(images(prior, 200, seed=9))
        for parameter in prior.parameters():
            parameter.data += scale * torch.randn(parameter.shape, dtype=torch.float64)
    return prior.to(dtype).requires_grad_(False).eval()


def images(prior, n, seed=1, dtype=torch.float64):
    """Images in (0, 1), half of their pixels black."""
    uniform = torch.rand(2, n, *prior.image_shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(uniform[0] < 0.5, uniform[1] / 256, uniform[1]).to(dtype)


each_shape = pytest.mark.parametrize("shape", SHAPES)
each_map = pytest.mark.parametrize("pixels", ["linear", "logit", "ink"])


# ---- the map ----


@each_map
@each_shape
def test_logdet_equals_jacobian(shape, pixels):
    prior = flow(**SHAPES[shape], pixels=pixels)
    x = images(prior, 3)
    z, logdet = prior(x)
    assert z.shape == (3, *prior.latent_shape)
    for image, own in zip(x, logdet, strict=True):
        J = torch.autograd.functional.jacobian(lambda x: prior(x[None])[0].flatten(), image).reshape(len(z[0]), -1)
        # float64, and ndtri with its derivative good to 1e-10
        assert float(own) == pytest.approx(float(torch.linalg.slogdet(J).logabsdet), abs=1e-8)


@each_map
@each_shape
def test_inverse_undoes_the_map_in_float32(shape, pixels):
    """To 1e-5: of images, and of the draws of latents 5 standard deviations from the middle along every axis.

    Draws so far out have values up to 60 where nothing holds them to [0, 1]: there, relative to their size.
    """
    prior = flow(**SHAPES[shape], pixels=pixels, dtype=torch.float32)
    z = torch.randn(200, *prior.latent_shape, generator=torch.Generator().manual_seed(2))
    for x in (images(prior, 200, dtype=torch.float32), prior.decode(z), prior.decode(5 * z.sign())):
        assert x.isfinite().all()
        scale = x.abs().amax((1, 2, 3), keepdim=True).clamp_min(1)
        assert float(((prior.decode(prior.encode(x)) - x) / scale).abs().max()) < 1e-5


def test_latent_comes_back_in_float32():
    prior = flow(pixels="linear", dtype=torch.float32)
    z = torch.linspace(-5, 5, 64).reshape(4, 16)
    # a dozen layers, each of a condition of a few
    torch.testing.assert_close(prior.encode(prior.decode(z)), z, rtol=0, atol=1e-4)


def test_all_latents_of_all_scales_move_the_image():
    prior = flow(image_shape=(1, 4, 4), scale=0.1)
    z = torch.zeros(1, 16, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(lambda z: prior.decode(z).flatten(), z)[:, 0]
    assert torch.linalg.svdvals(J).min() > 1e-3
    assert J.abs().amax(0).min() > 1e-2


def test_half_of_each_scale_is_done():
    prior = Flow((1, 28, 28), widths=(4, 4, 4), steps=(1, 1, 1))
    assert prior.parts == [(2, 14, 14), (4, 7, 7), (4, 7, 7)]  # 7 is odd: its scale has no squeeze
    assert sum(math.prod(part) for part in prior.parts) == 784 == prior.latent_shape[0]


# ---- the density ----


def grid(low, high, n):
    """Midpoints of n x n cells of a square, (n^2, 2), and the area of one."""
    points = low + (torch.arange(n, dtype=torch.float64) + 0.5) * (high - low) / n
    return torch.cartesian_prod(points, points), ((high - low) / n) ** 2


def toy(**arguments):
    return flow(**({"image_shape": (2, 1, 1), "widths": (8,), "steps": (4,), "scale": 0.2} | arguments))


def toy_density(prior, points):
    return prior.log_prob(points.reshape(-1, 2, 1, 1)).exp()


def test_density_integrates_to_one():
    """The midpoint rule on a smooth density that has vanished at the border converges faster than any power of h."""
    prior = toy(pixels="linear")
    points, area = grid(-9, 10, 800)
    p = toy_density(prior, points)
    # What is outside: p falls at least as fast as a Gaussian of the width of the square, perimeter 4 x 19.
    border = (points - 0.5).abs().amax(1) > 9.4
    assert float(p[border].max()) * 4 * 19 * 9.5 < 3e-5
    assert float(p.sum() * area) == pytest.approx(1, abs=3e-5)
    assert float(p.max()) > 1


def test_density_on_unit_interval_integrates_to_one():
    """The same on the scale of the logit, where dx = (1 - 2 a)^-1 v (1 - v) dt, v = sigmoid(t)."""
    prior = toy(pixels="logit", scale=0.1)
    t, area = grid(-30, 30, 800)
    v = t.sigmoid()
    x = (v - 1e-5) / (1 - 2e-5)
    weight = (v * (1 - v) / (1 - 2e-5)).prod(1)
    assert float((toy_density(prior, x) * weight).sum() * area) == pytest.approx(1, abs=1e-5)


def test_samples_have_the_law_of_log_prob():
    """Chi-square of n draws in 25 cells against their probabilities by the midpoint rule: below 52.6 but once in 1000.

    The cells run between quintiles of each coordinate (of other draws); 24 degrees of freedom.
    """
    prior, n = toy(pixels="linear"), 40000
    x = prior.sample(n, seed=3).flatten(1)
    cuts = prior.sample(2000, seed=4).flatten(1).quantile(torch.tensor([0.2, 0.4, 0.6, 0.8]).double(), dim=0)

    def cells(points):
        a, b = (torch.bucketize(points[:, k].contiguous(), cuts[:, k].contiguous()) for k in (0, 1))
        return 5 * a + b

    points, area = grid(-9, 10, 1500)
    probability = torch.zeros(25, dtype=torch.float64).index_add(0, cells(points), toy_density(prior, points) * area)
    expected = n * probability
    count = torch.bincount(cells(x), minlength=25)
    # A cell's edge may cut the grid's cells: each of the 8 edges moves
    # at most, 1 % of those in the neighbouring columns; in the chi-square of 24 that is less than 10.
    assert float(((count - expected) ** 2 / expected).sum()) < 52.6 + 10
    assert float((x - x.mean(0)).prod(1).mean() / x.std(0).prod()) != pytest.approx(0, abs=0.02)  # not independent


def test_fresh_flow_is_the_gaussian_of_its_first_examples():
    """Couplings begin as the identity: with whitened channels, z is an affine map of x."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = Flow((3, 2, 2), widths=(8,), steps=(3,), pixels="linear").double()
    x = torch.rand(300, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(1)
    prior.initialise(x, whiten=True)
    flat = x.flatten(1)
    law = MultivariateNormal(flat.mean(0), torch.cov(flat.T, correction=0))
    torch.testing.assert_close(prior.log_prob(x), law.log_prob(flat), rtol=0, atol=1e-9)


def test_score_is_the_gradient_of_log_prob():
    """Against central differences: an error of h^2 times the third derivative, and of eps |ln p| / h, at h = 1e-5."""
    prior = flow(pixels="linear")
    x, h = images(prior, 2), 1e-5
    score = prior.score(x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = (prior.log_prob(x + h * direction) - prior.log_prob(x - h * direction)) / (2 * h)
    torch.testing.assert_close((score * direction).sum((1, 2, 3)), found, rtol=1e-5, atol=1e-5)
    assert not score.requires_grad
    assert torch.equal(prior.energy(x), -prior.log_prob(x))


@pytest.mark.parametrize("pixels", ["logit", "ink"])
def test_nothing_is_outside_of_unit_interval(pixels):
    prior = flow(pixels=pixels)
    x = images(prior, 4)
    x[1, 0, 2, 2] = -1e-3
    x[3, 0, 0, 0] = 1.001
    log_prob = prior.log_prob(x)
    assert log_prob.isneginf().tolist() == [False, True, False, True]
    assert log_prob[[0, 2]].isfinite().all()
    assert prior.score(x)[[0, 2]].isfinite().all()
    edges = torch.cat([torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)]).double()
    assert prior.log_prob(edges).isfinite().all()
    x = prior.sample(100)
    assert prior.log_prob(x).isfinite().all()


# ---- the rest of the interface ----


def test_rows_of_a_batch_do_not_see_each_other():
    prior = flow(pixels="ink")
    x = images(prior, 3)
    for method in (prior.log_prob, prior.score, prior.encode, lambda x: prior.decode(prior.encode(x))):
        together = method(x)
        for k in range(3):
            torch.testing.assert_close(method(x[k : k + 1]), together[k : k + 1], rtol=1e-12, atol=1e-12)


def test_draw_does_not_depend_on_their_number():
    prior = flow()
    torch.testing.assert_close(prior.sample(2, seed=5), prior.sample(5, seed=5)[:2], rtol=0, atol=1e-12)
    assert (prior.sample(2, seed=6) - prior.sample(2, seed=5)).abs().max() > 1e-3


def test_density_and_inverse_keep_their_precision_under_autocast():
    prior = flow(dtype=torch.float32)
    prior.autocast = torch.bfloat16
    x = images(prior, 3, dtype=torch.float32)
    z = prior.encode(x)
    plain = (prior.log_prob(x), prior.score(x), z, prior.decode(z))
    with torch.autocast("cpu", torch.bfloat16):
        cast = (prior.log_prob(x), prior.score(x), prior.encode(x), prior.decode(z))
        trained, logdet = prior(x)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    assert 1e-4 < (trained - z).abs().max() < 1  # in training the networks do follow it
    assert {trained.dtype, logdet.dtype} == {torch.float32}


def test_every_parameter_receives_a_gradient():
    for pixels in ("linear", "ink"):
        prior = flow(pixels=pixels, widths=(4, 4), steps=(2, 2), blocks=2).requires_grad_(True)
        prior.log_prob(images(prior, 3)).sum().backward()
        assert [key for key, p in prior.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_config_and_weights_rebuild_the_flow():
    prior = flow(image_shape=(2, 4, 2), widths=(4, 3), steps=(1, 2), blocks=0, bound=1.5, pixels="ink", spread=0.4)
    again = Flow(**prior.config).double()
    again.load_state_dict(prior.state_dict())
    x = images(prior, 2)
    assert torch.equal(again.log_prob(x), prior.log_prob(x))
    assert again.spread == 0.4
    assert again.decoder_variance == 0


def test_flow_has_what_a_flow_has():
    prior = flow()
    has = {name for name in ("sample", "log_prob", "energy", "score", "decode", "encode") if supports(prior, name)}
    assert prior.capabilities == has
    assert len(has) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (1, 4)}, "image_shape is (1, 4): give (C, H, W)"),
        ({"image_shape": (3, None, None)}, "image_shape is (3, None, None): give (C, H, W)"),
        ({"widths": (), "steps": ()}, "widths is (): give a list"),
        ({"steps": (2,)}, "steps is (2,): give as many whole numbers as widths"),
        ({"bound": 0}, "bound is 0: give a positive number"),
        ({"squeeze": 0}, "squeeze is 0"),
        ({"pixels": "log"}, "Unknown pixels 'log'; choose among ink, linear, logit. Did you mean 'logit'?"),
        ({"image_shape": (1, 3, 3)}, "needs at least 2 channels, but images of (1, 3, 3) have 1 at scale 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Flow(**({"image_shape": (1, 4, 4), "widths": (4, 6), "steps": (2, 2)} | arguments))
    assert message in str(error.value)


def test_images_and_latents_of_other_shapes_are_refused():
    prior = flow()
    for method in (prior.log_prob, prior.score, prior.encode):
        with pytest.raises(ValueError, match=r"1, 8, 8\) was given: this Flow takes \(B, 1, 4,"):
            method(torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"1, 4, 4\) was given: this Flow takes \(B, 16\)"):
        prior.decode(torch.rand(2, 1, 4, 4))

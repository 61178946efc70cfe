"""The layers of a flow: log-determinants against the Jacobian, inverses, what is fitted, what an autocast may touch."""

import math

import pytest
import torch

from genprior.nets.coupling import ActNorm, Coupling, Mixing, ResNet, Squeeze

EPS = torch.finfo(torch.float64).eps


def awake(layer, seed=0):
    """The layer in float64 with random parameters, so that what is zero at initialisation can be seen."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer.requires_grad_(False)


def build(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


LAYERS = {
    "squeeze": (lambda: Squeeze(2), (2, 4, 2)),
    "actnorm": (lambda: ActNorm(3), (3, 2, 2)),
    "mixing": (lambda: Mixing(3), (3, 2, 3)),
    "mixing of one pixel": (lambda: Mixing(5), (5, 1, 1)),
    "coupling": (lambda: Coupling(4, (3, 2), 6), (4, 3, 2)),
    "coupling of odd channels": (lambda: Coupling(3, (2, 2), 6, blocks=2), (3, 2, 2)),
    "coupling of one pixel": (lambda: Coupling(5, (1, 1), 6), (5, 1, 1)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def example(name, batch=3):
    make, shape = LAYERS[name]
    x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return awake(build(make)), x


@each_layer
def test_logdet_equals_jacobian(name):
    layer, x = example(name)
    for image, logdet in zip(x, layer(x)[1], strict=True):
        J = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0].flatten(), image).flatten(1)
        # LU of a matrix of at most 18 rows: rounding of some 18 eps per logarithm
        assert float(logdet) == pytest.approx(float(torch.linalg.slogdet(J).logabsdet), abs=18**2 * EPS)


@each_layer
def test_inverse_undoes_the_layer(name):
    layer, x = example(name)
    z, _ = layer(x)
    assert z.shape == x.shape or name == "squeeze"
    torch.testing.assert_close(layer.inverse(z), x, rtol=0, atol=1e-13)  # some 100 operations on numbers below 5


@each_layer
def test_rows_of_a_batch_do_not_see_each_other(name):
    layer, x = example(name)
    z, logdet = layer(x)
    for k in range(len(x)):
        alone, own = layer(x[k : k + 1])
        torch.testing.assert_close(alone, z[k : k + 1], rtol=0, atol=1e-13)
        torch.testing.assert_close(own, logdet[k : k + 1], rtol=0, atol=1e-13)


def test_coupling_is_the_identity_at_initialisation():
    x = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    z, logdet = build(lambda: Coupling(4, (2, 2), 8))(x)
    assert torch.equal(z, x)
    assert not logdet.any()


def test_scale_of_a_coupling_is_bounded_however_large_its_network():
    """A pixel is scaled by exp(-bound) at the least, so that the inverse stays finite."""
    coupling = awake(build(lambda: Coupling(2, (1, 1), 4, bound=0.7)))
    x = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    for sign in (-1, 1):
        coupling.net.tail.weight.zero_()
        coupling.net.tail.bias.copy_(torch.tensor([0, sign * 1e3]))
        assert float(coupling(x)[1]) == pytest.approx(-sign * 0.7, abs=1e-12)


def test_squeeze_takes_its_blocks_to_channels():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    z, _ = Squeeze(2)(x)
    assert z[0, :, 0, 0].tolist() == [0, 1, 4, 5]  # the upper left block
    assert z[0, :, 1, 1].tolist() == [10, 11, 14, 15]


def test_fitted_actnorm_normalises_and_fitted_mixing_whitens():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    x = torch.einsum("ij,bjhw->bihw", mix, torch.randn(50, 3, 4, 4, generator=generator, dtype=torch.float64)) + 5
    norm, mixing = ActNorm(3).double(), build(lambda: Mixing(3)).double()
    norm.fit(x)
    u = norm(x)[0]
    torch.testing.assert_close(u.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    mixing.fit(u)
    z = mixing(u)[0].transpose(0, 1).flatten(1)
    # The condition of these moments is below 1e3, and so is the loss in rounding.
    torch.testing.assert_close(z @ z.T / z.shape[1], torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-11)
    assert (u[:, 0] * u[:, 1]).mean().abs() > 0.1


def test_mixing_fitted_to_few_pixels_blows_up_nothing_that_they_do_not_show():
    """16 pixels of 108 channels that differ in 16 directions: others, which they do not have, are as likely not 0."""
    generator = torch.Generator().manual_seed(0)
    few, others = torch.randn(2, 16, 108, 1, 1, generator=generator, dtype=torch.float64)
    mixing = build(lambda: Mixing(108)).double()
    mixing.fit(few)
    shown, unseen = (float(mixing(x)[0].square().mean().sqrt()) for x in (few, others))
    assert unseen == pytest.approx(shown, rel=0.1)
    assert shown < 1


@pytest.mark.parametrize("size", [(2, 2), (1, 1)])
def test_autocast_reaches_the_network_of_a_coupling_and_nothing_else(size):
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    norm, mixing, coupling = (awake(build(make)).float() for make in (
        lambda: ActNorm(4), lambda: Mixing(4), lambda: Coupling(4, size, 8)
    ))  # fmt: skip
    for layer in (norm, mixing, coupling):
        plain = (*layer(x), layer.inverse(x))
        with torch.autocast("cpu", torch.bfloat16):
            cast = (*layer(x), layer.inverse(x))
        assert {t.dtype for t in cast} == {torch.float32}
        # bfloat16 has 8 bits: what it touches is off by 1e-3 at least
        assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True)) == (layer is not coupling)
        if layer is coupling:
            errors = [float((a - b).abs().max()) for a, b in zip(plain, cast, strict=True)]
            assert all(1e-4 < error < 0.2 for error in errors)


def test_network_tells_pixels_apart():
    """By its first bias: a constant image, away from the border that padding shows, gives another value at each."""
    net = awake(build(lambda: ResNet(1, 1, (12, 12), 4, 1)))
    inner = net(torch.ones(1, 1, 12, 12, dtype=torch.float64))[0, 0, 5:7, 5:7].flatten()
    assert torch.pdist(inner[:, None]).min() > 1e-3


def test_every_parameter_is_used():
    for name in LAYERS:
        layer, x = example(name)
        layer.requires_grad_(True)
        z, logdet = layer(x.requires_grad_())
        ((z * torch.linspace(0, 1, z.numel(), dtype=z.dtype).reshape(z.shape)).sum() + logdet.sum()).backward()
        unused = [key for key, p in layer.named_parameters() if p.grad is None or not p.grad.any()]
        assert unused == [], name


def test_mixing_begins_as_a_permutation():
    weight = build(lambda: Mixing(6)).weight.detach()
    assert torch.equal(weight @ weight.T, torch.eye(6))
    assert sorted(weight.flatten().tolist()) == [0.0] * 30 + [1.0] * 6
    assert math.isclose(float(torch.linalg.slogdet(weight).logabsdet), 0, abs_tol=1e-6)

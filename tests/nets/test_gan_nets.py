"""The networks of the adversarial prior and the classifier that judges it, with random weights, in float64."""

import pytest
import torch

from genprior.nets.classifier import Classifier, classify
from genprior.nets.gan import Block, Discriminator, Generator, variation

SHAPE = (2, 8, 12)


def random(build, seed=0, scale=0.2):
    """A network none of whose weights is 0, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build()
        for parameter in net.parameters():
            parameter.data.normal_(std=scale)
    return net.double()


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_block_is_the_identity_at_first_and_a_residual_later():
    h = normal(3, 4, 5, 6)
    assert torch.equal(Block(4).double()(h), h)
    block = random(lambda: Block(4))
    inner = torch.where(h > 0, h, 0.2 * h)
    inner = block.conv_in(inner)
    inner = torch.where(inner > 0, inner, 0.2 * inner)
    torch.testing.assert_close(block(h), h + block.conv_out(inner))
    assert (block(h) - h).abs().max() > 0.1


def test_generator_treats_every_latent_by_itself():
    net = random(lambda: Generator(SHAPE, latent=5, widths=(8, 4)))
    z = normal(4, 5)
    alone = torch.cat([net(row[None]) for row in z])
    assert alone.shape == (4, *SHAPE)
    # float64: each value is a sum of some hundred terms of order 1
    torch.testing.assert_close(net(z), alone, rtol=0, atol=1e-12)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


def test_every_latent_value_reaches_every_pixel():
    """The fully connected layers join all of z to all of x: no entry of the Jacobian is 0 everywhere."""
    net = random(lambda: Generator(SHAPE, latent=5, widths=(8, 4)))
    J = torch.autograd.functional.jacobian(lambda z: net(z[None])[0], normal(5))
    assert (J.abs() > 1e-12).all()


@pytest.mark.parametrize("widths", [(8,), (8, 6, 4)])
def test_networks_have_a_level_for_each_width(widths):
    """The coarsest has 1 / 2^L of the pixels of a side, and what it makes reaches the image, and back, the logit."""
    shape = (2, 16, 24)
    net = random(lambda: Generator(shape, latent=5, widths=widths))
    assert net.coarse_shape == (8, 16 // 2 ** len(widths), 24 // 2 ** len(widths))
    J = torch.autograd.functional.jacobian(lambda z: net(z[None])[0], normal(5))
    assert J.shape == (*shape, 5)
    assert (J.abs() > 1e-12).all()
    judge = random(lambda: Discriminator(shape, widths=widths[::-1], compare=False))
    gradient = torch.autograd.functional.jacobian(lambda x: judge(x[None])[0], normal(*shape))
    assert (gradient.abs() > 1e-12).all()


def test_generator_keeps_its_images_between_0_and_1():
    x = random(lambda: Generator(SHAPE, latent=5, widths=(8, 4)))(10 * normal(50, 5))
    assert ((x >= 0) & (x <= 1)).all()
    assert x.min() < 0.05 < 0.95 < x.max()


def test_first_images_and_logits_are_of_order_one():
    """He's weights keep the size of what passes: neither network starts saturated, at any depth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for blocks in (0, 4):
            x = Generator((1, 28, 28), blocks=blocks)(normal(64, 64).float())
            assert 0.02 < x.std() < 0.3
            logit = Discriminator((1, 28, 28), blocks=blocks)(x)
            assert logit.abs().max() < 10


def test_discriminator_without_comparison_treats_every_image_by_itself():
    net = random(lambda: Discriminator(SHAPE, widths=(4, 8), compare=False))
    x = normal(4, *SHAPE)
    alone = torch.cat([net(row[None]) for row in x])
    torch.testing.assert_close(net(x), alone, rtol=0, atol=1e-12)
    assert alone.std() > 1e-3


def test_discriminator_with_comparison_sees_that_images_are_alike():
    """The same image among copies of itself and among others: only what varies in the batch has changed."""
    net = random(lambda: Discriminator(SHAPE, widths=(4, 8)))
    x = normal(4, *SHAPE)
    copies = net(x[:1].expand(4, *SHAPE))
    torch.testing.assert_close(copies, net(x[:1]).expand(4), rtol=0, atol=1e-12)
    assert (net(x)[0] - copies[0]).abs() > 1e-3


def test_variation_is_the_mean_standard_deviation():
    h = normal(6, 3, 2, 2)
    assert float(variation(h)) == pytest.approx(float(h.std(0, correction=0).mean()), rel=1e-6)  # it is in float32
    # of equal rows it is the square root of what keeps its gradient finite
    equal = h[:1].repeat(6, 1, 1, 1).requires_grad_()
    least = variation(equal)
    least.backward()
    assert float(least.detach()) == pytest.approx(1e-4, rel=1e-3)
    assert equal.grad.isfinite().all()


def test_classifier_takes_the_features_to_the_logits_in_one_linear_layer():
    net = random(lambda: Classifier((1, 8, 8), classes=3, width=6))
    x = normal(7, 1, 8, 8)
    features, labels = classify(net, x, chunk=3)
    logits = features @ net.tail.weight.T + net.tail.bias
    torch.testing.assert_close(net(x), logits, rtol=0, atol=1e-12)
    assert torch.equal(labels, logits.argmax(1))
    assert features.shape == (7, 6)
    assert (features >= 0).all()

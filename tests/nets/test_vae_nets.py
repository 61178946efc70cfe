"""Encoders and decoders: blocks that begin as the identity, latents that begin informative, shifts, rows apart."""

import math

import pytest
import torch
from torch import nn

from genprior.nets.vae import LOG_SD, Block, Dense, flat_decoder, flat_encoder, spatial_decoder, spatial_encoder

SIZES = {"channels": 2, "latent": 3, "widths": (4, 6), "blocks": (1, 2)}
CELLS = {"cells": (2, 3)}


def build(make, **arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(**SIZES, **arguments).double().requires_grad_(False)


def awake(make, **arguments):
    """A network whose layers, zero at initialisation, are random, so that what reaches its output can be seen."""
    net = build(make, **arguments)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if not parameter.any():
            parameter.normal_(std=0.2, generator=generator)
    return net


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


NETS = [
    (spatial_encoder, {}, (2, 8, 12), (6, 2, 3)),
    (spatial_decoder, {}, (3, 2, 3), (2, 8, 12)),
    (flat_encoder, CELLS, (2, 8, 12), (6,)),
    (flat_decoder, CELLS, (3,), (2, 8, 12)),
    (flat_encoder, CELLS | {"skip": False}, (2, 8, 12), (6,)),
    (flat_decoder, CELLS | {"skip": False}, (3,), (2, 8, 12)),
]


@pytest.mark.parametrize(("make", "arguments", "shape", "wanted"), NETS)
def test_rows_of_a_batch_do_not_see_each_other(make, arguments, shape, wanted):
    """In training mode as in evaluation mode: there are no statistics of the batch."""
    net, x = awake(make, **arguments), random(3, *shape)
    together = net.train()(x)
    assert together.shape == (3, *wanted)
    for row in range(3):
        torch.testing.assert_close(net.eval()(x[row : row + 1]), together[row : row + 1], rtol=0, atol=1e-12)
    assert (together[0] - together[1]).abs().min() > 0


def test_block_is_the_identity_at_initialisation_and_dilation_is_how_far_it_sees():
    h = random(1, 4, 15, 15)
    for dilation in (1, 4):
        with torch.random.fork_rng(devices=[]):
            block = Block(4, dilation).double().requires_grad_(False)
        assert torch.equal(block(h), h)
        block.conv_out.weight.normal_(generator=torch.Generator().manual_seed(0))
        touched = h.clone()
        touched[..., 7, 7] += 1
        rows = (block(touched) != block(h)).any(dim=1)[0].any(dim=1).nonzero().flatten()
        assert (rows.min().item(), rows.max().item()) == (6 - dilation, 8 + dilation)  # conv_out sees one further


@pytest.mark.parametrize(("make", "arguments"), [(spatial_encoder, {}), (flat_encoder, CELLS)])
def test_latents_begin_with_the_given_log_sd(make, arguments):
    """The rest of it is what the last layer's random weights make of its input, which vanishes with them."""
    net = build(make, **arguments)
    net[-1].weight.zero_()
    mean, log_sd = net(random(2, 2, 8, 12)).chunk(2, dim=1)
    assert (log_sd == LOG_SD).all()
    assert mean.abs().max() <= 1 / math.sqrt(net[-1].weight[0].numel())  # its bias, uniform within this
    assert not torch.equal(mean, torch.zeros_like(mean))


def test_flat_pair_is_affine_without_what_lies_beside_its_linear_path():
    """Down to the features of each place: the decoder's last three layers, to pixels, begin with a SiLU."""
    for make, shape, last in ((flat_encoder, (2, 8, 12), None), (flat_decoder, (3,), -3)):
        net = build(make, **CELLS)
        for layer in net.modules():
            if isinstance(layer, Dense):
                layer.linear_out.weight.zero_()
        layers, x, h = net[:last], random(2, *shape), random(4, *shape)[2:]
        zero = torch.zeros_like(x)
        torch.testing.assert_close(layers(x + h) - layers(h), layers(x) - layers(zero), rtol=0, atol=1e-12)
        assert (layers(x) - layers(zero)).abs().min() > 0


def test_spatial_pair_commutes_with_shifts_by_whole_cells():
    """What makes it fully convolutional; away from the border, which zero padding tells apart."""
    encoder, decoder = awake(spatial_encoder), awake(spatial_decoder)
    x = random(1, 2, 128, 128)
    z, shifted = encoder(x), encoder(x.roll((8, -4), (2, 3)))
    # borders are seen by 1 + (2 + 3) + 1 cells at the coarsest level, and 3 of half the size at the finest
    interior = (..., slice(11, 21), slice(11, 21))
    torch.testing.assert_close(z.roll((2, -1), (2, 3))[interior], shifted[interior], rtol=0, atol=1e-12)
    assert z[interior].std() > 0.01

    z = random(1, 3, 32, 32)
    x, shifted = decoder(z), decoder(z.roll((2, -1), (2, 3)))
    interior = (..., slice(44, 84), slice(44, 84))
    torch.testing.assert_close(x.roll((8, -4), (2, 3))[interior], shifted[interior], rtol=0, atol=1e-12)
    assert x[interior].std() > 0.01


@pytest.mark.parametrize(("make", "arguments", "shape", "wanted"), NETS)
def test_every_input_reaches_the_output_and_every_parameter_too(make, arguments, shape, wanted):
    net = awake(make, **arguments).requires_grad_(True)
    x = random(2, *shape).requires_grad_()
    net(x).square().sum().backward()
    assert (x.grad != 0).all()
    assert all((parameter.grad != 0).any() for parameter in net.parameters())


def test_one_level_needs_no_change_of_resolution():
    with torch.random.fork_rng(devices=[]):
        net = spatial_encoder(1, 2, (4,), (0,))
    assert not any(isinstance(layer, nn.Conv2d) and layer.stride != (1, 1) for layer in net)
    assert net(torch.zeros(1, 1, 4, 6)).shape == (1, 4, 2, 3)

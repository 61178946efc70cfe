"""DPIR's own choice of its weight: small where data steps let little noise into the image."""

import dataclasses

import pytest
import torch

import genprior
from genprior.noise import Noise
from genprior.operators import Blur, Measurement, SuperResolution
from genprior.operators.blur import gaussian_kernel, motion_kernel
from genprior.samplers import DPIR
from genprior.samplers.annealing.dpir import calm_weight

SHAPE = (3, 48, 48)


def white(A, n):
    return Noise(0, [0] * n)(torch.empty(n, *A.measurement_shape))


@pytest.mark.parametrize(
    ("A", "weight"),
    [
        (SuperResolution(4, SHAPE), 0.1),
        (Blur(gaussian_kernel(2.0), SHAPE, "circular"), 0.1),
        (Blur(gaussian_kernel(0.8), SHAPE, "circular"), 0.2),
        (Blur(motion_kernel(15, 30.0), SHAPE, "circular"), 0.2),
    ],
)
def test_weight_is_small_where_little_noise_comes_in(A, weight):
    assert calm_weight(A, white(A, 2)).flatten().tolist() == pytest.approx([weight] * 2)


def test_each_image_of_a_batch_has_its_own_weight():
    """A wide and a narrow blur: each image comes out as it does by itself, and as with that weight given."""
    prior = genprior.load_prior("gaussian-photo")
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    kernels = torch.stack([gaussian_kernel(width, 15) for width in (2.0, 0.8)])
    both = genprior.degrade(x, Blur(kernels, SHAPE, "circular"), noise=0.02, seed=0)
    sampler = DPIR(steps=3)
    together = sampler(prior, both, Noise(0, [0, 1]))
    for i, weight in enumerate((0.1, 0.2)):
        given = dataclasses.replace(sampler, weight=weight)
        alone = given(prior, both.select(torch.tensor([i])), Noise(0, [i]))
        assert (together[i] - alone[0]).abs().max() < 1e-5


def test_noise_of_each_image_may_be_of_another_precision():
    noise = torch.tensor([0.05, 0.1], dtype=torch.float64).view(2, 1, 1, 1)
    A = SuperResolution(2, SHAPE)
    m = Measurement(torch.full((2, *A.measurement_shape), 0.5), A, noise)
    assert DPIR(steps=2, grain=0.7)(genprior.load_prior("ddpm-photo"), m, Noise(0, [0, 1])).isfinite().all()


def test_grain_keeps_a_network_of_photographs_from_inventing_detail():
    """Of hard stripes, 2 x 2 pixels averaged: without noise in what it sees, ddpm-photo makes a picture of noise."""
    rows = torch.arange(96) // 8 % 2
    x = (0.1 + 0.8 * rows.float())[None, None, :, None].expand(1, 3, 96, 96)
    m = genprior.degrade(x, "super-resolution", noise=0.025, seed=0, scale=2)
    prior = genprior.load_prior("ddpm-photo").sized(96, 96)
    without, with_grain = (
        float((DPIR(turns=True, grain=grain)(prior, m, Noise(0, [0])) - x).square().mean().sqrt())
        for grain in (0.0, 0.7)
    )
    assert with_grain < 0.05 < 0.2 < without

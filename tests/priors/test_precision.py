"""Priors in half precision, and compiled or otherwise wrapped."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import genprior
from genprior.nets.wrapped import on_one_device, plain_state, unwrapped
from genprior.priors.base import supports
from genprior.priors.wrappers.tiled import Tiled
from genprior.record import of_prior

SHAPE = (1, 28, 28)
NAMES = ("ddpm-mnist", "gan-mnist", "gaussian-mnist", "ldm-mnist", "nf-mnist", "vae-mnist")


def answer(prior, x):
    """Of the first of its methods: an image, or a number for each."""
    prior = (prior.given(3) if prior.classes and prior.labelled else prior).sized(*SHAPE[1:])
    if supports(prior, "log_prob"):
        return prior.log_prob(x)
    if supports(prior, "denoise"):
        return prior.denoise(x, 0.3)
    latent = torch.linspace(-1, 1, len(x)).reshape(-1, *[1] * len(prior.latent_shape))
    return (prior.render if supports(prior, "render") else prior.decode)(latent.expand(-1, *prior.latent_shape))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_prior_of_half_precision_keeps_its_weights_and_tables(name, dtype):
    """Only networks compute in it, where rounding is no matter; densities come out as they were, to the last bit.

    Rounding to 8 binary digits in some 20 layers, 20 * 2^-9 of half a unit on average, four times that at most.
    """
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    prior, half = genprior.load_prior(name), genprior.load_prior(name)
    prior.autocast = None
    assert half.to(dtype) is half
    assert half.autocast == dtype
    assert all(torch.equal(a, b) for a, b in zip(prior.state_dict().values(), half.state_dict().values()))
    with torch.no_grad():
        wanted, found = answer(prior, x), answer(half, x)
    assert found.dtype == torch.float32
    exact = supports(prior, "log_prob")
    torch.testing.assert_close(found, wanted, rtol=0, atol=0 if exact else 4 * 0.5 * 20 * 2.0**-9)


def test_wrappers_of_priors_pass_half_precision_on():
    inner = genprior.load_prior("ddpm-photo")
    inner.autocast = None
    assert Tiled(inner, 256).bfloat16().autocast == torch.bfloat16
    assert inner.autocast == torch.bfloat16
    assert inner.double().autocast == torch.bfloat16
    assert next(inner.parameters()).dtype == torch.float64


def wrappings(prior):
    prior.net = torch.compile(nn.DataParallel(prior.net), backend="eager")
    return torch.compile(prior, backend="eager")


def test_prior_with_compiled_network_is_stored_as_without(tmp_path):
    prior = genprior.load_prior("ddpm-mnist")
    names = set(prior.state_dict())
    record = of_prior(prior)
    wrapped = wrappings(prior)
    assert set(prior.state_dict()) != names
    assert set(plain_state(prior)) == names
    assert of_prior(prior) == record
    genprior.save_prior(wrapped, tmp_path / "mine")
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = genprior.load_prior(tmp_path / "mine").denoise(x, 0.3)
    torch.testing.assert_close(found, genprior.load_prior("ddpm-mnist").denoise(x, 0.3))


def test_wrappers_are_taken_off():
    net = nn.Linear(2, 2)
    fast = torch.compile(net, backend="eager")
    assert unwrapped(torch.compile(nn.DataParallel(fast), backend="eager")) is net
    assert unwrapped(AveragedModel(net)).weight.equal(net.weight)
    assert on_one_device(nn.DataParallel(fast)) is fast
    assert on_one_device(nn.DataParallel(net)) is net

    class Own(nn.Module):  # what merely has a network of that name does something with it
        def __init__(self):
            super().__init__()
            self.module = net

    own = Own()
    assert unwrapped(own) is own
    assert unwrapped(abs) is abs

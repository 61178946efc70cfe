"""Weights that are kept in half precision compute as the same weights in float32 do, to the last bit."""

import copy

import pytest
import torch
from torch import nn

from genprior.nets.adm import ADMUNet
from genprior.nets.channels_last import reorder
from genprior.nets.kept import computing, half_of

CPU = torch.device("cpu")


@pytest.fixture(params=[torch.float16, torch.bfloat16], ids=str)
def networks(request):
    """A network kept in half precision, with labels, and one of the same weights in float32."""
    network = ADMUNet(base=32, widths=(32, 64), attention=(1,), head_channels=32, classes=3).requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(std=0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    kept = network.to(request.param)
    return kept, copy.deepcopy(kept).float()


def given(size=8):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, size, size, generator=generator), torch.tensor([3.0, 700.5]), torch.tensor([0, 2])


def test_answers_and_gradients_are_those_of_float32_weights(networks):
    answers, gradients = [], []
    for network in networks:
        x, t, label = given()
        x.requires_grad_()
        with computing(network, CPU, None):
            answer = network(x, t, label)
        answers.append(answer.detach())
        gradients.append(torch.autograd.grad(answer.square().sum(), x)[0])
    assert answers[0].dtype == torch.float32
    assert torch.equal(*answers)
    assert torch.equal(*gradients)


def test_weights_stay_as_they_are_and_are_seen_so_outside(networks):
    kept, _ = networks
    dtype, before = half_of(kept), {name: p.data_ptr() for name, p in kept.named_parameters()}
    with computing(kept, CPU, None):
        kept(*given())
        assert next(kept.parameters()).dtype == torch.float32
    assert dtype in (torch.float16, torch.bfloat16)
    assert all(p.dtype == dtype for p in kept.parameters())
    assert {name: p.data_ptr() for name, p in kept.named_parameters()} == before


def test_precision_that_is_asked_for_is_that_of_autocast(networks):
    kept, full = networks
    answers = []
    for network in (kept, full):
        with computing(network, CPU, torch.bfloat16):
            answers.append(network(*given()))
    assert torch.equal(*answers)
    with computing(full, CPU, None):
        exact = full(*given())
    assert not torch.equal(answers[0].float(), exact)


def test_network_in_float32_has_no_half():
    assert half_of(nn.Linear(2, 2)) is None


def test_weights_are_ordered_channels_last_where_they_lie():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 1), nn.Conv2d(5, 1, 3), nn.BatchNorm2d(1))
    wanted = copy.deepcopy(network).to(memory_format=torch.channels_last)
    before = [t.data_ptr() for t in network.state_dict().values()]
    reorder(network)
    for (name, found), exact in zip(network.state_dict().items(), wanted.state_dict().values()):
        assert torch.equal(found, exact), name
        assert found.is_contiguous(memory_format=torch.channels_last) or found.ndim != 4
    assert [t.data_ptr() for t in network.state_dict().values()] == before
    x = torch.rand(2, 3, 9, 9)
    assert torch.equal(network(x), wanted(x))

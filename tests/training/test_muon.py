"""Muon: its steps, what it leaves to AdamW, and that a run with it resumes exactly."""

import pytest
import torch
from torch import nn

from genprior.nets.unet import Block
from genprior.priors.ddpm import DDPM
from genprior.training import muon
from genprior.training.loop import Settings, train
from genprior.training.muon import Muon, is_hidden_kernel, orthogonal
from genprior.training.objectives import NoisePrediction


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(48, 200), (200, 48), (64, 64)])
def test_orthogonal_has_the_directions_of_a_matrix_and_singular_values_about_one(shape):
    U, _, Vt = torch.linalg.svd(normal(*shape), full_matrices=False)
    G = U @ torch.diag(torch.logspace(0, -2, min(shape))) @ Vt
    found = U.T @ orthogonal(G) @ Vt.T
    assert ((found.diagonal() > 0.6) & (found.diagonal() < 1.3)).all()
    # float32, in which a direction of .01 gathers the rounding of the others, at 1e-4 of its square
    assert (found - torch.diag(found.diagonal())).abs().max() < 3e-3
    assert orthogonal(torch.zeros(shape)).abs().max() == 0


def test_kernels_between_layers_are_its_own_and_nothing_else():
    prior = DDPM((3, None, None))
    names = {name for name, p in prior.named_parameters() if is_hidden_kernel(p)}
    blocks = sum(isinstance(module, Block) for module in prior.modules())
    assert "net.head.weight" in names  # 64 x 108
    assert not {name for name in names if "tail" in name or "modulation" in name or "embed" in name or "bias" in name}
    assert sum("conv_in" in name for name in names) == sum("conv_out" in name for name in names) == blocks


def test_step_is_that_of_the_formula_and_adamw_s_for_the_rest():
    kernel, linear = nn.Conv2d(32, 48, 3, bias=False), nn.Linear(40, 40)
    weight, grad = kernel.weight.detach().clone(), normal(*kernel.weight.shape)
    others = [p.detach().clone().requires_grad_() for p in linear.parameters()]
    ours = Muon([*kernel.parameters(), *linear.parameters()], lr=0.01, weight_decay=0.1)
    theirs = torch.optim.AdamW(others, lr=0.01, weight_decay=0.1)
    momentum = torch.zeros_like(grad)
    for step in range(3):
        kernel.weight.grad = grad.clone()
        for p, other in zip(linear.parameters(), others):
            p.grad = normal(*p.shape, seed=step)
            other.grad = p.grad.clone()
        ours.step()
        theirs.step()
        momentum = 0.95 * momentum + 0.05 * grad
        direction = orthogonal((0.05 * grad + 0.95 * momentum).flatten(1)).view_as(grad)
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * 0.2 * 288**0.5 * direction
    torch.testing.assert_close(kernel.weight.detach(), weight, rtol=1e-3, atol=1e-4)
    for p, other in zip(linear.parameters(), others):
        assert torch.equal(p, other)
    # rms of a step, of 48 orthogonal rows in 288 columns: .2 of the learning rate, the size of AdamW's
    moved = 0.01 * 0.2 * 288**0.5 * direction
    assert abs(float(moved.square().mean().sqrt()) / (0.01 * 0.2) - 1) < 0.2


def test_interrupted_run_resumes_to_the_same_weights_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(muon, "SMALLEST", 8)

    class Images(torch.utils.data.Dataset):
        def __init__(self, stop=10**9):
            self.stop = stop

        def __len__(self):
            return 12

        def __getitem__(self, item):
            if item >= self.stop:
                raise InterruptedError("power cut")
            return {"x": normal(1, 8, 8, seed=item % 12).sigmoid(), "item": item}

    def weights(out, data, optimizer="muon"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            prior = DDPM((1, 8, 8), widths=(8, 8), patch=1, blocks=1)
        settings = Settings(steps=8, batch=4, lr=1e-2, warmup=2, ema=0.9, save_every=3, optimizer=optimizer)
        found = train(prior, [NoisePrediction(prior)], data, settings, out, progress=False)
        return torch.cat([t.flatten() for t in found.state_dict().values()])

    straight = weights(tmp_path / "straight", Images())
    with pytest.raises(InterruptedError):
        weights(tmp_path / "cut", Images(stop=5 * 4))
    assert torch.equal(weights(tmp_path / "cut", Images()), straight)
    assert not torch.equal(weights(tmp_path / "other", Images(), "adamw"), straight)
    with pytest.raises(ValueError, match="optimizer"):
        weights(tmp_path / "cut", Images(), "adamw")


def test_other_optimizers_are_refused_by_name():
    with pytest.raises(ValueError, match='optimizer is \'sgd\': give "adamw" or "muon"'):
        Settings(steps=1, optimizer="sgd")

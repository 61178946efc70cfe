"""Checkpoints are complete or not there, and restore everything."""

import pytest
import torch
from torch import nn

from genprior.training import checkpoint

SETTINGS = {"lr": 0.1}


def network(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)


def adam(module):
    return torch.optim.AdamW(module.parameters(), lr=0.1)


def train(module, optimizer, steps):
    for step in range(steps):
        x = torch.linspace(-1, 1 + step, 2 * 3 * 5 * 5).reshape(2, 3, 5, 5)
        (module(x) - x.mean()).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def save(folder, step):
    module = network(0)
    checkpoint.save(folder / f"step-{step:07d}", step, SETTINGS, {"net": module}, [adam(module)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_load_restores_modules_optimiser_and_step(tmp_path):
    module = network(0)
    optimizer = adam(module)
    train(module, optimizer, 3)
    checkpoint.save(tmp_path / "step-3", 3, SETTINGS, {"net": module}, [optimizer])
    other = network(1)
    fresh = adam(other)
    assert checkpoint.load(tmp_path / "step-3", {"net": other}, [fresh]) == 3
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values()))
    train(module, optimizer, 2)
    train(other, fresh, 2)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values()))


def test_progress_is_the_step_and_the_settings(tmp_path):
    save(tmp_path, 7)
    assert checkpoint.progress(tmp_path / "step-0000007") == (7, SETTINGS)
    (tmp_path / "step-0000007" / "state.json").write_text('{"step": 7}')
    with pytest.raises(ValueError, match="step-0000007 does not say its settings"):
        checkpoint.progress(tmp_path / "step-0000007")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(8)), r"net/0.bias has the shape \(8,\), not \(4,\)"),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), r"net/1.bias has the shape \(8,\), not None"),
        (nn.Sequential(nn.Identity(), nn.BatchNorm2d(8), nn.PReLU()), "net/0.bias has the shape .* not None"),
    ],
)
def test_checkpoint_of_another_network_is_refused_and_changes_nothing(tmp_path, other, message):
    save(tmp_path, 7)
    before = {key: t.clone() for key, t in other.state_dict().items()}
    with pytest.raises(ValueError, match=rf"step-0000007 is of another network: its {message}"):
        checkpoint.load(tmp_path / "step-0000007", {"net": other}, [])
    assert all(torch.equal(t, before[key]) for key, t in other.state_dict().items())


def test_load_lays_the_moments_out_like_their_weights(tmp_path):
    module = network(0)
    optimizer = adam(module)
    train(module, optimizer, 1)
    checkpoint.save(tmp_path / "step-1", 1, SETTINGS, {"net": module}, [optimizer])
    fresh = adam(module)
    checkpoint.load(tmp_path / "step-1", {"net": module}, [fresh])
    for parameter in module.parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            assert fresh.state[parameter][key].stride() == parameter.stride()
            assert torch.equal(fresh.state[parameter][key], optimizer.state[parameter][key])


def test_latest_ignores_what_is_half_written(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    save(tmp_path, 9)
    save(tmp_path, 10)
    save(tmp_path, 12)
    (tmp_path / "step-0000012" / "state.json").unlink()
    (tmp_path / ".step-0000014.123.tmp").mkdir()
    (tmp_path / ".step-0000014.123.tmp" / "state.json").write_text('{"step": 14}')
    assert checkpoint.latest(tmp_path).name == "step-0000010"


def test_half_written_folder_is_replaced_by_a_whole_one(tmp_path):
    (tmp_path / "step-0000005").mkdir()
    (tmp_path / "step-0000005" / "state.safetensors").write_bytes(b"half")
    save(tmp_path, 5)
    assert checkpoint.load(checkpoint.latest(tmp_path), {"net": network(1)}, []) == 5
    assert names(tmp_path) == ["step-0000005"]


def test_failed_writing_leaves_the_old_folder(tmp_path):
    def fail(folder):
        (folder / "weights").write_text("new, half")
        raise OSError("disk full")

    checkpoint.write_folder(tmp_path / "prior", lambda folder: (folder / "weights").write_text("old"))
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write_folder(tmp_path / "prior", fail)
    assert (tmp_path / "prior" / "weights").read_text() == "old"
    checkpoint.write_folder(tmp_path / "prior", lambda folder: (folder / "weights").write_text("new"))
    assert (tmp_path / "prior" / "weights").read_text() == "new"
    assert names(tmp_path) == ["prior"]


def test_prune_keeps_the_newest_complete_ones(tmp_path):
    for step in (8, 9, 10, 11):
        save(tmp_path, step)
    (tmp_path / "step-0000011" / "state.json").unlink()
    (tmp_path / ".step-0000010.123.tmp").mkdir()
    (tmp_path / "notes.tmp").mkdir()
    checkpoint.prune(tmp_path, keep=2)
    assert names(tmp_path) == ["notes.tmp", "step-0000009", "step-0000010", "step-0000011"]

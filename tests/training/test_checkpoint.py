"""Checkpoints are complete or not there, restore everything, and are not believed when they are damaged."""

import errno
import json
import os
import warnings

import pytest
import torch
from torch import nn

from genprior.files import write_folder
from genprior.training import checkpoint

STATE = {"settings": {"lr": 0.1}, "validations": [[2, 0.5]], "data": None}


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
    checkpoint.save(checkpoint.path_of(folder, step), STATE | {"step": step}, {"net": module}, [adam(module)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_load_restores_modules_optimiser_and_step(tmp_path):
    module = network(0)
    optimizer = adam(module)
    train(module, optimizer, 3)
    checkpoint.save(tmp_path / "step-3", STATE, {"net": module}, [optimizer])
    other = network(1)
    fresh = adam(other)
    checkpoint.load(tmp_path / "step-3", {"net": other}, [fresh])
    assert checkpoint.read_state(tmp_path / "step-3") == STATE
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values()))
    train(module, optimizer, 2)
    train(other, fresh, 2)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values()))


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
    checkpoint.save(tmp_path / "step-1", STATE, {"net": module}, [optimizer])
    fresh = adam(module)
    checkpoint.load(tmp_path / "step-1", {"net": module}, [fresh])
    for parameter in module.parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            assert fresh.state[parameter][key].stride() == parameter.stride()
            assert torch.equal(fresh.state[parameter][key], optimizer.state[parameter][key])


# ---- damage ----


def cut(folder):
    """A file that the file system lost the end of."""
    os.truncate(folder / "state.safetensors", (folder / "state.safetensors").stat().st_size // 2)


def flip(folder):
    """One bit of a weight: of the right length, and loadable."""
    data = bytearray((folder / "state.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "state.safetensors").write_bytes(data)


DAMAGES = {
    "cut": (cut, "state.safetensors changed since it was written"),
    "flipped": (flip, "state.safetensors changed since it was written"),
    "weights gone": (lambda folder: (folder / "state.safetensors").unlink(), "No such file"),
    "state gone": (lambda folder: (folder / "state.json").unlink(), "No such file"),
    "mark gone": (lambda folder: (folder / "complete.json").unlink(), "No such file"),
    "state not json": (lambda folder: (folder / "state.json").write_text("{"), "state.json changed"),
    "mark not json": (lambda folder: (folder / "complete.json").write_text("{"), "Expecting"),
    "mark another thing": (lambda folder: (folder / "complete.json").write_text("[]"), "no attribute"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_latest_falls_back_from_a_damaged_checkpoint_and_says_so(tmp_path, kind):
    make, reason = DAMAGES[kind]
    for step in (8, 12, 16):
        save(tmp_path, step)
    for step in (12, 16):
        make(checkpoint.path_of(tmp_path, step))
    with pytest.warns(UserWarning, match="training goes on from step-0000008") as warned:
        assert checkpoint.latest(tmp_path).name == "step-0000008"
    assert len(warned) == 2
    for step, warning in zip((16, 12), warned):
        text = str(warning.message)
        assert f"step-00000{step} is damaged" in text
        assert reason in text
        assert f"is now called damaged-step-00000{step}, and training goes on from step-0000008" in text
    assert names(tmp_path) == ["damaged-step-0000012", "damaged-step-0000016", "step-0000008"]


def test_what_was_saved_is_not_damaged(tmp_path):
    save(tmp_path, 8)
    assert checkpoint.damage(checkpoint.path_of(tmp_path, 8)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.latest(tmp_path) == checkpoint.path_of(tmp_path, 8)


def test_nothing_but_damage_is_an_error_that_touches_nothing(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    save(tmp_path, 8)
    cut(checkpoint.path_of(tmp_path, 8))
    with pytest.raises(
        ValueError, match=r"Every checkpoint in .* is damaged \(step-0000008: state.safetensors changed"
    ):
        checkpoint.latest(tmp_path)
    assert names(tmp_path) == ["step-0000008"]


def test_damaged_best_checkpoint_is_not_loaded(tmp_path):
    save(tmp_path, 8)
    cut(checkpoint.path_of(tmp_path, 8))
    with pytest.raises(ValueError, match="the best, is damaged"):
        checkpoint.load_sound(checkpoint.path_of(tmp_path, 8), {"net": network(0)}, [])


def test_latest_ignores_what_is_half_written(tmp_path):
    save(tmp_path, 9)
    save(tmp_path, 10)
    (tmp_path / ".step-0000014.123.tmp").mkdir()
    (tmp_path / ".step-0000014.123.tmp" / "state.json").write_text('{"step": 14}')
    (tmp_path / "step-notes").mkdir()
    assert checkpoint.latest(tmp_path).name == "step-0000010"


# ---- writing ----


def test_half_written_folder_is_replaced_by_a_whole_one(tmp_path):
    (tmp_path / "step-0000005").mkdir()
    (tmp_path / "step-0000005" / "state.safetensors").write_bytes(b"half")
    save(tmp_path, 5)
    assert checkpoint.damage(tmp_path / "step-0000005") is None
    assert names(tmp_path) == ["step-0000005"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_writing_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    def fail(folder):
        (folder / "weights").write_text("new, half")
        raise error

    write_folder(tmp_path / "prior", lambda folder: (folder / "weights").write_text("old"))
    with pytest.raises(type(error)):
        write_folder(tmp_path / "prior", fail)
    assert (tmp_path / "prior" / "weights").read_text() == "old"
    assert names(tmp_path) == ["prior"]
    write_folder(tmp_path / "prior", lambda folder: (folder / "weights").write_text("new"))
    assert (tmp_path / "prior" / "weights").read_text() == "new"
    assert names(tmp_path) == ["prior"]


def test_everything_is_on_disk_before_it_gets_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    """What a power cut could undo must come in this order: files, their folder, the new name, the folder above."""
    events, fsync, replace = [], os.fsync, os.replace

    def noted(handle):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(f"-> {b.name}"), replace(a, b)))
    save(tmp_path, 5)
    files = ["complete.json", "state.json", "state.safetensors"]
    assert sorted(events[:3]) == files
    assert events[3].startswith(".step-0000005.")
    assert events[4:] == ["-> step-0000005", tmp_path.name]
    assert set(json.loads((tmp_path / "step-0000005" / "complete.json").read_text())) == set(files[1:])


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    for step in (6, 7, 8, 9, 10):
        save(tmp_path, step)
    (tmp_path / ".step-0000010.123.tmp").mkdir()
    (tmp_path / ".prior.123.tmp").mkdir()
    (tmp_path / "notes.tmp").mkdir()
    checkpoint.prune(tmp_path, keep=2, best=7)
    assert names(tmp_path) == ["notes.tmp", "step-0000007", "step-0000009", "step-0000010"]
    checkpoint.prune(tmp_path, keep=1)
    assert names(tmp_path) == ["notes.tmp", "step-0000010"]


def test_checkpoint_half_removed_by_a_kill_is_no_checkpoint(tmp_path, monkeypatch):
    for step in (8, 9):
        save(tmp_path, step)

    def killed(path):
        (path / "state.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.prune(tmp_path, keep=1)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-0000009"]
    checkpoint.prune(tmp_path, keep=1)
    assert names(tmp_path) == ["step-0000009"]

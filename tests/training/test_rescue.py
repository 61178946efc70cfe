"""What only looks at a training never ends it; what does end it leaves the last whole step, from which it goes on."""

import json
import multiprocessing
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker
from PIL import Image
from torch.utils.data import Dataset

from genprior import images
from genprior.cli import main
from genprior.nets.gan import Discriminator
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_card, read_prior
from genprior.priors.gan import GAN
from genprior.priors.store import find_prior
from genprior.training import checkpoint
from genprior.training.adversarial import DiscriminatorLoss, GeneratorLoss
from genprior.training.data import Photos
from genprior.training.loop import Settings, train
from genprior.training.objectives import NoisePrediction

STEPS, BATCH = 6, 4


class Noises(Dataset):
    """Twelve random images; `event` is called when item `at` is asked for."""

    def __init__(self, at=-1, event=None):
        self.at, self.event = at, event

    def __len__(self):
        return 12

    def __getitem__(self, item):
        if item == self.at:
            self.event()
        x = np.random.default_rng((5, item % 12)).random((1, 4, 4))
        return {"x": torch.from_numpy(x).float(), "item": item}


def diffusion():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = DDPM((1, 4, 4), widths=(8,), patch=1, blocks=1, steps=10)
    return prior, [NoisePrediction(prior)]


def run(out, data=None, *, pair=None, arguments=None, **settings):
    """Six steps, saved at the end only."""
    prior, objectives = pair or diffusion()
    chosen = {"steps": STEPS, "batch": BATCH, "lr": 1e-3, "warmup": 2, "log_every": 1, "save_every": 100} | settings
    return train(prior, objectives, data or Noises(), Settings(**chosen), out, progress=False, **(arguments or {}))


def weights(prior):
    return torch.cat([t.flatten() for t in prior.state_dict().values()])


def checkpoints(out):
    return sorted(path.name for path in out.glob("*step-*"))


def logged(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return weights(run(tmp_path_factory.mktemp("straight")))


# ---- what only looks ----


def fail(*_):
    raise RuntimeError("not today")


class Broken(GeneralTracker):
    """A tracker whose server is gone."""

    name, requires_logging_directory, tracker = "broken", False, None

    def store_init_configuration(self, values):
        pass

    def log(self, values, step, **_):
        fail()

    def finish(self):
        fail()


class BrokenData(Noises):
    def __getitem__(self, item):
        fail()


LOOKING = {
    "a sheet that cannot be drawn": ({"preview": fail}, "preview failed at step 4 .*not today"),
    "draws that are not finite": (
        {"preview": lambda prior: torch.full((4, 1, 4, 4), float("nan"))},
        "preview failed at step 4 .*training goes on",
    ),
    "a measure": ({"measure": fail}, "measure failed at step 4 .*RuntimeError: not today"),
    "images to validate by that are gone": ({"validation": BrokenData()}, "validation failed at step 4 .*not today"),
}


@pytest.mark.parametrize("name", LOOKING)
def test_what_only_looks_warns_and_training_goes_on(name, tmp_path, straight):
    arguments, words = LOOKING[name]
    with pytest.warns(UserWarning, match=words):
        result = run(tmp_path, arguments=arguments, validate_every=4)
    assert torch.equal(weights(result), straight)
    assert read_card(tmp_path / "prior")["steps"] == STEPS


def test_a_tracker_that_fails_warns_and_training_goes_on(tmp_path, straight):
    with pytest.warns(UserWarning, match="log_with failed at step 3 .*not today"):
        result = run(tmp_path, arguments={"log_with": [Broken()]})
    assert torch.equal(weights(result), straight)
    assert [entry["step"] for entry in logged(tmp_path) if "loss" in entry] == [1, 2, 3, 4, 5, 6]


def test_looks_come_after_the_save(tmp_path):
    """Else what kills a process while it draws, as too little memory does, would take the steps before with it."""
    found = []

    def look(prior):
        found.append(checkpoints(tmp_path))
        return {"number": 0.0}

    run(tmp_path, arguments={"measure": look}, validate_every=3, save_every=3)
    assert found == [["step-0000003"], ["step-0000003", "step-0000006"]]


def test_validation_that_decides_ends_a_training_that_is_saved_before(tmp_path):
    with pytest.raises(RuntimeError, match="not today"):
        run(tmp_path, arguments={"validation": BrokenData()}, validate_every=4, patience=1)
    assert checkpoints(tmp_path) == ["step-0000004"]


@pytest.mark.parametrize(
    ("channels", "shape"), [(1, (1, 22, 22)), (2, (1, 16, 22)), (3, (3, 22, 22)), (4, (1, 22, 22))]
)
def test_images_of_any_number_of_channels_are_drawn(channels, shape):
    """Of 4 x 4 pixels, 2 apart; channels of an image side by side, as grey as they are."""
    x = torch.rand(16 if channels in (1, 3) else 6 if channels == 2 else 4, channels, 4, 4)
    sheet = images.drawn(x)
    assert sheet.shape == shape
    assert torch.equal(sheet[:, :4, :4], x[0] if channels in (1, 3) else x[0, :1])
    if channels not in (1, 3):
        assert torch.equal(sheet[0, :4, 6:10], x[0, 1])


@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_other_channels_are_trained_and_drawn(channels, tmp_path):
    shape = (6, 8, 8, channels)
    np.savez(tmp_path / "a.npz", train_images=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    out = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        command = ["train", "vae", "--data", tmp_path / "a.npz", "--out", out, "--steps", 2, "--batch", 2]
        assert main([*map(str, command)]) == 0
    # 16 draws, so many to a row that the sheet is about as wide as high
    across = {2: 3, 4: 2}[channels]
    with Image.open(out / "samples-0000002.png") as sheet:
        assert sheet.size == (10 * channels * across - 2, 10 * -(-16 // across) - 2)


# ---- what does end it ----


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_vanishes_loses_no_step(workers, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for k in range(12):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "photos" / f"{k:02}.png")
    monkeypatch.setattr("genprior.training.data.photos.DECODED_BYTES", 0)  # each is read again when it is needed

    def photos():
        return Photos(tmp_path / "photos", 4, channels=1)

    expected = weights(run(tmp_path / "straight", photos()))

    class Vanishing(Photos):
        def __getitem__(self, item):
            if item == 4 * BATCH:
                os.rename(tmp_path / "photos", tmp_path / "gone")
            return super().__getitem__(item)

    with pytest.raises(FileNotFoundError) as failed:
        run(tmp_path / "run", Vanishing(tmp_path / "photos", 4, channels=1), workers=workers)
    # While the traceback still holds what loaded the data, as that of an error that nobody caught would at the exit.
    assert failed.tb
    assert multiprocessing.active_children() == []
    assert checkpoints(tmp_path / "run") == ["step-0000004"]
    os.rename(tmp_path / "gone", tmp_path / "photos")
    assert torch.equal(weights(run(tmp_path / "run", photos())), expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_log_that_is_full_loses_no_step(tmp_path, straight):
    def fill():
        (tmp_path / "log.jsonl").unlink()
        (tmp_path / "log.jsonl").symlink_to("/dev/full")

    with pytest.raises(OSError, match=r"disk .* is full"):
        run(tmp_path, Noises(at=3 * BATCH, event=fill))
    assert checkpoints(tmp_path) == ["step-0000004"]  # the step that could not be logged is whole
    (tmp_path / "log.jsonl").unlink()
    assert torch.equal(weights(run(tmp_path)), straight)


def test_step_of_which_half_was_made_is_not_saved(tmp_path):
    """The discriminator has made its fourth step when the generator meets an error."""

    def pair(until):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            prior = GAN((1, 4, 4), latent=3, widths=(4, 4), hidden=8)
            discriminator = Discriminator((1, 4, 4), widths=(4, 4), hidden=8)

        class Generator(GeneratorLoss):
            def forward(self, batch, step):
                if step == until:
                    fail()
                return super().forward(batch, step)

        return prior, [DiscriminatorLoss(prior, discriminator), Generator(prior, discriminator)]

    expected = weights(run(tmp_path / "straight", pair=pair(None)))
    with pytest.raises(RuntimeError, match="not today"):
        run(tmp_path / "run", pair=pair(3), save_every=2)
    assert checkpoints(tmp_path / "run") == ["step-0000002"]
    assert torch.equal(weights(run(tmp_path / "run", pair=pair(None))), expected)


def test_training_that_diverged_is_not_saved(tmp_path):
    class NotFinite(Noises):
        def __getitem__(self, item):
            if item == 4 * BATCH:
                fail()
            example = super().__getitem__(item)
            return example if item < 2 * BATCH else {**example, "x": example["x"] * float("nan")}

    with pytest.raises(RuntimeError, match="not today"):
        run(tmp_path, NotFinite(), log_every=100)
    assert checkpoints(tmp_path) == []


def test_every_entry_of_the_log_is_on_disk_when_it_is_made(tmp_path, monkeypatch):
    sizes, fsync, log = [], os.fsync, tmp_path / "log.jsonl"

    def noted(handle):
        fsync(handle)
        if log.exists() and os.path.samestat(os.fstat(handle), os.stat(log)):
            sizes.append(os.fstat(handle).st_size)

    monkeypatch.setattr(os, "fsync", noted)
    run(tmp_path, arguments={"measure": lambda prior: {"number": 1.0}}, validate_every=3)
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == STEPS + 2
    assert sizes == np.cumsum([len(line) for line in lines]).tolist()


# ---- a run that was stopped is a prior ----


def test_run_that_was_stopped_is_a_prior(tmp_path, straight):
    with pytest.raises(RuntimeError, match="not today"):
        run(tmp_path, Noises(at=4 * BATCH, event=fail), save_every=2)
    assert find_prior(tmp_path) == tmp_path / "step-0000004"
    state = checkpoint.read_state(tmp_path / "step-0000004")
    assert state["step"] == read_card(tmp_path / "step-0000004")["steps"] == 4
    resumed = run(tmp_path)
    assert find_prior(tmp_path) == tmp_path / "prior"  # of as many steps as the last checkpoint, and finished
    assert torch.equal(weights(read_prior(find_prior(tmp_path))), weights(resumed))
    assert torch.equal(weights(resumed), straight)


def test_what_is_half_written_is_no_prior_of_a_run(tmp_path):
    run(tmp_path, save_every=2, keep=3, steps=5)
    shutil.rmtree(tmp_path / "prior")
    (tmp_path / "step-0000005" / "complete.json").unlink()
    assert find_prior(tmp_path) == tmp_path / "step-0000004"
    assert find_prior(tmp_path / "step-0000002") == tmp_path / "step-0000002"


def test_run_is_given_to_the_command_line(tmp_path, capsys):
    run(tmp_path / "run")
    assert main(["sample", "--prior", str(tmp_path / "run"), "--n", "2", "-o", str(tmp_path / "a.png")]) == 0
    assert main(["priors", str(tmp_path / "run")]) == 0
    assert f'"steps": {STEPS}' in capsys.readouterr().out

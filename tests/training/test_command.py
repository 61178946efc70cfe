"""`genprior train`: its flags, what it says before and while it trains, and how it stops."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from genprior.cli import main
from genprior.priors import hub
from genprior.priors.folder import read_card
from genprior.priors.store import load_prior
from genprior.training.flags import add_flags, stated
from genprior.training.settings import Settings


@pytest.fixture
def npz(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", train_images=images)
    return tmp_path / "data.npz"


def genprior(*arguments):
    return main([str(a) for a in arguments])


def train(npz, out, *options):
    return genprior("train", "vae", "--data", npz, "--out", out, "--batch", 4, "--steps", 2, *options)


def resolved(npz, capfd, *options):
    assert train(npz, npz.parent / "run", "--dry-run", *options) == 0
    return json.loads(capfd.readouterr().out)


def test_every_setting_says_what_it_is():
    for field in fields(Settings):
        assert set(field.metadata) == {"kind", "text", "flags", "free"}, field.name
        assert f"{field.name}: {field.metadata['text']}." in Settings.__doc__


def test_every_setting_of_a_recipe_is_set_from_the_command_line_and_the_others_stay():
    before = Settings(
        steps=9, minutes=0.5, batch=6, lr=0.1, warmup=1, decay=0.1, weight_decay=0.1, betas=(0.1, 0.2), clip=0.1,
        ema=0.1, accumulate=3, auto_batch=True, precision="bf16", compile=True, seed=8, log_every=8, validate_every=8,
        save_every=8, keep=8, patience=8, workers=8,
    )  # fmt: skip
    parser = argparse.ArgumentParser()
    add_flags(parser, before)
    assert replace(before, **stated(parser.parse_args([]))) == before
    for name, value in asdict(Settings(steps=7)).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words = [flag.replace("--", "--no-", 1)]
        else:
            words = [flag, *map(str, value if name == "betas" else [value])]
        words = [word.replace("None", "none") for word in words]
        assert replace(before, **stated(parser.parse_args(words))) == replace(before, **{name: value}), name
    assert "(default: 0.1)" in parser.format_help()


def test_dry_run_says_what_the_run_then_does_and_does_nothing(npz, capfd):
    promised = resolved(npz, capfd, "--lr", 2e-3, "--betas", 0.5, 0.9, "--validation", npz)
    assert not (npz.parent / "run").exists()
    assert promised["data"] == {"path": str(npz), "images": 12}
    assert promised["settings"]["lr"] == 2e-3
    assert promised["settings"]["warmup"] == Settings(steps=1).warmup
    assert train(npz, npz.parent / "run", "--lr", 2e-3, "--betas", 0.5, 0.9, "--validation", npz) == 0
    prior = npz.parent / "run" / "prior"
    assert read_card(prior)["settings"] == promised["settings"]
    assert json.loads((prior / "config.json").read_text())["arguments"] == promised["prior"]["arguments"]
    err = capfd.readouterr().err
    assert f"{promised['parameters']:,} trained" in err


@pytest.mark.parametrize(("size", "least", "most"), [(28, 0, 10**6), (64, 6 * 10**6, 7 * 10**6)])
def test_network_of_a_folder_is_sized_by_its_crops_where_they_are_small(tmp_path, capfd, size, least, most):
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(3):
        Image.fromarray(np.full((64, 64), 40 * k, np.uint8)).save(photos / f"{k}.png")
    options = ["--size", size, "--channels", 1, "--out", tmp_path / "run", "--dry-run"]
    assert genprior("train", "ddpm", "--data", photos, *options) == 0
    assert least < json.loads(capfd.readouterr().out)["parameters"] < most


@pytest.mark.parametrize(
    ("ours", "theirs", "value"),
    [
        ("--batch", "--train-batch-size", 6),
        ("--lr", "--learning-rate", 1e-4),
        ("--accumulate", "--gradient-accumulation-steps", 2),
        ("--precision", "--mixed-precision", "bf16"),
        ("--save-every", "--checkpointing-steps", 7),
        ("--keep", "--checkpoints-total-limit", 3),
        ("--workers", "--dataloader-num-workers", 1),
        ("--steps", "--max-train-steps", 9),
        ("--warmup", "--lr-warmup-steps", 4),
        ("--clip", "--max-grad-norm", 0.5),
        ("--ema", "--ema-decay", 0.9),
        ("--size", "--resolution", 8),
    ],
)
def test_flags_of_other_trainers_mean_the_same(npz, capfd, ours, theirs, value):
    assert resolved(npz, capfd, ours, value) == resolved(npz, capfd, theirs, value)
    if ours != "--size":  # which is for folders
        assert value in resolved(npz, capfd, ours, value)["settings"].values()


def test_output_dir_is_out(npz, capfd):
    arguments = ["train", "vae", "--train-data-dir", npz, "--output-dir", npz.parent / "elsewhere", "--dry-run"]
    assert genprior(*arguments) == 0
    assert json.loads(capfd.readouterr().out)["out"] == str(npz.parent / "elsewhere")


def test_banner_and_log_say_what_is_trained(npz, tmp_path, capfd):
    assert train(npz, tmp_path / "run", "--validation", npz, "--accumulate", 2, "--precision", "no") == 0
    err = capfd.readouterr().err
    for words in (
        "12, and 12 held out",
        "4 = 1 process(es) x 2 micro-batch(es) x 2",
        "0 to 2, 0.667 epochs",
        "float32",
    ):
        assert words in err
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    last = {key: value for entry in entries for key, value in entry.items()}
    assert {
        "step",
        "loss",
        "lr",
        "seconds",
        "items per second",
        "gradient",
        "validation",
        "reconstruction PSNR",
    } <= set(last)
    assert 0 < last["reconstruction PSNR"] < 60


def test_resume_never_refuses_a_folder_with_checkpoints(npz, tmp_path, capfd):
    assert train(npz, tmp_path / "run", "--resume-from-checkpoint", "never") == 0
    assert train(npz, tmp_path / "run", "--resume-from-checkpoint", "latest") == 0
    assert train(npz, tmp_path / "run", "--resume-from-checkpoint", "never") == 1
    assert "has checkpoints: give another --out" in capfd.readouterr().err


def test_missing_tracker_is_one_line(npz, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert train(npz, tmp_path / "run", "--log-with", "trackio") == 1
    assert "genprior: The tracker trackio is not installed: pip install trackio" in capfd.readouterr().err


def test_result_is_pushed_where_it_is_told(npz, tmp_path, monkeypatch, capfd):
    pushed = []
    monkeypatch.setattr(hub, "push_to_hub", lambda *given: pushed.append(given) or "https://there")
    assert train(npz, tmp_path / "run", "--push-to-hub", "me/digits") == 0
    assert pushed == [(tmp_path / "run" / "prior", "me/digits")]
    assert "https://there" in capfd.readouterr().out


def test_name_that_cannot_be_pushed_to_is_refused_before_training(npz, tmp_path, capfd):
    assert train(npz, tmp_path / "run", "--push-to-hub", "digits") == 1
    assert "genprior: The name of a repository is 'digits': give owner/name." in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_too_little_memory_is_one_line(npz, tmp_path, capfd, monkeypatch):
    from genprior.training.bound import EvidenceBound

    forward = EvidenceBound.forward

    def small(self, batch, step):
        if len(batch["x"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, batch, step)

    monkeypatch.setattr(EvidenceBound, "forward", small)
    assert train(npz, tmp_path / "run") == 1
    err = capfd.readouterr().err
    assert "genprior: out of memory: 4 images at once do not fit into memory, 2 do: train with accumulate=2" in err
    assert train(npz, tmp_path / "run", "--auto-batch") == 0


def test_compiled_networks_keep_the_names_of_their_weights(npz, tmp_path, monkeypatch):
    compiled, compile_in_place = [], nn.Module.compile

    def eagerly(self):
        compiled.append(type(self).__name__)
        compile_in_place(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", eagerly)
    assert train(npz, tmp_path / "compiled", "--compile", "--precision", "no") == 0
    assert compiled == ["EvidenceBound"]
    assert train(npz, tmp_path / "plain", "--precision", "no") == 0
    ours, theirs = (load_file(tmp_path / name / "prior" / "model.safetensors") for name in ("plain", "compiled"))
    assert set(ours) == set(theirs)
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_whole_group_saves_and_ends_with_130(npz, tmp_path, number):
    """As a terminal's Ctrl-C does, which reaches the processes that load data too."""
    command = [sys.executable, "-m", "genprior", "train", "vae", "--data", npz, "--out", tmp_path / "run"]
    command += ["--steps", 100000, "--batch", 4, "--log-every", 1, "--workers", 1]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        list(map(str, command)),
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # as in the foreground
        stderr=subprocess.PIPE,
        text=True,
    )
    log, until = tmp_path / "run" / "log.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 2) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    (saved,) = (tmp_path / "run").glob("step-*")
    assert f"genprior: stopped at step {int(saved.name[5:])}, which is saved in" in err


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys\nfrom genprior.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    assert all(f"--{name.replace('_', '-')}" in told for name in asdict(Settings(steps=1)))


def test_diffusion_is_trained_by_the_objective_asked_for_and_by_no_other_when_resumed(npz, tmp_path, capfd):
    given = ["train", "ddpm", "--data", npz, "--batch", 4, "--steps", 2, "--out", tmp_path / "flow"]
    assert genprior(*given, "--objective", "flow-matching") == 0
    folder = tmp_path / "flow" / "prior"
    assert json.loads((folder / "config.json").read_text())["arguments"]["prediction"] == "velocity"
    assert read_card(folder)["objectives"] == ["FlowMatching"]
    trained = load_prior(folder)
    assert trained.sample(1, steps=2).isfinite().all()
    assert genprior(*given) != 0
    assert "was trained by FlowMatching, not by Denoising" in capfd.readouterr().err
    assert genprior(*given[:-1], tmp_path / "other") == 0
    assert read_card(tmp_path / "other" / "prior")["objectives"] == ["Denoising"]


def test_held_out_images_of_another_shape_or_with_unknown_labels_are_refused_before_training(npz, tmp_path, capfd):
    images = np.load(npz)["train_images"]
    for name, x, labels in (("data", images, 2), ("larger", images.repeat(2, axis=1), 2), ("more", images, 3)):
        np.savez(tmp_path / f"{name}.npz", train_images=x, y=np.arange(12) % labels)
    for name, message in (("larger", "the shape (1, 16, 8), the others (1, 8, 8)"), ("more", "the label 2")):
        validation = ["--validation", tmp_path / f"{name}.npz"]
        assert train(tmp_path / "data.npz", tmp_path / "run", "--labels", "y", *validation) == 1
        assert message in capfd.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_run_in_its_data_is_refused(npz, tmp_path, capfd):
    for option in (["--data", tmp_path], ["--data", npz, "--validation", tmp_path]):
        assert genprior("train", "vae", *option, "--size", 8, "--steps", 1, "--out", tmp_path / "run") == 1
        assert f"lies in {option[-2]} {tmp_path}" in capfd.readouterr().err
        assert not (tmp_path / "run").exists()


def test_labels_that_do_not_count_from_0_are_refused(npz, tmp_path, capfd):
    np.savez(tmp_path / "data.npz", train_images=np.load(npz)["train_images"], y=np.arange(12) + 10**6)
    assert train(tmp_path / "data.npz", tmp_path / "run", "--labels", "y") == 1
    assert "12 images have one of 1000011: use 0, 1, 2, …" in capfd.readouterr().err
    np.savez(tmp_path / "none.npz", train_images=np.load(npz)["train_images"], y=np.full(12, -1))
    assert train(tmp_path / "none.npz", tmp_path / "run", "--labels", "y") == 1
    assert "Labels count from 0, and one is -1" in capfd.readouterr().err


def test_objective_of_another_family_is_refused(npz, tmp_path, capfd):
    assert train(npz, tmp_path / "run", "--objective", "flow-matching") != 0
    assert "of all families only a ddpm has several" in capfd.readouterr().err

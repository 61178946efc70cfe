"""The recipes of flowers run and do what they say, at toy size: coloured discs in the place of flowers."""

import json
import re

import numpy as np
import pytest
import torch

from genprior.priors.folder import read_card, read_prior
from genprior.training.quality import held_out_and_seen

CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


@pytest.fixture
def flowers(tmp_path):
    """60 discs of 16 x 16, of a colour for each class."""
    rng = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.uint8) % len(CLASSES)
    colours = rng.integers(60, 256, (len(CLASSES), 3))
    rows, columns = np.mgrid[:16, :16]
    x = rng.integers(0, 60, (60, 16, 16, 3))
    for k, label in enumerate(labels):
        row, column = rng.integers(5, 11, 2)
        x[k][(rows - row) ** 2 + (columns - column) ** 2 < 20] = colours[label] + rng.integers(-20, 1, 3)
    x = x.clip(0, 255).astype(np.uint8)
    parts = {"train_images": x[:45], "train_labels": labels[:45], "test_images": x[45:], "test_labels": labels[45:]}
    np.savez(tmp_path / "flowers.npz", **parts, classes=np.array(CLASSES))
    return tmp_path / "flowers.npz"


def quick(flowers, out, *more):
    return ["--data", flowers, "--validation-share", 0.2, "--out", out, "--steps", 2, "--batch", 4, *more]


def measured(out) -> dict:
    """All that the last validation logged."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {key: value for line in lines if line["step"] == lines[-1]["step"] for key, value in line.items()}


def test_diffusion_of_flowers_is_trained_with_the_names_of_its_classes(run, flowers, tmp_path):
    run("train_ddpm_flowers", *quick(flowers, tmp_path / "run"))
    prior, card = read_prior(tmp_path / "run" / "prior"), read_card(tmp_path / "run" / "prior")
    assert prior.image_shape == (3, 16, 16)
    assert prior.class_names == CLASSES
    assert prior.sample(1, label="tulips", steps=2).shape == (1, 3, 16, 16)
    assert card["steps"] == 2
    assert card["licence"] == "CC BY-SA 4.0"
    found = measured(tmp_path / "run")
    assert {f"denoising PSNR at {s}, {which}" for s in (0.1, 0.5, 1.5) for which in ("held out", "trained on")} <= set(
        found
    )
    assert "validation" in found


def test_diffusion_of_flowers_goes_on_from_another(run, flowers, tmp_path):
    run("train_ddpm_flowers", *quick(flowers, tmp_path / "first"))
    again = quick(flowers, tmp_path / "second", "--start", tmp_path / "first" / "prior", "--lr", 0)
    run("train_ddpm_flowers", *again)
    first, second = (read_prior(tmp_path / name / "prior").state_dict() for name in ("first", "second"))
    assert all(bool((first[key] == second[key]).all()) for key in first if key.startswith("net."))
    assert read_card(tmp_path / "second" / "prior")["started from"] == str(tmp_path / "first" / "prior")


@pytest.mark.parametrize(
    ("family", "figure"), [("vae", "bits per value"), ("nf", "bits per value"), ("gan", "reconstruction PSNR")]
)
def test_flower_prior_is_trained(run, flowers, tmp_path, family, figure):
    run(f"train_{family}_flowers", *quick(flowers, tmp_path))
    prior, card = read_prior(tmp_path / "prior"), read_card(tmp_path / "prior")
    assert prior.image_shape == (3, 16, 16)
    assert json.loads((tmp_path / "prior" / "config.json").read_text())["family"] == family
    assert card["steps"] == 2
    assert {f"{figure}, held out", f"{figure}, trained on"} <= set(measured(tmp_path))


def test_latent_diffusion_of_flowers_is_trained_in_two_stages(run, flowers, tmp_path):
    """The autoencoder of the second is that of the first."""
    run("train_ldm_flowers", *quick(flowers, tmp_path, "--vae-steps", 2))
    prior, vae = read_prior(tmp_path / "ldm" / "prior"), read_prior(tmp_path / "vae" / "prior")
    assert all(bool((t == vae.state_dict()[key]).all()) for key, t in prior.vae.state_dict().items())
    assert "reconstruction PSNR, held out" in measured(tmp_path / "vae")
    assert "bits per value, trained on" in measured(tmp_path / "ldm")


def test_gaussian_of_flowers_spends_fewer_bits_than_independent_pixels(run, flowers, tmp_path):
    bits = {}
    for form in ("stationary", "diagonal"):
        given = ["--data", flowers, "--validation-share", 0.2, "--out", tmp_path / form, "--covariance", form]
        bits[form] = float(re.search(r"bits per value, held out: ([\d.]+)", run("fit_gaussian_flowers", *given))[1])
        assert read_prior(tmp_path / form / "prior").image_shape == (3, 16, 16)
    assert bits["stationary"] < bits["diagonal"] < 9


def test_memorising_is_told_by_what_is_trained_on():
    found = held_out_and_seen(lambda x: {"sum": float(x.sum())}, torch.ones(2), torch.ones(5))
    assert found == {"sum, held out": 2.0, "sum, trained on": 5.0}

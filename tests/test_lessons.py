"""The course's lessons on conditional models, on the smallest input that shows them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from genprior import images
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_prior, write_prior

RECIPES = Path(__file__).parent.parent / "recipes"


def small(folder, prior):
    folder.mkdir()
    write_prior(prior, folder, {})
    return folder


@pytest.fixture
def digits(tmp_path):
    """Twice as many images as recipes keep for validation: class k is a bar in column k or 15 + k, half of the time."""
    labels = np.arange(400) % 10
    few = np.zeros((400, 28, 28), np.uint8)
    for k, (image, label) in enumerate(zip(few, labels)):
        image[:, label + 15 * (k // 10 % 2)] = 255
    np.savez_compressed(tmp_path / "digits.npz", train_images=few, train_labels=labels)
    return tmp_path / "digits.npz"


def test_regressor_asked_for_a_digit_draws_the_average(run, digits, tmp_path):
    prior = small(tmp_path / "prior", DDPM((1, 28, 28), widths=(8, 8), blocks=1, classes=10, steps=3))
    out = run(
        "lesson_average_digit",
        *("--data", digits, "--prior", prior, "--steps", 300, "--n", 2, "--out", tmp_path / "figure.png"),
    )
    # a blind regressor is 0.13 away: two columns of 28 are 1/2
    assert float(re.search(r"is ([\d.]+) \(root", out)[1]) < 0.02
    data_share, own = map(float, re.search(r"Grey values: ([\d.]+) of the data, ([\d.]+)", out).groups())
    assert data_share == 0
    assert own == pytest.approx(2 / 28, abs=0.01)  # the average of two black-and-white bars is two grey ones
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.fixture
def photos(tmp_path):
    x = torch.from_numpy(data.astronaut().copy()).movedim(-1, 0).float() / 255
    for i in range(2):
        images.save(x[:, 60 * i : 60 * i + 136, 150:300], tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def test_colours_are_drawn_and_averaged(run, photos, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        posterior = LearnedPosterior(
            (3, None, None), operator={"name": "Colorize"}, noise=(0.0, 0.02), widths=(8, 8), blocks=1
        )
    folder = small(tmp_path / "posterior", posterior)
    out = run(
        "lesson_brown",
        *("--data", photos, "--posterior", folder, "--photos", 2, "--size", 16, "--n", 2, "--steps", 3),
        *("--out", tmp_path / "brown.png"),
    )
    found = dict(re.findall(r"\| ([a-z ]+) \| ([\d.]+) \|", out))
    assert set(found) == {"photographs", "regressor", "draws", "mean of draws"}
    assert float(found["draws"]) > float(found["mean of draws"]) > 0
    assert images.read(tmp_path / "brown.png").x.shape == (1, 3, 2 * 18 - 2, 5 * 18 - 2)


def test_colour_posterior_is_trained_from_the_photo_prior(run, photos, tmp_path):
    out = tmp_path / "run"
    run("train_colorize_photo", "--data", photos, "--out", out, "--size", 16, "--steps", 1, "--batch", 1)
    posterior = read_prior(out / "prior")
    assert posterior.operator == {"name": "Colorize"}
    assert len(list((out / "small").rglob("*.png"))) == 2


@pytest.mark.parametrize("task", ["super-resolution", "inpaint"])
def test_digit_posterior_is_trained(run, tmp_path, task):
    few = np.zeros((55008, 28, 28), np.uint8)
    few[:, 8:20, 8:12] = 200
    np.savez_compressed(tmp_path / "digits.npz", train_images=few)
    out = tmp_path / "run"
    run(
        "train_amortized_mnist",
        "--data",
        tmp_path / "digits.npz",
        "--task",
        task,
        "--out",
        out,
        *("--steps", 1, "--batch", 2),
    )
    assert read_prior(out / "prior").operator["name"] == {"inpaint": "Inpaint"}.get(task, "SuperResolution")

"""Labels on the command line: training with them, drawing and restoring with one."""

import numpy as np
import pytest

from genprior import images
from genprior.cli import main
from genprior.priors.folder import read_prior


@pytest.fixture
def digits(tmp_path):
    labels = np.array([0, 1, 1, 1] * 8)
    few = np.zeros((32, 8, 8), np.uint8)
    few[labels == 1, 2:6, 2:6] = 220
    few[labels == 0, 1:3] = 150
    np.savez(tmp_path / "digits.npz", train_images=few, train_labels=labels)
    return tmp_path / "digits.npz"


@pytest.mark.parametrize("family", ["vae", "nf", "gan"])
def test_labels_go_from_training_to_restoration(family, digits, tmp_path, capsys):
    run = tmp_path / "run"
    train = ["train", family, "--data", digits, "--labels", "train_labels", "--out", run, "--steps", 2, "--batch", 4]
    assert main([*map(str, train)]) == 0
    prior = read_prior(run / "prior")
    assert prior.classes == 2
    assert prior.class_weights.tolist() == [0.25, 0.75]

    sheets = []
    for label in (0, 1):
        sheet = tmp_path / f"{label}.png"
        assert main([*map(str, ["sample", "--prior", run / "prior", "--n", 2, "--label", label, "-o", sheet])]) == 0
        sheets.append(images.read(sheet).x)
    wanted = images.grid(prior.given(1).sample(2, seed=0))
    assert (sheets[1][0] - wanted).abs().max() <= 0.51 / 255

    images.save(prior.given(1).sample(1)[0].clamp(0, 1), tmp_path / "y.png")
    restore = ["restore", tmp_path / "y.png", "--op", "denoise", "--noise", 0.1, "--prior", run / "prior", "--steps", 4]
    assert main([*map(str, [*restore, "--label", 1, "-o", tmp_path / "x.png"])]) == 0
    assert images.read(tmp_path / "x.png").x.shape == (1, 1, 8, 8)
    capsys.readouterr()
    assert main([*map(str, [*restore, "--label", 7, "-o", tmp_path / "none.png"])]) == 1
    assert "There is no label 7: this prior has 2 classes, counted from 0" in capsys.readouterr().err

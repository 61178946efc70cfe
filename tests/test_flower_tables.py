"""The recipes that evaluate priors of flowers run and say what they say, on untrained networks and coloured discs."""

import re

import numpy as np
import pytest
import torch

from genprior import images
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import save_prior
from genprior.priors.gan import GAN
from genprior.priors.vae import VAE

CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


@pytest.fixture(params=[64])
def side(request):
    """Of the images in pixels."""
    return request.param


@pytest.fixture
def flowers(tmp_path, side):
    """Discs, 40 and 10, of a colour for each class."""
    rng = np.random.default_rng(0)
    labels = np.arange(50, dtype=np.uint8) % len(CLASSES)
    rows, columns = np.mgrid[:side, :side]
    x = rng.integers(0, 60, (50, side, side, 3))
    for k, label in enumerate(labels):
        row, column = rng.integers(3 * side // 8, 5 * side // 8, 2)
        x[k][(rows - row) ** 2 + (columns - column) ** 2 < side**2 / 13] = 40 * (
            1 + np.array([label, 4 - label, label % 2])
        )
    x = x.astype(np.uint8)
    parts = {"train_images": x[:40], "train_labels": labels[:40], "test_images": x[40:], "test_labels": labels[40:]}
    np.savez(tmp_path / "flowers.npz", **parts, classes=np.array(CLASSES))
    return tmp_path / "flowers.npz"


@pytest.fixture
def priors(tmp_path, side):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "ddpm": DDPM((3, side, side), classes=5, widths=(4, 4), blocks=1),
            "vae": VAE((3, side, side), latent=2, widths=(4, 4, 4, 4), blocks=(0, 0, 0, 0)),
            "gan": GAN((3, side, side), latent=2, widths=(4, 4, 4, 4), blocks=0, hidden=4),
        }
    made["ddpm"].class_names = CLASSES
    for name, prior in made.items():
        save_prior(prior, tmp_path / name / "prior")
    return {name: tmp_path / name / "prior" for name in made}


def test_families_and_classical_methods_restore_the_same_flowers(run, flowers, priors, tmp_path):
    out = tmp_path / "out"
    given = ["--data", flowers, "--priors", priors["ddpm"], priors["gan"], "--images", 2, 1, "--n", 2, 1]
    given += ["--chain-steps", 4, "--out", out, "--tasks", "24 x 24 box", "super-resolution x4"]
    run("evaluate_flowers", *given)
    table = (out / "table.md").read_text()
    header, _, *lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    rows = [dict(zip(header, line)) for line in lines]
    methods = ["auto", "tv-oracle", "biharmonic", "auto", "auto", "tv-oracle", "bicubic", "auto"]
    assert [row["method"] for row in rows] == methods
    assert [row["images"] for row in rows] == ["2", "2", "2", "1"] * 2
    holes = [row.get("PSNR of the mean in the holes, dB", "").strip() for row in rows]
    assert all(holes[:4])
    assert not any(holes[4:])
    assert images.read(out / "24-x-24-box.png").x.shape[1] == 3
    before = sorted((path, path.stat().st_mtime_ns) for path in out.glob("*/items/*.json"))
    run("evaluate_flowers", *given)
    assert sorted((path, path.stat().st_mtime_ns) for path in out.glob("*/items/*.json")) == before


def test_label_is_compared_with_none(run, flowers, priors, tmp_path):
    given = ["--data", flowers, "--prior", priors["ddpm"], "--each", 1, "--n", 2, "--tasks", "40 x 40 box"]
    out = run("evaluate_labels_flowers", *given, "--out", tmp_path / "out")
    assert len(re.findall(r"\| no label \|", out)) == 1
    assert len(re.findall(r"\| label \|", out)) == 1
    assert len(re.findall(r"\| guidance 2 \|", out)) == 1


@pytest.mark.parametrize("side", [16], indirect=True)
def test_draws_are_judged_by_a_classifier(run, flowers, priors, tmp_path):
    classifier = tmp_path / "classifier.safetensors"
    out = run(
        "train_classifier_flowers", "--data", flowers, "--validation-share", 0.3, "--steps", 60, "--out", classifier
    )
    right = [float(share) for share in re.findall(r"Right about ([\d.]+) %", out)]
    assert len(right) == 2
    assert right[1] > 40  # discs of five colours; by chance it were 20
    given = ["--data", flowers, "--classifier", classifier, "--validation-share", 0.3, "--n", 10, "--chain", 2]
    judged = [*map(str, priors.values()), f"{priors['ddpm']} by class"]
    out = run("evaluate_draws_flowers", *given, "--priors", *judged, "--out", tmp_path / "out")
    rows = re.findall(r"^\| ([^|]+) \| ([\d. ]+) \| .* \| ([\d.]+) % \|$", out, re.M)
    assert [row[0] for row in rows] == [*judged, "held out"]
    for _, shares, _ in rows:
        assert sum(map(float, shares.split())) == pytest.approx(100, abs=0.4)
    assert len(list((tmp_path / "out").glob("*.png"))) == 5


def test_figures_of_draws_are_made(run, flowers, priors, tmp_path):
    given = ["--data", flowers, "--prior", priors["ddpm"], "--images", 2, "--n", 5, "--steps", 2, "--chain", 2]
    run("draw_flowers", *given, "--out", tmp_path / "out")
    assert images.read(tmp_path / "out" / "posterior.png").x.shape[-1] > 9 * 64
    assert images.read(tmp_path / "out" / "classes.png").x.shape[-2:] == (5 * 66 - 2, 16 * 66 - 2)

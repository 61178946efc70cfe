"""Classes with names: a name is accepted wherever a label is, kept with the prior, and a wrong one lists the right."""

import json

import numpy as np
import pytest
import torch

import genprior
from genprior import images
from genprior.cli import main
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_card, read_prior, save_prior
from genprior.priors.gan import GAN
from genprior.priors.wrappers.tiled import Tiled

NAMES = ("daisy", "dandelion", "roses")


def named(kind: type[Prior] = DDPM) -> Prior:
    """Of random weights, all of them: so that the label matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = kind((1, 8, 8), classes=3) if kind is GAN else kind((1, 8, 8), classes=3, widths=(4, 4), blocks=1)
        for parameter in prior.parameters():
            parameter.data.normal_(std=0.3)
    prior.class_names = NAMES
    return prior.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", [DDPM, GAN])
def test_name_is_as_good_as_number(kind):
    prior = named(kind)
    for k, name in enumerate(NAMES):
        assert prior.given(name).label == k
        options = {"steps": 4} if kind is DDPM else {}
        assert torch.equal(prior.sample(2, label=name.title(), **options), prior.sample(2, label=k, **options))


def test_guidance_takes_a_name():
    prior = named()
    assert prior.given("roses", 3.0).label == 2
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(prior.given("roses", 3.0).denoise(x, 0.3), prior.given(2, 3.0).denoise(x, 0.3))


@pytest.mark.parametrize("guidance", [float("nan"), float("inf"), "2"])
def test_guidance_that_is_no_number_is_refused(guidance):
    with pytest.raises(ValueError, match=r"guidance is .*: give a number"):
        named().given("roses", guidance)
    with pytest.raises(ValueError, match=r"guidance is .*: give a number"):
        named().sample(1, label="roses", guidance=guidance)


def test_restoring_takes_a_name():
    prior, y = named(), torch.rand(1, 8, 8)
    options = {"noise": 0.2, "steps": 4, "seed": 0, "progress": False, "sampler": "diffpir"}
    by_name, by_number, other = (
        genprior.restore(y, "denoise", prior, label=k, **options).mean for k in ("dandelion", 1, 0)
    )
    assert torch.equal(by_name, by_number)
    assert not torch.equal(by_number, other)


def test_tiles_keep_the_names():
    prior = DDPM((1, None, None), classes=3, widths=(4, 4), blocks=1)
    prior.class_names = NAMES
    assert Tiled(prior, 96).class_names == NAMES
    assert Tiled(prior, 96).given("roses").prior.label == 2


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "rose",
            r"There is no label 'rose': this prior has 3 classes, .* daisy, dandelion, roses. Did you mean 'roses'",
        ),
        ("oak", r"There is no label 'oak': this prior has 3 classes, counted from 0: daisy, dandelion, roses\.$"),
        (3, r"There is no label 3: this prior has 3 classes, counted from 0: daisy, dandelion, roses\.$"),
        (True, "There is no label True"),
    ],
)
def test_wrong_label_lists_the_right_ones(label, message):
    with pytest.raises(ValueError, match=message):
        named().given(label)


def test_name_for_classes_without_names_asks_for_a_number():
    prior = named()
    prior.class_names = ()
    with pytest.raises(ValueError, match="this prior has 3 classes, counted from 0, without names: give a number"):
        prior.given("roses")


def test_names_are_in_the_card_and_come_back(tmp_path):
    save_prior(named(), tmp_path / "prior", {"data": "flowers"})
    assert read_card(tmp_path / "prior")["classes"] == list(NAMES)
    prior = read_prior(tmp_path / "prior")
    assert prior.class_names == NAMES
    save_prior(prior, tmp_path / "again", {})
    assert read_prior(tmp_path / "again").class_names == NAMES


@pytest.mark.parametrize("names", [["daisy"], ["daisy", "Daisy", "roses"], ["daisy", 1, "roses"], "abc", 5])
def test_names_that_do_not_fit_are_refused(names, tmp_path):
    save_prior(named(), tmp_path / "prior", {})
    card = tmp_path / "prior" / "card.json"
    card.write_text(json.dumps({"classes": names}))
    with pytest.raises(ValueError, match="names of the classes"):
        read_prior(tmp_path / "prior")


def test_command_line_takes_names_and_numbers(tmp_path, capsys):
    save_prior(named(), tmp_path / "prior", {})
    sheets = []
    for label in ("roses", "2", "daisy"):
        sheet = tmp_path / f"{label}.png"
        sample = ["sample", "--prior", tmp_path / "prior", "--n", 2, "--steps", 4, "--label", label, "-o", sheet]
        assert main([*map(str, sample)]) == 0
        sheets.append(images.read(sheet).x)
    assert torch.equal(sheets[0], sheets[1])
    assert not torch.equal(sheets[0], sheets[2])

    images.save(torch.rand(1, 8, 8), tmp_path / "y.png")
    restore = ["restore", tmp_path / "y.png", "--op", "denoise", "--noise", 0.2, "--prior", tmp_path / "prior"]
    for label, found in (("dandelion", 0), ("tulips", 1)):
        out = tmp_path / f"restored-{label}.png"
        assert main([*map(str, [*restore, "--steps", 4, "--label", label, "-o", out])]) == found
        assert out.exists() == (not found)
    assert "There is no label 'tulips': this prior has 3 classes" in capsys.readouterr().err


@pytest.fixture
def flowers(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    names = {"classes": np.array(NAMES), "numbers": np.arange(3), "few": np.array(NAMES[:2])}
    np.savez(tmp_path / "flowers.npz", train_images=images, train_labels=np.arange(12) % 3, **names)
    return tmp_path / "flowers.npz"


def training(flowers, out, *more):
    given = ["train", "gan", "--data", flowers, "--out", out, "--steps", 1, "--batch", 2, *more]
    return main([*map(str, given)])


def test_training_keeps_the_names(flowers, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert training(flowers, tmp_path / "run", "--labels", "train_labels", "--class-names", "classes") == 0
    assert read_prior(tmp_path / "run" / "prior").class_names == NAMES


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--class-names", "classes"], "--class-names classes goes with --labels and an .npz file"),
        (["--labels", "train_labels", "--class-names", "numbers"], "'numbers' must be texts of shape (K,), not int64"),
        (["--labels", "train_labels", "--class-names", "none"], "it has no array none"),
        (["--labels", "train_labels", "--class-names", "few"], "give one for each of 3, or none"),
    ],
)
def test_names_that_training_cannot_keep_are_refused(flowers, tmp_path, capsys, more, message):
    assert training(flowers, tmp_path / "run", *more)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

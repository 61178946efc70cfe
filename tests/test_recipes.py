"""The recipes run and do what they say, on the smallest input that lets them."""

import json
import math
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from genprior import images
from genprior.priors.folder import read_prior

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture
def photos(tmp_path):
    x = torch.from_numpy(data.astronaut().copy()).movedim(-1, 0).float() / 255
    for i in range(3):
        images.save(x[:, 60 * i : 60 * i + 136, 150:300], tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def test_every_recipe_is_short():
    assert all(len(path.read_text().splitlines()) <= 80 for path in RECIPES.glob("*.py"))


def test_sound_restorations_are_not_warned_of_and_a_noise_five_times_too_small_is(run, photos):
    rows = [line.split("|") for line in run("evaluate_warnings", "--data", photos, "--crops", 1).splitlines()]
    warned = {row[1].strip(): row[4].strip() for row in rows[2:]}
    assert len(warned) == 10
    assert set(list(warned.values())[:5]) == {"0 of 1"}
    assert warned["noise 0.025 as 0.005"] == "1 of 1"


def test_demo_restores_four_photographs(run, tmp_path):
    out = run("demo", "--out", tmp_path, "--size", 48, "--n", 2, "--steps", 20)
    gains = re.findall(r"dB, [\d.]+ \| ([+-][\d.]+) dB \|", out)
    assert len(gains) == 4
    # Half the steps, a sixteenth of the pixels: still within 1 dB of the best classical method, tuned on the truth, on
    # all four, and above it on three. With 8 steps inpainting is 3.7 dB below.
    assert all(float(gain) > -1 for gain in gains)
    assert sum(float(gain) > 0 for gain in gains) >= 3
    assert images.read(tmp_path / "figure.png").x.shape == (1, 3, 4 * 52 - 4, 5 * 52 - 4)


def test_denoising_is_measured_as_published(run, photos):
    """The bundled prior removes noise of sd 25/255 (20.17 dB) from a photograph to about 30 dB."""
    out = run("evaluate_denoising", "--data", photos, "--sigma", 25)
    found = float(re.search(r"\| 25 \| ([\d.]+) dB", out)[1])
    assert 28 < found < 36


def test_colours_are_compared_with_the_truth(run, photos):
    """The mean colour of photographs is about grey, which the Gaussian prior's picture hardly leaves."""
    out = run("evaluate_colourisation", "--data", photos, "--side", 32, "--images", 2, "--prior", "gaussian-photo")
    rows = {row[0]: (float(row[1]), float(row[2])) for row in re.findall(r"\| (\w.*?) \| ([\d.]+).*?\| ([\d.]+)", out)}
    assert list(rows) == ["grey", "picture", "one draw"]
    assert rows["grey"][1] < 1e-6 < rows["picture"][1] < rows["one draw"][1]
    assert rows["picture"][0] < rows["one draw"][0]


def test_photo_prior_is_trained(run, photos, tmp_path):
    run(
        "train_ddpm_photo", "--data", photos, "--out", tmp_path / "run", "--steps", 2, "--batch", 2, "--precision", "no"
    )
    prior = read_prior(tmp_path / "run" / "prior")
    assert prior.image_shape == (3, None, None)
    # the decoder of the bound was fitted: an untrained network leaves the noise of sigma_min, and not its default
    assert float(prior.decoder_variance) != pytest.approx(prior.sigma_min**2, rel=1e-6)
    assert json.loads((tmp_path / "run" / "prior" / "card.json").read_text())["steps"] == 2


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """As many images as MNIST has, of which 40 differ: strokes at random places."""
    rng = np.random.default_rng(0)
    few = np.zeros((40, 28, 28), np.uint8)
    for image in few:
        top, left = rng.integers(4, 12, 2)
        image[top : top + 12, left : left + 4] = rng.integers(100, 255, (12, 4))
    labels = np.arange(40) % 10
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    train = {"train_images": np.resize(few, (55040, 28, 28)), "train_labels": np.resize(labels, 55040)}
    np.savez_compressed(path, **train, test_images=few, test_labels=labels)
    return path


@pytest.mark.parametrize("family", ["ddpm", "nf", "vae", "gan"])
def test_digit_prior_is_trained(run, digits, tmp_path, family):
    run(f"train_{family}_mnist", "--data", digits, "--out", tmp_path, "--steps", 2, "--batch", 4, "--precision", "no")
    prior = read_prior(tmp_path / "prior")
    assert prior.image_shape == (1, 28, 28)
    assert json.loads((tmp_path / "prior" / "config.json").read_text())["family"] == family
    assert json.loads((tmp_path / "prior" / "card.json").read_text())["steps"] == 2


@pytest.mark.parametrize("family", ["nf", "vae"])
def test_photo_prior_of_the_family_is_trained(run, photos, tmp_path, family):
    out = tmp_path / "run"
    run(f"train_{family}_photo", "--data", photos, "--out", out, "--steps", 2, "--batch", 2, "--precision", "no")
    assert read_prior(out / "prior").image_shape == (3, None, None)


def test_calibration_of_digits_says_how_far_off_draws_under_photon_noise_are(run, digits):
    """Of two steps, far too few: draws that all leave more of y than the truth does, whose misfit has the place 0."""
    sized = ("--images", 10, "--draws", 3, "--steps", 2)
    found = run("calibrate_digits", "--data", digits, "--noise", "poisson:0.1", *sized)
    figures, places = ([line.split("|") for line in part.splitlines()] for part in found.strip().split("\n\n"))
    assert [cell.strip() for cell in figures[0][1:3]] == ["sampler", "coverage 50%"]
    misfit = [cell.strip() for cell in places[0]].index("misfit")
    assert float(places[2][misfit].split("±")[0]) == 0


def test_likelihood_of_digits_is_comparable(run, digits):
    """Strokes of random grey values in black: no prior of digits spends less than their own 48 random bytes of 784."""
    out = run("evaluate_likelihood", "--data", digits, "--priors", "nf-mnist", "gaussian-mnist", "--n", 8)
    nf, gaussian = (float(bits) for bits in re.findall(r"\| ([\d.]+) ± [\d.]+ \| \d+ \|", out))
    assert 48 * math.log2(155) / 784 < nf < gaussian


def test_families_restore_the_same_digits(run, digits, tmp_path):
    out = run(
        "evaluate_families", "--data", digits, "--priors", "gan-mnist", "--digits", 2, "--n", 1, "--out", tmp_path
    )
    assert len(re.findall(r"\| gan-mnist \| FisherHMC \|", out)) == 5
    rows = (tmp_path / "families.csv").read_text().splitlines()
    assert len(rows) == 1 + 5 * 2
    assert (tmp_path / "families.png").stat().st_size > 5_000


def test_digits_of_a_prior_are_judged_beside_the_data(run, digits, tmp_path):
    classifier = tmp_path / "classifier.safetensors"
    out = run("evaluate_gan_mnist", "--data", digits, "--n", 20, "--steps", 5, "--classifier", classifier)
    for name in ("gan-mnist", "data"):
        shares, *figures = re.search(rf"\| {name} \| ([\d. ]+) \|(.*)", out).groups()
        assert sum(map(float, shares.split())) == pytest.approx(100, abs=0.5)
        assert len(re.findall(r"[\d.]+", figures[0])) == 5
    assert classifier.exists()


def test_every_family_draws_digits(run, tmp_path):
    run("draw_digits", "--n", 2, "--priors", "gan-mnist", "vae-mnist", "--out", tmp_path / "draws.png")
    assert images.read(tmp_path / "draws.png").x.shape[0] == 1


def test_variance_that_makes_weights_constant_collapses(run, tmp_path):
    """With 2,000 draws the standard error of a variance of 1 is sqrt(2 / 2000) = 0.03; four of them."""
    out = run("lesson_variance", "--n", 2, "--steps", 3, "--draws", 2000, "--out", tmp_path / "variance.png")
    left = {name: float(share) for name, share in re.findall(r"\| ([a-z-]+) \| ([\d.]+) \|", out)}
    assert left["posterior"] == pytest.approx(1, abs=0.13)
    assert left["forward"] == pytest.approx(1, abs=0.13)
    assert left["constant-weight"] == pytest.approx(0.014, abs=0.005)
    assert (tmp_path / "variance.png").stat().st_size > 1000


def test_divergences_are_drawn_beside_their_closed_form(run, tmp_path):
    figure = tmp_path / "divergences.png"
    out = run("compare_divergences", "--n", 400, "--shifts", 0, 1, "--steps", 20, "--figure", figure)
    closed, estimated, error = re.search(r"\| 1\.?0? \| ([\d.]+) \| ([\d.]+) ± ([\d.]+)", out).groups()
    assert float(closed) == 0.5
    assert float(estimated) == pytest.approx(0.5, abs=4 * float(error))
    assert figure.stat().st_size > 1000


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.py")), ids=lambda path: path.stem)
def test_every_recipe_shares_its_work_between_processes_or_refuses_to_repeat_it(path):
    """Those that train share by the loop, those that evaluate by `evaluate`; the others are work for one process."""
    code = path.read_text()
    assert any(shares in code for shares in ("training.loop import", "genprior.evaluate(", f'alone("{path.stem}")'))


def test_recipe_that_is_one_of_several_is_refused(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="lesson_variance is work for one process, and 2 were launched"):
        run("lesson_variance")


def test_objectives_are_compared_on_the_same_digits(run, digits):
    out = run("compare_objectives", "--data", digits, "--steps", 2, "--batch", 2, "--seeds", 0, "--digits", 4)
    rows = [line.split("|") for line in out.splitlines() if re.match(r"\| (denoising|flow-matching) \| 0 ", line)]
    assert [row[1].strip() for row in rows] == ["denoising", "flow-matching"]
    assert all(len(row) == 11 and math.isfinite(float(cell)) for row in rows for cell in row[3:10])


def test_small_copies_keep_photographs_of_one_name_and_are_of_the_size_asked_for(photos, tmp_path):
    (photos / "other").mkdir()
    images.save(torch.full((3, 80, 100), 0.5), photos / "other" / "0.png")
    small_copies = runpy.run_path(str(RECIPES / "train_colorize_photo.py"))["small_copies"]
    for side in (20, 30):
        copies = images.list_images(small_copies(photos, tmp_path / "small", side))
        assert [min(images.read(path).x.shape[2:]) for path in copies] == 4 * [side]


def test_learning_curve_adds_up_the_runs_that_went_on_from_one_another(run, photos, tmp_path):
    for name, steps in (("first", 2), ("second", 3)):
        given = ["--batch", 2, "--steps", steps, "--size", 64, "--validate-every", 1, "--save-every", 1]
        run("train_ddpm_photo", "--data", photos, "--validation", photos, "--out", tmp_path / name, *given)
    lines = run("learning_curve", tmp_path / "first", tmp_path / "second", "--rows", 2).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if str(tmp_path) in line]
    assert [row[1] for row in cells] == ["2", "4", "6", "10"]
    logged = (tmp_path / "second" / "log.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in logged if "PSNR" in line][-1]
    assert cells[-1][3:] == [f"{last[f'PSNR at {level}/255']:.2f}" for level in (15, 25, 50)]

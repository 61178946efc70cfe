"""Every bundled prior has a card that says what it is for, what not, and how sure its draws are, with a picture."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.cli import main
from genprior.priors import Gaussian, store
from genprior.priors.card import PICTURE, card_text, save_picture
from genprior.priors.folder import read_card, save_prior
from genprior.priors.store import BUNDLED, bundled


@pytest.mark.parametrize("name", bundled())
def test_bundled_prior_says_what_it_is_for_and_not_for(name):
    card = read_card(BUNDLED / name)
    assert all(card[key] for key in ("summary", "use", "not for", "data", "licence", "metrics", "recipe"))


def test_weights_and_pictures_stay_small():
    assert all(path.stat().st_size < 100_000 for path in BUNDLED.rglob(PICTURE))
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 75e6


@pytest.mark.parametrize(("side", "quality"), [(64, 60), (600, 20)])
def test_picture_of_a_card_is_as_fine_as_its_size_allows(side, quality, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    save_picture(noise, tmp_path)
    assert (tmp_path / PICTURE).stat().st_size < 100_000
    noise.save(tmp_path / "expected.jpg", quality=quality)
    assert (tmp_path / PICTURE).read_bytes() == (tmp_path / "expected.jpg").read_bytes()


def test_card_is_shown_with_the_place_of_its_picture(capfd):
    assert main(["priors", "ddpm-photo", "--card"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("## ddpm-photo\n\nRGB photographs of any size")
    assert f"]({BUNDLED / 'ddpm-photo' / PICTURE})" in out
    for line in (
        "Do not use it for: faces",
        "Licence of the weights: CC BY-SA 4.0",
        "Measured: CBSD68 PSNR at 15/255: ",
    ):
        assert f"\n- {line}" in out
    assert re.search(r"\n- Calibration: in 50% intervals: [\d.]+ ± [\d.]+ %; in 90% intervals: ", out)


def test_cards_of_all_are_shown_without_a_name(capfd):
    assert main(["priors", "--card"]) == 0
    assert re.findall(r"^## (.*)$", capfd.readouterr().out, flags=re.MULTILINE) == bundled()


def test_card_of_a_prior_of_ones_own_says_what_it_knows(tmp_path, capfd):
    save_prior(Gaussian(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)), tmp_path / "mine", {"data": "noise", "steps": 3})
    assert main(["priors", str(tmp_path / "mine"), "--card"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("## mine\n\nA prior without a summary.\n\n- Trained on: noise\n- Steps: 3\n- SHA-256")
    assert "None" not in out
    assert "![" not in out


def test_lists_and_tables_of_a_card_are_told_in_words():
    told = card_text("a", {"summary": "A.", "classes": ["roses", "tulips"], "metrics": {"PSNR": "30 dB", "n": 3}})
    assert told == "## a\n\nA.\n\n- Measured: PSNR: 30 dB; n: 3\n- Classes: roses, tulips"


def test_bundling_again_keeps_the_uses_and_a_new_prior_must_state_them(run, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "bundled")
    save_prior(Gaussian(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)), tmp_path / "mine", {})
    given = ["--prior", tmp_path / "mine", "--name", "mine", "--summary", "S", "--data", "D", "--licence", "L"]
    with pytest.raises(SystemExit):
        run("bundle_prior", *given)
    assert not (tmp_path / "bundled").exists()
    run("bundle_prior", *given, "--use", "tests", "--not-for", "photographs")
    run("bundle_prior", *given)
    card = json.loads((tmp_path / "bundled" / "mine" / "card.json").read_text())
    assert (card["use"], card["not for"]) == ("tests", "photographs")

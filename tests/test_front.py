"""The picture of the front page, the pictures of the cards, and the list of figures are made by what they say."""

import json
import re
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import genprior
from genprior import images
from genprior.priors.card import PICTURE
from genprior.priors.folder import read_card, save_prior

ROOT = Path(__file__).parents[1]
FIGURES = json.loads((ROOT / "docs" / "figures.json").read_text(encoding="utf-8"))
PAGES = {path: " ".join(path.read_text(encoding="utf-8").split()) for path in (ROOT / "docs").glob("*.md")}
PAGES[ROOT / "README.md"] = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """Recipes import from those beside them, as they do when run as scripts."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))


def test_front_page_is_drawn(run, tmp_path):
    """Three rows: y, two draws, mean, spread and truth."""
    out = run("draw_front", "--side", 96, "--n", 2, "--out", tmp_path / "front.png")
    found = re.findall(r"(.*): mean ([\d.]+) dB; (\d+)% of values in the 50 % interval", out)
    assert [what for what, *_ in found] == ["holes", "unknown motion", "hidden half"]
    assert float(found[0][1]) > 24  # with black holes 11 dB, and 28 dB of the mean of 16
    assert re.search(r"identified length [\d.]+ ± [\d.]+, angle", out)
    assert images.read(tmp_path / "front.png").x.shape[1:] == (3, 22 + 3 * (96 + 4) - 4, 6 * (96 + 4) - 4)


def test_card_is_drawn_and_says_how_sure_the_draws_are(run, tmp_path):
    prior = genprior.Gaussian(torch.full((1, 28, 28), 0.5), torch.full((1, 28, 28), 0.04))
    save_prior(prior, tmp_path / "flat", {"summary": "White noise."})
    noise = np.random.default_rng(0).normal(0.5, 0.2, (10, 28, 28)).clip(0, 1)
    np.savez(tmp_path / "noise.npz", test_images=(255 * noise).round().astype(np.uint8))
    run("draw_card", tmp_path / "flat", "--data", tmp_path / "noise.npz")
    card = read_card(tmp_path / "flat")
    assert card["summary"] == "White noise."
    assert card["calibration"]["of"] == "10 images, 19 draws each by Exact"
    # Images that the prior might have drawn, but for 1.2 % of clipped values: 2 x 18 x 18 pixels at least, of a task.
    for level in (50, 90):
        share = float(card["calibration"][f"in {level}% intervals"].split(" ")[0])
        assert share == pytest.approx(level, abs=2)
    assert images.read(tmp_path / "flat" / PICTURE).x.std() > 0.1


# ---- docs/figures.json ----


@pytest.mark.parametrize("figure", FIGURES, ids=[figure["command"][:40] for figure in FIGURES])
def test_listed_command_stands_on_a_page_and_is_dated(figure):
    assert (ROOT / figure["page"]).exists()
    assert any(figure["command"] in text for text in PAGES.values())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", figure["date"])
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", figure["commit"])


# What makes figures, but for the two lines that show how it is used.
MAKES = re.compile(
    r"(python recipes/(benchmarks/|evaluate_|compare_|calibrate_|latent_super)|genprior evaluate truth --suite|pytest |"
    r"python -m pytest )(?!.*(--figure|runs/digits))"
)
NAMED = [code for text in PAGES.values() for code in re.findall(r"`([^`]+)`", text) if MAKES.match(code)]


@pytest.mark.parametrize("command", sorted(set(NAMED)))
def test_command_that_makes_figures_is_listed(command):
    assert any(figure["command"].startswith(command.removesuffix(" …")) for figure in FIGURES)


def test_no_command_is_listed_twice():
    assert len({figure["command"] for figure in FIGURES}) == len(FIGURES)


@pytest.fixture
def results(monkeypatch, tmp_path):
    """Run recipes/results.py on a list of commands, which print `printed`."""

    def results(figures, printed, *arguments):
        made = []

        def command(words, **options):
            made.append(words)
            return subprocess.CompletedProcess(words, 0 if printed else 1, stdout=printed)

        monkeypatch.setattr(subprocess, "run", command)
        monkeypatch.setattr(subprocess, "check_output", lambda *words, **options: "abc1234\n")
        (tmp_path / "figures.json").write_text(json.dumps(figures))
        monkeypatch.setattr("sys.argv", ["results", *map(str, arguments), "--out", str(tmp_path / "out")])
        program = runpy.run_path(str(ROOT / "recipes" / "results.py"))
        program["main"].__globals__["LIST"] = tmp_path / "figures.json"
        with pytest.raises(SystemExit) as ended:
            program["main"]()
        return made, ended.value.code, json.loads((tmp_path / "figures.json").read_text())

    return results


KNOWN = {"page": "docs/divergences.md", "date": "2026-11-22", "commit": "8190876"}
QUICK = {"command": "python recipes/compare_divergences.py --n 5", "minutes": 1} | KNOWN
LONG = {"command": "pytest tests/test_long.py", "minutes": None} | KNOWN
WITH_DATA = {"command": "genprior evaluate x", "minutes": 1, "data": True} | KNOWN


def test_quick_figures_are_made_again_and_rows_that_changed_are_shown(results, capsys):
    row = next(line for line in (ROOT / KNOWN["page"]).read_text().splitlines() if line.startswith("| 0.25 |"))
    table = f"| shift 2 | KL |\n|---|---|\n{row.replace('| 0.25 |', '| a |')}\n| 1 | 7.5 |\n"
    made, code, after = results([QUICK, LONG, WITH_DATA], table)
    assert [words[1:] for words in made] == [[str(ROOT / "recipes" / "compare_divergences.py"), "--n", "5"]]
    assert (code, after) == (0, [QUICK, LONG, WITH_DATA])
    out = capsys.readouterr().out
    assert "1 of 2 rows stand in docs/divergences.md\n  | 1 | 7.5 |\n" in out
    assert "| docs/divergences.md | `pytest tests/test_long.py` | None | 2026-11-22 | 8190876 |" in out


def test_date_and_commit_are_recorded_when_asked_for(results):
    made, _, after = results([QUICK, LONG], "| a |\n", "--only", "test_long", "--record")
    assert made[0][1:] == ["-m", "pytest", str(ROOT / "tests" / "test_long.py")]
    assert after[0] == QUICK
    assert (after[1]["commit"], after[1]["minutes"]) == ("abc1234", 0.0)
    assert after[1]["date"] > "2026-11-22"


def test_command_that_fails_is_neither_recorded_nor_passed_over(results, capsys):
    _, code, after = results([QUICK], "", "--record")
    assert (code, after) == ("1 commands failed", [QUICK])
    assert "failed with 1" in capsys.readouterr().out

"""The tables of papers run, as docs/reproduce.md has them, on random weights and one made-up image."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter

from genprior.nets.adm import ADMUNet
from genprior.priors.foreign import adm_published
from genprior.priors.foreign.adm_published import PUBLISHED, Published

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
RECIPE = runpy.run_path(str(ROOT / "recipes" / "reproduce.py"))
COMMANDS = re.findall(r"`python recipes/reproduce\.py (.*?)`", PAGE)
NOISE = {"dps": 0.025, "daps": 0.025, "diffpir": 0.05, "ddrm": 0.05}
SIDE = 32


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder where the commands find the files that they name; the checkpoints are of the smallest network."""
    monkeypatch.chdir(tmp_path)
    layout = {
        "channels": 3,
        "outputs": 6,
        "base": 32,
        "widths": [32],
        "blocks": 1,
        "attention": [],
        "classes": 0,
        "scale_shift": True,
        "resample_blocks": True,
    }
    known = Published(("tiny.pt",), "nothing", layout, PUBLISHED[0].setup | {"head_channels": 32})
    monkeypatch.setattr(adm_published, "PUBLISHED", (known,))
    ramp = np.linspace(40, 200, SIDE)[:, None, None] + 20 * np.sin(np.arange(SIDE))[None, :, None]
    state = ADMUNet(base=32, widths=(32,), attention=(), heads=1).state_dict()
    for command in COMMANDS:
        words = command.split()
        folder, checkpoint = (words[words.index(flag) + 1] for flag in ("--data", "--prior"))
        Path(folder).mkdir(exist_ok=True)
        Image.fromarray(np.repeat(ramp, 3, axis=2).astype(np.uint8)).save(Path(folder) / "00000.png")
        torch.save(state, checkpoint)
        torch.save(
            ADMUNet(base=32, widths=(32,), attention=(), heads=1).state_dict(), words[words.index("--prior") + 1]
        )
    return tmp_path


def test_every_table_has_a_command():
    assert {command.split()[0] for command in COMMANDS} == set(RECIPE["tables"](256))
    rows = set(re.findall(r"`(dps|daps|diffpir|ddrm)( \w+)`", PAGE))
    assert {(table, f" {task}") for table, tasks in RECIPE["tables"](256).items() for task in tasks} - rows == {
        ("daps", " box"),  # named beside the row's first
        ("daps", " gaussian"),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs_as_it_stands_with_fewer_steps(command, home, run):
    words = [word for word in command.split() if word != "--lpips"]  # which downloads weights
    out = run("reproduce", *words, "--side", SIDE, "--steps", 1)
    table, folder = words[0], home / words[words.index("--out") + 1]
    tasks = RECIPE["tables"](SIDE)[table]
    assert re.findall(rf"^{table}, (\w+)$", out, flags=re.MULTILINE) == list(tasks)
    for task in tasks:
        settings = json.loads((folder / task / "run.json").read_text())["settings"]
        assert settings["noise"] == (0.0 if task == "clean" else NOISE[table])
        item = json.loads(next((folder / task / "items").glob("*.json")).read_text())
        assert "note" not in item
        assert item["evaluations"] > 0


def test_blur_is_that_of_the_paper():
    """A point of 61 x 61, filtered by scipy at its defaults, the image mirrored by 30 pixels: float32."""
    blur = RECIPE["tables"](256)["dps"]["gaussian"]["op"]
    point = np.zeros((61, 61))
    point[30, 30] = 1
    kernel = torch.from_numpy(gaussian_filter(point, 3.0)).float()
    x = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    wanted = F.conv2d(F.pad(x, (30, 30, 30, 30), mode="reflect").movedim(1, 0), kernel[None, None]).movedim(1, 0)
    torch.testing.assert_close(blur.A(x), wanted, rtol=1e-5, atol=1e-5)


def test_published_parameters_are_those_of_the_papers():
    tables = RECIPE["tables"](256)
    assert [(task["sampler"].zeta, task["sampler"].steps) for task in tables["dps"].values()] == [
        *[(0.3, 1000)] * 3,
        *[(0.5, 1000)] * 2,
    ]
    assert tables["dps"]["box"]["size"] == 128
    assert (tables["dps"]["random"]["fraction"], tables["daps"]["random"]["fraction"]) == (0.92, 0.7)
    assert tables["diffpir"]["motion"]["kernel"].shape == (61, 61)
    assert {task["sampler"].steps for task in tables["diffpir"].values()} == {100}
    assert {task["sampler"].evaluations for task in tables["ddrm"].values()} == {20}

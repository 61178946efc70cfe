"""The command line among other programs: an image to stdout, a reader that goes away, what is said of a result."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import genprior
from genprior import images
from genprior.cli import main
from genprior.priors import chain
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import write_prior
from genprior.priors.store import resolved_name


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A grey photograph, two in a folder, and a small diffusion of four by four pixels."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "photos/a.png", "photos/b.png"):
        images.save(torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0)), tmp_path / name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = DDPM((1, 4, 4), widths=(4,), patch=1, blocks=1, steps=10)
    (tmp_path / "prior").mkdir()
    write_prior(prior.eval(), tmp_path / "prior", {})
    return tmp_path


COMMANDS = {
    "restore": "restore photo.png --op denoise --noise 0.1 --steps 1 -n 1",
    "degrade": "degrade photo.png --op denoise --noise 0.1",
    "sample": "sample --prior prior -n 3",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_image_goes_to_stdout(name, home, capsysbinary):
    assert main([*COMMANDS[name].split(), "-o", "out.png"]) == 0
    assert b"out.png" in capsysbinary.readouterr().out
    assert main([*COMMANDS[name].split(), "-o", "-"]) == 0
    out, err = capsysbinary.readouterr()
    assert out == (home / "out.png").read_bytes()  # nothing but the image
    Image.open(io.BytesIO(out)).verify()
    assert b"-> -" in err
    assert not (home / "-").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("restore photos --op denoise -o -", "-o - writes one image: give one file"),
        ("degrade photo.png photos/a.png --op denoise -o -", "-o - writes one image: give one file"),
        ("degrade photo.png --op inpaint --mask random --fraction 0.5 -o -", "there are _mask.png besides"),
        ("restore photo.png --op denoise --noise 0.1 --steps 1 --std -o -", "there are _std.png besides"),
    ],
)
def test_more_than_an_image_does_not_go_to_stdout(command, words, home, capsysbinary):
    assert main(command.split()) == 1
    out, err = capsysbinary.readouterr()
    assert out == b""
    assert words in err.decode()


@pytest.mark.parametrize("command", ["priors", "--help", "info --json", "sample --prior prior -n 1 -o -"])
def test_a_reader_that_goes_away_is_met_with_silence(command, home):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "genprior", *command.split()], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.returncode == (0 if command == "--help" else 128 + 13)  # argparse itself ignores who does not read
    assert [line for line in done.stderr.splitlines() if "samples of" not in line] == []


def test_what_is_said_of_stdout_names_it(home, capsysbinary):
    assert main([*COMMANDS["restore"].split(), "--json", "-o", "-"]) == 0
    assert json.loads(capsysbinary.readouterr().err.splitlines()[-1])["outputs"] == ["-"]


def test_stdout_may_be_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["priors"]) == 0


def test_no_samples_are_refused(home, capsys):
    assert main(["sample", "--prior", "prior", "-n", "0", "-o", "none.png"]) == 1
    assert "-n, the number of samples, is a whole number from 1" in capsys.readouterr().err
    assert not (home / "none.png").exists()


def test_a_reader_that_goes_away_ends_a_folder(home, monkeypatch, capsys):
    """As it ends other programs; what was written stays."""

    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

        def fileno(self):
            raise io.UnsupportedOperation

    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(["degrade", "photos", "--op", "denoise", "--noise", "0.1", "-o", "out"]) == 128 + 13
    assert [path.name for path in (home / "out").iterdir()] == ["a.png"]
    assert capsys.readouterr().err == ""


def test_version_is_said(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"genprior {genprior.__version__}\n"


# ---- progress ----


@pytest.fixture
def bars(monkeypatch):
    """(what of, how many, disable) of each bar; None shows it on a terminal only."""
    found = []

    def bar(steps, of, *, leave, disable):
        found.append((of, len(steps), disable))
        return steps

    monkeypatch.setattr(chain, "tqdm", bar)
    return found


def test_sampling_on_the_command_line_shows_how_far_it_is(home, bars):
    assert main(["sample", "--prior", "prior", "-n", "2", "--steps", "5", "-o", "a.png"]) == 0
    assert bars == [("sample", 5, None)]


def test_bars_are_shown_on_request_only(home, bars):
    prior, x = genprior.load_prior("prior"), torch.full((2, 1, 4, 4), 0.5)
    plain = prior.sample(2), prior.elbo(x, terms=3), prior.elbo_8bit(x, terms=3)
    watched = (
        prior.sample(2, progress=True),
        prior.elbo(x, terms=3, progress=True),
        prior.elbo_8bit(x, terms=3, progress=True),
    )
    shown = [("sample", 10), ("elbo", 3), ("elbo", 3)]
    assert bars == [(*bar, True) for bar in shown] + [(*bar, None) for bar in shown]
    assert all(torch.equal(a, b) for a, b in zip(plain, watched))


# ---- the name of a prior ----


def test_json_has_the_name_of_the_prior_that_a_family_stands_for(home, capsys):
    assert main([*COMMANDS["restore"].split(), "--json", "-o", "out.png"]) == 0
    assert json.loads(capsys.readouterr().out)["prior"] == "ddpm-mnist"


def test_names_of_priors_are_those_to_ask_for_again(home):
    (home / "run" / "step-0000003").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (home / "run" / "step-0000003" / name).write_bytes((home / "prior" / name).read_bytes())
    (home / "run" / "step-0000003" / "card.json").write_text('{"steps": 3}')
    (home / "run" / "step-0000003" / "complete.json").write_text("{}")
    assert resolved_name("run") == "run/step-0000003"
    assert resolved_name("prior") == "prior"
    assert resolved_name("ddpm-photo") == resolved_name("ddpm", (3, 64, 64)) == "ddpm-photo"
    assert resolved_name("nobody/nothing") == "nobody/nothing"  # of the Hub, which is not asked for a name


def test_arrays_are_restored_by_the_same_names(home):
    y = np.full((28, 28), 0.5, np.float32)
    result = genprior.restore(y, "denoise", "ddpm", noise=0.1, steps=1, seed=0)
    assert result.prior_name == "ddpm-mnist"

"""The recipe that measures what samplers cost beyond their networks, on the smallest input that lets it."""

import re
import runpy
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage.data import astronaut

import genprior
from genprior.nets.adm import ADMUNet
from genprior.noise import Noise
from genprior.operators import Denoise, Measurement

BENCHMARKS = Path(__file__).parent.parent / "recipes" / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Run a benchmark as the script it is: what lies beside it can be imported."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name, **options: runpy.run_path(str(BENCHMARKS / f"{name}.py"), **options)


def test_speed_prints_a_line_for_every_pair_that_fits(load, monkeypatch, capsys):
    recipe = load("speed")
    monkeypatch.setitem(recipe["PEERS"], "diffpir", ())
    monkeypatch.setitem(recipe["main"].__globals__, "peak_memory", lambda *arguments: 7.0)
    words = "--methods diffpir repaint --networks small --batches 1 2 --size 16 --steps 2 --repeats 2"
    monkeypatch.setattr(sys, "argv", ["speed", *words.split()])
    recipe["main"]()
    machine, _, head, _, *rows = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in machine
    assert head == "| task | method | small, 1 | small, 2 | memory, MiB |"
    cells = [row.strip("| ").split(" | ") for row in rows]
    found = [(task, method) for task, method, *_ in cells]
    assert found == [
        ("mask", "diffpir"),
        ("mask", "repaint"),
        ("circular blur", "diffpir"),
        ("super-resolution", "diffpir"),
    ]
    assert all(float(value) > 0 for _, _, *values in cells for value in values)


def test_speed_prints_a_dash_where_a_method_lacks_something(load, monkeypatch, capsys):
    """The stack of convolutions has no posterior covariance, the bundled network has one."""
    recipe = load("speed")
    monkeypatch.setitem(recipe["main"].__globals__, "peak_memory", lambda *arguments: 7.0)
    words = "--methods optimal-covariance --tasks mask --batches 1 --size 16 --steps 2 --repeats 1"
    monkeypatch.setattr(sys, "argv", ["speed", *words.split()])
    recipe["main"]()
    *_, row = capsys.readouterr().out.splitlines()
    task, method, small, bundled, _ = row.strip("| ").split(" | ")
    assert (task, method, small) == ("mask", "optimal-covariance", "–")
    assert float(bundled) > 0


@pytest.mark.parametrize(("method", "passes"), [("ddrm", 1), ("dps", 2), ("mmps", 5)])
def test_speed_takes_the_passes_of_the_network_off_and_only_those(load, monkeypatch, method, passes):
    """With a clock that ticks 1 in each pass of the network and 0.1 in each call of the noise."""
    recipe = load("speed")
    clock = {"now": 0.0}
    monkeypatch.setattr(recipe["time"], "process_time", lambda: clock["now"])

    class Tick(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            clock["now"] += 1
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            clock["now"] += 1
            return gradient

    class Ticks(torch.nn.Module):
        def forward(self, x):
            return Tick.apply(x)

    class Ticking(Noise):
        def __call__(self, like):
            clock["now"] += 0.1
            return super().__call__(like)

    monkeypatch.setattr(sys.modules["peers"], "Noise", Ticking)
    prior = recipe["Small"](1)
    prior.layers = Ticks()
    measurement = Measurement(torch.zeros(1, 3, 8, 8), Denoise((3, 8, 8)), 0.05)
    found = recipe["overhead"](method, prior, measurement, Namespace(steps=10, repeats=1))
    # One call of the noise begins, and one ends no step but the last; ddrm begins with two.
    noises = {"ddrm": 2 + 10, "dps": 1 + 9, "mmps": 1 + 9}[method]
    assert found == pytest.approx(0.1 * noises / (10 * passes))


def test_jpeg_compares_files_decoded_and_restored(load, monkeypatch, capsys, tmp_path):
    Image.fromarray(astronaut()[50:98, 100:164]).save(tmp_path / "photo.png")
    words = f"--data {tmp_path} --prior ddpm-photo --quality 10 --crop 41"
    monkeypatch.setattr(sys, "argv", ["jpeg", *words.split()])
    load("jpeg")["main"]()
    _, _, head, line, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == line.count("|") == row.count("|")
    quality, decoded, restored, gain, least, outside, differ, _ = row.strip("| ").split(" | ")
    assert (quality, outside) == ("10", "0e+00 steps")
    assert float(restored[:-3]) - float(decoded[:-3]) == pytest.approx(float(gain[:-3]), abs=0.011)
    assert gain == least
    assert float(differ[:-1]) < 1


def test_pictures_of_photon_noise_are_above_the_stabilising_transform(load, monkeypatch, capsys, tmp_path):
    """Two photographs, one dark: 0.3 to 0.5 dB with the settings as they are, and less where any part of them fails."""
    for name, picture in (("astronaut", astronaut()[20:148, 160:288]), ("dark", astronaut()[300:428, 20:148] // 2)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    recipe = load("poisson")
    monkeypatch.setattr(sys, "argv", ["poisson", "--data", str(tmp_path), "--peaks", "10", "--images", "2"])
    recipe["main"]()
    noisy, transformed, restored = map(float, re.findall(r"\d+\.\d\d", capsys.readouterr().out))
    assert noisy + 8 < transformed < restored - 0.25


def test_cost_prints_evaluations_and_the_ratio_to_the_diffusion(load, monkeypatch, capsys):
    recipe = load("cost")
    monkeypatch.setitem(recipe["cost"].__globals__, "seconds", lambda draw, device: float(draw().network_evaluations))
    monkeypatch.setattr(sys, "argv", ["cost", *["--priors", "ddpm-mnist", "gaussian-mnist", "--repeats", "1"]])
    recipe["main"]()
    _, _, head, _, *rows = capsys.readouterr().out.strip().splitlines()
    assert head == "| prior | sampler | evaluations | seconds | ratio |"
    assert rows == [
        "| `ddpm-mnist` | `optimal-covariance` | 20 | 20.00 | 1 |",
        "| `gaussian-mnist` | `exact` | 0 | 0.00 | 0 |",
    ]


@pytest.mark.filterwarnings("ignore:Implausible")  # of random weights
def test_checkpoint_measures_the_reading_and_the_first_picture(load, monkeypatch, capsys, tmp_path):
    """Of a tiny network of random weights, in a folder of ours."""
    network = ADMUNet(base=32, widths=(32, 64), attention=(1,), head_channels=32)
    setup = {"head_channels": 32, "order": "legacy", "betas": "linear", "steps": 1000}
    genprior.save_prior(genprior.from_adm(network.state_dict(), **setup), tmp_path / "tiny")
    words = f"--prior {tmp_path / 'tiny'} --side 16 --samplers ddrm"
    monkeypatch.setattr(sys, "argv", ["checkpoint", *words.split()])
    load("checkpoint")["main"]()
    read, drawn, machine = capsys.readouterr().out.splitlines()
    size = (tmp_path / "tiny" / "model.safetensors").stat().st_size
    assert re.fullmatch(rf"read: \d+\.\d s, \d+\.\d\d of the {size / 1e6:.0f} MB of the weights, at most", read)
    assert re.fullmatch(r"ddrm: \d+\.\d s, the first with the reading, 20 evaluations", drawn)
    assert f"torch {torch.__version__}" in machine


def test_powers_of_blind_likelihoods_are_tried_and_put_back(load, monkeypatch, capsys, tmp_path):
    Image.fromarray(astronaut()).save(tmp_path / "astronaut.png")
    recipe = load("choose_blind")
    powers = recipe["POWERS"]
    before, seen = dict(powers), []

    def of_blurred(op, noise, photos, restored):
        seen.append((op, noise, powers[op]))
        return {"near": f"{len(photos)} of 1"}

    monkeypatch.setitem(recipe["main"].__globals__, "of_blurred", of_blurred)
    words = f"--data {tmp_path} --crops 1 --op gaussian-deblur --noise 0.01 --photograph 0.2 0.4"
    monkeypatch.setattr(sys, "argv", ["choose_blind", *words.split()])
    recipe["main"]()
    assert seen == [("gaussian-deblur", 0.01, replace(before["gaussian-deblur"], photograph=c)) for c in (0.2, 0.4)]
    assert powers == before
    head, _, first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    assert head.strip("| ").split(" | ") == ["b", "c", "d", "near"]
    assert [row.strip("| ").split(" | ")[1] for row in (first, second)] == ["0.2", "0.4"]

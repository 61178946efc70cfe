"""The recipe that measures what samplers cost beyond their networks, on the smallest input that lets it."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from genprior.noise import Noise
from genprior.operators import Denoise, Measurement
from genprior.samplers import find_sampler

BENCHMARKS = Path(__file__).parent.parent / "recipes" / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Run a benchmark as the script it is: what lies beside it can be imported."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name, **options: runpy.run_path(str(BENCHMARKS / f"{name}.py"), **options)


def test_overhead_is_a_short_recipe():
    assert len((BENCHMARKS / "overhead.py").read_text().splitlines()) <= 80


def test_overhead_prints_a_ratio_and_its_quartiles_for_every_pair(load, monkeypatch, capsys):
    sizes = {"--methods": "diffpir repaint mmps", "--size": 8, "--steps": 2, "--repeats": 2, "--milliseconds": 1}
    monkeypatch.setattr(sys, "argv", ["overhead", *(str(word) for pair in sizes.items() for word in pair)])
    load("overhead", run_name="__main__")
    machine, _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert f"torch {torch.__version__}" in machine
    found = {row.split(" | ")[0]: re.findall(r"([\d.]+) \(([\d.]+) - ([\d.]+)\)", row) for row in rows}
    assert {name: len(cells) for name, cells in found.items()} == {"| diffpir": 3, "| repaint": 1, "| mmps": 3}
    assert [row.split(" | ")[1] for row in rows] == ["1", "1", "5"]
    for cell in (cell for cells in found.values() for cell in cells):
        median, low, high = map(float, cell)
        assert low <= median <= high


@pytest.mark.parametrize(("method", "passes"), [("ddrm", 1), ("dps", 2), ("mmps", 5)])
def test_overhead_takes_the_bare_passes_off_and_only_those(load, monkeypatch, method, passes):
    """With a clock that ticks 1 in each pass of the network and 0.1 in each step: 0.1 over what passes there are."""
    recipe = load("overhead")
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

    prior = recipe["Network"](8, 1)
    prior.layers = Ticks()
    prior.passes_back = passes - 1
    monkeypatch.setitem(recipe["ratio"].__globals__, "Noise", Ticking)
    A = Denoise(prior.image_shape)
    with torch.no_grad():
        sampler = find_sampler(method, prior, 10)
        found = recipe["ratio"](prior, Measurement(torch.zeros(1, 3, 8, 8), A, 0.05), sampler)
    # One call of the noise begins, and one ends no step but the last; ddrm begins with two.
    noises = {"ddrm": 2 + 10, "dps": 1 + 9, "mmps": 1 + 9}[method]
    assert found == pytest.approx(1 + 0.1 * noises / (10 * passes))

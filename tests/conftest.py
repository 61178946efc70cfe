"""One thread: the tests' tensors are small, and threads that wait for each other cost more than they give.

And no GPU, neither here nor in the processes that tests begin: what is compared bit for bit is computed on CPUs.
"""

import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

RECIPES = Path(__file__).parent.parent / "recipes"

torch.set_num_threads(1)
os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def seeded():
    """New networks draw their weights from torch's global random state: the same in each test, whatever ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a recipe by name, as the script it is: what it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with torch.random.fork_rng(devices=[]):
            runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run

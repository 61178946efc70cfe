"""Two processes that share a step: the same weights on both, and a run that began on two goes on on one.

This file is also a script for torchrun, `test_processes.py FOLDER STEPS`. Each process sees other images, so weights
that are not shared drift apart at once; that they do without sharing is measured too, else equality would say nothing.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FAMILIES = ("ddpm", "vae", "nf", "gan", "flow-gan")


def launch(folder, steps, timeout):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}", __file__]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, folder, str(steps)], env=environment, timeout=timeout, check=True)
    return json.loads((folder / "differences.json").read_text())


def check(differences):
    for family in FAMILIES:
        assert differences[family]["weights"] == differences[family]["average"] == 0, family
        assert differences[f"{family}, not shared"]["weights"] > 1e-4, family


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    return folder, launch(folder, 8, timeout=500)


def test_weights_and_averages_of_every_family_are_the_same_on_both_processes(shared):
    check(shared[1])


def test_run_begun_on_two_processes_goes_on_on_one_to_the_same_weights(shared, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    whole = half_run(tmp_path / "whole", 6)
    resumed = half_run(shared[0] / "half", 6)
    for name, expected in whole.state_dict().items():
        # float64: six steps of Adam leave rounding of 1e-16 far below 1e-9
        torch.testing.assert_close(resumed.state_dict()[name], expected, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_weights_are_the_same_after_a_hundred_steps(tmp_path):
    differences = launch(tmp_path, 100, timeout=900)
    print(differences)
    check(differences)


def half_run(folder, steps):
    """Some steps of a diffusion in float64, at a rate that does not depend on how many there are."""
    import test_kills

    from genprior.training.loop import Settings, train

    prior, objectives = test_kills.network("ddpm")
    prior.double(), [objective.double() for objective in objectives]

    class Doubles(test_kills.Noises):
        def __getitem__(self, item):
            example = super().__getitem__(item)
            return example | {"x": example["x"].double()}

    return train(prior, objectives, Doubles(), Settings(steps, batch=4, decay=0.0, warmup=2), folder, progress=False)


def difference(tensors):
    """The largest difference of any number from that of the first process."""
    import torch.distributed as dist

    largest = 0.0
    for tensor in tensors:
        first = tensor.detach().clone()
        dist.broadcast(first, 0)
        largest = max(largest, float((tensor.detach() - first).abs().max()))
    every = torch.tensor(largest)
    dist.all_reduce(every, dist.ReduceOp.MAX)
    return float(every)


def compare(folder, steps):
    """Write the differences of all families between the processes, with and without sharing."""
    import test_kills
    from accelerate import PartialState

    from genprior.training import descent
    from genprior.training.loop import Settings, train

    shared_step, found = descent.Descent.step, {}

    def step_alone(self, batch, step):
        self.objectives = [getattr(objective, "module", objective) for objective in self.objectives]
        return shared_step(self, batch, step)

    for family in FAMILIES:
        for name, step in ((family, shared_step), (f"{family}, not shared", step_alone)):
            descent.Descent.step = step
            prior, objectives = test_kills.network(family)
            settings = Settings(steps if step is shared_step else 2, batch=4, accumulate=2, warmup=0, lr=1e-3)
            average = train(prior, objectives, test_kills.Noises(), settings, folder / name, progress=False)
            weights = [p for objective in objectives for p in objective.state_dict().values()]
            found[name] = {"weights": difference(weights), "average": difference(average.state_dict().values())}
    descent.Descent.step = shared_step
    half_run(folder / "half", 3)
    if PartialState().is_main_process:
        (folder / "differences.json").write_text(json.dumps(found))


if __name__ == "__main__":
    compare(Path(sys.argv[1]), int(sys.argv[2]))

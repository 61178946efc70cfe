"""Training that is killed by SIGKILL at random times, saves included, ends with the weights of training that was not.

This file is also a script, `python test_kills.py FOLDER KILLS protected|unprotected FAMILY …`. It imports once and
forks a child for every attempt, so that the time of an attempt is that of training. A run is attempted, and killed at a
time drawn uniformly from the duration of the whole run, until an attempt comes to its end; then the next run begins,
until as many were killed as were asked for. Every step is saved, and every fourth validated.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from genprior.nets.gan import Discriminator
from genprior.priors.ddpm import DDPM
from genprior.priors.flow import Flow
from genprior.priors.folder import read_card
from genprior.priors.gan import GAN
from genprior.priors.vae import VAE
from genprior.training import checkpoint, loop
from genprior.training.adversarial import DiscriminatorLoss, GeneratorLoss
from genprior.training.bound import EvidenceBound
from genprior.training.flow_gan import flow_gan
from genprior.training.likelihood import MaximumLikelihood
from genprior.training.loop import Settings, train
from genprior.training.objectives import Denoising

SHAPE, STEPS = (1, 8, 8), 12
FAMILIES = ("ddpm", "vae", "nf", "gan")


class Noises(Dataset):
    """Random images."""

    def __len__(self):
        return 12

    def __getitem__(self, item):
        x = np.random.default_rng((5, item % 12)).random(SHAPE, dtype=np.float32)
        return {"x": torch.from_numpy(x), "item": item}


def network(family):
    """A small prior of the family and its objectives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "ddpm":
            prior = DDPM(SHAPE, widths=(8, 8), blocks=1)
            return prior, [Denoising(prior)]
        if family == "vae":
            prior = VAE(SHAPE, widths=(4, 4), blocks=(0, 0), latent=3)
            return prior, [EvidenceBound(prior, warmup=10)]
        if family == "nf":
            prior = Flow(SHAPE, widths=(4, 4), steps=(1, 1))
            return prior, [MaximumLikelihood(prior)]
        if family == "flow-gan":
            prior = Flow(SHAPE, widths=(4, 4), steps=(1, 1))
            return prior, flow_gan(prior, Discriminator(SHAPE, widths=(4, 4), hidden=8), weight=3.0)
        prior, discriminator = (
            GAN(SHAPE, widths=(4, 4), hidden=8, latent=3),
            Discriminator(SHAPE, widths=(4, 4), hidden=8),
        )
        return prior, [DiscriminatorLoss(prior, discriminator), GeneratorLoss(prior, discriminator)]


def run(family, out, **settings):
    prior, objectives = network(family)
    settings = {
        "steps": STEPS,
        "batch": 4,
        "save_every": 1,
        "validate_every": 4,
        "log_every": 3,
        "patience": None if family == "gan" else 99,
    } | settings
    train(prior, objectives, Noises(), Settings(**settings), out, validation=Noises(), progress=False)


def unprotect():
    """Write checkpoints in place and believe what is there, as most trainers do."""

    def write_folder(folder, write):
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)

    checkpoint.write_folder = loop.write_folder = write_folder
    checkpoint.damage = lambda folder: None


def attempt(family, out, seconds):
    """Train in a child that is killed after `seconds`; whether it came to its end, and how."""
    began, child = time.monotonic(), os.fork()
    if not child:
        code = 1
        try:
            run(family, out)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    while time.monotonic() - began < seconds:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_random(family, folder, kills):
    """How many runs ended with the weights of the one that was not killed, and how many did not."""
    rng = random.Random(family)
    began = time.monotonic()
    assert attempt(family, folder / "whole", 1e9) == 0
    duration, expected = time.monotonic() - began, read_card(folder / "whole" / "prior")["sha256"]
    counts = {"kills": 0, "while saving": 0, "equal": 0, "different": 0, "failed": 0}
    while counts["kills"] < kills:
        out = folder / f"{counts['equal'] + counts['different'] + counts['failed']}"
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            code = attempt(family, out, rng.uniform(0, duration) if counts["kills"] < kills else 1e9)
            counts["kills"] += code == -signal.SIGKILL
            counts["while saving"] += code == -signal.SIGKILL and any(out.glob(".step-*.tmp"))
        same = code == 0 and read_card(out / "prior")["sha256"] == expected
        counts["equal" if same else "different" if code == 0 else "failed"] += 1
    return counts


def nursery(folder, kills, families, protection="protected", timeout=300):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, folder, kills, protection, *families]
    done = subprocess.run(map(str, command), env=environment, timeout=timeout, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def check(counts, kills):
    for family, count in counts.items():
        assert count["kills"] == kills, family
        assert count["different"] == count["failed"] == 0, (family, count)
        assert count["equal"] > 0, family


def test_killed_runs_of_every_family_end_with_the_weights_of_whole_ones(tmp_path):
    check(nursery(tmp_path, 2, FAMILIES), 2)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_killed_runs_end_with_the_weights_of_whole_ones(tmp_path, family):
    counts = nursery(tmp_path, 50, [family], timeout=1800)
    print(counts)
    check(counts, 50)
    assert counts[family]["while saving"] > 5  # else the kills say nothing of saves


@pytest.mark.slow
def test_killed_runs_fail_without_the_protection(tmp_path):
    counts = nursery(tmp_path, 50, ["nf"], "unprotected", timeout=1800)
    print(counts)
    assert counts["nf"]["failed"] + counts["nf"]["different"] > 0


if __name__ == "__main__":
    directory, number, mode, *names = sys.argv[1:]
    torch.set_num_threads(1)
    run("vae", Path(directory) / "first")  # imports and makes what is made once, for all children
    if mode == "unprotected":
        unprotect()
    print(json.dumps({name: killed_at_random(name, Path(directory) / name, int(number)) for name in names}))

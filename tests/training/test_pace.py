"""A run of so many minutes makes the steps that fit into them, and is the run of that number of steps."""

import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_card
from genprior.priors.store import find_prior
from genprior.training.loop import Settings, train
from genprior.training.objectives import NoisePrediction

BATCH = 2


@pytest.fixture
def clock(monkeypatch):
    """Of a machine on which nothing takes time but what the data say."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    return Clock


class Slow(Dataset):
    """Images that take `seconds` a step, another time from step `change` on; at step `stop` there is an end."""

    def __init__(self, clock, seconds=1.0, *, change=10**9, then=1.0, stop=10**9):
        self.clock, self.seconds, self.change, self.then, self.stop = clock, seconds, change, then, stop

    def __len__(self):
        return 6

    def __getitem__(self, item):
        step, first = divmod(item, BATCH)
        if step == self.stop:
            raise InterruptedError("power cut")
        if first == 0:
            self.clock.now += self.seconds if step < self.change else self.then
        x = np.random.default_rng((3, item % 6)).random((1, 4, 4))
        return {"x": torch.from_numpy(x).float(), "item": item}


def run(out, data, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = DDPM((1, 4, 4), widths=(4,), patch=1, blocks=1, steps=10)
    chosen = {"steps": 1000, "batch": BATCH, "lr": 1e-2, "warmup": 3, "log_every": 1, "save_every": 10} | settings
    prior = train(prior, [NoisePrediction(prior)], data, Settings(**chosen), out, progress=False)
    return torch.cat([t.flatten() for t in prior.state_dict().values()])


def test_minutes_are_the_steps_that_fit(tmp_path, clock):
    """After 20 steps 40 of 60 seconds are left; nine tenths of them are 36 steps."""
    paced = run(tmp_path / "paced", Slow(clock), minutes=1.0)
    card = read_card(tmp_path / "paced" / "prior")
    assert (card["steps"], card["settings"]["steps"], card["settings"]["minutes"]) == (56, 56, 1.0)
    assert torch.equal(paced, run(tmp_path / "plain", Slow(clock), steps=56))


def test_steps_are_the_most(tmp_path, clock):
    assert torch.equal(
        run(tmp_path / "paced", Slow(clock), minutes=1.0, steps=30), run(tmp_path / "plain", Slow(clock), steps=30)
    )


def test_first_steps_do_not_count(tmp_path, clock):
    """They warm up: four of 5 seconds, then one second each, leave 24 of 60, of which nine tenths are 21 steps."""
    clock.now = 100.0
    data = Slow(clock, 5.0, change=4)
    run(tmp_path, data, minutes=1.0)
    assert read_card(tmp_path / "prior")["steps"] == 20 + 21


def test_run_that_becomes_slow_ends_at_the_minute(tmp_path, clock):
    """After 20 steps of a second come steps of ten: the fifth, at 70 seconds, is the first past the minute."""
    run(tmp_path, Slow(clock, change=20, then=10.0), minutes=1.0)
    card = read_card(tmp_path / "prior")
    assert (card["steps"], card["seconds"]) == (25, 70)
    assert find_prior(tmp_path) == tmp_path / "prior"


def test_run_goes_on_to_the_steps_that_it_had_found(tmp_path, clock):
    """And not to those that fit into what is left, where the machine has become slow."""
    straight = run(tmp_path / "straight", Slow(clock), minutes=1.0)
    with pytest.raises(InterruptedError):
        run(tmp_path / "run", Slow(clock, stop=33), minutes=1.0)
    clock.now += 1000  # while it was stopped
    resumed = run(tmp_path / "run", Slow(clock, 1.1), minutes=1.0)
    assert read_card(tmp_path / "run" / "prior")["steps"] == 56
    assert torch.equal(resumed, straight)


def test_run_that_has_ended_is_given_more_minutes_before_its_rate_has_fallen_only(tmp_path, clock):
    with pytest.raises(InterruptedError):
        run(tmp_path, Slow(clock, stop=33), minutes=1.0)
    run(tmp_path, Slow(clock), minutes=2.0)
    # from step 33 on, after 33 seconds: 53 steps in 53, then nine tenths of 67
    assert read_card(tmp_path / "prior")["steps"] == 53 + 60
    with pytest.raises(ValueError, match="since one decays"):
        run(tmp_path, Slow(clock), minutes=3.0)


def test_minutes_are_a_number_above_zero():
    with pytest.raises(ValueError, match=r"minutes is 0: give a number above 0, or None"):
        Settings(10, minutes=0)

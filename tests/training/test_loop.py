"""The training loop: exact resume, accumulation, several processes, schedule, early stopping, log and card.

Networks and images are tiny. Where two orders of summation are compared, everything is float64: Adam divides gradients
by their size, which in float32 would turn rounding of gradients near 0 into steps of full length.
This file is also a script, `python test_loop.py MODE OUT`, so that runs can be killed and shared by processes.
"""

import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset

from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_card, read_prior
from genprior.training import checkpoint, loop
from genprior.training.data import item_numbers
from genprior.training.ema import EMA
from genprior.training.loop import Settings, train
from genprior.training.objectives import NoisePrediction

STEPS, BATCH = 14, 4


class Squares(Dataset):
    """Twelve random images; from item `stop` on it fails, from item `nan` on its images are not finite."""

    def __init__(self, dtype=torch.float32, stop=math.inf, nan=math.inf):
        self.dtype, self.stop, self.nan = dtype, stop, nan

    def __len__(self):
        return 12

    def __getitem__(self, item):
        if item >= self.stop:
            raise InterruptedError("power cut")
        x = torch.from_numpy(np.random.default_rng((7, item % 12)).random((1, 4, 4))).to(self.dtype)
        return {"x": x * math.nan if item >= self.nan else x, "item": item}


def tiny(dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DDPM((1, 4, 4), widths=(8, 8), patch=1, blocks=1, steps=10).to(dtype)


def run(out, data=None, *, dtype=torch.float32, validation=None, finish=None, preview=None, card=None, **settings):
    prior = tiny(dtype)
    settings = {
        "steps": STEPS, "batch": BATCH, "lr": 1e-2, "warmup": 3, "ema": 0.9, "log_every": 1, "save_every": 4
    } | settings  # fmt: skip
    return train(
        prior,
        [NoisePrediction(prior)],
        data or Squares(dtype),
        Settings(**settings),
        out,
        validation=validation,
        finish=finish,
        preview=preview,
        card=card,
        progress=False,
    )


def weights(prior):
    return torch.cat([t.flatten() for t in prior.state_dict().values()])


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def environment():
    """One that gives a child the kernels of this process: as many threads."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Folder and weights of a run that was never stopped."""
    out = tmp_path_factory.mktemp("straight")
    return out, weights(run(out))


# ---- resume ----


def test_interrupted_run_resumes_to_the_same_weights_bit_for_bit(tmp_path, straight):
    with pytest.raises(InterruptedError):
        run(tmp_path, Squares(stop=9 * BATCH))
    assert checkpoint.latest(tmp_path).name == "step-0000009"  # the last whole one, though saved every four
    assert torch.equal(weights(run(tmp_path)), straight[1])


def test_run_killed_while_saving_resumes_to_the_same_weights_bit_for_bit(tmp_path, straight):
    killed = subprocess.run([sys.executable, __file__, "killed", tmp_path], env=environment(), timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".step-0000012.*.tmp"))
    assert checkpoint.latest(tmp_path).name == "step-0000008"
    assert torch.equal(weights(run(tmp_path)), straight[1])
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_prior_without_a_checkpoint_is_not_trained_over(tmp_path):
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior" / "config.json").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder"):
        run(tmp_path)
    assert (tmp_path / "prior" / "config.json").read_text() == "mine"


def test_finished_run_is_not_trained_again(tmp_path, straight):
    out, expected = straight
    card = read_card(out / "prior")
    assert torch.equal(weights(run(out)), expected)
    assert read_card(out / "prior")["steps"] == card["steps"] == STEPS


def test_training_depends_on_the_steps_that_resume_restores(straight):
    # If 14 steps ended where 13 do, the equalities above would say nothing.
    before = checkpoint.latest(straight[0]).parent / "step-0000012"
    ema = load_file(before / "state.safetensors")
    early = torch.cat([ema[f"ema/0.prior.{key}"].flatten() for key in tiny().state_dict()])
    assert (early - straight[1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "other",
    [
        {"batch": 6}, {"lr": 2e-2}, {"warmup": 2}, {"decay": 0.5}, {"weight_decay": 0.0}, {"betas": (0.9, 0.999)},
        {"clip": 2.0}, {"ema": 0.8}, {"seed": 1},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_resume_with_other_settings_is_refused(straight, other):
    ((name, value),) = other.items()
    value = list(value) if name == "betas" else value
    with pytest.raises(ValueError, match=re.escape(f"begun with other settings: {name} is {value!r}, not ")):
        run(straight[0], **other)


def test_run_of_another_version_is_refused_with_what_its_checkpoint_lacks(tmp_path):
    """As those that were begun before checkpoints named their objectives."""
    run(tmp_path, steps=4)
    newest = checkpoint.latest(tmp_path)
    state = checkpoint.read_state(newest)
    assert tuple(state) == loop.STATE
    del state["objectives"]
    (newest / "state.json").write_text(json.dumps(state))
    checkpoint.mark_complete(newest)
    with pytest.raises(ValueError, match=r"another version of genprior: .* step-0000004 does not say its objectives\."):
        run(tmp_path, steps=8)
    assert read_prior(newest).sample(1, steps=2).isfinite().all()


def test_resume_may_log_save_and_load_otherwise(tmp_path, straight):
    with pytest.raises(InterruptedError):
        run(tmp_path, Squares(stop=9 * BATCH))
    free = {"log_every": 3, "save_every": 5, "validate_every": 2, "keep": 1, "workers": 1}
    assert torch.equal(weights(run(tmp_path, validation=Squares(), **free)), straight[1])


def test_steps_may_change_before_the_decay_only(tmp_path, straight):
    with pytest.raises(InterruptedError):
        run(tmp_path, Squares(stop=9 * BATCH), steps=30)
    # At step 9 neither 30 steps nor 14, which decay from step 9.8 on, have begun to decay; 9 have, from step 6.3 on.
    with pytest.raises(ValueError, match=r"is at step 9, where the learning rates of 30 steps and of 9 differ"):
        run(tmp_path, steps=9)
    assert torch.equal(weights(run(tmp_path)), straight[1])
    with pytest.raises(ValueError, match="resume with steps=14"):
        run(tmp_path, steps=30)


def test_run_of_another_network_is_refused(straight):
    prior = DDPM((1, 4, 4), widths=(4, 8), patch=1, blocks=1, steps=10)
    settings = Settings(**read_card(straight[0] / "prior")["settings"])
    with pytest.raises(ValueError, match=r"step-0000014 is of another network"):
        train(prior, [NoisePrediction(prior)], Squares(), settings, straight[0], progress=False)


# ---- the same step, shared otherwise ----


def test_accumulated_micro_batches_give_the_weights_of_the_whole_batch(tmp_path):
    # float64 has 53 bits; 5 steps of Adam amplify rounding by far less than the 10 bits left here per step.
    one = weights(run(tmp_path / "1", steps=5, dtype=torch.float64))
    two = weights(run(tmp_path / "2", steps=5, dtype=torch.float64, accumulate=2))
    assert (one - weights(tiny(torch.float64))).abs().max() > 1e-3
    torch.testing.assert_close(two, one, rtol=0, atol=1e-9)


def test_two_processes_give_the_weights_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    subprocess.run([*launcher, __file__, "shared", tmp_path / "2"], env=environment(), timeout=100, check=True)
    one = run(tmp_path / "1", **SHARED)
    two = load_file(tmp_path / "2/prior/model.safetensors")
    assert read_card(tmp_path / "2/prior")["processes"] == 2
    for key, expected in one.state_dict().items():
        torch.testing.assert_close(two[key], expected, rtol=0, atol=1e-9)
    # The validation error is summed in float32: relative rounding of a few 2^-24.
    errors = [[entry["validation"] for entry in log_of(tmp_path / n) if "validation" in entry] for n in "12"]
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)


# Two micro-batches as well, so that gradients are added on each process before they are averaged over both.
SHARED = {
    "steps": 3,
    "accumulate": 2,
    "dtype": torch.float64,
    "validation": Squares(torch.float64),
    "validate_every": 2,
}


def test_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"batch of 5 .* 1 processes x 2 micro-batches; make it a multiple of 2"):
        run(tmp_path, batch=5, accumulate=2)


# ---- weights, averages, schedule ----


def test_ema_follows_its_formula():
    module = torch.nn.Linear(1, 1, bias=False).double()
    module.register_buffer("count", torch.zeros(()))
    values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0]
    module.weight.data.fill_(values[0])
    ema, expected = EMA(module, decay=0.3), values[0]
    for step, value in enumerate(values[1:]):
        module.weight.data.fill_(value)
        module.count.fill_(value)
        ema.update(step)
        decay = min(0.3, (1 + step) / (10 + step))  # 0.1, 2/11, 0.25, 4/13 > 0.3: both sides of the minimum
        expected = decay * expected + (1 - decay) * value
        assert float(ema.module.weight) == pytest.approx(expected, rel=1e-14)
        assert float(ema.module.count) == value
    assert not ema.module.weight.requires_grad


def test_result_is_the_average_of_the_weights(tmp_path):
    """From the checkpoints of every step, by the formula."""
    result = run(tmp_path, steps=4, save_every=1, keep=9)
    average = {key: t.clone() for key, t in tiny().named_parameters()}
    for step, folder in enumerate(sorted(tmp_path.glob("step-*"))):
        saved = load_file(folder / "state.safetensors")
        decay = min(0.9, (1 + step) / (10 + step))
        for key, mine in average.items():
            average[key] = decay * mine + (1 - decay) * saved[f"objectives/0.prior.{key}"]
    for key, mine in result.named_parameters():
        torch.testing.assert_close(mine, average[key], rtol=1e-5, atol=1e-6)  # float32, four steps


def test_learning_rate_rises_stays_and_falls_to_zero():
    settings = Settings(steps=100, lr=2.0, warmup=10, decay=0.3)
    rates = [settings.learning_rate(step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * k for k in range(1, 11)])
    assert rates[10:71] == [2.0] * 61
    assert rates[85] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(2 / 30)
    assert rates[100] == 0


def test_learning_rate_before_the_decay_does_not_depend_on_steps():
    short, long = Settings(steps=100, warmup=10), Settings(steps=1000, warmup=10)
    assert all(short.learning_rate(step) == long.learning_rate(step) for step in range(71))
    assert short.learning_rate(72) < long.learning_rate(72)


def test_optimiser_steps_by_the_learning_rate(tmp_path):
    """The first step of Adam is lr g / (|g| + 1e-8) per weight: of length lr where |g| >> 1e-8, never more."""
    result = run(tmp_path, steps=1, lr=1e-2, warmup=10, decay=0.0, weight_decay=0.0, ema=0.0)
    largest = float((weights(result) - weights(tiny())).abs().max())
    assert largest == pytest.approx(1e-3, rel=1e-3)


# ---- trouble, early stopping ----


def test_divergence_raises_and_leaves_the_last_sound_checkpoint(tmp_path, straight):
    # Items of step 5 on are not finite; the log is rarer than the checkpoints, so saving must look by itself.
    with pytest.raises(FloatingPointError, match=r"diverged at step 6: .* learning rate of 0\.01\."):
        run(tmp_path, Squares(nan=5 * BATCH), save_every=2, log_every=100)
    assert checkpoint.latest(tmp_path).name == "step-0000004"
    assert torch.equal(weights(run(tmp_path, save_every=2)), straight[1])


def test_patience_stops_training_and_stays_stopped(tmp_path):
    # With lr = 0 no validation is better than the first: at 2, then 4 and 6 are the two that patience allows.
    setting = {"lr": 0.0, "validation": Squares(), "validate_every": 2, "save_every": 2, "patience": 2}
    for _ in range(2):
        run(tmp_path, **setting)
        assert read_card(tmp_path / "prior")["steps"] == 6
        assert [entry["step"] for entry in log_of(tmp_path) if "validation" in entry] == [2, 4, 6]


def test_patience_counts_validations_before_an_interruption(tmp_path):
    setting = {"lr": 0.0, "validation": Squares(), "validate_every": 2, "save_every": 4, "patience": 2}
    with pytest.raises(InterruptedError):
        run(tmp_path, Squares(stop=5 * BATCH), **setting)
    run(tmp_path, **setting)
    assert read_card(tmp_path / "prior")["steps"] == 6


def test_patience_does_not_stop_what_improves(tmp_path):
    run(tmp_path, validation=Squares(), validate_every=7, patience=1, lr=1e-3)
    assert read_card(tmp_path / "prior")["steps"] == STEPS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patience": 2}, "patience is 2, but there is no validation data"),
        ({"save_every": 0}, "save_every is 0: give a whole number, at least 1"),
        ({"keep": 0}, "keep is 0"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"steps": 2.5}, "steps is 2.5: give a whole number"),
        ({"lr": -1e-3}, "lr is -0.001: give a number, at least 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"warmup": -3}, "warmup is -3"),
        ({"decay": -0.5}, r"decay is -0\.5: give a fraction"),
        ({"ema": 1.0}, r"ema is 1\.0"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0\.9, 1\.0\)"),
        ({"clip": 0.0}, r"clip is 0\.0: give a number above 0"),
        ({"workers": -1}, "workers is -1"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **wrong)


# ---- what is written ----


def test_log_has_every_step_once_after_an_interruption(tmp_path):
    with pytest.raises(InterruptedError):
        run(tmp_path, Squares(stop=10 * BATCH))
    assert [entry["step"] for entry in log_of(tmp_path)] == list(range(1, 11))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')  # the machine stopped here
    run(tmp_path)
    assert [entry["step"] for entry in log_of(tmp_path)] == list(range(1, STEPS + 1))


def test_card_says_where_the_weights_come_from(tmp_path):
    run(tmp_path, steps=2, card={"licence": "CC0", "data": "squares"})
    card = read_card(tmp_path / "prior")
    assert (card["licence"], card["data"], card["steps"], card["processes"]) == ("CC0", "squares", 2, 1)
    assert card["device"] == f"cpu, {torch.get_num_threads()} threads"
    assert 0 <= card["seconds"] < 60
    expected = Settings(steps=2, batch=BATCH, lr=1e-2, warmup=3, ema=0.9, log_every=1, save_every=4)
    assert card["settings"] == json.loads(json.dumps(asdict(expected)))


def test_written_prior_is_the_returned_one_after_finish(tmp_path):
    result = run(tmp_path, steps=2, finish=lambda prior: prior.decoder_variance.fill_(0.125))
    stored = read_prior(tmp_path / "prior")
    assert float(stored.decoder_variance) == 0.125
    assert torch.equal(weights(stored), weights(result))
    assert not result.training


def test_preview_shows_the_averaged_prior(tmp_path):
    seen = []
    run(tmp_path, steps=2, preview=lambda prior: seen.append(prior) or torch.zeros(1, 1, 4, 4), validate_every=1)
    assert torch.equal(weights(seen[-1]), weights(read_prior(tmp_path / "prior")))
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["samples-0000001.png", "samples-0000002.png"]


def test_global_random_state_is_neither_read_nor_written(tmp_path, straight):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        assert torch.equal(weights(run(tmp_path)), straight[1])
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
        assert random.getstate() == states[2]


def test_bf16_computes_networks_in_bfloat16_and_keeps_weights_in_float32(tmp_path):
    seen = set()
    prior = tiny()
    prior.net.tail.register_forward_hook(lambda module, given, h: seen.add(h.dtype))
    settings = Settings(steps=1, batch=BATCH, precision="bf16")
    result = train(prior, [NoisePrediction(prior)], Squares(), settings, tmp_path, progress=False)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in result.parameters()} == {torch.float32}


def test_precisions_alternate_in_one_process_and_validation_has_that_of_training(tmp_path):
    losses = []
    for k, precision in enumerate(("no", "bf16", "no")):
        seen = set()
        prior = tiny()
        prior.net.tail.register_forward_hook(lambda module, given, h, seen=seen: seen.add((module.training, h.dtype)))
        settings = Settings(steps=1, batch=BATCH, precision=precision)
        out = tmp_path / str(k)
        train(prior, [NoisePrediction(prior)], Squares(), settings, out, validation=Squares(), progress=False)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        assert seen == {(True, dtype), (False, dtype)}
        losses.append(log_of(out)[0]["loss"])
    assert losses[0] == losses[2]


@pytest.mark.parametrize("fast", [True, False])
def test_precision_is_decided_by_the_device_anew_at_each_start(tmp_path, monkeypatch, fast):
    seen = set()

    def begin(steps):
        prior = tiny()
        prior.net.tail.register_forward_hook(lambda module, given, h: seen.add(h.dtype))
        settings = Settings(steps=steps, batch=BATCH, decay=0, save_every=1)
        train(prior, [NoisePrediction(prior)], Squares(), settings, tmp_path, progress=False)
        return json.loads((tmp_path / "prior" / "card.json").read_text())["precision"]

    monkeypatch.setattr("genprior.training.precision.has_bfloat16", lambda device: fast)
    assert begin(1) == ("bfloat16 autocast" if fast else "float32")
    monkeypatch.setattr("genprior.training.precision.has_bfloat16", lambda device: not fast)
    assert begin(2) == ("float32" if fast else "bfloat16 autocast")
    assert seen == {torch.bfloat16, torch.float32}


def test_log_tells_items_per_second_of_training_alone(tmp_path):
    def slow_look(prior):
        time.sleep(1.0)
        return {"looked": 1.0}

    prior, settings = tiny(), Settings(steps=6, batch=BATCH, log_every=2, validate_every=2)
    began = time.perf_counter()
    train(prior, [NoisePrediction(prior)], Squares(), settings, tmp_path, measure=slow_look, progress=False)
    elapsed = time.perf_counter() - began
    rates = [entry["items per second"] for entry in log_of(tmp_path) if "items per second" in entry]
    assert len(rates) == 3
    # Three looks take three seconds; the steps took what the rates say, at most what is left of the whole.
    assert sum(2 * BATCH / rate for rate in rates) <= elapsed - 3


def test_item_numbers_are_made_as_they_are_needed(tmp_path, monkeypatch):
    made = []

    def counted(*arguments):
        for numbers in item_numbers(*arguments):
            made.append(numbers)
            yield numbers

    monkeypatch.setattr(loop, "item_numbers", counted)
    with pytest.raises(InterruptedError):
        run(tmp_path, Squares(stop=3 * BATCH), steps=1000)
    assert made == [list(range(k * BATCH, (k + 1) * BATCH)) for k in range(4)]


def killed_while_saving(out):
    """Train, and die by SIGKILL with half of the third checkpoint written."""
    save_file, calls = checkpoint.save_file, []

    def save_half(tensors, path):
        calls.append(path)
        save_file(tensors, path)
        if len(calls) == 3:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save_file = save_half
    run(out)


if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    {"killed": killed_while_saving, "shared": lambda out: run(out, **SHARED)}[mode](folder)

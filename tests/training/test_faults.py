"""Faults in training: what is kept, what is said, and that going on gives the weights of a run without the fault."""

import errno
import json
import os
import signal

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker
from safetensors import SafetensorError
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset

from genprior.nets.gan import Discriminator
from genprior.priors.folder import read_card
from genprior.priors.gan import GAN
from genprior.training import checkpoint, faults, loop
from genprior.training.adversarial import DiscriminatorLoss, GeneratorLoss
from genprior.training.loop import Settings, train

SHAPE, STEPS, BATCH = (1, 4, 4), 6, 4


class Noises(Dataset):
    """Twelve random images; `event` is called when item `at` is asked for."""

    def __init__(self, at=-1, event=None, dtype=torch.float32):
        self.at, self.event, self.dtype = at, event, dtype

    def __len__(self):
        return 12

    def __getitem__(self, item):
        if item == self.at:
            self.event()
        x = np.random.default_rng((5, item % 12)).random(SHAPE)
        return {"x": torch.from_numpy(x).to(self.dtype), "item": item}


def network(dtype=torch.float32):
    """An adversarial pair: two objectives, so that the first has made its step when the second meets a fault.

    The discriminator does not compare the images of a micro-batch, so that it is the same however many there are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = GAN(SHAPE, latent=3, widths=(4, 4), hidden=8)
        discriminator = Discriminator(SHAPE, widths=(4, 4), hidden=8, compare=False)
    prior, discriminator = prior.to(dtype), discriminator.to(dtype)
    return prior, [DiscriminatorLoss(prior, discriminator, every=2), GeneratorLoss(prior, discriminator)]


def run(out, data=None, *, pair=None, dtype=torch.float32, arguments=None, **settings):
    prior, objectives = pair or network(dtype)
    chosen = {"steps": STEPS, "batch": BATCH, "lr": 1e-3, "warmup": 2, "save_every": 2, "clip": 10.0} | settings
    arguments = {"progress": False} | (arguments or {})
    return train(prior, objectives, data or Noises(dtype=dtype), Settings(**chosen), out, **arguments)


def weights(prior):
    return torch.cat([t.flatten() for t in prior.state_dict().values()])


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C as in the foreground, wherever these tests run."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return weights(run(tmp_path_factory.mktemp("straight")))


# ---- damaged checkpoints ----


def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, straight):
    run(tmp_path)
    path = checkpoint.path_of(tmp_path, STEPS)
    os.truncate(path / "state.safetensors", 1000)
    with pytest.warns(UserWarning, match="step-0000006 is damaged .* goes on from step-0000004"):
        again = run(tmp_path)
    assert torch.equal(weights(again), straight)
    assert sorted(p.name for p in tmp_path.glob("*step*")) == ["damaged-step-0000006", "step-0000004", "step-0000006"]
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [6]


# ---- numbers that are not finite ----


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf")), (float("-inf"), float("inf"))])
def test_first_step_that_was_not_finite_is_named(tmp_path, loss, norm):
    finite = faults.Finite()
    for step in range(4):
        finite.note(step, torch.tensor(1.0), torch.tensor(2.0))
    finite.check(Settings(steps=10), tmp_path)
    finite.note(4, torch.tensor(loss), torch.tensor(norm))
    finite.note(5, torch.tensor(float("nan")), torch.tensor(1.0))
    with pytest.raises(FloatingPointError, match="diverged at step 5: "):
        finite.check(Settings(steps=10), tmp_path)


class Waits(TorchDispatchMode):
    """How often the host asks for a number, for which it waits until the device has it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Plain(torch.nn.Module):
    """An objective that does not wait itself, as noise on the CPU does, whose keys are checked there."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, batch, step):
        loss = (self.prior.decode(batch["x"].flatten(1)[:, :3]) - batch["x"]).square().mean()
        return loss, {"loss": loss.detach()}


def test_steps_that_log_nothing_do_not_wait_for_the_device(tmp_path):
    counts = []
    for steps in (2, 6):
        prior, _ = network()
        with Waits() as waits:
            seldom = {"save_every": 100, "log_every": 100, "validate_every": 100}
            run(tmp_path / str(steps), pair=(prior, [Plain(prior)]), steps=steps, **seldom)
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0


# ---- a full disk ----


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # what safetensors 0.8 raises on a file system that is full
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["files", "safetensors"],
)
def test_full_disk_stops_training_with_words_and_leaves_whole_checkpoints(tmp_path, straight, monkeypatch, error):
    save_file, calls = checkpoint.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) >= 2:
            path.write_bytes(b"half")
            raise error
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(OSError, match=r"The disk of .* is full.*free some space and call again") as raised:
            run(tmp_path)
    assert raised.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.glob("*step*")] == ["step-0000002"]  # what was half-written is gone
    assert checkpoint.damage(tmp_path / "step-0000002") is None
    assert torch.equal(weights(run(tmp_path)), straight)


def test_other_errors_of_the_file_system_are_told_as_they_are(tmp_path):
    with pytest.raises(PermissionError, match="not yours"), faults.full_disk_explained(tmp_path):
        raise PermissionError(errno.EACCES, "not yours")
    with pytest.raises(SafetensorError, match="os error 5"), faults.full_disk_explained(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: Input/output error (os error 5)")


# ---- too little memory ----


class Small(torch.nn.Module):
    """An objective on a device with room for `room` images."""

    def __init__(self, objective, room):
        super().__init__()
        self.objective, self.room, self.tried = objective, room, []

    def forward(self, batch, step):
        self.tried.append(len(batch["item"]))
        if len(batch["item"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return self.objective(batch, step)


def small(rooms, dtype=torch.float32):
    prior, objectives = network(dtype)
    return prior, [Small(objective, room) for objective, room in zip(objectives, rooms)]


@pytest.mark.parametrize("rooms", [(1, 4), (4, 1), (2, 1)])
def test_auto_batch_gives_the_weights_of_the_whole_batch(tmp_path, rooms):
    # float64 and a few steps of Adam, which turn rounding of 1e-16 into less than 1e-9, see test_loop
    whole = weights(run(tmp_path / "whole", dtype=torch.float64, steps=3))
    prior, objectives = small(rooms, torch.float64)
    parts = weights(run(tmp_path / "parts", pair=(prior, objectives), dtype=torch.float64, steps=3, auto_batch=True))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)
    assert read_card(tmp_path / "parts" / "prior")["settings"]["accumulate"] == 4


def test_gradient_of_an_attempt_that_failed_half_way_is_forgotten(tmp_path):
    """Memory that is too little in the second micro-batch only, when the first has left its gradient."""
    whole = weights(run(tmp_path / "whole", dtype=torch.float64, steps=1))
    prior, objectives = small((4, 4), torch.float64)
    objectives[0].register_forward_pre_hook(lambda own, _: setattr(own, "room", 0 if len(own.tried) == 1 else 4))
    options = {"dtype": torch.float64, "steps": 1, "accumulate": 2, "auto_batch": True}
    parts = weights(run(tmp_path / "parts", pair=(prior, objectives), **options))
    assert objectives[0].tried == [2, 2, 1, 1, 1, 1]
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)


def test_auto_batch_remembers_what_fits_when_it_resumes(tmp_path):
    prior, objectives = small((2, 2))
    run(tmp_path, pair=(prior, objectives), steps=2, decay=0.0, auto_batch=True)
    assert objectives[0].tried == [4, 2, 2, 2, 2]
    prior, objectives = small((2, 2))
    run(tmp_path, pair=(prior, objectives), steps=4, decay=0.0, auto_batch=True)
    assert objectives[0].tried == [2] * 4


def test_without_auto_batch_the_error_says_what_was_tried_and_what_fits(tmp_path):
    with pytest.raises(
        MemoryError, match=r"^4 images at once do not fit into memory, 2 do: .* accumulate=2 .*auto_batch"
    ):
        run(tmp_path, pair=small((4, 2)))


@pytest.mark.parametrize("auto", [True, False])
def test_if_nothing_fits_the_error_says_so(tmp_path, auto):
    with pytest.raises(MemoryError, match=r"Even 1 image\(s\) at once do not fit"):
        run(tmp_path, pair=small((0, 4)), auto_batch=auto)


def test_micro_batches_share_a_batch_of_any_number_evenly():
    tried = []

    def attempt(parts):
        tried.append(parts)
        if parts < 12:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return "done"

    assert faults.fitted(attempt, 1, 12, auto=True) == ("done", 12)
    assert tried == [1, 2, 4, 12]


def test_other_errors_are_not_taken_for_too_little_memory():
    def attempt(parts):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        faults.fitted(attempt, 1, 4, auto=True)


def test_processes_that_share_a_step_cannot_try_again_but_say_what_may_fit():
    words = r"8 images at once do not fit .* accumulate=4 or more"
    tried = []

    def attempt(parts):
        tried.append(parts)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(MemoryError, match=words):
        faults.fitted(attempt, 2, 16, auto=False, again=False)
    assert tried == [2]
    with pytest.raises(ValueError, match="auto_batch is for one process"):
        Settings(steps=1, auto_batch=True).check_shareable(2)


# ---- signals ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_stops_and_the_run_goes_on_to_the_same_weights(tmp_path, straight, number):
    usual = signal.getsignal(number)
    data = Noises(2 * BATCH, lambda: os.kill(os.getpid(), number))  # in step 3
    with pytest.raises(KeyboardInterrupt, match=r"stopped at step 3, which is saved in .*: call again to go on"):
        run(tmp_path, data, save_every=100)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-0000003"]
    assert signal.getsignal(number) is usual
    assert torch.equal(weights(run(tmp_path)), straight)


def test_signal_in_the_last_step_does_not_keep_the_prior_back(tmp_path, straight):
    data = Noises(STEPS * BATCH - 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert torch.equal(weights(run(tmp_path, data)), straight)
    assert (tmp_path / "prior" / "card.json").exists()


def test_second_signal_does_not_wait():
    with faults.Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with faults.Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop.wanted
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


# ---- other data ----


def test_run_does_not_go_on_with_other_data_unless_told_to(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "fingerprint", lambda data: "12 images")
    run(tmp_path, steps=2, decay=0.0)
    monkeypatch.setattr(loop, "fingerprint", lambda data: "13 images")
    with pytest.raises(
        ValueError, match=r"not those that the run .* was trained on: 13 images, not 12 images\. Put them"
    ):
        run(tmp_path, steps=4, decay=0.0)
    run(tmp_path, steps=4, decay=0.0, arguments={"data_changed": True})
    run(tmp_path, steps=6, decay=0.0)  # from here on these are the data of the run


def test_resuming_at_another_size_says_what_is_other(tmp_path, monkeypatch):
    """And no more than that, however much is told of the data."""
    then = {"images": 12, "sha256": "ab", "size": 16, "seed": 0}
    monkeypatch.setattr(loop, "fingerprint", lambda data: then)
    run(tmp_path, steps=2, decay=0.0)
    monkeypatch.setattr(loop, "fingerprint", lambda data: {**then, "size": 32})
    with pytest.raises(ValueError, match=r"was trained on: size is 32, not 16\. Put them back"):
        run(tmp_path, steps=4, decay=0.0)


def test_data_are_told_apart_by_what_they_say_or_by_their_number():
    data = Noises()
    assert loop.fingerprint(data) == "12 images"
    data.fingerprint = "abc"
    assert loop.fingerprint(data) == "abc"


# ---- trackers ----


class Recorder(GeneralTracker):
    name, requires_logging_directory = "recorder", False

    def __init__(self):
        super().__init__()
        self.config, self.logged, self.finished = {}, {}, False

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step, **_):
        self.logged.setdefault(step, {}).update(values)

    def finish(self):
        self.finished = True


def test_trackers_are_told_what_the_log_is_told(tmp_path):
    recorder = Recorder()
    run(tmp_path, log_every=2, arguments={"log_with": [recorder], "measure": lambda prior: {"quality": 0.5}})
    written = {}
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        written.setdefault(entry.pop("step"), {}).update(entry)
    assert recorder.logged == written
    assert set(written) == {2, 4, 6}
    assert written[6]["quality"] == 0.5
    assert recorder.config["lr"] == 1e-3
    assert recorder.config["betas"] == "(0.9, 0.99)"  # TensorBoard takes nothing but words and numbers
    assert recorder.finished


def test_trackers_hear_of_the_end_of_a_run_that_was_stopped(tmp_path):
    recorder = Recorder()
    data = Noises(2 * BATCH, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, arguments={"log_with": [recorder]})
    assert recorder.finished


def test_patience_is_refused_where_losses_say_nothing_of_the_weights(tmp_path):
    with pytest.raises(ValueError, match="patience is 2, but the losses of competing networks"):
        run(tmp_path / "run", arguments={"validation": Noises()}, patience=2)
    assert not (tmp_path / "run").exists()


def test_tracker_that_is_missing_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="The tracker wandb is not installed: pip install wandb"):
        run(tmp_path / "run", arguments={"log_with": ["wandb"]})
    with pytest.raises(ValueError, match="log_with is 'wanbd': give tensorboard, wandb, trackio"):
        run(tmp_path / "run", arguments={"log_with": ["wanbd"]})
    assert not (tmp_path / "run").exists()

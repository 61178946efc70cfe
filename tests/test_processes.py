"""What a launcher began as several processes shares its work, on CPUs too, or is refused; the pages' own lines show it.

The processes have the environment that a user's have: nothing in it tells Accelerate where to compute.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genprior import devices
from genprior.cli import main
from genprior.priors.folder import read_card

PAGE = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.replace("\\\n", " ").splitlines() if line.startswith(("torchrun", "accelerate launch"))]


@pytest.fixture
def nothing_launched(monkeypatch):
    for name in (*devices.SIZES, "MASTER_ADDR", "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)


# ---- what launchers say ----


def test_nothing_launched_is_one_process_that_accelerate_never_hears_of(nothing_launched):
    ranks = devices.processes()
    assert (ranks.num_processes, ranks.process_index, ranks.is_main_process) == (1, 0, True)
    with ranks.main_process_first():
        ranks.wait_for_everyone()
    devices.alone("this")


@pytest.mark.parametrize("name", devices.SIZES)
def test_every_launcher_is_believed(name, nothing_launched, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert devices.processes().num_processes == 1
    monkeypatch.setenv(name, "3")
    assert devices.launched() == (name, 3)
    with pytest.raises(ValueError, match=rf"this is work for one process, and 3 were launched \({name}=3\)"):
        devices.alone("this")


def test_accelerate_launch_of_one_process_is_one(nothing_launched, monkeypatch):
    """Of several on CPUs it begins one as well; that it sets an address is what tells them apart."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    assert devices.processes().num_processes == 1
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match="asked for several processes"):
        devices.processes()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sample", "-o", "a.png"], "genprior sample is work for one process, and 2"),
        (["evaluate", "truth", "--quick"], "genprior evaluate truth is work for one process, and 2"),
        (["demo"], "genprior demo is work for one process, and 2"),
    ],
)
def test_commands_that_share_nothing_refuse_to_be_one_of_several(
    command, words, nothing_launched, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Lonely:
    """A state of accelerate that sees one process."""

    num_processes = 1

    def __init__(self, **_):
        pass


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two photographs and two digits, in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Path("photos").mkdir()
    for k in range(2):
        Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(f"photos/{k}.png")
    np.savez("digits.npz", train_images=random.integers(0, 256, (4, 8, 8), dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "train vae --data digits.npz --out out",
        "restore photos -o out --op denoise",
        "evaluate photos -o out --op denoise --noise 0.1",
        "degrade photos -o out --op denoise",
    ],
)
@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_one_of_several_that_accelerate_does_not_see_is_refused(
    name, command, nothing_launched, data, monkeypatch, capsys
):
    monkeypatch.setattr("accelerate.PartialState", Lonely)
    monkeypatch.setenv(name, "2")
    assert main(command.split()) == 1
    told = capsys.readouterr().err
    assert f"2 processes were launched ({name}=2), but work would be shared among 1" in told
    assert "torchrun --nproc_per_node 2" in told
    assert not Path("out").exists()


def test_more_processes_than_gpus_are_refused(nothing_launched, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"2 processes were launched on a machine of 1 GPU\(s\)"):
        devices.processes("cuda")


def test_devices_that_share_no_work_are_refused(nothing_launched, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device is mps, between which no work is shared: give cpu"):
        devices.processes("mps")


@pytest.mark.parametrize(("there", "cpu"), [(None, True), ("mps", True), ("cuda", False), ("xpu", False)])
def test_processes_share_the_accelerator_there_is_else_cpus(there, cpu, nothing_launched, monkeypatch):
    """Of an accelerator that torch was built for but that is not there, and of one between which nothing is shared."""
    asked = []

    class State:
        num_processes = 2

        def __init__(self, cpu, timeout):
            asked.append(cpu)

    monkeypatch.setattr("accelerate.PartialState", State)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(there or "cuda"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    devices.processes()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    devices.processes()
    assert asked == [cpu, True]


# ---- the lines of docs/training.md, launched ----


def line_of(*words):
    (line,) = [line for line in LINES if all(word in line for word in words)]
    return line


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def begun(line, less, **replaced):
    """A process that runs a line of the page as a user does, with less to do."""
    for old, new in replaced.items():
        assert old in line
        line = line.replace(old, new)
    program, *words = shlex.split(line)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE")}
    return subprocess.Popen(
        [Path(sys.executable).with_name(program), *words, *less.split()],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out, err


LITTLE = "--batch 2 --size 16 --steps 1"


def launch(line, less, code=0, **replaced):
    return ended(begun(line, less, torchrun=f"torchrun --master_port {free_port()}", **replaced), code)


def test_lines_for_torchrun_share_training_restoration_and_evaluation_on_cpus(data):
    out, err = launch(line_of("nproc_per_node 2", "train"), LITTLE)
    assert out.count("runs/mine/prior is ready") == 1
    assert err.count("2 = 2 process(es)") == 1
    assert read_card(data / "runs/mine/prior")["processes"] == 2

    out, _ = launch(line_of("nproc_per_node 2", "restore"), "--steps 1")
    assert sorted(re.findall(r"photos/(\d).png -> ", out)) == ["0", "1"]
    assert sorted(path.name for path in (data / "restored").iterdir()) == ["0.png", "1.png"]

    launch(line_of("nproc_per_node 2", "evaluate"), "-n 1 --steps 1")
    items = [json.loads(path.read_text()) for path in (data / "figures/items").glob("*.json")]
    assert {item["process"] for item in items} == {0, 1}
    assert json.loads((data / "figures/run.json").read_text())["machine"]["processes"] == 2


def test_accelerate_on_cpus_begins_one_process_and_is_refused(data):
    """As the page says of this line; were it not refused, one process would train as if it were both."""
    assert "`accelerate launch --cpu --num_processes 2` starts only one process" in PAGE
    line = f"accelerate launch --cpu --num_processes 2 -m genprior train vae --data digits.npz --out out {LITTLE}"
    _, err = ended(begun(line, ""), code=1)
    assert "asked for several processes" in err
    assert "torchrun --nproc_per_node N" in err
    assert not Path("out").exists()


def test_accelerate_of_several_processes_shares_the_training(data):
    line = line_of("accelerate launch --multi_gpu")
    replaced = {"--num_processes 4": f"--num_processes 2 --main_process_port {free_port()}"}
    ended(begun(line, LITTLE, **replaced))
    assert read_card(data / "runs/mine/prior")["processes"] == 2


@pytest.mark.slow
def test_the_line_for_two_machines_shares_the_training(data):
    line, port = line_of("--nnodes 2"), free_port()
    both = [
        begun(
            line, LITTLE, NODE=str(k), HOST="127.0.0.1", **{"29500": port, "per_node 4": "per_node 1", "/shared/": ""}
        )
        for k in range(2)
    ]
    for process in both:
        ended(process)
    assert read_card(data / "runs/mine/prior")["processes"] == 2

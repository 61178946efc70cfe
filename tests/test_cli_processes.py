"""`genprior restore` on two processes: each image once, the same bytes as on one, and a failure that ends nobody."""

import argparse
import os
import socket
import subprocess
import sys

import pytest
import torch

from genprior import images
from genprior.cli.common import each


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two files that are no images for the first process, two large images for the second, which ends last."""
    folder = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for name in "bd":
        images.save(torch.rand(3, 128, 128, generator=generator), folder / f"{name}.png")
    for name in "ac":
        (folder / f"{name}.png").write_bytes(b"rubbish")
    return folder


def restore(photos, out, processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}", "-m"]
    command = [sys.executable, "-m", *(launcher if processes > 1 else []), "genprior", "restore", photos]
    command += ["--op", "denoise", "--noise", "0.1", "--sampler", "diffpir", "--steps", "2", "-n", "2", "-o", out]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(list(map(str, command)), env=environment, timeout=200, capture_output=True, text=True)


def test_two_processes_restore_a_folder_to_the_bytes_of_one(photos, tmp_path):
    done = [restore(photos, tmp_path / str(n), n) for n in (1, 2)]
    for run in done:
        assert run.returncode == 1, run  # since two failed
        assert [run.stderr.count(f"{name}.png: ") for name in "abcd"] == [1, 0, 1, 0], run.stderr
        assert [run.stdout.count(f"{name}.png ->") for name in "abcd"] == [0, 1, 0, 1], run.stdout
    ours, theirs = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in "12")
    assert sorted(ours) == ["b.png", "d.png"]
    assert ours == theirs


@pytest.mark.parametrize(("index", "share", "code"), [(0, ["a", "c"], 1), (1, ["b", "d"], 0)])
def test_processes_wait_before_they_write_and_before_one_ends_with_a_failure(photos, tmp_path, index, share, code):
    """A launcher ends all processes when one has ended with a failure."""
    events = []

    def run(item):
        events.append(item.path.stem)
        if item.path.stem == "a":
            raise ValueError("no image")
        return "done"

    ranks = argparse.Namespace(
        process_index=index, num_processes=2, wait_for_everyone=lambda: events.append("all have come")
    )
    assert each(argparse.Namespace(inputs=[photos], out=tmp_path), run, ranks) == code
    assert events == ["all have come", *share, "all have come"]

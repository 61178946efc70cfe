"""`genprior evaluate`: files in, tables out, words and exit codes; two processes give what one gives."""

import csv
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.cli import main
from genprior.operators import random_mask
from genprior.priors.folder import write_prior
from genprior.priors.gaussian.gaussian import Gaussian

SHAPE = (1, 16, 16)
FILES = {"table.md", "table.csv", "images.csv", "run.json", "contact.png", "items"}


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    i, j = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    points = torch.stack([i.flatten(), j.flatten()], 1)
    covariance = 0.1**2 * torch.exp(-torch.cdist(points, points) / 3)
    write_prior(Gaussian(torch.full(SHAPE, 0.5), covariance), folder, {"summary": "smooth"})
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    i, j = np.mgrid[:20, :24]
    for k, name in enumerate("abcde"):
        Image.fromarray((128 + 50 * np.sin((i + k * j) / 5)).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def task(prior, *more):
    return ["--op", "inpaint", "--mask", "random", "--fraction", 0.5, "--noise", 0.05, "--prior", prior, "-n", 3,
            "--crop", 16, "--device", "cpu", *more]  # fmt: skip


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def lasting(path):
    """images.csv, but for the columns that no two runs share, as the text that it is."""
    found = rows(path)
    names = [name for name in found[0] if name not in ("seconds", "peak_memory")]
    assert len(names) == len(found[0]) - 2
    return "\n".join(",".join(row[name] for name in names) for row in found)


def test_a_folder_is_evaluated_and_called_again_nothing_is_computed(prior, photos, tmp_path, capsys):
    out = tmp_path / "results"
    options = [photos, *task(prior, "--sampler", "exact, ddrm", "--baselines", "biharmonic", "-o", out)]
    assert evaluate(*options) == 0
    printed = capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == FILES
    text = (out / "table.md").read_text()
    assert printed.startswith(text)
    for method in ("exact", "ddrm", "biharmonic"):
        assert f"\n| {method} | 5 | " in text
    assert "5 images; inpaint, mask random, fraction 0.5; noise 0.05 on [0, 1]" in text
    found = rows(out / "images.csv")
    assert [(row["image"], row["method"]) for row in found] == [
        (f"{name}.png", method) for name in "abcde" for method in ("exact", "ddrm", "biharmonic")
    ]
    (psnr,) = (row for row in rows(out / "table.csv") if row["method"] == "ddrm")
    values = [float(row["psnr_mean"]) for row in found if row["method"] == "ddrm"]
    assert float(psnr["PSNR of the mean, dB"]) == pytest.approx(np.mean(values))
    assert float(psnr["PSNR of the mean, dB standard error"]) == pytest.approx(np.std(values, ddof=1) / 5**0.5)
    run = json.loads((out / "run.json").read_text())
    assert run["prior"]["card_sha256"] == json.loads((prior / "card.json").read_text())["sha256"]
    assert run["settings"]["crop"] == 16

    written = {path: path.stat().st_mtime_ns for path in (out / "items").iterdir()}
    before = {name: (out / name).read_bytes() for name in FILES - {"items"}}
    assert evaluate(*options) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "items").iterdir()} == written
    assert {name: (out / name).read_bytes() for name in before} == before


def test_a_preset_and_a_data_file_and_fewer_images(prior, tmp_path, capsys):
    digits = (np.arange(4 * 16 * 16).reshape(4, 16, 16) % 200).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", test_images=digits, train_images=digits[:1])
    options = ["--preset", "dps-inpaint-box", "--prior", prior, "--sampler", "exact", "--n", 2, "--device", "cpu"]
    assert evaluate(tmp_path / "digits.npz", *options, "--limit", 3, "-o", tmp_path / "a") == 0
    run = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run["settings"]["parameters"] == {"mask": "box", "size": 8}
    assert run["settings"]["noise"] == 0.025
    assert len(run["images"]) == 3
    more = ["--images", "train_images", "--noise", 0.1, "-o", tmp_path / "b"]
    assert evaluate(tmp_path / "digits.npz", *options, *more) == 0
    run = json.loads((tmp_path / "b" / "run.json").read_text())
    assert (len(run["images"]), run["settings"]["noise"]) == (1, 0.1)


@pytest.mark.parametrize(
    ("task", "noise", "told"),
    [
        (
            ["--op", "denoise", "--noise", "poisson:0.02"],
            {"class": "Poisson", "gain": 0.02},
            "noise Poisson(gain=0.02)",
        ),
        (["--op", "jpeg", "--quality", 30], 0.0, "jpeg, quality 30; noise 0 "),
    ],
)
def test_other_laws_and_jpeg_are_evaluated(prior, photos, tmp_path, capsys, task, noise, told):
    options = [*task, "--prior", prior, "--sampler", "optimal-covariance", "--steps", 3, "--crop", 16, "--n", 2]
    assert evaluate(photos, *options, "--baselines", "decoded", "--device", "cpu", "-o", tmp_path) == 0
    assert told in capsys.readouterr().out
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["settings"]["noise"] == noise
    assert "optimal-covariance" in (tmp_path / "table.md").read_text()
    # the same settings go on, others are refused
    assert evaluate(photos, *options, "--baselines", "decoded", "--device", "cpu", "-o", tmp_path) == 0


def test_one_mask_from_a_file_holds_for_all_images(prior, photos, tmp_path):
    holes = random_mask((16, 16), 0.3)[0].numpy()
    Image.fromarray(holes.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    options = ["--mask", tmp_path / "mask.png", "--op", "inpaint", "--noise", 0.05, "--prior", prior, "--crop", 16]
    paths = [photos / "a.png", photos / "c.png"]
    assert evaluate(*paths, *options, "--sampler", "exact", "--device", "cpu", "-o", tmp_path / "out") == 0
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [image["name"] for image in run["images"]] == ["a.png", "c.png"]
    a, c = (image["mask_sha256"] for image in run["images"])
    assert a == c


def test_a_method_that_fails_makes_the_exit_code_1(prior, photos, tmp_path, capsys):
    options = task(prior, "--sampler", "exact", "--baselines", "bicubic", "-o", tmp_path)
    assert evaluate(photos / "a.png", *options) == 1
    out, err = capsys.readouterr()
    assert "suits SuperResolution, not Inpaint" in out
    assert "see the last column: bicubic" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--noise", 0.1], "--op, or a task by --preset"),
        (["--op", "denoise", "--preset", "dps-sr4"], "--op, or a task by --preset"),
        (["--preset", "dps-sr"], "Did you mean 'dps-sr4'"),
        (["--preset", "dps-sr4", "--scale", 2], "leave scale out"),
        (["--op", "denoise"], "Give noise="),
        (["--op", "denoise", "--noise", 0.1, "--sampler", "exakt"], "Did you mean 'exact'"),
        (["--op", "denoise", "--noise", 0.1, "--baselines", "biharmnic"], "Did you mean 'biharmonic'"),
        (["--op", "denoise", "--noise", 0.1, "--crop", 30], "smaller than crops of 30 x 30"),
        (["--op", "inpaint", "--noise", 0.1, "--mask", "."], "one mask for all images, or random, box or stroke"),
    ],
)
def test_a_wrong_command_line_says_what_to_do(options, words, prior, photos, tmp_path, capsys):
    assert evaluate(photos, *options, "--prior", prior, "-o", tmp_path / "out") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_processes_give_what_one_gives(prior, photos, tmp_path):
    """Under torchrun, on the CPU (gloo): every figure of every image to the last digit, and each computed once."""
    options = [*task(prior, "--sampler", "diffpir,ddrm", "--steps", 4), "--seed", 3]
    assert evaluate(photos, *options, "-o", tmp_path / "one") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", port]
    command = [*launch, "-m", "genprior", "evaluate", photos, *options, "-o", tmp_path / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count((tmp_path / "two" / "table.md").read_text()) == 1  # one process speaks
    assert lasting(tmp_path / "one" / "images.csv") == lasting(tmp_path / "two" / "images.csv")
    runs = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    assert [r["machine"]["processes"] for r in runs] == [1, 2]
    assert runs[0]["settings"] == runs[1]["settings"]
    found = [json.loads(path.read_text()) for path in (tmp_path / "two" / "items").glob("*.json")]
    assert sorted(record["process"] for record in found) == [0] * 5 + [1] * 5
    # both kinds of methods were on both
    assert len({(record["process"], record["method"]) for record in found}) == 4

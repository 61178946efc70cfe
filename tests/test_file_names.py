"""What a file is called, and whether that can be printed, does not decide what becomes of it."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genprior
from genprior.cli import main
from genprior.images import list_images
from genprior.images.files import readable_suffixes
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_card, write_prior
from genprior.training.data import Photos, open_data

NAMES = {"Latin-1": b"caf\xe9.png", "Chinese": "\u732b.png".encode(), "line break": b"a\nb.png"}
WRITERS = {
    "png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "webp": "WEBP", "tif": "TIFF",
    "tiff": "TIFF", "bmp": "BMP", "gif": "GIF", "ppm": "PPM", "pgm": "PPM", "jp2": "JPEG2000", "j2k": "JPEG2000",
    "tga": "TGA", "pcx": "PCX",
}  # fmt: skip


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)


def write(path, file_format="PNG", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(picture(seed)).save(file, file_format)
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    write_prior(DDPM((3, None, None), widths=(8, 8), blocks=1), folder, {})
    return folder


@pytest.fixture(params=NAMES)
def folder(request, tmp_path):
    """Of two images, of which one has such a name; the system must know such names."""
    try:
        write(tmp_path / "in" / os.fsdecode(NAMES[request.param]))
    except OSError:
        pytest.skip("this file system takes no such names")
    write(tmp_path / "in" / "plain.png", seed=1)
    return tmp_path / "in"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_a_name_that_stdout_cannot_print_is_escaped_and_the_file_is_there(tmp_path, encoding):
    folder = write(tmp_path / "in" / "plain.png").parent
    for name in NAMES.values():
        with contextlib.suppress(OSError):  # a file system that takes no such names
            write(folder / os.fsdecode(name))
    command = [sys.executable, "-m", "genprior", "degrade", folder, "-o", tmp_path / "x", "--op", "denoise"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path / "x")) == sorted(os.listdir(folder))
    assert done.stdout.decode(encoding).count(" -> ") == len(os.listdir(folder))


@pytest.mark.parametrize("options", [[], ["--json"], ["--samples", "--std", "--concat"]])
def test_restored_files_have_the_names_of_the_given_ones(folder, prior, tmp_path, options):
    common = ["--prior", prior, "--op", "denoise", "--noise", 0.1, "--sampler", "ddnm", "--steps", 2, "--device", "cpu"]
    assert run("restore", folder, "-o", tmp_path / "x", *common, *options) == 0
    assert set(os.listdir(folder)) <= set(os.listdir(tmp_path / "x"))


def test_an_evaluation_keeps_every_name_and_goes_on(folder, prior, tmp_path):
    command = ["evaluate", folder, "--op", "denoise", "--noise", 0.1, "--prior", prior, "--sampler", "ddnm", "-n", 1,
               "--steps", 2, "--device", "cpu", "-o", tmp_path / "x"]  # fmt: skip
    assert run(*command) == 0
    listed = json.loads((tmp_path / "x" / "run.json").read_text(encoding="utf-8"))["images"]
    assert sorted(image["name"] for image in listed) == sorted(os.listdir(folder))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x" / "items").iterdir()}
    assert run(*command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x" / "items").iterdir()} == before


def test_a_prior_is_trained_on_every_name_and_its_card_names_the_folder(tmp_path, capfd):
    data = tmp_path / os.fsdecode(NAMES["Latin-1"])
    try:
        write(data / os.fsdecode(NAMES["Latin-1"]))
    except OSError:
        pytest.skip("this file system takes no such names")
    write(data / "broken.png").write_bytes(b"no picture")
    small = ["--size", 8, "--steps", 1, "--batch", 2, "--save-every", 1]
    with pytest.warns(UserWarning, match=r"broken\.png"):
        assert run("train", "ddpm", "--data", data, "--out", tmp_path / "x", *small) == 0
    assert read_card(tmp_path / "x" / "prior")["data"] == data.name


# ---- suffixes ----


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_a_folder_is_read_by_every_suffix_by_which_a_file_is_in_any_case(tmp_path, case):
    paths = {
        write(tmp_path / "in" / f"{k}.{case(suffix)}", file_format)
        for k, (suffix, file_format) in enumerate(WRITERS.items())
    }
    assert set(list_images(tmp_path / "in")) == paths
    assert len(Photos(tmp_path / "in", 8)) == len(open_data(tmp_path / "in", 8)) == len(paths)
    found = genprior.evaluate(tmp_path / "in", "denoise", lambda x, s: x, "ddnm", noise=0.1, n=1, steps=1, crop=11)
    assert {row["image"] for row in found.images.rows} == {path.name for path in paths}
    assert run("degrade", tmp_path / "in", "-o", tmp_path / "x", "--op", "denoise") == 0
    assert {path.stem for path in (tmp_path / "x").iterdir()} == {path.stem for path in paths}


def test_suffixes_are_those_of_pictures():
    assert {f".{suffix}" for suffix in WRITERS} <= readable_suffixes()
    assert not readable_suffixes() & {
        ".txt",
        ".csv",
        ".json",
        ".pdf",
        ".npz",
        ".npy",
        ".h5",
        ".mpg",
        ".eps",
        ".parquet",
    }


def test_arrays_tables_masks_and_kernels_are_known_by_their_suffix_in_any_case(tmp_path, prior):
    np.save(tmp_path / "a", picture())
    (tmp_path / "a.npy").rename(tmp_path / "a.NPY")
    np.savez(tmp_path / "b", test_images=picture()[None], train_images=picture()[None])
    (tmp_path / "b.npz").rename(tmp_path / "b.NPZ")
    assert run("degrade", tmp_path / "a.NPY", "-o", tmp_path / "x.Npy", "--op", "denoise") == 0
    np.testing.assert_allclose(np.load(tmp_path / "x.Npy"), picture() / 255, atol=1e-6)
    assert len(open_data(tmp_path / "b.NPZ")) == 1
    found = genprior.evaluate(tmp_path / "b.NPZ", "denoise", lambda x, s: x, "ddnm", noise=0.1, n=1, steps=1)
    assert len(found.images.rows) == 1
    hole = np.zeros((12, 12), np.uint8)
    hole[3:6, 3:6] = 255
    for name in ("a_mask.PNG", "a_mask.Tif", "a_mask.NPY"):
        folder = tmp_path / name
        folder.mkdir()
        with (folder / name).open("wb") as file:
            if name.endswith("NPY"):
                np.save(file, hole)
            else:
                Image.fromarray(hole).save(file, {"PNG": "PNG", "Tif": "TIFF"}[name[7:]])
        for mask in (folder, folder / name):
            target = tmp_path / "y.npy"
            command = ["restore", tmp_path / "a.NPY", "-o", target, "--mask", mask, "--prior", prior, "--noise", 0]
            assert run(*command, "--sampler", "ddnm", "--steps", 2, "--device", "cpu", "--overwrite") == 0
            same = (np.load(target) == picture()).all(-1)
            assert (same == (hole == 0)).all()


def rubbish(folder):
    write(folder / "a.png")
    for name in ("notes.txt", "sub/b.xcf", "no-suffix", "d.csv", "e.csv", ".hidden"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no image")
    return folder


WHAT = "skipped 5 files whose suffix is of no image: d.csv, e.csv, no-suffix and 2 more"


@pytest.mark.parametrize("command", ["degrade", "restore"])
def test_what_is_skipped_in_a_folder_is_named(tmp_path, capfd, prior, command):
    options = ["--prior", prior, "--noise", 0.1, "--sampler", "ddnm", "--steps", 2, "--device", "cpu"]
    options = options if command == "restore" else []
    assert run(command, rubbish(tmp_path / "in"), "-o", tmp_path / "x", "--op", "denoise", *options) == 0
    assert f"genprior: {tmp_path / 'in'}: {WHAT}\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    "read",
    [
        list_images,
        lambda folder: Photos(folder, 8),
        lambda folder: open_data(folder, 8),
        lambda folder: genprior.evaluate(folder, "denoise", lambda x, s: x, "ddnm", noise=0.1, n=1, steps=1),
    ],
    ids=["list_images", "Photos", "open_data", "evaluate"],
)
def test_what_is_skipped_in_a_folder_of_data_is_named_once(tmp_path, read):
    with pytest.warns(UserWarning, match=f": {WHAT}") as told:
        read(rubbish(tmp_path / "in"))
    assert sum("skipped" in str(each.message) for each in told) == 1


def test_a_folder_of_nothing_but_other_files_names_them(tmp_path, capfd):
    (rubbish(tmp_path / "in") / "a.png").unlink()
    assert run("degrade", tmp_path / "in", "-o", tmp_path / "x", "--op", "denoise") == 1
    assert f"There are no images in {tmp_path / 'in'}: {WHAT}." in capfd.readouterr().err


def test_a_format_that_is_read_only_is_no_folder_to_write_to(tmp_path, capfd):
    write(tmp_path / "a.png")
    assert run("degrade", tmp_path / "a.png", "-o", tmp_path / "b.JFIF", "--op", "denoise") == 1
    assert "b.JFIF: such files are read only; end it with one of .png" in capfd.readouterr().err
    assert [Path(path).name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_kernel_file_is_opaque(tmp_path, capfd):
    array = np.zeros((3, 3, 4), np.uint8)
    array[1, 1] = 255
    Image.fromarray(array).save(tmp_path / "kernel.png")
    write(tmp_path / "a.png")
    command = ["degrade", tmp_path / "a.png", "-o", tmp_path / "b.png", "--op", "deblur", "--kernel"]
    assert run(*command, tmp_path / "kernel.png") == 1
    assert "kernel.png is partly transparent" in capfd.readouterr().err

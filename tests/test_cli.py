"""The command line, in this process: files in, files out, words and exit codes."""

import argparse
import functools
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genprior.nets.gan as gan_nets
from genprior.cli import common, main, names
from genprior.operators import random_mask
from genprior.operators.build import FOR_IMAGE, FOR_MEASUREMENT
from genprior.priors import ddpm, flow, gan, patches, store, vae
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_prior, write_prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.store import bundled
from genprior.samplers import SAMPLERS
from genprior.training import families
from genprior.training.data import Arrays, Photos, first
from genprior.truth.report import SUITES

H, W = 24, 20
MASK = random_mask((H, W), 0.4, seed=0)[0].numpy()


def picture(seed=0):
    """A smooth RGB image, 8 bits."""
    i, j = np.mgrid[0:H, 0:W]
    return np.stack([100 + 60 * np.sin((i + k * j + seed) / 6) for k in range(3)], axis=-1).astype(np.uint8)


def write(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def read(path):
    return np.asarray(Image.open(path))


def genprior(*arguments):
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """A network that was never trained: E[x | x_t] of a Gaussian of standard deviation 0.25 about 0.5."""
    folder = tmp_path_factory.mktemp("prior")
    write_prior(DDPM((3, None, None), widths=(8, 8), blocks=1), folder, {"summary": "untrained", "licence": "CC0-1.0"})
    return folder


@pytest.fixture
def photo(tmp_path):
    return write(picture(), tmp_path / "photo.png")


def restore(prior, *arguments):
    return genprior("restore", *arguments, "--prior", prior, "--steps", 3, "--device", "cpu")


def test_degrade_and_restore_a_file(photo, prior, tmp_path, capfd):
    y, x = tmp_path / "y.png", tmp_path / "new" / "x.png"
    assert genprior("degrade", photo, "-o", y, "--mask", "random", "--fraction", 0.4) == 0
    holes = read(tmp_path / "y_mask.png") == 255
    assert holes.sum() == round(0.4 * H * W)
    assert (read(y)[holes] == 0).all()
    np.testing.assert_array_equal(read(y)[~holes], picture()[~holes])
    assert f"{photo} -> {y}" in capfd.readouterr().out

    assert restore(prior, y, "-o", x, "--mask", tmp_path / "y_mask.png", "--noise", 0) == 0
    np.testing.assert_array_equal(read(x)[~holes], picture()[~holes])
    # draws from a prior of mean 0.5 and deviation 0.25: 5 standard deviations of their mean; the truth's is 108
    filled = read(x)[holes].astype(float)
    assert abs(filled.mean() - 127.5) < 5 * 64 / np.sqrt(filled.size)
    assert filled.std() > 5
    out, err = capfd.readouterr()
    assert out.startswith(f"{y} -> {x}: ")
    assert "6 network evaluations" in out
    assert err == ""  # no progress bar in what is not a terminal


def test_degrade_and_restore_a_folder(prior, tmp_path, capfd):
    for k, name in enumerate(["a.png", "b.png", "deep/c.png"]):
        write(picture(k), tmp_path / "in" / name)
    assert genprior("degrade", tmp_path / "in", "-o", tmp_path / "y", "--mask", "box", "--size", 8) == 0
    for name in ["a.png", "a_mask.png", "b.png", "b_mask.png", "deep/c.png", "deep/c_mask.png"]:
        assert (tmp_path / "y" / name).exists()
    # what was degraded into a folder is restored from it: masks beside the images are masks, not images
    code = restore(prior, tmp_path / "y", "-o", tmp_path / "x", "--mask", tmp_path / "y", "--noise", 0)
    assert code == 0, capfd.readouterr().err
    assert sorted(p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*.png")) == [
        "a.png", "b.png", "deep/c.png"
    ]  # fmt: skip
    for k, name in enumerate(["a", "b", "deep/c"]):
        known = read(tmp_path / "y" / f"{name}_mask.png") == 0
        assert (~known).sum() == 64
        np.testing.assert_array_equal(read(tmp_path / "x" / f"{name}.png")[known], picture(k)[known])


def test_folder_of_masks_by_name(prior, tmp_path):
    for k, name in enumerate("ab"):
        write(picture(k), tmp_path / "in" / f"{name}.png")
        write((MASK if k else ~MASK).astype(np.uint8) * 255, tmp_path / "masks" / f"{name}.png")
    options = ["--mask", tmp_path / "masks", "--noise", 0]
    assert restore(prior, tmp_path / "in", "-o", tmp_path / "x", *options) == 0
    for k, name in enumerate("ab"):
        known = ~MASK if k else MASK
        x = read(tmp_path / "x" / f"{name}.png")
        np.testing.assert_array_equal(x[known], picture(k)[known])
        assert not np.array_equal(x[~known], picture(k)[~known])


def test_files_of_one_name_in_subfolders_have_noise_and_masks_of_their_own(prior, tmp_path):
    """By the path below the folder that was given, wherever that is; a file of the folder itself by its name."""
    for name in ("x.png", "a/x.png", "b/x.png"):
        write(picture(), tmp_path / "in" / name)
    degraded = ["--mask", "random", "--fraction", 0.4, "--noise", 0.1]
    assert genprior("degrade", tmp_path / "in", "-o", tmp_path / "y", *degraded) == 0
    assert genprior("degrade", tmp_path / "in" / "x.png", "-o", tmp_path / "alone", *degraded) == 0
    (tmp_path / "in").rename(tmp_path / "moved")
    assert genprior("degrade", tmp_path / "moved", "-o", tmp_path / "again", *degraded) == 0
    for name in ("x.png", "x_mask.png"):
        top, a, b = (read(tmp_path / "y" / place / name) for place in ("", "a", "b"))
        assert len({each.tobytes() for each in (top, a, b)}) == 3
        np.testing.assert_array_equal(read(tmp_path / "alone" / name), top)
        np.testing.assert_array_equal(read(tmp_path / "again" / "a" / name), a)

    options = ["--op", "denoise", "--noise", 0.5, "--samples"]
    assert restore(prior, tmp_path / "moved", "-o", tmp_path / "x", *options) == 0
    a, b = (read(tmp_path / "x" / place / "x_sample-0.png") for place in "ab")
    assert not np.array_equal(a, b)


def test_folder_of_masks_has_the_subfolders_of_the_images(prior, tmp_path, capfd):
    for place, holes in (("a", MASK), ("b", ~MASK)):
        write(picture(), tmp_path / "in" / place / "x.png")
        write(holes.astype(np.uint8) * 255, tmp_path / "masks" / place / "x_mask.png")
    options = ["--mask", tmp_path / "masks", "--noise", 0]
    assert restore(prior, tmp_path / "in", "-o", tmp_path / "x", *options) == 0
    for place, holes in (("a", MASK), ("b", ~MASK)):
        x = read(tmp_path / "x" / place / "x.png")
        np.testing.assert_array_equal(x[~holes], picture()[~holes])
        assert not np.array_equal(x[holes], picture()[holes])
    (tmp_path / "masks" / "a" / "x_mask.png").rename(tmp_path / "masks" / "x_mask.png")
    assert restore(prior, tmp_path / "in", "-o", tmp_path / "again", *options) == 1
    assert f"{tmp_path / 'masks' / 'a'} has no mask for x.png" in capfd.readouterr().err


def test_a_missing_mask_is_named(prior, photo, tmp_path, capfd):
    (tmp_path / "masks").mkdir()
    assert restore(prior, photo, "-o", tmp_path / "x.png", "--mask", tmp_path / "masks") == 1
    assert "no mask for photo.png; call it photo_mask.png or photo.png" in capfd.readouterr().err


def test_one_bad_file_is_reported_and_the_rest_go_on(prior, tmp_path, capfd):
    write(picture(), tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("not a picture")
    write(picture(), tmp_path / "in" / "c.png")
    assert restore(prior, tmp_path / "in", "-o", tmp_path / "x", "--op", "denoise", "--noise", 0.1) == 1
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["a.png", "c.png"]
    out, err = capfd.readouterr()
    assert "b.png cannot be read as an image" in err
    assert "1 of 3 failed" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), MemoryError()])
def test_one_file_too_large_for_the_memory_is_reported_and_the_rest_go_on(error, prior, tmp_path, capfd, monkeypatch):
    import genprior as package

    whole = package.restore

    def restore_but_a(path, *arguments, **options):
        if path.name == "a.png":
            raise error
        return whole(path, *arguments, **options)

    monkeypatch.setattr(package, "restore", restore_but_a)
    for name in "ab":
        write(picture(), tmp_path / "in" / f"{name}.png")
    assert restore(prior, tmp_path / "in", "-o", tmp_path / "x", "--op", "denoise", "--noise", 0.1) == 1
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["b.png"]
    assert f"a.png: {str(error) or 'MemoryError'}\n" in capfd.readouterr().err


def test_a_file_has_randomness_of_its_own_alone_and_in_a_folder(prior, tmp_path):
    for name in "ab":
        write(picture(), tmp_path / "in" / f"{name}.png")
    degraded = ["--mask", "random", "--fraction", 0.4, "--noise", 0.1]
    assert genprior("degrade", tmp_path / "in", "-o", tmp_path / "y", *degraded) == 0
    assert genprior("degrade", tmp_path / "in" / "b.png", "-o", tmp_path / "b.png", *degraded) == 0
    a, b = (read(tmp_path / "y" / f"{name}_mask.png") for name in "ab")
    # two masks of 0.4 agree on 0.52 of the pixels, 5 standard deviations of 0.5 / sqrt(480) are 0.11
    assert abs((a == b).mean() - 0.52) < 0.12
    np.testing.assert_array_equal(read(tmp_path / "b_mask.png"), b)
    both = (a == 0) & (b == 0)
    assert (read(tmp_path / "y" / "a.png")[both] != read(tmp_path / "y" / "b.png")[both]).mean() > 0.9
    np.testing.assert_array_equal(read(tmp_path / "b.png"), read(tmp_path / "y" / "b.png"))

    options = ["--op", "denoise", "--noise", 0.3, "--samples"]
    assert restore(prior, tmp_path / "in", "-o", tmp_path / "x", *options) == 0
    assert restore(prior, tmp_path / "in" / "b.png", "-o", tmp_path / "alone.png", *options) == 0
    a, b = (read(tmp_path / "x" / f"{name}_sample-0.png") for name in "ab")
    assert (a != b).mean() > 0.5
    np.testing.assert_array_equal(read(tmp_path / "alone_sample-0.png"), b)
    # the picture is no draw: two files of the same values have the same
    for name in ("x/a.png", "alone.png"):
        np.testing.assert_array_equal(read(tmp_path / name), read(tmp_path / "x" / "b.png"))


def test_a_folder_is_restored_with_its_arrays_and_says_what_it_skips(prior, tmp_path, capfd):
    write(picture(), tmp_path / "in" / "a.png")
    write(MASK.astype(np.uint8) * 255, tmp_path / "in" / "b_mask.png")
    np.save(tmp_path / "in" / "b.npy", (picture(1) / 255).astype(np.float32))
    assert restore(prior, tmp_path / "in", "-o", tmp_path / "x", "--op", "denoise", "--noise", 0) == 0
    assert "skipped 1 masks" in capfd.readouterr().err
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["a.png", "b.png"]
    assert np.abs(read(tmp_path / "x" / "b.png") - picture(1).astype(float)).mean() < 3


def test_results_in_a_folder_inside_that_given_are_not_restored_again(prior, tmp_path):
    write(picture(), tmp_path / "a.png")
    for _ in range(2):
        out = tmp_path / "x"
        assert restore(prior, tmp_path, "-o", out, "--op", "denoise", "--noise", 0.1, "--overwrite") == 0
        assert [p.relative_to(out).as_posix() for p in out.rglob("*")] == ["a.png"]


def test_a_file_beside_a_result_that_is_another_result_is_refused(prior, tmp_path, capfd):
    for name in ("a", "a_std"):
        write(picture(), tmp_path / "in" / f"{name}.png")
    options = ["--op", "denoise", "--noise", 0.1, "--std", "--overwrite"]
    assert restore(prior, tmp_path / "in", "-o", tmp_path / "x", *options) == 1
    assert "would both be written to" in capfd.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["restore", "degrade", "sample"])
def test_nothing_is_overwritten_without_being_told(command, photo, prior, tmp_path, capfd):
    out = tmp_path / "out.png"
    options = {
        "restore": [photo, "--op", "denoise", "--noise", 0.2, "--prior", prior, "--steps", 2],
        "degrade": [photo, "--op", "denoise", "--noise", 0.2],
        "sample": ["--prior", prior, "--n", 2, "--size", 8, 8, "--steps", 2],
    }[command]
    out.write_text("precious")
    assert genprior(command, *options, "-o", out) == 1
    assert out.read_text() == "precious"
    assert "--overwrite" in capfd.readouterr().err
    assert genprior(command, *options, "-o", out, "--overwrite") == 0
    assert read(out).ndim == 3


def test_files_beside_the_output_are_not_overwritten_either(photo, prior, tmp_path, capfd):
    for name, command in {
        "y_mask.png": ["degrade", photo, "-o", tmp_path / "y.png", "--mask", "box", "--size", 4],
        "x_std.png": ["restore", photo, "-o", tmp_path / "x.png", "--op", "denoise", "--std", "--prior", prior],
        "x_sample-0.png": [
            "restore",
            photo,
            "-o",
            tmp_path / "x.png",
            "--op",
            "denoise",
            "--samples",
            "--prior",
            prior,
        ],
    }.items():
        (tmp_path / name).write_text("precious")
        assert genprior(*command) == 1
        assert name in capfd.readouterr().err
        assert (tmp_path / name).read_text() == "precious"
        assert not (tmp_path / "x.png").exists()
        assert not (tmp_path / "y.png").exists()
        (tmp_path / name).unlink()


def test_two_inputs_for_one_output_are_an_error(prior, tmp_path, capfd):
    write(picture(), tmp_path / "a.png")
    write(picture(), tmp_path / "a.jpg")
    assert restore(prior, tmp_path / "a.png", tmp_path / "a.jpg", "-o", tmp_path / "x", "--op", "denoise") == 1
    assert "would both be written to" in capfd.readouterr().err


def test_samples_and_deviation_are_written(photo, prior, tmp_path):
    options = ["--op", "denoise", "--noise", 0.3, "--n", 2, "--samples", "--std"]
    assert restore(prior, photo, "-o", tmp_path / "x.png", "--sampler", "diffpir", *options) == 0
    samples = [read(tmp_path / f"x_sample-{k}.png").astype(float) for k in range(2)]
    # the mean of two clipped and rounded samples, but for values that were clipped
    inside = ((np.stack(samples) > 0) & (np.stack(samples) < 255)).all(0)
    assert np.abs(np.mean(samples, axis=0) - read(tmp_path / "x.png"))[inside].max() <= 1
    spread = np.abs(samples[0] - samples[1])
    std = read(tmp_path / "x_std.png")
    assert std.max() == 255
    assert np.corrcoef(spread[inside], std[inside])[0, 1] > 0.98


def test_the_picture_is_the_same_with_draws_and_without(photo, prior, tmp_path, capfd):
    """--samples and --std ask for one draw where -n says nothing."""
    written = {
        "alone": ([], []),
        "samples": (["--samples"], ["_sample-0"]),
        "std": (["--std"], ["_std"]),
        "two": (["-n", 2, "--samples", "--std"], ["_sample-0", "_sample-1", "_std"]),
    }
    for name, (options, beside) in written.items():
        out = tmp_path / name / "x.png"
        assert restore(prior, photo, "-o", out, "--op", "denoise", "--noise", 0.3, *options) == 0
        assert sorted(p.stem for p in out.parent.iterdir()) == ["x", *(f"x{end}" for end in beside)]
        np.testing.assert_array_equal(read(out), read(tmp_path / "alone" / "x.png"))
        told = capfd.readouterr().out
        assert "by PosteriorMean(" in told
        assert ("no draws" in told) == (not options)
    assert (read(tmp_path / "std" / "x_std.png") == 0).all()  # of one draw
    first = read(tmp_path / "samples" / "x_sample-0.png")
    assert not np.array_equal(first, read(tmp_path / "alone" / "x.png"))
    # of other company in its batch: the network in bfloat16 rounds to a grey level
    assert np.abs(first.astype(float) - read(tmp_path / "two" / "x_sample-0.png")).max() <= 1
    out = tmp_path / "alone.npz"
    assert restore(prior, photo, "-o", out, "--op", "denoise", "--noise", 0.3) == 0
    assert not {"samples", "std"} & set(np.load(out))
    assert restore(prior, photo, "-o", out, "--op", "denoise", "--noise", 0.3, "-n", 3, "--overwrite") == 0
    assert np.load(out)["samples"].shape == (3, 3, H, W)


def test_the_seed_decides(photo, prior, tmp_path):
    written = []
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        options = ["--op", "denoise", "--noise", 0.3, "--seed", seed, "--samples"]
        assert restore(prior, photo, "-o", tmp_path / f"{name}.png", *options) == 0
        written.append((tmp_path / f"{name}_sample-0.png").read_bytes())
    assert written[0] == written[1] != written[2]


def test_npy_keeps_what_files_of_8_bits_cannot(photo, prior, tmp_path, capfd):
    y = tmp_path / "y.npy"
    assert genprior("degrade", photo, "-o", y, "--op", "denoise", "--noise", 0.5) == 0
    array = np.load(y)
    assert array.shape == (H, W, 3)
    noise = array - picture() / 255
    assert array.min() < 0
    assert noise.std() == pytest.approx(0.5, rel=4 / np.sqrt(2 * noise.size))
    assert genprior("degrade", photo, "-o", tmp_path / "y.png", "--op", "denoise", "--noise", 0.5) == 0
    assert f"{np.mean((array < 0) | (array > 1)):.1%} of the values were clipped" in capfd.readouterr().out

    assert restore(prior, y, "-o", tmp_path / "x.npy", "--op", "denoise", "--noise", 0.5) == 0
    assert restore(prior, y, "-o", tmp_path / "x.png", "--op", "denoise", "--noise", 0.5) == 0
    x = np.load(tmp_path / "x.npy")
    np.testing.assert_array_equal(np.rint(x.clip(0, 1) * 255), read(tmp_path / "x.png"))


def test_npy_gives_the_layout_and_dtype_of_npy(prior, tmp_path):
    grey = np.where(MASK, np.nan, picture()[..., 0] / 255)
    alpha = np.linspace(0.1, 1, H * W).reshape(H, W)
    for name, y in {"grey": grey, "alpha": np.stack([grey, alpha], axis=-1)}.items():
        np.save(tmp_path / f"{name}.npy", y)
        assert restore(prior, tmp_path / f"{name}.npy", "-o", tmp_path / f"{name}-x.npy", "--noise", 0) == 0
        x = np.load(tmp_path / f"{name}-x.npy")
        assert (x.shape, x.dtype) == (y.shape, np.float64)
        np.testing.assert_array_equal(x[~MASK], y[~MASK])
        assert np.isfinite(x).all()


def test_npy_and_concat_of_an_operator_that_is_not_linear_show_the_picture(tmp_path):
    """Not the mean of its samples, which may lie in different modes."""
    import genprior as package

    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((28, 28)))
    y, x = tmp_path / "y.npy", tmp_path / "x-again.npy"
    assert genprior("degrade", tmp_path / "x.npy", "-o", y, "--op", "phase-retrieval") == 0
    options = ["--op", "phase-retrieval", "--noise", 0.1, "--steps", 2, "--n", 3, "--prior", "gaussian", "--concat"]
    assert genprior("restore", y, "-o", x, *options) == 0
    seed = common.seed_of(argparse.Namespace(seed=0), Path("y.npy"))
    same = package.restore(np.load(y), "phase-retrieval", "gaussian", noise=0.1, steps=2, n=3, seed=seed)
    assert not torch.equal(same.mean, same.picture)
    np.testing.assert_allclose(np.load(x).squeeze(), same.picture[0], atol=1e-5)
    shown = read(tmp_path / "x-again_concat.png")[-28:, -28:] / 255
    np.testing.assert_allclose(shown, same.picture[0].clamp(0, 1), atol=0.01)


def test_alpha_is_refused_for_jpeg_before_any_work(prior, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("genprior.restore", None)
    write(np.dstack([picture(), np.full((H, W), 200, np.uint8)]), tmp_path / "a.png")
    assert restore(prior, tmp_path / "a.png", "-o", tmp_path / "x.jpg", "--op", "denoise") == 1
    assert "a.png: it has alpha, which x.jpg cannot hold: choose .png" in capfd.readouterr().err


def test_nan_in_npy_is_a_hole(prior, tmp_path):
    y = np.where(MASK[..., None], np.nan, picture() / 255).astype(np.float32)
    np.save(tmp_path / "y.npy", y)
    assert restore(prior, tmp_path / "y.npy", "-o", tmp_path / "x.png", "--noise", 0) == 0
    np.testing.assert_array_equal(read(tmp_path / "x.png")[~MASK], picture()[~MASK])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as an array"),
        (b"nonsense", "cannot be read as an array"),
        (np.zeros((2, 4, 4, 3)), "2 images"),
    ],
)
def test_bad_npy_is_an_error(content, message, prior, tmp_path, capfd):
    path = tmp_path / "y.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    assert restore(prior, path, "-o", tmp_path / "x.png", "--op", "denoise") == 1
    assert message in capfd.readouterr().err


def test_kernel_from_an_image_or_array(photo, tmp_path):
    kernel = np.array([[0, 1, 0], [0, 2, 0], [0, 0, 0]], dtype=np.float32) / 3
    np.save(tmp_path / "k.npy", kernel)
    write((kernel * 120).astype(np.uint8), tmp_path / "k.png")  # of any brightness
    for suffix in ("npy", "png"):
        options = ["--op", "deblur", "--kernel", tmp_path / f"k.{suffix}"]
        assert genprior("degrade", photo, "-o", tmp_path / f"{suffix}.npy", *options) == 0
    x = picture() / 255
    np.testing.assert_allclose(np.load(tmp_path / "npy.npy"), (x[2:, 1:-1] + 2 * x[1:-1, 1:-1]) / 3, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "png.npy"), np.load(tmp_path / "npy.npy"), atol=1e-5)


WRONG = {
    "operator": (["--op", "denois"], "Did you mean 'denoise'"),
    "no mask": ([], "pass mask="),
    "parameter": (["--op", "denoise", "--scale", 2], "takes no parameters; got scale"),
    "missing": (["--op", "super-resolution"], "takes scale, antialias; got none"),
    "sampler": (["--op", "denoise", "--sampler", "dpss"], "Did you mean 'dps'"),
    "noise": (["--op", "denoise", "--noise", -1], "standard deviation"),
    "n": (["--op", "denoise", "--n", 0], "n, the number of samples"),
    "mask": (["--mask", "nothing.png"], "nothing.png"),
    "device": (["--op", "denoise", "--device", "abacus"], "device='abacus'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_restored_is_one_line(case, photo, prior, tmp_path, capfd):
    options, message = WRONG[case]
    arguments = ["restore", photo, "-o", tmp_path / "x.png", "--prior", prior, *options]
    assert genprior(*arguments) == 1
    out, err = capfd.readouterr()
    assert message in err
    assert out == ""
    assert all(line.startswith("genprior: ") for line in err.splitlines())
    assert not (tmp_path / "x.png").exists()


def test_a_prior_that_is_not_there_is_one_line(photo, tmp_path, capfd):
    assert genprior("restore", photo, "-o", tmp_path / "x.png", "--prior", "nonsense") == 1
    err = capfd.readouterr().err
    assert err.startswith("genprior: ")
    assert "nonsense" in err
    assert "Traceback" not in err


def test_several_images_into_a_file_are_refused(photo, tmp_path, capfd):
    write(picture(), tmp_path / "other.png")
    (tmp_path / "out").write_text("a file")
    arguments = ["degrade", photo, tmp_path / "other.png", "-o", tmp_path / "out", "--op", "denoise"]
    assert genprior(*arguments) == 1
    assert "is a file; give a folder" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["restore"], ["restore", "a.png"], ["degrade", "a.png", "-o", "b", "--scale", "x"]]
)
def test_wrong_command_lines_exit_with_2(arguments, capfd):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: genprior" in capfd.readouterr().err


def test_priors_shows_a_card(prior, capfd):
    assert genprior("priors") == 0
    capfd.readouterr()
    assert genprior("priors", prior) == 0
    card = json.loads(capfd.readouterr().out)
    assert card["summary"] == "untrained"
    assert card["licence"] == "CC0-1.0"


def test_sample_writes_a_sheet(prior, tmp_path):
    arguments = ["sample", "--prior", prior, "--n", 4, "--size", 8, 6, "--steps", 2, "--device", "cpu", "-o"]
    assert genprior(*arguments, tmp_path / "s.png") == 0
    expected = read_prior(prior).sample(4, size=(8, 6), steps=2).clamp(0, 1)
    sheet = read(tmp_path / "s.png")
    assert sheet.shape == (2 * 8 + 2, 2 * 6 + 2, 3)
    # one grey level: the network may compute in bfloat16
    last = expected[3].movedim(0, -1).numpy() * 255
    assert np.abs(sheet[10:, 8:].astype(float) - last).max() < 2


def test_sample_says_what_it_cannot_write_before_it_draws(prior, tmp_path, capfd):
    assert genprior("sample", "--prior", prior, "-o", tmp_path / "sheet") == 1
    assert "is no image; end it with" in capfd.readouterr().err


# Networks small enough to be trained in a moment: module, class, arguments.
SMALL = {
    "ddpm": [(ddpm, "DDPM", {"widths": (8, 8), "blocks": 1})],
    "vae": [(vae, "VAE", {"widths": (4, 4), "blocks": (0, 0), "latent": 3})],
    "ldm": [],  # of a ddpm and a trained vae, see tests/priors/test_latent_diffusion.py
    "nf": [
        (flow, "Flow", {"widths": (4, 4), "steps": (1, 1)}),
        (patches, "PatchFlow", {"patch": 4, "width": 4, "steps": 1}),
    ],
    "gan": [
        (gan, "GAN", {"widths": (4, 4), "hidden": 8, "latent": 3}),
        (gan_nets, "Discriminator", {"widths": (4, 4), "hidden": 8}),
    ],
    "flow-gan": [],  # of the flow of an nf and the discriminator of a gan
}
# Which prior comes of a folder of photographs and of an .npz file, and which sampler takes it.
TRAINED = {
    ("ddpm", "folder"): ("ddpm", "OptimalCovariance"),
    ("ddpm", "npz"): ("ddpm", "OptimalCovariance"),
    ("vae", "folder"): ("vae", "FisherHMC"),
    ("vae", "npz"): ("vae", "FisherHMC"),
    ("nf", "folder"): ("nf-patch", "MAP"),
    ("nf", "npz"): ("nf", "FisherHMC"),
    ("gan", "npz"): ("gan", "FisherHMC"),
    ("flow-gan", "npz"): ("nf", "FisherHMC"),
}


@pytest.fixture
def small(monkeypatch):
    for module, name, arguments in (one for family in SMALL.values() for one in family):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), **arguments))


@pytest.fixture
def data(tmp_path):
    """The same four RGB images as a folder (of images cut to 16 x 16 in training) and as an .npz file, 16 x 16."""
    for k in range(4):
        write(picture(k), tmp_path / "data" / f"{k}.png")
    np.savez(
        tmp_path / "data.npz",
        train_images=np.stack([picture(k)[:16, :16] for k in range(4)]),
        train_labels=np.array([0, 1, 2, 1]),
    )
    return {"folder": tmp_path / "data", "npz": tmp_path / "data.npz"}


def train(family, data, out, *options):
    return genprior("train", family, "--data", data, "--out", out, "--batch", 2, "--size", 16, *options)


def test_what_there_is_is_what_the_command_line_says():
    assert tuple(families.FAMILIES) == names.FAMILIES
    assert set(SMALL) == set(names.FAMILIES)
    assert tuple(FOR_MEASUREMENT) == tuple(FOR_IMAGE) == names.OPERATORS
    assert tuple(SAMPLERS) == names.SAMPLERS
    assert tuple(SUITES) == names.SUITES
    assert tuple(bundled()) == names.PRIORS


def test_every_parameter_of_an_operator_is_an_option():
    taken = {name for make in FOR_MEASUREMENT.values() for name in inspect.signature(make).parameters}
    assert taken - {"shape", "measurement_shape"} == set(common.PARAMETERS)


@pytest.mark.parametrize(("family", "kind"), TRAINED)
def test_train_makes_a_prior_that_restores(family, kind, small, data, tmp_path, capfd):
    state, run = torch.get_rng_state(), tmp_path / "run"
    assert train(family, data[kind], run, "--steps", 2, "--licence", "CC0-1.0") == 0
    assert torch.equal(torch.get_rng_state(), state)
    out, err = capfd.readouterr()
    assert f"--prior {run / 'prior'}" in out
    assert "Traceback" not in err
    card = json.loads((run / "prior" / "card.json").read_text())
    assert (card["steps"], card["licence"], card["data"]) == (2, "CC0-1.0", data[kind].name)
    stored, sampler = TRAINED[family, kind]
    assert json.loads((run / "prior" / "config.json").read_text())["family"] == stored
    trained = read_prior(run / "prior")
    assert trained.image_shape == ((3, 16, 16) if kind == "npz" else (3, None, None))

    # weights are not those that it began with
    images = Photos(data[kind], 16) if kind == "folder" else Arrays(data[kind], "train_images")
    begun = families.plan(family, trained.image_shape, 0, first(images, 256), 0).prior.state_dict()
    assert any(not torch.equal(t, begun[key]) for key, t in trained.state_dict().items() if "." in key)

    y = write(picture()[:16, :16], tmp_path / "y.png")
    options = ["--op", "denoise", "--noise", 0.1, "--prior", run / "prior", "--steps", 4, "-n", 1, "--device", "cpu"]
    assert genprior("restore", y, "-o", tmp_path / "x.png", *options) == 0
    assert read(tmp_path / "x.png").shape == (16, 16, 3)
    assert f"{sampler}(steps=4" in capfd.readouterr().out
    options = ["--size", 16, 16] * (kind == "folder") + ["--steps", 2] * (family == "ddpm")
    code = genprior("sample", "--prior", run / "prior", "-o", tmp_path / "s.png", "--n", 4, *options)
    if stored == "nf-patch":
        assert code == 1
        assert "PatchFlow has no sample" in capfd.readouterr().err
    else:
        assert code == 0
        assert read(tmp_path / "s.png").shape == (34, 34, 3)


def test_decoder_of_a_diffusion_is_fitted(small, data, tmp_path):
    assert train("ddpm", data["npz"], tmp_path / "run", "--steps", 1) == 0
    trained = read_prior(tmp_path / "run" / "prior")
    assert float(trained.decoder_variance) != float(torch.tensor(trained.sigma_min**2))


def test_labels_are_for_every_family_of_images_of_one_size(small, data, tmp_path):
    for family in SMALL.keys() - {"ldm"}:
        assert train(family, data["npz"], tmp_path / family, "--steps", 1, "--labels", "train_labels") == 0
        assert read_prior(tmp_path / family / "prior").classes == 3


def test_samples_are_of_the_label_as_much_as_guidance_says(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = DDPM((3, 8, 8), widths=(8, 8), blocks=1, classes=3)
        for parameter in prior.parameters():
            parameter.data.normal_(std=0.2)
    write_prior(prior, tmp_path, {})
    drawn = {}
    for name, options in {"any": [], "one": ["--label", 1], "guided": ["--label", 1, "--guidance", 3]}.items():
        arguments = ["--prior", tmp_path, "-o", tmp_path / f"{name}.png", "--n", 1, "--steps", 2, "--device", "cpu"]
        assert genprior("sample", *arguments, *options) == 0
        drawn[name] = read(tmp_path / f"{name}.png").astype(float)
    for name, options in {"any": {}, "one": {"label": 1}, "guided": {"label": 1, "guidance": 3.0}}.items():
        expected = prior.eval().sample(1, steps=2, **options).clamp(0, 1)[0].movedim(0, -1).numpy() * 255
        # bfloat16 rounds what the network says by 2^-9 in each of a dozen layers, which is a grey level or two, and
        # guidance takes three times the difference of two of these
        assert np.abs(drawn[name] - expected).mean() < 6
    differences = [np.abs(drawn[a] - drawn[b]).mean() for a, b in (("any", "one"), ("one", "guided"))]
    assert min(differences) > 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", 1], "This DDPM was trained without labels, so there is no label 1"),
        (["--guidance", 2], "--guidance is towards a label; say which, as --label 5"),
        (["--size", 8, 8, "--steps", 0], "steps must lie between 1 and"),
    ],
)
def test_samples_that_a_prior_does_not_have_are_one_line(options, message, prior, tmp_path, capfd):
    assert genprior("sample", "--prior", prior, "-o", tmp_path / "s.png", *options) == 1
    assert message in capfd.readouterr().err


def test_options_that_a_prior_does_not_take_are_named(tmp_path, capfd):
    write_prior(Gaussian(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)), tmp_path, {})
    options = ["--size", 8, 8, "--steps", 3, "--label", 1]
    assert genprior("sample", "--prior", tmp_path, "-o", tmp_path / "s.png", *options) == 1
    err = capfd.readouterr().err
    assert "a Gaussian, take no label or size or steps; leave --label, --size, --steps out" in err
    assert not (tmp_path / "s.png").exists()


def test_flow_of_grey_photographs_of_any_size_is_one_line(data, tmp_path, capfd):
    assert train("nf", data["folder"], tmp_path / "run", "--channels", 1) == 1
    assert "is one of RGB images, not of 1 channels" in capfd.readouterr().err


def test_gan_of_photographs_of_any_size_is_one_line(data, tmp_path, capfd):
    assert train("gan", data["folder"], tmp_path / "run") == 1
    err = capfd.readouterr().err
    assert err.startswith("genprior: A gan makes images of one size only: give an .npz file")
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_each_file_of_a_folder_has_the_prior_of_the_family_that_fits_it(tmp_path, capfd, monkeypatch):
    """One Gaussian for grey files of H x W, black, and one for others, white: noise of 0.5 leaves them their colour."""
    for name, mean in (("toy-grey", torch.zeros(1, H, W)), ("toy-small", torch.ones(3, 8, 8))):
        (tmp_path / "priors" / name).mkdir(parents=True)
        write_prior(Gaussian(mean, torch.full_like(mean, 1e-4)), tmp_path / "priors" / name, {})
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "priors")
    write(picture()[..., 0], tmp_path / "in" / "a.png")
    write(picture()[:8, :8], tmp_path / "in" / "b.png")
    write(picture(), tmp_path / "in" / "c.png")
    options = ["--op", "denoise", "--noise", 0.5, "--prior", "toy", "--device", "cpu"]
    assert genprior("restore", tmp_path / "in", "-o", tmp_path / "x", *options) == 1
    # deviations of 0.01 = 2.55 grey levels, and a pull of (0.01 / 0.5)^2 of less than 255: 5 deviations
    assert read(tmp_path / "x" / "a.png").max() < 13
    assert read(tmp_path / "x" / "b.png").min() > 242
    err = capfd.readouterr().err
    assert "c.png: No bundled toy prior fits images of shape (3, 24, 20); there is toy-grey of (1, 24, 20)" in err
    assert "1 of 3 failed" in err


def test_train_without_data_is_one_line(tmp_path, capfd):
    assert genprior("train", "ddpm", "--data", tmp_path / "nothing", "--out", tmp_path / "run") == 1
    err = capfd.readouterr().err
    assert err.startswith("genprior: ")
    assert "nothing" in err
    assert not (tmp_path / "run").exists()


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys\nfrom genprior.cli import main\n"
        "try: main(['restore', '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    for word in ("--mask", "--seed", "--n", "--device", "--out", "--overwrite", "super-resolution"):
        assert word in run.stdout

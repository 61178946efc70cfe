"""Output for other programs, what is there, and help that is quick."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.cli import COMMANDS, main
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import write_prior
from genprior.priors.store import bundled
from genprior.samplers import SAMPLERS

H, W = 12, 10


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    write_prior(DDPM((3, None, None), widths=(8, 8), blocks=1), folder, {})
    return folder


@pytest.fixture
def photos(tmp_path):
    """Two photographs and a file that is none."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in "ac":
        Image.fromarray(rng.integers(0, 255, (H, W, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "b.png").write_text("rubbish")
    return tmp_path / "in"


def restore(prior, *arguments):
    fixed = ["--prior", prior, "--sampler", "diffpir", "--steps", 2, "--device", "cpu"]
    return main([str(a) for a in ("restore", *arguments, *fixed)])


def read(path):
    return np.asarray(Image.open(path)).astype(float)


# ---- restore ----


def test_json_is_one_object_for_each_file(photos, prior, tmp_path, capfd):
    options = ["--op", "denoise", "--json", "--n", 2, "--samples", "--std", "--concat", "--tile", 300]
    assert restore(prior, photos, "-o", tmp_path / "x", *options) == 1
    a, b, c = map(json.loads, capfd.readouterr().out.splitlines())
    assert [told["input"] for told in (a, b, c)] == [str(photos / f"{name}.png") for name in "abc"]
    names = ["a.png", "a_sample-0.png", "a_sample-1.png", "a_std.png", "a_concat.png"]
    assert a["outputs"] == [str(tmp_path / "x" / name) for name in names]
    assert sorted(os.listdir(tmp_path / "x")) == sorted(names + [name.replace("a", "c", 1) for name in names])
    assert (a["n"], a["evaluations"], a["noise_was_estimated"], a["tile"]) == (2, 4, True, 300)
    assert (a["sampler"]["name"], a["sampler"]["parameters"]["steps"]) == ("diffpir", 2)
    assert a["estimator"] is None
    assert a["prior"] == str(prior)
    assert a["seconds"] > 0
    assert a["noise"] > 0.1  # noise is all there is
    assert a["seed"] != c["seed"]
    assert set(b) == {"input", "error"}
    assert "cannot be read as an image" in b["error"]


def test_json_names_the_method_of_the_picture_and_that_of_the_draws(photos, prior, tmp_path, capfd):
    fixed = ["restore", photos / "a.png", "--op", "super-resolution", "--scale", 2, "--noise", 0.1, "--prior", prior]
    for n, asked in ((0, []), (1, ["--samples"]), (2, ["-n", 2])):
        options = [*fixed, "--steps", 2, "--device", "cpu", "--json", *asked, "-o", tmp_path / f"{n}.png"]
        assert main([str(a) for a in options]) == 0
        told = json.loads(capfd.readouterr().out)
        assert (told["n"], told["evaluations"]) == (n, 2 + 4 * n)
        assert (told["estimator"]["name"], told["estimator"]["parameters"]["steps"]) == ("dpir", 2)
        assert (told["sampler"] and told["sampler"]["name"]) == ("probed-covariance" if n else None)
        assert all(len(figures) == (n or 1) for figures in told["diagnostics"].values())


def test_seed_and_noise_of_json_give_the_same_file_again(photos, prior, tmp_path, capfd):
    import genprior

    assert restore(prior, photos / "a.png", "-o", tmp_path / "x.npz", "--op", "denoise", "--json", "--n", 2) == 0
    told = json.loads(capfd.readouterr().out)
    again = genprior.restore(
        photos / "a.png", "denoise", prior, sampler=SAMPLERS[told["sampler"]["name"]](**told["sampler"]["parameters"]),
        n=told["n"], noise=told["noise"], seed=told["seed"], device="cpu",
    )  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["samples"], again.samples)


@pytest.mark.parametrize(
    ("op", "scale"),
    [(["--op", "denoise"], 1), (["--op", "super-resolution", "--scale", 2], 2), (["--op", "colorize"], 1)],
)
def test_concat_is_the_measurement_beside_the_result(op, scale, photos, prior, tmp_path):
    given = Image.open(photos / "a.png").convert("L" if "colorize" in op else "RGB")
    given.save(tmp_path / "y.png")
    assert restore(prior, tmp_path / "y.png", "-o", tmp_path / "x.png", *op, "--noise", 0.1, "--concat") == 0
    both, width = read(tmp_path / "x_concat.png"), scale * W
    assert both.shape == (scale * H, 2 * width + 2, 3)
    # a measurement of fewer pixels has them repeated, a grey one is grey
    repeated = np.asarray(given.convert("RGB")).repeat(scale, 0).repeat(scale, 1)
    np.testing.assert_array_equal(both[:, :width], repeated)
    np.testing.assert_array_equal(both[:, width + 2 :], read(tmp_path / "x.png"))
    assert (both[:, width : width + 2] == 255).all()


@pytest.mark.parametrize("op", ["colorize", "denoise"])
def test_the_command_says_that_colours_are_guesses(op, photos, prior, tmp_path, capfd):
    Image.open(photos / "a.png").convert("L" if op == "colorize" else "RGB").save(tmp_path / "y.png")
    assert restore(prior, tmp_path / "y.png", "-o", tmp_path / "x.png", "--op", op, "--noise", 0.1) == 0
    assert ("colours are guesses" in capfd.readouterr().err) == (op == "colorize")


def test_concat_is_not_written_over_a_file(photos, prior, tmp_path, capfd):
    (tmp_path / "x_concat.png").write_text("precious")
    assert restore(prior, photos / "a.png", "-o", tmp_path / "x.png", "--op", "denoise", "--concat") == 1
    assert "x_concat.png exists" in capfd.readouterr().err
    assert not (tmp_path / "x.png").exists()


# ---- what is there ----


def test_priors_are_listed_by_what_one_chooses_them_by(capfd):
    assert main(["priors"]) == 0
    out = capfd.readouterr().out
    blocks = {block.split(":")[0]: block for block in out.split("\n") if block and not block.startswith(" ")}
    assert sorted(blocks) == bundled()
    assert "ddpm-photo: RGB photographs" in out
    photo = out[out.index("ddpm-photo:") : out.index("gan-mnist:")]
    for line in (
        "data     1061 photographs",
        "licence  CC BY-SA 4.0",
        "steps    3500",
        "metrics  CBSD68 PSNR at 15/255, ",
    ):
        assert f"\n  {line}" in photo
    assert "None" not in out
    assert main(["priors", "ddpm-photo"]) == 0
    assert json.loads(capfd.readouterr().out)["settings"]["steps"] == 3500


def test_info_says_versions_devices_and_folders(capfd):
    import genprior

    assert main(["info", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (
        found["versions"]["torch"] == torch.__version__.split("+")[0] or found["versions"]["torch"] == torch.__version__
    )
    assert found["versions"]["genprior"] == genprior.__version__
    assert found["devices"]["cpu"]["bfloat16"] in ("yes", "no")
    assert ("cuda:0" in found["devices"]) == torch.cuda.is_available()
    assert found["devices"]["cpu"]["memory"].endswith("GiB")
    assert os.path.isdir(found["folders"]["bundled priors"])
    assert main(["info"]) == 0
    out = capfd.readouterr().out
    for line in ("versions\n", "devices\n", "  cpu            threads 1, memory ", "folders\n", "  Hub's cache    "):
        assert line in out


# ---- help ----


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "genprior", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert out.startswith("usage: genprior")


@pytest.mark.parametrize("arguments", [[], *(command.split() for command in COMMANDS)])
def test_help_loads_nothing_slow(arguments):
    arguments = ["evaluate", "truth"] if arguments == ["truth"] else arguments
    code = (
        "import sys\nfrom genprior.cli import main\n"
        f"try: main([*{arguments!r}, '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'numpy', 'PIL', 'scipy', 'gradio', 'huggingface_hub'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout.startswith("usage: genprior")

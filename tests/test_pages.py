"""The code of the pages runs as it stands, on small images and with small networks."""

import re
import shlex
from pathlib import Path

import deepinv
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, LDMPipeline, UNet2DModel, VQModel
from PIL import Image
from skimage import data

import genprior
from genprior import images
from genprior.cli import main
from genprior.nets.adm import ADMUNet
from genprior.priors import find

ROOT = Path(__file__).parent.parent


def blocks(text, language="python"):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [code for named, code in found if named == language]


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


SECTIONS = re.split(r"^## ", page("docs/priors.md"), flags=re.MULTILINE)
BLOCKS = {f"{section.splitlines()[0]} {k}": b for section in SECTIONS[1:] for k, b in enumerate(blocks(section))}
# What is left behind, by the first words of a section: the files that its blocks write.
WRITTEN = {"A function 0": "filled.png", "A model of diffusers 0": "filled.png", "Fitted": "clean.png"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of, and networks small enough for a test."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    ramp = np.linspace(60, 200, 24)[:, None, None] + random.normal(0, 5, (24, 24, 3))
    photo = Image.fromarray(ramp.round().astype(np.uint8))
    for name in ("photo.png", "holed.png", "blurred.png", "shaken.png", "noisy.png"):
        photo.save(name)
    photo.convert("L").save("grey.png")
    photo.resize((8, 8)).save("small.png")
    photo.save("blocky.jpg", quality=10)
    Image.fromarray(random.random((24, 24)) < 0.2).save("holes.png")
    np.save("crops.npy", (random.integers(60, 200, (20, 3, 8, 8)) / 255).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=24,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            add_attention=False,
        )
        DDPMPipeline(unet, DDPMScheduler()).save_pretrained("cats")
        sizes = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
        levels = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        codes = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        latent = UNet2DModel(add_attention=False, **sizes, **levels)
        LDMPipeline(VQModel(**sizes, **codes), latent, DDIMScheduler()).save_pretrained("faces")
        torch.save(ADMUNet(base=32, widths=(32, 32), attention=(1,), heads=1).state_dict(), "mine.pt")
        digits = genprior.DDPM((1, 28, 28), widths=(4,), blocks=0, patch=7, steps=20).eval()
        photos = genprior.DDPM((3, None, None), widths=(4, 4), blocks=1, steps=20).eval()
        drunet = Untrained(nc=[4, 4, 4, 4], nb=1, pretrained=None)
    photos.fit_covariance(torch.from_numpy(random.random((4, 3, 16, 16))).float())
    priors, loaded = {"ddpm-mnist": digits, "ddpm-photo": photos}, find._loaded

    def alone(path, *rest):
        known = priors.get(path.name)
        return (known, find._state(known)) if known else loaded(path, *rest)

    load = genprior.load_prior
    monkeypatch.setattr(genprior, "load_prior", lambda name: priors.get(name) or load(name), raising=False)
    monkeypatch.setattr(find, "_loaded", alone)
    monkeypatch.setattr(deepinv.models, "DRUNet", lambda pretrained: drunet)
    return tmp_path


class Untrained(deepinv.models.DRUNet):
    """Of random weights, but near x at low noise, as a denoiser is."""

    def forward(self, x, sigma):
        return x + sigma * super().forward(x, sigma).tanh()


def executed(code, name, **names):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(compile(code, name, "exec"), names)
    return names


def size(path):
    with Image.open(path) as image:
        return image.size


# ---- docs/priors.md, block by block ----


@pytest.mark.parametrize("name", BLOCKS)
def test_block_runs_as_it_stands(name, home):
    executed(BLOCKS[name], f"docs/priors.md, {name}")
    written = [file for begin, file in WRITTEN.items() if name.startswith(begin)]
    assert all((home / file).exists() for file in written)


def test_every_kind_of_prior_has_a_block():
    assert len(BLOCKS) == 12
    assert all(any(name.startswith(begin) for name in BLOCKS) for begin in WRITTEN)


def test_what_auto_picks_is_what_the_page_says():
    from genprior.priors import Gaussian, Prior
    from genprior.priors.amortized import LearnedPosterior
    from genprior.samplers import SAMPLERS, automatic

    rows = re.findall(r"^\| (.+?) \| `([\w-]+)` \|", SECTIONS[0], flags=re.MULTILINE)
    assert len(rows) == 9
    assert rows[0] == ("the posterior in closed form", "exact")
    assert type(automatic(Gaussian(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)))) is SAMPLERS["exact"]
    assert rows[1] == ("a posterior learned for one operator", "amortized")
    assert (
        type(automatic(LearnedPosterior((1, 4, 4), operator={"name": "Denoise"}, noise=(0, 1))))
        is SAMPLERS["amortized"]
    )
    rows = [(has.split("`")[1], "any size" in has, sampler) for has, sampler in rows[2:]]
    for k, (has, any_size, sampler) in enumerate(rows):

        class Having(Prior):
            image_shape = (1, None, None) if any_size else (1, 4, 4)
            capabilities = frozenset(name for name, *_ in rows[k:])

        assert type(automatic(Having())) is SAMPLERS[sampler], has


# ---- pages that are read from top to bottom ----


def test_the_quick_start_gives_what_it_says(home):
    text = page("docs/start.md")
    result = executed("".join(blocks(text)), "docs/start.md")["result"]
    # a blur of width 2 is 13 pixels wide: of 128 it measures 116
    assert result.samples.shape == (4, 3, 116, 116)
    assert torch.equal(result.image, result.mean.clamp(0, 1))
    assert size("restored.png") == (116, 116)
    Path("small.png").unlink()  # the page makes its own
    Image.open("photo.png").resize((48, 48)).save("photo.jpg")
    for line in re.findall(r"^genprior (.*)", "".join(blocks(text, "")), flags=re.MULTILINE):
        assert main(shlex.split(line)) == 0, line
    assert size("small.png") == (12, 12)
    assert size("large.png") == size("large_std.png") == (48, 48)


def test_your_own_photograph_is_restored_from_what_happened_to_it(home):
    result = executed("".join(blocks(page("docs/photo.md"))), "docs/photo.md")["result"]
    for name in ("filled", "sharp", "still", "colours", "clean"):
        assert size(f"{name}.png") == (24, 24)
    assert size("large.png") == (32, 32)
    with Image.open("colours.png") as image:
        assert image.mode == "RGB"
    assert (len(result.samples), type(result.sampler).__name__) == (8, "OptimalCovariance")
    assert (home / "samples.png").exists()


@pytest.mark.parametrize("library", ["deepinv", "diffusers", "azula", "scikit-image"])
def test_a_task_of_another_library_runs_in_both(library, home):
    section = next(s for s in re.split(r"^## ", page("docs/coming.md"), flags=re.MULTILINE) if s.startswith(library))
    (code,) = blocks(section)
    grey = np.asarray(Image.open("grey.png")) / 255
    x = torch.from_numpy(np.asarray(Image.open("photo.png")) / 255).float().movedim(-1, 0)[None]
    code = code.replace("num_inference_steps=20", "num_inference_steps=2")
    names = executed(code, f"docs/coming.md, {library}", x=x, grey=grey, denoiser=lambda x_t, s: x_t / (1 + s**2))
    if library == "scikit-image":
        assert names["filled"].shape == names["theirs"].shape == grey.shape
    elif library == "diffusers":
        assert names["draws"].shape == (4, *names["theirs"].transpose(0, 3, 1, 2).shape[1:])
    else:
        assert names["result"].samples.shape[1:] == x.shape[1:]
    if library == "deepinv":
        assert names["theirs"].shape == names["other"].image.shape == x.shape


def test_the_first_lines_that_anyone_tries_run(home):
    Image.open("photo.png").save("photo.jpg")
    executed("".join(blocks(page("docs/index.md"))), "docs/index.md")
    result = executed("".join(blocks(page("README.md"))), "README.md")["result"]
    assert size("filled.png") == (24, 24)
    assert result.samples.shape == (16, 3, 24, 24)


CALLS = re.findall(r"`(genprior\.restore\([^`]*\))`", page("README.md"))


def test_what_to_use_when_names_every_kind_of_measurement():
    given = ("inpaint", "super-resolution", "deblur", "motion-deblur", "denoise", "jpeg", "physics)", "prior=")
    assert [sum(word in call for call in CALLS) > 0 for word in given] == [True] * len(given)


@pytest.mark.parametrize("call", CALLS)
def test_what_to_use_when_runs(call, home):
    photo = torch.from_numpy(data.astronaut()[:96, 160:256].copy()).movedim(-1, 0) / 255  # blur and noise are found
    images.save(photo, "blurred.png")
    dots = genprior.degrade(photo, "denoise", noise=genprior.likelihoods.Poisson(1 / 30), seed=0).y[0]
    images.save(dots.clamp(0, 1), "raw.png")
    array = np.asarray(Image.open("photo.png"))[:12, :12] / 255
    given = {
        "pil_image": Image.open("small.png"),
        "array": array,
        "k": np.full((3, 3), 1 / 9),
        "y": torch.from_numpy(array).float().movedim(-1, 0),
        "physics": deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.1)),
        "my_denoiser": lambda x_t, sigma: x_t / (1 + sigma**2),
    }
    result = executed(f"import genprior\nresult = {call}", "README.md", **given)["result"]
    assert result.mean.isfinite().all()

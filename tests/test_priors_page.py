"""Every block of code in docs/priors.md runs as it stands, on small images and with small networks."""

import functools
import re
from pathlib import Path

import deepinv
import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image

import genprior

PAGE = Path(__file__).parent.parent / "docs" / "priors.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
BLOCKS = {
    f"{section.splitlines()[0]} {k}": block
    for section in SECTIONS[1:]
    for k, block in enumerate(re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL))
}
# What is left behind, by the first words of a section: the files that its blocks write.
WRITTEN = {"A function 0": "filled.png", "A model of diffusers 0": "filled.png", "Fitted": "clean.png"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the files that the page speaks of, and networks small enough for a test."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    ramp = np.linspace(60, 200, 24)[:, None, None] + random.normal(0, 5, (24, 24, 3))
    Image.fromarray(ramp.round().astype(np.uint8)).save("photo.png")
    Image.fromarray(random.random((24, 24)) < 0.5).save("holes.png")
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
        digits = genprior.DDPM((1, 28, 28), widths=(4,), blocks=0, patch=7, steps=20).eval()
        photos = genprior.DDPM((3, None, None), widths=(8, 8), steps=20).eval()
        drunet = functools.partial(deepinv.models.DRUNet, nc=[4, 4, 4, 4], nb=1)
    priors = {"ddpm-mnist": digits, "ddpm-photo": photos}
    monkeypatch.setattr(genprior, "load_prior", lambda name: priors[name], raising=False)
    monkeypatch.setattr(deepinv.models, "DRUNet", lambda pretrained: drunet(pretrained=None))
    return tmp_path


@pytest.mark.parametrize("name", BLOCKS)
def test_block_runs_as_it_stands(name, home):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(compile(BLOCKS[name], f"docs/priors.md, {name}", "exec"), {})
    written = [file for begin, file in WRITTEN.items() if name.startswith(begin)]
    assert all((home / file).exists() for file in written)


def test_every_kind_of_prior_has_a_block():
    assert len(BLOCKS) == 9
    assert all(any(name.startswith(begin) for name in BLOCKS) for begin in WRITTEN)


def test_what_auto_picks_is_what_the_page_says():
    from genprior.priors.base import Prior
    from genprior.samplers import SAMPLERS, automatic

    rows = re.findall(r"^\| `(\w+)` \| `([\w-]+)` \|", SECTIONS[0], flags=re.MULTILINE)
    assert len(rows) == 6
    for k, (has, sampler) in enumerate(rows):

        class Having(Prior):
            capabilities = frozenset(name for name, _ in rows[k:])

        assert type(automatic(Having())) is SAMPLERS[sampler], has

"""The recipes of latent diffusion run and do what they say, at toy size."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from genprior import images
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_prior, write_prior
from genprior.priors.latent import LatentDiffusion
from genprior.priors.vae import VAE

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture
def digits(tmp_path):
    """Strokes of random grey values, as many as the recipes hold out and a few."""
    grey = np.random.default_rng(0).integers(100, 256, (55008, 8), dtype=np.uint8)
    x = np.zeros((55008, 28, 28), np.uint8)
    x[:, 10:18, 12] = grey
    np.savez(tmp_path / "digits.npz", train_images=x)
    return tmp_path / "digits.npz"


def test_latent_diffusion_is_trained_in_two_stages(run, digits, tmp_path):
    """The autoencoder of the second is that of the first."""
    run("train_ldm_mnist", "--data", digits, "--out", tmp_path, "--steps", 1, "--batch", 128)
    prior, vae = read_prior(tmp_path / "ldm" / "prior"), read_prior(tmp_path / "vae" / "prior")
    assert type(prior) is LatentDiffusion
    assert all(bool((t == vae.state_dict()[key]).all()) for key, t in prior.vae.state_dict().items())


@pytest.fixture
def photos(tmp_path):
    x = torch.from_numpy(data.astronaut().copy()).movedim(-1, 0).float() / 255
    for i in range(2):
        images.save(x[:, 60 * i : 60 * i + 130, 150:280], tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def test_latent_diffusion_of_photographs_begins_with_the_bundled_autoencoder(run, photos, tmp_path):
    """Of its 16 latents a cell 6 are left, and a step of stage 1 is too short to lose what they say."""
    quick = ["--vae-steps", 1, "--steps", 1, "--batch", 2, "--size", 32]
    run("train_ldm_photo", "--data", photos, "--validation", photos, "--out", tmp_path, *quick)
    prior, vae = read_prior(tmp_path / "ldm" / "prior"), read_prior(tmp_path / "vae" / "prior")
    assert prior.latents.image_shape == (6, None, None)
    assert all(bool((t == vae.state_dict()[key]).all()) for key, t in prior.vae.state_dict().items())
    log = (tmp_path / "vae" / "log.jsonl").read_text()
    assert float(re.search(r'"reconstruction PSNR": ([\d.]+)', log)[1]) > 27


ROWS = [("ddpm", "DiffPIR"), ("ddpm", "MMPS"), ("ldm", "LatentDAPS"), ("ldm", "PSLD"), ("ldm", "ReSample")]


def test_superresolution_compares_latent_with_pixel_diffusion(run, digits, tmp_path):
    given = ["--data", digits, "--out", tmp_path / "digits.png", "--images", 2, "--n", 1, "--seconds", 0.01]
    assert re.findall(r"\| (\S+) \| (\S+) \| \d+ \|", run("latent_superresolution", *given)) == ROWS
    assert (tmp_path / "digits.png").stat().st_size > 5_000


def test_superresolution_compares_them_on_photographs(run, photos, tmp_path):
    """Of colour, by a prior in a folder."""
    vae = VAE((3, None, None), latent=2, widths=(4, 4), blocks=(0, 1))
    prior = LatentDiffusion(vae, DDPM((2, None, None), data_std=1.0, widths=(8, 8), blocks=1, patch=1))
    (tmp_path / "ldm").mkdir()
    write_prior(prior, tmp_path / "ldm", {})
    given = ["--photos", photos, "--out", tmp_path / "photos.png", "--ldm", tmp_path / "ldm", "--images", 2, "--n", 1]
    out = run("latent_superresolution", *given, "--size", 32, "--seconds", 0.01)
    assert re.findall(r"\| (\S+) \| (\S+) \| \d+ \|", out) == ROWS
    assert (tmp_path / "photos.png").stat().st_size > 5_000

"""The recipes of latent diffusion run and do what they say, at toy size."""

import re
from pathlib import Path

import numpy as np
import pytest

from genprior.priors.latent import LatentDiffusion
from genprior.priors.store import read_prior

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


def test_superresolution_compares_latent_with_pixel_diffusion(run, digits, tmp_path):
    given = ["--data", digits, "--out", tmp_path, "--digits", 2, "--n", 1, "--seconds", 0.01]
    rows = re.findall(r"\| (\S+) \| (\S+) \| (\d+) \|", run("latent_superresolution", *given))
    assert [row[:2] for row in rows] == [
        ("ddpm-mnist", "diffpir"),
        ("ddpm-mnist", "mmps"),
        ("ldm-mnist", "latent-daps"),
        ("ldm-mnist", "psld"),
    ]
    assert (tmp_path / "superresolution.png").stat().st_size > 5_000

"""Consistency models as priors: against diffusers' pipeline, and against the probability flow of Gaussian data."""

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline, UNet2DModel
from torch import nn

import genprior
from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement, random_mask
from genprior.posteriors.exact import posterior_of
from genprior.priors.foreign.consistency import ConsistencyPrior
from genprior.priors.gaussian.gaussian import Gaussian

S = CMStochasticIterativeScheduler(clip_denoised=False)


def network(**arguments):
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}
    size = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8}
    return UNet2DModel(**{**kinds, **size, **arguments}).eval().requires_grad_(False)


@pytest.mark.parametrize("levels", [{}, {"sigma_min": 0.3, "sigma_max": 2.0, "sigma_data": 0.7}])
def test_image_of_noise_is_that_of_the_pipeline_in_one_step(tmp_path, levels):
    """Of random weights, from the folder; the pipeline clips. Its s_max and t are rounded to float32."""
    scheduler = CMStochasticIterativeScheduler(clip_denoised=False, **levels)
    pipeline = ConsistencyModelPipeline(network(), scheduler)
    pipeline.save_pretrained(tmp_path / "consistency")
    prior = genprior.load_prior(tmp_path / "consistency")
    assert isinstance(prior, ConsistencyPrior)
    assert prior.capabilities == {"sample", "decode"}
    assert prior.latent_shape == prior.image_shape == (3, 8, 8)
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(batch_size=2, num_inference_steps=1, latents=z, output_type="pt").images
    torch.testing.assert_close(prior.decode(z).clamp(0, 1), wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(prior.sample(3)[:2], prior.sample(2), rtol=0, atol=1e-5)


class Flow(nn.Module):
    """F of the end at s_min of the probability flow of u ~ N(m, S), in closed form.

    f(u_t, s) = m + ((S + s_min^2 I) (S + s^2 I)^-1)^1/2 (u_t - m), and F = (f - c_skip u_t) / c_out.
    """

    def __init__(self, mean, covariance):
        super().__init__()
        self.mean, (self.l, self.U) = mean.flatten(), torch.linalg.eigh(covariance)

    def forward(self, z, t):
        s = (t[0].double() / 250).exp()
        low, sd = 0.002, 0.5
        u_t = (s**2 + sd**2).sqrt() * z.flatten(1)
        scale = ((self.l + low**2) / (self.l + s**2)).sqrt()
        f = self.mean + (u_t - self.mean) @ self.U * scale @ self.U.T
        c_skip = sd**2 / ((s - low) ** 2 + sd**2)
        c_out = (s - low) * sd / (s**2 + sd**2).sqrt()
        return SimpleNamespace(sample=((f - c_skip * u_t) / c_out).reshape(z.shape))


def gaussian():
    i = torch.arange(16, dtype=torch.float64)
    mean = torch.linspace(0.3, 0.7, 16, dtype=torch.float64).reshape(1, 4, 4)
    return mean, 0.04 * torch.exp(-(i[:, None] - i).abs() / 3)


def of_gaussian():
    mean, covariance = gaussian()
    prior = ConsistencyPrior(network(in_channels=1, out_channels=1, sample_size=4), S)
    prior.unet = Flow(2 * mean - 1, 4 * covariance)
    return prior.double()


def test_images_of_noise_have_the_law_of_gaussian_data():
    """decode is affine: its matrix and origin are those of the data, but for what s_max = 80 has left of the image.

    With l the eigenvalues of S, on [-1, 1], that is l / s_max^2 of the covariance, up to 1.5e-4, and sqrt(l) / s_max of
    the mean, up to 1.2e-2 of the 0.2 by which it differs from grey.
    """
    prior, (mean, covariance) = of_gaussian(), gaussian()
    origin = prior.decode(torch.zeros(1, 1, 4, 4, dtype=torch.float64)).flatten()
    W = (prior.decode(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).flatten(1) - origin).T
    torch.testing.assert_close(W @ W.T, covariance, rtol=0, atol=1.5e-4 * 0.2)
    torch.testing.assert_close(origin, mean.flatten(), rtol=0, atol=1.2e-2 * 0.2 * 2)


def test_sampling_in_its_noise_has_the_posterior():
    """`fisher-hmc`, 200 draws: means within 4 standard errors and the error above, variances 5 sqrt(2 / 3200)."""
    prior, (mean, covariance) = of_gaussian(), gaussian()
    A, noise = Inpaint(random_mask((4, 4), 0.5, 0), (1, 4, 4)), 0.05
    y = A(mean[None] + 0.1) + noise * Noise(3, [0])(mean[None]) * A(torch.ones_like(mean[None]))
    rows = torch.zeros(200, dtype=torch.long)
    with torch.no_grad():
        draws, _ = genprior.FisherHMC(steps=20, leapfrog=8).draw(
            prior, Measurement(y, A, noise).select(rows), Noise(0, rows, torch.arange(200))
        )
    law = posterior_of(Gaussian(mean, covariance), Measurement(y, A, noise))
    exact = law.sample(20000, seed=0)
    sd = exact.std(0)
    assert float(((draws.mean(0) - law.mean) / sd).abs().max()) < 4 / math.sqrt(200) + 0.005 / float(sd.min())
    assert float((draws.var(0) / sd**2).mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / 3200))


def test_it_is_no_denoiser():
    prior = genprior.from_diffusers(network(), S)
    with pytest.raises(UnsupportedError, match="ConsistencyPrior has no denoise; it has decode, sample"):
        prior.denoise(torch.zeros(1, 3, 8, 8), 0.1)


def test_images_of_any_size_are_decoded():
    prior = genprior.from_diffusers(network(), S, (3, None, None)).sized(7, 10)
    assert prior.latent_shape == (3, 7, 10)
    assert prior.decode(torch.zeros(2, 3, 7, 10)).shape == (2, 3, 7, 10)
    with pytest.raises(ValueError, match="takes"):
        prior.decode(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_class_embeds": 10}, "wants a class label"),
        ({"time_embedding_type": "fourier"}, "fourier times, which no consistency model has"),
    ],
)
def test_networks_of_other_kinds_are_refused(arguments, message):
    with pytest.raises(UnsupportedError, match=message):
        genprior.from_diffusers(network(**arguments), S)

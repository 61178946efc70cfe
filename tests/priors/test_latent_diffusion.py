"""Latent diffusion, against linear-Gaussian autoencoders and Gaussian laws of latents, where all is known; in float64.

The image is of patches of 2 x 2 pixels, each x = m + Q diag(a) z + sqrt(v) n with two latents z ~ N(mu, diag(t^2)):
p(x) is a Gaussian of independent patches, and q(z | x) = p(z | x) a product of Gaussians, which the encoder is.
"""

import json
import math

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from torch.distributions import MultivariateNormal

from genprior.checks import UnsupportedError
from genprior.cli import main
from genprior.noise import Noise
from genprior.priors.base import supports
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_prior, write_prior
from genprior.priors.latent import LatentDiffusion
from genprior.priors.store import find_prior
from genprior.priors.vae import LIMIT, PACE, VAE
from genprior.training.families import plan
from genprior.training.latent import LatentDenoising, pruned

V = 0.04
A, MU, T = (torch.tensor(pair, dtype=torch.float64) for pair in ([0.5, 0.3], [1.5, -0.7], [2.0, 0.6]))
M = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
Q = torch.linalg.qr(torch.randn(4, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
PATCH = MultivariateNormal(M + (Q * A) @ MU, (Q * (A * T) ** 2) @ Q.T + V * torch.eye(4, dtype=torch.float64))
SPREAD = 0.25


def convolution(kind, W, b, *channels):
    """W, (out, in of a patch) or its transpose, as a convolution with the stride of the patches."""
    layer = kind(*channels, 2, stride=2).double()
    layer.weight.data, layer.bias.data = W.reshape(layer.weight.shape), b
    return layer


class Decoder(nn.Module):
    """The convolution of Q diag(a), and m."""

    def __init__(self):
        super().__init__()
        self.W = convolution(nn.ConvTranspose2d, (Q * A / SPREAD).T, torch.zeros(1).double(), 2, 1)

    def forward(self, z):
        return self.W(z) + ((M - 0.5) / SPREAD).reshape(2, 2).repeat(z.shape[-2:])


class GaussianLatents(DDPM):
    """A diffusion whose network is perfect: E[w | w_t] of w ~ N(mean, diag(sd^2)), by channel."""

    def know(self, mean, sd):
        self.mean, self.variance = mean.reshape(-1, 1, 1), sd.reshape(-1, 1, 1) ** 2

    def denoise(self, w_t, sigma, *options, **named):
        return self.mean + self.variance / (self.variance + sigma**2) * (w_t - self.mean)

    def log_prob(self, w):
        density = torch.distributions.Normal(self.mean, self.variance.sqrt())
        return density.log_prob(w).flatten(1).sum(1)


def known(scale=1.0, shift=0.0, steps=1000):
    """The linear-Gaussian latent diffusion; its latents are standardised, or off by a scale and a shift."""
    vae = VAE((1, None, None), latent=2, widths=(1,), blocks=(0,), spread=SPREAD).double()
    precision = T**-2 + A**2 / V
    gain = (A / V / precision)[:, None] * Q.T
    offset = MU / T**2 / precision - gain @ (M - 0.5)
    raw = LIMIT * (-0.5 * precision.log() / LIMIT).atanh()
    W, b = torch.cat([gain * SPREAD, torch.zeros_like(gain)]), torch.cat([offset, raw])
    vae.encoder = convolution(nn.Conv2d, W, b, 1, 4)
    vae.decoder = Decoder()
    vae.slow_log_variance.data.fill_(math.log(V) / PACE)
    ddpm = GaussianLatents((2, None, None), data_std=1.0, steps=steps, widths=(8,), blocks=0, patch=1).double()
    prior = LatentDiffusion(vae, ddpm)
    prior.latent_mean.copy_((MU + shift).reshape(-1, 1, 1))
    prior.latent_sd.copy_((T * scale).reshape(-1, 1, 1))
    ddpm.know(ddpm.centre - ddpm.spread * shift / (scale * T), torch.full_like(T, ddpm.spread / scale))
    prior.double().requires_grad_(False)
    # of the last step of the chain, the variance of p(w | w_1)
    variance = (ddpm.spread / scale) ** 2
    ddpm.decoder_variance.fill_(variance * ddpm.sigma_min**2 / (variance + ddpm.sigma_min**2))
    return prior


def patches(x):
    """(B, 1, 2 r, 2 c) -> (B, r c, 4)."""
    return nn.functional.unfold(x, 2, stride=2).mT


def log_prob(x):
    return PATCH.log_prob(patches(x)).sum(1)


def image(height=2, width=4):
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def real(image_shape=(1, None, None), dtype=torch.float64):
    """One whose networks have random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = VAE(image_shape, latent=2, widths=(4, 4), blocks=(0, 1))
        prior = LatentDiffusion(vae, DDPM((2, None, None), data_std=1.0, widths=(8, 8), blocks=1, patch=1, steps=20))
        for parameter in prior.parameters():
            if not parameter.any():
                parameter.data.normal_(std=0.2)
        prior.standardise(torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(1)))
    return prior.to(dtype)


# ---- the bound ----


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (3.0, 0.5), (0.2, -1.0)])
def test_elbo_of_exact_parts_is_log_prob_however_latents_are_standardised(scale, shift, monkeypatch):
    """With ln p(w) in the place of its bound, over 20,000 draws: within 4 standard errors, of about 0.01 nats.

    Forgetting what standardising does to one of p(w) and the entropy would cost 4 ln scale.
    """
    prior = known(scale, shift)
    monkeypatch.setattr(GaussianLatents, "elbo", lambda self, w, **options: self.log_prob(w))
    x = image()
    values = prior.elbo(x.expand(20000, -1, -1, -1))
    assert abs(values.mean() - log_prob(x)) < 4 * values.std() / math.sqrt(len(values))


def test_elbo_is_below_log_prob_by_the_gap_of_the_diffusion_alone():
    """The chain of 1000 steps with a perfect network loses little of ln p(w): of 4 latents, the same here as alone."""
    prior = known()
    x = image().expand(4000, -1, -1, -1)
    w = prior.latents.mean + prior.latents.variance.sqrt() * Noise(5, range(4000))(prior.encode(x))
    alone = prior.ddpm.elbo(w) - prior.ddpm.log_prob(w)
    found = prior.elbo(x) - log_prob(x)
    error = math.sqrt(alone.var() / 4000 + found.var() / 4000)
    assert -0.4 < found.mean() < 0
    assert abs(found.mean() - alone.mean()) < 4 * error


# ---- draws and latents ----


def test_draws_have_the_law_of_the_images():
    """Moments of 20,000 patches, within 5 standard errors: of a mean sd / sqrt(n), of a covariance sqrt(2 / n)."""
    x = patches(known().sample(5000, size=(4, 4), steps=200)).flatten(0, 1)
    sd = PATCH.covariance_matrix.diagonal().sqrt()
    assert ((x.mean(0) - PATCH.mean) / sd).abs().max() < 5 / math.sqrt(len(x))
    off = (x.T.cov() - PATCH.covariance_matrix) / (sd[:, None] * sd)
    assert off.abs().max() < 5 * math.sqrt(2 / len(x))


def test_draw_does_not_depend_on_how_many_there_are():
    prior = real()
    assert torch.allclose(prior.sample(3, size=(9, 10))[1:2], prior.sample(2, size=(9, 10))[1:2], atol=1e-12)


def test_latents_are_standardised():
    """Of draws of q(w | x) over the images it was fitted to: mean `centre` and sd `spread`, of each channel."""
    prior = real()
    x = torch.rand(4000, 1, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    prior.standardise(x)
    mean, sd = prior.moments(x)
    w = mean + sd * Noise(0, range(len(x)))(mean)
    n = w.numel() / 2
    assert ((w.mean(dim=(0, 2, 3)) - prior.latents.centre) / prior.latents.spread).abs().max() < 5 / math.sqrt(n)
    assert (w.std(dim=(0, 2, 3)) / prior.latents.spread - 1).abs().max() < 5 / math.sqrt(n)


def test_encode_and_render_are_those_of_the_vae_in_other_units():
    prior = real()
    x = image(9, 10)
    z = prior.latent_mean + prior.latent_sd * (prior.encode(x) - 0.5) / 0.5
    assert torch.allclose(z, prior.vae.encode(x), atol=1e-12)
    assert torch.allclose(prior.sized(9, 10).render(prior.encode(x)), prior.vae.sized(9, 10).decode(z), atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (9, 10), (16, 4)])
def test_images_may_have_any_size(size):
    prior = real().sized(*size)
    cells = tuple(math.ceil(a / 4) for a in size)
    assert prior.latent_shape == prior.latents.image_shape == (2, *cells)
    assert prior.sample(2, steps=2).shape == (2, 1, *size)
    assert prior.encode(prior.sample(2, steps=2)).shape == (2, 2, *cells)


def test_size_that_is_missing_or_another_is_refused():
    with pytest.raises(ValueError, match="say which one"):
        real().sample(1)
    with pytest.raises(ValueError, match=r"of size \(8, 8\), not \(9, 9\)"):
        real().sized(8, 8).sample(1, size=(9, 9))


# ---- as a prior ----


def test_it_promises_no_latents_of_law_n_0_i():
    """Samplers for N(0, I) ask for `decode` and `infer`."""
    prior = real()
    assert prior.capabilities == {"sample", "elbo", "encode", "render"}
    assert supports(prior.latents, "denoise")
    with pytest.raises(UnsupportedError, match="LatentDiffusion has no decode"):
        prior.decode(torch.zeros(1, 2, 3, 3))


def test_parts_that_do_not_fit_are_refused():
    flat = VAE((1, 8, 8), latent=2, widths=(4,), blocks=(0,))
    maps = VAE((1, None, None), latent=2, widths=(4,), blocks=(0,))
    small = {"widths": (8,), "blocks": 0}
    with pytest.raises(ValueError, match="any size"):
        LatentDiffusion(flat, DDPM((2, None, None), **small))
    with pytest.raises(ValueError, match=r"images of the ddpm \(3, None, None\)"):
        LatentDiffusion(maps, DDPM((3, None, None), **small))


def test_round_trip_on_disk_is_exact(tmp_path):
    prior = real(dtype=torch.float32)
    write_prior(prior, tmp_path, {})
    again = read_prior(tmp_path)
    assert again.config == prior.config
    assert torch.equal(again.sample(2, size=(9, 10)), prior.sample(2, size=(9, 10)))


# ---- training ----


def batch(*items):
    x = torch.stack([torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in items])
    return {"x": (255 * x).round() / 255, "item": torch.tensor(items)}


def test_loss_trains_the_diffusion_and_leaves_the_autoencoder():
    prior = real(dtype=torch.float32)
    loss, _ = LatentDenoising(prior)(batch(0, 1, 2), 0)
    loss.backward()
    assert all(parameter.grad is None for parameter in prior.vae.parameters())
    assert all(parameter.grad is not None for parameter in prior.ddpm.parameters())


def test_loss_of_an_item_does_not_depend_on_its_company():
    objective = LatentDenoising(real(dtype=torch.float32))
    together = objective(batch(3, 4, 5, 6), 0)[0]
    alone = [objective(batch(i), 0)[0] for i in (3, 4, 5, 6)]
    assert torch.allclose(together, torch.stack(alone).mean(), rtol=1e-5)


def test_draw_of_the_encoder_and_noise_of_the_diffusion_are_independent(monkeypatch):
    """The correlation of n numbers with n others is 0 within 5 / sqrt(n); the same numbers would correlate."""
    prior = real(dtype=torch.float32)
    examples = batch(*range(200))
    seen = []
    denoise = DDPM.denoise

    def watched(self, w_t, sigma, *options, **named):
        seen.append((w_t, sigma))
        return denoise(self, w_t, sigma, *options, **named)

    monkeypatch.setattr(DDPM, "denoise", watched)
    objective = LatentDenoising(prior)
    inner = objective.denoising.forward
    drawn = []
    monkeypatch.setattr(objective.denoising, "forward", lambda b, step: drawn.append(b["x"]) or inner(b, step))
    objective(examples, 0)
    (w_t, sigma), w = seen[0], drawn[0]
    n = (w_t - w) / sigma
    mean, sd = prior.moments(examples["x"])  # of images that are not dequantised: eps, to about a hundredth
    eps = (w - mean) / sd
    assert abs(torch.corrcoef(torch.stack([n.flatten(), eps.flatten()]))[0, 1]) < 5 / math.sqrt(n.numel())


@pytest.fixture
def stored_vae(tmp_path):
    folder = tmp_path / "vae"
    folder.mkdir()
    write_prior(real(dtype=torch.float32).vae, folder, {})
    return folder


def test_command_line_trains_in_the_latents_of_a_vae_that_stays(stored_vae, tmp_path):
    crops = [data.camera()[16 * k : 16 * k + 16, 100:116] for k in range(8)]
    np.savez(tmp_path / "crops.npz", train_images=np.stack(crops))
    out = tmp_path / "run"
    given = ["train", "ldm", "--data", str(tmp_path / "crops.npz"), "--batch", "4", "--steps", "2", "--out", str(out)]
    assert main([*given, "--vae", str(stored_vae)]) == 0
    assert json.loads((out / "prior" / "config.json").read_text())["family"] == "ldm"
    prior, vae = read_prior(out / "prior"), read_prior(stored_vae)
    assert prior.image_shape == (1, None, None)
    assert all(torch.equal(t, vae.state_dict()[key]) for key, t in prior.vae.state_dict().items())
    images = torch.from_numpy(np.stack(crops)).float()[:, None] / 255
    begun = plan("ldm", (1, 16, 16), 0, images, 0, vae).prior
    # in the order of the data, which is shuffled, to rounding
    assert torch.allclose(prior.latent_sd, begun.latent_sd, rtol=1e-5)
    assert any(
        not torch.equal(t, begun.ddpm.state_dict()[key]) for key, t in prior.ddpm.net.state_dict(prefix="net.").items()
    )
    assert float(prior.ddpm.decoder_variance) != float(begun.ddpm.decoder_variance)


def test_ldm_without_its_vae_and_others_with_one_are_refused(stored_vae):
    examples, vae = torch.rand(4, 1, 16, 16), read_prior(stored_vae)
    for family, given in (("ldm", None), ("ddpm", vae)):
        with pytest.raises(ValueError, match="give a vae with it alone"):
            plan(family, (1, 16, 16), 0, examples, 0, given)
    for wrong in (VAE((1, 16, 16), latent=2, widths=(4,), blocks=(0,)), vae):
        with pytest.raises(ValueError, match="needs a vae of images"):
            plan("ldm", (3, 16, 16) if wrong is vae else (1, 16, 16), 0, examples, 0, wrong)


def test_pruned_autoencoder_is_that_of_the_latents_that_say_most():
    """Of 5 latents, means of sd 1, 0, 3, 0 and 2, the fourth known to e^-6: others at 0, the same q of those kept."""
    seed = torch.Generator().manual_seed(0)
    vae, x = VAE((1, None, None), latent=5, widths=(4, 4), blocks=(0, 1)), torch.rand(3, 1, 8, 12, generator=seed)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=seed))
        scale = torch.tensor([1.0, 0.0, 3.0, 0.0, 2.0])
        head = vae.encoder[-1]
        head.weight[:5] *= (scale / vae.infer(x)[0].std(dim=(0, 2, 3)).clamp_min(1e-6)).reshape(-1, 1, 1, 1)
        head.bias[:5] *= 0
        head.bias[5 + 3] = -6
        smaller, kept = pruned(vae, x, 3), [2, 3, 4]
        (mean, sd), (ours, our_sd) = vae.infer(x), smaller.infer(x)
        z = torch.zeros_like(mean)
        z[:, kept] = ours
        decoded, expected = smaller.sized(8, 12).decode(ours), vae.sized(8, 12).decode(z)
    assert torch.allclose(ours, mean[:, kept], atol=1e-6)
    assert torch.allclose(our_sd, sd[:, kept], atol=1e-6)
    assert torch.allclose(decoded, expected, atol=1e-6)
    assert bool(smaller.decoder_variance == vae.decoder_variance)


@pytest.mark.parametrize(
    ("image_shape", "name"),
    [(None, "ldm-photo"), ((1, 28, 28), "ldm-mnist"), ((1, 30, 28), "ldm-photo"), ((3, 28, 28), "ldm-photo")],
)
def test_family_is_that_of_digits_for_images_of_their_size_alone(image_shape, name):
    """Though `ldm-mnist` takes any size, a grey photograph is no digit."""
    assert find_prior("ldm", image_shape).name == name

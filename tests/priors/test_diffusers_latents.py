"""Latent diffusions of diffusers as priors: of the real classes, and linear-Gaussian ones of known posteriors."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    LCMScheduler,
    LDMPipeline,
    ScoreSdeVeScheduler,
    UNet2DModel,
    VQModel,
)
from safetensors.torch import load_file, save_file
from torch import nn

import genprior
from genprior.checks import UnsupportedError
from genprior.cli import main
from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement, random_mask
from genprior.priors import hub
from genprior.priors.base import supports
from genprior.priors.folder import read_card
from genprior.priors.foreign.diffusers import from_diffusers
from genprior.priors.foreign.diffusers_latents import DiffusersLatentPrior
from genprior.samplers.latents.latent_daps import LatentDAPS
from genprior.samplers.latents.psld import PSLD
from genprior.samplers.latents.resample import ReSample

SCALE = 0.5
SMALL = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
CODES = {
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "scaling_factor": SCALE,
    "sample_size": 16,
    **SMALL,
}


class OwnPipeline(DiffusionPipeline):
    """As a user writes one: an AutoencoderKL, a UNet2DModel, a scheduler."""

    def __init__(self, vae, unet, scheduler):
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)


def unet(channels):
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}
    return UNet2DModel(sample_size=8, in_channels=channels, out_channels=channels, **kinds, **SMALL).eval()


def vq(**options):
    return VQModel(**{**CODES, "latent_channels": 3, "num_vq_embeddings": 32, **options}).eval()


def kl(**options):
    return AutoencoderKL(**{**CODES, "latent_channels": 4, **options}).eval()


PIPELINES = {
    "VQModel": lambda: LDMPipeline(vq(), unet(3), DDIMScheduler(clip_sample=False)),
    "AutoencoderKL": lambda: OwnPipeline(kl(), unet(4), DDPMScheduler(beta_schedule="scaled_linear")),
}


@pytest.fixture(params=PIPELINES)
def pipeline(request):
    pipeline = PIPELINES[request.param]()
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)
    return pipeline


@pytest.fixture
def folder(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "latent")
    return tmp_path / "latent"


def code_of(pipeline):
    return pipeline.vqvae if isinstance(pipeline, LDMPipeline) else pipeline.vae


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# ---- the real classes ----


def test_folder_is_a_prior_that_renders_and_encodes_as_the_pipeline_does(pipeline, folder):
    prior, code = genprior.load_prior(folder), code_of(pipeline)
    prior.autocast = prior.diffusion.autocast = None
    assert isinstance(prior, DiffusersLatentPrior)
    assert prior.capabilities == {"sample", "render", "encode"}
    channels = pipeline.unet.config.in_channels
    assert (prior.image_shape, prior.latent_shape) == ((1, 16, 16), (channels, 8, 8))
    u = 2 * images(2, channels, 8, 8) - 1
    wanted = code.decode(u / SCALE).sample / 2 + 0.5
    torch.testing.assert_close(prior.render(0.5 + 0.5 * u), wanted, rtol=1e-4, atol=1e-5)
    x = images(2, 1, 16, 16, seed=1)
    encoded = code.encode(2 * x - 1)
    z = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
    torch.testing.assert_close(prior.encode(x), 0.5 + 0.5 * z * SCALE, rtol=1e-4, atol=1e-5)
    # a latent is an image to the diffusion, of unit variance on its own [-1, 1]
    assert prior.latents.spread == 0.5
    latents = from_diffusers(pipeline.unet, pipeline.scheduler)
    torch.testing.assert_close(prior.latents.denoise(0.5 + 0.5 * u, 0.3), latents.denoise(0.5 + 0.5 * u, 0.3))
    assert not any(p.requires_grad for p in prior.parameters())


QUICK = {
    "psld": PSLD(steps=6),
    "resample": ReSample(steps=6, every=2, ahead=1, iterations=5),
    "latent-daps": LatentDAPS(steps=6, leapfrog=3),
}


# of weights that are random, no restoration is plausible
@pytest.mark.filterwarnings("ignore:Implausible")
@pytest.mark.parametrize("sampler", QUICK)
def test_samplers_of_latents_restore_with_it(folder, sampler):
    """End to end, from the folder; that draws are right is shown below, where the posterior is known."""
    prior = genprior.load_prior(folder)
    x = images(1, 16, 16)
    prior.fit_decoder(images(8, 1, 16, 16, seed=2))
    options = {"n": 2, "noise": 0.1, "seed": 0, "progress": False, "mask": random_mask((16, 16), 0.5, 0)}
    found = genprior.restore(x, "inpaint", prior=prior, sampler=QUICK[sampler], **options)
    assert found.samples.isfinite().all()
    assert found.samples.shape == (2, 1, 16, 16)
    assert (found.samples[0] - found.samples[1]).abs().max() > 0
    if sampler != "latent-daps":
        again = genprior.restore(x, "inpaint", prior=str(folder), sampler=QUICK[sampler], **options)
        # the decoder's variance only joins G(w) to y in the last step of ReSample; psld ignores it
        known = torch.zeros(16, 16, dtype=torch.bool) if sampler == "psld" else ~options["mask"][0]
        # bfloat16 in the diffusion, where the device is fast in it
        torch.testing.assert_close(again.samples[..., ~known], found.samples[..., ~known], rtol=0, atol=1e-2)


def test_gradients_pass_by_the_codes(pipeline):
    """Straight through: those of the decoder at the codes."""
    prior = from_diffusers(pipeline)
    w = (0.5 + 0.1 * images(1, *prior.latent_shape)).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.render(w).square().sum(), w)
    assert gradient.abs().max() > 0


@pytest.mark.filterwarnings("ignore:Implausible")
def test_auto_is_psld(folder):
    options = {"noise": 0.2, "steps": 2, "n": 1, "seed": 0, "progress": False}
    result = genprior.restore(images(1, 16, 16), "denoise", prior=folder, **options)
    assert str(result.sampler).startswith("PSLD")


def test_draws_are_decoded_and_do_not_depend_on_how_many_there_are(pipeline):
    prior = from_diffusers(pipeline)
    few, many = prior.sample(2, steps=3), prior.sample(3, steps=3)
    torch.testing.assert_close(few[1:], many[1:2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(few, prior.render(prior.latents.sample(2, steps=3)))
    prior.variance.fill_(0.04)
    grain = prior.sample(2, steps=3) - few
    # of 512 values, within 5 sqrt(2 / 512)
    assert float(grain.square().mean()) == pytest.approx(0.04, rel=5 * math.sqrt(2 / 512))


def test_images_of_other_sizes_are_continued_to_what_the_levels_divide(pipeline):
    prior = from_diffusers(pipeline, image_shape=(1, None, None)).sized(13, 9)
    assert prior.latent_shape[1:] == (7, 5)
    x = images(2, 1, 13, 9)
    padded = nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")
    torch.testing.assert_close(prior.encode(x), from_diffusers(pipeline, image_shape=(1, 14, 10)).encode(padded))
    assert prior.render(prior.encode(x)).shape == x.shape
    assert prior.sample(2, steps=2).shape == (2, 1, 13, 9)
    with pytest.raises(ValueError, match="say which one"):
        from_diffusers(pipeline, image_shape=(1, None, None)).sample(1)
    with pytest.raises(ValueError, match="images have 1 channels"):
        from_diffusers(pipeline, image_shape=(3, 16, 16))


def test_network_in_latents_is_given_with_its_autoencoder():
    pipeline = PIPELINES["AutoencoderKL"]()
    prior = from_diffusers(pipeline.unet, pipeline.scheduler, autoencoder=pipeline.vae)
    w = images(1, 4, 8, 8)
    assert torch.equal(prior.render(w), from_diffusers(pipeline).render(w))
    assert supports(prior, "render")
    with pytest.raises(UnsupportedError, match="The autoencoder is a UNet2DModel"):
        from_diffusers(pipeline.unet, pipeline.scheduler, autoencoder=pipeline.unet)


def test_wrapped_parts_are_what_they_wrap():
    pipeline = PIPELINES["VQModel"]()
    unet, code = (torch.compile(part, backend="eager") for part in (pipeline.unet, nn.DataParallel(pipeline.vqvae)))
    prior, wanted = from_diffusers(unet, pipeline.scheduler, autoencoder=code), from_diffusers(pipeline)
    w, x = images(1, 3, 8, 8), images(1, 1, 16, 16)
    torch.testing.assert_close(prior.render(w), wanted.render(w))
    torch.testing.assert_close(prior.encode(x), wanted.encode(x))
    torch.testing.assert_close(prior.latents.denoise(w, 0.3), wanted.latents.denoise(w, 0.3))


def test_half_precision_stays_in_the_networks():
    pipeline = PIPELINES["AutoencoderKL"]()
    wanted = from_diffusers(pipeline)
    w, x = images(1, 4, 8, 8), images(1, 1, 16, 16)
    full = wanted.render(w), wanted.encode(x)
    prior = from_diffusers(pipeline.to(torch.bfloat16))
    for found, exact in zip((prior.render(w), prior.encode(x)), full):
        assert found.dtype == torch.float32
        # some 20 layers round to 8 binary digits numbers of about 1
        torch.testing.assert_close(found, exact, rtol=0, atol=20 * 2**-8)


def test_latents_are_shifted_and_scaled_as_the_autoencoder_says():
    """z = mean + u sd / factor, of Stable Diffusion 3's shift and of means and deviations by channel."""
    u = 2 * images(1, 4, 8, 8) - 1
    for options, z in (
        ({"shift_factor": 0.3}, 0.3 + u / SCALE),
        (
            {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]},
            torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(-1, 1, 1)
            + u * torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(-1, 1, 1) / SCALE,
        ),
    ):
        code = kl(**options)
        prior = from_diffusers(OwnPipeline(code, unet(4), DDPMScheduler()))
        torch.testing.assert_close(prior.render(0.5 + 0.5 * u), code.decode(z).sample / 2 + 0.5, rtol=1e-4, atol=1e-5)
        x = images(1, 1, 16, 16)
        mean = code.encode(2 * x - 1).latent_dist.mean
        back = torch.tensor(options.get("latents_mean", [0.3] * 4)).reshape(-1, 1, 1)
        sd = torch.tensor(options.get("latents_std", [1.0] * 4)).reshape(-1, 1, 1) / SCALE
        torch.testing.assert_close(prior.encode(x), 0.5 + 0.5 * (mean - back) / sd, rtol=1e-4, atol=1e-5)


# ---- the decoder's variance ----


def test_variance_of_the_decoder_is_what_it_leaves_of_images(pipeline):
    prior, x = from_diffusers(pipeline), images(6, 1, 16, 16)
    with pytest.raises(UnsupportedError, match=r"never measured.*prior.fit_decoder\(images\)"):
        prior.decoder_variance.sqrt()
    prior.fit_decoder(x)
    wanted = (x - prior.render(prior.encode(x))).square().mean()
    torch.testing.assert_close(prior.decoder_variance, wanted, rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="takes"):
        prior.fit_decoder(images(2, 1, 8, 8))


def test_variance_is_kept_with_the_prior(folder, tmp_path, capsys):
    """In a folder that diffusers reads too, from which the command line restores by `latent-daps`."""
    prior = from_diffusers(folder, image_shape=(1, None, None))
    prior.fit_decoder(images(6, 1, 16, 16))
    measured = tmp_path / "measured"
    genprior.save_prior(prior, measured, {"data": "noise"})
    again = genprior.load_prior(measured)
    assert torch.equal(again.decoder_variance, prior.decoder_variance)
    assert again.image_shape == (1, None, None)
    w = images(1, *prior.sized(16, 16).latent_shape)
    torch.testing.assert_close(again.sized(16, 16).render(w), prior.sized(16, 16).render(w), rtol=1e-4, atol=1e-5)
    assert torch.equal(from_diffusers(measured).latents.denoise(w, 0.3), prior.latents.denoise(w, 0.3))
    card = read_card(measured)
    assert (card["data"], card["summary"]) == ("noise", "a UNet2DModel of diffusers and an autoencoder")
    assert isinstance(DiffusionPipeline.from_pretrained(measured), LDMPipeline)

    given = ["denoise", "--noise", "0.1", "--prior", str(measured), "--sampler", "latent-daps", "--steps", "2"]
    np.save(tmp_path / "y.npy", images(12, 12).numpy())
    assert main(["restore", str(tmp_path / "y.npy"), "-o", str(tmp_path / "x.npy"), "--op", *given, "-n", "1"]) == 0
    assert np.isfinite(np.load(tmp_path / "x.npy")).all()

    with pytest.raises(FileExistsError, match="choose another path"):
        genprior.save_prior(prior, measured)
    edit(measured / "genprior.json", decoder_variance=-1)
    with pytest.raises(ValueError, match=r"genprior\.json is damaged: decoder_variance is -1: give a positive number"):
        genprior.load_prior(measured)
    (measured / "genprior.json").write_text("{")
    with pytest.raises(ValueError, match=r"genprior\.json is damaged"):
        genprior.load_prior(measured)


def test_pipeline_whose_variance_was_not_measured_is_kept_as_it_is(folder, tmp_path):
    genprior.save_prior(from_diffusers(folder), tmp_path / "copy")
    with pytest.raises(UnsupportedError, match="never measured"):
        genprior.load_prior(tmp_path / "copy").decoder_variance.sqrt()


def test_network_of_a_class_that_diffusers_lacks_is_not_saved(tmp_path):
    class Own(UNet2DModel):
        pass

    pipeline = PIPELINES["AutoencoderKL"]()
    prior = from_diffusers(Own.from_config(pipeline.unet.config), pipeline.scheduler, autoencoder=pipeline.vae)
    with pytest.raises(UnsupportedError, match="The network is a Own"):
        genprior.save_prior(prior, tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_sampler_that_needs_the_variance_says_how_to_measure_it(folder):
    with pytest.raises(UnsupportedError, match=r"prior.fit_decoder\(images\)"):
        genprior.restore(
            images(1, 16, 16), "denoise", noise=0.1, prior=folder, sampler="latent-daps", steps=2, n=1, progress=False
        )


# ---- exact, where all is linear and Gaussian ----

V = 0.02


class White(nn.Module):
    """The network of u ~ N(0, I): eps_hat = sqrt(1 - alpha_bar) z, with ln s linear between timesteps."""

    def __init__(self, scheduler):
        super().__init__()
        a = scheduler.alphas_cumprod.double()
        self.register_buffer("log_s", 0.5 * ((1 - a) / a).log())

    def forward(self, z, t):
        low = t.long().clamp(max=len(self.log_s) - 2)
        s = torch.lerp(self.log_s[low], self.log_s[low + 1], t - low).exp().reshape(-1, 1, 1, 1)
        return type("Answer", (), {"sample": s / (1 + s**2).sqrt() * z})


def linear():
    """x = G(w) + sqrt(V) n with a linear G: each cell of 4 latents, patches of 2 x 2 with 3 directions."""
    scheduler = DDIMScheduler(clip_sample=False)
    prior = from_diffusers(OwnPipeline(kl(), unet(4), scheduler), image_shape=(1, 4, 4))
    generator = torch.Generator().manual_seed(1)
    Q = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    decoder = nn.ConvTranspose2d(4, 1, 2, stride=2).double()
    lengths = torch.tensor([0.9, 0.6, 0.4, 0.0], dtype=torch.float64)
    decoder.weight.data = (SCALE * lengths[:, None] * Q).reshape(4, 1, 2, 2)
    decoder.bias.data.fill_(0.1)
    prior.autoencoder.decoder, prior.autoencoder.post_quant_conv = decoder, None
    prior.diffusion.unet = White(scheduler)
    prior.double().requires_grad_(False)
    prior.variance.fill_(V)
    return prior


def test_latent_daps_has_the_posterior_of_linear_gaussian_parts():
    """By the parameters of the pipeline alone: scaling, units, levels, variance. 300 draws.

    Along the eigenvectors of the exact posterior: means within 4.5 standard errors, the largest of 16 of normal ones
    by chance in 10^-4; the mean of the ratios of variances within 5 sqrt(2 / (16 300)).
    """
    prior = linear()
    origin = prior.render(torch.full((1, 4, 2, 2), 0.5, dtype=torch.float64)).flatten()
    basis = 0.5 + 0.5 * torch.eye(16, dtype=torch.float64).reshape(16, 4, 2, 2)  # a deviation of w is 0.5
    W = (prior.render(basis).flatten(1) - origin).T
    S = W @ W.T + V * torch.eye(16, dtype=torch.float64)
    A, noise = Inpaint(random_mask((4, 4), 0.5, 0), (1, 4, 4)), 0.1
    draw = Noise(4, [0])
    x = origin + torch.linalg.cholesky(S) @ draw(origin[None])[0]
    y = A(x.reshape(1, 1, 4, 4) + noise * draw(x.reshape(1, 1, 4, 4)))
    M = A(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).flatten(1).T
    gain = torch.linalg.solve(M @ S @ M.T + noise**2 * torch.eye(16, dtype=torch.float64), M @ S).T
    mean, covariance = origin + gain @ (y.flatten() - M @ origin), S - gain @ M @ S

    rows = torch.zeros(300, dtype=torch.long)
    one = Measurement(y, A, noise).select(rows)
    with torch.no_grad():
        draws, _ = LatentDAPS(steps=20, leapfrog=5).draw(prior, one, Noise(0, rows, torch.arange(300)))
    l, U = torch.linalg.eigh(covariance)
    e = (draws.flatten(1) - mean) @ U / l.sqrt()
    assert float(e.mean(0).abs().max()) < 4.5 / math.sqrt(300)
    assert float(e.var(0).mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / (16 * 300)))


# ---- what is no prior ----


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without(path, key):
    save_file({name: t for name, t in load_file(path).items() if name != key}, path)


WEIGHTS = "vqvae/diffusion_pytorch_model.safetensors"
ANOTHER = r"model.safetensors is not of the VQModel that the config.json beside it describes"
BROKEN = {
    "no autoencoder": (lambda f: shutil.rmtree(f / "vqvae"), ValueError, "no vqvae/config.json of an autoencoder"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), ValueError, "vqvae has no diffusion_pytorch_model.safetensors"),
    "half the weights": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]),
        ValueError,
        r"vqvae/diffusion_pytorch_model.safetensors is no whole \.safetensors file",
    ),
    "a key missing": (
        lambda f: without(f / WEIGHTS, "quantize.embedding.weight"),
        ValueError,
        f"{ANOTHER}: it lacks quantize.embedding.weight",
    ),
    "another autoencoder": (
        lambda f: edit(f / "vqvae" / "config.json", block_out_channels=[16, 16]),
        ValueError,
        f"{ANOTHER}: it also has .*conv_shortcut",
    ),
    "autoencoder of another kind": (
        lambda f: edit(f / "model_index.json", vqvae=["diffusers", "AutoencoderTiny"]),
        UnsupportedError,
        r"vqvae \(AutoencoderTiny\)",
    ),
    "latents of another": (
        lambda f: vq(latent_channels=5).save_pretrained(f / "vqvae"),
        ValueError,
        "has 5 latents to a cell, and the network takes images of 3 channels",
    ),
    "scheduler of images": (
        lambda f: ScoreSdeVeScheduler().save_pretrained(f / "scheduler"),
        UnsupportedError,
        "of images on",
    ),
    "scheduler of consistency": (
        lambda f: LCMScheduler().save_pretrained(f / "scheduler"),
        UnsupportedError,
        "LCMScheduler is of consistency models",
    ),
    "text": (
        lambda f: edit(f / "model_index.json", tokenizer=["transformers", "CLIPTokenizer"]),
        UnsupportedError,
        r"tokenizer \(CLIPTokenizer\)",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_prior_is_one_clear_error(name, tmp_path):
    damage, kind, message = BROKEN[name]
    PIPELINES["VQModel"]().save_pretrained(tmp_path / "latent")
    damage(tmp_path / "latent")
    with pytest.raises(kind, match=message):
        genprior.restore(images(1, 16, 16), "denoise", prior=str(tmp_path / "latent"), noise=0.1)


def test_card_hashes_both_networks(folder):
    before = read_card(folder)
    assert before["summary"] == "a UNet2DModel of diffusers and an autoencoder"
    (weights,) = folder.glob("v*/*.safetensors")
    save_file({name: t + 1 for name, t in load_file(weights).items()}, weights)
    assert read_card(folder)["sha256"] != before["sha256"]


def test_all_parts_are_fetched_from_the_hub(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    full = set(hub.diffusers.DATA[0])
    assert {name for name in names if name.endswith(".safetensors")} <= full
    assert hub.diffusers.is_whole(folder)
    next(folder.glob("v*/*.safetensors")).unlink()
    assert not hub.diffusers.is_whole(folder)

"""Checkpoints of ADM's network as priors: what is read is what was saved, and what cannot be read says why."""

import io
import math
import os
import pickle
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from deepinv.models import DiffUNet
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import save, save_file
from torch import nn

import genprior
from genprior.checks import UnsupportedError
from genprior.cli import main
from genprior.nets.adm import ADMUNet
from genprior.priors.base import supports
from genprior.priors.chain import BETAS
from genprior.priors.folder import read_card, read_prior
from genprior.priors.foreign import adm_published
from genprior.priors.foreign.adm import from_adm
from genprior.priors.foreign.adm_published import PUBLISHED, Published
from genprior.priors.foreign.weights import EDM
from genprior.priors.gaussian.gaussian import Gaussian

SMALL = {
    "channels": 3,
    "outputs": 6,
    "base": 32,
    "widths": [32, 64],
    "blocks": 1,
    "attention": [1],
    "scale_shift": True,
    "resample_blocks": True,
    "classes": 0,
}
SETUP = {"head_channels": 32, "order": "legacy", "betas": "linear", "steps": 1000, "time_scale": 1}


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def weights(**changes):
    """The state dict of a small network of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ADMUNet(**SMALL | {"heads": 1} | changes)
        for parameter in network.parameters():
            parameter.data.normal_(std=0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5)
    return network.state_dict()


@pytest.fixture
def listed(monkeypatch):
    """The small network among those that were published."""
    setup = SETUP | {"heads": None}
    monkeypatch.setattr(adm_published, "PUBLISHED", (*PUBLISHED, Published(("small.pt",), "nothing", SMALL, setup)))


def same(prior, state):
    return all(torch.equal(t, state[key.removeprefix("net.")].float()) for key, t in prior.state_dict().items())


# ---- denoising ----


class Optimal(nn.Module):
    """The network that knows the Gaussian data, told time_scale t: at z and t it answers eps, and variances besides."""

    def __init__(self, truth, prior):
        super().__init__()
        self.truth, self.scale, self.log_s = truth, prior.time_scale, prior.log_levels.double().numpy()

    def forward(self, z, t, label):
        t = t.double().numpy() / self.scale
        s = torch.from_numpy(np.exp(np.interp(t, np.arange(len(self.log_s)), self.log_s))).reshape(-1, 1, 1, 1)
        u_t = z * (1 + s**2).sqrt()
        u_hat = 2 * self.truth.denoise((u_t + 1) / 2, s / 2) - 1
        return torch.cat([(u_t - u_hat) / s, torch.full_like(z, math.nan)], 1)


@pytest.mark.parametrize("chain", [{"betas": "cosine", "steps": 4000, "time_scale": 0.25}, {}])
def test_denoiser_of_gaussian_data_is_the_posterior_mean(chain):
    """At levels of the chain and between; the table of ln s is float32, and u_t - s eps multiplies its error by s."""
    prior = from_adm(weights(), **SETUP | chain).double()
    i = torch.arange(48, dtype=torch.float64)
    truth = Gaussian(random(3, 4, 4).double(), 0.04 * torch.exp(-(i[:, None] - i).abs() / 3))
    prior.net = Optimal(truth, prior)
    x = truth.sample(6, seed=5)
    levels = torch.tensor([prior.sigma_min, 0.0123, 0.1, 0.5, 3.21, prior.sigma_max]).double().reshape(-1, 1, 1, 1)
    x_t = x + levels * (random(*x.shape, seed=1).double() - 0.5)
    torch.testing.assert_close(prior.denoise(x_t, levels), truth.denoise(x_t, levels), rtol=0, atol=1e-4)
    torch.testing.assert_close(prior.denoise(x_t, 0.7), truth.denoise(x_t, 0.7), rtol=0, atol=1e-4)


def test_denoiser_is_that_of_deepinv_at_its_steps(tmp_path):
    """FFHQ's network, random: E[x | x_t] of `DiffUNet.forward_denoise`, which clips, and knows whole steps only.

    Its answer is scaled so that nothing is clipped; both compute sqrt(alpha_bar) in float32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = DiffUNet(pretrained=None).eval()
        for name, parameter in theirs.named_parameters():
            scale = 0.02 if name.startswith("out.2") else 1
            parameter.data.normal_(std=scale * (0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5))
    torch.save(theirs.state_dict(), tmp_path / "ffhq_10m.pt")
    prior = genprior.load_prior(tmp_path / "ffhq_10m.pt")
    for step in (0, 150):
        sigma = float(prior.log_levels[step].exp()) / 2
        x_t = 0.5 + 0.2 * (random(1, 3, 32, 64) - 0.5)
        with torch.no_grad():
            found, wanted = prior.denoise(x_t, sigma), theirs(x_t, sigma)
        assert (wanted - x_t).abs().max() > 1e-4 * sigma
        assert 0 < wanted.min() < wanted.max() < 1
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * max(1, sigma))


def test_images_of_any_size_are_continued_to_what_the_network_divides():
    prior = from_adm(weights(), **SETUP)
    assert (prior.image_shape, prior.multiple) == ((3, None, None), 2)
    x_t = random(1, 3, 8, 6)
    x_t[..., 7, :], x_t[..., 5] = x_t[..., 6, :], x_t[..., 4]
    assert torch.equal(prior.denoise(x_t[..., :7, :5], 0.1), prior.denoise(x_t, 0.1)[..., :7, :5])


def test_draws_do_not_depend_on_their_number_and_follow_the_network():
    prior = from_adm(weights(), **SETUP)
    two, three = (prior.sample(n, seed=1, size=(6, 4), steps=3) for n in (2, 3))
    assert torch.allclose(two, three[:2], rtol=0, atol=1e-4 * float(two.abs().max()))
    with pytest.raises(ValueError, match="say which one"):
        prior.sample(1)


# ---- files ----


FORMS = {
    "state dict": lambda state: state,
    "DataParallel": lambda state: {f"module.{key}": t for key, t in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": t for key, t in state.items()},
    "average and network": lambda state: {
        **{f"model.{key}": t + 1 for key, t in state.items()},
        **{f"ema_model.{key}": t for key, t in state.items()},
        "step": torch.tensor(3),
        "initted": torch.tensor([True]),
    },
    "trainer": lambda state: {"step": 100, "model": {key: t + 1 for key, t in state.items()}, "ema": state},
    "lightning": lambda state: {"epoch": 3, "state_dict": {f"model.{key}": t for key, t in state.items()}},
    "AveragedModel": lambda state: {"n_averaged": torch.tensor(3), **{f"module.{k}": t for k, t in state.items()}},
    "float16": lambda state: {key: t.half() for key, t in state.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_read_whatever_keeps_them(form, tmp_path, listed):
    torch.save(FORMS[form](weights()), tmp_path / "small.pt")
    prior = genprior.load_prior(str(tmp_path / "small.pt"))
    state = {key: t.half() for key, t in weights().items()} if form == "float16" else weights()
    assert same(prior, state)
    assert {p.dtype for p in prior.parameters()} == {state["out.2.weight"].dtype}
    assert not prior.training
    assert not any(p.requires_grad for p in prior.parameters())
    if form not in ("trainer", "lightning", "AveragedModel"):
        tensors = {key: t.contiguous() for key, t in FORMS[form](weights()).items()}
        save_file(tensors, tmp_path / "small.safetensors")
        assert same(genprior.load_prior(tmp_path / "small.safetensors"), state)


@pytest.mark.filterwarnings("ignore:Implausible")
def test_weights_of_half_precision_stay_so_and_compute_in_float32(tmp_path, listed):
    """In memory and in a folder of ours; what else there is of a prior is float32."""
    torch.save({key: t.half() for key, t in weights().items()}, tmp_path / "small.pt")
    prior = from_adm(tmp_path / "small.pt")
    prior.fit_covariance(random(4, 3, 8, 8))
    genprior.save_prior(prior, tmp_path / "mine")
    again, wanted = read_prior(tmp_path / "mine"), from_adm({key: t.half().float() for key, t in weights().items()})
    x_t = random(2, 3, 8, 8)
    for found in (prior, again):
        assert {p.dtype for p in found.parameters()} == {torch.float16}
        assert {b.dtype for b in found.buffers()} == {torch.float32}
        assert torch.equal(found.denoise(x_t, 0.2), wanted.denoise(x_t, 0.2))
        assert found.sample(1, size=(8, 8), steps=2).dtype == torch.float32
    y = genprior.degrade(x_t[:1], "denoise", noise=0.1, seed=0)
    options = {"sampler": "dps", "steps": 2, "n": 1, "seed": 0, "progress": False}
    draws = [genprior.restore(y, prior=p, **options).samples for p in (prior, wanted)]
    assert torch.equal(*draws)
    assert {p.dtype for p in prior.float().parameters()} == {torch.float32}
    # as guidance's own networks of half precision, whose first and last layers are not
    mixed = {key: t.half() if "block" in key else t for key, t in weights().items()}
    assert same(from_adm(mixed), mixed)
    assert {p.dtype for p in from_adm(mixed).parameters()} == {torch.float32}


def kept(betas, *names):
    alpha_bars = (1 - betas.double()).cumprod(0)
    found = {
        "betas": betas,
        "alphas_cumprod": alpha_bars,
        "sqrt_alphas_cumprod": alpha_bars.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - alpha_bars).sqrt(),
    }
    return {name: found[name].float() for name in names}


KEPT = (("betas",), ("alphas_cumprod",), ("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"))


@pytest.mark.parametrize("names", KEPT)
def test_schedule_that_is_kept_among_the_weights_is_used(names, listed):
    heads = {"head_channels": 32, "order": "legacy"}
    for known, steps in {"linear": 1000, "cosine": 500}.items():
        state = weights() | kept(BETAS[known](steps), *names)
        prior = from_adm(state, **heads, time_scale=1)
        assert (prior.config["betas"], prior.config["steps"]) == (known, steps)
    own = torch.linspace(0.001, 0.2, 50)
    prior = from_adm(weights() | kept(own, *names), **heads, time_scale=20)
    assert torch.tensor(prior.config["betas"]) == pytest.approx(own, rel=1e-3)
    assert same(prior, weights())
    with pytest.raises(
        ValueError, match=r"keeps the schedule .* betas as numbers, steps 50, and another .* betas linear"
    ):
        from_adm(weights() | kept(own, *names), betas="linear", time_scale=20)
    # steps of which nobody knows how the network is told them
    with pytest.raises(ValueError, match="do not tell time_scale"):
        from_adm(weights() | kept(own, *names))


def test_converted_checkpoint_is_a_folder_of_ours(tmp_path, listed):
    prior = from_adm(weights())
    prior.fit_covariance(random(4, 3, 8, 8))
    genprior.save_prior(prior, tmp_path / "mine")
    again = read_prior(tmp_path / "mine")
    assert again.config == prior.config
    x_t = random(2, 3, 8, 8)
    assert torch.equal(again.denoise(x_t, 0.2), prior.denoise(x_t, 0.2))
    found, wanted = (p.sized(8, 8).posterior_covariance(0.2).eigenvalues for p in (again, prior))
    assert torch.equal(found, wanted)


def test_published_setup_can_be_overridden(listed):
    assert from_adm(weights()).config["network"]["order"] == "legacy"
    prior = from_adm(weights(), heads=2, order="new", betas="cosine")
    network = prior.config["network"]
    assert (network["head_channels"], network["heads"], network["order"]) == (None, 2, "new")
    assert (prior.config["betas"], prior.config["steps"]) == ("cosine", 1000)


# ---- labels ----


def test_network_with_labels_is_a_prior_given_one():
    state = weights(classes=3)
    prior = from_adm(state, **SETUP)
    assert not supports(prior, "denoise")
    x_t = random(2, 3, 8, 8)
    given = prior.given(2)
    network = ADMUNet(**SMALL | {"classes": 3}, heads=2)
    network.load_state_dict(state)
    labels = torch.tensor([2, 2])
    assert torch.equal(given.denoise(x_t, 0.3), prior.denoise(x_t, 0.3, labels))
    assert not torch.allclose(given.denoise(x_t, 0.3), prior.given(0).denoise(x_t, 0.3))
    assert given.sample(1, size=(8, 8), steps=2).shape == (1, 3, 8, 8)
    for ask in (lambda: prior.denoise(x_t, 0.3), lambda: prior.sample(1, size=(8, 8))):
        with pytest.raises(UnsupportedError, match=r"3 classes.*prior\.given\(label\)"):
            ask()
    y = genprior.degrade(x_t[:1], "denoise", noise=0.1, seed=0)
    for sampler in ("auto", "dps"):
        with pytest.raises(UnsupportedError, match=r"3 classes.*label="):
            genprior.restore(y, prior=prior, sampler=sampler)
    restored = genprior.restore(y, prior=prior, label=1, sampler="diffpir", steps=1, n=1, seed=0, progress=False)
    assert restored.samples.shape == (1, 3, 8, 8)


# ---- refused, by one error ----


class Runs:
    """Of which a pickle, opened, makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Persistent:
    """As EDM's networks are pickled: by a function of torch_utils.persistence, with the source in its argument."""

    def __reduce__(self):
        return eval, ("torch_utils.persistence",)


def test_pickle_that_runs_code_is_not_opened(tmp_path):
    for name, write in {"zip.pt": torch.save, "plain.pkl": lambda a, p: p.write_bytes(pickle.dumps(a))}.items():
        write({"ema": Runs(tmp_path / "ran")}, tmp_path / name)
        told = r"(posix|nt)\.mkdir, which is no tensor" if name == "zip.pt" else "is a pickle of more than tensors"
        with pytest.raises(ValueError, match=f"{told}: opening it would run code"):
            genprior.load_prior(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_pickle_of_edm_is_refused_with_the_way(tmp_path):
    (tmp_path / "edm2-img64-s.pkl").write_bytes(pickle.dumps({"ema": Persistent()}))
    with pytest.raises(ValueError, match=r"pickle of EDM.*holds the network's own source.*from_denoiser.*NCSNpp"):
        genprior.load_prior(tmp_path / "edm2-img64-s.pkl")


def test_the_way_out_of_a_pickle_of_edm_is_one(tmp_path):
    """The denoiser that the error prints, of a network as EDM's are: sigma a tensor, images on [-1, 1]."""

    def network(x, sigma):
        sigma = sigma.to(torch.float32).reshape(-1, 1, 1, 1)
        return x / (1 + sigma**2)

    printed = re.search(r"(genprior\.from_denoiser\(lambda .*?sigma_max=40\))", EDM)[1]
    prior = eval(printed, {"genprior": genprior, "network": network, "image_shape": (3, 8, 8)})
    x_t = random(2, 3, 8, 8)
    torch.testing.assert_close(prior.denoise(x_t, 0.3), (network(2 * x_t - 1, torch.tensor(0.6)) + 1) / 2)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_file_is_told(suffix, tmp_path):
    path = tmp_path / f"small{suffix}"
    (torch.save if suffix == ".pt" else save_file)(weights(), path)
    truncated(path)
    with pytest.raises(ValueError, match=r"small\.(pt is cut short|safetensors is no whole)"):
        genprior.load_prior(path)


def test_damaged_file_is_told(tmp_path):
    path = tmp_path / "small.pt"
    torch.save(weights(), path)
    whole = zipfile.ZipFile(path)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as other:
        for name in whole.namelist():
            if not name.endswith("/data/3"):
                other.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=r"is damaged, or no file that torch\.save wrote"):
        genprior.load_prior(tmp_path / "other.pt")


def safetensors():
    return save(weights())


def saved():
    file = io.BytesIO()
    torch.save(weights(), file)
    return file.getvalue()


WRONG = {
    "a page": (lambda: b"<html>Not found</html>", r"is no file that torch.save wrote, or cut short: get it again\.$"),
    "what git has of large files": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
    "a .safetensors file": (safetensors, r"is a \.safetensors file by another name: call it small\.safetensors"),
    "a picture": (lambda: b"\x89PNG" + bytes(1000), "is no file that torch.save wrote"),
    "nothing": (lambda: b"", "is no file that torch.save wrote"),
    "an archive": (lambda: archive(), "is damaged, or no file that torch.save wrote"),
}


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("readme.txt", "hello")
    return file.getvalue()


@pytest.mark.parametrize("kind", WRONG)
def test_file_of_another_kind_is_told(kind, tmp_path):
    content, message = WRONG[kind]
    (tmp_path / "small.pt").write_bytes(content())
    with pytest.raises(ValueError, match=message):
        genprior.load_prior(tmp_path / "small.pt")


def test_file_of_torch_by_the_name_of_another_is_told(tmp_path):
    (tmp_path / "small.safetensors").write_bytes(saved())
    with pytest.raises(ValueError, match=r"is a file of torch\.save by another name: call it small\.pt"):
        genprior.load_prior(tmp_path / "small.safetensors")
    (tmp_path / "small.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="`git lfs pull`"):
        genprior.load_prior(tmp_path / "small.safetensors")


NO_WEIGHTS = {
    "a network": (lambda folder: nn.Linear(2, 2), TypeError, r"source is a Linear: .* network\.state_dict\(\)"),
    "nothing": (lambda folder: None, TypeError, "source is a NoneType: give a file, or a state dict"),
    "no tensors": (
        lambda folder: {key: t.numpy() for key, t in weights().items()},
        TypeError,
        r"holds what are no tensors, time_embed\.0\.weight",
    ),
    "an empty dictionary": (lambda folder: {}, UnsupportedError, r"there is no time_embed\.0\.weight, but nothing"),
    "a folder": (lambda folder: folder, ValueError, "is a folder, and a file of weights was wanted"),
    "whole numbers": (
        lambda folder: weights() | {"out.2.bias": torch.zeros(6, dtype=torch.int32)},
        ValueError,
        r"no finite numbers in out\.2\.bias",
    ),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_what_are_no_weights_is_one_clear_error(kind, tmp_path, listed):
    make, error, message = NO_WEIGHTS[kind]
    with pytest.raises(error, match=message):
        from_adm(make(tmp_path))


def without(*names):
    return lambda state: {key: t for key, t in state.items() if key not in names}


OTHERS = {
    "a missing key": (without("middle_block.1.qkv.weight"), ValueError, "incomplete: it lacks middle_block.1.qkv"),
    "no end": (without("out.2.weight"), ValueError, "incomplete.*lacks out.2.weight"),
    "no way up": (
        lambda state: {k: t for k, t in state.items() if not k.startswith("output")},
        ValueError,
        "incomplete",
    ),
    "another network": (
        lambda state: nn.Linear(2, 2).state_dict(),
        UnsupportedError,
        r"not of ADM's network: there is no time_embed\.0\.weight, but weight, bias",
    ),
    "more layers": (
        lambda state: state | {"input_blocks.3.2.transformer.weight": torch.ones(2, 2)},
        UnsupportedError,
        "another network than ADM's: it has input_blocks.3.2.transformer.weight besides",
    ),
    "other shapes": (
        lambda state: state | {"middle_block.0.in_layers.2.weight": torch.ones(64, 64, 5, 5)},
        UnsupportedError,
        "other shapes of middle_block.0.in_layers.2.weight",
    ),
    "a latent diffusion": (
        lambda state: {f"model.diffusion_model.{k}": t for k, t in state.items()} | {"vae.weight": torch.ones(2, 2)},
        UnsupportedError,
        r"more than ADM's network, vae\.weight: .* autoencoder",
    ),
    "two networks": (
        lambda state: {f"{p}.{k}": t for p in ("a", "b") for k, t in state.items()},
        ValueError,
        r"several networks, a\., b\.",
    ),
    "an upsampler": (lambda state: weights(channels=6), UnsupportedError, "an upsampler of guided-diffusion"),
    "odd channels": (lambda state: weights(outputs=4), UnsupportedError, "3 channels in and 4 out"),
    "a classifier": (
        lambda state: state | {"out.2.positional_embedding": torch.ones(2, 2)},
        UnsupportedError,
        "a classifier of guided-diffusion",
    ),
    "values that are none": (
        lambda state: state | {"time_embed.0.bias": torch.full((128,), math.nan)},
        ValueError,
        r"damaged: there are values that are no finite numbers in time_embed\.0\.bias",
    ),
    "a tensor": (lambda state: torch.ones(3), ValueError, "holds one tensor"),
    "numbers": (lambda state: {"epoch": 3, "loss": 0.1}, ValueError, "no state dict.*but epoch, loss"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_checkpoint_of_something_else_is_one_clear_error(kind, tmp_path, listed):
    change, error, message = OTHERS[kind]
    torch.save(change(weights()), tmp_path / "small.pt")
    with pytest.raises(error, match=message):
        genprior.load_prior(tmp_path / "small.pt")


def test_what_no_shape_tells_has_to_be_said():
    with pytest.raises(ValueError, match=r"do not tell head_channels or heads, order, betas, steps, time_scale\. Give"):
        from_adm(weights())
    for key in ("head_channels", "order", "betas"):
        with pytest.raises(ValueError, match=f"do not tell {key}"):
            from_adm(weights(), **{k: v for k, v in SETUP.items() if k != key})
    # of 1000 steps there is one way to tell them, of 4000 there are two
    assert from_adm(weights(), **SETUP | {"time_scale": None}).time_scale == 1
    with pytest.raises(ValueError, match="do not tell time_scale"):
        from_adm(weights(), **SETUP | {"time_scale": None, "steps": 4000})
    with pytest.raises(ValueError, match=r"do not tell .* consistency models .* told ln sigma"):
        from_adm(weights(outputs=3))
    with pytest.raises(ValueError, match="Unknown order 'old'"):
        from_adm(weights(), **SETUP | {"order": "old"})
    with pytest.raises(ValueError, match="Unknown betas"):
        from_adm(weights(), **SETUP | {"betas": "sigmoid"})


# ---- memory ----


MEASURE = """
import os, sys, diffusers, genprior.restoration
from diffusers import DDPMScheduler, UNet2DModel
from genprior.priors.store import load_prior
def most():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = most()
load_prior(sys.argv[1])
print((most() - before) / os.path.getsize(sys.argv[2]))
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"),
    reason="this system does not report the peak memory of a process in /proc/self/status",
)
@pytest.mark.parametrize("kind", ["float32", "float16", "folder", "diffusers"])
def test_loading_takes_no_more_memory_than_the_file_and_a_third(kind, tmp_path):
    """FFHQ's network, 374 MB, whose tensors are of up to 19 MB; read twice it would be 2, float16 as float32 2 too.

    The widths and blocks of diffusers' network of 256 x 256, without its attention, 434 MB; imports and buffers of
    reading add 40 to 70 MB.
    """
    path = file = tmp_path / "ffhq_10m.pt"
    if kind == "diffusers":
        widths = {"block_out_channels": (128, 128, 256, 256, 512, 512), "layers_per_block": 2}
        blocks = {"down_block_types": ("DownBlock2D",) * 6, "up_block_types": ("UpBlock2D",) * 6}
        with torch.device("meta"):
            network = UNet2DModel(sample_size=256, **widths, **blocks)
        path, file = tmp_path / "ddpm", tmp_path / "ddpm" / "unet" / "diffusion_pytorch_model.safetensors"
        DDPMPipeline(network.to_empty(device="cpu"), DDPMScheduler()).save_pretrained(path)
        save_file({key: torch.zeros(t.shape) for key, t in network.state_dict().items()}, file)
    else:
        with torch.device("meta"):
            network = ADMUNet(**PUBLISHED[0].layout, head_channels=64)
        dtype = torch.float16 if kind == "float16" else torch.float32
        state = {key: torch.zeros(t.shape, dtype=dtype) for key, t in network.state_dict().items()}
        if kind == "folder":
            path, file = tmp_path / "ffhq", tmp_path / "ffhq" / "model.safetensors"
            genprior.save_prior(from_adm(state), path)
        else:
            torch.save(state, path)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", MEASURE, path, file], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert 0.9 < float(done.stdout) < 1.3


# ---- the recipe ----


def test_checkpoint_is_converted_with_a_card(run, tmp_path):
    torch.save(weights(), tmp_path / "mine.pt")
    setup = ("--head-channels", 32, "--order", "legacy", "--betas", "linear", "--steps", 1000, "--data", "noise")
    told = run("convert_checkpoint", tmp_path / "mine.pt", tmp_path / "mine", *setup)
    assert "as none that was published; taken for {'head_channels': 32, 'order': 'legacy'" in told
    card = read_card(tmp_path / "mine")
    assert (card["data"], card["file"], card["taken for"]["steps"]) == ("noise", "mine.pt", 1000)
    assert same(read_prior(tmp_path / "mine"), weights())
    with pytest.raises(FileExistsError, match="choose another path"):
        run("convert_checkpoint", tmp_path / "mine.pt", tmp_path / "mine")
    save_file({"a": torch.ones(1)}, tmp_path / "covariance.safetensors")
    with pytest.raises(UnsupportedError, match="not of ADM's network"):
        run("convert_checkpoint", tmp_path / "covariance.safetensors", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_covariance_of_a_checkpoint_is_measured(run, tmp_path, listed):
    torch.save(weights(), tmp_path / "small.pt")
    np.savez(tmp_path / "photos.npz", train_images=(255 * random(3, 16, 16, 3)).byte().numpy())
    given = ("--prior", tmp_path / "small.pt", "--data", tmp_path / "photos.npz", "--n", 3, "--size", 16)
    run("measure_covariance", *given, "--inflation", 1.25, "--out", tmp_path / "measured")
    prior = genprior.load_prior(tmp_path / "measured")
    assert prior.inflation == 1.25
    assert supports(prior, "posterior_covariance")
    with pytest.raises(FileExistsError, match="choose another --out"):
        run("measure_covariance", *given, "--out", tmp_path / "measured")
    y = genprior.degrade(random(1, 3, 16, 16), "denoise", noise=0.1, seed=0)
    restored = genprior.restore(y, prior=prior, n=1, steps=2, seed=0, progress=False)
    assert type(restored.sampler).__name__ == "OptimalCovariance"


def test_command_line_draws_of_a_label(tmp_path, monkeypatch, capsys):
    layout = SMALL | {"classes": 3}
    known = Published(("labels.pt",), "nothing", layout, SETUP | {"heads": None})
    monkeypatch.setattr(adm_published, "PUBLISHED", (known,))
    torch.save(weights(classes=3), tmp_path / "labels.pt")
    given = ["sample", "--prior", str(tmp_path / "labels.pt"), "--size", "8", "8", "--steps", "2", "-n", "2"]
    assert main([*given, "--label", "1", "-o", str(tmp_path / "one.png")]) == 0
    assert (tmp_path / "one.png").exists()
    assert main([*given, "-o", str(tmp_path / "none.png")]) != 0
    assert "3 classes" in capsys.readouterr().err


def test_card_of_a_file_says_what_it_is_taken_for(tmp_path, listed):
    torch.save(weights(), tmp_path / "renamed.pt")
    card = read_card(tmp_path / "renamed.pt")
    assert card["network"] == "as that of small.pt (nothing)"
    assert card["taken for"] == {key: SETUP[key] for key in SETUP}

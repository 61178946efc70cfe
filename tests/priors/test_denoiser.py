"""Any denoiser as a prior, and folders of priors that were saved by hand."""

from itertools import dropwhile
from types import SimpleNamespace

import deepinv
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import genprior
from genprior.checks import UnsupportedError
from genprior.operators import Inpaint, random_mask
from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import posterior_of
from genprior.priors.base import supports
from genprior.priors.foreign.denoiser import SIGMA_MAX, SIGMA_MIN
from genprior.priors.gaussian.gaussian import Gaussian

SHAPE = (1, 8, 8)
QUIET = {"seed": 0, "progress": False}


def gaussian():
    p = torch.arange(64)
    return Gaussian(torch.full(SHAPE, 0.5), 0.04 * torch.exp(-(p[:, None] - p).abs() / 4))


def masked(n=1):
    A = Inpaint(random_mask(SHAPE[1:], 0.5, 0), SHAPE)
    return Measurement(A(gaussian().sample(n, seed=1)), A, 0.05)


def test_denoiser_of_a_prior_restores_as_the_prior():
    """With the levels, centre and spread of the prior, a sampler cannot tell them apart."""
    prior = gaussian()
    wrapped = genprior.from_denoiser(
        lambda x_t, sigma: prior.denoise(x_t, sigma),
        SHAPE,
        sigma_min=prior.sigma_min,
        sigma_max=prior.sigma_max,
        centre=prior.centre,
        spread=prior.spread,
    )
    for sampler in ("diffpir", "mmps", "dps"):
        options = {"sampler": sampler, "steps": 10, "n": 2, **QUIET}
        found, wanted = (genprior.restore(masked(), prior=p, **options).samples for p in (wrapped, prior))
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert wrapped.capabilities == {"denoise"}


# ---- what is no denoiser ----


def network_of(prior, what):
    """What networks predict in the place of E[x | x_t], of Gaussian data."""
    return {
        "the noise n": lambda x_t, sigma: (x_t - prior.denoise(x_t, sigma)) / sigma,
        "the noise sigma n": lambda x_t, sigma: x_t - prior.denoise(x_t, sigma),
        "the score": lambda x_t, sigma: (prior.denoise(x_t, sigma) - x_t) / sigma**2,
    }[what]


def white(shape):
    return Gaussian(torch.full(shape, 0.5), torch.full(shape, 0.25**2))


@pytest.mark.parametrize("shape", [SHAPE, (3, None, None)])
@pytest.mark.parametrize("what", ["the noise n", "the noise sigma n", "the score"])
def test_networks_that_predict_something_else_are_told_and_what_to_make_of_them(what, shape):
    """The advice, taken as it is printed, gives the denoiser back, to the rounding of float32 over sigma_min^2."""
    truth = white(tuple(a or 64 for a in shape))
    f = network_of(truth, what)
    with pytest.raises(ValueError, match=f"It seems to predict {what}:") as caught:
        genprior.from_denoiser(f, shape)
    advice = str(caught.value).split("genprior.from_denoiser(")[1].split("), with f")[0]
    made = genprior.from_denoiser(eval(advice, {"f": f}), shape)
    x = truth.sample(2, seed=1)
    for sigma in (SIGMA_MIN, 0.1):
        torch.testing.assert_close(made.denoise(x, sigma), truth.denoise(x, sigma), rtol=0, atol=1e-5)


def test_restoring_by_a_network_that_predicts_the_noise_is_refused():
    with pytest.raises(ValueError, match="It seems to predict the noise n"):
        genprior.restore(masked(), prior=network_of(white(SHAPE), "the noise n"), **QUIET)


@pytest.mark.parametrize(
    "denoise",
    [
        lambda x_t, sigma: torch.zeros_like(x_t),
        lambda x_t, sigma: 255 * x_t,
        lambda x_t, sigma: torch.full_like(x_t, torch.nan),
        lambda x_t, sigma: x_t.flip(-1),
    ],
    ids=["nothing", "other units", "not finite", "mirrored"],
)
def test_functions_that_move_an_image_without_noise_are_refused(denoise):
    with pytest.raises(ValueError, match=r"D is none: D\(x, sigma\) should be near x .* Is it trained"):
        genprior.from_denoiser(denoise)


def test_denoisers_of_images_elsewhere_and_of_coarse_levels_are_taken():
    """Wiener's gain moves x by sigma^2 / (v + sigma^2) of its distance from the centre."""
    for centre, spread, low in ((0.0, 100.0, 1.0), (-3.0, 0.01, 0.004), (0.5, 0.25, 0.2)):

        def wiener(x_t, sigma, centre=centre, v=spread**2):
            return centre + v / (v + sigma**2) * (x_t - centre)

        levels = {"sigma_min": low, "sigma_max": 10 * spread, "centre": centre, "spread": spread}
        assert genprior.from_denoiser(wiener, **levels).spread == spread


def test_restoring_takes_a_function_at_the_levels_of_common_denoisers():
    prior, asked = gaussian(), []

    def denoise(x_t, sigma, asked=asked):
        asked.append(sigma)
        return prior.denoise(x_t, sigma)

    found = genprior.restore(masked(), prior=denoise, **QUIET)
    assert asked[0] == SIGMA_MIN  # to see that it is a denoiser, before anything else
    asked = list(dropwhile(lambda sigma: sigma == SIGMA_MIN, asked))
    assert type(found.estimator).__name__ == "ProbedCovariance"
    assert (SIGMA_MIN, SIGMA_MAX) == (0.5 / 255, 50 / 255)
    assert asked[0] == pytest.approx(SIGMA_MAX)
    assert min(asked) >= SIGMA_MIN * (1 - 1e-9)
    assert max(asked) <= SIGMA_MAX * (1 + 1e-9)
    wanted = genprior.restore(masked(), prior=genprior.from_denoiser(denoise, (1, None, None)), **QUIET)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=0)
    # it is a restoration: nearer to the posterior mean than what is seen of the image
    mean = posterior_of(prior, masked()).mean
    hidden = masked().operator.mask[0]
    assert (found.mean - mean)[~hidden].abs().mean() < 0.05


class Near(deepinv.models.DRUNet):
    """An untrained network, but for what a denoiser does without noise: x, and a hundredth of anything."""

    def __init__(self, channels):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(channels, channels, nc=[4, 4, 4, 4], nb=1, pretrained=None)

    def forward(self, x, sigma):
        return x + 0.01 * super().forward(x, sigma)


class Recording(deepinv.models.Denoiser):
    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, x, sigma, **_):
        self.shapes.append(getattr(sigma, "shape", None))
        return x / (1 + self._handle_sigma(sigma, reference_tensor=x))


def test_denoisers_of_deepinv_get_sigma_as_they_know_it():
    denoiser = Recording()
    prior, x = genprior.from_denoiser(denoiser, SHAPE), torch.rand(2, *SHAPE)
    levels = torch.tensor([0.1, 0.3]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(prior.denoise(x, levels), x / (1 + levels))
    torch.testing.assert_close(prior.denoise(x, 0.3)[1], prior.denoise(x, levels)[1])
    assert denoiser.shapes == [None, (2,), None, (2,)]  # the first to see that it is a denoiser
    seen = []
    genprior.from_denoiser(lambda x_t, sigma: seen.append(sigma) or x_t, SHAPE).denoise(x, levels)
    assert [torch.as_tensor(sigma).shape for sigma in seen] == [(), (2, 1, 1, 1)]


def test_wrapped_denoisers_of_deepinv_get_sigma_as_they_know_it():
    levels = torch.tensor([0.1, 0.3]).reshape(2, 1, 1, 1)
    x = torch.rand(2, *SHAPE)
    for wrap in (nn.DataParallel, lambda d: torch.compile(d, backend="eager"), AveragedModel):
        found = genprior.from_denoiser(wrap(Recording()), SHAPE).denoise(x, levels)
        torch.testing.assert_close(found, x / (1 + levels))


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 11), (torch.bfloat16, 8), (torch.float64, 24)])
def test_denoiser_computes_in_its_own_precision(dtype, digits):
    """Of numbers below 1, each of 5 roundings to so many binary digits is at most 2^-digits."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([0.9], dtype=dtype))

        def forward(self, x_t, sigma):
            return 0.3 + nn.functional.conv2d(x_t - 0.3, self.weight.reshape(1, 1, 1, 1))

    x, levels = torch.rand(2, *SHAPE), torch.full((2, 1, 1, 1), 0.1)
    prior = genprior.from_denoiser(Half(), SHAPE)
    for sigma in (0.1, levels):
        found = prior.denoise(x, sigma)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, 0.3 + 0.9 * (x - 0.3), rtol=0, atol=5 * 2.0**-digits)
    assert prior.denoiser.weight.dtype == dtype


def test_restoring_takes_a_network_of_deepinv():
    denoiser = Near(1)
    y = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    options = {"n": 1, "noise": 0.1, "steps": 2, **QUIET}
    found = genprior.restore(y, "denoise", prior=denoiser, **options)
    wanted = genprior.restore(y, "denoise", prior=lambda x_t, sigma: denoiser(x_t, sigma), **options)
    torch.testing.assert_close(found.samples, wanted.samples, rtol=0, atol=0)
    assert denoiser.training == Near(1).training


def test_grey_images_go_through_a_denoiser_of_colour_that_says_so():
    prior = genprior.from_denoiser(lambda x_t, sigma: x_t * torch.ones(3, 1, 1))
    assert prior.image_shape == (3, None, None)
    found = genprior.restore(np.full((8, 8), 0.5), "denoise", prior=prior, n=1, noise=0.1, steps=2, **QUIET)
    assert found.samples.shape == (1, 1, 8, 8)


@pytest.mark.parametrize(("takes", "given"), [(3, 1), (1, 3)])
def test_images_of_other_channels_than_a_bare_network_takes_are_one_clear_error(takes, given):
    network = Near(takes)
    y, options = torch.full((given, 16, 16), 0.5), {"n": 1, "noise": 0.1, "steps": 2, **QUIET}
    says = rf"failed on images \(1, {given}, 16, 16\).*from_denoiser\(denoiser, \({takes}, None, None\)\)"
    with pytest.raises(ValueError, match=says) as caught:
        genprior.restore(y, "denoise", prior=network, **options)
    assert isinstance(caught.value.__cause__, RuntimeError)
    prior = genprior.from_denoiser(network, (takes, None, None))
    if given == 1:  # what the error says to do, does
        assert genprior.restore(y, "denoise", prior=prior, **options).samples.shape == (1, 1, 16, 16)
    else:
        with pytest.raises(ValueError, match="the prior is one of"):
            genprior.restore(y, "denoise", prior=prior, **options)


def test_a_fault_of_the_denoiser_itself_is_left_as_it_is():
    def out_of_memory(x_t, sigma):
        if x_t.shape[1] == 1:
            raise torch.OutOfMemoryError("full")
        return x_t

    x = torch.rand(1, *SHAPE).requires_grad_()
    faults = {ZeroDivisionError: lambda x_t, sigma: 1 / 0, torch.OutOfMemoryError: out_of_memory}
    # of any number of channels, but not where a gradient is wanted
    faults[RuntimeError] = lambda x_t, sigma: torch.from_numpy(x_t.numpy())
    for error, denoiser in faults.items():
        with pytest.raises(error) as caught:
            genprior.from_denoiser(denoiser, SHAPE).denoise(x, 0.1)
        assert caught.type is error


REFUSED = {
    "no function": (TypeError, "give a function", lambda: genprior.from_denoiser(3)),
    "levels": (ValueError, "0 < sigma_min < sigma_max", lambda: genprior.from_denoiser(abs, sigma_min=0.3)),
    "zero": (ValueError, "0 < sigma_min < sigma_max", lambda: genprior.from_denoiser(abs, sigma_min=0.0)),
    "spread": (ValueError, "spread is 0", lambda: genprior.from_denoiser(abs, spread=0)),
    "shape": (ValueError, r"give \(C, H, W\)", lambda: genprior.from_denoiser(abs, (8, 8))),
    "sides": (ValueError, r"give \(C, H, W\)", lambda: genprior.from_denoiser(abs, (1, 8, 0))),
    "another shape": (
        ValueError,
        r"made \(2, 1, 4, 4\) of images \(2, 1, 8, 8\)",
        lambda: genprior.restore(masked(), prior=lambda x_t, sigma: x_t[..., ::2, ::2], **QUIET),
    ),
    "broadcast": (
        ValueError,
        r"made \(2, 3, 8, 8\) of images \(2, 1, 8, 8\).*\(3, None, None\)",
        lambda: genprior.restore(masked(), prior=lambda x_t, sigma: x_t * torch.ones(3, 1, 1), **QUIET),
    ),
    "no tensor": (
        ValueError,
        "made SimpleNamespace of images",
        lambda: genprior.restore(masked(), prior=lambda x_t, sigma: SimpleNamespace(sample=x_t), **QUIET),
    ),
    "a class": (TypeError, "a Prior or a denoiser", lambda: genprior.restore(masked(), prior=nn.Identity, **QUIET)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_denoiser_is_one_clear_error(name):
    kind, message, call = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()


def test_restoring_takes_a_folder_that_was_saved(tmp_path):
    prior = Gaussian(torch.full(SHAPE, 0.5), torch.full(SHAPE, 0.04))
    genprior.save_prior(prior, tmp_path / "new" / "mine", {"licence": "CC0-1.0"})
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["mine"]
    for name in (tmp_path / "new" / "mine", str(tmp_path / "new" / "mine")):
        found = genprior.restore(masked(), prior=name, n=1, **QUIET)
        wanted = genprior.restore(masked(), prior=prior, n=1, **QUIET)
        torch.testing.assert_close(found.samples, wanted.samples, rtol=0, atol=1e-6)
    with pytest.raises(FileExistsError, match="mine exists"):
        genprior.save_prior(prior, tmp_path / "new" / "mine")
    with pytest.raises(ValueError, match="A DenoiserPrior cannot be stored"):
        genprior.save_prior(genprior.from_denoiser(abs), tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_denoiser_has_no_more_than_it_says():
    prior = genprior.from_denoiser(abs)
    assert not supports(prior, "sample")
    with pytest.raises(UnsupportedError, match="DenoiserPrior has no log_prob; it has denoise"):
        prior.log_prob(torch.rand(1, 3, 4, 4))


# ---- networks of EDM ----


class Network(nn.Module):
    """As SongUNet takes it: c_noise of shape (B,), embedded by an outer product."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.01))

    def forward(self, x, c_noise, class_labels=None):
        return self.weight * x + 0.001 * c_noise.ger(torch.ones(1)).cos()[..., None, None]


class Preconditioned(nn.Module):
    """As the networks of EDM's pickles are called: sigma is a tensor, of any shape, on images in [-1, 1]."""

    def __init__(self):
        super().__init__()
        self.network = Network()

    def forward(self, x, sigma):
        sigma = sigma.to(torch.float32).reshape(-1, 1, 1, 1)
        variance = sigma**2 + 0.5**2
        F = self.network(x / variance.sqrt(), (sigma.log() / 4).flatten())
        return 0.5**2 / variance * x + 0.5 * sigma / variance.sqrt() * F


class Embedding(Preconditioned):
    """Of sigma (B,) and nothing else."""

    def forward(self, x, sigma):
        assert sigma.shape == (len(x),)
        return super().forward(x, sigma)


@pytest.mark.parametrize("kind", [Preconditioned, Embedding])
def test_networks_of_edm_get_sigma_in_the_form_that_they_take(kind):
    network = kind()
    prior = genprior.from_denoiser(
        lambda x_t, sigma: (network(2 * x_t - 1, 2 * sigma) + 1) / 2, (3, 8, 8), sigma_min=0.001, sigma_max=40
    )
    x_t = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0.1, 3.0])
    wanted = (network(2 * x_t - 1, 2 * levels) + 1) / 2
    assert torch.equal(prior.denoise(x_t, levels.reshape(2, 1, 1, 1)), wanted)
    for k, sigma in enumerate(levels.tolist()):
        torch.testing.assert_close(prior.denoise(x_t[k : k + 1], sigma), wanted[k : k + 1])
    y = genprior.degrade(x_t[:1], "denoise", noise=0.1, seed=0)
    for sampler in ("dps", "probed-covariance", "daps"):
        genprior.restore(y, prior=prior, sampler=sampler, steps=2, n=1, seed=0, progress=False)


@pytest.mark.parametrize("model_type", ["ncsn", "ddpm"])
def test_networks_of_edm_in_deepinv_are_denoisers(model_type):
    """NCSNpp as it is, and bare in EDMPrecond, on sigma as a number and one for each image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = {"img_resolution": 8, "model_channels": 32, "channel_mult": (1, 2), "num_blocks": 1}
        network = deepinv.models.NCSNpp(
            model_type,
            **small,
            attn_resolutions=(4,),
            pretrained=None,
            pixel_std=0.5,
            _was_trained_on_minus_one_one=True,
        )
    bare = deepinv.models.EDMPrecond(network.forward_unet, pixel_std=0.5)
    x_t = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0.1, 3.0])
    with torch.no_grad():
        wanted = network(x_t, levels)
        for denoiser in (network, lambda x_t, sigma: (bare(2 * x_t - 1, 2 * sigma) + 1) / 2):
            prior = genprior.from_denoiser(denoiser, (3, 8, 8), sigma_min=0.001, sigma_max=40)
            torch.testing.assert_close(prior.denoise(x_t, levels.reshape(2, 1, 1, 1)), wanted)
            torch.testing.assert_close(prior.denoise(x_t[:1], 0.1), wanted[:1])
